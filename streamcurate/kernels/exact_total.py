"""Sums of non-negative float64 values that do not depend on the order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamcurate.kernels.metric import Float64


@dataclass(frozen=True)
class ExactTotal:
    """An order-free sum: values are rounded to multiples of 2^exponent, and those are summed as integers.

    Attributes
    ----------
    exponent : int
        Exponent of the quantum, the same in all parts of one sum.
    limit_exponent : int
        Values are at most 2^limit_exponent.
    rows : int
        The most values the sum was scaled for.
    units : int
        The sum, in units of 2^exponent (a Python integer: it cannot overflow).
    """

    exponent: int
    limit_exponent: int
    rows: int
    units: int = 0

    @classmethod
    def scale(cls, bound: float, rows: int) -> ExactTotal:
        """An empty sum for up to ``rows`` values, each at most ``bound``.

        The quantum lies 62 bits below the bound's power of two or more while there are fewer than 2^31 rows (and two
        bits less each time the rows double beyond); each value is rounded by half a quantum at most.
        """
        if not (0.0 <= bound < math.inf):
            raise ValueError(f"bound is {bound}; it must be finite and not negative")
        limit = math.frexp(bound)[1] if bound > 0 else 0
        return cls(limit - 2 * cls._limb_bits(rows), limit, rows)

    @staticmethod
    def _limb_bits(rows: int) -> int:
        return min(62 - max(rows, 1).bit_length(), 40)

    def add(self, values: Float64) -> ExactTotal:
        """The sum with a block's values added; ValueError for one that is negative, not finite or above the bound."""
        from streamcurate.kernels.cpu.sums import sum_units

        return self._with(sum_units(values, self.exponent, self._limb_bits(self.rows), self.limit_exponent))

    def combine(self, other: ExactTotal) -> ExactTotal:
        """The sum of both; ValueError where they were scaled differently."""
        if (self.exponent, self.limit_exponent) != (other.exponent, other.limit_exponent):
            raise ValueError(f"sums in units of 2^{self.exponent} and 2^{other.exponent} cannot be combined")
        return self._with(other.units)

    def _with(self, units: int) -> ExactTotal:
        return ExactTotal(self.exponent, self.limit_exponent, self.rows, self.units + units)

    def value(self) -> float:
        """The sum as float64, rounded once."""
        if self.exponent >= 0:
            return float(self.units << self.exponent)
        # Division of Python integers rounds correctly even where numerator or denominator exceed float64.
        return self.units / (1 << -self.exponent)
