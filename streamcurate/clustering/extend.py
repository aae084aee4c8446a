"""The levels of a tree with more rows in them, their centroids as they were."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.frozen import FrozenLevel
from streamcurate.clustering.hierarchy import stated_inertia
from streamcurate.clustering.members import write_members
from streamcurate.clustering.new_rows import LabelledRows
from streamcurate.clustering.novelty import Novelty, NoveltyCount
from streamcurate.clustering.passes import StatisticsPass
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming import Output, Points, StoredRows
from streamcurate.tree.level import ALIGNED_CHUNK_ROWS, Level, LevelWriter

_COPY_BYTES = 16 << 20


@dataclass(frozen=True)
class Extended:
    """What extending a level gave beside its arrays.

    Attributes
    ----------
    sizes : ndarray of int64, shape (clusters,)
        Points of each cluster, old and new.
    inertia : float
        Of the new points.
    """

    sizes: NDArray[np.int64]
    inertia: float


def extend_rows(
    level: Level, labelled: LabelledRows, threshold: float, around: Surroundings, writer: LevelWriter
) -> tuple[Extended, Novelty]:
    """Write level 1 with new rows behind those it has.

    Members come out of the sort that makes those of any level, over all rows: it reads and writes in order, where
    merging the new rows into the old order would look up the distance of every old one at its place.

    Parameters
    ----------
    level : Level
        As it was.
    labelled : LabelledRows
        The new rows.
    threshold : float
        Of :func:`~streamcurate.clustering.assign.threshold_of`.
    around : Surroundings
    writer : LevelWriter
        For as many rows as there are in all.
    """
    seen = NoveltyCount(threshold, level.clusters)
    progress = around.executor.progress
    progress.started("writing labels", level.points + labelled.rows)
    with SequentialWriter(writer.labels()) as labels, SequentialWriter(writer.distances()) as distances:
        for part in _pieces(level.stored_labels):
            labels.append(part)
            progress.advanced(len(part), 8 * len(part))
        for lengths in _pieces(level.stored_distances):
            distances.append(lengths)
        for part, lengths in labelled.blocks():
            seen.add(part, lengths)
            labels.append(part)
            distances.append(lengths)
            progress.advanced(len(part), 8 * len(part))
    progress.finished()
    novelty = seen.result()
    sizes = level.sizes() + novelty.rows
    _finish(level, sizes, around, writer)
    return Extended(sizes, stated_inertia(labelled.inertia, around.metric)), novelty


def extend_clusters(
    level: Level, below: Level, approximate: bool, around: Surroundings, writer: LevelWriter
) -> Extended:
    """Write a level above the first. Its points are clusters, and those that were empty and hold rows now are new.

    Parameters
    ----------
    level : Level
        As it was.
    below : Level
        The level below, extended.
    approximate : bool
        The level was labelled by an approximate index; its few new points are labelled exactly all the same.
    around : Surroundings
    writer : LevelWriter
    """
    labels = level.stored_labels.read(0, level.points)
    distances = level.stored_distances.read(0, level.points)
    new = (labels < 0) & (below.sizes() > 0)
    sizes, inertia = level.sizes(), 0.0
    if new.any():
        with around.stage("labels", int(new.sum())):
            labels[new], distances[new], inertia = _label(level, below, new, around)
        sizes += np.bincount(labels[new & (labels >= 0)], minlength=level.clusters)
    for array, values in ((writer.labels(), labels), (writer.distances(), distances)):
        with SequentialWriter(array) as stored:
            stored.append(values)
    _finish(level, sizes, around, writer)
    return Extended(sizes, inertia)


def _label(
    level: Level, below: Level, new: NDArray[np.bool_], around: Surroundings
) -> tuple[NDArray[np.int32], NDArray[np.float32], float]:
    """Labels, distances and inertia of some clusters of the level below."""
    folder = around.scratch / f"level-{level.number}" / "new"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mask, labels, distances = (
        create_array(folder / name, new.shape, dtype, ALIGNED_CHUNK_ROWS, durable=False)
        for name, dtype in (("mask", np.uint8), ("labels", np.int32), ("distances", np.float32))
    )
    with SequentialWriter(mask) as stored:
        stored.append(new.astype(np.uint8))
    points = Points(StoredRows(below.stored_centroids), int(new.sum()), mask)
    statistics, _ = around.executor.run(StatisticsPass(around.metric), points, {})
    frozen = FrozenLevel(level, False, around)
    measured = frozen.measured(points, statistics, around)
    total = frozen.label(measured, around, (Output(labels, -1), Output(distances, np.nan)))
    found = labels.read(0, labels.rows)[new], distances.read(0, distances.rows)[new]
    shutil.rmtree(folder, ignore_errors=True)
    return *found, stated_inertia(total, around.metric)


def _finish(level: Level, sizes: NDArray[np.int64], around: Surroundings, writer: LevelWriter) -> None:
    """Write what follows from labels and distances, and the centroids as they were."""
    for name, array in (("centroids", level.stored_centroids), ("coarse_centroids", level.stored_coarse_centroids)):
        if array is not None:
            with SequentialWriter(writer.centroids(array.rows, name)) as stored:
                for part in _pieces(array):
                    stored.append(part)
    if (offsets := level.stored_coarse_offsets) is not None:
        writer.write_offsets(np.diff(offsets.read(0, offsets.rows)), "coarse_offsets")
    writer.write_offsets(sizes)
    folder = around.scratch / f"level-{level.number}" / "members"
    labels, distances = writer.stored("labels"), writer.stored("distances")
    with around.stage("members", labels.rows):
        write_members(labels, distances, writer.members(int(sizes.sum())), folder, around.executor)


def _pieces(array: StoredArray) -> Iterator[NDArray]:  # type: ignore[type-arg]  # of whatever dtype
    step = max(_COPY_BYTES // max(array.row_bytes, 1), 1)
    for start in range(0, array.rows, step):
        yield array.read(start, min(start + step, array.rows))
