"""Two tiles joined: only rows that can reach cells of the other side are compared, and in one group none again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.neighbors.pairs.bounds import Float32, Float64, Geometry, Planes, reaching
from streamcurate.neighbors.pairs.tiles import TileRows

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Measured, in pairs looked at by the kernel: what a call of it costs, and what a row taken out of its tile does.
_PAIRS_A_CALL = 150_000
_PAIRS_A_ROW = 150
# Cells are taken together until they have so many rows; smaller pieces are not worth a call.
_GROUP_ROWS = 512


@dataclass(frozen=True)
class Tile:
    """A tile ready to be joined.

    Attributes
    ----------
    rows : TileRows
        Without values.
    points, own : ndarray of float32
        The points, and their products with the centres of their cells.
    reach : ndarray of float64, shape (cells,)
        Upper bounds of the norms of the cells' points.
    prepared : PairRows
    groups : ndarray of int64, shape (rows,)
        The lowest position that each row is known to be united with; changed by joins.
    """

    rows: TileRows
    points: Float32
    own: Float32
    reach: Float64
    prepared: kernels.PairRows
    groups: Int64

    @cached_property
    def cuts(self) -> Int64:
        """Runs of cells that are looked at together: their first cells, and the number of cells."""
        edges = self.rows.edges
        cuts = [0]
        for cell in range(1, len(edges) - 1):
            if edges[cell] - edges[cuts[-1]] >= _GROUP_ROWS:
                cuts.append(cell)
        return np.array([*cuts, len(edges) - 1], dtype=np.int64)


@dataclass(frozen=True)
class Found:
    """Edges between rows, (m, 2) int64 row numbers, the higher one first; and what finding them took."""

    edges: Int64
    covered: int
    rescored: int


def unite_within(tile: Tile, least: Float32, geometry: Geometry, search: str) -> Found:
    """Unite the duplicates of one tile; ``least`` (cells, cells) are the bounds M between its cells."""
    cells = np.arange(len(least))
    room = geometry.radius - least.T.astype(np.float64)
    room[cells, cells] = np.inf
    needs = _needs(tile, tile, room, geometry)
    join = _Join(tile, None, geometry.limit, search)
    edges = tile.rows.edges[tile.cuts]
    for run in range(len(edges) - 1):
        rows = np.arange(edges[run], edges[run + 1])
        if len(rows) > 1:
            join.unite(rows, None)
        for other in range(run + 1, len(edges) - 1):
            left = rows[needs[rows, other]]
            if len(left):
                theirs = np.arange(edges[other], edges[other + 1])
                right = theirs[needs[theirs, run]]
                if len(right):
                    join.unite(left, right)
    return join.found()


def unite_between(left: Tile, right: Tile, forth: Float64, back: Float64, geometry: Geometry, search: str) -> Found:
    """Unite the duplicates between two tiles.

    Parameters
    ----------
    left, right : Tile
        Their groups change.
    forth : ndarray of float64, shape (left cells, right cells)
        How far before the plane towards the right cell a row of the left one may lie; -inf: it need not be looked at.
    back : ndarray of float64, shape (right cells, left cells)
    geometry : Geometry
    search : str
    """
    join = _Join(left, right, geometry.limit, search)
    mine, theirs = _needs(left, right, forth, geometry), _needs(right, left, back, geometry)
    for left_rows, right_rows in _pieces(left, right, mine, theirs):
        join.unite(left_rows, right_rows)
    return join.found()


def _needs(tile: Tile, other: Tile, room: Float64, geometry: Geometry) -> Bools:
    """Which rows of a tile (m,) need to be compared with rows of which runs of cells of the other."""
    planes = Planes.between(tile.rows.centres, other.rows.centres, tile.reach, geometry)
    thresholds = np.where(room == -np.inf, np.float32(np.inf), planes.thresholds(room))
    needs = np.zeros((tile.rows.rows, len(other.cuts) - 1), dtype=np.bool_)
    edges = tile.rows.edges
    run = np.repeat(np.arange(needs.shape[1]), np.diff(other.cuts))
    runs = (run[:, None] == np.arange(needs.shape[1])).astype(np.float32)
    wanted = np.flatnonzero((room > -np.inf).any(axis=1))
    for cell in wanted.tolist():
        part = slice(edges[cell], edges[cell + 1])
        reach = reaching(
            tile.points[part], tile.own[part], np.array([0, part.stop - part.start]), other.rows.centres,
            thresholds[cell : cell + 1],
        )  # fmt: skip
        reach[:, room[cell] == -np.inf] = False
        # Cells reached in each run, as a product: a logical reduceat takes many times as long.
        np.greater(reach.astype(np.float32) @ runs, 0.0, out=needs[part])
    return needs


def _pieces(left: Tile, right: Tile, mine: Bools, theirs: Bools) -> list[tuple[Int64, Int64]]:
    """The rows to compare, as it is cheapest: all at once, or by a run of cells of one side, or of both, at a time."""
    all_left, all_right = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(theirs.any(axis=1))
    if not len(all_left) or not len(all_right):
        return []
    left_edges, right_edges = left.rows.edges[left.cuts], right.rows.edges[right.cuts]
    counts_left = np.add.reduceat(mine, left_edges[:-1], axis=0, dtype=np.int64)
    counts_right = np.add.reduceat(theirs, right_edges[:-1], axis=0, dtype=np.int64).T
    fine = _cost(counts_left, counts_right)
    column = _cost(counts_left.sum(axis=0), np.where(counts_left.any(axis=0), _any(theirs, right_edges), 0))
    whole = _cost(np.array([len(all_left)]), np.array([len(all_right)]))
    if whole <= min(fine, column):
        return [(all_left, all_right)]
    pieces = []
    for run in range(len(right_edges) - 1):
        rows = np.flatnonzero(mine[:, run])
        if not len(rows):
            continue
        others = np.arange(right_edges[run], right_edges[run + 1])
        if column <= fine:
            pieces.append((rows, others[theirs[others].any(axis=1)]))
            continue
        bounds = np.searchsorted(rows, left_edges)
        for part in np.flatnonzero(np.diff(bounds)).tolist():
            pieces.append((rows[bounds[part] : bounds[part + 1]], others[theirs[others, part]]))
    return [piece for piece in pieces if len(piece[1])]


def _any(needs: Bools, edges: Int64) -> Int64:
    """Rows of each run of cells that are needed at all."""
    found: Int64 = np.add.reduceat(needs.any(axis=1), edges[:-1], dtype=np.int64)
    return found


def _cost(left: Int64, right: Int64) -> int:
    """What joins of so many rows of both sides cost."""
    calls = (left > 0) & (right > 0)
    rows = (left + right)[calls]
    return int((left * right).sum() + _PAIRS_A_CALL * calls.sum() + _PAIRS_A_ROW * rows.sum())


class _Join:
    """Calls of the kernel on parts of two tiles (``right`` None: of one), with one union-find over all their rows."""

    def __init__(self, left: Tile, right: Tile | None, limit: float, search: str) -> None:
        self._left, self._right, self._limit, self._search = left, right, limit, search
        self._offset = 0 if right is None else left.rows.rows
        self._groups = left.groups if right is None else np.concatenate([left.groups, right.groups + self._offset])
        self._groups = self._groups.copy()
        self._first = np.empty(len(self._groups), dtype=np.int64)
        self._edges: list[Int64] = []
        self._covered = self._rescored = 0

    def unite(self, left: Int64, right: Int64 | None) -> None:
        """Unite rows given by their positions in the tiles, ascending; None: within the left ones."""
        other = self._left if self._right is None else self._right
        places = left if right is None else np.concatenate([left, right + self._offset])
        roots = self._groups[places]
        # The last assignment to a place wins: in reverse, that of the lowest position.
        self._first[roots[::-1]] = np.arange(len(places) - 1, -1, -1)
        groups = self._first[roots]
        one = _taken(self._left.prepared, left)
        two = None if right is None else _taken(other.prepared, right)
        i, j, counts = kernels.unite_pairs(one, two, self._limit, groups, self._search)
        self._covered += counts.covered
        self._rescored += counts.rescored
        if len(i):
            edges = np.ascontiguousarray(np.stack([places[i], places[j]], axis=1))
            self._edges.append(edges)
            kernels.unite_edges(self._groups, edges)
            kernels.settle_groups(self._groups)

    def found(self) -> Found:
        """What was found; the tiles' groups take it up."""
        edges = np.concatenate(self._edges) if self._edges else np.empty((0, 2), dtype=np.int64)
        numbers = self._left.rows.numbers
        if self._right is None:
            self._left.groups[:] = self._groups
        else:
            numbers = np.concatenate([numbers, self._right.rows.numbers])
            if len(edges):
                self._left.groups[:] = self._groups[: self._offset]
        named = numbers[edges]
        named = np.stack([named.max(axis=1), named.min(axis=1)], axis=1)
        return Found(named, self._covered, self._rescored)


def _taken(prepared: kernels.PairRows, rows: Int64) -> kernels.PairRows:
    """A part of a tile; a run of rows is not copied."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return prepared.take(slice(int(rows[0]), int(rows[-1]) + 1))
    return prepared.take(rows)
