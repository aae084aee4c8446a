"""One run on several hosts: the same tree, and clear words where a host does not see what the others see."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hosts import Cluster, Given, Host, wait_until


def test_two_hosts_share_the_work(cluster: Cluster, given: Given, hosts: list[Host], tmp_path):
    before = [cluster.done(host) for host in hosts[1:]]
    done = hosts[0].run(*given.command(tmp_path / "run", "--scheduler-file", cluster.file))
    given.check(done)
    assert f"2 Dask workers at {cluster.address}" in done.stderr
    # Neither loopback nor TLS: worth a remark.
    assert ("can run code on the workers" in done.stderr) == (not hosts[0].address.startswith("127."))
    assert all(cluster.done(host) > count for host, count in zip(hosts[1:], before, strict=True))


@pytest.mark.slow  # on one machine: streaming/dask/test_faults.py
def test_a_worker_that_joins_late_takes_its_share(
    cluster: Cluster, given: Given, hosts: list[Host], tidy: None, tmp_path
):
    status, output = with_a_late_worker(cluster, given, hosts, tmp_path)
    assert status == 0, output
    assert given.digest in output
    assert cluster.done(hosts[0])


@pytest.mark.slow
def test_a_late_worker_that_sees_another_folder_is_sent_away(
    separate: list[Host], cluster: Cluster, given: Given, hosts: list[Host], tidy: None, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    assert hosts[0].run("mount", "-t", "tmpfs", "none", run).returncode == 0
    try:
        status, output = with_a_late_worker(cluster, given, hosts, tmp_path)
    finally:
        hosts[0].run("umount", run)
    assert status == 0, output
    assert given.digest in output
    assert f"is sent away: {run} is another folder there" in output
    assert "Traceback" not in output


def with_a_late_worker(cluster: Cluster, given: Given, hosts: list[Host], tmp_path: Path) -> tuple[int, str]:
    """A run during which a worker joins on the first host."""
    late, *early = hosts
    before, before_it = sum(map(cluster.done, early)), cluster.joined(late)
    output = tmp_path / "output"
    command = early[0].start(*given.command(tmp_path / "run", "--scheduler", cluster.address), log=output)
    wait_until(lambda: sum(map(cluster.done, early)) > before, "a first task")
    # The run waits for the two, until another has come.
    for worker in cluster.workers[:2]:
        os.killpg(worker.pid, signal.SIGSTOP)
    try:
        cluster.work(late)
        wait_until(lambda: cluster.joined(late) > before_it, "the late worker")
        assert command.poll() is None
    finally:
        for worker in cluster.workers[:2]:
            os.killpg(worker.pid, signal.SIGCONT)
    return command.wait(60), output.read_text()


@pytest.mark.slow  # on one machine: test_workers.py
def test_a_host_that_sees_another_folder_is_named(
    separate: list[Host], cluster: Cluster, given: Given, hosts: list[Host], tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    assert hosts[2].run("mount", "-t", "tmpfs", "none", run).returncode == 0
    done = hosts[0].run(*given.command(run, "--scheduler-file", cluster.file))
    assert done.returncode == 2
    assert "1 of 2 Dask workers cannot work for this run" in done.stderr
    assert f"tcp://{hosts[2].address}:" in done.stderr
    assert f"tcp://{hosts[1].address}:" not in done.stderr
    assert f"{run} is another folder there" in done.stderr
    assert "Traceback" not in done.stderr
    assert hosts[2].run("umount", run).returncode == 0


def test_a_host_without_the_store_is_named(
    separate: list[Host], cluster: Cluster, given: Given, hosts: list[Host], tmp_path
):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert hosts[1].run("mount", "--bind", empty, given.store).returncode == 0
    try:
        done = hosts[0].run(*given.command(tmp_path / "run", "--scheduler-file", cluster.file))
    finally:
        hosts[1].run("umount", given.store)
    assert done.returncode == 2
    assert f"tcp://{hosts[1].address}:" in done.stderr
    assert f"{given.store}" in done.stderr
    assert "cannot be read there" in done.stderr
    assert "Traceback" not in done.stderr
