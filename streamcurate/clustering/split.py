"""Two-step levels: each coarse cluster gets a k-means of its own, over its own rows.

The rows are regrouped by coarse cluster with the external shuffle, then fitted bucket by bucket: many small fits side
by side where a bucket holds many clusters, one streamed fit where a cluster alone is larger than memory. Either way
a fit sees the rows of its cluster in the store's order, so that the plan of buckets cannot change a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import whole
from streamcurate.clustering.fit import fit
from streamcurate.clustering.passes import LabelPass
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.config import Level
from streamcurate.kernels import ExactTotal
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming import MemoryRows, Output, Points, RowSource, SerialExecutor
from streamcurate.streaming.shuffle import BucketRows, RowBuckets
from streamcurate.tree.level import ALIGNED_CHUNK_ROWS, LevelWriter

# Shares of the usable memory: rows waiting to be written, a bucket being fitted, and each side-by-side fit's own work.
_WAITING_SHARE = 1 / 4
_BUCKET_SHARE = 1 / 6
_WORK_SHARE = 1 / 2
# Row numbers, labels and distances of the rows of one cluster, twice while they are joined.
_BYTES_OF_A_LABELLED_ROW = 40
_COARSE_CHUNK_ROWS = 1 << 18
_SCATTER_ROWS = 1 << 20


@dataclass(frozen=True)
class Splits:
    """What splitting gave; labels, distances and centroids are in the level's arrays.

    Attributes
    ----------
    sizes : ndarray of int64, shape (leaves,)
        Rows of each leaf cluster.
    inertia : ExactTotal
    """

    sizes: NDArray[np.int64]
    inertia: ExactTotal


@dataclass(frozen=True)
class _Bucket:
    """The finished fits of some coarse clusters.

    ``leaves`` (clusters of the bucket,) counts their leaf clusters; ``centroids`` are all of those; ``rows``,
    ``labels`` (numbered within the bucket) and ``distances`` belong to the rows.
    """

    leaves: NDArray[np.int64]
    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    inertia: int


def split(
    measured: Measured, coarse: NDArray[np.float32], level: Level, around: Surroundings, writer: LevelWriter
) -> Splits:
    """Split every coarse cluster into up to ``level.splits`` leaf clusters.

    Parameters
    ----------
    measured : Measured
        The level's points.
    coarse : ndarray of float32, shape (K, dims)
        Centroids of the coarse fit.
    level : Level
    around : Surroundings
    writer : LevelWriter
        Receives labels, distances, centroids, coarse centroids and coarse offsets.
    """
    points, source = measured.points, measured.points.source
    folder = around.scratch / f"level-{around.level}" / "split"
    folder.mkdir(parents=True, exist_ok=True)
    coarse_labels = create_array(
        folder / "coarse-labels", (source.rows,), np.int32, _COARSE_CHUNK_ROWS, durable=False, overwrite=True
    )
    work = LabelPass(around.metric, measured.inertia, len(coarse), writes=("labels",), name="coarse labels")
    prepared = kernels.prepare_centroids(coarse, around.metric)
    labelled = around.executor.run(work, points, prepared, outputs=(Output(coarse_labels, -1),))
    usable = around.executor.budget.usable
    row_bytes = source.dims * source.dtype.itemsize + 64
    edges = _bucket_edges(labelled.counts, max(int(usable * _BUCKET_SHARE) // row_bytes, 1))
    shuffled = RowBuckets(
        folder / "buckets", len(edges) - 1, source.dims, source.dtype, int(usable * _WAITING_SHARE), tags=2
    )
    try:
        bucket_of = np.repeat(np.arange(len(edges) - 1, dtype=np.int64), np.diff(edges))
        for block, (labels,) in around.executor.stream(
            points, columns=(coarse_labels,), row_bytes=2 * row_bytes, name="regrouping rows"
        ):
            tags = np.stack([block.rows, labels.astype(np.int64)], axis=1)
            shuffled.add(bucket_of[labels], block.values, tags)
        shuffled.flush()
        names = []
        progress = around.executor.progress
        progress.started("splitting", points.count)
        for bucket in range(len(edges) - 1):
            name = f"level-{around.level}/split/{edges[bucket]}-{edges[bucket + 1]}"
            names.append(name)
            if _load(around, name) is None:
                _save(around, name, _fit_bucket(shuffled, bucket, edges, measured, level, around))
            progress.advanced(int(shuffled.sizes[bucket]), 0)
        progress.finished()
    finally:
        shuffled.close()
    return _assemble(measured, coarse, names, around, writer)


def _bucket_edges(counts: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Cut the clusters into runs of at most ``capacity`` rows; a larger cluster is a run of its own."""
    edges, filled = [0], 0
    for cluster, count in enumerate(counts.tolist()):
        if filled and filled + count > capacity:
            edges.append(cluster)
            filled = 0
        filled += count
    return np.array([*edges, len(counts)], dtype=np.int64)


