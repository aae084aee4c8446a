"""Certificates, and what one is told without them."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import SCRIPTS, Cluster, Given, Host, certificates, wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return certificates(tmp_path_factory.mktemp("tls") / "a folder")


@pytest.fixture(scope="module")
def secured(loopback: list[Host], given: Given, folder: Path, tmp_path_factory) -> Cluster:
    """A scheduler that talks TLS only."""
    made = Cluster(loopback, given, tmp_path_factory.mktemp("secured"), settings(folder), "tls")
    made.schedule()
    return made


def settings(folder: Path) -> dict[str, str]:
    """What a shell has in its environment after it has sourced the file."""
    line = f". '{folder}/environment.sh' && '{sys.executable}' -c 'import os; print(os.environ)'"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env={}, check=True)
    found = eval(done.stdout, {"environ": dict})
    return {name: value for name, value in found.items() if name.startswith("DASK_")}


def test_only_the_owner_can_read_the_key(folder):
    assert {path.name for path in folder.iterdir()} == {"authority.pem", "dask.pem", "dask.key", "environment.sh"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "dask.key").stat().st_mode) == 0o600


def test_the_pair_satisfies_the_strictest_check(folder):
    line = ["openssl", "verify", "-x509_strict", "-purpose"]
    for purpose in ("sslserver", "sslclient"):
        subprocess.run([*line, purpose, "-CAfile", folder / "authority.pem", folder / "dask.pem"], check=True)


def test_nothing_is_overwritten(folder):
    before = (folder / "dask.key").read_bytes()
    done = subprocess.run(["bash", SCRIPTS / "make_certificates.sh", folder], capture_output=True, text=True)
    assert done.returncode == 2
    assert "has a key already" in done.stderr
    assert (folder / "dask.key").read_bytes() == before


@pytest.mark.slow  # so is the Slurm job of test_scripts.py
def test_a_run_over_tls(secured: Cluster, given: Given, loopback: list[Host], tmp_path):
    secured.work(loopback[1])
    wait_until(lambda: secured.joined(loopback[1]), "a worker")
    command = given.command(tmp_path / "run", "--scheduler-file", secured.file)
    done = loopback[0].run(*command, **secured.environment)
    given.check(done)
    assert secured.done(loopback[1])
    assert "can run code on the workers" not in done.stderr


def test_without_a_certificate(secured: Cluster, given: Given, loopback: list[Host], tmp_path):
    done = loopback[0].run(*given.command(tmp_path / "run", "--scheduler-file", secured.file))
    check_refused(done, secured)
    assert "distributed.comm.tls.ca-file" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("who", ["stranger", "plain"])
def test_with_another_certificate_or_none_at_all(
    who: str, secured: Cluster, given: Given, loopback: list[Host], tmp_path
):
    address, environment = secured.address, {}
    if who == "stranger":
        environment = settings(certificates(tmp_path / "tls"))
    else:
        address = address.replace("tls:", "tcp:")
    done = loopback[0].run(*given.command(tmp_path / "run", "--scheduler", address), **environment)
    check_refused(done, secured)
    assert "no Dask scheduler answers" in done.stderr


def check_refused(done: subprocess.CompletedProcess[str], cluster: Cluster) -> None:
    assert done.returncode == 2, done.stderr
    assert cluster.address.partition(":")[2] in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert not done.stdout
