"""What the benchmarks of scale share: commands run as processes of their own, with the memory of each, and clean ends.

Memory is read from the kernel's own record of each process's peak (`VmHWM`) where there is one, so that no peak between
two looks is missed; elsewhere from samples. Processes are told apart by their command line: the command itself is the
driver, those that `multiprocessing` or Dask started below it are workers, the resource tracker is neither.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from synthetic import write_store

SAMPLE_SECONDS = 0.1
# Looking for new processes and adding up files takes longer than a sample: at most this share of the time.
LOOK_SHARE = 0.02
# What a command is given to stop by itself before it is killed.
GRACE_SECONDS = 20.0
_WORKER_MARKS = ("multiprocessing", "dask", "distributed")
_HELPER_MARKS = ("resource_tracker", "semaphore_tracker")


@dataclass
class Measured:
    """One finished command.

    Attributes
    ----------
    seconds : float
        Wall time, start-up included.
    began : float
        Seconds since the epoch.
    driver : int
        Peak resident bytes of the command itself.
    workers : list of int
        The same of each worker process, in the order they were seen.
    disk : int
        Most bytes seen in the watched folder.
    """

    seconds: float = 0.0
    began: float = 0.0
    driver: int = 0
    workers: list[int] = field(default_factory=list)
    disk: int = 0

    def described(self) -> dict[str, Any]:
        """As results note it."""
        return {
            "seconds": round(self.seconds, 2),
            "driver_peak_bytes": self.driver,
            "worker_peak_bytes": self.workers,
            "disk_peak_bytes": self.disk,
        }


def run_measured(arguments: Sequence[object], folder: Path | None = None) -> Measured:
    """Run a `streamcurate` command to its end; the memory of each process, and what `folder` takes, are watched."""
    found = Measured(began=time.time())
    process = subprocess.Popen([sys.executable, "-m", "streamcurate.cli.main", *map(str, arguments)])
    peaks: dict[psutil.Process, int] = {}
    following = 0.0
    try:
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            if (looked := time.monotonic()) >= following:
                with suppress(psutil.NoSuchProcess):
                    for member in [driver, *driver.children(recursive=True)]:
                        if member not in peaks and (member == driver or _is_worker(member)):
                            peaks[member] = 0
                if folder is not None:
                    found.disk = max(found.disk, bytes_in(folder))
                following = time.monotonic() + (time.monotonic() - looked) / LOOK_SHARE
            for member in peaks:
                peaks[member] = max(peaks[member], _peak(member))
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_SECONDS)
    finally:
        _stop(process, list(peaks))
    if process.returncode:
        raise SystemExit(f"streamcurate {arguments[0]} ended with {process.returncode}")
    found.seconds = time.time() - found.began
    found.driver = peaks.pop(driver, 0)
    found.workers = [peak for peak in peaks.values() if peak]
    return found


def warm_up(folder: Path, dims: int, clusters: int, options: Sequence[object] = ()) -> None:
    """Have every kernel compiled: the process that compiles takes longer and more memory than those after it."""
    store, run, config = folder / "warm-up.zarr", folder / "warm-up", folder / "warm-up.yaml"
    write_store(store, 10 * clusters, dims)
    write_levels(config, (clusters,), iterations=2, fit_rows=5 * clusters)
    run_measured(["cluster", store, run, "--config", config, "--quiet", *options])
    shutil.rmtree(store)
    shutil.rmtree(run)


def write_levels(config: Path, clusters: Sequence[int], iterations: int, fit_rows: int) -> None:
    """A file of levels, the first fitted on a sample from random seeds: fixed work, whatever the number of rows."""
    levels = [f"  - clusters: {count}\n    iterations: {iterations}\n" for count in clusters]
    levels.insert(1, f"    fit_rows: {fit_rows}\n    init: random\n")
    config.write_text("levels:\n" + "".join(levels))


def _is_worker(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(mark in line for mark in _WORKER_MARKS) and not any(mark in line for mark in _HELPER_MARKS)


def _peak(process: psutil.Process) -> int:
    try:
        with open(f"/proc/{process.pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _stop(process: subprocess.Popen[bytes], members: list[psutil.Process]) -> None:
    """End a command that still runs, and whatever it would leave behind."""
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
    finally:
        for member in members:
            with suppress(psutil.Error):
                if member.is_running():
                    member.kill()
    process.wait()


def bytes_in(folder: Path) -> int:
    """Bytes on disk of all files below a folder; what vanishes meanwhile does not count."""
    total = 0
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return 0
    for entry in entries:
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            total += bytes_in(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total


@contextmanager
def working_folder(name: str, parent: Path | None, needed: int) -> Iterator[Path]:
    """A folder that is gone afterwards, also after Ctrl-C, SIGTERM and SIGHUP.

    Folders of this kind whose process was killed outright are removed first.

    Parameters
    ----------
    name : str
        Of the benchmark.
    parent : Path, optional
        Where; the system's temporary folder by default.
    needed : int
        Bytes that must be free there.
    """
    parent = Path(parent or tempfile.gettempdir())
    prefix = f"streamcurate-{name}-"
    for left in parent.glob(f"{prefix}*-*"):
        owner = left.name.removeprefix(prefix).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise SystemExit(
            f"{parent}: {free / 1e9:,.1f} GB are free, {needed / 1e9:,.1f} GB are needed; "
            "name another --folder, or fewer --rows"
        )
    earlier = {number: signal.signal(number, _exit) for number in (signal.SIGTERM, signal.SIGHUP)}
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        for number in earlier:  # a second signal must not leave the half of it
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@dataclass(frozen=True)
class Timeline:
    """What the events of a finished run say about times; all in seconds.

    Attributes
    ----------
    stages : dict
        Name, with the level, to seconds, in the order they ended. `start and statistics` is what came before the
        run directory was begun: start-up of the processes and the first pass over all rows.
    passes : list of dict
        The `pass-finished` events, where there are any: name, level, rows, seconds, tasks, busy_seconds.
    digest : str
        Of the tree.
    """

    stages: dict[str, float]
    passes: list[dict[str, Any]]
    digest: str

    def passes_of(self, name: str, level: int = 1) -> list[dict[str, Any]]:
        """The passes of a name."""
        return [one for one in self.passes if one["name"] == name and one.get("level", level) == level]


def read_timeline(run: Path, began: float) -> Timeline:
    """The timeline of a run directory; `began`: when its command was started."""
    stages: dict[str, float] = {}
    passes: list[dict[str, Any]] = []
    started: dict[tuple[str, int], float] = {}
    digest, before = "", began
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        kind, now = event["event"], datetime.fromisoformat(event["time"]).timestamp()
        level = event.get("level")
        if kind == "run-started":
            stages["start and statistics"] = now - began
        elif kind == "stage-started":
            started[event["stage"], level] = now
        elif kind == "stage-finished":
            seconds = event["seconds"] or now - started.get((event["stage"], level), now)
            name = f"{event['stage']} {level}"
            stages[name] = stages.get(name, 0.0) + seconds
        elif kind == "level-finished":
            # The sort of the members, offsets and the digest follow the labels.
            stages.setdefault(f"members and digest {level}", now - before)
        elif kind == "pass-finished":
            passes.append(event)
        elif kind == "run-finished":
            digest = event["digest"]
        if kind != "pass-finished" and kind != "warned":
            before = now
    return Timeline(stages, passes, digest)


def mebibytes(count: float) -> str:
    """Bytes for tables."""
    return f"{count / 2**20:,.0f}"
