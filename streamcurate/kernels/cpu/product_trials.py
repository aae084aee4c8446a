"""Potentials of rows of 8-bit integers, a batch of candidates at a time."""

from __future__ import annotations

import threading

import numpy as np

from streamcurate.kernels.cpu.columns import (
    Columns,
    axes_bytes,
    axes_operations,
    axes_sample,
    choose_columns,
    plain_columns,
    principal_columns,
)
from streamcurate.kernels.cpu.potentials import running_sums
from streamcurate.kernels.cpu.products import Integers, collect, lower, take_best
from streamcurate.kernels.cpu.quantise import quantised_distances
from streamcurate.kernels.metric import Array, Float32, Int32, Int64
from streamcurate.kernels.trials import Means
from streamcurate.kernels.workspace import work_array

_TILE_VALUES = 1 << 18
_SMALLEST_TILE, _LARGEST_TILE = 256, 4096
_TILE_CANDIDATES = 1024
_SAMPLED_ROWS = 512
_SAMPLED_CANDIDATES = 128
# Axes are sought where the products to be saved are so many times as dear; a search knows the first of its blocks only.
_WORTH_AXES = 8
_WORTH_AXES_OF_A_BLOCK = 1
# Axes are chosen when this share of the centres is there, and again each time their number has grown fourfold: the
# more centres, the smaller the potentials, and the fewer coordinates tell that a candidate is farther.
_FIRST_CHOICE = 1 / 32
_NEXT_CHOICE = 4
_WORTH_A_THREAD = 1 << 24


