"""The command with workers: processes of its own, or those of a scheduler that runs already."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from spreading import Cluster, plain, spread_out, start_command, store, wait_for, wait_for_none

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.errors import RunError
from streamcurate.runs import Manifest
from streamcurate.streaming.dask import connect

LEVELS = [sc.Level(30, iterations=3, resampling=sc.Resampling(1, 3)), sc.Level(6, splits=2, iterations=2)]
LONG = [sc.Level(40, iterations=300, tolerance=0, init="random", splits=2), sc.Level(9, init="random")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("workers")
    store(place / "e.zarr")
    for name, levels in (("levels", LEVELS), ("long", LONG)):
        config = sc.Config(tuple(levels), seed=9)
        (place / f"{name}.yaml").write_text(json.dumps(config.to_mapping()))
    return place


@pytest.fixture(scope="module")
def digest() -> str:
    return plain(LEVELS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A scheduler and two workers that somebody else has started."""
    with Cluster(tmp_path_factory.mktemp("cluster"), workers=2) as running:
        yield running


def arguments(folder: Path, run: str, *options: str) -> list[str]:
    command = ["cluster", str(folder / "e.zarr"), str(folder / run), "--config", str(folder / "levels.yaml")]
    return [*command, "--memory-limit", "1GiB", *options]


def check_clean(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {".lock", "run.json", "events.jsonl", "store.json", "tree.zarr"}


def test_workers_of_its_own(folder, digest, monkeypatch, capsys):
    spread_out(monkeypatch.setattr)
    assert main(arguments(folder, "own", "--workers", "2", "--threads", "1")) == 0
    captured = capsys.readouterr()
    assert captured.out.rstrip().endswith(f"digest {digest}")
    assert "2 Dask workers at tcp://127.0.0.1:" in captured.err
    assert "http://127.0.0.1:" in captured.err
    check_clean(folder / "own")


@pytest.mark.parametrize("way", ["--scheduler", "--scheduler-file"])
def test_workers_of_a_scheduler(folder, digest, cluster, monkeypatch, capsys, way):
    spread_out(monkeypatch.setattr)
    where = cluster.address if way == "--scheduler" else str(cluster.file)
    assert main(arguments(folder, way[2:], way, where, "--quiet")) == 0
    captured = capsys.readouterr()
    assert captured.out.rstrip().endswith(f"digest {digest}")
    assert captured.err == ""
    check_clean(folder / way[2:])


def test_no_scheduler_there(folder, monkeypatch, capsys):
    monkeypatch.setattr("streamcurate.streaming.dask.connection._CONNECT_SECONDS", 0.5)
    assert main(arguments(folder, "none", "--scheduler", "tcp://127.0.0.1:9")) == 2
    assert "tcp://127.0.0.1:9: no Dask scheduler answers" in capsys.readouterr().err
    (folder / "half.json").write_text('{"type": "Scheduler"')
    for file, reason in (("missing.json", "FileNotFoundError"), ("half.json", "JSONDecodeError")):
        assert main(arguments(folder, "none", "--scheduler-file", str(folder / file))) == 2
        assert f"{file}: no scheduler's file ({reason}" in capsys.readouterr().err
    assert main(arguments(folder, "none", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2")) == 2
    assert "--workers and --scheduler: give one of them" in capsys.readouterr().err
    assert not (folder / "none").exists()


def test_a_limit_that_is_too_low_is_refused_before_anything_runs(folder, capsys):
    command = ["cluster", str(folder / "e.zarr"), str(folder / "low"), "--workers", "2"]
    assert main([*command, "--levels", "5", "--memory-limit", "100MiB"]) == 2
    assert "smallest supported is 512 MiB" in capsys.readouterr().err
    assert not (folder / "low").exists()


# -- workers that differ -----------------------------------------------------------------------------------------------


@pytest.fixture
def lone(tmp_path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    with Cluster(tmp_path, workers=0) as running:
        yield running


def test_workers_that_differ_are_named(folder, lone, tmp_path):
    """One of another version, and one that lives in a world where the folder of the run is another."""
    (tmp_path / "older.py").write_text("from streamcurate.streaming import tasks\ntasks.__version__ = '0.0.1'\n")
    lone.start_worker("--preload", str(tmp_path / "older.py"))
    expected = [r"streamcurate is 0\.0\.1 there and \d"]
    if can_unshare():
        lone.start_worker(enter=("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {folder} && exec "$@"', "sh"))
        expected.append(r"differ does not exist there")
    with connect(scheduler=lone.address) as client:
        client.wait_for_workers(len(expected), timeout=30)
        with pytest.raises(RunError, match=f"^{len(expected)} of {len(expected)} Dask workers cannot") as told:
            sc.cluster(folder / "e.zarr", folder / "differ", levels=LEVELS, client=client)
    for text in expected:
        assert told.match(text)
    assert told.match("every worker needs the same versions, and the store, the run directory and the scratch folder")
    assert not (folder / "differ").exists()


def can_unshare() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def test_a_worker_without_streamcurate(folder, lone, tmp_path):
    (tmp_path / "without.py").write_text("import sys\nsys.modules['streamcurate'] = None\n")
    lone.start_worker("--preload", str(tmp_path / "without.py"))
    with connect(scheduler=lone.address) as client:
        client.wait_for_workers(1, timeout=30)
        with pytest.raises(RunError, match=r"Dask worker tcp://.*: has no streamcurate .*; install it there"):
            sc.cluster(folder / "e.zarr", folder / "without", levels=LEVELS, client=client)
    assert not (folder / "without").exists()


# -- stopped -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(folder, number, code):
    """As a terminal sends it, or a batch system: to every process of the group."""
    run = folder / f"stopped-{code}"
    process = start_command(folder, run, "long.yaml", "--workers", "2", "--threads", "1")
    try:
        wait_for(run / "events.jsonl", '"iteration-finished"', 3, process)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert errors.decode().splitlines() == [
        f"streamcurate: stopped; what is done is kept in {run}; give the same command again to go on"
    ]
    assert process.returncode == code
    wait_for_none(process.pid)
    assert not list(run.glob(".session-*"))
    assert not Manifest.read(run).complete


def test_help_needs_no_dask(folder):
    """Starting up is not made slower by what a run without workers does not need."""
    code = (
        "import sys; from streamcurate.cli.main import main; main(['cluster', '--help']); "
        "main(sys.argv[1:]); sys.exit('distributed' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *arguments(folder, "plain", "--quiet")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["levels", "splits"])
def test_device_gpu(kind, gpus, tmp_path, monkeypatch):
    """One Dask-CUDA worker for each GPU gives the CPU's tree."""
    spread_out(monkeypatch.setattr)
    levels = {"levels": [sc.Level(30), sc.Level(6)], "splits": [sc.Level(5, splits=7), sc.Level(4)]}[kind]
    place = store(tmp_path / "e.zarr")
    assert sc.cluster(place, tmp_path / "run", levels=levels, seed=9, device="gpu").digest == plain(levels)
