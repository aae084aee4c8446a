"""Lloyd's algorithm as passes: assign every point, take exact means, refill empty clusters, until nothing is gained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering import centroids as kept
from streamcurate.clustering.centroids import Centroids, centre_vectors, in_memory, tile_edges, whole
from streamcurate.clustering.iteration import REFILLS, Assigned, AssignPass, SumPass, least_apart
from streamcurate.clustering.kept_labels import KeptLabels
from streamcurate.clustering.labelling import label_by_tiles
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.runs.events import IterationFinished
from streamcurate.storage import StoredArray
from streamcurate.streaming import StoredRows

# Iterations are checkpointed when so many seconds of work would be lost without; faster ones are simply done again.
CHECKPOINT_SECONDS = 1.0


@dataclass(frozen=True)
class Fit:
    """Centroids, and how Lloyd's algorithm reached them.

    Attributes
    ----------
    centroids : Centroids
    iterations : int
        Passes made.
    kept : KeptLabels or None
        What the last pass left, for one that labels the same points; whoever takes the fit closes it.
    """

    centroids: Centroids
    iterations: int
    kept: KeptLabels | None = None


@dataclass(frozen=True)
class _Moved:
    """One iteration's outcome. ``unchanged``: no centroid moved, hence no label will.

    ``points`` changed their cluster since the iteration before, where that is known; ``labels`` are left for the next.
    """

    centroids: Centroids
    inertia: float
    refilled: int
    unchanged: bool
    points: int | None
    labels: StoredArray | None = None


def lloyd(
    measured: Measured,
    centroids: Centroids,
    iterations: int,
    tolerance: float,
    around: Surroundings,
    seeding: str = "",
) -> Fit:
    """Run Lloyd's algorithm from given centroids.

    Parameters
    ----------
    measured : Measured
        The points.
    centroids : Centroids
    iterations : int
        Most passes.
    tolerance : float
        Stop when a pass lowers the inertia by less than this share; 0 goes on until no label changes.
    around : Surroundings
    seeding : str
        How the centroids were chosen, kept beside them in checkpoints.

    Returns
    -------
    Fit
        Resumed from the last checkpoint where there is one.
    """
    iteration, previous, finished = 0, None, False
    if (saved := kept.load("lloyd", around)) is not None:
        centroids, values = saved
        iteration, previous, finished = int(values["iteration"]), float(values["inertia"]), bool(values["finished"])
    source = measured.points.source
    work = AssignPass(around.metric, measured.fixed_point, measured.inertia, centroids.rows)
    edges = tile_edges(
        centroids.rows, measured, around, lambda tile: replace(work, clusters=tile).cost(source.dims, source.dtype)
    )
    labels = KeptLabels(measured, centroids.rows, work, around) if len(edges) == 2 else None
    tiled: StoredArray | None = None  # labels of the iteration before, where centroids are held in tiles
    saved_at = time.monotonic()
    while iteration < iterations and not finished:
        began = time.monotonic()
        if labels is not None:
            moved = _move(measured, whole(centroids), work, labels, around)
        else:
            moved = _move_by_tiles(measured, centroids, edges, iteration, tiled, around)
            tiled = moved.labels
        iteration += 1
        # The same centroids again mean the same labels again: no label changed since the pass before.
        finished = moved.unchanged or iteration == iterations
        if previous is not None and tolerance > 0 and not moved.refilled:
            finished = finished or previous - moved.inertia < tolerance * previous
        centroids, previous = moved.centroids, moved.inertia
        around.emit(
            IterationFinished(
                level=around.level,
                step=around.step,
                iteration=iteration,
                inertia=moved.inertia,
                seconds=time.monotonic() - began,
                refilled=moved.refilled,
                points=measured.points.count,
                moved=moved.points,
            )
        )
        if finished or time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
            state = {"iteration": iteration, "inertia": moved.inertia, "finished": finished, "seeding": seeding}
            kept.save("lloyd", centroids, state, around)
            saved_at = time.monotonic()
    if labels is not None:
        labels.end()
    return Fit(centroids, iteration, labels)


def _move(
    measured: Measured, centroids: NDArray[np.float32], work: AssignPass, labels: KeptLabels, around: Surroundings
) -> _Moved:
    """One iteration with all centroids in memory: labels and sums in one pass."""
    work, state, columns, outputs = labels.next_pass(work, centroids)
    means = np.empty_like(centroids)
    inertia, refilled = 0.0, 0
    refills: Iterator[NDArray[np.float32]] | None = None
    sums = []
    found: Assigned
    for first, last, found in around.executor.slices(work, measured.points, state, columns=columns, outputs=outputs):
        absolute = labels.absolute(work, first, last, found)
        part = kernels.mean_centroids(absolute, around.metric, centroids[first:last])
        # The farthest points are the same for every slice: empty clusters take them in turn, lowest first.
        refills = _refills(found, measured, around) if refills is None else refills
        refilled += _refill(part, absolute.counts, refills)
        inertia = found.inertia.value()
        means[first:last] = part
        if labels.keeps_sums:
            sums.append(absolute)
    labels.finish(work, found, sums, centroids, means)
    changed = found.changed if work.again else None
    return _Moved(in_memory(means), inertia, refilled, np.array_equal(means, centroids), changed)


def _move_by_tiles(
    measured: Measured,
    centroids: Centroids,
    edges: list[int],
    iteration: int,
    before: StoredArray | None,
    around: Surroundings,
) -> _Moved:
    """One iteration with a tile of the centroids in memory at a time: labels tile by tile, then sums tile by tile."""
    labels = label_by_tiles(measured, centroids, edges, around, before)
    inertia, refilled, unchanged = 0.0, 0, True
    changed: int | None = None

    def tiles() -> Iterator[NDArray[np.float32]]:
        nonlocal inertia, refilled, unchanged, changed
        refills: Iterator[NDArray[np.float32]] | None = None
        for first, last in pairwise(edges):
            work = SumPass(
                around.metric,
                measured.fixed_point,
                measured.inertia,
                last - first,
                first,
                min(REFILLS, centroids.rows),
                again=before is not None and first == 0,
            )
            columns = (*labels, before) if before is not None and first == 0 else labels
            found: Assigned
            for start, stop, found in around.executor.slices(work, measured.points, {}, columns=columns):
                former = centroids.read(first + start, first + stop)
                means = kernels.mean_centroids(found.sums, around.metric, former)
                # The farthest points are the same for every tile: empty clusters take them in turn, lowest first.
                refills = _refills(found, measured, around) if refills is None else refills
                refilled += _refill(means, found.sums.counts, refills)
                inertia = found.inertia.value()
                unchanged = unchanged and np.array_equal(means, former)
                changed = found.changed if work.again else changed
                yield means

    # Two arrays in turn: the one before is the last checkpoint's until the next is saved.
    name = f"centroids-{iteration % 2}"
    if isinstance(centroids, StoredRows) and centroids.array.path.endswith(name):
        name = "centroids-2"
    stored = kept.store(tiles(), centroids.rows, centroids.dims, name, around)
    return _Moved(stored, inertia, refilled, unchanged, changed, labels[0])


def _refill(means: NDArray[np.float32], counts: NDArray[np.int64], refills: Iterator[NDArray[np.float32]]) -> int:
    """Move the centroids of empty clusters, lowest first, for as long as there are refills; how many were moved."""
    moved = 0
    # The clusters come first in zip: a refill is taken only where there is a cluster for it.
    for cluster, vector in zip(np.flatnonzero(counts == 0), refills, strict=False):
        means[cluster] = vector
        moved += 1
    return moved


def _refills(found: Assigned, measured: Measured, around: Surroundings) -> Iterator[NDArray[np.float32]]:
    """Vectors to move the centroids of empty clusters to: the points farthest from theirs, farthest first.

    One point each, never the same vector twice, so that copies of one outlier do not take several clusters.
    """
    farthest = found.farthest
    rows = farthest.rows[farthest.values > (least_apart(around.metric))]
    order = np.argsort(rows, kind="stable")
    # Read only when the first is asked for, since clusters are rarely empty.
    vectors = np.empty((len(rows), measured.points.source.dims), dtype=np.float32)
    vectors[order] = centre_vectors(measured.points.source.take(rows[order]), around.metric)
    seen = set()
    for vector in vectors:
        if (content := vector.tobytes()) not in seen:
            seen.add(content)
            yield vector
