"""What an iteration leaves to the next, so that it costs what changed: labels, their floors, sums, and how far to look.

Where that would not pay, labels alone, so that the next can tell how many points it moved. All of it is made again
where it is lost; none of it changes a result.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import has_room
from streamcurate.clustering.iteration import Assigned, AssignPass, share_within
from streamcurate.clustering.passes import LabelPass
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.kernels import ClusterSums
from streamcurate.storage import StoredArray, create_array
from streamcurate.streaming import Output, State
from streamcurate.tree.level import aligned_chunk_rows

# A pass of fewer operations is over before files for its labels would be written.
_FEWEST_OPERATIONS = 1e9
# Labels that only tell how many points move are held in memory for so many rows.
FEW_ROWS = 1 << 20
# Running sums stay in this process where they take no more than this share of its memory.
_SUMS_SHARE = 1 / 8
# Sums of moved points count each twice: they gain while fewer than so many move.
_MOVING_SHARE = 0.4
# Floors are sought so far beyond the nearest centroid, as multiples of how far nearly all centroids moved last; and as
# shares of the root mean squared distance: at least (ties aside, all points gain from it), and at most (measured on
# text embeddings: beyond, the pairs to look at cost more than the searches they spare).
_MARGIN_PER_SHIFT = 2.0
_SMALLEST_MARGIN, _LARGEST_MARGIN = 0.003, 0.03
_NEARLY_ALL = 0.9
_DRIFTS = np.linspace(0.0, 1.0, 41)


class LastLabels:
    """The labels of the iteration before, for how many of them change; nothing where nobody is told.

    Parameters
    ----------
    measured : Measured
        The points.
    clusters : int
    work : AssignPass
        The pass that keeps nothing.
    around : Surroundings
    folder : Path
        For the labels of many rows; those of few are in memory.
    """

    def __init__(self, measured: Measured, clusters: int, work: AssignPass, around: Surroundings, folder: Path) -> None:
        source = measured.points.source
        self._rows, self._operations = source.rows, 2 * source.dims * clusters
        self._few = source.rows if source.rows <= FEW_ROWS else 0
        self._plain, self._counting = work, replace(work, counts=True, few_rows=self._few)
        self._wanted = around.emit is not ignore and has_room(self._counting, measured, around)
        self._folder, self._passes = folder, 0
        self._written: StoredArray | None = None
        self._stored: StoredArray | None = None
        self._held: NDArray[np.int32] | None = None

    def next_pass(self, state: State) -> tuple[AssignPass, State, Sequence[StoredArray], Sequence[Output]]:
        """The next pass as one that counts, its state, columns and outputs."""
        if not self._wanted:
            return self._plain, state, (), ()
        work = self._counting
        if self._few:
            return work, state if self._held is None else {**state, "labels": self._held}, (), ()
        self._passes += 1
        path = self._folder / f"labels-{self._passes}"
        self._written = _aligned(path, np.int32, self._rows, self._operations)
        return work, state, () if self._stored is None else (self._stored,), (Output(self._written, -1),)

    def finish(self, work: AssignPass, found: Assigned) -> None:
        """Take over the labels of a pass."""
        if not work.counts:
            return
        if not work.again:
            self._counting = replace(work, again=True)
        if not self._few:
            if self._stored is not None:
                shutil.rmtree(self._stored.path, ignore_errors=True)
            self._stored = self._written
            return
        self._held = np.empty(self._rows, dtype=np.int32)
        for start, labels in found.labels:
            self._held[start : start + len(labels)] = labels

    def close(self) -> None:
        """Remove them."""
        if self._passes:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._held = self._stored = self._written = None


@dataclass
class _Left:
    """Of the pass before."""

    labels: StoredArray
    floors: StoredArray
    centroids: NDArray[np.float32]
    shifts: NDArray[np.float64]
    gaps: NDArray[np.int64]
    changed: int


class KeptLabels:
    """Keeps labels and sums between the iterations of one fit.

    Parameters
    ----------
    measured : Measured
        The points.
    clusters : int
    work : AssignPass
        The pass that keeps nothing.
    around : Surroundings
    """

    def __init__(self, measured: Measured, clusters: int, work: AssignPass, around: Surroundings) -> None:
        source = measured.points.source
        self._measured, self._around = measured, around
        self._operations = 2 * source.dims * clusters
        worth = measured.points.count * self._operations >= _FEWEST_OPERATIONS
        # A GPU searches again in less time than it would take to find out which rows need it.
        on_host = around.executor.budget.device is None
        self._wanted = worth and on_host and has_room(replace(work, keeps=True), measured, around)
        self.keeps_sums = self._wanted and work.sums_bytes(source.dims) <= around.executor.budget.usable * _SUMS_SHARE
        # A name of its own: what a worker of a driver that is gone still writes is not read here.
        self._folder = around.scratch / around.name / f"labels-{os.urandom(4).hex()}"
        self._left: _Left | None = None
        self._sums: ClusterSums | None = None
        self._passes = 0
        self._margin = 0.0
        self._outputs: tuple[Output, ...] = ()
        self._last = None if self._wanted else LastLabels(measured, clusters, work, around, self._folder)

    def next_pass(
        self, work: AssignPass, centroids: NDArray[np.float32]
    ) -> tuple[AssignPass, State, Sequence[StoredArray], Sequence[Output]]:
        """The pass over these centroids, its state, columns and outputs."""
        state = {"centroids": centroids}
        if self._last is not None:
            return self._last.next_pass(state)
        self._passes += 1
        self._outputs = tuple(
            Output(self._create(f"{name}-{self._passes}", dtype), fill)
            for name, dtype, fill in (("labels", np.int32, -1), ("floors", np.float32, 0.0))
        )
        if self._left is None:
            return replace(work, keeps=True, margin=self._margin), state, (), self._outputs
        left = self._left
        moves = self._sums is not None and left.changed < _MOVING_SHARE * self._measured.points.count
        again = replace(
            work, keeps=True, again=True, moves=moves, margin=self._margin, drift=_best_drift(left.shifts, left.gaps)
        )
        return again, state | {"before": left.centroids}, (left.labels, left.floors), self._outputs

    def absolute(self, work: AssignPass, first: int, last: int, found: Assigned) -> ClusterSums:
        """The sums of clusters ``first`` to ``last`` over all points, from what a pass found."""
        if not work.moves:
            return found.sums
        assert self._sums is not None
        before = self._sums
        part = ClusterSums(
            before.fixed_point, last - first, None, before.limbs[:, first:last], before.counts[first:last]
        )
        # Adds in place: the running sums are up to date now.
        return part.combine(found.sums)

    def finish(
        self,
        work: AssignPass,
        found: Assigned,
        sums: Sequence[ClusterSums],
        centroids: NDArray[np.float32],
        means: NDArray[np.float32],
    ) -> None:
        """Take over what the pass over ``centroids`` left, from which ``means`` follow.

        ``sums`` are the absolute ones, slice by slice, where these are kept at all.
        """
        if self._last is not None:
            self._last.finish(work, found)
            return
        if sums and not work.moves:
            self._sums = _joined(sums)
        assert found.gaps is not None
        labels, floors = (output.array for output in self._outputs)
        shifts = kernels.centroid_shifts(centroids, means)
        spread = float(np.sqrt(found.inertia.value() / max(self._measured.points.count, 1)))
        wanted = _MARGIN_PER_SHIFT * float(np.quantile(shifts, _NEARLY_ALL))
        self._margin = (
            max(wanted, _SMALLEST_MARGIN * spread) if wanted <= _LARGEST_MARGIN * spread else _SMALLEST_MARGIN * spread
        )
        if self._left is not None:
            for array in (self._left.labels, self._left.floors):
                shutil.rmtree(array.path, ignore_errors=True)
        self._left = _Left(labels, floors, centroids, shifts, found.gaps, found.changed)

    def for_labels(self, work: LabelPass) -> tuple[LabelPass, State, Sequence[StoredArray]] | None:
        """A labels pass over the means of the last pass as one that follows it: itself, further state, columns."""
        left = self._left
        if left is None:
            return None
        again = replace(work, again=True, drift=_best_drift(left.shifts, left.gaps))
        return again, {"before": left.centroids}, (left.labels, left.floors)

    def end(self) -> None:
        """Remove what only further iterations would need."""
        if self._last is not None:
            self._last.close()

    def close(self) -> None:
        """Remove what is kept."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._left = self._sums = None

    def _create(self, name: str, dtype: type[np.generic]) -> StoredArray:
        return _aligned(self._folder / name, dtype, self._measured.points.source.rows, self._operations)


