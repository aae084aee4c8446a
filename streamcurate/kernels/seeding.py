"""Rows in the form seeding sees them: distances that are the same integers on every backend.

Above 16 dims rows are rounded to 8-bit integers, whose float32 matrix product is exact: D^2 sampling at matrix speed.
At few dims 8 bits are too coarse (measured: k-means++ on 9,000 2-D points, k = 3000, ends 13 %
worse), and the float64 formula is cheap: its values, scaled by a power of two and rounded, serve as the integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.backend import Backend, get_backend
from streamcurate.kernels.metric import Array, Float64, Int32, Int64, as_rows, check_metric
from streamcurate.kernels.row_statistics import Statistics
from streamcurate.kernels.trials import Means, Search, Trials

LARGEST_EXACT_DIMS = 16


@dataclass(frozen=True)
class Quantiser:
    """Rounds rows to integers from -127 to 127: rint((x - offset) / step).

    Attributes
    ----------
    offset : (d,) float64
        The middle of each coordinate's range.
    step : float
        One step for all coordinates, 1/127 of the widest half range, so that distances keep their proportions.
    """

    offset: Float64
    step: float

    @classmethod
    def for_statistics(cls, statistics: Statistics, metric: str) -> Quantiser:
        """Made from the ranges of the rows, or of the unit rows for cosine (statistics taken with that metric)."""
        check_metric(metric)
        if metric == "cosine":
            if statistics.unit_minimum is None or statistics.unit_maximum is None:
                raise ValueError('the statistics lack the unit rows\' ranges: take them with metric "cosine"')
            low, high = statistics.unit_minimum, statistics.unit_maximum
        else:
            low, high = statistics.minimum.astype(np.float64), statistics.maximum.astype(np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("the statistics cover no usable row")
        step = float(((high - low) / 2).max(initial=0.0)) / 127
        return cls((low + high) / 2, step if step > 0 else 1.0)


@dataclass(frozen=True)
class SeedingSpace:
    """Encodes rows for seeding and measures between encoded rows; made by :func:`seeding_space`.

    Attributes
    ----------
    metric : "l2" or "cosine"
    dims : int
    quantiser : Quantiser or None
        None: rows stay as they are (float32 unit rows for cosine), potentials are scaled formula values.
    exponent : int
        Potentials are formula values times 2^exponent, rounded; 0 with a quantiser.
    """

    metric: str
    dims: int
    quantiser: Quantiser | None
    exponent: int

    @property
    def bytes_per_row(self) -> int:
        """The most bytes an encoded row takes."""
        return self.dims * (1 if self.quantiser is not None else 4)

    def encode(self, rows: Array, backend: Backend | None = None) -> Array:
        """(m, d) rows in the form seeding keeps: int8; or at few dims float32 (l2: the rows themselves).

        Computed by ``backend``, by default the CPU.
        """
        if self.quantiser is not None:
            return (backend or get_backend()).quantise(rows, self.quantiser, self.metric)
        from streamcurate.kernels.cpu.quantise import unit_float32

        rows = as_rows(rows)
        return unit_float32(rows) if self.metric == "cosine" else rows

    def potentials(self, rows: Array, centres: Array, backend: Backend | None = None) -> Int64:
        """Squared distances as integers between encoded rows (m, d) and encoded centres (b, d): (m, b) int64.

        Sums over all rows the space was made for stay below 2^62. Besides the result at most 12 MiB of work buffers
        (more for thousands of dims) and the centres as float32 or float64.
        """
        from streamcurate.kernels.cpu.quantise import exact_potentials

        if self.quantiser is not None:
            return (backend or get_backend()).quantised_distances(rows, centres)
        return exact_potentials(rows, centres, self.exponent)

    def trials(self, encoded: Array, weights: Int64, means: Means) -> Trials:
        """Potentials of encoded rows (n, d), to be lowered by one centre after the other; on the CPU.

        ``weights`` (n,) int64 of the rows; (0,) where each weighs one.
        """
        from streamcurate.kernels.cpu.product_trials import ProductTrials
        from streamcurate.kernels.cpu.row_boxes import BoxTrials

        if self.quantiser is None:
            return BoxTrials(encoded, self.exponent, weights)
        return ProductTrials(encoded, weights, means)

    def search(self, candidates: Array, backend: Backend | None = None) -> Search:
        """Encoded candidates (b, d), at least one, to lower the potentials of many rows by; for several threads."""
        from streamcurate.kernels.cpu.product_trials import ProductSearch
        from streamcurate.kernels.cpu.row_boxes import BoxSearch

        if self.quantiser is None:
            return BoxSearch(candidates, self.exponent)
        if backend is not None and backend.name != "cpu":
            return _DeviceSearch(self, candidates, backend)
        return ProductSearch(candidates)

    def search_bytes(self, candidates: int) -> int:
        """The most memory that :meth:`search` of so many candidates holds, the candidates included."""
        from streamcurate.kernels.cpu.columns import axes_bytes

        # As given, as float32 columns or in the order of a tree; and what axes are sought with.
        axes = axes_bytes(self.dims) if self.quantiser is not None and candidates >= 2 * self.dims else 0
        return candidates * (5 * self.bytes_per_row + 64) + axes

    def nearest(self, rows: Array, centres: Array, backend: Backend | None = None) -> tuple[Int32, Int64]:
        """The centre of smallest potential of each encoded row, ties to the lowest: (m,) int32 and (m,) int64.

        Rows and centres are taken in tiles, so the work buffers do not grow with either.
        """
        labels = np.zeros(len(rows), dtype=np.int32)
        best = np.full(len(rows), np.iinfo(np.int64).max, dtype=np.int64)
        for first in range(0, len(centres), 1024):
            part = centres[first : first + 1024]
            for start in range(0, len(rows), 512):
                tile = slice(start, start + 512)
                found = self.potentials(rows[tile], part, backend)
                which = found.argmin(axis=1)
                value = found[np.arange(len(found)), which]
                better = value < best[tile]
                best[tile] = np.where(better, value, best[tile])
                labels[tile] = np.where(better, which + first, labels[tile])
        return labels, best


class _DeviceSearch:
    """Candidates to lower potentials by on another device: all distances there, the smallest of them here."""

    def __init__(self, space: SeedingSpace, candidates: Array, backend: Backend) -> None:
        self._space, self._candidates, self._backend = space, candidates, backend

    def lower(self, encoded: Array, potentials: Int64, nearest: Int32, first: int) -> None:
        position, found = self._space.nearest(encoded, self._candidates, self._backend)
        better = found < potentials
        nearest[better] = position[better] + np.int32(first)
        potentials[better] = found[better]


def seeding_space(statistics: Statistics, rows: int, dims: int, metric: str) -> SeedingSpace:
    """The seeding form of data with these statistics.

    Parameters
    ----------
    statistics : Statistics
        Of all rows that will be encoded; for cosine taken with that metric.
    rows : int
        The most rows potentials are summed over.
    dims : int
    metric : "l2" or "cosine"

    Raises
    ------
    ValueError
        Statistics of no usable row or other dims, or so many rows and dims that 62 bits cannot hold the sums.
    """
    check_metric(metric)
    if dims != statistics.dims:
        raise ValueError(f"the statistics cover {statistics.dims} dims, not {dims}")
    if dims > LARGEST_EXACT_DIMS:
        if rows * dims * 254**2 >= 2**62:
            raise ValueError(f"potentials of {rows} rows of {dims} dims can pass 2^62")
        return SeedingSpace(metric, dims, Quantiser.for_statistics(statistics, metric), 0)
    bound = statistics.squared_distance_bound(metric)
    # rows bound < 2^(bit lengths), so scaled values, each rounded up by less than one, sum to less than 2^62.
    exponent = 60 - max(rows, 1).bit_length() - (math.frexp(bound)[1] if bound > 0 else 0)
    return SeedingSpace(metric, dims, None, exponent)
