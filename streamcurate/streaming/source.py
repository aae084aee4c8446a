"""Rows that can be streamed: the embeddings of a store and the centroids of a level look the same from here."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamcurate.storage import StoredArray
from streamcurate.streaming.buffers import Allocator


class RowSource(Protocol):
    """A matrix of ``rows`` × ``dims`` read a range of rows at a time, from any thread."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def rows(self) -> int: ...
    @property
    def dims(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""

    @property
    def chunk_rows(self) -> int:
        """Rows stored together; reads that keep to their boundaries are cheapest."""

    @property
    def read_overhead_bytes(self) -> int:
        """Memory a read takes beside its result."""

    @property
    def travels(self) -> bool:
        """Whether other processes can read it where it lies; a pickle of it is small then."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, shape (stop - start, dims), C-contiguous."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order; shape (len(rows), dims)."""


@runtime_checkable
class ReadsInto(Protocol):
    """What a row source may offer beside: rows read into memory that whoever asks for them provides."""

    def read_into(self, allocator: Allocator, start: int, stop: int) -> NDArray[Any]:
        """As :meth:`RowSource.read`; memory that is needed for the result comes from ``allocator``."""


def read_into(source: RowSource, allocator: Allocator, start: int, stop: int) -> NDArray[Any]:
    """Rows ``start`` to ``stop`` of a source, in memory of ``allocator`` where the source can do that."""
    if isinstance(source, ReadsInto):
        return source.read_into(allocator, start, stop)
    return source.read(start, stop)


class StoredRows:
    """A two-dimensional stored array as a row source."""

    travels = True

    def __init__(self, array: StoredArray) -> None:
        self.array = array
        self.name = array.path
        self.rows, self.dims = array.shape
        self.dtype = array.dtype
        self.chunk_rows = array.chunk_rows
        self.read_overhead_bytes = array.read_overhead_bytes

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""
        return self.array.read(start, stop)

    def read_into(self, allocator: Allocator, start: int, stop: int) -> NDArray[Any]:
        """The same rows, in memory of ``allocator``."""
        return self.array.read(start, stop, allocator((stop - start, self.dims), self.dtype))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order."""
        return self.array.take(rows)


class MemoryRows:
    """An array in memory as a row source."""

    read_overhead_bytes = 0
    travels = False

    def __init__(self, values: NDArray[Any], name: str = "array in memory") -> None:
        self.values = np.ascontiguousarray(values)
        self.name = name
        self.rows, self.dims = values.shape
        self.dtype = values.dtype
        self.chunk_rows = max(self.rows, 1)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, a view."""
        return self.values[start:stop]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order."""
        return self.values[rows]


class HeldRows(MemoryRows):
    """Stored rows read into memory once; other processes are sent where they are stored, not the rows."""

    travels = True

    def __init__(self, values: NDArray[Any], origin: RowSource) -> None:
        super().__init__(values, origin.name)
        self.origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        return (_itself, (self.origin,))


def _itself(source: RowSource) -> RowSource:
    return source