def _fit_bucket(
    shuffled: RowBuckets,
    bucket: int,
    edges: NDArray[np.int64],
    measured: Measured,
    level: Level,
    around: Surroundings,
) -> _Bucket:
    source = measured.points.source
    first, last = int(edges[bucket]), int(edges[bucket + 1])
    if last - first == 1:  # perhaps larger than memory: streamed, with all threads
        size = int(shuffled.sizes[bucket])
        around.executor.budget.require(
            size * _BYTES_OF_A_LABELLED_ROW,
            f"level {around.level}: splitting coarse cluster {first} of {size:,} rows",
            "choose more clusters and fewer splits",
        )
        rows = BucketRows(shuffled, bucket, source.dims, source.dtype)
        leaf = _fit_cluster(rows, first, measured, level, around)
        return _joined([leaf], [shuffled.tags(bucket)[:, 0]])
    values, tags = shuffled.values(bucket), shuffled.tags(bucket)
    order = np.argsort(tags[:, 1], kind="stable")
    starts = np.searchsorted(tags[order, 1], np.arange(first, last + 1))
    budget = around.executor.budget
    with SerialExecutor(budget.share(_WORK_SHARE / budget.threads)) as inline:
        alone = replace(around, executor=inline, checkpoints=None, emit=ignore)

        def fit_one(cluster: int) -> _Leaf:
            mine = order[starts[cluster - first] : starts[cluster - first + 1]]
            return _fit_cluster(MemoryRows(values[mine]), cluster, measured, level, alone)

        leaves = list(around.executor.map(fit_one, range(first, last)))
    parts = [tags[order[starts[index] : starts[index + 1]], 0] for index in range(last - first)]
    return _joined(leaves, parts)


@dataclass(frozen=True)
class _Leaf:
    """Leaf clusters of one coarse cluster, and its rows' labels among them."""

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    inertia: int


