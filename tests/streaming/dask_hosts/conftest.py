"""Hosts, what they work on, and a cluster on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hosts import LIMIT, Cluster, Given, Host, separate_hosts, stop, wait_until

import streamcurate as sc
from streamcurate.storage import create_array, create_group

LEVELS = """\
levels:
- {clusters: 400, iterations: 2, init: random, tolerance: 0}
- {clusters: 8, resampling: {steps: 1, rows_per_cluster: 4}}
"""
# Dask tells a worker's preload about the worker: every task it has done becomes a line of a file named by address.
WATCH = """\
import os
from urllib.parse import urlsplit
from distributed import WorkerPlugin
class Watch(WorkerPlugin):
    def setup(self, worker):
        self.file = f"{os.environ['DONE']}/{urlsplit(worker.address).hostname}-{os.getpid()}"
        open(self.file, "a").close()
    def transition(self, key, start, finish, **kwargs):
        if finish == "memory" and str(key).startswith("streamcurate"):
            with open(self.file, "a") as file:
                file.write(f"{key}\\n")
async def dask_setup(worker):
    await worker.plugin_add(Watch())
"""


@pytest.fixture(scope="session")
def separate() -> Iterator[list[Host]]:
    """Three hosts that only a network joins; skips where the system does not let us make any."""
    held: list[subprocess.Popen[str]] = []
    hosts: list[Host] = []
    try:
        try:
            hosts = separate_hosts(3, held)
        except OSError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield hosts
    finally:
        for host in hosts:
            host.end()
        for process in reversed(held):
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def loopback() -> Iterator[list[Host]]:
    """Three addresses of this machine, where the loopback net has more than one."""
    if not sys.platform.startswith("linux"):
        pytest.skip("one loopback address only")
    hosts = [Host(f"127.0.0.{number}") for number in (2, 3, 4)]
    yield hosts
    for host in hosts:
        host.end()


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest) -> list[Host]:
    """Separate hosts where possible, addresses of this machine where not."""
    try:
        return request.getfixturevalue("separate")
    except pytest.skip.Exception:
        return request.getfixturevalue("loopback")


@pytest.fixture
def tidy(hosts: list[Host]) -> Iterator[None]:
    """Whatever a test has started ends with it."""
    before = [list(host.processes) for host in hosts]
    yield
    for host, kept in zip(hosts, before, strict=True):
        for process in host.processes:
            if process not in kept:
                stop(process)
        host.processes[:] = kept


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Enough work that every pass over the rows is worth handing out."""
    folder = tmp_path_factory.mktemp("shared")
    generator = np.random.default_rng(5)
    centres = generator.standard_normal((60, 16)) * 2
    rows = (centres[generator.integers(0, 60, 330_000)] + generator.standard_normal((330_000, 16))).astype(np.float16)
    create_group(folder / "e.zarr")
    create_array(folder / "e.zarr" / "embeddings", rows.shape, rows.dtype, 20_000).write(0, rows)
    (folder / "levels.yaml").write_text(LEVELS)
    (folder / "watch.py").write_text(WATCH)
    digest = sc.cluster(folder / "e.zarr", config=folder / "levels.yaml", memory_limit=LIMIT).digest
    return Given(folder, folder / "e.zarr", folder / "levels.yaml", folder / "watch.py", digest)


@pytest.fixture(scope="session")
def cluster(hosts: list[Host], given: Given, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A scheduler on the first host, and a worker on each of the others."""
    made = Cluster(hosts, given, tmp_path_factory.mktemp("cluster"), {})
    made.schedule()
    for host in hosts[1:]:
        made.work(host)
    wait_until(lambda: all(map(made.joined, hosts[1:])), "two workers")
    return made
