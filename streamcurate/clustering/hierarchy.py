"""One level of the hierarchy, from its points to its arrays at rest."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.approximate import label_approximately
from streamcurate.clustering.centroids import whole
from streamcurate.clustering.fit import fit_with_resampling, held
from streamcurate.clustering.labelling import label_points
from streamcurate.clustering.members import write_members
from streamcurate.clustering.passes import LabelPass, StatisticsPass
from streamcurate.clustering.split import split
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.config import Level
from streamcurate.errors import DataError
from streamcurate.kernels import ExactTotal, Statistics
from streamcurate.runs.events import Warned
from streamcurate.storage import SequentialWriter
from streamcurate.streaming import Output, Points
from streamcurate.tree.level import LevelWriter


@dataclass(frozen=True)
class BuiltLevel:
    """What building a level gave beside its arrays.

    Attributes
    ----------
    sizes : ndarray of int64, shape (clusters,)
        Points of each cluster.
    inertia : float
    seeding : str
    iterations : int
    warnings : tuple of str
    """

    sizes: NDArray[np.int64]
    inertia: float
    seeding: str
    iterations: int
    warnings: tuple[str, ...]


def measure(points: Points, around: Surroundings, unit_rows: int = 0) -> tuple[Statistics, list[str]]:
    """Statistics of the points, and checksums of the source's units where ``unit_rows`` is given.

    Raises
    ------
    DataError
        Rows hold NaN or Inf, or, under cosine, only zeros.
    """
    work = StatisticsPass(around.metric, unit_rows)
    statistics, digests = around.executor.run(work, points, {}, align=max(unit_rows, 1))
    return statistics, digests


def check_usable(
    statistics: Statistics,
    name: str,
    metric: str,
    identify: str = "",
    fix: str = "drop them when ingesting (--on-bad-row drop) or leave them out with --subset",
    zero_fix: str = "use metric l2, or leave them out with --subset",
) -> None:
    """Refuse rows that have no distance.

    Raises
    ------
    DataError
        Naming how many, and the first.
    """
    if statistics.bad_rows:
        raise DataError(
            f"{name}: {statistics.bad_rows:,} rows hold NaN or Inf "
            f"(first: row {statistics.first_bad_row}{identify}); {fix}"
        )
    if metric == "cosine" and statistics.zero_rows:
        raise DataError(
            f"{name}: {statistics.zero_rows:,} rows are zero and have no direction under metric cosine "
            f"(first: row {statistics.first_zero_row}{identify}); {zero_fix}"
        )


def build_level(
    points: Points, statistics: Statistics, level: Level, around: Surroundings, writer: LevelWriter
) -> BuiltLevel:
    """Cluster the points and write the level's arrays.

    Parameters
    ----------
    points : Points
        The rows of the store, or the centroids of the level below.
    statistics : Statistics
        Of the points.
    level : Level
    around : Surroundings
    writer : LevelWriter

    Returns
    -------
    BuiltLevel

    Raises
    ------
    DataError
        Fewer points than clusters.
    """
    if points.count < level.clusters:
        raise DataError(
            f"level {around.level}: {level.clusters:,} clusters from {points.count:,} points of {points.source.name}; "
            f"choose at most {points.count:,} clusters"
        )
    points = Points(held(points.source, around), points.count, points.mask)
    measured = Measured.of(points, statistics, around.metric)
    fitted = fit_with_resampling(measured, level, around)
    warnings = fitted.warnings
    with around.stage("labels", points.count):
        if level.splits > 1:
            around.executor.budget.require(
                12 * points.source.dims * level.clusters,
                f"level {around.level}: splitting {level.clusters:,} coarse clusters",
                "choose fewer clusters and more splits",
            )
            found = split(measured, whole(fitted.centroids), level, around, writer)
            sizes, inertia = found.sizes, found.inertia
        else:
            work = LabelPass(around.metric, measured.inertia, level.clusters)
            outputs = (Output(writer.labels(), -1), Output(writer.distances(), np.nan))
            if level.search == "faiss":
                labelled, warning = label_approximately(measured, fitted.centroids, work, around, outputs)
                around.emit(Warned(text=warning, level=around.level))
                warnings += (warning,)
            else:
                labelled = label_points(measured, fitted.centroids, work, around, outputs, fitted.kept)
            sizes, inertia = labelled.counts, labelled.inertia
            with SequentialWriter(writer.centroids(level.clusters)) as stored:
                step = max(min(fitted.centroids.chunk_rows, fitted.centroids.rows), 1)
                for start in range(0, level.clusters, step):
                    stored.append(fitted.centroids.read(start, min(start + step, level.clusters)))
    folder = around.scratch / f"level-{around.level}"
    with around.stage("members", points.count):
        writer.write_offsets(sizes)
        labels, distances = writer.stored("labels"), writer.stored("distances")
        write_members(labels, distances, writer.members(int(sizes.sum())), folder / "members", around.executor)
    shutil.rmtree(folder, ignore_errors=True)
    return BuiltLevel(sizes, stated_inertia(inertia, around.metric), fitted.seeding, fitted.iterations, warnings)


def stated_inertia(total: ExactTotal, metric: str) -> float:
    """Inertia as reported: squared distances under l2; 1 - cos, half that of unit rows, under cosine."""
    return total.value() / 2 if metric == "cosine" else total.value()
