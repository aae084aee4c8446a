"""Lloyd's algorithm as passes: assign every point, take exact means, refill empty clusters, until nothing is gained."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.passes import Assigned, AssignPass
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.runs.events import IterationFinished

# Iterations are checkpointed when so many seconds of work would be lost without; faster ones are simply done again.
CHECKPOINT_SECONDS = 1.0
# Under cosine the formula gives about 1e-32 for a row on its own centroid; nothing this near is worth a cluster.
_NOT_APART = 1e-12


@dataclass(frozen=True)
class Fit:
    """Centroids, and how Lloyd's algorithm reached them.

    Attributes
    ----------
    centroids : ndarray of float32, shape (clusters, dims)
    iterations : int
        Passes made.
    """

    centroids: NDArray[np.float32]
    iterations: int


def lloyd(
    measured: Measured,
    centroids: NDArray[np.float32],
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
    centroids : ndarray of float32, shape (clusters, dims)
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
    metric, executor = around.metric, around.executor
    start, previous, finished = 0, None, False
    if around.checkpoints is not None and (saved := around.checkpoints.load(f"{around.name}/lloyd")) is not None:
        arrays, values = saved
        centroids = arrays["centroids"]
        start, previous, finished = int(values["iteration"]), values["inertia"], bool(values["finished"])
    if finished:
        return Fit(centroids, start)
    clusters = len(centroids)
    work = AssignPass(metric, measured.fixed_point, measured.inertia, clusters)
    saved_at = time.monotonic()
    iteration = start
    while iteration < iterations and not finished:
        began = time.monotonic()
        found: Assigned = executor.run(work, measured.points, kernels.prepare_centroids(centroids, metric))
        means = kernels.mean_centroids(found.sums, metric, centroids)
        refilled = _refill(means, found, measured, around)
        inertia = found.inertia.value()
        iteration += 1
        gain = None if previous is None else previous - inertia
        # The same centroids again mean the same labels again: no label changed since the pass before.
        finished = bool(np.array_equal(means, centroids)) or (
            not refilled and tolerance > 0 and gain is not None and previous is not None and gain < tolerance * previous
        )
        centroids, previous = means, inertia
        around.emit(
            IterationFinished(
                level=around.level,
                step=around.step,
                iteration=iteration,
                inertia=inertia,
                seconds=time.monotonic() - began,
                refilled=refilled,
            )
        )
        finished = finished or iteration == iterations
        if around.checkpoints is not None and (finished or time.monotonic() - saved_at >= CHECKPOINT_SECONDS):
            around.checkpoints.save(
                f"{around.name}/lloyd",
                {"centroids": centroids},
                {"iteration": iteration, "inertia": inertia, "finished": finished, "seeding": seeding},
            )
            saved_at = time.monotonic()
    return Fit(centroids, iteration)


def _refill(means: NDArray[np.float32], found: Assigned, measured: Measured, around: Surroundings) -> int:
    """Move the centroids of empty clusters, lowest first, onto the points farthest from theirs; how many were moved.

    One point each, never the same vector twice, so that copies of one outlier do not take several clusters.
    """
    empty = np.flatnonzero(found.sums.counts == 0)
    if not len(empty):
        return 0
    values, rows = found.farthest.values, found.farthest.rows
    rows = rows[values > (_NOT_APART if around.metric == "cosine" else 0.0)]
    if not len(rows):
        return 0
    order = np.argsort(rows, kind="stable")
    vectors = np.empty((len(rows), means.shape[1]), dtype=np.float32)
    vectors[order] = centre_vectors(measured.points.source.take(rows[order]), around.metric)
    moved, seen = 0, set()
    for vector in vectors:
        if moved == len(empty):
            break
        if (content := vector.tobytes()) not in seen:
            seen.add(content)
            means[empty[moved]] = vector
            moved += 1
    return moved


def centre_vectors(rows: NDArray[np.generic], metric: str) -> NDArray[np.float32]:
    """Rows as centroids: float32, of unit length under cosine."""
    if metric == "l2":
        return rows.astype(np.float32)
    return kernels.formula_rows(rows, metric).astype(np.float32)
