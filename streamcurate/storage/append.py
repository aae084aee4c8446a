"""Writing an array from front to back in pieces of any length."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.storage.arrays import StoredArray
from streamcurate.storage.shards import ShardWriter


class SequentialWriter:
    """Fills a stored array in order, one chunk in memory at a time, and of plain rows in shards none.

    Parameters
    ----------
    array : StoredArray
    start, stop : int, optional
        The rows to fill, by default all; whole chunks. They must be filled by the time the writer is left.
    """

    def __init__(self, array: StoredArray, start: int = 0, stop: int | None = None) -> None:
        self._array = array
        self._buffer: NDArray[Any] | None = None
        self._shard: ShardWriter | None = None
        self._position = start
        self._stop = array.rows if stop is None else stop
        if start % array.chunk_rows or (self._stop % array.chunk_rows and self._stop != array.rows):
            raise ValueError(f"{array.path}: rows {start} to {self._stop} are not whole chunks of {array.chunk_rows}")

    def __enter__(self) -> SequentialWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:  # an unfinished shard is of no use to anybody
            self._shard.abort()
        if kind is None and self._position != self._stop:
            raise ValueError(f"{self._array.path}: written up to row {self._position} of {self._stop}")

    def append(self, values: NDArray[Any]) -> None:
        """Add rows; whole chunks are written as they fill."""
        array, taken = self._array, 0
        while taken < len(values):
            chunk = self._position // array.chunk_rows * array.chunk_rows
            end = min(chunk + array.chunk_rows, self._stop)
            count = min(len(values) - taken, end - self._position)
            if count <= 0:
                raise ValueError(f"{array.path}: more rows than up to {self._stop}")
            part = values[taken : taken + count]
            taken += count
            if array.layout.kind == "shards":
                self._append_to_shard(chunk, end, part)
            elif self._position == chunk and chunk + count == end:
                array.write(chunk, part)  # a whole chunk needs no copy
            else:
                if self._buffer is None:
                    self._buffer = np.empty((end - chunk, *array.shape[1:]), dtype=array.dtype)
                self._buffer[self._position - chunk : self._position - chunk + count] = part
                if self._position + count == end:
                    array.write(chunk, self._buffer)
                    self._buffer = None
            self._position += count

    def _append_to_shard(self, start: int, end: int, part: NDArray[Any]) -> None:
        if self._shard is None:
            self._shard = ShardWriter(self._array, start // self._array.chunk_rows)
        self._shard.append(part)
        if self._position + len(part) == end:
            self._shard.close()
            self._shard = None
