"""One k-means fit, and the resampling that repeats it on an evener choice of points."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering import centroids as kept
from streamcurate.clustering.centroids import Centroids, in_memory, whole
from streamcurate.clustering.kept_labels import KeptLabels
from streamcurate.clustering.labelling import label_points
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.minibatch import warm_up
from streamcurate.clustering.passes import LabelPass
from streamcurate.clustering.sample_rows import gather, sampled_row_blocks
from streamcurate.clustering.seeding import seed
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.config import Level, Resampling
from streamcurate.runs.events import StageFinished, StageStarted, Warned
from streamcurate.storage import StoredArray
from streamcurate.streaming import HeldRows, MemoryRows, Points, RowSource, StoredRows

# A source of no more than this share of the usable memory is read once and kept.
_HELD_SHARE = 1 / 12


@dataclass(frozen=True)
class Fitted:
    """Final centroids of a level's k-means.

    Attributes
    ----------
    centroids : Centroids
    seeding : str
        Method of the first seeding.
    iterations : int
        Lloyd passes of the last fit.
    warnings : tuple of str
    kept : KeptLabels or None
        What the last pass left to a pass over the points fitted.
    """

    centroids: Centroids
    seeding: str
    iterations: int
    warnings: tuple[str, ...] = ()
    kept: KeptLabels | None = None


def held(source: RowSource, around: Surroundings) -> RowSource:
    """The source itself, or its rows in memory where they take little of it."""
    size = source.rows * source.dims * source.dtype.itemsize
    if isinstance(source, MemoryRows) or size > around.executor.budget.usable * _HELD_SHARE:
        return source
    return HeldRows(source.read(0, source.rows), source)


def fit(measured: Measured, level: Level, around: Surroundings, seeding: str | None = None) -> Fitted:
    """Seed, warm up if asked, run Lloyd's algorithm.

    Parameters
    ----------
    measured : Measured
        The points to fit.
    level : Level
        Of the configuration.
    around : Surroundings
    seeding : str, optional
        How the level's first fit was seeded, to be remembered; by default how this one is.
    """
    centroids, method = seed(measured, level.clusters, level.init, around)
    if level.algorithm == "minibatch":
        around.executor.budget.require(
            12 * measured.points.source.dims * level.clusters,
            f"level {around.level}: the mini-batch warm-up of {level.clusters:,} clusters",
            "choose algorithm: lloyd",
        )
        centroids = in_memory(warm_up(measured, whole(centroids), around))
    found = lloyd(measured, centroids, level.iterations, level.tolerance, around, seeding or method)
    return Fitted(found.centroids, seeding or method, found.iterations, kept=found.kept)


def fit_with_resampling(measured: Measured, level: Level, around: Surroundings) -> Fitted:
    """Fit a level's clusters: first on all points (or ``fit_rows`` of them), then on what resampling keeps.

    Section 3.3 of the paper: the points nearest to each centroid (or drawn at random) represent the clusters evenly, so
    that k-means over them places centroids by the support of the data rather than by its density.
    """
    steps = level.resampling.steps if level.resampling else 0
    start, found = _last_finished(steps, around)
    warnings: tuple[str, ...] = ()
    for step in range(start, steps + 1):
        at = around.at(step)
        began = time.monotonic()
        around.emit(StageStarted(stage="fit", level=around.level, step=step))
        array: StoredArray | None = None
        if step == 0:
            if level.fit_rows is not None and level.fit_rows < measured.points.count:
                blocks = sampled_row_blocks(measured.points, level.fit_rows, Purpose.FIT_ROWS, at)
                path = at.scratch / at.name / "fit-rows"
                array = gather(measured.points.source, blocks, level.fit_rows, path)
            chosen = measured if array is None else measured.part(Points.all_of(held(StoredRows(array), at)))
        else:
            assert found is not None
            assert level.resampling is not None
            rows = _kept(measured, found, level.resampling, at)
            if len(rows) < level.clusters:
                text = (
                    f"level {around.level}: resampling step {step} kept {len(rows):,} points, fewer than the "
                    f"{level.clusters:,} clusters; it was skipped, and so were later ones, which would keep the same"
                )
                warnings += (text,)
                around.emit(Warned(text=text, level=around.level))
                _tell_end(around, step, began, 0)
                break
            blocks = (rows[first : first + (1 << 16)] for first in range(0, len(rows), 1 << 16))
            array = gather(measured.points.source, blocks, len(rows), at.scratch / at.name / "kept")
            chosen = measured.part(Points.all_of(held(StoredRows(array), at)))
        found = fit(chosen, level, at, None if found is None else found.seeding)
        if chosen is not measured and found.kept is not None:
            # The points to be labelled are others.
            found.kept.close()
            found = replace(found, kept=None)
        if around.checkpoints is not None and step:
            for kind in ("seeds", "lloyd"):
                around.checkpoints.discard(f"{around.at(step - 1).name}/{kind}")
        _tell_end(around, step, began, chosen.points.count)
    assert found is not None
    return replace(found, warnings=warnings)


def _tell_end(around: Surroundings, step: int, began: float, rows: int) -> None:
    seconds = time.monotonic() - began
    around.emit(StageFinished(stage="fit", level=around.level, step=step, seconds=seconds, rows=rows))


def _kept(measured: Measured, found: Fitted, resampling: Resampling, around: Surroundings) -> NDArray[np.int64]:
    """Ascending numbers of the points that resampling keeps of each cluster."""
    work = LabelPass(
        around.metric,
        measured.inertia,
        found.centroids.rows,
        keep=resampling.rows_per_cluster,
        strategy=resampling.strategy,
        seed=around.seed,
        stream=around.stream(Purpose.RESAMPLING),
        writes=(),
        name="resampling",
    )
    labelled = label_points(measured, found.centroids, work, around, kept=found.kept)
    if found.kept is not None:
        found.kept.close()
    assert labelled.selection is not None
    rows, _ = labelled.selection.finalize()
    return np.sort(rows)


def _last_finished(steps: int, around: Surroundings) -> tuple[int, Fitted | None]:
    """The first step still to do, and what the one before gave, from checkpoints."""
    for step in range(steps, -1, -1):
        saved = kept.load("lloyd", around.at(step))
        if saved is not None and saved[1]["finished"]:
            return step + 1, Fitted(saved[0], str(saved[1]["seeding"]), int(saved[1]["iteration"]))
    return 0, None
