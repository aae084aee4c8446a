"""Edges between duplicate rows, at rest: pairs of row numbers in checksummed files of scratch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, write_file

Int64 = NDArray[np.int64]

EDGE_BYTES = 16
_STORED = np.dtype("<i8")
# Edges read at a time: 4 MiB.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class EdgeFile:
    """A file of edges.

    Attributes
    ----------
    path : str
    count : int
        Edges in it.
    checksum : str
        XXH3-128 of its bytes.
    """

    path: str
    count: int
    checksum: str

    def to_values(self) -> dict[str, Any]:
        """What JSON can hold; the folder is left out, so that scratch may be moved."""
        return {"file": os.path.basename(self.path), "count": self.count, "checksum": self.checksum}

    @classmethod
    def from_values(cls, values: dict[str, Any], folder: str | os.PathLike[str]) -> EdgeFile:
        """What :meth:`to_values` gave, the file lying in ``folder``."""
        return cls(os.path.join(folder, values["file"]), int(values["count"]), str(values["checksum"]))

    def blocks(self, rows: int = _BLOCK) -> Iterator[Int64]:
        """The edges, int64 (up to ``rows``, 2), in the order in which they were written.

        Raises
        ------
        StoreError
            The file is gone or damaged. A changed byte shows only at the end: what was given before counts only once
            the last block has been asked for.
        """
        digest = xxhash.xxh3_128()
        left = self.count
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size != left * EDGE_BYTES:
                    raise self.damaged()
                while left:
                    block = np.fromfile(file, _STORED, 2 * min(rows, left))
                    if block.size != 2 * min(rows, left):
                        raise self.damaged()
                    digest.update(block.view(np.uint8).data)
                    left -= len(block) // 2
                    yield block.astype(np.int64, copy=False).reshape(-1, 2)
        except FileNotFoundError:
            raise self.damaged() from None
        if digest.hexdigest() != self.checksum:
            raise self.damaged()

    def intact(self) -> bool:
        """Whether the file is there with the content it was written with; reads it through."""
        try:
            for _ in self.blocks():
                pass
        except StoreError:
            return False
        return True

    def remove(self) -> None:
        """Remove the file."""
        Path(self.path).unlink(missing_ok=True)

    def damaged(self) -> StoreError:
        """The error that says so."""
        return StoreError(f"{self.path}: scratch is gone or damaged; give the same command again to rebuild it")


def write_edges(path: str | os.PathLike[str], edges: Int64) -> EdgeFile:
    """Write edges, complete or not at all.

    Parameters
    ----------
    path : path
        The file; its folder exists. An existing file is replaced.
    edges : ndarray of int64, shape (m, 2)
        Row numbers u, v of two duplicates, u above v.
    """
    if not (edges[:, 0] > edges[:, 1]).all():
        raise ValueError("an edge goes from a higher row to a lower one")
    stored = np.ascontiguousarray(edges, dtype=_STORED)
    data = stored.reshape(-1).view(np.uint8).data
    write_file(path, data, durable=False)
    return EdgeFile(os.fspath(path), len(stored), xxhash.xxh3_128_hexdigest(data))


def write_pairs(path: str | os.PathLike[str], blocks: Iterable[Int64]) -> EdgeFile:
    """Write pairs of rows that come in blocks, whichever of the two is higher, complete or not at all.

    Parameters
    ----------
    path : path
        The file; its folder exists. An existing file is replaced.
    blocks : iterable of ndarray of int64, shape (m, 2)
    """
    temporary = f"{os.fspath(path)}.{os.getpid()}{TEMPORARY_SUFFIX}"
    digest, count = xxhash.xxh3_128(), 0
    with disk_errors(path):
        with open(temporary, "wb") as file:
            for block in blocks:
                data = np.ascontiguousarray(block, dtype=_STORED).reshape(-1).view(np.uint8).data
                digest.update(data)
                file.write(data)
                count += len(block)
        os.replace(temporary, path)
    return EdgeFile(os.fspath(path), count, digest.hexdigest())
