"""The scripts of benchmarks/cluster, edited as a user would, on hosts that a make-believe Slurm hands out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import SCRIPTS, Given, Host, certificates, wait_until

JOB = "4711"
# What the scripts call, and what it does here: `srun` starts the command on every node and passes SIGTERM on.
COMMANDS = {
    "srun": """\
import json, os, signal, subprocess, sys
options = []
command = sys.argv[1:]
while command[0].startswith("--"):
    options.append(command.pop(0))
with open(os.environ["SLURM_SAYS"], "a") as said:
    print("srun", *options, file=said)
nodes = json.loads(os.environ["NODES"])
running = []
def forward(number, frame):
    for process in running:
        process.send_signal(number)
signal.signal(signal.SIGTERM, forward)
for enter in nodes:
    running.append(subprocess.Popen([*enter, *command]))
sys.exit(max(process.wait() for process in running))
""",
    "scontrol": """\
import os, sys
with open(os.environ["SLURM_SAYS"], "a") as said:
    print("scontrol", *sys.argv[1:], file=said)
""",
    # A job of one worker, in a session of its own; its number is its process.
    "sbatch": """\
import json, os, subprocess, sys
node = json.loads(os.environ["NODES"])[0]
script = open(sys.argv[-1]).read()
with open(os.environ["SLURM_SAYS"], "a") as said:
    print("sbatch", file=said)
job = subprocess.Popen([*node, "bash", "-c", script], start_new_session=True,
                       stdout=open(os.environ["JOB_LOG"], "a"), stderr=subprocess.STDOUT)
print("Submitted batch job", job.pid)
""",
    "scancel": """\
import os, signal, sys
with open(os.environ["SLURM_SAYS"], "a") as said:
    print("scancel", file=said)
for job in sys.argv[1:]:
    try:
        os.killpg(int(job), signal.SIGTERM)
    except ProcessLookupError:
        pass
""",
}


@dataclass
class Slurm:
    """A folder of commands, and what they have been asked."""

    folder: Path
    says: Path
    environment: dict[str, str]

    def said(self) -> str:
        return self.says.read_text() if self.says.exists() else ""


@pytest.fixture
def slurm(tmp_path: Path, hosts: list[Host], given: Given, tidy: None) -> Slurm:
    """Two nodes: the first two hosts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(0o755)
    (tmp_path / "done").mkdir()
    nodes = [host.cross for host in hosts[:2]]
    environment = {
        "PATH": f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NODES": json.dumps(nodes),
        "SLURM_SAYS": str(tmp_path / "said"),
        "JOB_LOG": str(tmp_path / "job.log"),
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NUM_NODES": str(len(nodes)),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_MEM_PER_NODE": "4096",
        "DASK_DISTRIBUTED__WORKER__PRELOAD": str(given.watch),
        "DONE": str(tmp_path / "done"),
        "TMPDIR": str(tmp_path),
    }
    return Slurm(folder, tmp_path / "said", environment)


def edited(script: str, place: Path, **values: str) -> Path:
    """A copy of a script with other values in the lines marked for it."""
    text = (SCRIPTS / script).read_text()
    head, mark, rest = text.rpartition("# ---- leave the rest")
    for name, value in values.items():
        head, count = re.subn(rf"^({name}(?:: [^=]*)?) ?= ?.*$", rf"\1={value}", head, flags=re.MULTILINE)
        assert count == 1, name
    copy = place / script
    copy.write_text(head + mark + rest)
    return copy


def batch(place: Path, hosts: list[Host], given: Given, **values: str) -> Path:
    interface = "lo" if not hosts[0].enter else "eth0"
    settings = {
        "STORE": f"'{given.store}'", "RUN": f"'{place}/run'", "LEVELS": f"'{given.levels}'", "DEVICE": "cpu",
        "MEMORY_GIB": "1", "TLS": "", "INTERFACE": interface, "WAIT_SECONDS": "60",
    }  # fmt: skip
    script = edited("slurm.sbatch", place, **settings | values)
    # Modules and environments are there already.
    text, count = re.subn(r"^    \. /shared/environments.*$", "    true", script.read_text(), flags=re.MULTILINE)
    assert count == 1
    script.write_text(text)
    return script


