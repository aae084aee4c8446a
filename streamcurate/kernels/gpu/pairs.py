"""The formula of given pairs, on a device."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.gpu.blocks import checked, rows_per_tile, whole
from streamcurate.kernels.gpu.interface import Device
from streamcurate.kernels.metric import Array, Float32, Float64, Int64, as_centroids, check_metric


def squared_distances_of_pairs(
    device: Device,
    workspace: int,
    rows: Array,
    row_index: Int64,
    centroids: Float32,
    cluster_index: Int64,
    metric: str,
) -> Float64:
    """See kernels/cpu/formula.py. Rows that lie on the host are gathered there, as the centroids are."""
    check_metric(metric)
    rows = checked(device, rows)
    dims = rows.shape[1]
    centroids = as_centroids(centroids, dims)
    row_index = np.ascontiguousarray(row_index, dtype=np.int64)
    cluster_index = np.ascontiguousarray(cluster_index, dtype=np.int64)
    if row_index.shape != cluster_index.shape or row_index.ndim != 1:
        raise ValueError(f"{row_index.shape} row numbers and {cluster_index.shape} cluster numbers do not make pairs")
    for index, size, what in ((row_index, len(rows), "rows"), (cluster_index, len(centroids), "centroids")):
        if index.size and (index.min() < 0 or index.max() >= size):
            raise ValueError(f"pairs name {what} {index.min()} to {index.max()}; there are {size}")
    values = np.empty(len(row_index), dtype=np.float64)
    step = rows_per_tile(workspace, 8 * dims + 40)
    with device.session():
        resident = whole(device, rows, metric) if device.holds(rows) else None
        for start in range(0, len(row_index), step):
            part = slice(start, min(start + step, len(row_index)))
            count = part.stop - start
            local = np.arange(count, dtype=np.int64)
            tile = whole(device, rows[row_index[part]], metric) if resident is None else resident
            which = device.upload(local if resident is None else row_index[part])
            opposite = device.upload(centroids[cluster_index[part]])
            result = device.empty((count,), np.float64)
            device.launch(
                tile.kernel("pair_values"), count, tile.rows, tile.norms, tile.unit, dims, which, opposite,
                device.upload(local), count, result,
            )  # fmt: skip
            values[part] = device.download(result)
    return values
