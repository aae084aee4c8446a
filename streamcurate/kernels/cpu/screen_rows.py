"""Compiled steps of the certified search before and after the scores are looked at; cpu/nearest.py has the names."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64

STEP = 32
"""Coordinates by which a pair that survived is known better from one stage to the next."""


@compiled
def shift_rows(
    rows: Array,
    origin: Float64,
    scale: float,
    farthest: float,
    values: Float64,
    shifted: Float32,
    reach: Float64,
    upper: Float64,
    wild: Array,
) -> None:
    """float32(scale (x - origin)), an upper bound ``reach`` of its norm, and what ``values`` mean as scores.

    A row beyond ``farthest`` is marked in ``wild`` and made one that no score concerns: zeros, and nothing to beat.
    """
    count, dims = rows.shape
    for i in range(count):
        # Four sums: their order does not matter here, and one sum would wait for itself.
        s0 = s1 = s2 = s3 = 0.0
        whole = dims - dims % 4
        for j in range(0, whole, 4):
            a0 = (np.float64(rows[i, j]) - origin[j]) * scale
            a1 = (np.float64(rows[i, j + 1]) - origin[j + 1]) * scale
            a2 = (np.float64(rows[i, j + 2]) - origin[j + 2]) * scale
            a3 = (np.float64(rows[i, j + 3]) - origin[j + 3]) * scale
            shifted[i, j] = np.float32(a0)
            shifted[i, j + 1] = np.float32(a1)
            shifted[i, j + 2] = np.float32(a2)
            shifted[i, j + 3] = np.float32(a3)
            s0 += a0 * a0
            s1 += a1 * a1
            s2 += a2 * a2
            s3 += a3 * a3
        for j in range(whole, dims):
            a = (np.float64(rows[i, j]) - origin[j]) * scale
            shifted[i, j] = np.float32(a)
            s0 += a * a
        squared = (s0 + s1) + (s2 + s3)
        reach[i] = np.sqrt(squared) * (1 + 1e-9) + 2.0**-100
        # The value of a row's answer so far bounds its score from above; 1e-9 covers the rounding on either side.
        upper[i] = values[i] * scale * scale * (1 + 1e-9) - squared * (1 - 1e-9) + 2.0**-100
        wild[i] = not reach[i] <= farthest
        if wild[i]:
            reach[i] = 0.0
            upper[i] = -np.inf
            for j in range(dims):
                shifted[i, j] = np.float32(0.0)


@compiled
def few_scores(rows: Float32, turned: Float32, scores: Float32) -> None:
    """Products (rows, columns) of rows (rows, d) and columns (d, columns) for one to three dims, where BLAS is slow."""
    for i in range(scores.shape[0]):
        if rows.shape[1] == 1:
            for c in range(scores.shape[1]):
                scores[i, c] = rows[i, 0] * turned[0, c]
        elif rows.shape[1] == 2:
            x, y = rows[i, 0], rows[i, 1]
            for c in range(scores.shape[1]):
                scores[i, c] = x * turned[0, c] + y * turned[1, c]
        else:
            x, y, z = rows[i, 0], rows[i, 1], rows[i, 2]
            for c in range(scores.shape[1]):
                scores[i, c] = x * turned[0, c] + y * turned[1, c] + z * turned[2, c]


@compiled
def tail_norms(coordinates: Float32, unit: float, reach: Float64, leading: int, spill: float, tails: Float32) -> None:
    """Upper bounds of the norms of what is left of vectors after leading + STEP t of their coordinates.

    Parameters
    ----------
    coordinates : (m, width) float32
        Along the axes, in multiples of ``unit``.
    unit : float
    reach : (m,) float64
        Upper bounds of the vectors' norms.
    leading : int
    spill : float
        The most by which the coordinates' norm may be wrong, as a share of the vector's.
    tails : (m, stages) float32
        Filled.
    """
    for i in range(len(coordinates)):
        inside, last = 0.0, 0
        b = reach[i] * (1 + 1e-9)
        for t in range(tails.shape[1]):
            following = min(leading + t * 32, coordinates.shape[1])
            for j in range(last, following):
                inside += np.float64(coordinates[i, j]) * np.float64(coordinates[i, j])
            last = following
            sure = min(b, max(0.0, unit * np.sqrt(inside) - spill * b))
            tails[i, t] = np.float32(np.sqrt(b * b - sure * sure) * (1 + 2.0**-22) + 2.0**-100)


@compiled
def gather_pairs(
    found: Int32, lower: Float64, length: Int64, upper: Float64, pair_row: Int64, pair_cluster: Int64
) -> int:
    """The (row, cluster) pairs left in the lists that can still win; returns their number."""
    pairs = 0
    for i in range(len(length)):
        for p in range(length[i]):
            if lower[i, p] <= upper[i]:
                pair_row[pairs] = i
                pair_cluster[pairs] = found[i, p]
                pairs += 1
    return pairs
