"""The driver or the scheduler is killed: nothing is left behind, and the same command again gives the same tree."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from spreading import Cluster, ended, plain, start_command, store, wait_for, wait_for_none

import streamcurate as sc
from streamcurate.runs import Manifest

LEVELS = [
    sc.Level(30, iterations=5, tolerance=0, init="k-means||", splits=2, resampling=sc.Resampling(1, 4)),
    sc.Level(7, iterations=3, resampling=sc.Resampling(1, 3, "random")),
]
KEPT = {".lock", "run.json", "events.jsonl", "store.json", "tree.zarr"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("killed")
    store(place / "e.zarr")
    (place / "levels.yaml").write_text(json.dumps(sc.Config(tuple(LEVELS), seed=9).to_mapping()))
    return place


@pytest.fixture(scope="module")
def digest() -> str:
    return plain(LEVELS)


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    with Cluster(tmp_path, workers=2) as running:
        yield running


def finish(folder: Path, run: Path, digest: str, *options: str) -> None:
    """The same command again, undisturbed."""
    process = start_command(folder, run, "levels.yaml", *options)
    errors = ended(process)
    assert process.returncode == 0, errors
    assert errors == ""
    assert Manifest.read(run).digest == digest
    assert {path.name for path in run.iterdir()} == KEPT
    wait_for_none(process.pid)


def kill_the_driver(folder: Path, run: Path, digest: str, kills: int, seed: int, *options: str) -> Path:
    """Kill it again and again, from its first breath to well into the work; the run directory of the last one."""
    choose, done, finished = random.Random(seed), 0, 0
    while done < kills:
        process = start_command(folder, run, "levels.yaml", *options)
        if done % 3 == 2:
            time.sleep(choose.uniform(0.5, 3.0))
        else:
            log = run / "events.jsonl"
            before = log.stat().st_size if log.exists() else 0
            while process.poll() is None and (not log.exists() or log.stat().st_size == before):
                time.sleep(0.001)
            time.sleep(choose.uniform(0, 1.0))
        over = process.poll() is not None
        process.kill()
        _, errors = process.communicate()
        wait_for_none(process.pid)
        if over:
            assert process.returncode == 0, errors.decode()
            assert Manifest.read(run).digest == digest
            finished += 1
            run = run.with_name(f"{run.name}-{finished}")
        else:
            done += 1
    return run


def test_driver_killed_with_workers_of_its_own(folder, digest):
    run = kill_the_driver(folder, folder / "own", digest, 1, 1, "--workers", "2", "--threads", "1")
    finish(folder, run, digest)  # which needs no workers


@pytest.mark.slow
def test_driver_killed_many_times_with_workers_of_its_own(folder, digest):
    options = ("--workers", "2", "--threads", "1")
    finish(folder, kill_the_driver(folder, folder / "often", digest, 20, 2, *options), digest, *options)


@pytest.mark.slow
def test_driver_killed_with_workers_of_a_scheduler(folder, digest, cluster):
    """Its workers live on, with tasks of a run that is over; they do no harm."""
    options = ("--scheduler", cluster.address)
    finish(folder, kill_the_driver(folder, folder / "others", digest, 1, 5, *options), digest, *options)


@pytest.mark.slow
def test_driver_killed_many_times_with_workers_of_a_scheduler(folder, digest, cluster):
    options = ("--scheduler", cluster.address)
    finish(folder, kill_the_driver(folder, folder / "more", digest, 15, 7, *options), digest, *options)


def test_scheduler_killed(folder, digest, cluster):
    run = folder / "lost"
    process = start_command(folder, run, "levels.yaml", "--scheduler", cluster.address)
    wait_for(run / "events.jsonl", '"iteration-finished"', 2, process)
    cluster.kill_scheduler()
    began = time.monotonic()
    errors = ended(process, 100)
    assert time.monotonic() - began < 90
    assert process.returncode == 2, errors
    assert errors.splitlines() == [
        f"streamcurate: error: {cluster.address}: the Dask scheduler does not answer any more; start it again, "
        "and give the same command again: what is done is kept"
    ]
    assert not Manifest.read(run).complete
    cluster.start_scheduler()
    cluster.start_worker()  # those there were have ended with the scheduler
    finish(folder, run, digest, "--scheduler", cluster.address)
