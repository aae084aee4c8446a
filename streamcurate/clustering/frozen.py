"""A finished level's centroids, kept as they are, and the nearest of them for new points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.approximate import ApproximateLabelPass, require_faiss
from streamcurate.clustering.centroids import Centroids, in_memory, whole
from streamcurate.clustering.fit import held
from streamcurate.clustering.labelling import label_points
from streamcurate.clustering.passes import LabelPass, StatisticsPass, nearest_cost
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.kernels import Backend, ExactTotal, Metric, PreparedCentroids, Statistics
from streamcurate.streaming import Block, Cost, Output, Points, State, StoredRows
from streamcurate.tree.level import Level

# Up to so many operations of one coarse cluster's rows and leaves are a share of one call for all such clusters.
_LARGE_OPERATIONS = 1 << 22
Columns = tuple[NDArray[Any], ...]


class FrozenLevel:
    """The centroids of a finished level.

    Parameters
    ----------
    level : Level
    approximate : bool
        The level was labelled by an approximate index, and so are new points.
    around : Surroundings
        Of the level.

    Raises
    ------
    InputError
        The index needs a library that is missing.
    MemoryLimitError
        Centroids that cannot be taken tile by tile do not fit into memory.
    """

    def __init__(self, level: Level, approximate: bool, around: Surroundings) -> None:
        self.level = level
        self.approximate = approximate
        self.centroids: Centroids = held(StoredRows(level.stored_centroids), around)
        self._split = level.stored_coarse_centroids is not None
        if approximate:
            require_faiss(level.folder)

    @property
    def row_operations(self) -> int:
        """Arithmetic operations that finding a point's label takes."""
        coarse = self.level.stored_coarse_centroids
        return 2 * self.centroids.dims * (self.level.clusters if coarse is None else coarse.rows)

    def measured(self, points: Points, statistics: Statistics, around: Surroundings) -> Measured:
        """The arithmetic for distances of new points, wherever these lie, to the centroids.

        Parameters
        ----------
        points : Points
        statistics : Statistics
            Of the points alone.
        around : Surroundings
        """
        return Measured.of(points, statistics.combine(self.statistics(around)), around.metric)

    def statistics(self, around: Surroundings) -> Statistics:
        """Those of the centroids themselves."""
        found, _ = around.executor.run(StatisticsPass(around.metric), Points.all_of(self.centroids), {})
        return found

    def label(self, measured: Measured, around: Surroundings, outputs: Sequence[Output]) -> ExactTotal:
        """Write labels, -1 where there is none, and distances of points.

        Parameters
        ----------
        measured : Measured
            Of :meth:`measured`.
        around : Surroundings
        outputs : sequence of Output
            int32 labels, float32 distances.

        Returns
        -------
        ExactTotal
            Of the formula's values.
        """
        points = measured.points
        executor, dims, dtype = around.executor, points.source.dims, points.source.dtype
        work = LabelPass(around.metric, measured.inertia, self.level.clusters)
        fix = "use a machine with more memory"
        if self._split:
            coarse, offsets = self.level.stored_coarse_centroids, self.level.stored_coarse_offsets
            assert coarse is not None
            assert offsets is not None
            leaves = LeafPass(around.metric, measured.inertia, coarse.rows, self.level.clusters)
            needed = leaves.cost(dims, dtype).fixed_bytes
            executor.budget.require(needed, f"{self.level.folder}: the leaves of all coarse clusters", fix)
            state = {
                "centroids": whole(self.centroids),
                "coarse": coarse.read(0, coarse.rows),
                "coarse-offsets": offsets.read(0, offsets.rows),
            }
            return executor.run(leaves, points, state, outputs=outputs)
        if self.approximate:
            asked = ApproximateLabelPass(**{field.name: getattr(work, field.name) for field in fields(work)})
            needed = asked.cost(dims, dtype).fixed_bytes
            executor.budget.require(needed, f"{self.level.folder}: the index of its centroids", fix)
            return executor.run(asked, points, {"centroids": whole(self.centroids)}, outputs=outputs).inertia
        return label_points(measured, self.centroids, work, around, outputs).inertia

    def in_memory(self) -> Centroids:
        """All centroids, read."""
        return in_memory(whole(self.centroids))


@dataclass(frozen=True)
class _Leaves:
    """Leaf centroids, and those of the coarse clusters that are searched first."""

    backend: Backend
    centroids: NDArray[np.float32]
    prepared: PreparedCentroids
    coarse_offsets: NDArray[np.int64]


@dataclass(frozen=True)
class LeafPass:
    """The nearest leaf of each row's own coarse cluster; outputs: labels and distances.

    State: ``centroids`` (all leaves), ``coarse``, ``coarse-offsets``.

    Attributes
    ----------
    inertia : ExactTotal
    coarse, leaves : int
        Coarse clusters, leaf clusters.
    """

    metric: Metric
    inertia: ExactTotal
    coarse: int
    leaves: int
    name: str = "labels"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """The leaves as they are, the coarse centroids as given and as prepared."""
        return nearest_cost(self.coarse, dims, held=4 * dims * self.leaves + 8 * self.coarse, row_bytes=128)

    def prepare(self, state: State, backend: Backend) -> _Leaves:
        """The coarse centroids, laid out."""
        prepared = backend.prepare_centroids(state["coarse"], self.metric)
        return _Leaves(backend, state["centroids"], prepared, state["coarse-offsets"])

    def chunk(self, block: Block, columns: Columns, ready: _Leaves) -> tuple[ExactTotal, Columns]:
        """Labels and distances of one block."""
        coarse, _ = ready.backend.nearest(block.values, ready.prepared)
        labels, values = _within(block.values, coarse, ready, self.metric)
        return self.inertia.add(values[labels >= 0]), (labels, kernels.distance_of(values, self.metric))

    def combine(self, total: ExactTotal, part: ExactTotal) -> ExactTotal:
        """The sum."""
        return total.combine(part)

    def finalize(self, total: ExactTotal | None) -> ExactTotal:
        """The sum."""
        return self.inertia if total is None else total


def _within(
    values: NDArray[Any], coarse: NDArray[np.int32], ready: _Leaves, metric: Metric
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The nearest leaf among those of each row's own coarse cluster."""
    from streamcurate.kernels.cpu.bundles import nearest_within

    offsets, centroids = ready.coarse_offsets, ready.centroids
    rows = np.bincount(coarse, minlength=len(offsets) - 1)
    large = rows * np.diff(offsets) * values.shape[1] > _LARGE_OPERATIONS
    labels, best = np.full(len(values), -1, dtype=np.int32), np.full(len(values), np.nan)
    small = np.flatnonzero(~large[coarse])
    labels[small], best[small] = nearest_within(
        values[small], coarse[small].astype(np.int64), offsets, centroids, metric
    )
    for own in np.flatnonzero(large).tolist():
        mine = np.flatnonzero(coarse == own)
        first, last = int(offsets[own]), int(offsets[own + 1])
        found, best[mine] = ready.backend.nearest(
            values[mine], ready.backend.prepare_centroids(centroids[first:last], metric)
        )
        labels[mine] = found + np.int32(first)
    best[labels < 0] = np.nan  # a coarse cluster without rows has no leaves
    return labels, best
