"""The Dask executor: passes over any number of processes and hosts.

Dask carries descriptions of tasks and small results; whatever is large goes through files of the run's scratch folder.
So a worker that is lost takes nothing with it that cannot be done again, and none has to hold results for others. The
scheduler's memory is lost with it: the run directory is the truth.
"""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import dask
from distributed import Client, Future
from distributed.scheduler import KilledWorker

from streamcurate.errors import InputError, RunError, StoreError
from streamcurate.kernels import get_backend
from streamcurate.storage import StoredArray
from streamcurate.streaming.budget import MemoryBudget, format_bytes
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
from streamcurate.streaming.tasks import (
    SAME_EVERYWHERE,
    ForeignWorkerError,
    MapTask,
    Outcome,
    PassTask,
    Session,
    SliceTask,
    leave,
    perform,
)

# A pass of fewer operations is over in this process before the first task would be on its way (about a tenth of a
# second); what a row costs beside its arithmetic counts as so many operations.
LOCAL_OPERATIONS = 4e9
_ROW_OPERATIONS = 64
# Tasks handed out ahead, for each worker: one at work, one waiting, one on its way.
_AHEAD = 3
# Partial results above this go through files, cut into slices of about this size.
_SLICE_BYTES = 16 << 20
# A task that fails is tried again elsewhere: disks and networks have bad moments.
_ATTEMPTS = 3
# A Dask resource of workers with one Dask thread: how many blocks a task computes at a time. With more Dask threads
# than one, tasks that wait for their turn would count as running, and could not go to an idle worker.
THREADS = "THREADS"
_POLL_SECONDS = 2.0
_WAIT_SECONDS = 0.5
_SCHEDULER_SECONDS = 30.0
_WORKERS_SECONDS = 600.0
# Dask's own thresholds lie at shares of a worker's memory; where they are on, plans stay below the lowest.
_BELOW_THRESHOLD = 0.95
# Of a GPU's memory for centroids; the rest is for rows and the work on them, whose tiles fit what is free.
_DEVICE_SHARE = 0.5


