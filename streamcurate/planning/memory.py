"""What each stage takes of a process's memory, and how centroids are held: the answers the engine itself will get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering import oversampling, plus_plus
from streamcurate.clustering.centroids import tile_edges
from streamcurate.clustering.kept_labels import FEW_ROWS, KeptLabels
from streamcurate.clustering.passes import StatisticsPass
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.config import Level
from streamcurate.embeddings.fingerprint import unit_rows
from streamcurate.errors import MemoryLimitError
from streamcurate.kernels import ExactTotal, FixedPoint, Metric
from streamcurate.planning.model import encoded_row_bytes, usual_passes
from streamcurate.planning.stages import Stage
from streamcurate.streaming import Cost, Executor, MemoryBudget, Points

# Rows that are copied or regrouped are read and written in pieces of this size.
_COPY_BYTES = 48 << 20
_SPLIT_SHARE, _MEMBERS_SHARE = 1 / 2, 1 / 16


@dataclass(frozen=True)
class PlannedRows:
    """Rows that have a shape and are not read: a ``RowSource`` for the planning functions of the engine."""

    name: str
    rows: int
    dims: int
    dtype: np.dtype[Any]
    chunk_rows: int
    read_overhead_bytes: int = 0
    travels: bool = True

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Never asked for."""
        raise NotImplementedError

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Never asked for."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Room:
    """The part of an executor that planning functions look at."""

    budget: MemoryBudget


class HostLayout:
    """How the processes of a memory limit hold a level's centroids; a ``Layout``.

    Parameters
    ----------
    level : Level
    number : int
        Of the level.
    metric : "l2" or "cosine"
    source : PlannedRows
        The level's points.
    budget : MemoryBudget
    """

    def __init__(self, level: Level, number: int, metric: Metric, source: PlannedRows, budget: MemoryBudget) -> None:
        self.level, self.number, self.metric = level, number, metric
        self.source, self.budget = source, budget

    def fit_tiles(self, points: int, clusters: int, value_bytes: int) -> int:
        """As the iteration cuts them."""
        measured, around = self._measured(points), self._around()
        work, _ = usual_passes(self.level, self.metric, points, self.source.dtype)
        dims, dtype = self.source.dims, self.source.dtype
        return len(tile_edges(clusters, measured, around, lambda t: replace(work, clusters=t).cost(dims, dtype))) - 1

    def label_tiles(self, points: int, clusters: int, value_bytes: int, keep: int) -> int:
        """As a labels pass cuts them."""
        measured, around = self._measured(points), self._around()
        _, work = usual_passes(self.level, self.metric, points, self.source.dtype)
        dims, dtype = self.source.dims, self.source.dtype
        own = replace(work, keep=keep)
        return len(tile_edges(clusters, measured, around, lambda t: replace(own, clusters=t).cost(dims, dtype))) - 1

    def keeps_labels(self, points: int, clusters: int, value_bytes: int) -> bool:
        """As the iteration decides."""
        if self.fit_tiles(points, clusters, value_bytes) > 1:
            return False
        work, _ = usual_passes(self.level, self.metric, points, self.source.dtype)
        return KeptLabels(self._measured(points), clusters, work, self._around())._wanted

    def memory(self, stage: Stage) -> tuple[int, int]:
        """Bytes a process works with in a stage, and how many rows its blocks have; 0 rows where there are none.

        The bytes are those of the plan, without the interpreter.
        """
        dims, dtype, usable = self.source.dims, self.source.dtype, self.budget.usable
        assign, label = usual_passes(self.level, self.metric, stage.points, dtype)
        tile = -(-self.level.clusters // stage.tiles)
        rows = max(stage.points, 1)
        if stage.name == "statistics":
            return self._block(rows, StatisticsPass(self.metric, unit_rows(dims, dtype)).cost(dims, dtype))
        if stage.name == "seeding":
            if stage.method == "k-means++":
                return plus_plus.working_bytes(rows, stage.clusters, encoded_row_bytes(dims)), 0
            if stage.method == "k-means||":
                return oversampling.working_bytes(stage.clusters, encoded_row_bytes(dims)), 0
            whole = 8 * dims * stage.clusters
            return min(whole, usable // 2), 0
        if stage.name == "warm-up":
            return 12 * dims * stage.clusters, 0
        if stage.name in ("iterations", "sums"):
            own = replace(assign, clusters=tile, keeps=stage.kept)
            # Labels alone, of so few rows in memory, tell how many points an iteration moves, where there is room.
            counting = replace(own, counts=True, few_rows=rows if rows <= FEW_ROWS else 0).cost(dims, dtype)
            counts = not stage.kept and stage.tiles == 1 and self._fits(counting)
            return self._block(rows, counting if counts else own.cost(dims, dtype))
        if stage.name in ("resampling", "labels", "coarse labels"):
            keep = label.keep if stage.name == "resampling" else 0
            work = replace(label, clusters=tile, keep=keep, again=stage.kept)
            cost = work.cost(dims, dtype)
            return self._block(rows, cost if self._fits(cost) else replace(work, again=False).cost(dims, dtype))
        if stage.name in ("sample rows", "gather"):
            return min(int(stage.read), _COPY_BYTES), 0
        if stage.name in ("regroup", "split fits", "split labels"):
            return min(int(usable * _SPLIT_SHARE), 2 * int(max(stage.read, 1))), 0
        if stage.name == "members":
            return min(int(usable * _MEMBERS_SHARE), 64 * stage.points), 0
        return min(int(stage.read), _COPY_BYTES), 0

    def _fits(self, cost: Cost) -> bool:
        return self.budget.fits(1, self.source.dims * self.source.dtype.itemsize, 0, cost)

    def _block(self, rows: int, cost: Cost) -> tuple[int, int]:
        row_bytes = self.source.dims * self.source.dtype.itemsize
        overhead = self.source.read_overhead_bytes
        try:
            block = min(self.budget.block_rows("", rows, row_bytes, overhead, cost), rows)
        except MemoryLimitError:  # the verdict says so
            return self.budget._needed(1, row_bytes, overhead, cost), 0
        return self.budget._needed(block, row_bytes, overhead, cost), block

    def _measured(self, points: int) -> Measured:
        source = replace(self.source, rows=points)
        # No statistics: what is asked of it does not look at them.
        nothing = cast(Any, None)
        return Measured(Points.all_of(source), nothing, FixedPoint.for_data(-24, 0, points), ExactTotal.scale(1.0, 1))

    def _around(self) -> Surroundings:
        room = cast(Executor, _Room(self.budget))
        return Surroundings(room, self.metric, 0, Path(), None, ignore, self.number)
