"""Certified nearest centroids on a device: the search whose derivation is in kernels/cpu/nearest.py.

The bound there holds for any order of a product's additions, with or without fused multiply-adds and with products that
underflow flushed to zero, hence for cuBLAS in float32. A tile of rows meets the columns tile by tile: product; smallest
score of each group of columns, which lowers each row's upper bound; candidates into the row's list. What is left in the
lists goes through the formula. A row whose list overflows even after pruning (more centroids alike than it has room
for), or too far out for float32 scores, goes through the formula with all centroids: memory depends on neither.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.nearest import _FARTHEST, _error_terms
from streamcurate.kernels.gpu.blocks import MEBIBYTE, Tile, checked, parts, rows_per_tile, whole
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.gpu.prepare import GROUP, LARGEST_COLUMNS, DeviceCentroids
from streamcurate.kernels.metric import Array, Float64, Int32
from streamcurate.kernels.prepared_centroids import PreparedCentroids

_ROOM = 16  # candidates in a row's list
_SMALLEST_TILE = 256  # fewer columns are taken at a time before fewer rows than these
_LIST_BYTES = _ROOM * (4 + 8)
_ROW_BYTES = 4 + 8 + 8 + 8 + 8 + 1 + 4 + 4  # label, value, norm, reach, upper bound, wild, length, pending
_PART_BYTES = 4 + 8  # label and value of a chunk of clusters
_SMALLEST_CHUNK = 16  # clusters


def search_tile(dims: int, itemsize: int, clusters: int, direct: bool, workspace: int) -> tuple[int, int]:
    """(rows, columns) of one tile, whose arrays take ``workspace`` bytes or less."""
    row = _ROW_BYTES + itemsize * dims + _PART_BYTES
    if direct:
        return rows_per_tile(workspace, row), 0
    row += _LIST_BYTES + 4 * dims
    columns = min(-(-clusters // GROUP) * GROUP, LARGEST_COLUMNS)
    while columns > GROUP and _SMALLEST_TILE * (row + _score_bytes(columns)) > workspace:
        columns = max(GROUP, columns // 2 // GROUP * GROUP)
    return rows_per_tile(workspace, row + _score_bytes(columns)), columns


def _score_bytes(columns: int) -> int:
    return 4 * columns + 4 * columns // GROUP


def nearest_device_bytes(rows: int, dims: int, clusters: int, workspace: int) -> int:
    """Bytes of device memory one call of :func:`nearest` takes beside prepared centroids and uploaded rows."""
    row = _ROW_BYTES + 4 * dims + _PART_BYTES + _LIST_BYTES + 4 * dims
    _, columns = search_tile(dims, 4, clusters, False, workspace)
    return min(max(workspace, row + _score_bytes(columns)), max(1, rows) * (row + _score_bytes(columns))) + MEBIBYTE


def nearest(
    device: Device,
    workspace: int,
    rows: Array,
    prepared: PreparedCentroids,
    previous: tuple[Int32, Float64] | None = None,
    first_cluster: int = 0,
) -> tuple[Int32, Float64]:
    """See kernels/cpu/nearest.py; ``workspace``: the device memory a tile's arrays may take."""
    if not isinstance(prepared, DeviceCentroids):
        raise TypeError("these centroids were prepared for another device")
    rows = checked(device, rows)
    if rows.shape[1] != prepared.dims:
        raise ValueError(f"rows have {rows.shape[1]} dims, the centroids {prepared.dims}")
    labels = np.full(len(rows), -1, dtype=np.int32)
    values = np.full(len(rows), np.inf, dtype=np.float64)
    if previous is not None:
        labels[:] = previous[0]
        values[:] = np.where(labels < 0, np.inf, previous[1])
    with device.session():
        step, columns = search_tile(prepared.dims, rows.dtype.itemsize, prepared.clusters, prepared.direct, workspace)
        for part in parts(len(rows), step):
            _answer(device, workspace, columns, rows[part], prepared, labels[part], values[part], first_cluster)
    return labels, values


