"""Screening a tile of rows: which centroids can still be a row's nearest, by one of three routes to their scores.

All routes share the bound (bound.py), and what they leave behind: each row's least upper bound of any score, and a list
of the candidates whose lower bound was not above it. A list with more candidates than room makes its row crowded.

* single: float32 products by the device's library, a tile of scores at a time, then cuda/screen.cu;
* half: the same from float16 products on tensor cores;
* fused: cuda/fused.cu, product and search in one.

A tile of scores is written and read once; it is made small enough to stay in the device's last cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.gpu.blocks import LARGEST_TILE, Tile, rows_per_tile
from streamcurate.kernels.gpu.bound import FARTHEST
from streamcurate.kernels.gpu.interface import FUSED, SINGLE, Device, DeviceArray
from streamcurate.kernels.gpu.prepare import (
    GROUP,
    LARGEST_COLUMNS,
    PANEL_COLUMNS,
    PANEL_DIMS,
    PANEL_ROWS,
    DeviceCentroids,
    Layout,
)

ROOM = 32  # candidates in a row's list: each of k / 256 panels leaves few, and fewer the later it comes
_SMALLEST_PART = 256  # fewer columns are taken at a time before fewer rows than these
_LEAST_PART = 32  # rows of one block of cuda/screen.cu
_LEAST_SCORES = 2**20  # bytes, where a device says nothing of its cache
_LIST_BYTES = ROOM * (4 + 8) + 4
_BOUND_BYTES = 8 + 8 + 4 + 8 + 1 + 4  # reach, slack, gain, upper bound, wild, pending
_CACHE_SHARE = 0.6  # of the last cache, for a tile of scores

# Shared memory a block may have on compute capability 9.0, less what the fused kernel has beside its panels.
_SHARED_BYTES = 227 * 1024 - 2048
_PANEL_ROW_BYTES, _PANEL_COLUMN_BYTES = (count * PANEL_DIMS * 2 for count in (PANEL_ROWS, PANEL_COLUMNS))
_MOST_STAGES, _LEAST_STAGES = 6, 3
_ALIGNMENT = 1024

_WRITTEN = {"single": 0, "shifted": 1, "exact": 2}  # ``kind`` of cuda/halves.cu


class RouteError(Exception):
    """The fused kernel gave up; nothing it left behind may be used."""


@dataclass(frozen=True)
class Bounds:
    """What is known of a tile's rows, on the device.

    Attributes
    ----------
    reach, slack : (m,) float64
        A and rho of bound.py.
    gain : (m,) float32
    upper : (m,) int64
        Least upper bound of any score, as the key of ``ordered`` in cuda/rows.cu.
    wild : (m,) uint8
        1 for rows that no score concerns.
    found, lower : (ROOM, m) int32, float64
        Candidates and their lower bounds.
    length : (m,) int32
    """

    reach: DeviceArray
    slack: DeviceArray
    gain: DeviceArray
    upper: DeviceArray
    wild: DeviceArray
    found: DeviceArray
    lower: DeviceArray
    length: DeviceArray


@dataclass(frozen=True)
class Shape:
    """How much is done at a time.

    Attributes
    ----------
    rows : int
        Of one tile.
    columns, part : int
        Of one matrix of scores, and rows of it; 0 for the fused route.
    row_bytes : int
        Device memory for each row of the tile.
    fixed_bytes : int
        And whatever the rows.
    """

    rows: int
    columns: int
    part: int
    row_bytes: int
    fixed_bytes: int


def shape_of(route: str, dims: int, clusters: int, row_bytes: int, workspace: int, cache_bytes: int) -> Shape:
    """A tile whose arrays take about ``workspace`` bytes; ``row_bytes``: what the caller holds for each row beside."""
    row = row_bytes + _LIST_BYTES + _BOUND_BYTES
    if route == FUSED:
        row += 2 * -(-dims // PANEL_DIMS) * PANEL_DIMS
        rows = rows_per_tile(workspace, row)
        # The last panel of rows is filled up with zeros.
        return Shape(rows // PANEL_ROWS * PANEL_ROWS if rows >= PANEL_ROWS else rows, 0, 0, row, 0)
    row += 4 * dims if route == SINGLE else 2 * (dims + 8)
    column = 4 * dims if route == SINGLE else 0
    columns = min(-(-clusters // GROUP) * GROUP, LARGEST_COLUMNS)
    most = min(workspace // 2, max(int(_CACHE_SHARE * cache_bytes), _LEAST_SCORES))
    while columns > GROUP and columns * (4 * _SMALLEST_PART + column) > most:
        columns = max(GROUP, columns // 2 // GROUP * GROUP)
    part = (most - columns * column) // (4 * columns)
    part = max(_LEAST_PART, min(LARGEST_TILE, part) // _LEAST_PART * _LEAST_PART)
    fixed = columns * (4 * part + column)
    return Shape(rows_per_tile(max(1, workspace - fixed), row), columns, part, row, fixed)


def screen(
    device: Device,
    tile: Tile,
    prepared: DeviceCentroids,
    layout: Layout,
    shape: Shape,
    labels: DeviceArray,
    values: DeviceArray,
) -> Bounds:
    """Lists of candidates for all rows; ``labels`` and ``values``: the answers so far.

    Raises
    ------
    RouteError
        The fused kernel gave up.
    """
    count = tile.count
    bounds = Bounds(
        reach=device.empty((count,), np.float64),
        slack=device.empty((count,), np.float64),
        gain=device.empty((count,), np.float32),
        upper=device.empty((count,), np.int64),
        wild=device.empty((count,), np.uint8),
        found=device.empty((ROOM, count), np.int32),
        lower=device.empty((ROOM, count), np.float64),
        length=device.zeros((count,), np.int32),
    )
    if layout.route == FUSED:
        _fused(device, tile, layout, bounds, labels, values)
    else:
        _by_tiles(device, tile, prepared, layout, shape, bounds, labels, values)
    return bounds


def _ready(
    device: Device,
    tile: Tile,
    layout: Layout,
    bounds: Bounds,
    labels: DeviceArray,
    values: DeviceArray,
    places: int,
    panel: int,
) -> DeviceArray:
    """The rows as the product wants them, and their bounds."""
    kind = "single" if layout.route == SINGLE else "exact" if layout.exact else "shifted"
    in_place = kind == "exact" and panel == 0 and layout.width == tile.dims
    singles, halves = device.empty((0,), np.float32), device.empty((0,), np.float16)
    if kind == "single":
        singles = device.empty((places, layout.width), np.float32)
    elif not in_place:
        halves = device.empty((places, layout.width), np.float16)
    device.launch(
        tile.kernel("ready_rows"), device.blocks(places, 8), tile.rows, tile.norms, tile.unit, tile.count, tile.dims,
        layout.origin, layout.scale, FARTHEST, labels, values, _WRITTEN[kind], int(not in_place), places, layout.width,
        panel, singles, halves, bounds.reach, bounds.slack, bounds.gain, bounds.upper, bounds.wild,
    )  # fmt: skip
    if kind == "single":
        return singles
    return tile.rows if in_place else halves


def _by_tiles(
    device: Device,
    tile: Tile,
    prepared: DeviceCentroids,
    layout: Layout,
    shape: Shape,
    bounds: Bounds,
    labels: DeviceArray,
    values: DeviceArray,
) -> None:
    count, dims, padded = tile.count, tile.dims, layout.padded
    rows = _ready(device, tile, layout, bounds, labels, values, count, 0)
    columns, part = min(shape.columns, padded), min(shape.part, count)
    memory = device.empty((columns * part,), np.float32)
    made = device.empty((columns, dims), np.float32) if layout.route == SINGLE else None
    for first_column in range(0, padded, columns):
        taken = slice(first_column, min(first_column + columns, padded))
        some = taken.stop - first_column
        groups = some // GROUP
        own = slice(first_column // GROUP, first_column // GROUP + groups)
        if made is None:
            right = layout.columns[taken]
        else:
            right = made[:some]
            device.launch(
                "fill_columns", some * dims, prepared.resident, dims, layout.origin, layout.scale, layout.order,
                first_column, some, right,
            )  # fmt: skip
        beside = (layout.norms[taken], layout.order[taken], layout.bounds[own], layout.residuals[own])
        for first in range(0, count, part):
            here = min(part, count - first)
            scores = memory[: some * here]
            device.product(right, rows[first : first + here], scores)
            device.launch(
                "screen", device.blocks(here, 32), scores, *beside, bounds.reach, bounds.slack, bounds.gain, groups,
                first, here, count, ROOM, *layout.terms, bounds.upper, bounds.found, bounds.lower, bounds.length,
            )  # fmt: skip


def fused_stages(pieces: int) -> tuple[int, bool, int]:
    """(panels under way, whether the rows stay in shared memory, bytes of it) for rows of so many pieces of 64."""
    left = _SHARED_BYTES - _ALIGNMENT - pieces * _PANEL_ROW_BYTES
    resident = left >= _LEAST_STAGES * _PANEL_COLUMN_BYTES
    stage = _PANEL_COLUMN_BYTES if resident else _PANEL_COLUMN_BYTES + _PANEL_ROW_BYTES
    held = pieces * _PANEL_ROW_BYTES if resident else 0
    stages = min(_MOST_STAGES, (_SHARED_BYTES - _ALIGNMENT - held) // stage)
    return stages, resident, _ALIGNMENT + held + stages * stage


def _fused(
    device: Device, tile: Tile, layout: Layout, bounds: Bounds, labels: DeviceArray, values: DeviceArray
) -> None:
    panels = -(-tile.count // PANEL_ROWS)
    rows = _ready(device, tile, layout, bounds, labels, values, panels * PANEL_ROWS, PANEL_ROWS)
    pieces = layout.width // PANEL_DIMS
    stages, resident, shared = fused_stages(pieces)
    failed = device.zeros((1,), np.int32)
    device.fused_screen(
        panels, shared, rows, layout.columns, layout.norms, layout.order, layout.bounds, layout.residuals,
        bounds.reach, bounds.slack, bounds.gain, tile.count, layout.padded // PANEL_COLUMNS, pieces, stages,
        int(resident), ROOM, *layout.terms, bounds.upper, bounds.found, bounds.lower, bounds.length, failed,
    )  # fmt: skip
    if int(device.download(failed)[0]):
        raise RouteError
