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


# Members of a group of columns; the loops below write them out one by one.
GROUP = 8


@compiled
def _smallest(a: float, b: float) -> float:
    return a if a < b else b


@compiled
def group_minima(scores: Float32, norms: Float32, minima: Float32) -> None:
    """Smallest score of each group of eight columns for each row: (columns, rows) scores to (columns / 8, rows).

    Rows lie side by side in vector registers, so no minimum is taken across a register (measured 0.1 ns a score).
    """
    groups, rows = minima.shape
    for g in range(groups):
        c = g * 8
        n0, n1, n2, n3 = norms[c], norms[c + 1], norms[c + 2], norms[c + 3]
        n4, n5, n6, n7 = norms[c + 4], norms[c + 5], norms[c + 6], norms[c + 7]
        for i in range(rows):
            a = _smallest(scores[c, i] + n0, scores[c + 1, i] + n1)
            b = _smallest(scores[c + 2, i] + n2, scores[c + 3, i] + n3)
            e = _smallest(scores[c + 4, i] + n4, scores[c + 5, i] + n5)
            f = _smallest(scores[c + 6, i] + n6, scores[c + 7, i] + n7)
            minima[g, i] = _smallest(_smallest(a, b), _smallest(e, f))


@compiled
def scores_1(turned: Float32, columns: Float32, scores: Float32) -> None:
    """The matrix product for one dim, where BLAS is far from its best: scores[c, i] = columns[c] . turned[:, i]."""
    for c in range(scores.shape[0]):
        w0 = columns[c, 0]
        for i in range(scores.shape[1]):
            scores[c, i] = w0 * turned[0, i]


@compiled
def scores_2(turned: Float32, columns: Float32, scores: Float32) -> None:
    """The same for two dims."""
    for c in range(scores.shape[0]):
        w0, w1 = columns[c, 0], columns[c, 1]
        for i in range(scores.shape[1]):
            scores[c, i] = w0 * turned[0, i] + w1 * turned[1, i]


@compiled
def scores_3(turned: Float32, columns: Float32, scores: Float32) -> None:
    """The same for three dims."""
    for c in range(scores.shape[0]):
        w0, w1, w2 = columns[c, 0], columns[c, 1], columns[c, 2]
        for i in range(scores.shape[1]):
            scores[c, i] = w0 * turned[0, i] + w1 * turned[1, i] + w2 * turned[2, i]


@compiled
def lower_upper(
    minima: Float32,
    bounds: Float64,
    reach: Float64,
    upper: Float64,
    product_term: float,
    norm_term: float,
    formula_term: float,
    tiny_term: float,
) -> None:
    """Lower each row's ``upper`` to the least upper bound of any score in this tile."""
    groups, rows = minima.shape
    for g in range(groups):
        b = bounds[g]
        constant = (norm_term + formula_term) * b * b + tiny_term * (1.0 + b)
        linear = (product_term + 2.0 * formula_term) * b + tiny_term
        for i in range(rows):
            a = reach[i]
            high = np.float64(minima[g, i]) + (formula_term * a * a + linear * a + constant)
            upper[i] = high if high < upper[i] else upper[i]


@compiled
def collect(
    minima: Float32,
    scores: Float32,
    norms: Float32,
    order: Int32,
    bounds: Float64,
    reach: Float64,
    upper: Float64,
    found: Int32,
    lower: Float64,
    length: Int64,
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
    """Add the tile's possible winners to the rows' lists.

    A list that is full even after pruning is settled by the formula at once, so memory does not depend on how many
    centroids are alike.
    """
    groups, count = minima.shape
    room = found.shape[1]
    for g in range(groups):
        b = bounds[g]
        constant = (norm_term + formula_term) * b * b + tiny_term * (1.0 + b)
        linear = (product_term + 2.0 * formula_term) * b + tiny_term
        for begin in range(0, count, 32):
            end = min(begin + 32, count)
            # Most blocks of rows have no winner in a group: one vectorised look tells, without a branch a row.
            near = 0
            for i in range(begin, end):
                a = reach[i]
                error = formula_term * a * a + linear * a + constant
                near += 1 if np.float64(minima[g, i]) - error <= upper[i] else 0
            if near == 0:
                continue
            for i in range(begin, end):
                a = reach[i]
                error = formula_term * a * a + linear * a + constant
                highest = upper[i]
                if not np.float64(minima[g, i]) - error <= highest:
                    continue
                for c in range(g * 8, g * 8 + 8):
                    low = np.float64(scores[c, i] + norms[c]) - error
                    if not low <= highest or order[c] < 0:
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
                    found[i, n] = order[c]
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
