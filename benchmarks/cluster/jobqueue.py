"""Build a hierarchy of clusters on workers that are Slurm jobs of their own, as many as there is work for.

    python jobqueue.py                 # builds; the same line goes on where it stopped
    python jobqueue.py --job-script    # prints what would be submitted for a worker, and ends

Copy this file, edit the marked lines, run it on a host from which jobs can be submitted and which the nodes can reach:
the Dask scheduler and the command live in this process, so give it a session that lasts (tmux) or a small job. Jobs may
be pre-empted and come back at any time. Needs dask-jobqueue; temporary certificates need cryptography.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

import streamcurate as sc

# ---- edit. Paths are absolute, and the same on every node --------------------------------------------------
STORE = "/shared/data/embeddings.zarr"
RUN = "/shared/runs/first"
LEVELS = "/shared/runs/first-levels.yaml"
# Fewest and most jobs at a time; each is one worker.
JOBS = (1, 16)
QUEUE: str | None = None
ACCOUNT: str | None = None
WALLTIME = "04:00:00"
# A worker ends by itself somewhat before its job would; Slurm's kill would lose the work at hand.
LIFETIME, LIFETIME_STAGGER = "225m", "10m"
# gpu: each job has one GPU.
DEVICE = "cpu"
PROCESSORS = 32
# Of each worker, and of this process. Jobs ask for somewhat more.
MEMORY_GIB = 96
# Network interface of the nodes for Dask, such as "ib0"; None: that of the default route.
INTERFACE: str | None = None
# "temporary": a pair of certificates for this one session. A folder that make_certificates.sh has made. None: no TLS,
# and whoever reaches the ports can run code as you.
TLS: str | None = "temporary"
# Seen by this host and by the nodes: temporary certificates go there.
SHARED = "/shared/runs"
LOGS = "/shared/runs/logs"
# Lines of shell before the worker starts, such as "module load cuda".
PROLOGUE: list[str] = []
# ---- leave the rest ----------------------------------------------------------------------------------------


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("--job-script", action="store_true", help="print what would be submitted, and end")
    options = reader.parse_args()
    # Cancelled: let the jobs go before this process ends.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    with cluster_of_jobs() as cluster:
        if options.job_script:
            print(cluster.job_script())
            return
        from distributed import Client

        # Jobs are asked for while tasks wait, one a worker (`cores=1` below), and given back after five idle minutes:
        # a queue may take longer than that to give another.
        cluster.adapt(minimum_jobs=JOBS[0], maximum_jobs=JOBS[1], target_duration="100ms", wait_count=300)
        with Client(cluster, set_as_default=False) as client:
            print(f"scheduler {cluster.scheduler_address}, dashboard {cluster.dashboard_link}", flush=True)
            try:
                tree = sc.cluster(
                    STORE,
                    RUN,
                    config=LEVELS,
                    client=client,
                    device=DEVICE,
                    threads=PROCESSORS,
                    memory_limit=f"{MEMORY_GIB}GiB",
                    progress=Lines(),
                )
            except sc.InputError as error:
                print(f"error: {error}", file=sys.stderr)
                sys.exit(2)
            print(f"{RUN}: digest {tree.digest}")


def cluster_of_jobs() -> Any:
    """A Dask scheduler in this process, and the description of a job that is one worker."""
    from dask_jobqueue import SLURMCluster

    for folder in (LOGS, SHARED):
        Path(folder).mkdir(parents=True, exist_ok=True)
    # streamcurate plans what each worker holds; Dask is not to spill, pause or kill on top of that.
    thresholds = [
        f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}=False" for name in ("TARGET", "SPILL", "PAUSE", "TERMINATE")
    ]
    worker: list[str] = ["--dashboard-address", "127.0.0.1:0"]
    kind: dict[str, Any] = {}
    directives: list[str] = []
    if DEVICE == "gpu":
        kind = {"worker_command": "dask_cuda.cli"}
        worker += ["--rmm-pool-size", "0.85", "--set-rmm-allocator-for-libs", "cupy"]
        directives = ["--gpus=1"]
    else:
        worker += ["--lifetime", LIFETIME, "--lifetime-stagger", LIFETIME_STAGGER]
    return SLURMCluster(
        queue=QUEUE,
        account=ACCOUNT,
        walltime=WALLTIME,
        # One Dask thread a worker: a task uses all of the job's processors by itself (`threads=` above).
        cores=1,
        processes=1,
        job_cpu=PROCESSORS,
        memory=f"{MEMORY_GIB}GiB",
        job_mem=f"{MEMORY_GIB + max(MEMORY_GIB // 10, 1)}G",
        interface=INTERFACE,
        security=security(),
        protocol="tls://" if TLS else "tcp://",
        shared_temp_directory=SHARED,
        # On the host of a job, not on the shared file system.
        local_directory="${TMPDIR:-/tmp}",
        log_directory=LOGS,
        job_script_prologue=[*PROLOGUE, *thresholds],
        job_extra_directives=directives,
        worker_extra_args=worker,
        # The dashboard knows no passwords: loopback only.
        scheduler_options={"dashboard_address": "127.0.0.1:8787"},
        **kind,
    )


def security() -> Any:
    """What Dask needs for TLS; None without."""
    if TLS is None:
        return None
    from distributed.security import Security

    if TLS == "temporary":
        return Security.temporary()
    authority, pair, key = (os.path.join(TLS, name) for name in ("authority.pem", "dask.pem", "dask.key"))
    for file in (authority, pair, key):
        if not os.access(file, os.R_OK):
            print(f"error: {file}: cannot be read; make it: bash make_certificates.sh {TLS}", file=sys.stderr)
            sys.exit(2)
    roles = ("client", "scheduler", "worker")
    return Security(
        tls_ca_file=authority,
        require_encryption=True,
        **{f"tls_{role}_cert": pair for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )


class Lines:
    """Prints what the run tells: a line a pass."""

    def started(self, name: str, rows: int) -> None:
        print(f"{name}: {rows:,} rows", flush=True)

    def advanced(self, rows: int, bytes: int) -> None: ...

    def finished(self) -> None: ...

    def note(self, text: str) -> None:
        print(text, flush=True)


if __name__ == "__main__":
    main()
