"""Laying centroids out for screening: shifted, scaled, ordered by norm."""

from __future__ import annotations

import math

import numpy as np

from streamcurate.kernels.cpu.screen import GROUP
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Float32, Float64, Int32, as_centroids, check_metric
from streamcurate.kernels.prepared_centroids import PreparedCentroids

LARGEST_TILE = 2048
"""Most columns of one tile of scores. Larger tiles gain nothing in the matrix product (measured 256 to 4096)."""

# Up to so many clusters x (dims + 3) the formula over all pairs beats screening (measured, one thread: 100 to 300
# clusters at 8 to 1 dims, 60 at 16, 16 at 64, 2 at 384).
DIRECT_WORK = 1200

# Up to here (d + 4) 2^-24 <= 0.07 and float64 norms err by less than 1e-9, as the error bound of the search assumes.
LARGEST_DIMS = 2**20


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


def _layout(clusters: int) -> tuple[int, int]:
    """(columns of one tile, padded columns) for so many clusters: whole groups, tiles of about equal size."""
    groups = -(-clusters // GROUP)
    tiles = -(-groups * GROUP // LARGEST_TILE)
    return -(-groups // tiles) * GROUP, groups * GROUP


def prepared_centroids_bytes(clusters: int, dims: int) -> int:
    """Bytes :func:`prepare_centroids` adds to those of the centroids, its own work included."""
    padded = -(-clusters // GROUP) * GROUP
    return padded * (4 * dims + 4 + 4 + 1) + padded * 40 + 24 * dims


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
    if dims > LARGEST_DIMS:
        raise ValueError(f"centroids have {dims} dims; the search's error bound holds up to {LARGEST_DIMS}")
    tile, padded = _layout(clusters)
    if clusters * (dims + 3) <= DIRECT_WORK:
        none32, none64 = np.empty(0, np.float32), np.empty(0, np.float64)
        order = np.empty(0, np.int32)
        return PreparedCentroids(
            metric, centroids, True, tile, none64, 1.0, none32.reshape(0, dims), none32, order, none64
        )
    # Any origin gives the same labels; the mean makes scores small, so that an offset all rows share costs nothing.
    origin = np.add.reduce(centroids, axis=0, dtype=np.float64) / clusters
    largest = _largest_difference(centroids, origin)
    scale = 1.0 if largest == 0.0 else math.ldexp(1.0, 1 - math.frexp(largest)[1])
    squared = np.empty(clusters, dtype=np.float64)
    _shifted_squared_norms(centroids, origin, scale, squared)
    # Neighbours in norm share a group, whose error bound is that of its largest member.
    order = np.full(padded, -1, dtype=np.int32)
    order[:clusters] = np.argsort(squared, kind="stable")
    columns = np.empty((padded, dims), dtype=np.float32)
    _fill_columns(centroids, origin, scale, order, columns)
    norms = np.where(order < 0, np.float32(np.inf), squared[order].astype(np.float32)).astype(np.float32)
    # 1e-9 covers the float64 rounding of a norm of up to a million coordinates, 2^-100 its underflow.
    reach = np.where(order < 0, 0.0, np.sqrt(squared[order]) * (1 + 1e-9) + 2.0**-100)
    bounds = reach.reshape(-1, GROUP).max(axis=1)
    return PreparedCentroids(metric, centroids, False, tile, origin, scale, columns, norms, order, bounds)
