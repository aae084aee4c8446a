"""Handing tasks out: a bounded number under way, again where one failed, the guilty one found where workers died."""

from __future__ import annotations

import pickle
import queue
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from distributed import Future
from distributed.scheduler import KilledWorker

from streamcurate.errors import InputError, RunError, StoreError
from streamcurate.streaming.dask import workers as cluster
from streamcurate.streaming.dask.workers import Workers
from streamcurate.streaming.tasks import ForeignWorkerError, Outcome, Session, perform

# Tasks handed out ahead, for each worker: one at work, one waiting, one on its way.
_AHEAD = 3
# A task that fails is tried again elsewhere: disks and networks have bad moments.
_ATTEMPTS = 3
_FETCH_SECONDS = 10.0


@dataclass
class Job:
    """A task, how messages call it, and what became of it so far.

    ``split``: the same work in smaller jobs. ``alone``: it has no other task beside it on any worker.
    """

    key: str
    task: Callable[[Any], Any]
    name: str
    split: Callable[[], list[Job]] | None = None
    attempts: int = 0
    alone: bool = False


class Farm:
    """Has jobs done by workers for a session."""

    def __init__(self, workers: Workers, session: Session) -> None:
        self._workers, self._session = workers, session
        self._made = 0

    def job(self, task: Callable[[Any], Any], name: str) -> Job:
        """A job under a name no other has."""
        self._made += 1
        return Job(f"streamcurate-{self._session.nonce}-{self._made}", task, name)

    def in_order(self, jobs: Iterator[Job]) -> Iterator[Any]:
        """Results in the jobs' order; one that comes early waits."""
        order: list[str] = []
        waiting: dict[str, Any] = {}

        def noted() -> Iterator[Job]:
            for job in jobs:
                order.append(job.key)
                yield job

        position = 0
        for job, outcome in self.done(noted()):
            waiting[job.key] = outcome.value
            while position < len(order) and order[position] in waiting:
                yield waiting.pop(order[position])
                position += 1

    def done(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Have jobs done, a bounded number under way; each job with its outcome as it comes."""
        pending: dict[Future, Job] = {}
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        again: list[Job] = []
        # Workers died while they had these, and others: which one it was shows when each is done alone.
        suspects: list[Job] = []
        more = True
        try:
            while True:
                window = _AHEAD * self._workers.count() + 1
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
                    future = ended.get(timeout=cluster.POLL_SECONDS)
                except queue.Empty:
                    continue
                job = pending.pop(future)
                try:
                    outcome = self._outcome(future, job, again, suspects)
                except TimeoutError:  # its result was lost with its worker: Dask has it done again
                    pending[future] = job
                    future.add_done_callback(ended.put)
                    continue
                del future
                if outcome is not None:
                    yield job, outcome
        finally:
            if pending and not self._workers.gone:
                with suppress(Exception):
                    self._workers.client.cancel(list(pending), force=True)

    def _submit(self, job: Job) -> Future:
        job.attempts += 1
        payload = pickle.dumps(job.task)
        try:
            return self._workers.client.submit(
                perform, self._session, payload, key=f"{job.key}-{job.attempts}", pure=False, retries=0
            )
        except Exception as error:
            raise self._workers.lost() from error

    def _outcome(self, future: Future, job: Job, again: list[Job], suspects: list[Job]) -> Outcome | None:
        """What a job gave; None where it is to be done again, which ``again`` or ``suspects`` then says.

        Raises
        ------
        TimeoutError
            It is not there yet, after all.
        """
        if future.status == "pending":
            raise TimeoutError
        try:
            if future.status == "finished":
                outcome: Outcome = future.result(timeout=_FETCH_SECONDS)
                return outcome
            # Otherwise cancelled or lost: by a scheduler that is gone, or by another hand.
            error = future.exception(timeout=_FETCH_SECONDS) if future.status == "error" else None
        except TimeoutError:
            raise
        except Exception as failure:  # what came in could not be fetched
            error = failure
        if (
            isinstance(error, ForeignWorkerError)
            and job.attempts < 2 * _ATTEMPTS
            and self._workers.retire_foreign(self._session)
        ):
            again.append(job)
            return None
        # Files that are not as they should be may be so for one host and a moment only.
        if isinstance(error, InputError) and (not isinstance(error, StoreError) or job.attempts >= _ATTEMPTS):
            raise error
        self._workers.count(at_once=True)
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