def _answer(
    device: Device,
    workspace: int,
    columns: int,
    rows: Array,
    prepared: DeviceCentroids,
    labels: Int32,
    values: Float64,
    first_cluster: int,
) -> None:
    tile = whole(device, rows, prepared.metric)
    found = _Answer(device.upload(labels), device.upload(values))
    pending: Int32 = np.arange(tile.count, dtype=np.int32)
    if not prepared.direct:
        pending = _screen(device, tile, prepared, columns, found, first_cluster)
    if len(pending):
        _direct(device, tile, prepared, pending, found, first_cluster, workspace)
    labels[:] = device.download(found.labels)
    values[:] = device.download(found.values)


class _Answer:
    """Labels and values of a tile's rows so far, on the device."""

    def __init__(self, labels: DeviceArray, values: DeviceArray) -> None:
        self.labels = labels
        self.values = values


def _screen(
    device: Device, tile: Tile, prepared: DeviceCentroids, columns: int, found: _Answer, first_cluster: int
) -> Int32:
    """Answer all rows but those listed in the result."""
    count, dims = tile.count, tile.dims
    terms = _error_terms(dims)
    reach = device.empty((count,), np.float64)
    upper = device.empty((count,), np.int64)
    wild = device.empty((count,), np.uint8)
    device.launch(
        tile.kernel("row_bounds"), count, tile.rows, tile.norms, tile.unit, count, dims, prepared.origin,
        prepared.scale, _FARTHEST, found.labels, found.values, reach, upper, wild,
    )  # fmt: skip
    shifted = device.empty((count, dims), np.float32)
    device.launch(
        tile.kernel("shift_rows"), count * dims, tile.rows, tile.norms, tile.unit, count, dims, prepared.origin,
        prepared.scale, wild, shifted,
    )  # fmt: skip
    candidates = device.empty((_ROOM, count), np.int32)
    lower = device.empty((_ROOM, count), np.float64)
    length = device.zeros((count,), np.int32)
    padded = len(prepared.norms)
    scores_memory = device.empty((min(columns, padded), count), np.float32)
    minima = device.empty((min(columns, padded) // GROUP, count), np.float32)
    for start in range(0, padded, columns):
        part = slice(start, min(start + columns, padded))
        scores = scores_memory[: part.stop - start]
        groups = (part.stop - start) // GROUP
        norms, order = prepared.norms[part], prepared.order[part]
        bounds = prepared.bounds[start // GROUP : part.stop // GROUP]
        device.product(prepared.columns[part], shifted, scores)
        device.launch(
            "group_minima", groups * count, scores, norms, bounds, reach, groups, count, *terms, minima, upper
        )
        device.launch(
            "collect", groups * count, minima, scores, norms, order, bounds, reach, upper, groups, count, _ROOM,
            *terms, candidates, lower, length,
        )  # fmt: skip
        device.launch("prune", count, upper, count, _ROOM, candidates, lower, length)
    pending = device.empty((count,), np.int32)
    pending_count = device.zeros((1,), np.int32)
    device.launch(
        tile.kernel("settle"), count, tile.rows, tile.norms, tile.unit, count, dims, prepared.resident, candidates,
        lower, length, upper, wild, _ROOM, first_cluster, found.labels, found.values, pending, pending_count,
    )  # fmt: skip
    listed: Int32 = device.download(pending[: int(device.download(pending_count)[0])])
    return listed


def _direct(
    device: Device,
    tile: Tile,
    prepared: DeviceCentroids,
    listed: Int32,
    found: _Answer,
    first_cluster: int,
    workspace: int,
) -> None:
    """The formula of the listed rows with all centroids, chunks of clusters side by side."""
    count, clusters = len(listed), prepared.clusters
    chunks = max(1, min(-(-clusters // _SMALLEST_CHUNK), workspace // (4 * _PART_BYTES * count)))
    chunk = -(-clusters // chunks)
    chunks = -(-clusters // chunk)
    on_device = device.upload(listed)
    part_labels = device.empty((chunks, count), np.int32)
    part_values = device.empty((chunks, count), np.float64)
    device.launch(
        tile.kernel("direct"), chunks * count, tile.rows, tile.norms, tile.unit, tile.dims, on_device, count,
        prepared.resident, clusters, chunk, chunks, part_labels, part_values,
    )  # fmt: skip
    device.launch(
        "merge_chunks", count, part_labels, part_values, chunks, on_device, count, first_cluster, found.labels,
        found.values,
    )  # fmt: skip
