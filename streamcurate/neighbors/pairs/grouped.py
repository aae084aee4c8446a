"""The rows regrouped into cells and tiles: one pass over the store, then bucket by bucket in memory.

The pass writes each row into the bucket of its cluster, as clusters near each other share buckets. A bucket then fits
into memory, where its clusters are made into cells and its rows put into their order. Buckets have a fixed number of
rows, whatever the memory limit, so that work that was kept goes on under another limit.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.kernels import Metric
from streamcurate.neighbors.pairs.bounds import Geometry, point_norms
from streamcurate.neighbors.pairs.cells import cell_rows_for, form_cells, means, near_order
from streamcurate.neighbors.pairs.tiles import GroupedRows, TileTable, bucket_path, tile_checksum, write_bucket
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming import Executor, Points, RowSource, SerialExecutor, State
from streamcurate.streaming.shuffle import RowSegments

Int64 = NDArray[np.int64]

# Values of a tile: 8 MiB of float32. Larger ones are read less often, smaller ones fit a small memory limit.
_TILE_VALUES = 1 << 21
_MOST_TILE_ROWS, _FEWEST_TILE_ROWS = 1 << 15, 1 << 10
# So many tiles even of a small store, for workers to share.
_FEWEST_TILES = 8
_TILES_A_BUCKET = 4
_SEGMENT_SHARE = 1 / 4
# Centroids or centres at a time, and rows of a sample: so many values of theirs at most.
_BLOCK_VALUES = 1 << 21
_CENTRE_BLOCK = 1 << 14
_ORDERED_DIMS, _ORDER_SAMPLE = 16, 2048
_UNIT_SAMPLE = 256
# Rows kept of all buckets together, by which joins choose what they look at first.
_SAMPLE_ROWS = 4096
_SPREADING = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Grouping:
    """What regrouping gave.

    Attributes
    ----------
    rows : GroupedRows
    table : TileTable
    sample : ndarray, shape (s, dims)
        Rows from all over the store.
    """

    rows: GroupedRows
    table: TileTable
    sample: NDArray[Any]


def tile_rows_for(rows: int, dims: int) -> int:
    """Rows of a full tile."""
    most = min(_TILE_VALUES // dims, _MOST_TILE_ROWS, max(rows // _FEWEST_TILES, _FEWEST_TILE_ROWS))
    return 1 << (max(most, 64).bit_length() - 1)


def group_rows(
    source: RowSource,
    labels: StoredArray,
    centroids: StoredArray,
    sizes: Int64,
    metric: Metric,
    tree_metric: str,
    limit: float,
    executor: Executor,
    folder: Path,
    tile_rows: int | None = None,
    cell_rows: int | None = None,
) -> Grouping:
    """Regroup the labelled rows of a store.

    Parameters
    ----------
    source : RowSource
    labels : StoredArray of int32, shape (rows,)
        Cluster of each row; -1: not looked at.
    centroids : StoredArray of float32, shape (clusters, dims)
    sizes : ndarray of int64, shape (clusters,)
        Rows of each cluster.
    metric, limit
        Of the threshold.
    tree_metric : str
        Of the centroids.
    executor : Executor
    folder : Path
        For the grouped rows; what lies there is removed.
    tile_rows, cell_rows : int, optional
        Rows of a full tile, and of a usual cell.

    Raises
    ------
    MemoryLimitError
        The plan of so many rows, or one bucket, does not fit.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "segments").mkdir(parents=True)
    total, dims = int(sizes.sum()), source.dims
    tile_rows = tile_rows_for(total, dims) if tile_rows is None else tile_rows
    cell_rows = min(cell_rows_for(total) if cell_rows is None else cell_rows, tile_rows)
    geometry, rank = _survey(source, centroids, sizes, metric, tree_metric, limit)
    by_rank = np.empty_like(sizes)
    by_rank[rank] = sizes
    first, parts, buckets = _buckets(by_rank, _TILES_A_BUCKET * tile_rows)
    usable = executor.budget.usable
    row_bytes = dims * source.dtype.itemsize + 64
    segment_rows = max(int(usable * _SEGMENT_SHARE) // row_bytes, 1)
    segments = RowSegments(folder / "segments", buckets, dims, source.dtype, tags=2)
    numbers = range(-(-source.rows // segment_rows))
    executor.budget.require(
        3 * 8 * len(numbers) * buckets + 64 * len(sizes),
        f"regrouping {total:,} rows",
        "look at fewer rows at a time (a subset)",
    )
    regroup = _Regroup(segments, Points.all_of(source), labels, segment_rows)
    executor.progress.started("regrouping rows", source.rows)
    written = []
    state: State = {"rank": rank.astype(np.int32), "first": first, "parts": parts}
    for counts in executor.map(regroup, numbers, state, "regrouping rows"):
        written.append(counts)
        executor.progress.advanced(min(segment_rows, source.rows), 0)
    executor.progress.finished()
    counts = np.stack(written)
    most = int(counts.sum(axis=0).max(initial=0))
    executor.budget.require(
        arrange_bytes(most, dims, source.dtype),
        f"putting {most:,} rows in order",
        "use fewer dims",
    )
    sampled = -(-at_most(_SAMPLE_ROWS, dims) // buckets)
    arrange = _Arrange(segments, geometry, folder, tile_rows, cell_rows, sampled)
    executor.progress.started("forming cells", total)
    arranged: list[_Bucket] = []
    for bucket in executor.map(arrange, range(buckets), {"counts": counts}, "forming cells"):
        arranged.append(bucket)
        executor.progress.advanced(int(bucket.cell_rows.sum()), 0)
    executor.progress.finished()
    segments.close()
    centres = create_array(
        folder / "centres", (sum(len(one.cell_rows) for one in arranged), dims), np.float32,
        at_most(_CENTRE_BLOCK, dims), durable=False, overwrite=True,
    )  # fmt: skip
    with SequentialWriter(centres) as writer:
        for number, one in enumerate(arranged):
            path = bucket_path(folder, number, one.name, "centres")
            writer.append(np.fromfile(path, np.float32).reshape(-1, dims))
            path.unlink()
    sample = np.concatenate([one.sample for one in arranged])
    return Grouping(GroupedRows(folder, dims, source.dtype, centres, geometry), _table(arranged), sample)


def at_most(rows: int, dims: int) -> int:
    """So many rows, or fewer where they are wide."""
    return max(1, min(rows, _BLOCK_VALUES // dims))


def arrange_bytes(rows: int, dims: int, dtype: np.dtype[Any]) -> int:
    """Memory that putting a bucket of so many rows in order takes."""
    return rows * (2 * dims * dtype.itemsize + 2 * 4 * dims + 96) + (16 << 20)


def _survey(
    source: RowSource, centroids: StoredArray, sizes: Int64, metric: Metric, tree_metric: str, limit: float
) -> tuple[Geometry, Int64]:
    """The space for these rows, and the place of each cluster in an order in which neighbours are close."""
    dims = source.dims
    exponent = 0
    if metric == "l2":
        # Of centroids where these are of the rows' kind, else of some rows; what is beyond is only pruned worse.
        some = source.read(0, min(_UNIT_SAMPLE, source.rows)) if tree_metric == "cosine" else None
        largest = float(np.abs(some).max(initial=0.0)) if some is not None else 0.0
        for part in _blocks(centroids):
            largest = max(largest, float(np.abs(part).max(initial=0.0))) if some is None else largest
        exponent = math.frexp(largest)[1] if 0.0 < largest < math.inf else 0
    geometry = Geometry(metric, limit, np.zeros(dims), exponent)
    total, count = np.zeros(dims), max(int(sizes.sum()), 1)
    clusters = centroids.rows
    some_clusters = min(at_most(_ORDER_SAMPLE, dims), clusters)
    chosen = centroids.take(np.unique(np.linspace(0, clusters - 1, some_clusters).astype(np.int64)))
    # Centroids of a cosine tree are not of the rows' kind: in the rows' units they may be beyond float32.
    measure = Geometry(metric, limit, geometry.origin, 0) if tree_metric == "cosine" else geometry
    spread = measure.points(chosen)
    _, _, axes = np.linalg.svd(spread - spread.mean(axis=0), full_matrices=False)
    axes = axes[:_ORDERED_DIMS].astype(np.float32)
    projected = np.empty((clusters, len(axes)), dtype=np.float32)
    done = 0
    for part in _blocks(centroids):
        points = measure.points(part)
        weights = sizes[done : done + len(part)] / count
        total += weights @ points.astype(np.float64)
        projected[done : done + len(part)] = points @ axes.T
        done += len(part)
    if metric == "l2" and tree_metric == "cosine":
        total[:] = 0.0  # directions say nothing of where the rows are
    rank = np.empty(clusters, dtype=np.int64)
    rank[near_order(projected)] = np.arange(clusters)
    return Geometry(metric, limit, total, exponent), rank


def _blocks(centroids: StoredArray) -> Any:
    step = at_most(_CENTRE_BLOCK, centroids.shape[1])
    for start in range(0, centroids.rows, step):
        yield centroids.read(start, min(start + step, centroids.rows))


def _buckets(sizes: Int64, capacity: int) -> tuple[Int64, Int64, int]:
    """The first bucket of each cluster, and over how many it is spread; and how many buckets there are.

    Clusters come in order; those larger than a bucket have several of their own.
    """
    first, parts = np.zeros(len(sizes), dtype=np.int64), np.ones(len(sizes), dtype=np.int64)
    bucket, filled = 0, 0
    for cluster, size in enumerate(sizes.tolist()):
        if filled and filled + size > capacity:
            bucket, filled = bucket + 1, 0
        first[cluster] = bucket
        if size > capacity:
            # Rows are spread by a hash: a tenth of room makes none of them overflow, but by a sixtieth or so.
            parts[cluster] = -(-size * 10 // (capacity * 9))
            bucket, filled = bucket + int(parts[cluster]), 0
        else:
            filled += size
    return first, parts, bucket + (1 if filled or not bucket else 0)


@dataclass(frozen=True)
class _Regroup:
    """Write the rows of one range, grouped by bucket; tags: row number, place of the cluster."""

    segments: RowSegments
    points: Points
    labels: StoredArray
    rows: int

    def __call__(self, number: int, state: State, executor: SerialExecutor) -> Int64:
        source = self.points.source
        start = number * self.rows
        stop = min(start + self.rows, source.rows)
        values = np.empty((stop - start, source.dims), dtype=source.dtype)
        tags = np.empty((stop - start, 2), dtype=np.int64)
        filled = 0
        stream = executor.stream(self.points, columns=(self.labels,), name="regrouping rows", start=start, stop=stop)
        for block, (labels,) in stream:
            counts = labels >= 0
            kept = block.values[counts]
            part = slice(filled, filled + len(kept))
            values[part], tags[part, 0] = kept, block.rows[counts]
            tags[part, 1] = state["rank"][labels[counts]]
            filled = part.stop
        rank = tags[:filled, 1]
        spread = (tags[:filled, 0].astype(np.uint64) * _SPREADING) >> np.uint64(33)
        buckets = state["first"][rank] + (spread % state["parts"][rank].astype(np.uint64)).astype(np.int64)
        return self.segments.write(number, buckets, values[:filled], tags[:filled])


@dataclass(frozen=True)
class _Bucket:
    """The cells of a bucket, in order, cut into tiles; its centres lie in a file of their own meanwhile."""

    cell_rows: Int64
    reach: NDArray[np.float64]
    spread: NDArray[np.float64]
    examples: Int64
    tiles: Int64
    checksums: NDArray[np.uint64]
    name: int
    sample: NDArray[Any]


@dataclass(frozen=True)
class _Arrange:
    """Put the rows of one bucket in order, and say what its cells are. State: ``counts``."""

    segments: RowSegments
    geometry: Geometry
    folder: Path
    tile_rows: int
    cell_rows: int
    sample: int

    def __call__(self, bucket: int, state: State, executor: SerialExecutor) -> _Bucket:
        rows = self.segments.bucket(bucket, state["counts"])
        tags = rows.tags()
        order = np.argsort(tags[:, 1], kind="stable")
        values, tags = rows.read(0, rows.rows)[order], tags[order]
        points = self.geometry.points(values)
        order, edges = form_cells(points, tags[:, 1], self.cell_rows, self.tile_rows)
        points, values, numbers = points[order], values[order], np.ascontiguousarray(tags[order, 0])
        del tags
        # A centre may be any point; one that is not finite would be none.
        centres = np.nan_to_num(means(points, edges), posinf=0.0, neginf=0.0)
        count = len(centres)
        reach, spread, examples = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.int64)
        for cell in range(count):
            part = slice(edges[cell], edges[cell + 1])
            reach[cell] = point_norms(points[part]).max()
            with np.errstate(over="ignore", invalid="ignore"):
                away = point_norms(points[part] - centres[cell])
            # The difference itself is rounded once more.
            spread[cell] = away.max() * (1 + 2.0**-23)
            examples[cell] = numbers[part][np.argmin(away)]
        spread += self.geometry.drift(reach)
        tiles = tile_edges(np.diff(edges), self.tile_rows)
        bounds = edges[tiles]
        checksums = [
            tile_checksum(values[start:stop], numbers[start:stop]) for start, stop in pairwise(bounds.tolist())
        ]
        name = xxhash.xxh3_64_intdigest(np.array(checksums, dtype=np.uint64).tobytes() + edges.tobytes())
        write_bucket(self.folder, bucket, name, values=values, numbers=numbers, centres=centres)
        taken = np.unique(np.linspace(0, len(values) - 1, min(self.sample, len(values))).astype(np.int64))
        return _Bucket(
            np.diff(edges), reach, spread, examples, tiles, np.array(checksums, dtype=np.uint64), name,
            values[taken],
        )  # fmt: skip


def tile_edges(cell_rows: Int64, most: int) -> Int64:
    """Cut cells into runs of at most ``most`` rows."""
    edges, filled = [0], 0
    for cell, rows in enumerate(cell_rows.tolist()):
        if filled and filled + rows > most:
            edges.append(cell)
            filled = 0
        filled += rows
    if filled:
        edges.append(len(cell_rows))
    return np.array(edges, dtype=np.int64)


def _table(buckets: list[_Bucket]) -> TileTable:
    sizes = np.concatenate([one.cell_rows for one in buckets])
    cells, tiles, files = 0, [np.zeros(1, dtype=np.int64)], []
    for number, one in enumerate(buckets):
        tiles.append(one.tiles[1:] + cells)
        begins = np.append(0, np.cumsum(one.cell_rows))[one.tiles[:-1]]
        files.append(np.stack([np.full(len(begins), number, dtype=np.int64), begins], axis=1))
        cells += len(one.cell_rows)
    return TileTable(
        np.append(0, np.cumsum(sizes)),
        np.concatenate(tiles),
        np.concatenate([one.reach for one in buckets]),
        np.concatenate([one.spread for one in buckets]),
        np.concatenate([one.examples for one in buckets]),
        np.concatenate(files),
        np.array([one.name for one in buckets], dtype=np.uint64),
        np.concatenate([one.checksums for one in buckets]),
    )


__all__ = ["Grouping", "arrange_bytes", "group_rows", "tile_edges", "tile_rows_for"]
