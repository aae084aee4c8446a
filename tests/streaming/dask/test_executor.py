"""How the executor joins a cluster: memory, threads, notes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spreading import LIMIT, plain, store

import streamcurate as sc
from streamcurate.embeddings import open_embeddings
from streamcurate.errors import InputError, MemoryLimitError, RunError
from streamcurate.streaming import MemoryBudget, Silent
from streamcurate.streaming.dask import DaskExecutor
from streamcurate.streaming.dask import workers as cluster


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def join(client, tmp_path):
    """``join(limit)``: an executor of a run with this memory limit, and what it had to say."""
    rows = open_embeddings(store(tmp_path / "e.zarr"))

    def joined(limit: int, **options: Any) -> tuple[DaskExecutor, list[str]]:
        notes = Notes()
        (tmp_path / "scratch").mkdir(exist_ok=True)
        budget = MemoryBudget.of(limit, 2)
        with DaskExecutor(client, budget, notes, tmp_path / "scratch", [tmp_path], rows, **options) as made:
            assert len(list(Path(tmp_path).glob(".session-*"))) == 1
        assert not list((tmp_path / "scratch").iterdir())
        assert not list(Path(tmp_path).glob(".session-*"))
        return made, notes.texts

    return joined


def test_plans_keep_to_the_smaller_limit(workers, join):
    workers(2)
    made, notes = join(2 * LIMIT)
    assert made.budget.limit == LIMIT
    assert notes[0] == "Dask workers have 1.0 GiB of memory each for this; plans keep to that"
    assert notes[1].startswith("2 Dask workers at tcp://127.0.0.1:")
    made, notes = join(LIMIT - 1)
    assert made.budget.limit == LIMIT - 1
    assert len(notes) == 1


def test_plans_stay_below_the_thresholds_of_a_cluster_that_has_them(workers, join):
    client = workers(2)

    def set_fraction(dask_worker: Any, fraction: Any) -> Any:
        before = dask_worker.memory_manager.memory_spill_fraction
        dask_worker.memory_manager.memory_spill_fraction = fraction
        return before

    one = min(client.scheduler_info()["workers"])
    # Those of clusters made here have none.
    assert client.run(set_fraction, fraction=0.7, workers=[one]) == {one: False}
    try:
        assert join(LIMIT)[0].budget.limit == int(LIMIT * 0.7 * cluster._BELOW_THRESHOLD)
    finally:
        client.run(set_fraction, fraction=False, workers=[one])


def test_nothing_is_spilled_paused_or_ended_by_dask(workers):
    def fractions(dask_worker: Any) -> tuple[Any, ...]:
        memory = dask_worker.memory_manager
        return (
            memory.memory_limit,
            memory.memory_target_fraction,
            memory.memory_spill_fraction,
            memory.memory_pause_fraction,
        )

    client = workers(2)
    assert set(client.run(fractions).values()) == {(LIMIT, False, False, False)}
    for nanny in client.cluster.workers.values():
        assert nanny.memory_manager.memory_terminate_fraction is False


def test_threads_of_the_workers_or_those_asked_for(workers, join):
    workers(2)
    assert join(LIMIT)[0].budget.threads == 1
    assert join(LIMIT, threads=3)[0].budget.threads == 3


def test_what_does_not_fit_a_worker_is_refused_before_any_task(workers, spread, handed, tmp_path, monkeypatch):
    place = store(tmp_path / "e.zarr")
    levels = [sc.Level(30, init="random", iterations=2)]

    def small(dask_worker: Any) -> dict[str, int]:
        return {"threads": 1, "limit": 231 << 20}

    monkeypatch.setattr(cluster, "_report", small)
    with pytest.raises((MemoryLimitError, InputError), match="memory limit"):
        sc.cluster(place, tmp_path / "run", levels=levels, client=workers(2), memory_limit=LIMIT)
    assert handed.counts == {}
    assert not (tmp_path / "run").exists()


def test_a_worker_of_another_version_is_named(workers, tmp_path):
    client = workers(2)

    def become(version: str) -> str:
        from streamcurate.streaming import tasks

        before, tasks.__version__ = tasks.__version__, version
        return before

    one = min(client.scheduler_info()["workers"])
    (here,) = client.run(become, "0.0.1", workers=[one]).values()
    try:
        message = rf"^1 of 2 Dask workers cannot .*: {one}: streamcurate is 0\.0\.1 there and {here} here; every worker"
        with pytest.raises(RunError, match=message):
            sc.cluster(store(tmp_path / "e.zarr"), tmp_path / "run", levels=[3], client=client)
        assert not (tmp_path / "run").exists()
    finally:
        client.run(become, here, workers=[one])


def test_two_runs_on_the_same_workers_in_turn(workers, spread, tmp_path):
    """A client may be used again and again, also after an error."""
    client, levels = workers(2), [sc.Level(9, init="random", iterations=2)]
    place, expected = store(tmp_path / "e.zarr"), plain(levels)
    with pytest.raises(InputError):
        sc.cluster(place, levels=[10**6], client=client)
    for _ in range(2):
        assert sc.cluster(place, levels=levels, seed=9, client=client).digest == expected
    assert client.status == "running"
