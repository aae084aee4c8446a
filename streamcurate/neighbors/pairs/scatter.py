"""Small records dealt out to ranges of rows on disk: the radix sort that whole columns of rows go through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.files import disk_errors

Int64 = NDArray[np.int64]

# Records read at a time, whatever their width.
_BLOCK = 1 << 17


class RangeRecords:
    """Records of ``width`` int64 numbers, dealt out by ranges of ``span`` rows; each range keeps their order.

    Parameters
    ----------
    folder : Path
        For the files; what lies there is removed.
    span : int
        Rows of a range.
    width : int
        Numbers of a record.
    memory : int
        Bytes of records gathered before they are written.
    """

    def __init__(self, folder: Path, span: int, width: int, memory: int) -> None:
        self._folder, self._span, self._width, self._memory = folder, span, width, memory
        self._pending: dict[int, list[Int64]] = {}
        self._held = 0
        self._counts: dict[int, int] = {}
        shutil.rmtree(folder, ignore_errors=True)
        with disk_errors(folder):
            folder.mkdir(parents=True)

    def add(self, rows: Int64, records: Int64) -> None:
        """Take in records, shape (m, width), each for the range that holds its row."""
        ranges = rows // self._span
        order = np.argsort(ranges, kind="stable")
        edges = np.flatnonzero(np.diff(ranges[order])) + 1
        for members in np.split(order, edges):
            if len(members):
                number = int(ranges[members[0]])
                self._pending.setdefault(number, []).append(records[members])
                self._counts[number] = self._counts.get(number, 0) + len(members)
        self._held += records.nbytes
        if self._held >= self._memory:
            self.flush()

    def holds(self, number: int) -> bool:
        """Whether a range has records."""
        return number in self._counts

    def flush(self) -> None:
        """Write what is held."""
        for number, parts in self._pending.items():
            path = self._path(number)
            with disk_errors(path), open(path, "ab") as file:
                for part in parts:
                    file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        self._pending, self._held = {}, 0

    def blocks(self, number: int, records: int = _BLOCK) -> Iterator[Int64]:
        """The records of a range in pieces of shape (up to ``records``, width), in the order in which they came."""
        if self._pending:
            self.flush()
        left = self._counts.get(number, 0)
        if not left:
            return
        path = self._path(number)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != left * self._width * 8:
                raise StoreError(f"{path}: scratch was cut short; give the same command again to rebuild it")
            while left:
                block: NDArray[Any] = np.fromfile(file, np.int64, min(records, left) * self._width)
                block = block.reshape(-1, self._width)
                left -= len(block)
                yield block

    def remove(self, number: int) -> None:
        """Forget the records of a range."""
        if self._counts.pop(number, 0):
            self._pending.pop(number, None)
            self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"range-{number}.bin"
