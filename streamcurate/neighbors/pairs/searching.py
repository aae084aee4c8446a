"""The tasks of a search for duplicates: one bounds some tiles and searches within them, one compares tiles.

What a task has finished is kept by checkpoints, its edges in a file of scratch that has a checksum; a task that finds
both does nothing again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.kernels import PairAxes
from streamcurate.neighbors.pairs.bounds import Planes, largest_products
from streamcurate.neighbors.pairs.edges import EdgeFile, write_edges
from streamcurate.neighbors.pairs.pairing import Found, Tile, unite_between, unite_within
from streamcurate.neighbors.pairs.plan import HELD_TILES, Item
from streamcurate.neighbors.pairs.tiles import GroupedRows, TileTable
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.streaming import SerialExecutor, State

KEPT_RADII = 1.5
"""A bound above so many radii is not kept; the pair counts as that far off on this side."""
# Bounded at a time: so many centres, of fewer values than this altogether.
_CENTRES_AT_A_TIME, _CENTRE_VALUES = 1 << 11, 1 << 20
# What bounding a tile takes beside it: scores of some rows against some centres, and bounds against those read.
_BOUND_BYTES = 48 << 20


def largest_kept(radius: float) -> float:
    """The largest bound that is kept, a float32 number; infinite for a radius that is none."""
    with np.errstate(over="ignore"):
        return float(np.float32(KEPT_RADII * radius))


def axes_state(axes: PairAxes) -> dict[str, NDArray[Any]]:
    """Axes as arrays by name, as they travel to other processes."""
    return {"origin": axes.origin, "vectors": axes.vectors, "numbers": np.array([axes.scale, axes.skew])}


def axes_of(state: State) -> PairAxes:
    """What :func:`axes_state` gave."""
    scale, skew = state["numbers"].tolist()
    return PairAxes(state["origin"], scale, state["vectors"], skew)


def tile_bytes(rows: int, dims: int) -> int:
    """Memory that a tile of so many rows takes while it is joined."""
    return rows * (kernels.pair_row_bytes(dims, 4) + 4 * dims + 64)


def join_bytes(rows: int, dims: int, itemsize: int, search: str) -> int:
    """Memory of joins of tiles of so many rows, one at a time."""
    # Tiles that are held, the other one, and parts of both sides, copied when they are compared; one as stored.
    tiles = (HELD_TILES + 2) * tile_bytes(rows, dims) + rows * dims * itemsize
    return tiles + kernels.pair_workspace_bytes(rows, rows, dims, search) + _BOUND_BYTES


@dataclass(frozen=True)
class Result:
    """What one tile, or one item of joins, gave."""

    file: EdgeFile | None
    covered: int
    rescored: int
    entries: int = 0


@dataclass(frozen=True)
class Within:
    """Bound some tiles against all cells, and find their duplicates within. State: the table and the axes."""

    rows: GroupedRows
    checkpoints: Checkpoints
    prefix: str
    edges: str
    search: str

    def __call__(self, tiles: tuple[int, ...], state: State, executor: SerialExecutor) -> list[Result]:
        table, axes = TileTable.of(state), axes_of(state)
        room = self.room(table, executor)

        def one(number: int) -> Result:
            with room:
                kept = self.kept(f"within-{number}")
                if kept is not None and self.checkpoints.load(f"{self.prefix}/bounds-{number}") is not None:
                    return kept
                return self._searched(number, table, axes)

        return list(executor.side_by_side(one, tiles))

    def room(self, table: TileTable, executor: SerialExecutor) -> threading.BoundedSemaphore:
        """As many joins at a time as fit."""
        most = int(table.tile_rows().max(initial=1))
        each = join_bytes(most, self.rows.dims, self.rows.dtype.itemsize, self.search)
        return threading.BoundedSemaphore(max(1, min(executor.budget.threads, executor.budget.usable // each)))

    def kept(self, name: str) -> Result | None:
        """What an earlier run left under this name, if it is whole."""
        saved = self.checkpoints.load(f"{self.prefix}/{name}")
        if saved is None:
            return None
        values = saved[1]
        file = None if values["edges"] is None else EdgeFile.from_values(values["edges"], self.edges)
        if file is not None and not file.intact():
            return None
        return Result(file, values["covered"], values["rescored"], values["entries"])

    def keep(self, name: str, found: list[Found], arrays: dict[str, NDArray[Any]], entries: int = 0) -> Result:
        """Keep what was found under this name."""
        edges = np.concatenate([one.edges for one in found]) if found else np.empty((0, 2), dtype=np.int64)
        # Named by its content, so that a worker that was given up does no harm to what another has told.
        path = Path(self.edges) / f"{self.prefix}-{name}-{xxhash.xxh3_64_hexdigest(edges.tobytes())}.edges"
        file = write_edges(path, edges) if len(edges) else None
        result = Result(file, sum(one.covered for one in found), sum(one.rescored for one in found), entries)
        values = {
            "edges": None if file is None else file.to_values(),
            "covered": result.covered,
            "rescored": result.rescored,
            "entries": entries,
        }
        self.checkpoints.save(f"{self.prefix}/{name}", arrays, values)
        return result

    def tile(self, number: int, table: TileTable, axes: PairAxes, groups: NDArray[np.int64] | None = None) -> Tile:
        """A tile ready to be joined."""
        rows = self.rows.tile(number, table)
        points, own = rows.measured(self.rows.geometry)
        prepared = kernels.prepare_pair_rows(rows.values, self.rows.geometry.metric, axes)
        groups = np.arange(rows.rows, dtype=np.int64) if groups is None else groups
        return Tile(rows.without_values(), points, own, table.reach[rows.cells], prepared, groups)

    def grouped_tile(self, number: int, table: TileTable, axes: PairAxes) -> Tile:
        """A tile with the groups that were found within."""
        saved = self.checkpoints.load(f"{self.prefix}/within-{number}")
        groups = None if saved is None else saved[0]["groups"].astype(np.int64)
        return self.tile(number, table, axes, groups)

    def _searched(self, number: int, table: TileTable, axes: PairAxes) -> Result:
        tile = self.tile(number, table, axes)
        geometry, cells = self.rows.geometry, tile.rows.cells
        inside = np.empty((len(tile.rows.centres), len(tile.rows.centres)), dtype=np.float32)
        tails, heads, values = [], [], []
        most = np.float32(largest_kept(geometry.radius))
        step = max(min(_CENTRES_AT_A_TIME, _CENTRE_VALUES // self.rows.dims), 1)
        for first in range(0, table.cells, step):
            last = min(first + step, table.cells)
            least = self._bounds(tile, table, first, last)
            overlap = slice(max(first, cells.start), min(last, cells.stop))
            if overlap.start < overlap.stop:
                inside[:, overlap.start - cells.start : overlap.stop - cells.start] = least[
                    :, overlap.start - first : overlap.stop - first
                ]
            here, there = np.nonzero(least <= most)
            tails.append((here + cells.start).astype(np.int32))
            heads.append((there + first).astype(np.int32))
            values.append(least[here, there])
        tail, head, value = np.concatenate(tails), np.concatenate(heads), np.concatenate(values)
        others = tail != head
        arrays = {"tails": tail[others], "heads": head[others], "least": value[others]}
        self.checkpoints.save(f"{self.prefix}/bounds-{number}", arrays)
        found = unite_within(tile, inside, geometry, self.search)
        groups = {"groups": tile.groups.astype(np.int32)}
        return self.keep(f"within-{number}", [found], groups, len(arrays["tails"]))

    def _bounds(self, tile: Tile, table: TileTable, first: int, last: int) -> NDArray[np.float32]:
        """M from the tile's cells to cells ``first`` to ``last``; infinite where their balls lie apart."""
        geometry, cells = self.rows.geometry, tile.rows.cells
        centres = self.rows.centres.read(first, last)
        planes = Planes.between(tile.rows.centres, centres, tile.reach, geometry)
        with np.errstate(over="ignore", invalid="ignore"):
            gap = planes.near - table.spread[cells, None] - table.spread[None, first:last]
            apart = gap > geometry.radius
        near = np.flatnonzero(~apart.all(axis=0))
        least = np.full(apart.shape, np.inf, dtype=np.float32)
        if len(near):
            most = largest_products(tile.points, tile.own, tile.rows.edges, centres[near])
            least[:, near] = planes.part(near).least(most)
        least[apart] = np.inf
        return least


