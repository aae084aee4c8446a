"""Kills, stops, crashes at any write, damaged scratch, full disks: the same command again gives the same tree."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.clustering import lloyd, seeding
from streamcurate.errors import DiskFullError, RunError
from streamcurate.runs import EventLog, Manifest, read_events
from streamcurate.storage import create_array, create_group

KEPT = {".lock", "run.json", "events.jsonl", "store.json", "tree.zarr"}

LEVELS = [
    sc.Level(24, iterations=3, init="k-means||", resampling=sc.Resampling(1, 4)),
    sc.Level(7, splits=2, iterations=3, resampling=sc.Resampling(1, 3, "random")),
    sc.Level(3, algorithm="minibatch", iterations=2),
]


def clumps(rows: int, dims: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((11, dims)) * 4
    return (centres[generator.integers(0, 11, rows)] + generator.standard_normal((rows, dims))).astype(np.float32)


def store_of(place: Path, values: np.ndarray, chunk_rows: int) -> Path:
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, chunk_rows).write(0, values)
    return place


def check_clean(run: Path, levels: int) -> None:
    assert {path.name for path in run.iterdir()} == KEPT
    names = {f"level-{number}" for number in range(1, levels + 1)}
    assert {path.name for path in (run / "tree.zarr").iterdir()} == names | {"zarr.json"}
    assert not list(run.rglob("*.writing"))


@pytest.fixture
def eager(monkeypatch):
    """A checkpoint of every iteration and every seeding; no waiting for the device, since no power is cut here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(lloyd, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(seeding, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture
def small(tmp_path) -> Path:
    return store_of(tmp_path / "e.zarr", clumps(600, 4), 100)


@pytest.fixture
def undisturbed(small, tmp_path) -> str:
    return sc.cluster(small, tmp_path / "undisturbed", levels=LEVELS, seed=4).digest


class StopAt:
    """Raises at the n-th event, before or after it is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.written = True
        original = EventLog.append

        def append(log: EventLog, event: Any) -> None:
            if type(event).__name__ == "Interrupted":
                original(log, event)
                return
            self.left -= 1
            if self.left == 0 and not self.written:
                raise KeyboardInterrupt
            original(log, event)
            if self.left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(EventLog, "append", append)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_event(small, undisturbed, tmp_path, monkeypatch, eager, every):
    """What lies on disk at each event, as a kill would leave it, is gone on with.

    The short form takes the first event of each kind and every third of them all.
    """
    run = tmp_path / "run"
    kinds: list[str] = []
    original = EventLog.append

    def append(log: EventLog, event: Any) -> None:
        original(log, event)
        kind = type(event).__name__
        if len(kinds) % every == 0 or kind not in kinds:
            shutil.copytree(run, tmp_path / f"at-{len(kinds)}")
        kinds.append(kind)

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "append", append)
        sc.cluster(small, run, levels=LEVELS, seed=4, threads=1, prefetch=False)
    for number, kind in enumerate(kinds):
        if number % every and kinds.index(kind) < number:
            continue
        copy = tmp_path / f"at-{number}"
        tree = sc.cluster(small, copy, levels=LEVELS, seed=4, threads=1, prefetch=False)
        assert tree.digest == undisturbed
        check_clean(copy, 3)
        events = read_events(copy / "events.jsonl")
        # What was finished is not done again: the level in work at the kill is the lowest that is.
        done = kinds[:number].count("LevelFinished")
        later = [event.level for event in events[number + 1 :] if type(event).__name__ == "IterationFinished"]
        assert min(later, default=9) >= done
    assert {"RunStarted", "Seeded", "IterationFinished", "StageStarted", "LevelFinished", "RunFinished"} <= {*kinds}


def test_stopped_again_and_again(small, undisturbed, tmp_path, monkeypatch, eager):
    """One run, never let further than a few events; what is done is not done again."""
    stop = StopAt(monkeypatch)
    run = tmp_path / "run"
    for attempt in range(200):
        # Past Resumed, and past what is begun anew at each start.
        stop.left, stop.written = 14 + attempt % 3, True
        try:
            tree = sc.cluster(small, run, levels=LEVELS, seed=4)
            break
        except KeyboardInterrupt:
            pass
    assert tree.digest == undisturbed
    assert attempt > 4
    check_clean(run, 3)
    kinds = [type(event).__name__ for event in read_events(run / "events.jsonl")]
    assert kinds.count("Interrupted") == attempt
    assert kinds.count("LevelFinished") <= 3 + 3


@pytest.mark.parametrize("after", [False, True])
def test_crash_at_any_file_put_in_place(small, undisturbed, tmp_path, monkeypatch, eager, after):
    """Every durable result appears by a rename; the process dies at some of them, before or after."""
    run = tmp_path / "run"
    made, dies_at = 0, 0

    class Died(BaseException):
        pass

    def dying(original):
        def move(source, target, **options):
            nonlocal made
            made += 1
            if made == dies_at and not after:
                raise Died
            original(source, target, **options)
            if made == dies_at:
                raise Died

        return move

    monkeypatch.setattr(os, "replace", dying(os.replace))
    monkeypatch.setattr(os, "rename", dying(os.rename))
    sc.cluster(small, tmp_path / "counted", levels=LEVELS, seed=4, threads=1, prefetch=False)
    total, choose, deaths = made, random.Random(after), 0
    for _ in range(12):
        made, dies_at = 0, choose.randint(1, 2 * total // 3)
        try:
            sc.cluster(small, run, levels=LEVELS, seed=4, threads=1, prefetch=False)
        except Died:
            deaths += 1
        else:
            run = tmp_path / f"run-{deaths}"
    dies_at = 0
    assert sc.cluster(small, run, levels=LEVELS, seed=4).digest == undisturbed
    assert deaths > 5
    check_clean(run, 3)


def test_half_a_file_left_before_the_run_began(small, undisturbed, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "store.json.123.writing", "run.json.123.writing", ".scratch.7.writing"):
        (run / name).write_text("{")
    (run / "scratch").mkdir()
    assert sc.cluster(small, run, levels=LEVELS, seed=4).digest == undisturbed
    check_clean(run, 3)


def interrupt(small: Path, run: Path, monkeypatch: pytest.MonkeyPatch, event: int, **options: Any) -> None:
    with monkeypatch.context() as patch:
        StopAt(patch).left = event
        with pytest.raises(KeyboardInterrupt):
            sc.cluster(small, run, levels=LEVELS, seed=4, **options)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x55
    path.write_bytes(content)


DAMAGE = {
    "flipped": flip,
    "array flipped": lambda path: flip(path) if path.suffix == ".npy" else None,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("event", [17, 26])
def test_damaged_checkpoints_are_made_again(small, undisturbed, tmp_path, monkeypatch, eager, damage, event):
    run = tmp_path / "run"
    interrupt(small, run, monkeypatch, event)
    files = [path for path in (run / "checkpoints").iterdir() if path.is_file()]
    assert files
    for path in files:
        DAMAGE[damage](path)
    for path in (run / "scratch").rglob("*"):
        if path.is_file():
            path.write_bytes(b"rubbish")
    assert sc.cluster(small, run, levels=LEVELS, seed=4).digest == undisturbed
    check_clean(run, 3)


def test_damaged_centroids_in_tiles_are_made_again(small, undisturbed, tmp_path, monkeypatch, eager):
    from streamcurate.clustering import centroids
    from streamcurate.streaming import MemoryBudget

    monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
    monkeypatch.setattr(centroids, "SMALLEST_TILE", 5)
    for number, spoil in enumerate((lambda path: None, flip)):
        run = tmp_path / f"run-{number}"
        interrupt(small, run, monkeypatch, 12)
        stored = [path for path in (run / "scratch").rglob("centroids-*/c/*/*") if path.is_file()]
        assert stored
        for path in stored:
            spoil(path)
        assert sc.cluster(small, run, levels=LEVELS, seed=4).digest == undisturbed
        check_clean(run, 3)


def test_other_limits_threads_and_scratch_on_resume(small, undisturbed, tmp_path, monkeypatch, eager):
    from streamcurate.clustering import split

    run = tmp_path / "run"
    for number, event in enumerate((11, 12, 20)):
        monkeypatch.setattr(split, "_BUCKET_SHARE", [1e-9, 1.0, 1e-5][number])
        scratch = tmp_path / f"scratch-{number}"
        interrupt(small, run, monkeypatch, event, scratch=scratch, threads=1 + number, prefetch=bool(number % 2))
        assert any(scratch.iterdir())
    tree = sc.cluster(small, run, levels=LEVELS, seed=4, scratch=tmp_path / "scratch-3", memory_limit=700 << 20)
    assert tree.digest == undisturbed
    check_clean(run, 3)
    for number in range(4):
        assert not any((tmp_path / f"scratch-{number}").iterdir())


def test_a_finished_run_clears_what_a_kill_at_the_end_left(small, undisturbed, tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    sc.cluster(small, run, levels=LEVELS, seed=4)
    elsewhere.mkdir()
    (elsewhere / "streamcurate-1").mkdir()
    (run / ".scratch").write_text(f"{elsewhere / 'streamcurate-1'}\n")
    (run / "checkpoints").mkdir()
    (run / "building").mkdir()
    assert sc.cluster(small, run, levels=LEVELS, seed=4).digest == undisturbed
    check_clean(run, 3)
    assert not any(elsewhere.iterdir())


def test_a_level_in_place_that_the_manifest_does_not_know_is_built_again(small, undisturbed, tmp_path):
    run = tmp_path / "run"
    finished = sc.cluster(small, run, levels=LEVELS, seed=4).manifest
    import dataclasses

    dataclasses.replace(finished, complete=False, digest=None, levels=finished.levels[:1]).write(run)
    shutil.rmtree(run / "tree.zarr" / "level-3")
    (run / "tree.zarr" / "level-2" / "labels" / "c" / "0").write_bytes(b"half")
    assert sc.cluster(small, run, levels=LEVELS, seed=4).digest == undisturbed


# -- the store while a run is half-finished ---------------------------------------------------------------------------


@pytest.fixture
def halfway(small, tmp_path, monkeypatch, undisturbed) -> Path:
    run = tmp_path / "halfway"
    interrupt(small, run, monkeypatch, 22)
    assert not Manifest.read(run).complete
    return run


def chunk(store: Path, number: int) -> Path:
    return store / "embeddings" / "c" / str(number) / "0"


def again(store: Path, run: Path, tmp_path: Path) -> list[str]:
    config = tmp_path / "levels.yaml"
    config.write_text(json.dumps(sc.Config(tuple(LEVELS), seed=4).to_mapping()))
    return ["cluster", str(store), str(run), "--config", str(config), "--quiet"]


def test_a_store_that_was_only_touched_is_the_same(small, halfway, undisturbed, tmp_path):
    for number in range(6):
        os.utime(chunk(small, number))
    assert main(again(small, halfway, tmp_path)) == 0
    assert Manifest.read(halfway).digest == undisturbed


def test_a_store_that_moved_is_the_same(small, halfway, undisturbed, tmp_path):
    shutil.copytree(small, tmp_path / "copy.zarr")
    shutil.rmtree(small)
    assert main(again(tmp_path / "copy.zarr", halfway, tmp_path)) == 0
    assert Manifest.read(halfway).digest == undisturbed


@pytest.mark.parametrize("finished", [False, True])
def test_a_store_that_changed_is_refused(small, halfway, tmp_path, capsys, finished):
    if finished:
        assert main(again(small, halfway, tmp_path)) == 0
    content = bytearray(chunk(small, 3).read_bytes())
    content[17] ^= 1
    chunk(small, 3).write_bytes(content)
    capsys.readouterr()
    assert main(again(small, halfway, tmp_path)) == 2
    message = capsys.readouterr().err
    assert "changed since the run began: rows " in message
    assert "rows 300 to 399 (chunk 3)" in message
    content[17] ^= 1
    chunk(small, 3).write_bytes(content)
    assert main(again(small, halfway, tmp_path)) == 0


def test_a_chunk_that_went_away_is_refused(small, halfway, tmp_path, capsys):
    chunk(small, 2).unlink()
    assert main(again(small, halfway, tmp_path)) == 2
    assert "chunk 2 (rows 200 to 299) is absent" in capsys.readouterr().err


# -- real processes ------------------------------------------------------------

BIG = {
    "seed": 1,
    "levels": [
        {
            "clusters": 400,
            "iterations": 12,
            "tolerance": 0,
            "splits": 2,
            "resampling": {"steps": 2, "rows_per_cluster": 8},
        },
        {"clusters": 120, "iterations": 20, "tolerance": 0, "resampling": {"steps": 3, "rows_per_cluster": 3}},
        {"clusters": 12},
    ],
}


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("big")
    # Enough for iterations to keep labels.
    store_of(folder / "e.zarr", clumps(30_000, 48), 2000)
    (folder / "levels.yaml").write_text(json.dumps(BIG))
    return folder


@pytest.fixture(scope="module")
def big_digest(big) -> str:
    process = start(big, "undisturbed")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return str(Manifest.read(big / "undisturbed").digest)


def start(folder: Path, run: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streamcurate.cli.main", "cluster", str(folder / "e.zarr"), str(folder / run)]
    command += ["--config", str(folder / "levels.yaml"), "--quiet", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_event(folder: Path, run: str, process: subprocess.Popen[bytes], kind: str, count: int = 1) -> None:
    log = folder / run / "events.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().count(f'"{kind}"') >= count:
            return
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.002)
    raise AssertionError(f"no {kind}")


def finish(big: Path, run: str, digest: str) -> None:
    """The same command again, undisturbed: it succeeds, with the undisturbed tree and nothing left over."""
    process = start(big, run)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert Manifest.read(big / run).digest == digest
    check_clean(big / run, 3)


def kill_at_random(big: Path, digest: str, kills: int, seed: int) -> None:
    choose = random.Random(seed)
    run, number, done = f"killed-{seed}-0", 0, 0
    stored = []
    while done < kills:
        process = start(big, run)
        # From the start of the interpreter to well into the work; the longer aims wait for the work to have begun.
        if done % 5 == 0:
            time.sleep(choose.uniform(0.2, 1.0))
        else:
            log = big / run / "events.jsonl"
            before = log.stat().st_size if log.exists() else 0
            while process.poll() is None and (not log.exists() or log.stat().st_size == before):
                time.sleep(0.001)
            time.sleep(choose.uniform(0, 0.9))
        if process.poll() is not None:  # finished too soon: begin another
            assert process.returncode == 0
            process.communicate()
            assert Manifest.read(big / run).digest == digest
            number += 1
            run = f"killed-{seed}-{number}"
            continue
        process.kill()
        process.communicate()
        done += 1
        stored.append(Manifest.exists(big / run))
    assert any(stored)
    finish(big, run, digest)


def test_killed_at_random_instants(big, big_digest):
    kill_at_random(big, big_digest, 3, 3)


@pytest.mark.slow
def test_killed_at_twenty_random_instants(big, big_digest):
    kill_at_random(big, big_digest, 20, 8)


def test_stopped_by_signals(big, big_digest):
    run = "signals"
    for turn, (number, code) in enumerate([(signal.SIGTERM, 143), (signal.SIGINT, 130)], start=1):
        process = start(big, run)
        wait_for_event(big, run, process, "iteration-finished", 4 * turn)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors.decode()
        assert errors.decode().splitlines() == [
            f"streamcurate: stopped; what is done is kept in {big / run}; give the same command again to go on"
        ]
        assert type(read_events(big / run / "events.jsonl")[-1]).__name__ == "Interrupted"
    finish(big, run, big_digest)


def test_a_second_writer_is_refused(big, capsys):
    process = start(big, "two")
    try:
        wait_for_event(big, "two", process, "run-started")
        process.send_signal(signal.SIGSTOP)  # it holds the lock for as long as we look
        before = (big / "two" / "events.jsonl").read_bytes()
        arguments = ["cluster", str(big / "e.zarr"), str(big / "two"), "--config", str(big / "levels.yaml"), "--quiet"]
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert f"is being written by process {process.pid}" in message
        assert (big / "two" / "events.jsonl").read_bytes() == before
    finally:
        process.kill()
        process.communicate()
    # The lock died with its process.
    with pytest.raises(RunError, match="seed: 1 → 2"):
        sc.cluster(big / "e.zarr", big / "two", config=big / "levels.yaml", seed=2)


# -- full disks ----------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path):
    """``tiny_disk(kibibytes)``: a file system of that size; called again, the same one with another size."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(size: int) -> Path:
        nonlocal mounted
        options = f"size={size}k" + (",remount" if mounted else "")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        mounted = True
        return place

    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("scratch_only", [False, True])
def test_a_full_disk_is_said_and_the_run_goes_on_afterwards(tmp_path, tiny_disk, capsys, scratch_only, monkeypatch):
    from streamcurate.streaming.shuffle import SortedRecords

    values = clumps(20_000, 4)
    store = store_of(tmp_path / "e.zarr", values, 5000)
    levels = [sc.Level(30, splits=2, iterations=2, init="k-means||"), sc.Level(4)]
    digest = sc.cluster(store, tmp_path / "undisturbed", levels=levels).digest
    original = SortedRecords.__init__

    def tiny(self, folder, memory):
        original(self, folder, memory)
        self._capacity = 2048  # so that the external sort writes too

    monkeypatch.setattr(SortedRecords, "__init__", tiny)
    disk = tiny_disk(16)
    run = tmp_path / "run" if scratch_only else disk / "run"
    config = tmp_path / "levels.yaml"
    config.write_text(json.dumps(sc.Config(tuple(levels)).to_mapping()))
    command = ["cluster", str(store), str(run), "--config", str(config), "--quiet"]
    command += ["--scratch", str(disk / "scratch")] if scratch_only else []
    refused = 0
    for size in (16, 130, 420, 900, 1400, 2000, 16_000):
        tiny_disk(size)
        code = main(command)
        message = capsys.readouterr().err
        if code == 0:
            break
        refused += 1
        assert code == 2, message
        assert len(message.splitlines()) == 1
        assert "no space left on the device" in message.lower()
        assert str(disk) in message
        assert "Traceback" not in message
    assert code == 0
    assert refused >= 3
    assert Manifest.read(run).digest == digest
    check_clean(run, 2)


def test_a_full_disk_in_the_library(tmp_path, tiny_disk):
    disk = tiny_disk(100)
    with pytest.raises(DiskFullError):
        sc.cluster(clumps(20_000, 3), disk / "run", levels=[5])
