"""What every step of a fit is given: who runs passes, where results are kept, which draw is which."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.streams import Purpose, stream
from streamcurate.kernels import ExactTotal, FixedPoint, Metric, Statistics
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.events import Event, StageFinished, StageStarted
from streamcurate.streaming import Executor, Points


def ignore(event: Event) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Surroundings:
    """Where and how a fit runs; none of it but ``metric`` and ``seed`` can change a result.

    Attributes
    ----------
    executor : Executor
    metric : "l2" or "cosine"
    seed : int
    scratch : Path
        Folder for arrays that are rebuilt when lost.
    checkpoints : Checkpoints or None
        None for fits too small to be worth resuming.
    emit : callable
        Receives events.
    level, step : int
        Which fit this is, for names and random streams.
    part : tuple of int
        Further numbers of the random streams: the coarse cluster a split fit is about.
    """

    executor: Executor
    metric: Metric
    seed: int
    scratch: Path
    checkpoints: Checkpoints | None
    emit: Callable[[Event], None]
    level: int
    step: int = 0
    part: tuple[int, ...] = ()

    def at(self, step: int) -> Surroundings:
        """The same, for another resampling step."""
        return replace(self, step=step)

    def packed(self) -> Surroundings:
        """Without what stays in this process, so that it can travel; :meth:`on` gives it an executor again."""
        return replace(self, executor=None, emit=ignore)  # type: ignore[arg-type]

    def on(self, executor: Executor) -> Surroundings:
        """The same with another executor."""
        return replace(self, executor=executor)

    @contextmanager
    def stage(self, name: str, rows: int, step: int | None = None) -> Iterator[None]:
        """Tell that a stage over so many rows begins, and that it ends unless by an error; one may hold others."""
        began = time.monotonic()
        self.emit(StageStarted(stage=name, level=self.level, step=step))
        yield
        seconds = time.monotonic() - began
        self.emit(StageFinished(stage=name, level=self.level, step=step, seconds=seconds, rows=rows))

    @property
    def name(self) -> str:
        """Name of this fit's checkpoints and scratch."""
        return "/".join((f"level-{self.level}", f"step-{self.step}", *(f"part-{number}" for number in self.part)))

    def stream(self, purpose: Purpose, *further: int) -> tuple[int, ...]:
        """Key of a random stream of this fit."""
        return stream(self.level, self.step, purpose, *self.part, *further)

    def random_bits(self, purpose: Purpose, counters: NDArray[np.int64], *further: int) -> NDArray[np.uint64]:
        """64 random bits for each counter."""
        return kernels.random_bits(self.seed, self.stream(purpose, *further), counters)


@dataclass(frozen=True)
class Measured:
    """Points and the arithmetic their statistics call for.

    Attributes
    ----------
    points : Points
    statistics : Statistics
        Of these points or of a set that contains them.
    fixed_point : FixedPoint
        For exact sums of them.
    inertia : ExactTotal
        An empty total of their squared distances.
    """

    points: Points
    statistics: Statistics
    fixed_point: FixedPoint
    inertia: ExactTotal

    @classmethod
    def of(cls, points: Points, statistics: Statistics, metric: Metric) -> Measured:
        """Derive the arithmetic from statistics."""
        return cls(
            points,
            statistics,
            statistics.fixed_point(metric),
            ExactTotal.scale(statistics.squared_distance_bound(metric), statistics.rows),
        )

    def part(self, points: Points) -> Measured:
        """The same arithmetic for some of the points."""
        return replace(self, points=points)
