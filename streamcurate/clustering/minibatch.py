"""Mini-batch warm-up: centroids moved by small batches before the first full pass (Sculley 2010)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings

# A batch consists of runs of neighbouring rows, so that drawing it does not read the whole store for scattered rows;
# runs are cut by row number, never by stored chunk.
_RUN_ROWS = 64
_ROWS_PER_CLUSTER = 4
_SMALLEST_BATCH = 4096
_LARGEST_BATCH_BYTES = 32 << 20
_BATCHES = 64


def warm_up(measured: Measured, centroids: NDArray[np.float32], around: Surroundings) -> NDArray[np.float32]:
    """Move centroids by mini-batches, at most one sweep's worth of rows.

    Each centroid is the mean of all points it was ever nearest to, in exact sums per batch and float64 between them, so
    that the result is the same everywhere.

    Parameters
    ----------
    measured : Measured
    centroids : ndarray of float32, shape (clusters, dims)
    around : Surroundings

    Returns
    -------
    ndarray of float32, shape (clusters, dims)
    """
    points, metric = measured.points, around.metric
    source = points.source
    clusters = len(centroids)
    wanted = max(_ROWS_PER_CLUSTER * clusters, _SMALLEST_BATCH)
    size = min(wanted, max(_LARGEST_BATCH_BYTES // (4 * source.dims), _RUN_ROWS), points.count)
    runs = -(-source.rows // _RUN_ROWS)
    runs_per_batch = -(-size // _RUN_ROWS)
    seen = np.zeros(clusters, dtype=np.int64)
    for batch in range(min(_BATCHES, runs // runs_per_batch)):
        counters = np.arange(batch * runs_per_batch, (batch + 1) * runs_per_batch, dtype=np.int64)
        bits = around.random_bits(Purpose.MINI_BATCH, counters)
        # The upper 32 bits scaled to the number of runs: runs number fewer than 2^31 up to 2^37 rows.
        drawn = np.unique((bits >> np.uint64(32)) * np.uint64(runs) >> np.uint64(32)).astype(np.int64)
        values = np.concatenate([_run(measured, int(run)) for run in drawn])
        if not len(values):
            continue
        labels, _ = kernels.nearest(values, kernels.prepare_centroids(centroids, metric))
        sums = kernels.cluster_sums(values, labels, metric, measured.fixed_point, clusters).dense()
        means = kernels.mean_centroids(sums, metric, centroids)
        counts = sums.counts
        seen += counts
        share = np.divide(counts, seen, out=np.zeros(clusters), where=seen > 0)[:, None]
        moved = centroids + (means.astype(np.float64) - centroids) * share
        centroids = centre_vectors(moved.astype(np.float32), metric)
    return centroids


def _run(measured: Measured, run: int) -> NDArray[np.generic]:
    points = measured.points
    start = run * _RUN_ROWS
    stop = min(start + _RUN_ROWS, points.source.rows)
    values = points.source.read(start, stop)
    return values if points.mask is None else values[points.mask.read(start, stop) != 0]
