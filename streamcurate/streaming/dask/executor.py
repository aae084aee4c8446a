"""The Dask executor: passes over any number of processes and hosts.

Dask carries descriptions of tasks and small results; whatever is large goes through files of the run's scratch folder.
So a worker that is lost takes nothing with it that cannot be done again, and none has to hold results for others. The
scheduler's memory is lost with it: the run directory is the truth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from distributed import Client

from streamcurate.errors import RunError
from streamcurate.storage import StoredArray
from streamcurate.streaming.budget import MemoryBudget, format_bytes
from streamcurate.streaming.dask.farm import Farm, Job
from streamcurate.streaming.dask.workers import Workers
from streamcurate.streaming.exchange import Exchange, StoredSums
from streamcurate.streaming.passes import (
    Answer,
    Block,
    Item,
    Output,
    Partial,
    Pass,
    PassReport,
    Points,
    Ready,
    Result,
    SlicedPass,
    State,
)
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.ranges import Ranges
from streamcurate.streaming.serial import SerialExecutor, no_report, plan_pass, source_row_bytes
from streamcurate.streaming.source import RowSource
from streamcurate.streaming.tasks import SAME_EVERYWHERE, MapTask, PassTask, Session, SliceTask

# A pass of fewer operations is over in this process before the first task would be on its way (about a tenth of a
# second); what a row costs beside its arithmetic counts as so many operations.
LOCAL_OPERATIONS = 4e9
_ROW_OPERATIONS = 64
# Partial results above this go through files, cut into slices of about this size.
_SLICE_BYTES = 16 << 20
_HELD_SHARE = 1 / 8
# Of a GPU's memory for centroids; the rest is for rows and the work on them, whose tiles fit what is free.
_DEVICE_SHARE = 0.5


class DaskExecutor:
    """Runs passes on the workers of a Dask cluster; what is too small to be worth a task runs in this process.

    Parameters
    ----------
    client : distributed.Client
    budget : MemoryBudget
        Of this process. Workers are held to the same limit, or to their own where that is lower.
    progress : ProgressListener
    scratch : Path
        A folder every worker sees under the same path.
    folders : list of Path
        Further folders that every worker must see.
    store : RowSource
        The rows; every worker must see the same.
    device : "cpu" or "gpu"
    threads : int, optional
        Blocks a worker computes at a time; by default as many as it has Dask threads.

    Raises
    ------
    RunError
        There are no workers, or some of them differ from this process; it says which, and how.
    """

    def __init__(
        self,
        client: Client,
        budget: MemoryBudget,
        progress: ProgressListener,
        scratch: Path,
        folders: list[Path],
        store: RowSource,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self._workers = Workers(client, progress)
        self.on_pass: Callable[[PassReport], None] = no_report
        self._closed = False
        self._passes = 0
        reports = self._workers.reports()
        limits = [report["limit"] for report in reports.values() if report["limit"]]
        limit = min([budget.limit, *limits])
        each = threads or max(report["threads"] for report in reports.values())
        self.budget = MemoryBudget.of(limit, 1 if device == "gpu" else each, budget.prefetch > 0)
        if device == "gpu":
            self.budget = replace(self.budget, device=int(self._workers.device_bytes() * _DEVICE_SHARE))
        if limit < budget.limit:
            progress.note(f"Dask workers have {format_bytes(limit)} of memory each for this; plans keep to that")
        self.local = SerialExecutor(budget, progress)
        self._exchange = Exchange(scratch / "exchange")
        self._session = Session.begin(
            [*folders, scratch], store, limit, self.budget.threads, budget.prefetch > 0, device
        )
        self._farm = Farm(self._workers, self._session)
        problems = self._workers.differences(self._session)
        differing = [f"{address}: {'; '.join(found)}" for address, found in problems.items() if found]
        if differing:
            self.close()
            raise RunError(
                f"{len(differing)} of {len(problems)} Dask workers cannot work for this run: "
                f"{' | '.join(differing[:3])}; {SAME_EVERYWHERE}"
            )
        link = client.dashboard_link
        progress.note(f"{len(problems)} Dask workers at {self._workers.address}" + (f", {link}" if link else ""))

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the workers; the client stays the caller's."""
        if self._closed:
            return
        self._closed = True
        self._session.end()
        self._workers.leave(self._session)
        self._exchange.close()
        self.local.close()

    # -- the executor ------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> ProgressListener:
        """Hears how passes go, in this process and on the workers."""
        return self.local.progress

    @progress.setter
    def progress(self, listener: ProgressListener) -> None:
        self.local.progress = listener

    def run(
        self,
        work: Pass[Ready, Partial, Result],
        points: Points,
        state: State,
        *,
        columns: Sequence[StoredArray] = (),
        outputs: Sequence[Output] = (),
        align: int = 1,
    ) -> Result:
        """One pass over ``points``; see :class:`~streamcurate.streaming.passes.Executor`."""
        if self._stays(work, points):
            self.local.on_pass = self.on_pass
            return self.local.run(work, points, state, columns=columns, outputs=outputs, align=align)
        total: Partial | None = None
        for part in self._parts(work, points, state, columns, outputs, align):
            if part is not None:
                total = part if total is None else work.combine(total, part)
        return work.finalize(total)

    def slices(
        self,
        work: SlicedPass[Ready, Partial, Result],
        points: Points,
        state: State,
        *,
        columns: Sequence[StoredArray] = (),
        outputs: Sequence[Output] = (),
    ) -> Iterator[tuple[int, int, Result]]:
        """One pass, its sums added up by the workers and taken here a slice at a time."""
        large = work.sums_bytes(points.source.dims)
        if self._stays(work, points) or large <= _SLICE_BYTES:
            yield 0, work.clusters, self.run(work, points, state, columns=columns, outputs=outputs)
            return
        slice_rows = max(work.clusters * _SLICE_BYTES // large, 1)
        rest: Partial | None = None
        stored: list[StoredSums] = []
        try:
            for part, sums in self._parts(work, points, state, columns, outputs, 1, large, slice_rows):
                rest = part if rest is None else work.combine(rest, part)
                stored.append(sums)
            assert rest is not None
            count = -(-work.clusters // slice_rows)
            # So many at a time, for one that is late has the others wait here.
            held = max(int(self.local.budget.usable * _HELD_SHARE) // _SLICE_BYTES, 1)
            for base in range(0, count, held):
                numbers = range(base, min(base + held, count))
                jobs = (
                    self._farm.job(SliceTask(tuple(stored), number), f"{work.name}: adding up slice {number}")
                    for number in numbers
                )
                for number, arrays in zip(numbers, self._farm.in_order(jobs), strict=True):
                    first = number * slice_rows
                    last = min(first + slice_rows, work.clusters)
                    yield first, last, work.finalize(work.attach(rest, arrays, first, last))
        finally:
            self._exchange.drop_sums(stored)

    def stream(
        self,
        points: Points,
        *,
        columns: Sequence[StoredArray] = (),
        row_bytes: int = 0,
        name: str = "reading",
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[tuple[Block, tuple[Any, ...]]]:
        """The blocks in order, read in this process."""
        return self.local.stream(points, columns=columns, row_bytes=row_bytes, name=name, start=start, stop=stop)

    def map(
        self, function: Callable[[Item, State, SerialExecutor], Answer], items: Iterable[Item], state: State, name: str
    ) -> Iterator[Answer]:
        """``function(item, state, executor)`` on the workers, results in the items' order."""
        listed = list(items)
        if len(listed) <= 1:
            yield from self.local.map(function, listed, state, name)
            return
        reference = self._exchange.put(state)
        try:
            jobs = (self._farm.job(MapTask(function, item, reference), f"{name}: {item}") for item in listed)
            yield from self._farm.in_order(jobs)
        finally:
            self._exchange.drop(reference)

    # -- passes as jobs ----------------------------------------------------------------------------------------------

    def _stays(self, work: Pass[Any, Any, Any], points: Points) -> bool:
        """Whether a pass runs in this process: it is small, or its rows are nowhere else."""
        source = points.source
        operations = max(work.cost(source.dims, source.dtype).row_operations, _ROW_OPERATIONS)
        return not source.travels or source.rows * operations <= LOCAL_OPERATIONS

    def _parts(
        self,
        work: Pass[Any, Partial, Any],
        points: Points,
        state: State,
        columns: Sequence[StoredArray],
        outputs: Sequence[Output],
        align: int,
        sums_bytes: int = 0,
        slice_rows: int = 0,
    ) -> Iterator[Any]:
        """The partial results of all ranges, in whatever order they come."""
        source = points.source
        row_bytes = source_row_bytes(points, work.reads_values)
        # Refuses, before anything begins, what does not fit a worker.
        block_rows = plan_pass(self.budget, work, points, columns, align).block_rows
        granule = math.lcm(align, *(output.array.chunk_rows for output in outputs)) if outputs or align > 1 else 0
        cost = work.cost(source.dims, source.dtype)
        operations = max(cost.row_operations, _ROW_OPERATIONS)
        ranges = Ranges(source.rows, granule or block_rows, row_bytes, operations, sums_bytes)
        reference = self._exchange.put(state)
        self._passes += 1
        token = f"{self._session.nonce}-{self._passes}"
        place = str(self._exchange.sums / str(self._passes)) if sums_bytes else None
        whole = PassTask(
            token, work, points, reference, (0, 0), tuple(columns), tuple(outputs), align, place, slice_rows
        )

        def job(start: int, stop: int) -> Job:
            def split() -> list[Job]:
                step = ranges.granule
                return [job(first, min(first + step, stop)) for first in range(start, stop, step)]

            name = f"{source.name}, rows {start} to {stop - 1}: {work.name}"
            made = self._farm.job(replace(whole, bounds=(start, stop)), name)
            return replace(made, split=split if stop - start > ranges.granule else None)

        def jobs() -> Iterator[Job]:
            while (bounds := ranges.next(self._workers.count())) is not None:
                yield job(*bounds)

        began, busy, tasks = time.monotonic(), 0.0, 0
        self.progress.started(work.name, source.rows)
        try:
            for done, outcome in self._farm.done(jobs()):
                bounds = done.task.bounds  # type: ignore[attr-defined]  # the jobs of a pass
                rows = bounds[1] - bounds[0]
                ranges.took(rows, outcome.seconds)
                busy, tasks = busy + outcome.seconds, tasks + 1
                yield outcome.value
                self.progress.advanced(rows, rows * row_bytes)
        finally:
            self.progress.finished()
            self._exchange.drop(reference)
        seconds = time.monotonic() - began
        self.on_pass(PassReport(work.name, source.rows, source.rows * row_bytes, seconds, tasks, busy))
