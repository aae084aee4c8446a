"""The passes of an iteration of Lloyd's algorithm: every point to its nearest centroid, exact sums of each cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.passes import Columns, Searching, centroids_ready, nearest_cost
from streamcurate.kernels import Backend, ClusterSums, ExactTotal, FarthestRows, FixedPoint, Metric
from streamcurate.streaming import Block, Cost, State

# Empty clusters refilled after one pass, at most; the rest wait for the next pass.
REFILLS = 1024
# Under cosine the formula gives about 1e-32 for a row on its own centroid; nothing this near is worth a cluster.
_NOT_APART = 1e-12
# Gaps are counted by the quarter octave, from 2^-60 to 2^60.
_OCTAVES, _PARTS = 60, 4


@dataclass(frozen=True)
class Assigned:
    """What a pass of Lloyd's algorithm found.

    Attributes
    ----------
    sums : ClusterSums
    inertia : ExactTotal
    farthest : FarthestRows
        Candidates to refill empty clusters with.
    changed : int
        Points whose label is another than in the pass before; all where there was none.
    gaps : ndarray of int64 or None
        How many points have so much room before another centroid can be nearer, see :func:`gap_counts`.
    labels : tuple of (start, ndarray of int32)
        Blocks of the source and their rows' labels, in any order, -1 where a row does not count; where they are asked
        for.
    """

    sums: ClusterSums
    inertia: ExactTotal
    farthest: FarthestRows
    changed: int = 0
    gaps: NDArray[np.int64] | None = None
    labels: tuple[tuple[int, NDArray[np.int32]], ...] = ()

    def combine(self, part: Assigned) -> Assigned:
        """Both together; adds into these sums."""
        return Assigned(
            self.sums.combine(part.sums),
            self.inertia.combine(part.inertia),
            self.farthest.combine(part.farthest),
            self.changed + part.changed,
            self.gaps if part.gaps is None else part.gaps if self.gaps is None else self.gaps + part.gaps,
            self.labels + part.labels,
        )


def least_apart(metric: Metric) -> float:
    """The formula's value above which a point is far enough from its centroid to refill an empty cluster."""
    return _NOT_APART if metric == "cosine" else 0.0


