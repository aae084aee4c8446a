"""Small data that many workers share out, and what several test files ask of a cluster.

As a program, the command ``streamcurate`` with small passes spread out too.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import streamcurate as sc
from streamcurate.storage import create_array, create_group

ROWS, DIMS = 1500, 6
LIMIT = 1 << 30

# Every pass runs on the workers, in tasks of a hundred rows or two; what is cut by memory is cut small. All of these
# count in the driver alone.
SMALL = (
    ("streamcurate.streaming.dask.executor", "LOCAL_OPERATIONS", 0),
    ("streamcurate.streaming.dask.executor", "_SLICE_BYTES", 700),
    ("streamcurate.streaming.ranges", "TASK_SECONDS", 1e-5),
    ("streamcurate.streaming.ranges", "_FIRST_SECONDS", 1e-9),
    ("streamcurate.streaming.budget", "_LARGEST_BLOCK_ROWS", 210),
    ("streamcurate.embeddings.fingerprint", "UNIT_BYTES", 256 * DIMS * 2),
    ("streamcurate.tree.level", "ALIGNED_CHUNK_ROWS", 256),
    ("streamcurate.pipeline.job", "_MASK_CHUNK_ROWS", 256),
    ("streamcurate.embeddings.subset", "_MASK_CHUNK_ROWS", 256),
    ("streamcurate.clustering.split", "_SEGMENT_SHARE", 3e-5),
    ("streamcurate.clustering.split", "_BUCKET_SHARE", 3e-5),
    ("streamcurate.streaming.shuffle", "_SMALLEST_RUN", 400),
    ("streamcurate.clustering.members", "_SHARE", 1e-9),
    ("streamcurate.streaming.dask.connection", "_CONNECT_SECONDS", 5),
    # Checkpoints of everything, so that what a resumed run finds differs from kill to kill.
    ("streamcurate.clustering.lloyd", "CHECKPOINT_SECONDS", 0.0),
    ("streamcurate.clustering.kept_labels", "_FEWEST_OPERATIONS", 0),
)


def spread_out(set_value: Callable[[object, str, Any], None] = setattr) -> None:
    """Put ``SMALL`` in force."""
    for place, name, value in SMALL:
        module = importlib.import_module(place)
        assert hasattr(module, name)
        set_value(module, name, value)


class Handed:
    """What was handed to the workers: how many tasks of each kind, such as ``PassTask labels``."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.hear: Callable[[str, int], None] = lambda kind, count: None


def rows(count: int = ROWS) -> np.ndarray:
    """Clumps of very different sizes, with repeated rows; exact in float16."""
    generator = np.random.default_rng(11)
    centres = generator.standard_normal((9, DIMS)) * 6
    which = generator.choice(9, count, p=np.arange(1, 10) / 45)
    values = (centres[which] + generator.standard_normal((count, DIMS))).astype(np.float16)
    values[200:240] = values[199]
    return values


def store(place: Path, values: np.ndarray | None = None, chunk_rows: int = 100) -> Path:
    values = rows() if values is None else values
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, chunk_rows).write(0, values)
    return place


def plain(levels: Any, source: Any = None, **options: Any) -> str:
    """The digest of the plainest build."""
    return sc.cluster(rows() if source is None else source, levels=levels, seed=9, threads=1, **options).digest


def pids(client: Any) -> list[int]:
    """Processes of a local cluster's workers that are at work.

    Not those still starting: a nanny whose worker dies before it has begun gives up, as a bad installation is the usual
    reason.
    """
    found = []
    for nanny in list(client.cluster.workers.values()):
        if nanny.pid and nanny.status.name == "running" and nanny.worker_address in client.cluster.scheduler.workers:
            found.append(nanny.pid)
    return found


def kill_one(client: Any, choose: random.Random) -> None:
    """SIGKILL a worker; where there is none just now, the next that comes."""
    deadline = time.monotonic() + 30
    while not (living := pids(client)):
        assert time.monotonic() < deadline, "no worker came back"
        time.sleep(0.01)
    os.kill(choose.choice(sorted(living)), signal.SIGKILL)


# -- real processes ----------------------------------------------------------------------------------------------------


def start_command(folder: Path, run: Path, config: str, *options: str) -> subprocess.Popen[bytes]:
    """``streamcurate cluster`` on ``folder/e.zarr`` with small passes spread out, in a session of its own."""
    command = [sys.executable, __file__, "cluster", os.fspath(folder / "e.zarr"), os.fspath(run), "--quiet"]
    command += ["--config", os.fspath(folder / config), "--memory-limit", "1GiB", *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # What a killed command leaves in the temporary folder goes with the test's.
        env=os.environ | {"TMPDIR": os.fspath(folder), "PYTHONFAULTHANDLER": "1"},
    )


def ended(process: subprocess.Popen[bytes], seconds: float = 120) -> str:
    """What a command said on stderr, once it has ended; one that hangs is made to say where."""
    try:
        return process.communicate(timeout=seconds)[1].decode()
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        errors = process.communicate()[1].decode()
        raise AssertionError(f"not done in {seconds} s:\n{errors}") from None


def wait_for(log: Path, text: str, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until a text is in a file so often."""
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count(text) >= count):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, f"{log}: no {text}"
        time.sleep(0.002)


def wait_for_none(session: int) -> None:
    """Until no process of a session is left; in ten seconds."""
    deadline = time.monotonic() + 10
    while left := [process for process in psutil.process_iter(["pid"]) if _session(process.pid) == session]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def _session(pid: int) -> int:
    try:
        return 0 if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else os.getsid(pid)
    except (OSError, psutil.Error):
        return 0


class Cluster:
    """A scheduler and workers on the loopback interface, started as users start them; gone at the end.

    Attributes
    ----------
    address : str
    file : Path
        The scheduler's file.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.address = ""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._wanted = workers

    def __enter__(self) -> Cluster:
        self.start_scheduler()
        for _ in range(self._wanted):
            self.start_worker()
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()

    def start_scheduler(self) -> None:
        """Start it, or start it again at the same address."""
        port = self.address.rpartition(":")[2] or "0"
        self.file.unlink(missing_ok=True)
        self._scheduler = self._start(
            ("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", "--scheduler-file", self.file)
        )
        deadline = time.monotonic() + 30
        while not (address := self._address()):
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.02)
        self.address = address

    def _address(self) -> str:
        """As the scheduler's file says; nothing where that is not there, or not wholly written."""
        try:
            return str(json.loads(self.file.read_text())["address"])
        except (FileNotFoundError, ValueError):
            return ""

    def kill_scheduler(self) -> None:
        """Without warning."""
        self._scheduler.kill()
        self._scheduler.wait()

    def start_worker(self, *options: str, enter: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """A worker of one thread; ``enter`` comes before its command."""
        command = ("dask_worker", self.address, "--nthreads", "1", "--memory-limit", "1GiB", "--no-nanny")
        return self._start((*command, "--no-dashboard", "--local-directory", self.folder, *options), enter)

    def _start(self, arguments: tuple[str | Path, ...], enter: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        command = [*enter, sys.executable, "-m", f"distributed.cli.{arguments[0]}", *map(str, arguments[1:])]
        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._processes.append(process)
        return process

    def _log(self) -> str:
        return (self.folder / "log").read_text()


if __name__ == "__main__":
    from streamcurate.cli.main import main

    spread_out()
    sys.exit(main())