def shares(folder: Path) -> dict[str, int]:
    """Tasks done, by worker."""
    return {file.name: file.read_text().count("\n") for file in (folder / "done").iterdir()}


@pytest.mark.parametrize("script", ["slurm.sbatch", "make_certificates.sh"])
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n", SCRIPTS / script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck")
    subprocess.run(["shellcheck", SCRIPTS / script], check=True)


def test_a_job_on_two_nodes_over_tls(slurm: Slurm, hosts: list[Host], given: Given, tmp_path):
    script = batch(tmp_path, hosts, given, TLS=f"'{certificates(tmp_path / 'tls')}'")
    done = hosts[0].run("bash", script, **slurm.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert given.digest in done.stdout
    assert "2 Dask workers at tls://" in done.stderr
    assert len(shares(tmp_path)) == 2
    assert min(shares(tmp_path).values()) > 0
    # The plan may use the whole of a worker's memory: Dask's thresholds are off.
    assert "plans keep to that" not in done.stderr
    assert "scontrol" not in slurm.said()
    assert not list(tmp_path.glob(".scheduler*"))


@pytest.mark.slow
def test_a_job_whose_time_is_up_goes_on_in_the_next(slurm: Slurm, hosts: list[Host], given: Given, tmp_path):
    script = batch(tmp_path, hosts, given)
    log = tmp_path / "log"
    job = hosts[0].start("bash", script, log=log, **slurm.environment)
    wait_until(lambda: sum(shares(tmp_path).values()) > 1 or job.poll() is not None, "some tasks")
    job.send_signal(signal.SIGUSR1)  # to the batch shell alone, as --signal=B:USR1 has it
    assert job.wait(60) == 143, log.read_text()
    assert slurm.said().splitlines()[-1] == f"scontrol requeue {JOB}"
    assert "give the same command again" in log.read_text()
    check_nothing_left(tmp_path)
    again = hosts[0].run("bash", script, **slurm.environment | {"SLURM_RESTART_COUNT": "1"})
    assert again.returncode == 0, again.stdout + again.stderr
    assert given.digest in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.0, 4.5, 6.0])
def test_a_cancelled_job_ends_and_is_not_requeued(seconds, slurm: Slurm, hosts: list[Host], given: Given, tmp_path):
    job = hosts[0].start("bash", batch(tmp_path, hosts, given), log=tmp_path / "log", **slurm.environment)
    time.sleep(seconds)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) in (0, 143, -signal.SIGTERM), (tmp_path / "log").read_text()
    assert "scontrol" not in slurm.said()
    check_nothing_left(tmp_path)


def check_nothing_left(folder: Path) -> None:
    assert not list(folder.glob(".scheduler*"))
    mine = os.fspath(folder).encode()

    def left() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if mine in line and int(process.name) != os.getpid():
                found.append(line.decode(errors="replace"))
        return found

    if Path("/proc/self").exists():
        wait_until(lambda: not left(), f"processes gone: {left()}", 20)


@pytest.mark.parametrize(
    ("values", "changes", "said"),
    [
        ({"DEVICE": "tpu"}, {}, "DEVICE is 'tpu'"),
        ({"DEVICE": "gpu"}, {}, "Slurm has given no GPU"),
        ({"MEMORY_GIB": "3"}, {}, "need --mem=6G"),
        ({"TLS": "/nowhere"}, {}, "make_certificates.sh /nowhere"),
        ({}, {"SLURM_JOB_ID": ""}, "sbatch slurm.sbatch"),
    ],
)
def test_what_cannot_work_is_said_at_once(values, changes, said, slurm: Slurm, hosts, given, tmp_path):
    done = hosts[0].run("bash", batch(tmp_path, hosts, given, **values), **slurm.environment | changes)
    assert done.returncode == 2
    assert said in done.stderr
    assert not slurm.said()