@dataclass
class _Job:
    """A task, how messages call it, and what became of it so far.

    ``split``: the same work in smaller jobs. ``alone``: it has no other task beside it on any worker.
    """

    key: str
    task: Callable[[Any], Any]
    name: str
    split: Callable[[], list[_Job]] | None = None
    attempts: int = 0
    alone: bool = False


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
        if not isinstance(client, Client) or client.asynchronous:
            kind = "an asynchronous one" if isinstance(client, Client) else f"{type(client).__name__} object"
            raise InputError(f"client: {kind}; give a synchronous dask.distributed.Client")
        self.progress = progress
        self.on_pass: Callable[[PassReport], None] = no_report
        self._client = client
        self._closed = self._gone = False
        self._passes = 0
        self._polled = self._seen = time.monotonic()
        self._count = 0
        self._wait_for_workers()
        while not (reports := self._ask(_report)):  # gone again
            time.sleep(_WAIT_SECONDS)
            self._wait_for_workers()
        limits = [report["limit"] for report in reports.values() if report["limit"]]
        limit = min([budget.limit, *limits])
        each = threads or max(report["threads"] for report in reports.values())
        self.budget = MemoryBudget.of(limit, 1 if device == "gpu" else each, budget.prefetch > 0)
        if device == "gpu":
            memory = min(self._ask(_device_bytes).values())
            self.budget = replace(self.budget, device=int(memory * _DEVICE_SHARE))
        if limit < budget.limit:
            progress.note(f"Dask workers have {format_bytes(limit)} of memory each for this; plans keep to that")
        self.local = SerialExecutor(budget, progress)
        self._exchange = Exchange(scratch / "exchange")
        self._session = Session.begin(
            [*folders, scratch], store, limit, self.budget.threads, budget.prefetch > 0, device
        )
        problems = self._ask(_greet, self._session)
        differing = [f"{address}: {'; '.join(found)}" for address, found in problems.items() if found]
        if differing:
            self.close()
            raise RunError(
                f"{len(differing)} of {len(problems)} Dask workers cannot work for this run: "
                f"{' | '.join(differing[:3])}; {SAME_EVERYWHERE}"
            )
        link = client.dashboard_link
        progress.note(f"{len(problems)} Dask workers at {client.scheduler.address}" + (f", {link}" if link else ""))

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
        if not self._gone:
            with suppress(Exception):  # whether or not anybody still listens
                self._client.run(_leave, self._session.nonce, on_error="ignore")
        self._exchange.close()
        self.local.close()

    # -- the executor ------------------------------------------------------------------------------------------------

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
    ) -> Iterator[tuple[int, int, Result]]:
        """One pass, its sums added up by the workers and taken here a slice at a time."""
        large = work.sums_bytes(points.source.dims)
        if self._stays(work, points) or large <= _SLICE_BYTES:
            yield 0, work.clusters, self.run(work, points, state, columns=columns)
            return
        slice_rows = max(work.clusters * _SLICE_BYTES // large, 1)
        rest: Partial | None = None
        stored: list[StoredSums] = []
        try:
            for part, sums in self._parts(work, points, state, columns, (), 1, large, slice_rows):
                rest = part if rest is None else work.combine(rest, part)
                stored.append(sums)
            assert rest is not None
            numbers = range(-(-work.clusters // slice_rows))
            tasks = (SliceTask(tuple(stored), number) for number in numbers)
            jobs = (self._job(task, f"{work.name}: adding up slice {task.number}") for task in tasks)
            for number, arrays in zip(numbers, self._in_order(jobs), strict=True):
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
            jobs = (self._job(MapTask(function, item, reference), f"{name}: {item}") for item in listed)
            yield from self._in_order(jobs)
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

        def job(start: int, stop: int) -> _Job:
            def split() -> list[_Job]:
                step = ranges.granule
                return [job(first, min(first + step, stop)) for first in range(start, stop, step)]

            name = f"{source.name}, rows {start} to {stop - 1}: {work.name}"
            made = self._job(replace(whole, bounds=(start, stop)), name)
            return replace(made, split=split if stop - start > ranges.granule else None)

        def jobs() -> Iterator[_Job]:
            while (bounds := ranges.next(self._count)) is not None:
                yield job(*bounds)

        began, busy, tasks = time.monotonic(), 0.0, 0
        self.progress.started(work.name, source.rows)
        try:
            for done, outcome in self._farm(jobs()):
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

    def _job(self, task: Callable[[Any], Any], name: str) -> _Job:
        self._passes += 1
        return _Job(f"streamcurate-{self._session.nonce}-{self._passes}", task, name)

    def _in_order(self, jobs: Iterator[_Job]) -> Iterator[Any]:
        """Results in the jobs' order; one that comes early waits."""
        order: list[str] = []
        waiting: dict[str, Any] = {}

        def noted() -> Iterator[_Job]:
            for job in jobs:
                order.append(job.key)
                yield job

        position = 0
        for job, outcome in self._farm(noted()):
            waiting[job.key] = outcome.value
            while position < len(order) and order[position] in waiting:
                yield waiting.pop(order[position])
                position += 1

    # -- handing out -------------------------------------------------------------------------------------------------

    def _farm(self, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Outcome]]:
        """Have jobs done, a bounded number under way; each job with its outcome as it comes."""
        pending: dict[Future, _Job] = {}
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        again: list[_Job] = []
        # Workers died while they had these, and others: which one it was shows when each is done alone.
        suspects: list[_Job] = []
        more = True
        try:
            while True:
                window = _AHEAD * self._workers() + 1
                if any(job.alone for job in pending.values()):
                    window = 0
                elif suspects:
                    window = 0
                    if not pending:
                        again.append(replace(suspects.pop(), alone=True))
                        window = 1
                while len(pending) < window and (again or more):
                    job = again.pop() if again else next(jobs, None)
                    if job is None:
                        more = False
                        break
                    future = self._submit(job)
                    pending[future] = job
                    future.add_done_callback(ended.put)
                if not pending and not more and not again and not suspects:
                    return
                try:
                    future = ended.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                job = pending.pop(future)
                outcome = self._outcome(future, job, again, suspects)
                del future
                if outcome is not None:
                    yield job, outcome
        finally:
            if pending and not self._gone:
                with suppress(Exception):
                    self._client.cancel(list(pending), force=True)

    def _submit(self, job: _Job) -> Future:
        job.attempts += 1
        payload = pickle.dumps(job.task)
        try:
            return self._client.submit(
                perform, self._session, payload, key=f"{job.key}-{job.attempts}", pure=False, retries=0
            )
        except Exception as error:
            raise self._lost() from error

    def _outcome(self, future: Future, job: _Job, again: list[_Job], suspects: list[_Job]) -> Outcome | None:
        """What a job gave; None where it is to be done again, which ``again`` or ``suspects`` then says."""
        try:
            if future.status == "finished":
                outcome: Outcome = future.result(timeout=_SCHEDULER_SECONDS)
                return outcome
            # Otherwise cancelled or lost: by a scheduler that is gone, or by another hand.
            error = future.exception(timeout=_SCHEDULER_SECONDS) if future.status == "error" else None
        except Exception as failure:  # what came in could not be fetched
            error = failure
        if isinstance(error, ForeignWorkerError) and job.attempts < 2 * _ATTEMPTS and self._retire_foreign():
            again.append(job)
            return None
        # Files that are not as they should be may be so for one host and a moment only.
        if isinstance(error, InputError) and (not isinstance(error, StoreError) or job.attempts >= _ATTEMPTS):
            raise error
        self._workers(at_once=True)
        if isinstance(error, KilledWorker):
            # The scheduler blames every task a dead worker had, at work or waiting.
            if not job.alone:
                suspects.extend([job] if job.split is None else job.split())
                return None
            raise RunError(
                f"{job.name}: {error.allowed_failures + 1} Dask workers died while they did this; look into the "
                "workers' logs (killed for memory? a defective chunk?), mend it, and give the same command again"
            ) from error
        if job.attempts >= _ATTEMPTS:
            reason = "cancelled" if error is None else f"{type(error).__name__}: {error}"
            raise RunError(
                f"{job.name}: failed {job.attempts} times on Dask workers ({reason}); "
                "mend the cause, and give the same command again"
            ) from error
        (suspects if job.alone else again).append(job)
        return None

    def _retire_foreign(self) -> bool:
        """Send workers away that joined late and cannot work for this run; False where no others are left."""
        problems = self._ask(_greet, self._session)
        foreign = [address for address, found in problems.items() if found]
        if len(foreign) == len(problems):
            return False
        for address in foreign:
            self.progress.note(f"Dask worker {address} is sent away: {'; '.join(problems[address])}; {SAME_EVERYWHERE}")
        if foreign:
            try:
                self._client.retire_workers(foreign, close_workers=True)
            except Exception as failure:
                raise self._lost() from failure
        return True

    # -- the cluster -------------------------------------------------------------------------------------------------

    def _workers(self, at_once: bool = False) -> int:
        """How many workers there are, asked now and then.

        Raises
        ------
        RunError
            The scheduler is lost, or there has been no worker for a long time.
        """
        now = time.monotonic()
        if not at_once and self._count and now - self._polled < _POLL_SECONDS:
            return self._count
        try:
            self._count = len(self._client.nthreads(callback_timeout=_SCHEDULER_SECONDS))
        except Exception as error:
            raise self._lost() from error
        self._polled = time.monotonic()
        if self._count:
            self._seen = self._polled
        elif self._polled - self._seen > _WORKERS_SECONDS:
            raise RunError(
                f"{self._client.scheduler.address}: no Dask worker for {_WORKERS_SECONDS / 60:.0f} minutes; "
                "start workers, and give the same command again"
            )
        return self._count

    def _wait_for_workers(self) -> None:
        call: Future | None = None
        while not self._workers(at_once=True):
            if call is None:
                self.progress.note(f"{self._client.scheduler.address}: waiting for Dask workers")
                # An adaptive cluster starts workers only for work that waits.
                call = self._client.submit(int, key=f"streamcurate-call-{os.urandom(8).hex()}")
            time.sleep(_WAIT_SECONDS)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """A function's answer from every worker; workers that leave meanwhile have none."""
        try:
            answers: dict[str, Any] = self._client.run(function, *arguments, on_error="return")
        except Exception as error:
            raise self._lost() from error
        for address, answer in answers.items():
            if not isinstance(answer, BaseException) or isinstance(answer, OSError):  # the latter: it is gone
                continue
            # What fails before the function is reached comes as the text of the error alone.
            if any(kind in repr(answer) for kind in ("ModuleNotFoundError", "ImportError", "AttributeError")):
                raise RunError(
                    f"Dask worker {address}: has no streamcurate of this version ({answer}); install it there"
                ) from answer
            raise RunError(f"Dask worker {address}: {answer}") from answer
        return {address: answer for address, answer in answers.items() if not isinstance(answer, BaseException)}

    def _lost(self) -> RunError:
        self._gone = True
        address = self._client.scheduler.address if self._client.scheduler is not None else "the Dask cluster"
        return RunError(
            f"{address}: the Dask scheduler does not answer any more; start it again, and give the same command again: "
            "what is done is kept"
        )


def _report(dask_worker: Any) -> dict[str, int]:
    """What a worker has: its Dask threads, and the bytes a plan may use (0: no limit of its own)."""
    memory = dask_worker.memory_manager
    # The last is its nanny's, whose settings are the worker's.
    thresholds = [memory.memory_spill_fraction, memory.memory_pause_fraction, memory.memory_target_fraction]
    thresholds.append(dask.config.get("distributed.worker.memory.terminate"))
    share = min([1.0, *(_BELOW_THRESHOLD * float(threshold) for threshold in thresholds if threshold)])
    state = dask_worker.state
    return {
        "threads": int(state.total_resources.get(THREADS, state.nthreads)),
        "limit": int((memory.memory_limit or 0) * share),
    }


def _device_bytes() -> int:
    """Memory of the worker's GPU."""
    return get_backend("gpu").device_bytes or 0


async def _leave(nonce: str) -> None:
    """Forget a session, without holding up what else the worker has to answer."""
    await asyncio.to_thread(leave, nonce)


def _greet(session: Session) -> list[str]:
    """What keeps a worker from working for the session."""
    return session.differences()
