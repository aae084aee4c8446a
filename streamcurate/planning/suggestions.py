"""Levels that are unwise, said before they cost anything: what, by which numbers, and what to do instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from streamcurate.config import Level
from streamcurate.planning.stages import Problem, Stage, fitted_points
from streamcurate.streaming import MemoryBudget, format_bytes

# Fewer points to a cluster than this and a level does little but copy the one below; from 2.5 on, levels still evened
# long tails out (notebooks/choosing_levels.md, where the levels that did have a quarter of the clusters below them).
_FEW_POINTS = 2
_POINTS_ADVISED = 4
# Of what 9 resampling steps evened out, the first three did most (the same notebook).
_MOST_OF_THE_STEPS = 3
# Rows to a cluster beyond which more hardly move a centroid: the number FAISS samples down to.
_ENOUGH_ROWS = 256
# What is worth a change of levels.
_WORTH_SECONDS, _WORTH_FACTOR = 60.0, 2.0
_FEWEST_FOR_SPLITS = 1000
# Text embeddings in three levels with 3 resampling steps each: level 3 degenerates from 0.5 to 3 points a dim (64 and
# 384 dims), not from 12 and 50 (16 and 4 dims), nor without resampling, nor do levels 1 and 2 alone.
_DEGENERATE_LEVEL, _POINTS_A_DIM = 3, 4
_SMALL_BLOCK_ROWS = 256
_LARGE_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Suggestion:
    """One remark.

    Attributes
    ----------
    kind : str
    text : str
        For people.
    level : int or None
        Which it is about.
    numbers : dict
        What the text says, for programs.
    """

    kind: str
    text: str
    level: int | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LevelFacts:
    """What a level's suggestions look at.

    Attributes
    ----------
    number : int
    level : Level
    problem : Problem
    stages : list of Stage
    seconds : callable
        Expected seconds of another level over the same points.
    blocks : dict of int
        Rows of a block in each stage that has blocks.
    resampled_below : bool
        Whether a level below is resampled.
    """

    number: int
    level: Level
    problem: Problem
    stages: list[Stage]
    seconds: Callable[[Level], float]
    blocks: dict[str, int]
    resampled_below: bool = False


def suggestions_for(
    facts: LevelFacts, budget: MemoryBudget, tiles: Callable[[MemoryBudget], int] | None
) -> list[Suggestion]:
    """What is unwise about a level.

    Parameters
    ----------
    facts : LevelFacts
    budget : MemoryBudget
    tiles : callable or None
        Tiles of the centroids within another budget; None where a GPU holds them.
    """
    return [
        *_few_points(facts),
        *_resampling(facts),
        *_steps(facts),
        *_degenerate(facts),
        *_splits(facts),
        *_fit_rows(facts),
        *(_tiles(facts, budget, tiles) if tiles is not None else []),
        *_blocks(facts, budget),
    ]


def chunk_suggestions(
    name: str, row_bytes: int, chunk_rows: int, overhead: int, budget: MemoryBudget
) -> list[Suggestion]:
    """Stored chunks that have to be decoded whole and take much of the memory for it."""
    if overhead <= budget.usable // 4 and overhead <= _LARGE_CHUNK_BYTES:
        return []
    return [
        Suggestion(
            "chunks",
            f"{name}: every chunk of {chunk_rows:,} rows ({format_bytes(chunk_rows * row_bytes)}) is decoded whole and "
            f"takes {format_bytes(overhead)} beside the rows, of {format_bytes(budget.usable)} that plans may use; "
            "ingest the store again (streamcurate ingest), which stores uncompressed chunks that are read in part",
            None,
            {"chunk_rows": chunk_rows, "overhead_bytes": overhead, "usable_bytes": budget.usable},
        )
    ]


def _few_points(facts: LevelFacts) -> list[Suggestion]:
    points, clusters = facts.problem.count, facts.level.clusters
    if points >= _FEW_POINTS * clusters or points == clusters == 1:
        return []
    below = "rows" if facts.number == 1 else f"clusters of level {facts.number - 1}"
    advised = max(points // _POINTS_ADVISED, 1)
    return [
        Suggestion(
            "few-points",
            f"level {facts.number}: {clusters:,} clusters from {points:,} {below}, {points / clusters:.1f} each; most "
            f"would hold one or two. Choose about a quarter of them (clusters: {advised}), or leave the level out",
            facts.number,
            {"points": points, "clusters": clusters, "points_a_cluster": points / clusters, "advised": advised},
        )
    ]


def _resampling(facts: LevelFacts) -> list[Suggestion]:
    resampling = facts.level.resampling
    if resampling is None:
        return []
    mean = facts.problem.count / facts.level.clusters
    kept, advised = resampling.rows_per_cluster, max(int(mean / 2), 1)
    if kept >= mean:
        said = (
            f"resampling keeps {kept:,} points of each cluster of {mean:.1f} on average: nearly all are kept, and the "
            f"{resampling.steps} further fits change little"
        )
    elif kept == 1 and advised > 1:
        said = (
            f"resampling keeps 1 point of each cluster of {mean:.1f} on average: there are no more points than "
            "clusters to fit on, so that each becomes a centroid by itself"
        )
    else:
        return []
    return [
        Suggestion(
            "resampling",
            f"level {facts.number}: {said}. Keep about half of a cluster (rows_per_cluster: {advised}), or leave "
            "resampling out",
            facts.number,
            {"rows_per_cluster": kept, "points_a_cluster": mean, "advised": advised},
        )
    ]


def _steps(facts: LevelFacts) -> list[Suggestion]:
    level, resampling = facts.level, facts.level.resampling
    if resampling is None or resampling.steps <= _MOST_OF_THE_STEPS:
        return []
    fewer = replace(level, resampling=replace(resampling, steps=_MOST_OF_THE_STEPS))
    whole, less = facts.seconds(level), facts.seconds(fewer)
    if whole < _WORTH_SECONDS or whole < _WORTH_FACTOR * less:
        return []
    return [
        Suggestion(
            "resampling-steps",
            f"level {facts.number}: with {resampling.steps} resampling steps takes about {spell_seconds(whole)}, with "
            f"{_MOST_OF_THE_STEPS} about {spell_seconds(less)}. On small pools of known classes the first "
            f"{_MOST_OF_THE_STEPS} steps did most of what 9 did; try those first (steps: {_MOST_OF_THE_STEPS})",
            facts.number,
            {"steps": resampling.steps, "seconds": whole, "advised": _MOST_OF_THE_STEPS, "fewer_seconds": less},
        )
    ]


def _degenerate(facts: LevelFacts) -> list[Suggestion]:
    """Few points in many dims, high above resampled levels."""
    points, dims, resampling = facts.problem.count, facts.problem.dims, facts.level.resampling
    if facts.number < _DEGENERATE_LEVEL or not facts.resampled_below or points >= _POINTS_A_DIM * dims:
        return []
    advised = max(int(points / facts.level.clusters / 2), 1)
    # Fewer steps alone did not mend it, neither there nor in notebooks/choosing_levels.md; keeping more helped some.
    keep = (
        f", or keep more of each cluster here, about half (rows_per_cluster: {advised})"
        if resampling is not None and resampling.rows_per_cluster < advised
        else ""
    )
    return [
        Suggestion(
            "degenerate",
            f"level {facts.number}: {points:,} points of {dims:,} dims, above resampled levels; small pools of so many "
            "dims tend to degenerate there: one cluster holds most rows, many hold one (20,000 text embeddings of 384 "
            "dims in 2,000, 400, 80 clusters: 81 % in one after 3 resampling steps a level, 14 % without resampling). "
            f"Leave the level out, or do without resampling{keep}, and look at the run's warnings",
            facts.number,
            {"points": points, "dims": dims, "points_a_dim": points / dims},
        )
    ]


def _splits(facts: LevelFacts) -> list[Suggestion]:
    level, clusters = facts.level, facts.level.clusters
    if level.splits > 1 or clusters < _FEWEST_FOR_SPLITS or facts.number > 1 or level.search != "exact":
        return []
    flat = facts.seconds(level)
    coarse = math.isqrt(clusters)
    splits = -(-clusters // coarse)
    two_step = replace(level, clusters=coarse, splits=splits, resampling=None, fit_rows=None)
    split = facts.seconds(two_step)
    if level.resampling is not None or flat < _WORTH_SECONDS or flat < _WORTH_FACTOR * split:
        return []
    return [
        Suggestion(
            "splits",
            f"level {facts.number}: {clusters:,} clusters at once take about {spell_seconds(flat)}; {coarse:,} "
            f"clusters split into up to {splits:,} each take about {spell_seconds(split)}, and rows are compared with "
            f"the leaves of their own cluster alone (clusters: {coarse}, splits: {splits})",
            facts.number,
            {"seconds": flat, "split_seconds": split, "clusters": coarse, "splits": splits},
        )
    ]


def _fit_rows(facts: LevelFacts) -> list[Suggestion]:
    level = facts.level
    advised = _ENOUGH_ROWS * level.clusters
    if fitted_points(facts.problem, level) < 4 * advised:
        return []
    whole, sampled = facts.seconds(level), facts.seconds(replace(level, fit_rows=advised))
    if whole < _WORTH_SECONDS or whole < _WORTH_FACTOR * sampled:
        return []
    per_cluster = fitted_points(facts.problem, level) / level.clusters
    return [
        Suggestion(
            "fit-rows",
            f"level {facts.number}: is fitted on {per_cluster:,.0f} rows a cluster and takes about "
            f"{spell_seconds(whole)}; fitted on {_ENOUGH_ROWS} a cluster (fit_rows: {advised}), about "
            f"{spell_seconds(sampled)}; all rows are labelled either way",
            facts.number,
            {"seconds": whole, "sampled_seconds": sampled, "fit_rows": advised, "rows_a_cluster": per_cluster},
        )
    ]


def _tiles(facts: LevelFacts, budget: MemoryBudget, tiles: Callable[[MemoryBudget], int]) -> list[Suggestion]:
    most = max((stage.tiles for stage in facts.stages), default=1)
    if most == 1:
        return []
    limit = budget.limit
    while tiles(replace(budget, limit=limit)) > 1:
        limit = limit * 5 // 4
    return [
        Suggestion(
            "tiles",
            f"level {facts.number}: {facts.level.clusters:,} centroids do not fit the memory limit of "
            f"{format_bytes(budget.limit)} and are held in {most} tiles: every iteration reads the points {2 * most} "
            f"times and searches all centroids again. With --memory-limit {-(-limit // (1 << 20))}MiB all of them fit",
            facts.number,
            {"tiles": most, "limit_bytes": budget.limit, "enough_bytes": limit},
        )
    ]


def _blocks(facts: LevelFacts, budget: MemoryBudget) -> list[Suggestion]:
    # Small sources are cut finely on purpose, two blocks a thread.
    over = {stage.name: stage.points // (2 * budget.threads) for stage in facts.stages}
    small = {name: rows for name, rows in facts.blocks.items() if rows < min(_SMALL_BLOCK_ROWS, over.get(name, 0))}
    if not small:
        return []
    name, rows = min(small.items(), key=lambda item: item[1])
    return [
        Suggestion(
            "small-blocks",
            f"level {facts.number}: {name} runs in blocks of {rows:,} rows within {format_bytes(budget.limit)}, which "
            "costs speed; give a larger --memory-limit, or fewer --threads",
            facts.number,
            {"stage": name, "block_rows": rows, "limit_bytes": budget.limit},
        )
    ]


def disk_suggestions(needed: int, free: int, place: str) -> list[Suggestion]:
    """A disk that will be full before the run is done."""
    if needed <= free:
        return []
    return [
        Suggestion(
            "disk",
            f"{place}: {format_bytes(free)} are free, and tree and scratch take up to {format_bytes(needed)}; free "
            "some space, or choose another run directory or --scratch",
            None,
            {"needed_bytes": needed, "free_bytes": free},
        )
    ]


def spell_seconds(seconds: float) -> str:
    """``0.4 s``, ``35 s``, ``12 min``, ``3.5 h``, ``20 days``."""
    for size, unit in ((86400.0 * 3, "days"), (3600.0, "h"), (120.0, "min")):
        if seconds >= size:
            value = seconds / {"days": 86400.0, "h": 3600.0, "min": 60.0}[unit]
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds:.2f} s"
