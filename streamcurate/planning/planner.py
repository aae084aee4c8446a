"""Putting a plan together from a shape, a configuration, a limit and rates; nothing is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamcurate.config import Config, Level
from streamcurate.errors import MemoryLimitError
from streamcurate.files import free_bytes
from streamcurate.planning.disk import scratch_bytes, tree_bytes
from streamcurate.planning.hardware import Hardware
from streamcurate.planning.memory import HostLayout, PlannedRows
from streamcurate.planning.model import check_levels, metric_of
from streamcurate.planning.plan import LevelPlan, Plan, StagePlan, Store
from streamcurate.planning.pricing import Place, Times, expected_iterations, price_here, price_on
from streamcurate.planning.rates import Rate, Rates
from streamcurate.planning.stages import (
    DeviceLayout,
    Layout,
    Problem,
    Stage,
    leaf_clusters,
    level_stages,
)
from streamcurate.planning.suggestions import (
    LevelFacts,
    Suggestion,
    chunk_suggestions,
    disk_suggestions,
    suggestions_for,
)
from streamcurate.streaming import MemoryBudget

_HELD_SHARE = 1 / 12
_SORTED_SHARE, _SORTED_BYTES = 1 / 16, 64
# Measured with two workers on two cores: until they have started and imported what they need.
WORKER_START_SECONDS = 2.0


def problems_of(store: Store, config: Config) -> list[Problem]:
    """The points of each level: from the second on, and above splits, at most so many."""
    found = [Problem(store.rows, store.count, store.dims, np.dtype(store.dtype).itemsize)]
    for level in config.levels[:-1]:
        found.append(found[-1].above(level))
    return found


def make_plan(
    store: Store,
    config: Config,
    budget: MemoryBudget,
    rates: Rates,
    *,
    hardware: Hardware | None = None,
    workers: int = 0,
    cached_bytes: int = 0,
    place: str | Path = ".",
) -> Plan:
    """Put a plan together; nothing is read.

    Parameters
    ----------
    store : Store
    config : Config
    budget : MemoryBudget
        Of each process.
    rates : Rates
        Of this machine; on named hardware only their iterations count.
    hardware : Hardware, optional
        Instead of this machine.
    workers : int
        Processes of this machine; 0 computes in one.
    cached_bytes : int
        Memory in which the system can keep what is read.
    place : path
        Where the run would write.

    Raises
    ------
    DataError
        More clusters than rows.
    """
    refusal = None
    try:
        check_levels(config, store.rows, store.dims, np.dtype(store.dtype), budget, store.name)
    except MemoryLimitError as error:
        refusal = str(error)
    planner = _Planner(store, config, budget, rates, hardware, cached_bytes)
    levels, remarks = [], []
    for index, (level, problem) in enumerate(zip(config.levels, problems_of(store, config), strict=True)):
        levels.append(planner.level(index, level, problem))
        remarks += planner.remarks(index, level, problem, levels[-1])
    if hardware is None:
        overhead = store.read_overhead_bytes
        remarks += chunk_suggestions(store.name, store.row_bytes, store.chunk_rows, overhead, budget)
    free = free_bytes(place)
    tree, scratch = sum(one.tree_bytes for one in levels), max(one.scratch_bytes for one in levels)
    if hardware is None:
        remarks += disk_suggestions(tree + scratch, free, str(place))
    start = rates.start_seconds if hardware is None else 0.0
    return Plan(
        store, config, "this" if hardware is None else hardware.name, budget.limit, budget.threads, workers, refusal,
        tuple(levels), start + (WORKER_START_SECONDS if workers else 0.0),
        _spoken_rates(rates) if hardware is None else dict(hardware.rates) | _iterations(rates),
        tuple(remarks), str(place), free,
    )  # fmt: skip


class _Planner:
    def __init__(
        self,
        store: Store,
        config: Config,
        budget: MemoryBudget,
        rates: Rates,
        hardware: Hardware | None,
        cached_bytes: int,
    ) -> None:
        self.store, self.config, self.budget = store, config, budget
        self.rates, self.hardware, self.cached_bytes = rates, hardware, cached_bytes

    def level(self, index: int, level: Level, problem: Problem) -> LevelPlan:
        host = self._host(index, level, problem, self.budget)
        stages = level_stages(problem, level, self._layout(host))
        times = [self._times(index, stage, problem) for stage in stages]
        own = self.rates.levels[index]
        plans = []
        for stage, one in zip(stages, times, strict=True):
            memory, block = host.memory(stage)
            repeats = stage.fits * expected_iterations(stage, own)
            plans.append(StagePlan(stage, one, repeats, stage.times, memory, block))
        sorted_at_once = max(int(self.budget.usable * _SORTED_SHARE) // _SORTED_BYTES, 1024)
        return LevelPlan(
            index + 1, problem.count, leaf_clusters(problem, level),
            next(stage.method for stage in stages if stage.name == "seeding"),
            next(expected_iterations(stage, own) for stage in stages if stage.name == "iterations"),
            tuple(plans), tree_bytes(problem, level), scratch_bytes(problem, level, stages, sorted_at_once),
        )  # fmt: skip

    def remarks(self, index: int, level: Level, problem: Problem, plan: LevelPlan) -> list[Suggestion]:
        def seconds(other: Level) -> float:
            return self._seconds(index, other, problem)

        def tiles(budget: MemoryBudget) -> int:
            host = self._host(index, level, problem, budget)
            keep = level.resampling.rows_per_cluster if level.resampling else 0
            return max(
                host.fit_tiles(problem.rows, level.clusters, problem.value_bytes),
                host.label_tiles(problem.rows, level.clusters, problem.value_bytes, keep),
            )

        blocks = {one.name: one.block_rows for one in plan.stages if one.block_rows}
        below = any(other.resampling is not None for other in self.config.levels[:index])
        facts = LevelFacts(index + 1, level, problem, [one.stage for one in plan.stages], seconds, blocks, below)
        on_gpu = self.hardware is not None and self.hardware.gpu
        return suggestions_for(facts, self.budget, None if on_gpu else tiles)

    def _seconds(self, index: int, level: Level, problem: Problem) -> float:
        host = self._host(index, level, problem, self.budget)
        stages = level_stages(problem, level, self._layout(host))
        return sum(self._times(index, stage, problem).expected for stage in stages)

    def _times(self, index: int, stage: Stage, problem: Problem) -> Times:
        if self.hardware is not None:
            return price_on(stage, self.hardware, self.rates.levels[index])
        cached = index > 0 or not self.store.on_disk or problem.rows * problem.row_bytes <= self.cached_bytes
        first = index == 0 and self.store.on_disk
        return price_here(stage, self.rates, index, Place(first, cached, self.budget.threads))

    def _layout(self, host: HostLayout) -> Layout:
        if self.hardware is not None and self.hardware.gpu:
            return DeviceLayout(self.store.dims, self.hardware.rates["memory"].value)
        return host

    def _host(self, index: int, level: Level, problem: Problem, budget: MemoryBudget) -> HostLayout:
        held = problem.rows * problem.row_bytes <= budget.usable * _HELD_SHARE
        overhead = 0 if index or held else self.store.read_overhead_bytes
        dtype = np.dtype(self.store.dtype) if not index else np.dtype(np.float32)
        chunk = problem.rows if index or held else self.store.chunk_rows
        source = PlannedRows(self.store.name, problem.rows, problem.dims, dtype, chunk, overhead)
        return HostLayout(level, index + 1, metric_of(self.config), source, budget)


def _spoken_rates(rates: Rates) -> dict[str, Rate]:
    def of(value: float, unit: str) -> Rate:
        return Rate(value, unit, rates.origin, rates.source)

    found = {
        "read": of(rates.read, "bytes/s, first"),
        "read again": of(rates.read_again, "bytes/s"),
        "write": of(rates.write, "bytes/s, flushed"),
        "take": of(rates.take, "scattered rows/s"),
        "members": of(rates.members, "rows/s"),
        "digest": of(rates.digest, "bytes/s"),
    }
    for number, level in enumerate(rates.levels, start=1):
        found[f"level {number}: search"] = of(level.first.search, "FLOP/s, first iteration")
        found[f"level {number}: later iterations"] = of(level.first.again, "of the first's time")
        found[f"level {number}: seeding"] = of(level.first.seeding, "rows × clusters × dims a second")
        found[f"level {number}: statistics"] = of(level.statistics, "bytes/s")
        if level.splits is not None:
            found[f"level {number}: split fits"] = of(level.splits, "rows/s")
    return found | _iterations(rates)


def _iterations(rates: Rates) -> dict[str, Rate]:
    found = {}
    for number, level in enumerate(rates.levels, start=1):
        for name, fit in (("iterations", level.first), ("iterations, resampled", level.resampled)):
            if fit is not None:
                found[f"level {number}: {name}"] = Rate(
                    fit.iterations, "until the tolerance, expected", rates.origin, rates.source
                )
    return found
