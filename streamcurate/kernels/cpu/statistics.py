"""Statistics of one block."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.rows import float32_rows, squared_norms, unit_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, as_rows, check_metric
from streamcurate.kernels.row_statistics import Statistics

_TILE_BYTES = 2**21


@compiled
def _range_of_bits(bits: Array, masks: Array, usable: Array) -> int:
    """Gather the set bits of each exponent's mantissas into ``masks``; returns the number of rows with NaN or Inf.

    Those rows, whose exponent bits are all set somewhere, are marked False in ``usable`` and otherwise left out.
    """
    rows, dims = bits.shape
    bad = 0
    for i in range(rows):
        largest = np.uint32(0)
        for j in range(dims):
            largest = max(largest, np.uint32(bits[i, j] & np.uint32(0x7FFFFFFF)))
        usable[i] = largest < np.uint32(0x7F800000)
        if not usable[i]:
            bad += 1
            continue
        for j in range(dims):
            word = bits[i, j]
            exponent = (word >> np.uint32(23)) & np.uint32(0xFF)
            masks[exponent] |= word & np.uint32(0x7FFFFF)
            if exponent != 0:
                masks[exponent] |= np.uint32(0x800000)
    return bad


@compiled
def _range_of_values(rows: Array, minimum: Array, maximum: Array) -> None:
    count, dims = rows.shape
    for i in range(count):
        for j in range(dims):
            value = rows[i, j]
            minimum[j] = value if value < minimum[j] else minimum[j]
            maximum[j] = value if value > maximum[j] else maximum[j]


def _exponents(masks: Array) -> tuple[int | None, int | None]:
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
    step = max(1, _TILE_BYTES // (4 * max(1, dims)))
    for start in range(0, len(rows), step):
        values: Float32 = float32_rows(rows[start : start + step])
        usable = np.empty(len(values), dtype=np.bool_)
        unusable = _range_of_bits(values.view(np.uint32), masks, usable)
        if unusable:
            bad += unusable
            first_bad = start + int(np.argmin(usable)) if first_bad < 0 else first_bad
            values = values[usable]
        if not len(values):
            continue
        _range_of_values(values, minimum, maximum)
        norms: Float64 = np.sqrt(squared_norms(values))
        smallest, largest = min(smallest, float(norms.min())), max(largest, float(norms.max()))
        nothing = np.flatnonzero(norms == 0.0)
        if nothing.size:
            zero += int(nothing.size)
            place = int(np.flatnonzero(usable)[nothing[0]])
            first_zero = start + place if first_zero < 0 else first_zero
        if metric == "cosine":
            _range_of_values(unit_rows(values), unit_minimum, unit_maximum)
    lowest, highest = _exponents(masks)
    return Statistics(
        rows=len(rows),
        # Adding zero turns -0.0 into 0.0: which of the two a minimum keeps would depend on the order.
        minimum=minimum + np.float32(0.0),
        maximum=maximum + np.float32(0.0),
        lowest_exponent=lowest,
        highest_exponent=highest,
        bad_rows=bad,
        first_bad_row=first_row + first_bad if bad else -1,
        zero_rows=zero,
        first_zero_row=first_row + first_zero if zero else -1,
        smallest_norm=float(smallest),
        largest_norm=float(largest),
        unit_minimum=unit_minimum + 0.0 if metric == "cosine" else None,
        unit_maximum=unit_maximum + 0.0 if metric == "cosine" else None,
    )
