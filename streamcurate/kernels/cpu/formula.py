"""The formula: the one definition of the squared distance between a row and a centroid.

l2: the sum over coordinates, left to right, in one float64 accumulator, of (float64(x_j) - float64(c_j))^2, without
fused multiply-adds. cosine: the same between u = x / sqrt(sum x^2), itself computed left to right in float64, and the
stored unit centroid; 1 - cos is half of it. All that is faster is a way to evaluate fewer pairs, never another value.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int64, as_centroids, as_rows, check_metric

_PAIR_TILE_BYTES = 2**20


@compiled
def _pair_values(rows: Array, row_index: Int64, centroids: Float32, cluster_index: Int64, values: Float64) -> None:
    # Four pairs at a time: one pair's additions must wait for one another, different pairs' need not.
    count, dims = len(row_index), rows.shape[1]
    whole = count - count % 4
    for p in range(0, whole, 4):
        r0, r1, r2, r3 = row_index[p], row_index[p + 1], row_index[p + 2], row_index[p + 3]
        k0, k1, k2, k3 = cluster_index[p], cluster_index[p + 1], cluster_index[p + 2], cluster_index[p + 3]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(dims):
            a0 = np.float64(rows[r0, j]) - np.float64(centroids[k0, j])
            a1 = np.float64(rows[r1, j]) - np.float64(centroids[k1, j])
            a2 = np.float64(rows[r2, j]) - np.float64(centroids[k2, j])
            a3 = np.float64(rows[r3, j]) - np.float64(centroids[k3, j])
            s0 += a0 * a0
            s1 += a1 * a1
            s2 += a2 * a2
            s3 += a3 * a3
        values[p], values[p + 1], values[p + 2], values[p + 3] = s0, s1, s2, s3
    for p in range(whole, count):
        r, k = row_index[p], cluster_index[p]
        s = 0.0
        for j in range(dims):
            a = np.float64(rows[r, j]) - np.float64(centroids[k, j])
            s += a * a
        values[p] = s


def squared_distances_of_pairs(
    rows: Array, row_index: Int64, centroids: Float32, cluster_index: Int64, metric: str
) -> Float64:
    """Squared distances of pairs (row, centroid) by the formula.

    Parameters
    ----------
    rows : (m, d) float16 or float32
    row_index : (p,) integers into ``rows``
    centroids : (k, d) float32
    cluster_index : (p,) integers into ``centroids``
    metric : "l2" or "cosine"

    Returns
    -------
    (p,) float64
        l2: squared Euclidean distance; cosine: |u - c|^2, twice 1 - cos.

    Raises
    ------
    ValueError
        An index out of range, or arrays of other shapes and dtypes.

    Notes
    -----
    Besides the result, about 3 MiB of work buffers, or one row's 14 bytes a value where that is more.
    """
    check_metric(metric)
    rows = as_rows(rows)
    centroids = as_centroids(centroids, rows.shape[1])
    row_index = np.ascontiguousarray(row_index, dtype=np.int64)
    cluster_index = np.ascontiguousarray(cluster_index, dtype=np.int64)
    if row_index.shape != cluster_index.shape or row_index.ndim != 1:
        raise ValueError(f"{row_index.shape} row numbers and {cluster_index.shape} cluster numbers do not make pairs")
    for index, size, what in ((row_index, len(rows), "rows"), (cluster_index, len(centroids), "centroids")):
        if index.size and (index.min() < 0 or index.max() >= size):
            raise ValueError(f"pairs name {what} {index.min()} to {index.max()}; there are {size}")
    values = np.empty(len(row_index), dtype=np.float64)
    if rows.dtype == np.float32 and metric == "l2":
        _pair_values(rows, row_index, centroids, cluster_index, values)
        return values
    tile = max(1, _PAIR_TILE_BYTES // (8 * max(1, rows.shape[1])))
    local = np.arange(min(tile, len(row_index)), dtype=np.int64)
    for start in range(0, len(row_index), tile):
        part = slice(start, min(start + tile, len(row_index)))
        taken = formula_rows(rows[row_index[part]], metric)
        _pair_values(taken, local[: len(taken)], centroids, cluster_index[part], values[part])
    return values


def distance_of(values: Float64, metric: str) -> Float32:
    """The stored distances: float32 of the root of the formula's value (l2) or of half of it, 1 - cos (cosine)."""
    check_metric(metric)
    exact = np.asarray(values, dtype=np.float64)
    return (np.sqrt(exact) if metric == "l2" else exact / 2).astype(np.float32)
