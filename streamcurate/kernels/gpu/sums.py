"""Exact sums by cluster, on a device: integers added atomically, the same integers in any order."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.fixed_point import UNIT_QUANTUM, FixedPoint
from streamcurate.kernels.gpu.blocks import checked, parts, rows_per_tile, whole
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Array, Int32, Int64, check_metric
from streamcurate.kernels.sums_partial import ClusterSums


def _slots(labels: Int32, clusters: int) -> tuple[Int64, Int32, Int64]:
    """The clusters touched, each row's place among them (-1: none), and their numbers of rows."""
    if labels.size and (labels.max() >= clusters or labels.min() < -1):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; there are {clusters} clusters")
    if clusters <= max(len(labels), 2**16):
        touched = np.zeros(clusters, dtype=np.bool_)
        touched[labels[labels >= 0]] = True
        ids = np.flatnonzero(touched)
        # The last place, which no cluster has, is where -1 points.
        places = np.full(clusters + 1, -1, dtype=np.int32)
        places[ids] = np.arange(len(ids), dtype=np.int32)
        slots = places[labels]
    else:
        # A table of all clusters would outweigh the block.
        ids = np.unique(labels[labels >= 0]).astype(np.int64)
        slots = np.searchsorted(ids, labels).astype(np.int32)
        slots[labels < 0] = -1
    return ids.astype(np.int64), slots, np.bincount(slots[slots >= 0], minlength=len(ids)).astype(np.int64)


def cluster_sums(
    device: Device,
    workspace: int,
    rows: Array,
    labels: Int32,
    metric: str,
    fixed_point: FixedPoint,
    clusters: int,
) -> ClusterSums:
    """See kernels/cpu/sums.py. Coordinates are summed so many at a time that the limbs fit half of ``workspace``."""
    check_metric(metric)
    rows = checked(device, rows)
    dims = int(rows.shape[1])
    if labels.shape != (len(rows),):
        raise ValueError(f"labels have shape {labels.shape}; there are {len(rows)} rows")
    if len(rows) > fixed_point.rows:
        raise ValueError(f"{len(rows)} rows; the sums were laid out for {fixed_point.rows}")
    if metric == "cosine" and fixed_point.lowest != UNIT_QUANTUM:
        raise ValueError("unit rows are summed in multiples of 2^-60: use FixedPoint.for_unit_rows")
    ids, slots, counts = _slots(labels, clusters)
    pieces, touched = fixed_point.limbs, len(ids)
    quanta = np.array([fixed_point.quantum(limb) for limb in range(pieces)])
    limbs = np.empty((pieces, touched, dims), dtype=np.int64)
    some = max(1, min(dims, workspace // 2 // (8 * pieces * max(1, touched))))
    step = rows_per_tile(workspace // 2, rows.dtype.itemsize * dims + 12)
    with device.session():
        magic, scales = device.upload(1.5 * 2.0**52 * quanta), device.upload(1.0 / quanta)

        def add(part: slice, first: int, width: int, total: DeviceArray) -> None:
            tile = whole(device, rows[part], metric)
            device.launch(
                tile.kernel("add_rows"), tile.count * width, tile.rows, tile.norms, tile.unit, tile.count, dims, first,
                width, device.upload(slots[part]), touched, magic, scales, pieces, total,
            )  # fmt: skip

        def add_all(first: int, width: int) -> None:
            total = device.zeros((pieces, touched, width), np.int64)
            for part in parts(len(rows), step):
                add(part, first, width, total)
            limbs[:, :, first : first + width] = device.download(total)

        for first in range(0, dims if touched else 0, some):
            add_all(first, min(some, dims - first))
    return ClusterSums(fixed_point, clusters, ids, limbs, counts)
