"""One small cluster for all tests of this room, and data so cut that even small passes spread over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import dask
import pytest
from spreading import LIMIT, Handed, spread_out

from streamcurate.streaming.dask import connect
from streamcurate.streaming.dask.farm import Farm


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Two workers of one thread each; tests may kill them, add some or take them away: see ``workers``.

    Forked from a process that has imported ``distributed``, since dozens are started: those of the command are not.
    """
    forked = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    with forked, connect(workers=2, memory_limit=LIMIT, threads=1) as connected:
        yield connected


@pytest.fixture
def workers(client: Any) -> Iterator[Callable[[int], Any]]:
    """``workers(n)``: the client, once exactly so many workers are there; two again at the end."""

    def scaled(count: int) -> Any:
        client.cluster.scale(count)
        client.sync(_settled, client.cluster, count)
        return client

    yield scaled
    client.cluster.scale(2)


async def _settled(cluster: Any, count: int) -> None:
    await cluster
    while len(cluster.scheduler.workers) != count:
        await asyncio.sleep(0.02)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass runs on the workers, in small tasks."""
    spread_out(monkeypatch.setattr)


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Handed:
    """Counts tasks as they are handed out; ``hear`` is called after each with its kind and their number so far."""
    found = Handed()
    original = Farm._submit

    def submit(self: Farm, job: Any) -> Any:
        future = original(self, job)
        task = job.task
        name = task.work.name if hasattr(task, "work") else job.name.rpartition(":")[0]
        kind = f"{type(task).__name__} {name}"
        found.counts[kind] = found.counts.get(kind, 0) + 1
        found.hear(kind, found.counts[kind])
        return future

    monkeypatch.setattr(Farm, "_submit", submit)
    return found
