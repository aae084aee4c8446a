"""Statistics of one block."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamcurate.kernels.cpu.rows import float32_rows, squared_norms, unit_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, as_rows, check_metric
from streamcurate.kernels.row_statistics import Statistics

_TILE_BYTES = 2**21
_POWERS = np.ldexp(np.float32(1.0), np.arange(127)).astype(np.float32)
_NO_BIT = 1 << 20


@compiled
def _usable_rows(bits: Array, usable: Array) -> tuple[int, Any]:
    """Mark rows with NaN or Inf, whose exponent bits are all set somewhere, False in ``usable``.

    Returns their number, and the largest magnitude's bits among the others.
    """
    rows, dims = bits.shape
    bad = 0
    top = np.uint32(0)
    for i in range(rows):
        largest = np.uint32(0)
        for j in range(dims):
            largest = max(largest, np.uint32(bits[i, j] & np.uint32(0x7FFFFFFF)))
        usable[i] = largest < np.uint32(0x7F800000)
        if usable[i]:
            top = max(top, largest)
        else:
            bad += 1
    return bad, top


@compiled
def _lowest_bit(bits: Array, values: Float32, powers: Float32, masks: Array, lowest: int) -> int:
    """The exponent of the lowest set bit of any value, ``lowest`` the one so far (``_NO_BIT`` where there is none).

    Once that is known and a usual one, a row is looked at closely, bit by bit, only if a value of it is no multiple of
    2^lowest; the product below is exact, or overflows to Inf, and what is so large is a multiple.
    """
    rows, dims = values.shape
    for i in range(rows):
        if -len(powers) < lowest <= 0:
            scale = powers[-lowest]
            broken = np.uint32(0)
            for j in range(dims):
                multiple = values[i, j] * scale
                broken += np.uint32(np.trunc(multiple) != multiple)
            if broken == 0:
                continue
        masks[:] = 0
        for j in range(dims):
            exponent = (bits[i, j] >> np.uint32(23)) & np.uint32(0xFF)
            masks[exponent] |= bits[i, j] & np.uint32(0x7FFFFF)
            if exponent != 0:
                masks[exponent] |= np.uint32(0x800000)
        for exponent in range(255):
            if masks[exponent] != 0:
                # A float32 is mantissa 2^(exponent - 150), its leading bit implied; exponent 0 counts like 1, without.
                unit, mask = max(exponent, 1) - 150, masks[exponent]
                while mask & np.uint32(1) == 0:
                    mask >>= np.uint32(1)
                    unit += 1
                lowest = min(lowest, unit)
    return lowest


@compiled
def _range_of_values(rows: Array, minimum: Array, maximum: Array) -> None:
    # Eight rows at a time, so that the ranges are loaded and stored once for them.
    count, dims = rows.shape
    whole = count - count % 8
    for i in range(0, whole, 8):
        for j in range(dims):
            a, b, c, d = rows[i, j], rows[i + 1, j], rows[i + 2, j], rows[i + 3, j]
            e, f, g, h = rows[i + 4, j], rows[i + 5, j], rows[i + 6, j], rows[i + 7, j]
            ab, cd, ef, gh = a if a < b else b, c if c < d else d, e if e < f else f, g if g < h else h
            abcd, efgh = ab if ab < cd else cd, ef if ef < gh else gh
            least = abcd if abcd < efgh else efgh
            minimum[j] = least if least < minimum[j] else minimum[j]
            ab, cd, ef, gh = a if a > b else b, c if c > d else d, e if e > f else f, g if g > h else h
            abcd, efgh = ab if ab > cd else cd, ef if ef > gh else gh
            most = abcd if abcd > efgh else efgh
            maximum[j] = most if most > maximum[j] else maximum[j]
    for i in range(whole, count):
        for j in range(dims):
            value = rows[i, j]
            minimum[j] = value if value < minimum[j] else minimum[j]
            maximum[j] = value if value > maximum[j] else maximum[j]


def _exponents(masks: Array) -> tuple[int | None, int | None]:
    """Exponents of the lowest and highest bit in the mantissas gathered for each exponent, as a GPU gathers them."""
    lowest: int | None = None
    highest: int | None = None
    for exponent, mask in enumerate(masks.tolist()):
        if mask:
            # A float32 is mantissa 2^(exponent - 150), its leading bit implied; exponent 0 counts like 1, without it.
            unit = max(exponent, 1) - 150
            low = unit + (mask & -mask).bit_length() - 1
            lowest = low if lowest is None else min(lowest, low)
            highest = unit + mask.bit_length() - 1
    return lowest, highest


def _highest_bit(bits: int) -> int:
    """The exponent of the highest set bit of a magnitude given by its float32 bits, which are not all zero."""
    exponent, mantissa = bits >> 23, bits & 0x7FFFFF
    return exponent - 127 if exponent else mantissa.bit_length() - 150


def statistics(rows: Array, metric: str = "l2", first_row: int = 0) -> Statistics:
    """Ranges, exponents, norms and unusable rows of a block.

    Parameters
    ----------
    rows : (m, d) float16 or float32
    metric : "l2" or "cosine"
        With "cosine" the ranges of the unit rows are taken as well.
    first_row : int
        The number of the block's first row, added to the row numbers reported.

    Returns
    -------
    Statistics

    Notes
    -----
    Work buffers: about 8 MiB, or one row's 12 bytes a value where that is more.
    """
    check_metric(metric)
    rows = as_rows(rows)
    dims = rows.shape[1]
    masks = np.zeros(256, dtype=np.uint32)
    minimum = np.full(dims, np.inf, dtype=np.float32)
    maximum = np.full(dims, -np.inf, dtype=np.float32)
    unit_minimum = np.full(dims, np.inf)
    unit_maximum = np.full(dims, -np.inf)
    bad = zero = 0
    first_bad = first_zero = -1
    smallest, largest = np.inf, 0.0
    lowest, top = _NO_BIT, 0
    step = max(1, _TILE_BYTES // (4 * max(1, dims)))
    for start in range(0, len(rows), step):
        values: Float32 = float32_rows(rows[start : start + step])
        usable = np.empty(len(values), dtype=np.bool_)
        unusable, tile_top = _usable_rows(values.view(np.uint32), usable)
        top = max(top, int(tile_top))
        if unusable:
            bad += unusable
            first_bad = start + int(np.argmin(usable)) if first_bad < 0 else first_bad
            values = values[usable]
        if not len(values):
            continue
        lowest = _lowest_bit(values.view(np.uint32), values, _POWERS, masks, lowest)
        _range_of_values(values, minimum, maximum)
        squared = squared_norms(values)
        norms: Float64 = np.sqrt(squared)
        smallest, largest = min(smallest, float(norms.min())), max(largest, float(norms.max()))
        nothing = np.flatnonzero(norms == 0.0)
        if nothing.size:
            zero += int(nothing.size)
            place = int(np.flatnonzero(usable)[nothing[0]])
            first_zero = start + place if first_zero < 0 else first_zero
        if metric == "cosine":
            _range_of_values(unit_rows(values, squared=squared), unit_minimum, unit_maximum)
    return Statistics(
        rows=len(rows),
        # Adding zero turns -0.0 into 0.0: which of the two a minimum keeps would depend on the order.
        minimum=minimum + np.float32(0.0),
        maximum=maximum + np.float32(0.0),
        lowest_exponent=lowest if top else None,
        highest_exponent=_highest_bit(top) if top else None,
        bad_rows=bad,
        first_bad_row=first_row + first_bad if bad else -1,
        zero_rows=zero,
        first_zero_row=first_row + first_zero if zero else -1,
        smallest_norm=float(smallest),
        largest_norm=float(largest),
        unit_minimum=unit_minimum + 0.0 if metric == "cosine" else None,
        unit_maximum=unit_maximum + 0.0 if metric == "cosine" else None,
    )
