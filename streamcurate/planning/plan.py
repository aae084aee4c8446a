"""The plan of a run: what it consists of, what it takes, and what would be wiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from streamcurate.config import Config
from streamcurate.planning.pricing import Times
from streamcurate.planning.rates import Rate
from streamcurate.planning.stages import (
    Stage,
)
from streamcurate.planning.suggestions import (
    Suggestion,
)


@dataclass(frozen=True)
class Store:
    """The rows a plan is for: a shape, and no more.

    Attributes
    ----------
    name : str
    rows, dims : int
    dtype : str
    chunk_rows : int
    read_overhead_bytes : int
    count : int
        Rows that are used: those of the subset.
    on_disk : bool
    """

    name: str
    rows: int
    dims: int
    dtype: str
    chunk_rows: int
    read_overhead_bytes: int
    count: int
    on_disk: bool = True

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored."""
        return self.dims * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class StagePlan:
    """A stage and what it takes.

    Attributes
    ----------
    stage : Stage
    times : Times
    repeats, most_repeats : float
        How often it is done: fits times iterations, expected and at most.
    memory_bytes : int
        What a process works with, beside the interpreter.
    block_rows : int
        0 where it has no blocks.
    """

    stage: Stage
    times: Times
    repeats: float
    most_repeats: int
    memory_bytes: int
    block_rows: int

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.stage.name}, resampled" if self.stage.resampled else self.stage.name

    def to_mapping(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        stage = self.stage
        return {
            "name": self.name,
            "points": stage.points,
            "clusters": stage.clusters,
            "repeats": {"expected": self.repeats, "most": self.most_repeats},
            "passes": [
                {
                    "name": one.name,
                    "expected": one.times * self.repeats,
                    "most": one.times * self.most_repeats,
                    "exact": one.exact and stage.iterations == 1 and not stage.resampled,
                    "rows": one.rows,
                    "bytes": one.bytes,
                }
                for one in stage.passes
            ],
            "read_bytes": {"expected": round(stage.read * self.repeats), "most": round(stage.read * self.most_repeats)},
            "written_bytes": {
                "expected": round(stage.written * self.repeats),
                "most": round(stage.written * self.most_repeats),
            },
            "flop": {"expected": stage.flop * self.repeats, "most": stage.flop * self.most_repeats},
            "tiles": stage.tiles,
            "memory_bytes": self.memory_bytes,
            "block_rows": self.block_rows,
            "seconds": {"expected": self.times.expected, "most": self.times.most},
            "bound_by": self.times.bound_by,
        }


@dataclass(frozen=True)
class LevelPlan:
    """One level.

    Attributes
    ----------
    number : int
    points, clusters : int
        Clusters at most, where there are splits.
    seeding : str
    iterations : float
        Expected of the first fit.
    stages : tuple of StagePlan
    tree_bytes, scratch_bytes : int
        What it leaves, and the most it has in scratch at a time.
    """

    number: int
    points: int
    clusters: int
    seeding: str
    iterations: float
    stages: tuple[StagePlan, ...]
    tree_bytes: int
    scratch_bytes: int

    @property
    def expected(self) -> float:
        """Seconds."""
        return sum(one.times.expected for one in self.stages)

    @property
    def most(self) -> float:
        """Seconds, with all iterations."""
        return sum(one.times.most for one in self.stages)

    @property
    def bound_by(self) -> str:
        """The part of the longest stages' time."""
        return _largest([one.times for one in self.stages])

    def to_mapping(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "level": self.number,
            "points": self.points,
            "clusters": self.clusters,
            "seeding": self.seeding,
            "iterations": self.iterations,
            "seconds": {"expected": self.expected, "most": self.most},
            "bound_by": self.bound_by,
            "tree_bytes": self.tree_bytes,
            "scratch_bytes": self.scratch_bytes,
            "stages": [one.to_mapping() for one in self.stages],
        }


@dataclass(frozen=True)
class Plan:
    """What a run would take. ``print(plan)`` shows it.

    Attributes
    ----------
    store : Store
    config : Config
    on : str
        ``this``, or named hardware.
    limit, threads, workers : int
        Memory limit of a process, threads of it, processes.
    refusal : str or None
        What ``cluster`` would say instead of beginning; None where the memory limit allows it.
    levels : tuple of LevelPlan
    start_seconds : float
        Before the first row is read.
    rates : dict of Rate
        What times follow from.
    suggestions : tuple of Suggestion
    place : str
        Whose free space counts.
    free_bytes : int
    """

    store: Store
    config: Config
    on: str
    limit: int
    threads: int
    workers: int
    refusal: str | None
    levels: tuple[LevelPlan, ...]
    start_seconds: float
    rates: dict[str, Rate]
    suggestions: tuple[Suggestion, ...]
    place: str
    free_bytes: int

    @property
    def expected(self) -> float:
        """Seconds, with the iterations that are expected."""
        return self.start_seconds + sum(level.expected for level in self.levels)

    @property
    def most(self) -> float:
        """Seconds, with all iterations that are allowed."""
        return self.start_seconds + sum(level.most for level in self.levels)

    @property
    def bound_by(self) -> str:
        """What most of the time goes into: compute, reading, writing, sums or driver."""
        return _largest([one.times for level in self.levels for one in level.stages])

    @property
    def tree_bytes(self) -> int:
        """Of the finished tree."""
        return sum(level.tree_bytes for level in self.levels)

    @property
    def scratch_bytes(self) -> int:
        """The most in scratch at a time."""
        return max(level.scratch_bytes for level in self.levels)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "store": asdict(self.store) | {"bytes": self.store.rows * self.store.row_bytes},
            "config": self.config.to_mapping(),
            "on": self.on,
            "memory": {
                "limit_bytes": self.limit,
                "threads": self.threads,
                "workers": self.workers,
                "working_bytes": max(one.memory_bytes for level in self.levels for one in level.stages),
                "fits": self.refusal is None,
                "refusal": self.refusal,
            },
            "disk": {
                "tree_bytes": self.tree_bytes,
                "scratch_peak_bytes": self.scratch_bytes,
                "place": self.place,
                "free_bytes": self.free_bytes,
            },
            "seconds": {"start": self.start_seconds, "expected": self.expected, "most": self.most},
            "bound_by": self.bound_by,
            "levels": [level.to_mapping() for level in self.levels],
            "rates": {name: asdict(rate) for name, rate in self.rates.items()},
            "suggestions": [asdict(one) for one in self.suggestions],
        }

    def __str__(self) -> str:
        from streamcurate.planning.text import plan_text

        return plan_text(self)


def _largest(times: Sequence[Times]) -> str:
    """What bounds the stages that take longest, all together."""
    total: dict[str, float] = {}
    for one in times:
        total[one.bound_by] = total.get(one.bound_by, 0.0) + one.expected
    return max(total, key=lambda part: total[part])
