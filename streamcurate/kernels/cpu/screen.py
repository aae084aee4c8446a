"""The compiled parts of the certified search; cpu/nearest.py has the derivation and the names."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64


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
) -> None:
    """float32(scale (x - origin)), an upper bound ``reach`` of its norm, and what ``values`` mean as scores.

    A row beyond ``farthest`` gets an infinite reach and zeros.
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
        if not reach[i] <= farthest:
            reach[i] = np.inf
            for j in range(dims):
                shifted[i, j] = np.float32(0.0)


@compiled
def _settle_row(
    rows: Array,
    i: int,
    centroids: Float32,
    clusters: Int32,
    length: int,
    labels: Int32,
    values: Float64,
    first_cluster: int,
) -> None:
    dims = rows.shape[1]
    p = 0
    while p < length:
        k0 = clusters[p]
        k1 = clusters[min(p + 1, length - 1)]
        k2 = clusters[min(p + 2, length - 1)]
        k3 = clusters[min(p + 3, length - 1)]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(dims):
            x = np.float64(rows[i, j])
            a0 = x - np.float64(centroids[k0, j])
            a1 = x - np.float64(centroids[k1, j])
            a2 = x - np.float64(centroids[k2, j])
            a3 = x - np.float64(centroids[k3, j])
            s0 += a0 * a0
            s1 += a1 * a1
            s2 += a2 * a2
            s3 += a3 * a3
        for cluster, value in ((k0, s0), (k1, s1), (k2, s2), (k3, s3)):
            number = cluster + first_cluster
            if labels[i] < 0 or value < values[i] or (value == values[i] and number < labels[i]):
                values[i] = value
                labels[i] = number
        p += 4


@compiled
def _minima(scores: Float32, i: int, norms: Float32, minima: Float32) -> None:
    # Four members of all chunks at a time: the running minima are then loaded and stored a quarter as often. Plain
    # ranges as indices let the compiler see that none is negative, without which it leaves vector registers unused.
    members, lanes = norms.shape
    for t in range(lanes):
        minima[t] = np.float32(np.inf)
    fours = members // 4
    for f in range(fours):
        q = 4 * f
        for t in range(lanes):
            s0 = scores[i, q, t] + norms[q, t]
            s1 = scores[i, q + 1, t] + norms[q + 1, t]
            s2 = scores[i, q + 2, t] + norms[q + 2, t]
            s3 = scores[i, q + 3, t] + norms[q + 3, t]
            s0 = s1 if s1 < s0 else s0
            s2 = s3 if s3 < s2 else s2
            s0 = s2 if s2 < s0 else s0
            minima[t] = s0 if s0 < minima[t] else minima[t]
    for q in range(4 * fours, members):
        for t in range(lanes):
            s0 = scores[i, q, t] + norms[q, t]
            minima[t] = s0 if s0 < minima[t] else minima[t]


@compiled
def scan_tile(
    scores: Float32,
    norms: Float32,
    order: Int32,
    bounds: Float64,
    reach: Float64,
    upper: Float64,
    found: Int32,
    lower: Float64,
    length: Int64,
    minima: Float32,
    offsets: Float64,
    rows: Array,
    centroids: Float32,
    labels: Int32,
    values: Float64,
    first_cluster: int,
    product_term: float,
    norm_term: float,
    formula_term: float,
    tiny_term: float,
) -> None:
    """Lower ``upper`` by one tile of scores and add the tile's possible winners to the rows' lists.

    A list that is full even after pruning is settled by the formula at once, so memory does not depend on how many
    centroids are alike.
    """
    count, members, lanes = scores.shape
    room = found.shape[1]
    # A chunk's bound is a polynomial of the row's reach: formula_term a^2 + offsets[1] a + offsets[0].
    for t in range(lanes):
        b = bounds[t]
        offsets[0, t] = (norm_term + formula_term) * b * b + tiny_term * (1.0 + b)
        offsets[1, t] = (product_term + 2.0 * formula_term) * b + tiny_term
    for i in range(count):
        a = reach[i]
        if not a < np.inf:
            continue
        _minima(scores, i, norms, minima)
        square = formula_term * a * a
        highest = upper[i]
        for t in range(lanes):
            high = np.float64(minima[t]) + (square + offsets[1, t] * a + offsets[0, t])
            highest = high if high < highest else highest
        upper[i] = highest
        for t in range(lanes):
            error = square + offsets[1, t] * a + offsets[0, t]
            if not np.float64(minima[t]) - error <= highest:
                continue
            for q in range(members):
                low = np.float64(scores[i, q, t] + norms[q, t]) - error
                if not low <= highest or order[q, t] < 0:
                    continue
                n = length[i]
                if n == room:
                    n = 0
                    for p in range(room):
                        if lower[i, p] <= highest:
                            lower[i, n] = lower[i, p]
                            found[i, n] = found[i, p]
                            n += 1
                    if n == room:
                        _settle_row(rows, i, centroids, found[i], n, labels, values, first_cluster)
                        n = 0
                found[i, n] = order[q, t]
                lower[i, n] = low
                length[i] = n + 1


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


@compiled
def take_best(
    pair_row: Int64, pair_cluster: Int64, pair_value: Float64, labels: Int32, values: Float64, first_cluster: int
) -> None:
    """Fold the pairs' formula values into the rows' answers, ties to the lowest cluster."""
    for p in range(len(pair_row)):
        i = pair_row[p]
        number = pair_cluster[p] + first_cluster
        value = pair_value[p]
        if labels[i] < 0 or value < values[i] or (value == values[i] and number < labels[i]):
            values[i] = value
            labels[i] = number