class ProductTrials:
    """Potentials of rows of 8-bit integers, lowered by one centre after the other; see :class:`Trials`.

    Parameters
    ----------
    encoded : (n, d) int8
    weights : (n,) or (0,) int64
    means : Means
    """

    def __init__(self, encoded: Array, weights: Int64, means: Means) -> None:
        self._integers = Integers(encoded)
        self._weights = weights
        self._means = means
        self._columns = plain_columns(encoded.shape[1])
        self._laid: Float32 | None = None
        self._axes: Columns | None = None
        self._chosen = 0
        self._next_choice = max(int(means.clusters * _FIRST_CHOICE), 8)
        # The largest distance there can be tells whether 32 bits hold them all.
        self._kind = np.int32 if encoded.shape[1] * 254**2 < 2**31 else np.int64
        self._potentials = np.empty(0, dtype=np.int64)

    def begin(self, row: int) -> None:
        """Make the first centre."""
        rows = self._integers.rows
        self._potentials = quantised_distances(rows[row : row + 1], rows)[0]

    def running_sums(self) -> Int64:
        """Of weight times potential, over the rows."""
        return running_sums(self._potentials, np.empty(0, dtype=np.int32), self._weights)

    def potentials_of(self, rows: Int64) -> Int64:
        """Of some rows."""
        found: Int64 = self._potentials[rows]
        return found

    def choose(self, candidates: Int64, limits: Int64, tries: int, most: int) -> Int64:
        """Go through candidates; see :class:`Trials`."""
        if self._chosen >= self._next_choice:
            self._choose_columns(candidates)
        rows, batch, columns = self._integers, len(candidates), self._columns
        count, dims = rows.rows.shape
        step = min(max(_TILE_VALUES // max(batch, dims if self._laid is None else 1), _SMALLEST_TILE), _LARGEST_TILE)
        edges = list(range(0, count, step))
        tried = _Laid(rows.rows[candidates], columns)
        # Each tile of rows has its own part, large enough for all pairs; what no hit is written to takes no memory.
        hits, values = np.empty(batch * count, dtype=np.int32), np.empty(batch * count, dtype=self._kind)
        starts = np.array(edges, dtype=np.int64) * batch
        ends = np.empty((len(edges), batch), dtype=np.int64)

        def search(number: int) -> None:
            part = slice(edges[number], min(edges[number] + step, count))
            size = part.stop - part.start
            own = slice(batch * part.start, batch * part.stop)
            products: Float32 = work_array("seeding products", (batch, size), np.float32)
            np.dot(tried.columns, self._part(part).T, out=products)
            collect(products, tried.heights, rows, part, self._potentials, columns.keep, tried.integers,
                    hits[own], values[own], ends[number])  # fmt: skip

        self._spread(search, len(edges), batch * count * columns.width)
        found = take_best(candidates, limits, tries, most, self._potentials, self._weights, starts, ends, hits, values)
        self._chosen += len(found)
        return found

    def _part(self, part: slice) -> Float32:
        """Columns of some rows."""
        if self._laid is not None:
            return self._laid[part]
        columns: Float32 = work_array("seeding columns", (part.stop - part.start, self._columns.width), np.float32)
        self._columns.lay(self._integers.rows[part], self._integers.shifted[part], columns)
        return columns

    def _spread(self, function: object, count: int, operations: int) -> None:
        means = self._means
        if means.threads == 1 or operations < _WORTH_A_THREAD:
            for number in range(count):
                function(number)  # type: ignore[operator]
        else:
            means.spread(function, count)  # type: ignore[arg-type]

    def _choose_columns(self, candidates: Int64) -> None:
        """Choose the columns for the centres there are now, and lay the rows out in them."""
        rows, means = self._integers.rows, self._means
        count, dims = rows.shape
        remaining = (means.clusters - self._chosen) * means.tries
        self._next_choice = _NEXT_CHOICE * self._chosen
        sample = axes_sample(rows)
        if means.spare_bytes < axes_bytes(dims) + 4 * dims * count:
            return
        if 2 * remaining * rows.size < _WORTH_AXES * axes_operations(len(sample), dims):
            return
        if self._axes is None:
            self._axes = principal_columns(sample)
        if self._axes is None:
            return
        some = np.arange(0, count, max(count // _SAMPLED_ROWS, 1))
        found = choose_columns(
            self._axes,
            rows[some],
            rows[candidates[:_SAMPLED_CANDIDATES]],
            self._potentials[some],
            dims / remaining,
        )
        if found.leading == self._columns.leading:
            return
        self._laid = None
        self._columns = found
        self._integers.shift(found.offset)
        if found.leading:
            laid = np.empty((count, found.width), dtype=np.float32)
            step = max(_TILE_VALUES // dims, 1)

            def lay(number: int) -> None:
                part = slice(number * step, min((number + 1) * step, count))
                found.lay(rows[part], self._integers.shifted[part], laid[part])

            self._spread(lay, -(-count // step), count * dims * found.width)
            self._laid = laid


class _Laid:
    """Candidates with their columns."""

    def __init__(self, candidates: Array, columns: Columns) -> None:
        self.integers = Integers(candidates)
        self.integers.shift(columns.offset)
        self.columns: Float32 = np.empty((len(candidates), columns.width), dtype=np.float32)
        step = max(_TILE_VALUES // candidates.shape[1], 1)
        for start in range(0, len(candidates), step):
            part = slice(start, start + step)
            columns.lay(self.integers.rows[part], self.integers.shifted[part], self.columns[part])
        self.heights = columns.heights(self.integers.shifted)


class ProductSearch:
    """Candidates of 8-bit integers, to lower potentials by; see :class:`Search`."""

    def __init__(self, candidates: Array) -> None:
        self._candidates = candidates
        self._laid: tuple[_Laid, Columns] | None = None
        self._choosing = threading.Lock()

    def lower(self, encoded: Array, potentials: Int64, nearest: Int32, first: int) -> None:
        """Lower potentials in place; see :class:`Search`."""
        with self._choosing:
            if self._laid is None:
                columns = self._columns(encoded, potentials)
                self._laid = _Laid(self._candidates, columns), columns
        laid, columns = self._laid
        dims = encoded.shape[1]
        step = min(max(_TILE_VALUES // dims, 64), 512)
        for start in range(0, len(encoded), step):
            part = slice(start, min(start + step, len(encoded)))
            rows = Integers(encoded[part])
            rows.shift(columns.offset)
            own: Float32 = work_array("seeding columns", (len(rows.rows), columns.width), np.float32)
            columns.lay(rows.rows, rows.shifted, own)
            for begin in range(0, len(self._candidates), _TILE_CANDIDATES):
                tile = slice(begin, min(begin + _TILE_CANDIDATES, len(self._candidates)))
                products: Float32 = work_array("seeding products", (len(own), tile.stop - begin), np.float32)
                np.dot(own, laid.columns[tile].T, out=products)
                lower(products, laid.heights[tile], rows, columns.keep, laid.integers, tile,
                      first, potentials[part], nearest[part])  # fmt: skip

    def _columns(self, encoded: Array, potentials: Int64) -> Columns:
        """The columns that suit a block of rows and these candidates."""
        plain = plain_columns(encoded.shape[1])
        count, dims = self._candidates.shape
        sample = axes_sample(self._candidates)
        least = _WORTH_AXES_OF_A_BLOCK * axes_operations(len(sample), dims)
        if count < 2 * dims or 2 * len(encoded) * count * dims < least:
            return plain
        most = principal_columns(sample)
        if most is None:
            return plain
        some = np.arange(0, len(encoded), max(len(encoded) // _SAMPLED_CANDIDATES, 1))
        by_then = potentials[some]
        for start in range(0, count, _TILE_CANDIDATES):
            found = quantised_distances(encoded[some], self._candidates[start : start + _TILE_CANDIDATES])
            by_then = np.minimum(by_then, found.min(axis=1))
        tried = self._candidates[:: max(count // _SAMPLED_ROWS, 1)]
        return choose_columns(most, encoded[some], tried, by_then, dims / count)
