"""Where small experiments are made: an executor whose passes end when time is up, and surroundings thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamcurate.clustering.hierarchy import measure
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.kernels import Metric
from streamcurate.runs.events import Event
from streamcurate.streaming import Executor, MemoryRows, Points


class Working:
    """How long this process has worked: by the clock, or by its processors' time where others kept it waiting.

    A section in several threads takes more of the latter than of the former, unless the machine is busy.
    """

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return min(time.monotonic() - self._wall, time.process_time() - self._cpu)

    @property
    def share(self) -> float:
        """Of the time by the clock."""
        return min(self.seconds / max(time.monotonic() - self._wall, 1e-9), 1.0)


class TimeUpError(Exception):
    """What was measured took longer than it may."""


@dataclass
class Stopwatch:
    """A listener that ends a pass when its time is up, where somebody is prepared for that."""

    deadline: float
    ticking: bool = False

    def started(self, name: str, rows: int) -> None: ...

    def advanced(self, rows: int, bytes: int) -> None:
        """So many more rows are done."""
        if self.ticking and time.monotonic() > self.deadline:
            raise TimeUpError

    def finished(self) -> None: ...
    def note(self, text: str) -> None: ...

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Passes made meanwhile raise :class:`TimeUpError` once the deadline is over."""
        before = self.deadline, self.ticking
        self.deadline, self.ticking = min(deadline, self.deadline), True
        try:
            yield
        finally:
            self.deadline, self.ticking = before

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self.deadline - time.monotonic(), 0.0)


@dataclass(frozen=True)
class Bench:
    """Where likenesses are made.

    Attributes
    ----------
    executor : Executor
        Its progress listener is ``watch``.
    watch : Stopwatch
    folder : Path
        For scratch.
    metric : "l2" or "cosine"
    seed : int
    """

    executor: Executor
    watch: Stopwatch
    folder: Path
    metric: Metric
    seed: int

    def around(self, emit: Callable[[Event], None]) -> Surroundings:
        """Surroundings of a fit that is thrown away."""
        return Surroundings(self.executor, self.metric, self.seed, self.folder, None, emit, 1)


def measured_rows(rows: NDArray[Any], bench: Bench, around: Surroundings) -> Measured:
    """Rows in memory as the points of a fit."""
    points = Points.all_of(MemoryRows(rows, "a sample of the rows"))
    statistics, _ = measure(points, around)
    return Measured.of(points, statistics, bench.metric)
