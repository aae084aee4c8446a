"""What one pass learns about the data: ranges, exponents, norms, and rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.fixed_point import FixedPoint
from streamcurate.kernels.metric import Float32, Float64


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of rows; parts combine in any order to the same bits.

    Attributes
    ----------
    rows : int
        Rows seen, bad and zero ones included.
    minimum, maximum : (d,) float32
        Per coordinate, over rows that are not bad (+Inf and -Inf where there are none); zeros are positive.
    lowest_exponent, highest_exponent : int or None
        Exponents of the lowest and highest set bit of any value; None where every value is zero.
    bad_rows, first_bad_row : int
        Rows holding NaN or Inf, and the first one's number (-1: none).
    zero_rows, first_zero_row : int
        Rows of zeros only (they have no direction: bad under cosine), and the first one's number (-1: none).
    smallest_norm, largest_norm : float
        Of rows that are not bad: root of the sum of squares, left to right in float64 (inf and 0 where there are none).
    unit_minimum, unit_maximum : (d,) float64 or None
        Per coordinate, of the rows divided by their norm; only where asked for with metric "cosine".
    """

    rows: int
    minimum: Float32
    maximum: Float32
    lowest_exponent: int | None
    highest_exponent: int | None
    bad_rows: int
    first_bad_row: int
    zero_rows: int
    first_zero_row: int
    smallest_norm: float
    largest_norm: float
    unit_minimum: Float64 | None = None
    unit_maximum: Float64 | None = None

    @property
    def dims(self) -> int:
        """Number of coordinates."""
        return len(self.minimum)

    def combine(self, other: Statistics) -> Statistics:
        """The statistics of both sets of rows."""
        if self.dims != other.dims:
            raise ValueError(f"statistics of {self.dims} and of {other.dims} dims cannot be combined")
        unit_minimum = unit_maximum = None
        if self.unit_minimum is not None and other.unit_minimum is not None:
            unit_minimum = np.minimum(self.unit_minimum, other.unit_minimum)
        if self.unit_maximum is not None and other.unit_maximum is not None:
            unit_maximum = np.maximum(self.unit_maximum, other.unit_maximum)
        return Statistics(
            rows=self.rows + other.rows,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            lowest_exponent=_pick(min, self.lowest_exponent, other.lowest_exponent),
            highest_exponent=_pick(max, self.highest_exponent, other.highest_exponent),
            bad_rows=self.bad_rows + other.bad_rows,
            first_bad_row=_first(self.first_bad_row, other.first_bad_row),
            zero_rows=self.zero_rows + other.zero_rows,
            first_zero_row=_first(self.first_zero_row, other.first_zero_row),
            smallest_norm=min(self.smallest_norm, other.smallest_norm),
            largest_norm=max(self.largest_norm, other.largest_norm),
            unit_minimum=unit_minimum,
            unit_maximum=unit_maximum,
        )

    def fixed_point(self, metric: str) -> FixedPoint:
        """The layout in which sums over any of these rows are exact (l2), or rounded once a value (cosine)."""
        rows = max(1, self.rows)
        if metric == "cosine":
            return FixedPoint.for_unit_rows(rows)
        if self.lowest_exponent is None or self.highest_exponent is None:
            return FixedPoint.for_data(0, 0, rows)
        return FixedPoint.for_data(self.lowest_exponent, self.highest_exponent, rows)

    def squared_distance_bound(self, metric: str) -> float:
        """An upper bound of the formula's value between a row and a mean of rows, with room for all rounding."""
        if metric == "cosine":
            return 4.01
        if self.rows == self.bad_rows:
            return 0.0
        spread = self.maximum.astype(np.float64) - self.minimum.astype(np.float64)
        # A stored centroid is rounded to float32, so it may lie one unit in the last place outside the rows' range.
        largest = np.maximum(np.abs(self.maximum), np.abs(self.minimum)).astype(np.float64)
        terms = (spread + largest * 2.0**-22 + 2.0**-148) ** 2
        total = 0.0
        for term in terms.tolist():
            total += term
        return total * (1 + 1e-9)


def _pick(choose: Callable[[list[int]], int], one: int | None, other: int | None) -> int | None:
    present = [value for value in (one, other) if value is not None]
    return choose(present) if present else None


def _first(one: int, other: int) -> int:
    return max(one, other) if one < 0 or other < 0 else min(one, other)
