"""Parts of row sources and of the arrays beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.storage import StoredArray
from streamcurate.streaming import RowSource


class ArrayRange:
    """A range of a stored row-aligned array, for passes over that range of the rows.

    Parameters
    ----------
    array : StoredArray
    start, stop : int
    """

    def __init__(self, array: StoredArray, start: int, stop: int) -> None:
        self._array, self._start = array, start
        self.rows = stop - start
        self.row_bytes, self.read_overhead_bytes = array.row_bytes, array.read_overhead_bytes

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Entries ``start`` to ``stop`` of the range."""
        return self._array.read(self._start + start, self._start + stop)


class ChosenRows:
    """Some rows of a source, by their numbers in a file; a ``RowSource``.

    Parameters
    ----------
    source : RowSource
    path : Path
        int64 row numbers, ascending.
    count : int
    """

    def __init__(self, source: RowSource, path: Path, count: int) -> None:
        self._source, self._path = source, path
        self.name = source.name
        self.rows, self.dims, self.dtype = count, source.dims, source.dtype
        self.chunk_rows = max(count, 1)
        self.read_overhead_bytes = source.read_overhead_bytes
        self.travels = source.travels

    def numbers(self, start: int, stop: int) -> NDArray[np.int64]:
        """The row numbers of rows ``start`` to ``stop``."""
        found = np.fromfile(self._path, np.int64, stop - start, offset=8 * start)
        if len(found) != stop - start:
            raise StoreError(f"{self._path}: scratch was cut short; give the same command again to rebuild it")
        return found

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of those chosen."""
        return self._source.take(self.numbers(start, stop))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows of those chosen, given in ascending order."""
        numbers = self.numbers(0, self.rows)
        return self._source.take(numbers[rows])