@dataclass(frozen=True)
class Between:
    """Compare the pairs of cells of an item. State: as of ``Within``."""

    within: Within
    path: Path

    def __call__(self, item: Item, state: State, executor: SerialExecutor) -> Result:
        table, axes, within = TileTable.of(state), axes_of(state), self.within
        name = f"joins-{item.start}-{item.stop}-{item.checksum:016x}"
        kept = within.kept(name)
        if kept is not None:
            return kept
        pairs = item.read(self.path)
        room = within.room(table, executor)

        def one(bounds: tuple[int, int]) -> Found:
            with room:
                return self._joined(pairs[bounds[0] - item.start : bounds[1] - item.start], table, axes)

        parts = list(zip(item.parts[:-1], item.parts[1:], strict=True))
        return within.keep(name, list(executor.side_by_side(one, parts)), {})

    def _joined(self, pairs: NDArray[np.void], table: TileTable, axes: PairAxes) -> Found:
        """Join the tiles held together with others, one at a time."""
        lower, higher = table.tile_of_cell[pairs["low"]], table.tile_of_cell[pairs["high"]]
        held: dict[int, Tile] = {}
        right: Tile | None = None
        edges, covered, rescored = [], 0, 0
        starts = np.flatnonzero((np.diff(lower, prepend=-1) != 0) | (np.diff(higher, prepend=-1) != 0)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(pairs)], strict=True):
            one, other = int(lower[start]), int(higher[start])
            if one not in held:
                held[one] = self.within.grouped_tile(one, table, axes)
            if right is None or right.rows.number != other:
                right = None  # before the next takes its place in memory
                right = held[other] if other in held else self.within.grouped_tile(other, table, axes)
            found = self._pair(held[one], right, pairs[start:stop])
            edges.append(found.edges)
            covered, rescored = covered + found.covered, rescored + found.rescored
        return Found(np.concatenate(edges), covered, rescored)

    def _pair(self, left: Tile, right: Tile, pairs: NDArray[np.void]) -> Found:
        geometry = self.within.rows.geometry
        low, high = pairs["low"] - left.rows.first_cell, pairs["high"] - right.rows.first_cell
        forth = np.full((len(left.rows.centres), len(right.rows.centres)), -np.inf)
        back = np.full(forth.shape[::-1], -np.inf)
        # What the other side leaves of the radius.
        forth[low, high] = geometry.radius - pairs["back"].astype(np.float64)
        back[high, low] = geometry.radius - pairs["forth"].astype(np.float64)
        return unite_between(left, right, forth, back, geometry, self.within.search)
