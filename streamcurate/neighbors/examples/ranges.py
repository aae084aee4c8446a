"""Parts of row sources and of the arrays beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowsets import NumberFile
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
    """Some rows of a source; a ``RowSource``.

    Parameters
    ----------
    source : RowSource
    chosen : NumberFile
        Row numbers, ascending.
    """

    def __init__(self, source: RowSource, chosen: NumberFile) -> None:
        self._source, self._chosen = source, chosen
        self.name = source.name
        self.rows, self.dims, self.dtype = chosen.count, source.dims, source.dtype
        self.chunk_rows = max(chosen.count, 1)
        self.read_overhead_bytes = source.read_overhead_bytes
        self.travels = source.travels

    def numbers(self, start: int, stop: int) -> NDArray[np.int64]:
        """The row numbers of rows ``start`` to ``stop``."""
        return next(self._chosen.pieces(start, stop, stop - start))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of those chosen."""
        return self._source.take(self.numbers(start, stop))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows of those chosen, given in ascending order."""
        return self._source.take(self._chosen.take(rows))
