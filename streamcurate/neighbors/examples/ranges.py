"""Parts of row sources and of the arrays beside them, and into which parts a search cuts its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowsets import NumberFile
from streamcurate.storage import StoredArray
from streamcurate.streaming import RowSource

# A part is kept, and its blocks under way are waited for, when a search is stopped: a few seconds on two cores, and a
# block of it about one, but never more parts than so many. A part is a pass of its own, which makes its seeds ready
# again: that is a twentieth of the work for so few rows, whatever the seeds.
_PARTS = 1024
_PART_OPERATIONS = 1 << 37
_FEWEST_ROWS = 1 << 12
_MOST_ROWS = 1 << 20


def parts_of(rows: int, chunk_rows: int, row_operations: int) -> Iterator[tuple[int, int]]:
    """Cut rows into the parts that a search keeps one by one: whole stored chunks where these are smaller.

    Parameters
    ----------
    rows : int
    chunk_rows : int
        Rows of a stored chunk.
    row_operations : int
        Arithmetic operations for a row, all seeds together.
    """
    few = max(_PART_OPERATIONS // max(row_operations, 1), _FEWEST_ROWS)
    step = max(-(-rows // _PARTS), min(_MOST_ROWS, few))
    if chunk_rows <= step:
        step = step // chunk_rows * chunk_rows
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def most_seeds(dims: int) -> int:
    """Seeds of one pass, of which the smallest part of the rows is no longer work than any part."""
    return max(_PART_OPERATIONS // (2 * dims * _FEWEST_ROWS), 1)


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
