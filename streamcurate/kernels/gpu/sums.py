"""Exact sums by cluster, on a device: integers added atomically, the same integers in any order.

Rows are taken in order of their cluster, in segments: one thread adds a segment's rows, and only its sum is added
atomically. The limbs stay on the device (device_sums.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.grouping import group_by_label
from streamcurate.kernels.fixed_point import UNIT_QUANTUM, FixedPoint
from streamcurate.kernels.gpu.blocks import checked, parts, rows_per_tile, whole
from streamcurate.kernels.gpu.device_sums import DeviceSums
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Array, Int32, check_metric
from streamcurate.kernels.sums_partial import ClusterSums

KEPT_SHARE = 1 / 16
"""Of a device's memory, for the sums of one block: several blocks are under way."""

_SEGMENT = 64  # rows one thread adds of one cluster
_ROW_BYTES = 4 + 4 + 4 + 8  # place in the order, start and slot of a segment, norm


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
    ids, starts, order = group_by_label(labels, clusters)
    counts = np.diff(starts)
    pieces, touched = fixed_point.limbs, len(ids)
    quanta = np.array([fixed_point.quantum(limb) for limb in range(pieces)])
    slots: Int32 = np.full(len(rows), -1, dtype=np.int32)
    slots[order] = np.repeat(np.arange(touched, dtype=np.int32), counts)
    step = rows_per_tile(workspace // 2, rows.dtype.itemsize * dims + _ROW_BYTES)
    with device.session():
        magic, scales = device.upload(1.5 * 2.0**52 * quanta), device.upload(1.0 / quanta)

        def add(part: slice, first: int, width: int, total: DeviceArray) -> None:
            segments = _segments(slots[part], touched)
            tile = whole(device, rows[part], metric)
            device.launch(
                tile.kernel("add_segments"), len(segments.slots) * width, tile.rows, tile.norms, tile.unit, dims,
                first, width, device.upload(segments.rows), device.upload(segments.starts),
                device.upload(segments.slots), len(segments.slots), touched, magic, scales, pieces, total,
            )  # fmt: skip

        def add_all(first: int, width: int) -> DeviceArray:
            total = device.zeros((pieces, touched, width), np.int64)
            for part in parts(len(rows), step):
                add(part, first, width, total)
            return total

        # What stays on the device may take a quarter of it; more is summed some coordinates at a time.
        if 8 * pieces * touched * dims <= min(KEPT_SHARE * device.total_bytes, device.free_bytes() // 4):
            return DeviceSums(device, fixed_point, clusters, ids, add_all(0, dims), counts)
        limbs = np.empty((pieces, touched, dims), dtype=np.int64)
        some = max(1, min(dims, workspace // 2 // (8 * pieces * max(1, touched))))
        for first in range(0, dims if touched else 0, some):
            width = min(some, dims - first)
            limbs[:, :, first : first + width] = device.download(add_all(first, width))
    return ClusterSums(fixed_point, clusters, ids, limbs, counts)


@dataclass(frozen=True)
class _Segments:
    """Rows in order of their cluster, and where each run of up to _SEGMENT of one cluster begins."""

    rows: Int32
    starts: Int32
    slots: Int32


def _segments(slots: Int32, touched: int) -> _Segments:
    ids, starts, order = group_by_label(slots, touched)
    runs = -(-np.diff(starts) // _SEGMENT)
    of_run = np.repeat(np.arange(len(ids)), runs)
    place = np.arange(len(of_run)) - np.repeat(np.cumsum(runs) - runs, runs)
    begins = starts[:-1][of_run] + _SEGMENT * place
    return _Segments(
        order.astype(np.int32), np.append(begins, len(order)).astype(np.int32), ids[of_run].astype(np.int32)
    )
