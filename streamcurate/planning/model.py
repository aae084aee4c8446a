"""What a run needs before it runs: the memory of every stage held against the limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamcurate.clustering.centroids import SMALLEST_TILE
from streamcurate.clustering.iteration import AssignPass
from streamcurate.clustering.passes import LabelPass
from streamcurate.clustering.seeding import require_memory
from streamcurate.config import Config, Level
from streamcurate.errors import DataError
from streamcurate.kernels import ExactTotal, FixedPoint, Metric
from streamcurate.kernels.seeding import LARGEST_EXACT_DIMS
from streamcurate.streaming import MemoryBudget

# float32 values whose bits span this many positions are held in two limbs, as nearly all real data are.
_USUAL_BITS = 56


def metric_of(config: Config) -> Metric:
    """The configuration's metric, as kernels call it."""
    return "cosine" if config.metric == "cosine" else "l2"


def usual_passes(level: Level, metric: Metric, points: int, dtype: np.dtype[Any]) -> tuple[AssignPass, LabelPass]:
    """A level's passes over all its clusters, with the arithmetic that usual data call for."""
    fixed_point = FixedPoint.for_data(-_USUAL_BITS if dtype.itemsize > 2 else -24, 0, points)
    total = ExactTotal.scale(1.0, points)
    keep = level.resampling.rows_per_cluster if level.resampling else 0
    return (
        AssignPass(metric, fixed_point, total, level.clusters),
        LabelPass(metric, total, level.clusters, keep=keep),
    )


def encoded_row_bytes(dims: int) -> int:
    """The most bytes of a row in seeding form."""
    return dims if dims > LARGEST_EXACT_DIMS else 4 * dims


def check_levels(config: Config, rows: int, dims: int, dtype: np.dtype[Any], budget: MemoryBudget, name: str) -> None:
    """Refuse, before anything is read, levels that cannot be built.

    Raises
    ------
    DataError
        More clusters than rows.
    MemoryLimitError
        A pass of some level does not fit within the limit.
    """
    first = config.levels[0].clusters
    if first > rows:
        raise DataError(
            f"levels[0].clusters: {first:,} clusters from the {rows:,} rows of {name}; choose at most {rows:,}"
        )
    points = rows
    for index, level in enumerate(config.levels):
        kind = dtype if index == 0 else np.dtype(np.float32)
        assign, label = usual_passes(level, metric_of(config), points, kind)
        for work in (
            # Centroids that do not fit are held in tiles; sizes, offsets and what resampling keeps are not.
            AssignPass(assign.metric, assign.fixed_point, assign.inertia, min(level.clusters, SMALLEST_TILE)),
            LabelPass(label.metric, label.inertia, level.clusters, keep=label.keep, known=True),
        ):
            budget.block_rows(
                f"level {index + 1} ({level.clusters:,} clusters of {dims} dims): {work.name}",
                points,
                dims * kind.itemsize,
                0,
                work.cost(dims, kind),
            )
        # How many rows a subset names, or leaves splits give, is known only later; seeding asks again then.
        known = config.levels[index - 1].splits == 1 if index else config.subset is None
        if known:
            _check_seeding(level, index, points, dims, budget)
        _check_centroids_at_once(level, index, dims, budget)
        points = level.most_clusters


def _check_seeding(level: Level, index: int, points: int, dims: int, budget: MemoryBudget) -> None:
    """Refuse a seeding asked for by name that cannot fit; what ``auto`` chooses fits the smallest memory limit."""
    if level.clusters == points:
        return
    rows = min(level.fit_rows or points, points)
    require_memory(level.init, rows, level.clusters, encoded_row_bytes(dims), budget, f"level {index + 1}")


def _check_centroids_at_once(level: Level, index: int, dims: int, budget: MemoryBudget) -> None:
    """Refuse what needs all centroids in memory and cannot have them: it would be refused hours later."""
    if level.algorithm == "minibatch":
        budget.require(
            12 * dims * level.clusters,
            f"level {index + 1}: the mini-batch warm-up of {level.clusters:,} clusters",
            "choose algorithm: lloyd",
        )
    if level.splits > 1:
        budget.require(
            12 * dims * level.clusters,
            f"level {index + 1}: splitting {level.clusters:,} coarse clusters",
            "choose fewer clusters and more splits",
        )
