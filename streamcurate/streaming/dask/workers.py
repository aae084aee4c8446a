"""The workers of a cluster: how many there are, what they have, what they answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dask
from distributed import Client, Future

from streamcurate.errors import InputError, RunError
from streamcurate.kernels import get_backend
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.tasks import SAME_EVERYWHERE, Session, leave

# A Dask resource of workers with one Dask thread: how many blocks a task computes at a time. With more Dask threads
# than one, tasks that wait for their turn would count as running, and could not go to an idle worker.
THREADS = "THREADS"
POLL_SECONDS = 2.0
_SCHEDULER_SECONDS = 30.0
_WAIT_SECONDS = 0.5
_WORKERS_SECONDS = 600.0
# Dask's own thresholds lie at shares of a worker's memory; where they are on, plans stay below the lowest.
_BELOW_THRESHOLD = 0.95


class Workers:
    """Whoever computes for a client.

    Parameters
    ----------
    client : distributed.Client
    progress : ProgressListener
        Hears of workers that are waited for or sent away.

    Attributes
    ----------
    client : distributed.Client
    gone : bool
        The scheduler did not answer.

    Raises
    ------
    InputError
        No synchronous client.
    """

    def __init__(self, client: Client, progress: ProgressListener) -> None:
        if not isinstance(client, Client) or client.asynchronous:
            kind = "an asynchronous one" if isinstance(client, Client) else f"{type(client).__name__} object"
            raise InputError(f"client: {kind}; give a synchronous dask.distributed.Client")
        self.client = client
        self.gone = False
        self._progress = progress
        self._polled = self._seen = time.monotonic()
        self._count = 0

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return self.client.scheduler.address if self.client.scheduler is not None else "the Dask cluster"

    def count(self, at_once: bool = False) -> int:
        """How many workers there are, asked now and then.

        Raises
        ------
        RunError
            The scheduler is lost, or there has been no worker for a long time.
        """
        now = time.monotonic()
        if not at_once and self._count and now - self._polled < POLL_SECONDS:
            return self._count
        try:
            self._count = len(self.client.nthreads(callback_timeout=_SCHEDULER_SECONDS))
        except Exception as error:
            raise self.lost() from error
        self._polled = time.monotonic()
        if self._count:
            self._seen = self._polled
        elif self._polled - self._seen > _WORKERS_SECONDS:
            raise RunError(
                f"{self.address}: no Dask worker for {_WORKERS_SECONDS / 60:.0f} minutes; "
                "start workers, and give the same command again"
            )
        return self._count

    def reports(self) -> dict[str, dict[str, int]]:
        """What each worker has, once there are any: ``threads``, and bytes a plan may use as ``limit`` (0: any)."""
        self._wait()
        while not (found := self.ask(_report)):  # gone again
            time.sleep(_WAIT_SECONDS)
            self._wait()
        return found

    def device_bytes(self) -> int:
        """Memory of the smallest GPU."""
        return min(int(memory) for memory in self.ask(_device_bytes).values())

    def differences(self, session: Session) -> dict[str, list[str]]:
        """What keeps each worker from working for a session; nothing, mostly."""
        return self.ask(_greet, session)

    def leave(self, session: Session) -> None:
        """Have all workers forget a session, whether or not anybody still listens."""
        if not self.gone:
            with suppress(Exception):
                self.client.run(_leave, session.nonce, on_error="ignore")

    def _wait(self) -> None:
        call: Future | None = None
        while not self.count(at_once=True):
            if call is None:
                self._progress.note(f"{self.address}: waiting for Dask workers")
                # An adaptive cluster starts workers only for work that waits.
                call = self.client.submit(int, key=f"streamcurate-call-{os.urandom(8).hex()}")
            time.sleep(_WAIT_SECONDS)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """A function's answer from every worker; workers that leave meanwhile have none."""
        try:
            answers: dict[str, Any] = self.client.run(function, *arguments, on_error="return")
        except Exception as error:
            raise self.lost() from error
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

    def lost(self) -> RunError:
        """The error to raise, now that the scheduler does not answer."""
        self.gone = True
        return RunError(
            f"{self.address}: the Dask scheduler does not answer any more; start it again, and give the same command "
            "again: what is done is kept"
        )

    def retire_foreign(self, session: Session) -> bool:
        """Send workers away that joined late and cannot work for this run; False where no others are left."""
        problems = self.differences(session)
        foreign = [address for address, found in problems.items() if found]
        if len(foreign) == len(problems):
            return False
        for address in foreign:
            self._progress.note(
                f"Dask worker {address} is sent away: {'; '.join(problems[address])}; {SAME_EVERYWHERE}"
            )
        if foreign:
            try:
                self.client.retire_workers(foreign, close_workers=True)
            except Exception as failure:
                raise self.lost() from failure
        return True


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
