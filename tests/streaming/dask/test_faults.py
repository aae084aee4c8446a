"""Workers that die, join, leave and fail: the run goes on to the same tree, or ends with the name of what is wrong."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Misbehaving
from spreading import Handed, kill_one, plain, store

import streamcurate as sc
from streamcurate.clustering import centroids
from streamcurate.embeddings import open_embeddings
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import RunError, StoreError
from streamcurate.streaming import MemoryBudget
from streamcurate.streaming.dask import executor
from streamcurate.streaming.dask import workers as cluster

LEVELS = [sc.Level(30, iterations=3, init="k-means||", resampling=sc.Resampling(1, 4))]
SHORT = [sc.Level(12, iterations=2, init="random")]
SPLIT = [sc.Level(9, splits=4, iterations=2)]
TILED = [sc.Level(20, init="random", iterations=2)]
ROW = 700


def misbehaving(folder: Path, **trouble: Any) -> Embeddings:
    """The usual rows; see :class:`misbehaving.Misbehaving`."""
    return Embeddings(Misbehaving(open_embeddings(store(folder / "e.zarr")), folder, **trouble))


def troubles(rows: Embeddings) -> int:
    return rows._source.troubles


# -- killed ------------------------------------------------------------------------------------------------------------

KINDS = {
    "fit": (
        LEVELS,
        {
            "PassTask statistics",
            "PassTask drawing rows",
            "PassTask k-means|| round",
            "PassTask k-means|| draw",
            "PassTask k-means|| weights",
            "PassTask k-means pass",
            "SliceTask k-means pass",
            "PassTask resampling",
            "PassTask labels",
            "MapTask sorting members",
        },
    ),
    "split": (
        SPLIT,
        {"PassTask seeding", "PassTask coarse labels", "MapTask regrouping rows", "MapTask splitting"},
    ),
    "tiles": (
        TILED,
        {"PassTask labels, tile 2 of 4", "PassTask sums of a tile", "SliceTask sums of a tile", "PassTask labels"},
    ),
}


@pytest.mark.parametrize("part", KINDS)
def test_a_worker_killed_in_every_kind_of_pass(part, workers, spread, handed, tmp_path, monkeypatch):
    levels, kinds = KINDS[part]
    client, choose, struck = workers(2), random.Random(part), set()
    expected = plain(levels)
    if part == "tiles":
        monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
        monkeypatch.setattr(centroids, "SMALLEST_TILE", 7)
        monkeypatch.setattr(executor, "_SLICE_BYTES", 100)

    def strike(kind: str, count: int) -> None:
        if kind in kinds and count == 2:
            kill_one(client, choose)
            struck.add(kind)

    handed.hear = strike
    run = tmp_path / "run"
    assert sc.cluster(store(tmp_path / "e.zarr"), run, levels=levels, seed=9, client=client).digest == expected
    assert struck == kinds
    assert not (run / "scratch").exists()


@pytest.mark.slow
def test_workers_killed_at_random_for_a_minute(workers, spread, tmp_path):
    client, choose = workers(4), random.Random(5)
    levels = [*LEVELS, sc.Level(6, splits=2, iterations=3)]
    expected = plain(levels)
    rows = misbehaving(tmp_path, seconds=0.05)
    over = threading.Event()

    def strike() -> None:
        while not over.wait(choose.uniform(1.5, 4.0)):
            kill_one(client, choose)

    killer = threading.Thread(target=strike)
    killer.start()
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert sc.cluster(rows, levels=levels, seed=9, client=client).digest == expected
    finally:
        over.set()
        killer.join()


# -- coming and going --------------------------------------------------------------------------------------------------


class Watch:
    """Calls a function once, at a certain task; sees which workers there were, and which had work, after it."""

    def __init__(self, client: Any, handed: Handed, kind: str, count: int, then: Callable[[], None]) -> None:
        self.client, self.kind, self.count, self.then = client, kind, count, then
        self.called = False
        self.seen: set[str] = set()
        self.busy: set[str] = set()
        handed.hear = self

    def __call__(self, kind: str, count: int) -> None:
        if self.called:
            workers = dict(self.client.cluster.scheduler.workers)
            self.seen.update(workers)
            self.busy.update(address for address, worker in workers.items() if worker.processing)
        if kind == self.kind and count == self.count:
            self.then()
            self.called = True


def test_a_worker_that_joins_late_is_given_work(workers, spread, handed, tmp_path):
    client = workers(1)
    watch = Watch(client, handed, "PassTask k-means|| round", 9, lambda: workers(2))
    tree = sc.cluster(store(tmp_path / "e.zarr"), levels=LEVELS, seed=9, client=client)
    assert tree.digest == plain(LEVELS)
    assert len(watch.busy) == 2


def test_a_worker_that_leaves_is_not_missed(workers, spread, handed, tmp_path):
    client = workers(2)

    def leave() -> None:
        first = min(client.scheduler_info()["workers"])
        client.retire_workers([first], close_workers=True)

    watch = Watch(client, handed, "PassTask k-means pass", 3, leave)
    tree = sc.cluster(store(tmp_path / "e.zarr"), levels=LEVELS, seed=9, client=client)
    assert watch.called
    assert tree.digest == plain(LEVELS)
    client.cluster.scale(0)


def test_all_workers_gone_for_a_while(workers, spread, handed, tmp_path, monkeypatch):
    client = workers(2)
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.2)
    later = threading.Timer(1.0, lambda: client.cluster.scale(2))

    def leave() -> None:
        workers(0)
        later.start()

    watch = Watch(client, handed, "PassTask k-means pass", 3, leave)
    assert sc.cluster(store(tmp_path / "e.zarr"), levels=LEVELS, seed=9, client=client).digest == plain(LEVELS)
    assert watch.called


def test_workers_that_never_come_back(workers, spread, handed, tmp_path, monkeypatch):
    client = workers(2)
    monkeypatch.setattr(cluster, "_WORKERS_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.1)
    Watch(client, handed, "PassTask k-means pass", 3, lambda: workers(0))
    run = tmp_path / "run"
    place = store(tmp_path / "e.zarr")
    with pytest.raises(RunError, match=r"no Dask worker for .*start workers, and give the same command again"):
        sc.cluster(place, run, levels=LEVELS, seed=9, client=client)
    # None at the start either.
    with pytest.raises(RunError, match="no Dask worker for"):
        sc.cluster(place, run, levels=LEVELS, seed=9, client=client)
    handed.hear = lambda kind, count: None
    assert sc.cluster(place, run, levels=LEVELS, seed=9).digest == plain(LEVELS)


def test_an_adaptive_cluster(workers, spread, handed, tmp_path):
    """From no worker at all: work that waits calls them."""
    client = workers(0)
    # None leaves for a while without work between two passes: that workers leave is another test.
    adaptive = client.cluster.adapt(minimum=0, maximum=2, interval="50ms", wait_count=400, target_duration="100ms")
    try:
        watch = Watch(client, handed, "PassTask k-means pass", 1, lambda: None)
        rows = misbehaving(tmp_path, seconds=0.01)
        assert sc.cluster(rows, levels=SHORT, seed=9, client=client).digest == plain(SHORT)
        assert watch.seen
    finally:
        adaptive.stop()
        client.cluster._adaptive = None


def test_stopped_while_workers_are_busy(workers, spread, handed, tmp_path):
    """The driver does not wait for tasks that nobody wants any more, and the next run can have the workers."""
    client = workers(2)
    rows = misbehaving(tmp_path, seconds=3.0)
    stopped = []

    def stop(kind: str, count: int) -> None:
        if kind == "PassTask statistics" and count == 6:
            time.sleep(0.3)
            stopped.append(time.monotonic())
            raise KeyboardInterrupt

    handed.hear = stop
    with pytest.raises(KeyboardInterrupt):
        sc.cluster(rows, tmp_path / "run", levels=SHORT, seed=9, client=client)
    # At most the block under way, of six that were handed out.
    assert time.monotonic() - stopped[0] < 2 * 3.0
    handed.hear = lambda kind, count: None
    assert sc.cluster(store(tmp_path / "f.zarr"), levels=SHORT, seed=9, client=client).digest == plain(SHORT)


# -- failing -----------------------------------------------------------------------------------------------------------


def test_a_task_that_fails_once(workers, spread, tmp_path):
    rows = misbehaving(tmp_path, row=ROW, trouble="raise", times=1)
    assert sc.cluster(rows, levels=SHORT, seed=9, client=workers(2)).digest == plain(SHORT)
    assert troubles(rows) == 1


def test_a_task_that_always_fails(workers, spread, tmp_path):
    rows = misbehaving(tmp_path, row=ROW, trouble="raise")
    with pytest.raises(RunError, match=rf"{rows.name}, rows (\d+) to (\d+): .*failed 3 times.*Input/output error"):
        sc.cluster(rows, levels=SHORT, seed=9, client=workers(2))
    assert troubles(rows) == 3


def test_a_damaged_chunk_is_told_as_without_workers(workers, spread, handed, tmp_path):
    place = store(tmp_path / "e.zarr")
    chunk = place / "embeddings" / "c" / "7" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    with pytest.raises(StoreError, match="chunk 7"):
        sc.cluster(place, levels=SHORT, seed=9, client=workers(2))
    # Each range once, but for the two of the chunk: perhaps only one host, and only for a moment, sees it so.
    assert handed.counts["PassTask statistics"] <= 6 + 2 * 2


def test_a_poisonous_block_is_named(workers, spread, tmp_path, monkeypatch):
    client = workers(2)
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 1)
    rows = misbehaving(tmp_path, row=ROW, trouble="die")
    with pytest.raises(RunError, match="workers died while they did this") as told:
        sc.cluster(rows, tmp_path / "run", levels=SHORT, seed=9, client=client)
    message = str(told.value)
    assert message.startswith(f"{rows.name}, rows ")
    first, last = (int(word.rstrip(":")) for word in message.split(" rows ")[1].split()[:3:2])
    assert first <= ROW <= last
    assert last - first < 300
    # As often as the scheduler allows among others, and once more alone.
    assert troubles(rows) <= 2 * 2
    # The workers that came after are of use.
    assert sc.cluster(store(tmp_path / "good.zarr"), levels=SHORT, seed=9, client=client).digest == plain(SHORT)


def test_a_block_that_kills_now_and_then(workers, spread, tmp_path, monkeypatch):
    """Killed once too often among others, done alone."""
    client = workers(2)
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    rows = misbehaving(tmp_path, row=ROW, trouble="die", times=1)
    assert sc.cluster(rows, levels=SHORT, seed=9, client=client).digest == plain(SHORT)
    assert troubles(rows) == 1
