"""The formula over all pairs, vectorised across rows: for few dims, few centroids, and rows no screening can hold."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int64
from streamcurate.kernels.workspace import work_array

_LANES = 256  # rows side by side; with the running minima they stay in the nearest cache up to 8 dims


@compiled
def _direct_1(x: Float64, centroids: Float32, values: Float64, labels: Int64) -> None:
    lanes = x.shape[1]
    for c in range(len(centroids)):
        c0 = np.float64(centroids[c, 0])
        for i in range(lanes):
            a0 = x[0, i] - c0
            v = a0 * a0
            better = v < values[i]
            values[i] = v if better else values[i]
            labels[i] = c if better else labels[i]


@compiled
def _direct_2(x: Float64, centroids: Float32, values: Float64, labels: Int64) -> None:
    lanes = x.shape[1]
    for c in range(len(centroids)):
        c0, c1 = np.float64(centroids[c, 0]), np.float64(centroids[c, 1])
        for i in range(lanes):
            a0 = x[0, i] - c0
            a1 = x[1, i] - c1
            v = a0 * a0 + a1 * a1
            better = v < values[i]
            values[i] = v if better else values[i]
            labels[i] = c if better else labels[i]


@compiled
def _direct_any(x: Float64, centroids: Float32, values: Float64, labels: Int64, sums: Float64) -> None:
    dims, lanes = x.shape
    for c in range(len(centroids)):
        c0 = np.float64(centroids[c, 0])
        for i in range(lanes):
            a = x[0, i] - c0
            sums[i] = a * a
        for j in range(1, dims):
            cj = np.float64(centroids[c, j])
            for i in range(lanes):
                a = x[j, i] - cj
                sums[i] += a * a
        for i in range(lanes):
            better = sums[i] < values[i]
            values[i] = sums[i] if better else values[i]
            labels[i] = c if better else labels[i]


def direct_bytes(dims: int) -> int:
    """Bytes of work buffers one call of :func:`direct_nearest` takes."""
    return 8 * _LANES * (dims + 3)


def direct_nearest(rows: Array, centroids: Float32, labels: Int64, values: Float64) -> None:
    """Nearest centroid of each formula row (float32 or float64, see ``formula_rows``), into ``labels`` and ``values``.

    Ties go to the lowest cluster: clusters are met in ascending order and only a smaller value replaces.
    """
    count, dims = rows.shape
    turned: Float64 = work_array("direct rows", (dims, _LANES), np.float64)
    sums: Float64 = work_array("direct sums", (_LANES,), np.float64)
    best: Float64 = work_array("direct values", (_LANES,), np.float64)
    which: Int64 = work_array("direct labels", (_LANES,), np.int64)
    for start in range(0, count, _LANES):
        stop = min(start + _LANES, count)
        turned[:, : stop - start] = rows[start:stop].T
        turned[:, stop - start :] = 0.0
        best[:] = np.inf
        which[:] = 0
        if dims == 1:
            _direct_1(turned, centroids, best, which)
        elif dims == 2:
            _direct_2(turned, centroids, best, which)
        else:
            _direct_any(turned, centroids, best, which, sums)
        labels[start:stop] = which[: stop - start]
        values[start:stop] = best[: stop - start]
