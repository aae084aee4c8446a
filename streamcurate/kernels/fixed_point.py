"""How exact sums are held: integers of a common quantum, split into limbs that cannot overflow."""

from __future__ import annotations

import math
from dataclasses import dataclass

UNIT_QUANTUM = -60
"""Unit rows (cosine) are rounded once to multiples of 2^-60, 2^7 times finer than the float64 rounding of 1.0."""

# 2^52 / 2^48: sixteen limb values still sum exactly in float64, in which they are added before they become integers.
_LARGEST_LIMB_BITS = 48


@dataclass(frozen=True)
class FixedPoint:
    """Values as integers of 2^lowest, written in ``limbs`` digits of ``limb_bits`` bits each.

    Attributes
    ----------
    lowest : int
        Exponent of the quantum: every value is an integer multiple of 2^lowest.
    limb_bits : int
        Bits of one limb; limb l counts in units of 2^(lowest + l limb_bits).
    limbs : int
        Number of limbs.
    rows : int
        The most rows a sum may take without any limb passing 2^62.
    """

    lowest: int
    limb_bits: int
    limbs: int
    rows: int

    @classmethod
    def for_data(cls, lowest_exponent: int, highest_exponent: int, rows: int) -> FixedPoint:
        """For data whose bits lie between 2^lowest_exponent and 2^highest_exponent (both from the statistics).

        Parameters
        ----------
        lowest_exponent : int
            Exponent of the lowest set bit of any value.
        highest_exponent : int
            Exponent of the highest set bit of any value: all |x| < 2^(highest_exponent + 1).
        rows : int
            Upper bound of the number of rows in any one sum.
        """
        if lowest_exponent > highest_exponent:
            raise ValueError(f"the lowest exponent {lowest_exponent} is above the highest, {highest_exponent}")
        if rows < 1:
            raise ValueError(f"rows is {rows}; a sum takes one row at least")
        # rows.bit_length() is ceil(log2(rows + 1)): so many values of limb_bits bits stay below 2^62.
        limb_bits = min(62 - rows.bit_length(), _LARGEST_LIMB_BITS)
        if limb_bits < 8:
            raise ValueError(f"{rows} rows are more than exact sums allow for (2^54)")
        bits = highest_exponent + 1 - lowest_exponent
        return cls(lowest_exponent, limb_bits, max(1, -(-bits // limb_bits)), rows)

    @classmethod
    def for_unit_rows(cls, rows: int) -> FixedPoint:
        """For cosine: unit rows, rounded to multiples of 2^-60."""
        return cls.for_data(UNIT_QUANTUM, 0, rows)

    def quantum(self, limb: int) -> float:
        """The unit a limb counts in."""
        return math.ldexp(1.0, self.lowest + limb * self.limb_bits)
