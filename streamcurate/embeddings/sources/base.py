"""What a reader of foreign data gives: blocks of rows in order, and the stamps of the files they come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate import objects
from streamcurate.errors import ObjectError

# Blocks of this size keep reading, checking and converting in the processor's cache at little cost a block.
BLOCK_BYTES = 8 << 20
# Ids of a block are Python strings for a moment: tens of bytes each, however short the rows are.
_BLOCK_ROWS = 1 << 16

TEXT = np.dtypes.StringDType()
INTEGER = np.dtype(np.int64)

Block = tuple[NDArray[Any], NDArray[Any] | None]


class Stamp(NamedTuple):
    """What tells one state of a file from another: its path, its bytes, its modification time in nanoseconds.

    For an object of a store the last is a number made of what the store calls its state.
    """

    path: str
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Stamp:
        """The stamp of a file or object as it is now."""
        place = os.fspath(path)
        if objects.is_url(place):
            found = objects.status(place)
            if found is None:
                raise ObjectError(f"{place}: no such object; check the URL")
            return cls(place, found.size, found.state)
        status = os.stat(place)
        return cls(os.path.abspath(place), status.st_size, status.st_mtime_ns)


class SourceReader(Protocol):
    """One source of rows: a file, an array at rest, or an array in memory."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def rows(self) -> int | None:
        """Number of rows; None where only reading tells."""

    @property
    def dims(self) -> int:
        """Length of a row; of no meaning where there are no rows."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16, float32 or float64, native byte order."""

    @property
    def ids_dtype(self) -> np.dtype[Any] | None:
        """``TEXT``, ``INTEGER`` or None where the rows have no ids."""

    @property
    def bad_values(self) -> str:
        """What a row that cannot be used holds, for messages; readers of data with nulls give those as NaN."""

    @property
    def read_overhead_bytes(self) -> int:
        """Memory that reading takes beside the blocks."""

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on, in order: values (m, dims) in native byte order, and ids (m,) or None."""

    def stamps(self) -> list[Stamp]:
        """State of all files the rows come from."""


def block_rows(dims: int, dtype: np.dtype[Any]) -> int:
    """Rows of one block."""
    return max(1, min(BLOCK_BYTES // max(dims * dtype.itemsize, 1), _BLOCK_ROWS))


def open_binary(path: str) -> BinaryIO:
    """Open a file without a buffer, so that every read goes straight into its array; or an object of a store.

    Raises
    ------
    FileNotFoundError, ObjectError
        There is none.
    """
    if objects.is_url(path):
        return objects.open_file(path)
    return open(path, "rb", buffering=0)


def request_bytes(path: str) -> int:
    """Memory that requests to an object store take beside what they fill; none for a file."""
    return objects.READ_OVERHEAD_BYTES if objects.is_url(path) else 0


def is_file(path: str) -> bool:
    """Whether there is such a file, or such an object."""
    return objects.status(path) is not None if objects.is_url(path) else os.path.isfile(path)
