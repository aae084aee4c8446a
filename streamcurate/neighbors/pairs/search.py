"""All duplicates among the rows of a tree: the edges of a graph whose components they are.

The rows are regrouped into cells and tiles (``grouped``); each tile is bounded against all cells and searched within
(``searching.Within``); bounds of both sides decide which pairs of cells remain (``plan``); the tiles they lie in
are compared (``searching.Between``). Rows of one tile that are known to be united are not compared again, and the
groups found within tiles are known to the joins between them: many copies of a row cost little.

Finished tiles and joins are kept by checkpoints, their edges in checksummed files. What a killed search left is used
again where the same cells come out; all else is found anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np

from streamcurate import kernels
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import InputError, StoreError
from streamcurate.kernels import Metric
from streamcurate.neighbors.pairs.bounds import Geometry
from streamcurate.neighbors.pairs.edges import EdgeFile
from streamcurate.neighbors.pairs.grouped import Grouping, group_rows, tile_rows_for
from streamcurate.neighbors.pairs.plan import Bounds, Plan, SkippedPairs, make_plan
from streamcurate.neighbors.pairs.searching import Between, Within, axes_state, join_bytes, largest_kept
from streamcurate.neighbors.pairs.tiles import TileTable
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.digest import Digest
from streamcurate.runs.events import Event, StageFinished
from streamcurate.streaming import Executor
from streamcurate.tree import Tree
from streamcurate.tree.tree import add_array

_TILES_AN_ITEM = 4


@dataclass(frozen=True)
class EdgesFound:
    """What a search for duplicates found.

    Attributes
    ----------
    files : list of EdgeFile
        Edges whose components are those of all duplicate pairs; in scratch.
    rows : int
        Rows looked at.
    covered, possible, rescored : int
        Pairs of rows that were scored; all pairs there are; pairs whose distance the formula gave.
    cells : int
        Groups of rows by which the search was pruned.
    joined, pruned, skipped : int
        Pairs of different cells that were compared; that cannot hold duplicates; that were left out for
        ``most_neighbours``.
    skipped_pairs : SkippedPairs or None
        Those left out; in scratch.
    """

    files: list[EdgeFile]
    rows: int
    covered: int
    possible: int
    rescored: int
    cells: int
    joined: int
    pruned: int
    skipped: int
    skipped_pairs: SkippedPairs | None


def _ignore(event: Event) -> None:
    """Tell nobody."""


def find_edges(
    tree: Tree,
    embeddings: Embeddings,
    limit: float,
    metric: Metric,
    executor: Executor,
    scratch: Path,
    checkpoints: Checkpoints,
    *,
    search: str = "auto",
    most_neighbours: int | None = None,
    emit: Callable[[Event], None] = _ignore,
    tile_rows: int | None = None,
    cell_rows: int | None = None,
) -> EdgesFound:
    """Find which rows of a tree are duplicates, up to what follows from other pairs.

    Parameters
    ----------
    tree : Tree
        Its first level says which rows lie together. Rows that are in no cluster are not looked at.
    embeddings : Embeddings
        The rows of the tree.
    limit : float
        Two rows are duplicates where the formula's value for them is at most this: r^2 (l2), 2 (1 - t) (cosine).
    metric : "l2" or "cosine"
        Need not be the tree's.
    executor : Executor
    scratch : Path
        For rows, plan and edges; must stay until the edges have been used.
    checkpoints : Checkpoints
        Of finished parts.
    search : {"auto", "blas", "faiss"}
        How the kernel finds candidates.
    most_neighbours : int, optional
        Compare only cells of which either is among so many of the other's nearest possible partners; the others are
        recorded. By default all that are possible are compared, and nothing is missed.
    emit : callable, optional
        Receives events.
    tile_rows, cell_rows : int, optional
        Most rows of a tile, usual rows of a cell; they change what it costs and nothing else.

    Returns
    -------
    EdgesFound

    Raises
    ------
    InputError
        ``most_neighbours`` below 1.
    MemoryLimitError
        The tiles of one join do not fit.
    StoreError
        Rows cannot be read, or scratch was damaged.
    """
    if most_neighbours is not None and most_neighbours < 1:
        raise InputError(f"most_neighbours is {most_neighbours}; it must be at least 1, or left out")
    level = tree.levels[0]
    began = monotonic()
    sizes = level.sizes()
    rows = int(sizes.sum())
    if rows < 2:
        return EdgesFound([], rows, 0, 0, 0, 0, 0, 0, 0, None)
    _require(executor, embeddings, rows, tile_rows, search)
    folder = scratch / "duplicates"
    edges_folder = folder / "edges"
    edges_folder.mkdir(parents=True, exist_ok=True)
    grouping = group_rows(
        embeddings, level.stored_labels, level.stored_centroids, sizes, metric, tree.metric, limit, executor,
        folder / "rows", tile_rows, cell_rows,
    )  # fmt: skip
    table, geometry = grouping.table, grouping.rows.geometry
    began = _told(emit, "regrouping rows", began, rows)
    prefix = f"edges-{_identity(grouping, limit)}"
    state = {**table.state(), **axes_state(kernels.pair_axes(grouping.sample, metric))}
    work = Within(grouping.rows, checkpoints, prefix, str(edges_folder), search)
    tiles = [
        tuple(range(first, min(first + _TILES_AN_ITEM, table.count))) for first in range(0, table.count, _TILES_AN_ITEM)
    ]
    files: list[EdgeFile] = []
    covered = rescored = entries = 0
    tile_rows_each = table.tile_rows()
    executor.progress.started("searching tiles", rows)
    for some, done in zip(tiles, executor.map(work, tiles, state, "searching tiles"), strict=True):
        for result in done:
            files += [result.file] if result.file is not None else []
            covered, rescored, entries = (
                covered + result.covered, rescored + result.rescored, entries + result.entries
            )  # fmt: skip
        executor.progress.advanced(int(tile_rows_each[list(some)].sum()), 0)
    executor.progress.finished()
    began = _told(emit, "searching tiles", began, rows)
    plan = _planned(table, geometry, checkpoints, prefix, entries, folder / "plan", executor, most_neighbours)
    between = Between(work, plan.path)
    total, done_pairs, told = sum(item.pairs for item in plan.items), 0, 0
    executor.progress.started("comparing tiles", rows)
    for item, result in zip(plan.items, executor.map(between, plan.items, state, "comparing tiles"), strict=True):
        files += [result.file] if result.file is not None else []
        covered, rescored, done_pairs = covered + result.covered, rescored + result.rescored, done_pairs + item.pairs
        now = rows * done_pairs // total
        executor.progress.advanced(now - told, 0)
        told = now
    executor.progress.finished()
    _told(emit, "comparing tiles", began, rows)
    shutil.rmtree(folder / "rows", ignore_errors=True)
    skipped = plan.skipped.count if plan.skipped is not None else 0
    pairs_of_cells = table.cells * (table.cells - 1) // 2
    return EdgesFound(
        files, rows, covered, rows * (rows - 1) // 2, rescored, table.cells, plan.joined,
        pairs_of_cells - plan.joined - skipped, skipped, plan.skipped,
    )  # fmt: skip


def _told(emit: Callable[[Event], None], stage: str, began: float, rows: int) -> float:
    now = monotonic()
    emit(StageFinished(stage, seconds=now - began, rows=rows))
    return now


def _identity(grouping: Grouping, limit: float) -> str:
    """What finished parts belong to: the same cells of the same rows, and the same limit."""
    geometry = grouping.rows.geometry
    digest = Digest().add(np.array([limit, float(geometry.exponent)])).add(geometry.origin)
    add_array(digest, grouping.rows.centres)
    return digest.hexdigest()[:8] + grouping.table.digest()[:16]


def _planned(
    table: TileTable, geometry: Geometry, checkpoints: Checkpoints, prefix: str, entries: int, folder: Path,
    executor: Executor, most_neighbours: int | None,
) -> Plan:  # fmt: skip
    def bounds() -> Iterator[Bounds]:
        for tile in range(table.count):
            saved = checkpoints.load(f"{prefix}/bounds-{tile}")
            if saved is None:
                raise StoreError(
                    f"{checkpoints.folder}: the bounds of tile {tile} are damaged; give the same command again"
                )
            arrays = saved[0]
            yield arrays["tails"].astype(np.int64), arrays["heads"].astype(np.int64), arrays["least"]

    unit = 2.0**geometry.exponent
    missing = largest_kept(geometry.radius)
    return make_plan(bounds, entries, table, geometry.radius, missing, unit, folder, executor.budget, most_neighbours)


def _require(executor: Executor, embeddings: Embeddings, rows: int, tile_rows: int | None, search: str) -> None:
    dims = embeddings.dims
    most = tile_rows_for(rows, dims) if tile_rows is None else tile_rows
    executor.budget.require(
        join_bytes(most, dims, embeddings.dtype.itemsize, search),
        f"{embeddings.name}: comparing tiles of {most:,} rows of {dims} dims",
        "use fewer threads",
    )


__all__ = ["EdgesFound", "find_edges", "join_bytes"]