def _fit_cluster(rows: RowSource, cluster: int, measured: Measured, level: Level, around: Surroundings) -> _Leaf:
    if rows.rows == 0:
        empty = np.empty((0, rows.dims), dtype=np.float32)
        none = np.empty(0, dtype=np.int64)
        return _Leaf(empty, none, none.astype(np.int32), none.astype(np.float32), 0)
    at = replace(around, part=(int(Purpose.SPLIT), cluster), checkpoints=None)
    mine = measured.part(Points.all_of(rows))
    wanted = replace(level, clusters=min(level.splits, rows.rows), splits=1, fit_rows=None, resampling=None)
    fitted = fit(mine, wanted, at)
    folder = at.scratch / at.name
    outputs = (
        [
            create_array(folder / name, (rows.rows,), dtype, ALIGNED_CHUNK_ROWS, durable=False, overwrite=True)
            for name, dtype in (("labels", np.int32), ("distances", np.float32))
        ]
        if not isinstance(rows, MemoryRows)
        else []
    )
    leaves = whole(fitted.centroids)
    prepared = kernels.prepare_centroids(leaves, at.metric)
    if outputs:
        work = LabelPass(at.metric, measured.inertia, wanted.clusters)
        found = at.executor.run(work, mine.points, prepared, outputs=(Output(outputs[0], -1), Output(outputs[1], 0)))
        labels, distances = (array.read(0, rows.rows) for array in outputs)
        sizes, inertia = found.counts, found.inertia.units
    else:
        labels, values = kernels.nearest(rows.read(0, rows.rows), prepared)
        distances = kernels.distance_of(values, at.metric)
        sizes = np.bincount(labels, minlength=wanted.clusters).astype(np.int64, copy=False)
        inertia = measured.inertia.add(values).units
    # Empty leaves are dropped; no point is nearest to one, so that the others keep their points.
    kept = np.flatnonzero(sizes)
    number = np.zeros(wanted.clusters, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return _Leaf(leaves[kept], sizes[kept], number[labels], distances, inertia)


def _joined(leaves: list[_Leaf], rows: list[NDArray[np.int64]]) -> _Bucket:
    counts = np.array([len(leaf.centroids) for leaf in leaves], dtype=np.int64)
    bases = np.cumsum(counts) - counts
    return _Bucket(
        counts,
        np.concatenate([leaf.centroids for leaf in leaves]),
        np.concatenate([leaf.sizes for leaf in leaves]),
        np.concatenate(rows),
        np.concatenate([leaf.labels + np.int32(base) for leaf, base in zip(leaves, bases, strict=True)]),
        np.concatenate([leaf.distances for leaf in leaves]),
        sum(leaf.inertia for leaf in leaves),
    )


_ARRAYS = ("leaves", "centroids", "sizes", "rows", "labels", "distances")


def _save(around: Surroundings, name: str, bucket: _Bucket) -> None:
    assert around.checkpoints is not None
    arrays = {key: getattr(bucket, key) for key in _ARRAYS}
    around.checkpoints.save(name, arrays, {"inertia": str(bucket.inertia)})  # JSON numbers end at 2^53


def _load(around: Surroundings, name: str) -> _Bucket | None:
    assert around.checkpoints is not None
    saved = around.checkpoints.load(name)
    return None if saved is None else _Bucket(**saved[0], inertia=int(saved[1]["inertia"]))


def _buckets(around: Surroundings, names: list[str]) -> Iterator[_Bucket]:
    for name in names:
        bucket = _load(around, name)
        assert bucket is not None
        yield bucket


def _assemble(
    measured: Measured, coarse: NDArray[np.float32], names: list[str], around: Surroundings, writer: LevelWriter
) -> Splits:
    """Number the leaves through, bring labels and distances into the rows' order, write the level's arrays."""
    source = measured.points.source
    usable = around.executor.budget.usable
    ranges = -(-source.rows // _SCATTER_ROWS)
    folder = around.scratch / f"level-{around.level}" / "split" / "labels"
    scattered = RowBuckets(folder, ranges, 1, np.dtype(np.int64), int(usable * _WAITING_SHARE))
    leaves, sizes, inertia = [], [], 0
    base = 0
    try:
        for bucket in _buckets(around, names):
            packed = (bucket.labels.astype(np.int64) + base) << 32
            packed |= bucket.distances.view(np.uint32).astype(np.int64)
            scattered.add(bucket.rows // _SCATTER_ROWS, packed[:, None], bucket.rows[:, None])
            base += len(bucket.centroids)
            leaves.append(bucket.leaves)
            sizes.append(bucket.sizes)
            inertia += bucket.inertia
        scattered.flush()
        _write_aligned(writer, scattered, source.rows, ranges)
    finally:
        scattered.close()
    with SequentialWriter(writer.centroids(base)) as centroids:
        for bucket in _buckets(around, names):
            centroids.append(bucket.centroids)
    with SequentialWriter(writer.centroids(len(coarse), "coarse_centroids")) as stored:
        stored.append(coarse)
    writer.write_offsets(np.concatenate(leaves), "coarse_offsets")
    return Splits(np.concatenate(sizes), replace(measured.inertia, units=inertia))


def _write_aligned(writer: LevelWriter, scattered: RowBuckets, rows: int, ranges: int) -> None:
    arrays: tuple[StoredArray, StoredArray] = (writer.labels(), writer.distances())
    with SequentialWriter(arrays[0]) as labels, SequentialWriter(arrays[1]) as distances:
        for number in range(ranges):
            length = min(_SCATTER_ROWS, rows - number * _SCATTER_ROWS)
            label = np.full(length, -1, dtype=np.int32)
            distance = np.full(length, np.nan, dtype=np.float32)
            packed, positions = scattered.values(number)[:, 0], scattered.tags(number)[:, 0] - number * _SCATTER_ROWS
            label[positions] = packed >> 32
            distance[positions] = (packed & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
            labels.append(label)
            distances.append(distance)
