"""Hosts: network namespaces with an address, a name and mounts of their own, or else addresses of the loopback net.

On them run a real scheduler, real workers and the command, as a user starts them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "cluster"
SECONDS = 120.0
LIMIT = "1GiB"


def wait_until(ready: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Come back when it is so; fail where it does not get so."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"in {seconds:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Host:
    """Where commands run: ``enter`` comes before each."""

    address: str
    enter: tuple[str, ...] = ()
    # The same from another of the hosts.
    cross: tuple[str, ...] = ()
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, *command: str | os.PathLike[str], log: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """A process, with a group of its own, ended with the host."""
        output = subprocess.DEVNULL if log is None else open(log, "a")  # noqa: SIM115 (the process keeps it)
        process = subprocess.Popen(
            [*self.enter, *map(os.fspath, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
            text=True,
        )
        if log is not None:
            output.close()  # type: ignore[union-attr]
        self.processes.append(process)
        return process

    def run(self, *command: str | os.PathLike[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """A command to its end; where it comes to none, whatever it has started ends with it."""
        process = subprocess.Popen(
            [*self.enter, *map(os.fspath, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
            start_new_session=True,
            text=True,
        )
        try:
            output, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            stop(process, signal.SIGKILL)
            output, errors = process.communicate()
            raise AssertionError(f"not done in {SECONDS:.0f} s: {process.args}\n{output}{errors}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def end(self) -> None:
        for process in self.processes:
            stop(process, signal.SIGKILL)
        self.processes.clear()


def stop(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> int:
    """End a process and whatever of its group is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS / 4)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


# -- the hosts --------------------------------------------------------------------------------------------------------

_ENTER = ("nsenter", "--preserve-credentials", "--user", "--net", "--mount", "--uts")
# Who is in the user namespace already cannot enter it again.
_OUTSIDE = ("--preserve-credentials", "--user")
_HOLD = ("sh", "-c", "echo held; exec sleep 3600")


def _hold(*unshare: str) -> subprocess.Popen[str]:
    """A process that holds new namespaces open; with it they go."""
    process = subprocess.Popen([*unshare, *_HOLD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "held\n":
        process.wait()
        assert process.stderr is not None
        raise OSError(process.stderr.read().strip() or "no namespace")
    return process


def separate_hosts(count: int, held: list[subprocess.Popen[str]]) -> list[Host]:
    """Hosts in namespaces of a user namespace of our own, on one switch; nothing of the machine's own is touched."""
    for name in ("unshare", "nsenter", "ip"):
        if shutil.which(name) is None:
            raise OSError(f"no {name}")

    def enter(process: subprocess.Popen[str]) -> tuple[str, ...]:
        return (*_ENTER, "--target", str(process.pid), "--")

    def inside(process: subprocess.Popen[str], command: str) -> None:
        done = subprocess.run([*enter(process), *command.split()], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{command}: {done.stderr.strip()}")

    switch = _hold("unshare", "--user", "--map-root-user", "--net", "--mount", "--uts")
    held.append(switch)
    inside(switch, "ip link add switch type bridge")
    inside(switch, "ip link set switch up")
    hosts = []
    for number in range(1, count + 1):
        host = _hold(*enter(switch), "unshare", "--net", "--mount", "--uts")
        held.append(host)
        address = f"10.77.0.{number}"
        inside(host, f"hostname host{number}")
        inside(switch, f"ip link add port{number} type veth peer name eth0 netns {host.pid}")
        inside(switch, f"ip link set port{number} master switch up")
        inside(host, "ip link set lo up")
        inside(host, f"ip addr add {address}/24 dev eth0")
        inside(host, "ip link set eth0 up")
        hosts.append(Host(address, enter(host), tuple(part for part in enter(host) if part not in _OUTSIDE)))
    return hosts


# -- what they work on ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A folder every host sees: a store, levels, and the digest that a build in one process has."""

    folder: Path
    store: Path
    levels: Path
    watch: Path
    digest: str

    def command(self, run: Path, *options: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], ...]:
        """The line that builds the tree."""
        line = (self.store, run, "--config", self.levels, "--memory-limit", LIMIT, *options)
        return (sys.executable, "-m", "streamcurate.cli.main", "cluster", *line)

    def check(self, done: subprocess.CompletedProcess[str]) -> None:
        """The command has built the same tree."""
        assert done.returncode == 0, done.stderr
        assert self.digest in done.stdout


# -- a cluster --------------------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A scheduler on the first host, and workers."""

    hosts: list[Host]
    given: Given
    folder: Path
    environment: dict[str, str]
    protocol: str = "tcp"
    log: Path = field(init=False)
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = self.folder / "cluster.log"
        (self.folder / "done").mkdir()

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    def schedule(self) -> None:
        host = self.hosts[0]
        line = ("--host", host.address, "--port", "0", "--protocol", self.protocol, "--scheduler-file", self.file)
        module = (sys.executable, "-m", "distributed.cli.dask_scheduler")
        process = host.start(*module, *line, "--no-dashboard", log=self.log, **self.environment)
        wait_until(lambda: self.file.exists() or process.poll() is not None, "a scheduler")
        assert process.poll() is None, self.log.read_text()

    def work(self, host: Host) -> subprocess.Popen[str]:
        line = ("--host", host.address, "--protocol", self.protocol, "--scheduler-file", self.file, "--nthreads", "1")
        module = (sys.executable, "-m", "distributed.cli.dask_worker")
        process = host.start(
            *module, *line, "--no-dashboard", "--memory-limit", LIMIT, "--preload", self.given.watch,
            "--local-directory", self.folder,
            log=self.log, DONE=os.fspath(self.folder / "done"), **self.environment,
        )  # fmt: skip
        self.workers.append(process)
        return process

    def joined(self, host: Host) -> int:
        """How many workers of that host have joined."""
        return sum(1 for _ in (self.folder / "done").glob(f"{host.address}-*"))

    def done(self, host: Host) -> int:
        """Tasks done on a host since the cluster was started."""
        return sum(file.read_text().count("\n") for file in (self.folder / "done").glob(f"{host.address}-*"))


def certificates(folder: Path) -> Path:
    """A folder of certificates, by the script."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    subprocess.run(["bash", SCRIPTS / "make_certificates.sh", folder, "2"], check=True, capture_output=True)
    return folder
