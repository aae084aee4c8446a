"""Exact sums by cluster, and the means of them.

A value is a sum of pieces, piece l a multiple of the quantum 2^(lowest + l limb_bits): with M = 1.5 2^52 quantum,
(r + M) - M is r rounded to a multiple of the quantum, exactly, while |r| < 2^51 quanta; what remains is at most half a
quantum and exact as well. Pieces are added in float64, where 2^(52 - limb_bits) of them are still exact, and then
moved to the int64 limbs: whole vector registers at work, where converting each value would go one by one.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.grouping import group_by_label
from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.fixed_point import UNIT_QUANTUM, FixedPoint
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import (
    Array,
    Float32,
    Float64,
    Int32,
    Int64,
    as_centroids,
    as_rows,
    check_metric,
)
from streamcurate.kernels.sums_partial import ClusterSums
from streamcurate.kernels.workspace import work_array

_TILE_BYTES = 2**20


@compiled
def _flush(sums: Float64, scales: Float64, limbs: Int64, slot: int) -> None:
    for limb in range(len(scales)):
        for j in range(sums.shape[1]):
            limbs[limb, slot, j] += np.int64(sums[limb, j] * scales[limb])
            sums[limb, j] = 0.0


@compiled
def _add_rows(
    rows: Array, slots: Int64, magic: Float64, scales: Float64, most: int, sums: Float64, limbs: Int64
) -> None:
    # ``rows`` come ordered by slot. ``scales`` are the inverse quanta, ``magic`` 1.5 2^52 quanta.
    count, dims = rows.shape
    pieces = len(magic)
    pending = 0
    for i in range(count):
        if pieces == 1:
            for j in range(dims):
                sums[0, j] += np.float64(rows[i, j])
        elif pieces == 2:
            high, low = magic[1], magic[0]
            for j in range(dims):
                x = np.float64(rows[i, j])
                piece = (x + high) - high
                sums[1, j] += piece
                sums[0, j] += ((x - piece) + low) - low
        else:
            for j in range(dims):
                x = np.float64(rows[i, j])
                for limb in range(pieces - 1, -1, -1):
                    piece = (x + magic[limb]) - magic[limb]
                    sums[limb, j] += piece
                    x -= piece
        pending += 1
        if i + 1 == count or slots[i + 1] != slots[i] or pending == most:
            _flush(sums, scales, limbs, slots[i])
            pending = 0


@compiled
def _add_limbs(ids: Int64, addend: Int64, counts: Int64, limbs: Int64, total: Int64) -> None:
    for t in range(len(ids)):
        total[ids[t]] += counts[t]
    for limb in range(addend.shape[0]):
        for t in range(len(ids)):
            place = ids[t]
            for j in range(addend.shape[2]):
                limbs[limb, place, j] += addend[limb, t, j]


def add_into(total: ClusterSums, part: ClusterSums) -> None:
    """Add ``part`` to ``total``, which covers all clusters, in place."""
    if part.ids is None:
        total.limbs[...] += part.limbs
        total.counts[...] += part.counts
    else:
        _add_limbs(part.ids, part.limbs, part.counts, total.limbs, total.counts)


def cluster_sums(rows: Array, labels: Int32, metric: str, fixed_point: FixedPoint, clusters: int) -> ClusterSums:
    """Exact sums of a block's rows by cluster.

    Parameters
    ----------
    rows : (m, d) float16 or float32
    labels : (m,) int32
        Rows labelled -1 are left out.
    metric : "l2" or "cosine"
        l2 sums the rows, cosine the unit rows, each value rounded once to a multiple of 2^-60 (ties to even).
    fixed_point : FixedPoint
        Made of statistics that cover these rows (``Statistics.fixed_point``).
    clusters : int

    Returns
    -------
    ClusterSums
        Over the clusters touched: 8 (limbs d + 2) bytes each.

    Raises
    ------
    ValueError
        A label beyond ``clusters``, or arrays of other shapes and dtypes.

    Notes
    -----
    Besides the result 24 bytes a row (their order by cluster), and work buffers of 2 MiB or one row's 22 bytes a value.
    """
    check_metric(metric)
    rows = as_rows(rows)
    dims = rows.shape[1]
    if labels.shape != (len(rows),):
        raise ValueError(f"labels have shape {labels.shape}; there are {len(rows)} rows")
    if len(rows) > fixed_point.rows:
        raise ValueError(f"{len(rows)} rows; the sums were laid out for {fixed_point.rows}")
    if metric == "cosine" and fixed_point.lowest != UNIT_QUANTUM:
        raise ValueError("unit rows are summed in multiples of 2^-60: use FixedPoint.for_unit_rows")
    ids, starts, order = group_by_label(labels, clusters)
    counts = np.diff(starts)
    slots = np.repeat(np.arange(len(ids), dtype=np.int64), counts)
    limbs = np.zeros((fixed_point.limbs, len(ids), dims), dtype=np.int64)
    quanta = np.array([fixed_point.quantum(limb) for limb in range(fixed_point.limbs)])
    sums: Float64 = work_array("limb sums", (fixed_point.limbs, dims), np.float64)
    sums[:] = 0.0
    # Pieces have at most limb_bits bits (the top one by the layout, the others being remainders).
    most = 1 << (52 - fixed_point.limb_bits)
    step = max(1, _TILE_BYTES // (8 * max(1, dims)))
    for start in range(0, len(order), step):
        taken = formula_rows(rows[order[start : start + step]], metric)
        _add_rows(taken, slots[start : start + step], 1.5 * 2.0**52 * quanta, 1.0 / quanta, most, sums, limbs)
    return ClusterSums(fixed_point, clusters, ids, limbs, counts)


@compiled
def _means(
    limbs: Int64, counts: Int64, limb_bits: int, quantum: float, cosine: bool, sums: Float64, centroids: Float32
) -> None:
    pieces, clusters, dims = limbs.shape
    half = np.int64(1) << np.int64(limb_bits - 1)
    radix = np.float64(np.int64(1) << np.int64(limb_bits))
    digits = np.empty(pieces, dtype=np.int64)
    for k in range(clusters):
        if counts[k] <= 0:
            continue
        squared = 0.0
        for j in range(dims):
            # Balanced digits, lowest limb first: then the first digit that is not zero outweighs all below it, and
            # Horner's scheme loses nothing to cancellation.
            carry = np.int64(0)
            for limb in range(pieces - 1):
                digit = limbs[limb, k, j] + carry
                carry = (digit + half) >> np.int64(limb_bits)
                digits[limb] = digit - (carry << np.int64(limb_bits))
            digits[pieces - 1] = limbs[pieces - 1, k, j] + carry
            value = 0.0
            for limb in range(pieces - 1, -1, -1):
                value = value * radix + np.float64(digits[limb])
            sums[j] = value
            squared += value * value
        if cosine:
            norm = np.sqrt(squared)
            if norm > 0.0:
                for j in range(dims):
                    centroids[k, j] = np.float32(sums[j] / norm)
        else:
            for j in range(dims):
                centroids[k, j] = np.float32(sums[j] / np.float64(counts[k]) * quantum)


def mean_centroids(sums: ClusterSums, metric: str, previous: Float32) -> Float32:
    """The centroids of exact sums: the mean, rounded once to float32; for cosine the mean's direction.

    Parameters
    ----------
    sums : ClusterSums
    metric : "l2" or "cosine"
    previous : (k, d) float32
        Where a cluster holds no rows, or its unit rows sum to zero, its row here is kept.

    Returns
    -------
    (k, d) float32
        A new array. l2: within one unit in the last place of the exact mean.
    """
    check_metric(metric)
    limbs, counts = sums.limbs, sums.counts
    centroids = as_centroids(previous).copy()
    if centroids.shape != (sums.clusters, limbs.shape[2]):
        raise ValueError(f"previous centroids have shape {previous.shape}, the sums {(sums.clusters, limbs.shape[2])}")
    fixed = sums.fixed_point
    work = np.empty(limbs.shape[2], dtype=np.float64)
    touched = centroids if sums.ids is None else centroids[sums.ids]
    _means(limbs, counts, fixed.limb_bits, fixed.quantum(0), metric == "cosine", work, touched)
    if sums.ids is not None:
        centroids[sums.ids] = touched
    return centroids


@compiled
def _sum_units(
    values: Float64, high: float, low: float, most: int, high_scale: float, low_scale: float
) -> tuple[np.int64, np.int64]:
    total_high, total_low = np.int64(0), np.int64(0)
    for start in range(0, len(values), most):
        sum_high = sum_low = 0.0
        for i in range(start, min(start + most, len(values))):
            piece = (values[i] + high) - high
            sum_high += piece
            sum_low += ((values[i] - piece) + low) - low
        total_high += np.int64(sum_high * high_scale)
        total_low += np.int64(sum_low * low_scale)
    return total_high, total_low


def sum_units(values: Float64, exponent: int, limb_bits: int, limit_exponent: int) -> int:
    """The sum of ``values``, each rounded to a multiple of 2^exponent, in those units (for ``ExactTotal``)."""
    values = np.ascontiguousarray(values, dtype=np.float64).ravel()
    if not values.size:
        return 0
    smallest, largest = float(values.min()), float(values.max())
    if not (smallest >= 0.0 and largest <= np.ldexp(1.0, limit_exponent)):
        raise ValueError(f"values run from {smallest} to {largest}; the sum is scaled for 0 to 2^{limit_exponent}")
    # Scaled to the quantum first: quanta of very small or large bounds would leave float64's range as factors.
    scaled = np.ldexp(values, -exponent - limb_bits)
    magic = 1.5 * 2.0**52
    high, low = _sum_units(scaled, magic, magic * 2.0**-limb_bits, 1 << (52 - limb_bits), 1.0, 2.0**limb_bits)
    return (int(high) << limb_bits) + int(low)