def gap_counts(floors: NDArray[np.float32], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Points by floor - distance; bin b > 0 holds those from 2^(b / 4 - 60) on, bin 0 the smaller ones."""
    gaps = floors - np.sqrt(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        bins = np.floor(np.log2(np.maximum(gaps, 0.0)) * _PARTS) + _OCTAVES * _PARTS
    count = 2 * _OCTAVES * _PARTS
    return np.bincount(np.clip(bins, 0, count - 1).astype(np.int64), minlength=count).astype(np.int64, copy=False)


def share_within(gaps: NDArray[np.int64], distance: float) -> float:
    """Share of points whose gap may be as small as ``distance``."""
    if not gaps.any():
        return 1.0
    last = np.clip(np.floor(np.log2(distance) * _PARTS) + _OCTAVES * _PARTS, 0, len(gaps) - 1) if distance > 0 else 0
    return float(gaps[: int(last) + 1].sum() / gaps.sum())


def changed_labels(labels: NDArray[np.int32], before: NDArray[np.int32] | None) -> int:
    """How many labels are others than before; all where there were none."""
    return len(labels) if before is None else int(np.count_nonzero(labels != before))


class _Summing:
    """How passes that give :class:`Assigned` put their parts together, and give their sums away to be added."""

    clusters: int
    fixed_point: FixedPoint

    def combine(self, total: Assigned, part: Assigned) -> Assigned:
        """Both together; adds into ``total``."""
        return total.combine(part)

    def finalize(self, total: Assigned | None) -> Assigned:
        """The sums over all clusters, touched or not."""
        assert total is not None
        return replace(total, sums=total.sums.dense())

    def sums_bytes(self, dims: int) -> int:
        """Of the arrays that :meth:`detach` gives."""
        return 8 * self.clusters * (self.fixed_point.limbs * dims + 1)

    def detach(self, total: Assigned) -> tuple[Assigned, dict[str, NDArray[np.int64]]]:
        """The sums' limbs and the counts, and what is left."""
        sums = total.sums.dense()
        arrays: dict[str, NDArray[np.int64]] = {f"limb-{limb}": sums.limbs[limb] for limb in range(len(sums.limbs))}
        arrays["counts"] = sums.counts[:, None]
        dims = sums.limbs.shape[2]
        return replace(total, sums=ClusterSums.empty(0, dims, sums.fixed_point)), arrays

    def attach(self, rest: Assigned, arrays: Mapping[str, NDArray[np.int64]], first: int, last: int) -> Assigned:
        """The sums of some clusters."""
        fixed_point = rest.sums.fixed_point
        limbs = np.stack([arrays[f"limb-{limb}"] for limb in range(fixed_point.limbs)])
        return replace(rest, sums=ClusterSums(fixed_point, last - first, None, limbs, arrays["counts"][:, 0]))


class _Ready(NamedTuple):
    searching: Searching
    labels: NDArray[np.int32] | None


@dataclass(frozen=True)
class AssignPass(_Summing):
    """One pass of Lloyd's algorithm: every point to its nearest centroid, exact sums of each cluster's points.

    Passes that keep labels give them and their floors as outputs (see :func:`streamcurate.kernels.relabel`), and the
    next one takes them as columns: it searches only for points that the centroids' moves can concern. Passes that only
    tell how many points change their cluster give labels alone, or, of few rows, have them in state and result.

    Attributes
    ----------
    keeps : bool
        Outputs: labels int32, floors float32.
    counts : bool
        Output, unless ``few_rows``: labels int32.
    few_rows : int
        Of the source, where ``counts`` takes the labels of the pass before from the state, as ``labels`` with -1 for
        rows that do not count, and gives its own with the result; else 0.
    again : bool
        Columns: the same of the pass before, whose centroids are in the state of one that keeps, as ``before``.
    moves : bool
        Sums are those of points that changed cluster, added where they came to, taken away where they left.
    drift : float
        Centroids that moved by no more than this are left to the floors.
    margin : float
        How far floors are looked for.
    """

    metric: Metric
    fixed_point: FixedPoint
    inertia: ExactTotal
    clusters: int
    keeps: bool = False
    counts: bool = False
    few_rows: int = 0
    again: bool = False
    moves: bool = False
    drift: float = 0.0
    margin: float = 0.0
    name: str = "k-means pass"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """Centroids as given and as prepared, dense sums; for each row its label, value and share of the sums."""
        sums = 8 * self.fixed_point.limbs * dims
        held = self.clusters * (sums + 16)
        if self.keeps:
            held += 4 * dims * self.clusters + kernels.moved_centroids_bytes(self.clusters, dims)
        held += 12 * self.few_rows  # in the state, in parts, and put together from these
        row_bytes = 112 if self.keeps else 64 if self.counts else 48
        return nearest_cost(self.clusters, dims, held=held, row_bytes=row_bytes + sums)

    def prepare(self, state: State, backend: Backend) -> _Ready:
        """The centroids, and labels that come with them."""
        return _Ready(centroids_ready(state, backend, self.metric, self.drift), state.get("labels"))

    def chunk(self, block: Block, columns: Columns, ready: _Ready) -> tuple[Assigned, Columns]:
        """Labels and sums of one block."""
        backend, centroids = ready.searching
        assert centroids is not None
        values = backend.upload(block.values)
        if not self.keeps:
            labels, squared = backend.nearest(values, centroids)
            found = self._assigned(block, backend.cluster_sums(values, labels, *self._layout), squared)
            if not self.counts:
                return found, ()
            if not self.few_rows:
                return replace(found, changed=changed_labels(labels, columns[0] if self.again else None)), (labels,)
            aligned = labels
            if len(labels) != block.stop - block.start:
                aligned = np.full(block.stop - block.start, -1, dtype=np.int32)
                aligned[block.rows - block.start] = labels
            # Rows that do not count are -1 before and after.
            former = None if ready.labels is None else ready.labels[block.start : block.stop]
            count = len(labels) if former is None else changed_labels(aligned, former)
            return replace(found, changed=count, labels=((block.start, aligned),)), ()
        before, floors_before = columns if self.again else (None, None)
        labels, squared, floors = backend.relabel(values, centroids, before, floors_before, self.margin)
        changed = np.arange(len(labels)) if before is None else np.flatnonzero(labels != before)
        if self.moves:
            assert before is not None
            moved = block.values[changed]
            sums = backend.cluster_sums(moved, labels[changed], *self._layout)
            sums = sums.minus(backend.cluster_sums(moved, before[changed], *self._layout))
        else:
            sums = backend.cluster_sums(values, labels, *self._layout)
        found = replace(self._assigned(block, sums, squared), changed=len(changed), gaps=gap_counts(floors, squared))
        return found, (labels, floors)

    @property
    def _layout(self) -> tuple[Metric, FixedPoint, int]:
        return self.metric, self.fixed_point, self.clusters

    def _assigned(self, block: Block, sums: ClusterSums, squared: NDArray[np.float64]) -> Assigned:
        farthest = kernels.farthest(squared, block.rows, min(REFILLS, self.clusters))
        return Assigned(sums, self.inertia.add(squared), farthest)


@dataclass(frozen=True)
class SumPass(_Summing):
    """Exact sums over the clusters of one tile; columns: labels and values of all.

    Attributes
    ----------
    clusters, first
        As for :class:`TilePass`.
    farthest : int
        How many of the points farthest from their centroids to find.
    again : bool
        A third column: labels of the iteration before, for how many changed.
    """

    metric: Metric
    fixed_point: FixedPoint
    inertia: ExactTotal
    clusters: int
    first: int
    farthest: int
    again: bool = False
    name: str = "sums of a tile"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """Dense sums of the tile; for each row its share of the sums."""
        limbs = self.fixed_point.limbs
        return Cost(fixed_bytes=self.clusters * (dims * (4 + 8 * limbs) + 16), row_bytes=64 + 8 * limbs * dims)

    def prepare(self, state: State, backend: Backend) -> Backend:
        """Only where to compute."""
        return backend

    def chunk(self, block: Block, columns: Columns, backend: Backend) -> tuple[Assigned, Columns]:
        """Sums of one block."""
        labels, values, *before = columns
        inside = (labels >= self.first) & (labels < self.first + self.clusters)
        own = np.where(inside, labels - np.int32(self.first), np.int32(-1)).astype(np.int32, copy=False)
        return (
            Assigned(
                backend.cluster_sums(block.values, own, self.metric, self.fixed_point, self.clusters),
                self.inertia.add(values),
                kernels.farthest(values, block.rows, self.farthest),
                changed_labels(labels, before[0] if self.again else None),
            ),
            (),
        )
