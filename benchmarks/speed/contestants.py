"""What takes part in the comparison, and streamcurate's own way through it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.labelling import label_points
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.passes import LabelPass, StatisticsPass
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.runs.events import Event, IterationFinished
from streamcurate.storage import create_array, create_group, open_array
from streamcurate.streaming import MemoryBudget, MemoryRows, Output, Points, RowSource, SerialExecutor, StoredRows


@dataclass(frozen=True)
class Problem:
    """What everyone is given.

    Attributes
    ----------
    rows : ndarray of float16 or float32, shape (n, d)
    start : ndarray of float32, shape (k, d)
        Centroids to begin with: distinct rows.
    iterations : int
    threads : int
    """

    rows: NDArray[Any]
    start: NDArray[np.float32]
    iterations: int
    threads: int

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """The same rows as float32, which is all that the peers take."""
        return np.ascontiguousarray(self.rows, dtype=np.float32)

    @property
    def clusters(self) -> int:
        """How many."""
        return len(self.start)

    @property
    def dims(self) -> int:
        """Of a row."""
        return int(self.rows.shape[1])


@dataclass(frozen=True)
class Solution:
    """What one of them made of it.

    Attributes
    ----------
    centroids : ndarray of float32, shape (k, d)
    labels : ndarray of int, shape (n,)
        As it gives them for these centroids.
    fit_seconds : float
        From rows and first centroids to the last, all that it prepares included.
    label_seconds : float
        What the labels took beyond that; 0 where the fit gives them.
    iteration_seconds : list of float
        Of each pass, where it tells; empty where it makes none.
    processor_seconds : float
        Processor time of fit and labels, all threads together.
    """

    centroids: NDArray[np.float32]
    labels: NDArray[Any]
    fit_seconds: float
    label_seconds: float
    iteration_seconds: list[float] = field(default_factory=list)
    processor_seconds: float = 0.0


class Contestant(Protocol):
    """One way to solve a problem.

    Attributes
    ----------
    name : str
    package : str
        The distribution it needs.
    same_start : bool
        Whether it begins with the centroids it is given.
    lloyd : bool
        Whether its iterations are whole passes of Lloyd's algorithm.
    main : bool
        Whether goals refer to it: it takes part in all rounds of all cases; others once, where everyone does.
    note : str
        What a reader of the table must know.
    """

    name: str
    package: str
    same_start: bool
    lloyd: bool
    main: bool
    note: str

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""


class Ours:
    """The engine itself: statistics, Lloyd passes and labels through the serial executor, rows in memory."""

    name = "streamcurate"
    package = "streamcurate"
    same_start = True
    lloyd = True
    main = True
    note = "its fit includes the statistics pass"

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        return fit_source(MemoryRows(problem.rows), problem)


def fit_source(
    source: RowSource, problem: Problem, between: Callable[[], None] = lambda: None, labels: bool = True
) -> Solution:
    """The engine over any source of rows.

    Parameters
    ----------
    source : RowSource
    problem : Problem
        Its rows are not looked at.
    between : callable
        Called before every pass, outside the measured iterations.
    labels : bool
        Whether to label the rows at the end.
    """
    seconds: list[float] = []

    def hear(event: Event) -> None:
        if isinstance(event, IterationFinished):
            seconds.append(event.seconds)
            between()

    with (
        tempfile.TemporaryDirectory(prefix="streamcurate-peers-") as scratch,
        SerialExecutor(MemoryBudget.of(None, problem.threads)) as executor,
    ):
        around = Surroundings(executor, "l2", 0, Path(scratch), None, hear, 1)
        points = Points.all_of(source)
        between()
        clock = Clock()
        statistics, _ = executor.run(StatisticsPass("l2"), points, {})
        measured = Measured.of(points, statistics, "l2")
        between()
        # Tolerance 0: as many passes as are asked for, unless no label changes any more.
        found = lloyd(measured, in_memory(problem.start), problem.iterations, 0.0, around)
        fitted = clock.lap()
        outputs: tuple[Output, ...] = ()
        if labels:
            work = LabelPass("l2", measured.inertia, problem.clusters, writes=("labels",))
            array = create_array(
                Path(scratch) / "all-labels", (source.rows,), np.int32, max(source.rows, 1), durable=False
            )
            outputs = (Output(array, -1),)
            label_points(measured, found.centroids, work, around, outputs, found.kept)
        labelled = clock.lap()
        return Solution(
            found.centroids.read(0, problem.clusters),
            outputs[0].array.read(0, source.rows) if labels else np.empty(0, dtype=np.int32),
            fitted[0],
            labelled[0],
            seconds,
            fitted[1] + labelled[1],
        )


class Clock:
    """Wall time and processor time since the last look."""

    def __init__(self) -> None:
        self._last = (time.perf_counter(), time.process_time())

    def lap(self) -> tuple[float, float]:
        """Seconds of both."""
        before, self._last = self._last, (time.perf_counter(), time.process_time())
        return self._last[0] - before[0], self._last[1] - before[1]


def write_rows(path: Path, rows: NDArray[Any], chunk_bytes: int = 32 << 20) -> None:
    """A store of these rows, as `ingest` would leave it."""
    create_group(path)
    chunk = max(chunk_bytes // (rows.itemsize * rows.shape[1]), 1)
    array = create_array(path / "embeddings", rows.shape, rows.dtype, chunk)
    for start in range(0, len(rows), chunk):
        array.write(start, rows[start : start + chunk])


def stored_rows(path: Path) -> RowSource:
    """The rows of such a store."""
    return StoredRows(open_array(path / "embeddings"))