def _aligned(path: Path, dtype: type[np.generic], rows: int, operations: int) -> StoredArray:
    path.parent.mkdir(parents=True, exist_ok=True)
    return create_array(path, (rows,), dtype, aligned_chunk_rows(rows, operations), durable=False, overwrite=True)


def _joined(sums: Sequence[ClusterSums]) -> ClusterSums:
    if len(sums) == 1:
        return sums[0]
    limbs = np.concatenate([part.limbs for part in sums], axis=1)
    counts = np.concatenate([part.counts for part in sums])
    return ClusterSums(sums[0].fixed_point, len(counts), None, limbs, counts)


def _best_drift(shifts: NDArray[np.float64], gaps: NDArray[np.int64]) -> float:
    """How far a centroid may move and still be left to the floors, so that the least is searched.

    Points whose gap the drift uses up are searched for among all centroids, the others among those that moved farther.
    """
    best, least = 0.0, np.inf
    ordered = np.sort(shifts)
    for drift in np.unique(np.quantile(ordered, _DRIFTS, method="lower")).tolist():
        moved = 1.0 - np.searchsorted(ordered, drift, side="right") / len(ordered)
        full = share_within(gaps, drift)
        cost = full + (1.0 - full) * moved
        if cost < least:
            best, least = drift, cost
    return best
