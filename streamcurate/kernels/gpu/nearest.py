"""Certified nearest centroids on a device.

A tile of rows is screened by the route that is fastest here (choice.py): scores of limited precision, a rigorous bound
(bound.py), and a short list of the centroids that could still be nearest, all of which go through the formula. Rows
whose list overflowed (more centroids alike than it has room for) are screened again by float32 products, whose bound is
some thousand times narrower; what even that leaves, and rows too far out for float32 scores, goes through the formula
with all centroids. Memory depends on neither.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.gpu.blocks import MEBIBYTE, Tile, checked, parts, rows_per_tile, whole
from streamcurate.kernels.gpu.choice import TRIAL_ROWS, RouteChoice
from streamcurate.kernels.gpu.interface import SINGLE, Device, DeviceArray
from streamcurate.kernels.gpu.prepare import DeviceCentroids, layout_of
from streamcurate.kernels.gpu.screen import ROOM, RouteError, Shape, screen, shape_of
from streamcurate.kernels.metric import Array, Float64, Int32
from streamcurate.kernels.prepared_centroids import PreparedCentroids

_DIRECT = "direct"
_ROW_BYTES = 4 + 8 + 8  # label, value, norm
_PART_BYTES = 4 + 8  # label and value of a chunk of clusters
_SMALLEST_CHUNK = 16  # clusters


@dataclass(frozen=True)
class Search:
    """What all tiles of one call share."""

    device: Device
    prepared: DeviceCentroids
    workspace: int
    first_cluster: int

    def shape(self, route: str, itemsize: int) -> Shape:
        """How much of rows of this kind is done at a time by this route."""
        dims, clusters = self.prepared.dims, self.prepared.clusters
        row = _ROW_BYTES + itemsize * dims + _PART_BYTES
        if route == _DIRECT:
            return Shape(rows_per_tile(self.workspace // 2, row), 0, 0, row, self.workspace // 4)
        return shape_of(route, dims, clusters, row, self.workspace, self.device.cache_bytes)


def nearest_device_bytes(rows: int, dims: int, clusters: int, workspace: int, routes: tuple[str, ...]) -> int:
    """Bytes of device memory one call of :func:`nearest` takes beside prepared centroids and uploaded rows."""
    row = _ROW_BYTES + 4 * dims + _PART_BYTES
    shapes = [shape_of(route, dims, clusters, row, workspace, workspace) for route in routes]
    largest = max(shape.fixed_bytes + min(shape.rows, max(1, rows)) * shape.row_bytes for shape in shapes)
    return largest + MEBIBYTE


def nearest(
    device: Device,
    workspace: int,
    rows: Array,
    prepared: PreparedCentroids,
    previous: tuple[Int32, Float64] | None = None,
    first_cluster: int = 0,
    choice: RouteChoice | None = None,
) -> tuple[Int32, Float64]:
    """See kernels/cpu/nearest.py; ``workspace``: the device memory a tile's arrays may take.

    ``choice``: what earlier calls measured; without it the device's first route is taken.
    """
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
    search = Search(device, prepared, workspace, first_cluster)
    if choice is None:
        choice = RouteChoice(device.routes)
    with device.session():
        if prepared.direct:
            for part in parts(len(rows), search.shape(_DIRECT, rows.dtype.itemsize).rows):
                _answer(search, _DIRECT, rows[part], labels[part], values[part])
            return labels, values
        kind = (rows.dtype.name, prepared.dims, prepared.metric, prepared.clusters.bit_length())
        start = 0
        while start < len(rows):
            start += _next_tile(search, choice, kind, rows[start:], labels[start:], values[start:])
    return labels, values


def _next_tile(search: Search, choice: RouteChoice, kind: Hashable, rows: Array, labels: Int32, values: Float64) -> int:
    """Answer the first of these rows, and return how many: by the fastest route, or by one still to be measured."""
    route, trial = choice.settled(kind), None
    if route is None:
        trial = choice.untried(kind) if len(rows) >= TRIAL_ROWS else None
        route = trial or choice.routes[0]
    count = min(len(rows), TRIAL_ROWS) if trial else len(rows)
    step = search.shape(route, rows.dtype.itemsize).rows
    if trial:
        search.device.synchronize()
    else:
        count = min(count, step)
    began = time.perf_counter()
    try:
        for part in parts(count, step):
            _answer(search, route, rows[part], labels[part], values[part])
    except RouteError:
        # What was answered is right and stays; the rest is answered again.
        choice.forbid(route)
        return 0
    if trial:
        choice.record(kind, trial, (time.perf_counter() - began) / count)
    return count


def _answer(search: Search, route: str, rows: Array, labels: Int32, values: Float64) -> None:
    tile = whole(search.device, rows, search.prepared.metric)
    pending = np.arange(tile.count, dtype=np.int32)
    if route != _DIRECT:
        pending = _screened(search, route, tile, labels, values)
    if len(pending):
        _rest(search, _DIRECT if route in (SINGLE, _DIRECT) else SINGLE, tile, pending, labels, values)


def _rest(search: Search, route: str, tile: Tile, pending: Int32, labels: Int32, values: Float64) -> None:
    """Answer the listed rows by another route, side by side, so many at a time that they fit."""
    device, dims = search.device, tile.dims
    # The tile itself still takes its share of the workspace.
    within = Search(device, search.prepared, max(1, search.workspace // 2), search.first_cluster)
    step = within.shape(route, tile.rows.dtype.itemsize).rows

    def answer(listed: Int32) -> None:
        some_labels, some_values = labels[listed], values[listed]
        if route == _DIRECT:
            _direct(within, tile, listed, some_labels, some_values)
        else:
            on_device = device.upload(listed)
            gathered = device.empty((len(listed), dims), tile.rows.dtype)
            device.launch(tile.kernel("gather"), len(listed) * dims, tile.rows, on_device, len(listed), dims, gathered)
            _answer(within, route, gathered, some_labels, some_values)
        labels[listed], values[listed] = some_labels, some_values

    for part in parts(len(pending), step):
        answer(pending[part])


def _screened(search: Search, route: str, tile: Tile, labels: Int32, values: Float64) -> Int32:
    """Answer all rows but those listed in the result."""
    device, prepared, count = search.device, search.prepared, tile.count
    layout = layout_of(device, prepared, route, tile.rows.dtype)
    own_labels, own_values = device.upload(labels), device.upload(values)
    shape = search.shape(route, tile.rows.dtype.itemsize)
    bounds = screen(device, tile, prepared, layout, shape, own_labels, own_values)
    pending = device.empty((count,), np.int32)
    pending_count = device.zeros((1,), np.int32)
    device.launch(
        tile.kernel("settle"), count, tile.rows, tile.norms, tile.unit, count, tile.dims, prepared.resident,
        bounds.found, bounds.lower, bounds.length, bounds.upper, bounds.wild, ROOM, search.first_cluster, own_labels,
        own_values, pending, pending_count,
    )  # fmt: skip
    labels[:] = device.download(own_labels)
    values[:] = device.download(own_values)
    # Blocks list their rows in any order.
    listed: Int32 = np.sort(device.download(pending[: int(device.download(pending_count)[0])]))
    return listed


def _direct(search: Search, tile: Tile, listed: Int32, labels: Int32, values: Float64) -> None:
    """The formula of the listed rows with all centroids, chunks of clusters side by side."""
    device, prepared = search.device, search.prepared
    count, clusters = len(listed), prepared.clusters
    chunks = max(1, min(-(-clusters // _SMALLEST_CHUNK), search.workspace // (4 * _PART_BYTES * count)))
    chunk = -(-clusters // chunks)
    chunks = -(-clusters // chunk)
    on_device, own_labels, own_values = (device.upload(array) for array in (listed, labels, values))
    part_labels: DeviceArray = device.empty((chunks, count), np.int32)
    part_values: DeviceArray = device.empty((chunks, count), np.float64)
    device.launch(
        tile.kernel("direct"), chunks * count, tile.rows, tile.norms, tile.unit, tile.dims, on_device, count,
        prepared.resident, clusters, chunk, chunks, part_labels, part_values,
    )  # fmt: skip
    device.launch(
        "merge_chunks", count, part_labels, part_values, chunks, count, search.first_cluster, own_labels, own_values
    )
    labels[:] = device.download(own_labels)
    values[:] = device.download(own_values)
