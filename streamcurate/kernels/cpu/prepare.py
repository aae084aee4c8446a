"""Laying centroids out for screening: shifted, scaled, ordered by norm."""

from __future__ import annotations

import math

import numpy as np

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Float32, Float64, Int32, as_centroids, check_metric
from streamcurate.kernels.prepared_centroids import PreparedCentroids

LARGEST_TILE = 2048
"""Most columns of one tile of scores. Larger tiles gain nothing in the matrix product (measured 256 to 4096)."""

# The formula over all pairs beats float32 scores up to this many dims (measured, single thread, k = 80 to 5000).
DIRECT_DIMS = 8
# Below this many centroids a matrix product has nothing to amortise its layout over.
DIRECT_CLUSTERS = 4


@compiled
def _largest_difference(centroids: Float32, origin: Float64) -> float:
    largest = 0.0
    for i in range(centroids.shape[0]):
        for j in range(centroids.shape[1]):
            largest = max(largest, abs(np.float64(centroids[i, j]) - origin[j]))
    return largest


@compiled
def _shifted_squared_norms(centroids: Float32, origin: Float64, scale: float, norms: Float64) -> None:
    for i in range(centroids.shape[0]):
        total = 0.0
        for j in range(centroids.shape[1]):
            value = (np.float64(centroids[i, j]) - origin[j]) * scale
            total += value * value
        norms[i] = total


@compiled
def _fill_columns(centroids: Float32, origin: Float64, scale: float, order: Int32, columns: Float32) -> None:
    for position in range(len(order)):
        cluster = order[position]
        for j in range(centroids.shape[1]):
            if cluster < 0:
                columns[position, j] = np.float32(0.0)
            else:
                columns[position, j] = np.float32((np.float64(centroids[cluster, j]) - origin[j]) * (-2.0 * scale))


def _layout(clusters: int) -> tuple[int, int, int]:
    """(lanes, columns of one tile, padded columns) for so many clusters."""
    # A chunk's minimum costs float64 bound arithmetic; more columns in a chunk cost a longer look at the chunks that
    # may hold the winner. 32 to 64 columns a chunk balance the two.
    lanes = 64 if clusters >= 1024 else 32 if clusters >= 256 else 16 if clusters >= 64 else 8
    padded = -(-clusters // lanes) * lanes
    tiles = -(-padded // LARGEST_TILE)
    tile = -(-padded // (tiles * lanes)) * lanes
    return lanes, tile, padded


def _column_order(norms: Float64, lanes: int, tile: int, padded: int) -> Int32:
    """The cluster of each column: ascending norms, neighbours in norm sharing a chunk; -1 for padding.

    A tile's chunk ``t`` is made of columns t, t + lanes, t + 2 lanes, ...: minima over chunks are then taken on whole
    vectors.
    """
    ascending = np.full(padded, -1, dtype=np.int32)
    ascending[: len(norms)] = np.argsort(norms, kind="stable")
    order = np.empty_like(ascending)
    for start in range(0, padded, tile):
        part = ascending[start : start + tile]
        order[start : start + tile] = part.reshape(lanes, -1).T.ravel()
    return order


def prepared_centroids_bytes(clusters: int, dims: int) -> int:
    """Bytes :func:`prepare_centroids` adds to those of the centroids, its own work included."""
    _, tile, padded = _layout(clusters)
    return padded * (4 * dims + 4 + 4 + 4) + clusters * 24 + 8 * 64 * (-(-padded // tile)) + 64 * dims


def prepare_centroids(centroids: Float32, metric: str) -> PreparedCentroids:
    """Make centroids ready for :func:`nearest`.

    Parameters
    ----------
    centroids : (k, d) float32, finite
        For "cosine" the stored unit centroids. Not copied: leave it alone while the result is in use.
    metric : "l2" or "cosine"

    Returns
    -------
    PreparedCentroids
        Shared by all threads of a pass; takes :func:`prepared_centroids_bytes` at most.

    Raises
    ------
    ValueError
        No centroids, another dtype or shape, or an unknown metric.
    """
    check_metric(metric)
    centroids = as_centroids(centroids)
    clusters, dims = centroids.shape
    if clusters == 0 or dims == 0:
        raise ValueError(f"centroids have shape {centroids.shape}; at least one centroid of one dim is needed")
    lanes, tile, padded = _layout(clusters)
    direct = dims <= DIRECT_DIMS or clusters < DIRECT_CLUSTERS
    if direct:
        none32, none64 = np.empty(0, np.float32), np.empty((0, lanes), np.float64)
        return PreparedCentroids(
            metric, centroids, True, lanes, tile, none64[0:0, 0], 1.0, none32.reshape(0, dims), none32,
            np.empty(0, np.int32), none64,
        )  # fmt: skip
    # Any origin gives the same labels; the mean makes scores small, so that an offset all rows share costs nothing.
    origin = np.add.reduce(centroids, axis=0, dtype=np.float64) / clusters
    largest = _largest_difference(centroids, origin)
    scale = 1.0 if largest == 0.0 else math.ldexp(1.0, 1 - math.frexp(largest)[1])
    squared = np.empty(clusters, dtype=np.float64)
    _shifted_squared_norms(centroids, origin, scale, squared)
    order = _column_order(squared, lanes, tile, padded)
    columns = np.empty((padded, dims), dtype=np.float32)
    _fill_columns(centroids, origin, scale, order, columns)
    norms = np.where(order < 0, np.float32(np.inf), squared[order].astype(np.float32)).astype(np.float32)
    # 1e-9 covers the float64 rounding of a norm of up to a million coordinates, 2^-100 its underflow.
    reach = np.where(order < 0, 0.0, np.sqrt(squared[order]) * (1 + 1e-9) + 2.0**-100)
    bounds = np.stack([reach[s : s + tile].reshape(-1, lanes).max(axis=0) for s in range(0, padded, tile)])
    return PreparedCentroids(
        metric, centroids, False, lanes, tile, origin, scale, columns, norms, order, np.ascontiguousarray(bounds)
    )
