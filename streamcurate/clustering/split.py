"""Two-step levels: each coarse cluster gets a k-means of its own, over its own rows.

The rows are regrouped by coarse cluster with the external shuffle, then fitted bucket by bucket: many small fits side
by side where a bucket holds many clusters, one streamed fit where a cluster alone is larger than memory. Either way
a fit sees the rows of its cluster in the store's order, so that the plan of buckets cannot change a result.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.bundles import BundleFit, bundle_bytes, bundles_of, fit_bundle, fits_bundle
from streamcurate.clustering.centroids import whole
from streamcurate.clustering.fit import fit
from streamcurate.clustering.passes import LabelPass
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.config import Level
from streamcurate.kernels import ExactTotal
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming import MemoryRows, Output, Points, RowSource, SerialExecutor, State
from streamcurate.streaming.shuffle import BucketRows, RowBuckets, RowSegments
from streamcurate.tree.level import LevelWriter, aligned_chunk_rows

# Shares of the usable memory: rows being regrouped (their part in order is a fraction of them), labels waiting to be
# written, a bucket being fitted, and each side-by-side fit's own work.
_SEGMENT_SHARE = 1 / 4
_WAITING_SHARE = 1 / 4
_BUCKET_SHARE = 1 / 6
_WORK_SHARE = 1 / 2
# Row numbers, labels and distances of the rows of one cluster, twice while they are joined.
_BYTES_OF_A_LABELLED_ROW = 40
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
    chunk = aligned_chunk_rows(source.rows, 2 * source.dims * len(coarse))
    coarse_labels = create_array(
        folder / "coarse-labels", (source.rows,), np.int32, chunk, durable=False, overwrite=True
    )
    work = LabelPass(around.metric, measured.inertia, len(coarse), writes=("labels",), name="coarse labels")
    labelled = around.executor.run(work, points, {"centroids": coarse}, outputs=(Output(coarse_labels, -1),))
    with around.stage("splitting", points.count):
        return _split(measured, coarse, coarse_labels, labelled.counts, level, around, writer)


def _split(
    measured: Measured,
    coarse: NDArray[np.float32],
    coarse_labels: StoredArray,
    coarse_counts: NDArray[np.int64],
    level: Level,
    around: Surroundings,
    writer: LevelWriter,
) -> Splits:
    """Regroup the rows by their coarse labels, fit the clusters, and put the level's arrays together."""
    points, source, executor = measured.points, measured.points.source, around.executor
    folder = around.scratch / f"level-{around.level}" / "split"
    usable = executor.budget.usable
    row_bytes = source.dims * source.dtype.itemsize + 64
    edges = _bucket_edges(coarse_counts, max(int(usable * _BUCKET_SHARE) // row_bytes, 1))
    places = folder / "buckets"
    shutil.rmtree(places, ignore_errors=True)
    places.mkdir()
    segments = RowSegments(places, len(edges) - 1, source.dims, source.dtype, tags=2)
    try:
        regroup = _Regroup(segments, points, coarse_labels, max(int(usable * _SEGMENT_SHARE) // row_bytes, 1))
        bucket_of = np.repeat(np.arange(len(edges) - 1, dtype=np.int64), np.diff(edges))
        executor.progress.started("regrouping rows", source.rows)
        written = []
        numbers = range(-(-source.rows // regroup.rows))
        for sizes in executor.map(regroup, numbers, {"bucket-of": bucket_of}, "regrouping rows"):
            written.append(sizes)
            executor.progress.advanced(min(regroup.rows, source.rows), 0)
        executor.progress.finished()
        counts = np.stack(written)
        names = [f"level-{around.level}/split/{first}-{last}" for first, last in pairwise(edges.tolist())]
        missing = [bucket for bucket, name in enumerate(names) if _load(around, name) is None]
        fit_bucket = _FitBucket(segments, measured, level, around.packed())
        items = [(bucket, int(edges[bucket]), int(edges[bucket + 1]), names[bucket]) for bucket in missing]
        executor.progress.started("splitting", points.count)
        for bucket, _ in zip(missing, executor.map(fit_bucket, items, {"counts": counts}, "splitting"), strict=True):
            executor.progress.advanced(int(counts[:, bucket].sum()), 0)
        executor.progress.finished()
    finally:
        segments.close()
    return _assemble(measured, coarse, names, around, writer)


@dataclass(frozen=True)
class _Regroup:
    """Write the rows of one range, grouped by bucket; tags: row number, coarse cluster. State: ``bucket-of``."""

    segments: RowSegments
    points: Points
    coarse_labels: StoredArray
    rows: int

    def __call__(self, number: int, state: State, executor: SerialExecutor) -> NDArray[np.int64]:
        source = self.points.source
        start = number * self.rows
        stop = min(start + self.rows, source.rows)
        values = np.empty((stop - start, source.dims), dtype=source.dtype)
        tags = np.empty((stop - start, 2), dtype=np.int64)
        filled = 0
        for block, (labels,) in executor.stream(
            self.points, columns=(self.coarse_labels,), name="regrouping rows", start=start, stop=stop
        ):
            part = slice(filled, filled + len(block.rows))
            values[part], tags[part, 0], tags[part, 1] = block.values, block.rows, labels
            filled = part.stop
        buckets = state["bucket-of"][tags[:filled, 1]]
        return self.segments.write(number, buckets, values[:filled], tags[:filled])


def _bucket_edges(counts: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Cut the clusters into runs of at most ``capacity`` rows; a larger cluster is a run of its own."""
    edges, filled = [0], 0
    for cluster, count in enumerate(counts.tolist()):
        if filled and filled + count > capacity:
            edges.append(cluster)
            filled = 0
        filled += count
    return np.array([*edges, len(counts)], dtype=np.int64)


@dataclass(frozen=True)
class _FitBucket:
    """Fit the coarse clusters ``first`` to ``last`` of a bucket and keep what it gives. State: ``counts``.

    ``around`` comes without an executor: the one of the process that does the work takes the place.
    """

    segments: RowSegments
    measured: Measured
    level: Level
    around: Surroundings

    def __call__(self, item: tuple[int, int, int, str], state: State, executor: SerialExecutor) -> None:
        bucket, first, last, name = item
        around = self.around.on(executor)
        rows = self.segments.bucket(bucket, state["counts"])
        if last - first == 1:  # perhaps larger than memory: streamed, with all threads
            executor.budget.require(
                rows.rows * _BYTES_OF_A_LABELLED_ROW,
                f"level {around.level}: splitting coarse cluster {first} of {rows.rows:,} rows",
                "choose more clusters and fewer splits",
            )
            leaf = _fit_cluster(rows, first, self.measured, self.level, around)
            fitted = _joined([leaf], [rows.tags()[:, 0]])
        else:
            fitted = self._side_by_side(rows, first, last, around)
        _save(around, name, fitted)

    def _side_by_side(self, rows: BucketRows, first: int, last: int, around: Surroundings) -> _Bucket:
        values, tags = rows.read(0, rows.rows), rows.tags()
        order = np.argsort(tags[:, 1], kind="stable")
        starts = np.searchsorted(tags[order, 1], np.arange(first, last + 1))
        own = [order[starts[index] : starts[index + 1]] for index in range(last - first)]
        leaves: dict[int, _Leaf] = {}
        small = [
            number for number, mine in enumerate(own) if fits_bundle(len(mine), rows.dims, self.level, self.measured)
        ]
        row_bytes = values[:1].nbytes
        sizes = [bundle_bytes(len(own[at]), rows.dims, self.level, self.measured, row_bytes) for at in small]
        executor = around.executor.local
        budget = executor.budget.share(_WORK_SHARE / executor.budget.threads)

        def fit_many(run: tuple[int, int]) -> list[tuple[int, _Leaf]]:
            numbers = small[run[0] : run[1]]
            mine = [own[number] for number in numbers]
            edges = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum([len(part) for part in mine])])
            clusters = np.array(numbers, dtype=np.int64) + first
            fitted = fit_bundle(values[np.concatenate(mine)], edges, clusters, self.measured, self.level, around)
            return [(numbers[at], leaf) for at, leaf in _bundled(fitted, edges, around)]

        for found in executor.side_by_side(fit_many, bundles_of(sizes, budget.usable)):
            leaves.update(found)
        alone = [number for number in range(last - first) if number not in leaves]
        with SerialExecutor(budget, backend=executor.backend) as inline:
            inside = replace(around, executor=inline, checkpoints=None)

            def fit_one(number: int) -> _Leaf:
                mine = MemoryRows(values[own[number]])
                return _fit_cluster(mine, first + number, self.measured, self.level, inside)

            leaves.update(zip(alone, executor.side_by_side(fit_one, alone), strict=True))
        return _joined([leaves[number] for number in range(last - first)], [tags[mine, 0] for mine in own])


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
    if fitted.kept is not None:
        fitted.kept.close()
    folder = at.scratch / at.name
    chunk = aligned_chunk_rows(rows.rows, 2 * rows.dims * wanted.clusters)
    outputs = (
        [
            create_array(folder / name, (rows.rows,), dtype, chunk, durable=False, overwrite=True)
            for name, dtype in (("labels", np.int32), ("distances", np.float32))
        ]
        if not isinstance(rows, MemoryRows)
        else []
    )
    leaves = whole(fitted.centroids)
    if outputs:
        work = LabelPass(at.metric, measured.inertia, wanted.clusters)
        written = (Output(outputs[0], -1), Output(outputs[1], 0))
        found = at.executor.run(work, mine.points, {"centroids": leaves}, outputs=written)
        labels, distances = (array.read(0, rows.rows) for array in outputs)
        sizes, inertia = found.counts, found.inertia.units
    else:
        backend = at.executor.local.backend
        prepared = backend.prepare_centroids(leaves, at.metric)
        labels, values = backend.nearest(rows.read(0, rows.rows), prepared)
        distances = kernels.distance_of(values, at.metric)
        sizes = np.bincount(labels, minlength=wanted.clusters).astype(np.int64, copy=False)
        inertia = measured.inertia.add(values).units
    # Empty leaves are dropped; no point is nearest to one, so that the others keep their points.
    kept = np.flatnonzero(sizes)
    number = np.zeros(wanted.clusters, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return _Leaf(leaves[kept], sizes[kept], number[labels], distances, inertia)


def _bundled(fitted: BundleFit, starts: NDArray[np.int64], around: Surroundings) -> Iterator[tuple[int, _Leaf]]:
    """What a bundle gave, cluster by cluster, its empty leaves dropped; not those that have to be fitted alone."""
    sizes = np.bincount(fitted.labels, minlength=len(fitted.centroids)).astype(np.int64, copy=False)
    distances = kernels.distance_of(fitted.values, around.metric)
    kept = sizes > 0
    number = np.cumsum(kept) - 1  # through the bundle
    for cluster in np.flatnonzero(fitted.found).tolist():
        own = slice(fitted.edges[cluster], fitted.edges[cluster + 1])
        rows = slice(starts[cluster], starts[cluster + 1])
        mine = kept[own]
        labels = (number[fitted.labels[rows]] - (number[own.start] - int(kept[own.start]) + 1)).astype(np.int32)
        yield (
            cluster,
            _Leaf(fitted.centroids[own][mine], sizes[own][mine], labels, distances[rows], fitted.inertia[cluster]),
        )


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
