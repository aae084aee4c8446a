"""Logs of runs that never were, and any events in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from streamcurate.runs import (
    Event,
    Interrupted,
    IterationFinished,
    LevelFinished,
    LevelPlanned,
    LevelStarted,
    PassAdvanced,
    PassFinished,
    Resumed,
    RunFinished,
    RunStarted,
    Seeded,
    StageFinished,
    StageStarted,
    Warned,
)

BEGAN = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
DIMS, ITERATIONS, TOLERANCE = 16, 50, 1e-4


def at(second: float) -> str:
    return (BEGAN + timedelta(seconds=second)).isoformat(timespec="milliseconds")


class MadeRun:
    """Writes the log of a run whose gains fall geometrically and whose passes cost what their work is.

    ``levels``: points, clusters, resampling steps.
    """

    def __init__(
        self,
        levels: Sequence[tuple[int, int, int]] = ((100_000, 1000, 2), (1000, 100, 0)),
        gain: float = 0.6,
        speed: float = 1e9,
    ) -> None:
        self.levels, self.gain, self.speed = levels, gain, speed
        self.second = 0.0
        self.events: list[Event] = []
        self.tell(RunStarted(engine="1.0", store="emb.zarr", machine="a laptop"))
        for number, (points, clusters, steps) in enumerate(levels, start=1):
            self.tell(
                LevelPlanned(number, len(levels), points, DIMS, clusters, ITERATIONS, 1, steps, 5, tolerance=TOLERANCE)
            )
        for number in range(1, len(levels) + 1):
            self.level(number)
        self.tell(RunFinished(digest="d", seconds=self.second))

    def tell(self, event: Event, after: float = 0.0) -> None:
        self.second += after
        self.events.append(replace(event, time=at(self.second)))

    def level(self, number: int) -> None:
        points, clusters, steps = self.levels[number - 1]
        self.tell(LevelStarted(number))
        for step in range(steps + 1):
            chosen = min(5 * clusters, points) if step else points
            self.tell(StageStarted("fit", number, step))
            if step:
                self.sweep("resampling", number, points, clusters)
            self.tell(StageStarted("seeding", number, step))
            work = chosen * clusters * DIMS / self.speed
            self.tell(StageFinished("seeding", number, step, 3 * work, chosen), after=3 * work)
            self.tell(Seeded(number, step, "k-means++", clusters, 3 * work))
            inertia, share, iteration = 1000.0 * chosen, self.gain, 0
            while True:
                iteration += 1
                took = self.sweep("k-means pass", number, chosen, clusters)
                moved = None if iteration == 1 else int(chosen * share / 2)
                self.tell(IterationFinished(number, step, iteration, inertia, took, 0, chosen, moved))
                if share < TOLERANCE and iteration > 1:
                    break
                share = self.gain**iteration / 5
                inertia *= 1 - share
            self.tell(StageFinished("fit", number, step, 0.0, chosen))
        self.tell(StageStarted("labels", number))
        self.sweep("labels", number, points, clusters)
        self.tell(StageFinished("labels", number, None, 1.0, points))
        self.tell(StageStarted("members", number))
        self.tell(StageFinished("members", number, None, 0.0, points))
        self.tell(LevelFinished(number, clusters, points, 500.0 * points, 0, "0"))

    def sweep(self, name: str, level: int, points: int, clusters: int) -> float:
        """A pass, and what it takes."""
        work = points * clusters * DIMS / self.speed
        if work > 1:
            size = 4 * DIMS * points // 2
            self.tell(PassAdvanced(name, level, points // 2, points, size, work / 2), after=work / 2)
            self.second -= work / 2
        self.tell(PassFinished(name, level, points, 4 * DIMS * points, work), after=work)
        return work


_levels = st.integers(1, 3)
_steps = st.integers(0, 2)
_counts = st.integers(0, 10**12)
_seconds = st.floats(0, 1e6)
_inertias = st.floats(0, 1e300)
_stages = st.sampled_from(["statistics", "seeding", "fit", "labels", "members", "splitting", "unheard-of"])
_passes = st.sampled_from(["k-means pass", "resampling", "splitting", "labels"])
_times = st.floats(-10, 1e6).map(at)
_maybe = st.none() | _counts


def _of(kind: type[Event], **fields: st.SearchStrategy) -> st.SearchStrategy[Event]:
    return st.builds(kind, **fields, time=_times)


ANY_EVENT = st.one_of(
    _of(RunStarted, engine=st.just("1.0"), store=st.just("a"), machine=st.sampled_from(["", "a"])),
    _of(
        Resumed, engine=st.just("1.1"), level=_levels, step=st.none() | _steps, iteration=st.none() | st.integers(0, 5)
    ),
    _of(
        LevelPlanned,
        level=_levels,
        levels=_levels,
        points=_counts,
        dims=st.integers(0, 4096),
        clusters=_counts,
        iterations=st.integers(0, 100),
        splits=st.integers(1, 100),
        steps=_steps,
        rows_per_cluster=st.integers(0, 10),
        tolerance=st.sampled_from([0.0, 1e-4, 0.5]),
    ),
    _of(LevelStarted, level=_levels),
    _of(StageStarted, stage=_stages, level=st.none() | _levels, step=st.none() | _steps),
    _of(
        StageFinished, stage=_stages, level=st.none() | _levels, step=st.none() | _steps, seconds=_seconds, rows=_counts
    ),
    _of(PassAdvanced, name=_passes, level=_levels, done=_counts, rows=_counts, bytes=_counts, seconds=_seconds),
    _of(PassFinished, name=_passes, level=_levels, rows=_counts, bytes=_counts, seconds=_seconds, tasks=_steps),
    _of(Seeded, level=_levels, step=_steps, method=st.just("random"), clusters=_counts, seconds=_seconds),
    _of(
        IterationFinished,
        level=_levels,
        step=_steps,
        iteration=st.integers(0, 60),
        inertia=_inertias,
        seconds=_seconds,
        refilled=_steps,
        points=_counts,
        moved=_maybe,
    ),
    _of(
        LevelFinished,
        level=_levels,
        clusters=_counts,
        rows=_counts,
        inertia=_inertias,
        empty=_counts,
        digest=st.just(""),
    ),
    _of(Warned, text=st.sampled_from(["one\nline", "<two>"]), level=st.none() | _levels),
    _of(Interrupted, reason=st.just("KeyboardInterrupt")),
    _of(RunFinished, digest=st.just("d"), seconds=_seconds),
)