def test_workers_that_do_not_start_end_the_job(slurm: Slurm, hosts: list[Host], given: Given, tmp_path):
    (slurm.folder / "srun").write_text("#!/bin/sh\nexit 1\n")
    done = hosts[0].run("bash", batch(tmp_path, hosts, given), **slurm.environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "0 of 2 workers" in done.stderr
    check_nothing_left(tmp_path)


@pytest.mark.slow
def test_an_error_in_the_settings_ends_the_job(slurm: Slurm, hosts: list[Host], given: Given, tmp_path):
    script = batch(tmp_path, hosts, given, STORE="/nowhere.zarr")
    done = hosts[0].run("bash", script, **slurm.environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "/nowhere.zarr" in done.stderr
    assert "scontrol" not in slurm.said()
    check_nothing_left(tmp_path)


# -- jobs that come and go --------------------------------------------------------------------------------------------


def jobs(place: Path, given: Given, **values: str) -> Path:
    settings = {
        "STORE": repr(str(given.store)), "RUN": repr(str(place / "run")), "LEVELS": repr(str(given.levels)),
        "JOBS": "(1, 2)", "PROCESSORS": "1", "MEMORY_GIB": "1", "INTERFACE": "'lo'", "TLS": "None",
        "SHARED": repr(str(place)), "LOGS": repr(str(place / "logs")),
    }  # fmt: skip
    return edited("jobqueue.py", place, **settings | values)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_job_of_a_worker(device, given: Given, tmp_path):
    pytest.importorskip("dask_jobqueue")
    tls = certificates(tmp_path / "tls")
    script = jobs(tmp_path, given, PROCESSORS="12", TLS=repr(str(tls)), DEVICE=repr(device), QUEUE="'long'")
    line = [sys.executable, script, "--job-script"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (tmp_path / "job.sh").write_text(done.stdout)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    asked = [text for text in done.stdout.splitlines() if text.startswith("#SBATCH")]
    for wanted in ("--cpus-per-task=12", "--mem=2G", "-p long"):
        assert f"#SBATCH {wanted}" in asked
    assert ("#SBATCH --gpus=1" in asked) == (device == "gpu")
    worker = done.stdout.splitlines()[-1] or done.stdout.splitlines()[-2]
    for wanted in ("--nthreads 1", "--memory-limit 1.00GiB", f"--tls-key {tls}/dask.key", " tls://"):
        assert wanted in worker
    module = "dask_cuda.cli" if device == "gpu" else "distributed.cli.dask_worker"
    assert f"-m {module} " in worker
    assert ("--lifetime " in worker) == (device == "cpu")
    for threshold in ("TARGET", "SPILL", "PAUSE", "TERMINATE"):
        assert f"export DASK_DISTRIBUTED__WORKER__MEMORY__{threshold}=False" in done.stdout
    if device == "cpu":
        check_options("distributed.cli.dask_worker", worker)


def check_options(module: str, line: str) -> None:
    """Every option is one that the worker's command knows."""
    known = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True).stdout
    for option in re.findall(r"(?<= )--[a-z-]+", line):
        assert re.search(rf"{option}\b", known), option


@pytest.mark.slow
@pytest.mark.parametrize("tls", ["'temporary'", "FOLDER"])
def test_jobs_as_there_is_work(tls, slurm: Slurm, given: Given, loopback: list[Host], tmp_path):
    pytest.importorskip("dask_jobqueue")
    if tls == "'temporary'":
        pytest.importorskip("cryptography")
    else:
        tls = repr(str(certificates(tmp_path / "tls")))
    script = jobs(tmp_path, given, TLS=tls)
    done = loopback[0].run(sys.executable, script, **slurm.environment | {"NODES": "[[]]"})
    log = tmp_path / "job.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    assert given.digest in done.stdout
    # The work asked for a second job; at the end none is left.
    assert slurm.said().count("sbatch") >= 2
    assert "scancel" in slurm.said()
    check_nothing_left(tmp_path)


# -- one machine ------------------------------------------------------------------------------------------------------


def test_without_dask_cuda_one_is_told(tmp_path, given: Given):
    try:
        import dask_cuda  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("dask-cuda is installed")
    script = edited("one_node_gpus.py", tmp_path, STORE=repr(str(given.store)), RUN=repr(str(tmp_path / "run")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'streamcurate[cuda12]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
def test_the_same_tree_on_gpus(tmp_path, given: Given, gpus: None):
    settings = {"STORE": given.store, "RUN": tmp_path / "run", "LEVELS": given.levels}
    script = edited("one_node_gpus.py", tmp_path, MEMORY_GIB="4", **{k: repr(str(v)) for k, v in settings.items()})
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert given.digest in done.stdout
