"""Where the workers are: a local cluster made for one command, or a scheduler that runs already."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster
from distributed.security import Security
from distributed.utils import silence_logging_cmgr

from streamcurate.errors import ConfigError, InputError, RunError
from streamcurate.kernels import get_backend
from streamcurate.streaming.budget import SMALLEST_LIMIT, available_bytes, available_threads
from streamcurate.streaming.dask.workers import THREADS

_CONNECT_SECONDS = 30
# What goes wrong is told by the run.
_SILENCE = logging.CRITICAL
# Plans keep each worker within the memory limit, the interpreter included, and results stay with no worker: nothing is
# there to be spilled, and a worker that paused near its limit would wait for memory nobody gives back.
_WORKER_SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # They talk over the loopback interface, whatever the settings ask for between hosts.
    "distributed.comm.require-encryption": False,
    # A local cluster gives up a worker that is not there so long after it died, even where it had come back meanwhile
    # and has just died again. Here the nannies start dead workers for as long as the command runs.
    "distributed.deploy.lost-worker-timeout": "10000 days",
}
# Of a GPU's memory for the pool that CuPy allocates from; the rest is left to CUDA itself and its libraries.
_POOL_SHARE = 0.85


@contextmanager
def connect(
    workers: int | None = None,
    scheduler: str | None = None,
    scheduler_file: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    memory_limit: int | None = None,
    threads: int | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Client]:
    """A client of the workers asked for; closed at the end, and with it a cluster that was made here.

    Parameters
    ----------
    workers : int, optional
        Processes of a local cluster, on the loopback interface; with device gpu, GPUs to use (all by default).
    scheduler : str, optional
        Address of a running scheduler.
    scheduler_file : path, optional
        File in which a running scheduler has left its address.
    device : "cpu" or "gpu"
    memory_limit : int, optional
        Bytes of each worker of a local cluster.
    threads : int, optional
        Threads of each worker of a local cluster.
    note : callable
        Receives remarks.

    Raises
    ------
    ConfigError
        More than one of workers, scheduler and scheduler_file.
    InputError
        The file is not one of a scheduler, or a GPU, CuPy or dask-cuda is missing.
    RunError
        No scheduler answers.
    """
    given = [
        name
        for name, value in (
            ("--workers", workers),
            ("--scheduler", scheduler),
            ("--scheduler-file", scheduler_file),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them")
    with ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(_SILENCE))
        if scheduler is not None or scheduler_file is not None:
            address = scheduler or _address_in(scheduler_file)
            if not _is_private(address):
                note(
                    f"{address}: whoever reaches this port can run code on the workers; use tls:// between hosts "
                    "(see benchmarks/cluster/README.md)"
                )
            _check_certificates(address)
            client = _client(address, address)
        else:
            stack.enter_context(dask.config.set(_WORKER_SETTINGS))
            with _deaf_to_interrupts():
                made = (
                    _gpu_cluster(workers)
                    if device == "gpu"
                    else _cpu_cluster(workers or available_threads(), memory_limit, threads)
                )
            cluster = stack.enter_context(made)
            client = _client(cluster, cluster.scheduler_address)
        stack.enter_context(client)
        yield client


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Threads started inside, and whatever processes they ever start, do not see Ctrl-C.

    A terminal sends it to all processes of the command; the one that leads tells the others to stop.
    """
    # It would start with the first process, and lift the block for whoever started that.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_share(workers: int, memory_limit: int | None) -> int:
    """Bytes for each of so many workers and the driver: the limit, by default an even part of half of what is free."""
    if memory_limit is not None:
        return memory_limit
    return max(available_bytes() // 2 // (workers + 1), SMALLEST_LIMIT)


def _cpu_cluster(workers: int, memory_limit: int | None, threads: int | None) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        resources={THREADS: threads or max(available_threads() // workers, 1)},
        processes=True,
        memory_limit=worker_share(workers, memory_limit),
        **_local(),
    )


def _local() -> dict[str, Any]:
    """What local clusters have in common: loopback only, silence."""
    return {
        "host": "127.0.0.1",
        "protocol": "tcp://",
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": _SILENCE,
    }


def _gpu_cluster(workers: int | None) -> Any:
    """One worker for each GPU, whose CuPy allocates from an RMM pool."""
    get_backend("gpu")  # says what is missing
    missing = [name for name in ("dask_cuda", "rmm") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"device gpu: {' and '.join(name.replace('_', '-') for name in missing)} not installed; "
            "pip install 'streamcurate[cuda12]' or 'streamcurate[cuda13]', whichever the driver supports"
        )
    from dask_cuda import LocalCUDACluster

    try:
        return LocalCUDACluster(
            n_workers=workers,
            rmm_pool_size=_POOL_SHARE,
            rmm_allocator_external_lib_list=["cupy"],
            **_local(),
        )
    except ValueError as error:  # more workers than there are GPUs
        raise InputError(f"--workers {workers}: {error}; one worker uses one GPU") from error


def _client(target: Any, address: str) -> Client:
    try:
        return Client(target, timeout=_CONNECT_SECONDS, set_as_default=False, name="streamcurate")
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{address}: no Dask scheduler answers ({error}); check the address, and that it runs and can be reached"
        ) from error


def _check_certificates(address: str) -> None:
    """Refuse TLS without certificates here: a client that fails on that later cannot be closed any more."""
    if urlsplit(address).scheme not in ("tls", "wss"):
        return
    keys = "distributed.comm.tls.ca-file, .client.cert and .client.key"
    try:
        arguments = Security().get_connection_args("client")
    except OSError as error:
        raise InputError(f"{address}: a file that Dask's settings {keys} name cannot be used ({error})") from error
    if arguments.get("ssl_context") is None:
        raise InputError(
            f"{address}: talks TLS only, and no certificates are set here; set {keys} of Dask "
            "(see benchmarks/cluster/README.md)"
        )


def _address_in(file: str | os.PathLike[str] | None) -> str:
    assert file is not None
    try:
        return str(json.loads(Path(file).read_bytes())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: no scheduler's file ({type(error).__name__}: {error}); give the file that "
            "'dask scheduler --scheduler-file' has written"
        ) from error


def _is_private(address: str) -> bool:
    """Whether nobody but this machine, or whoever holds a certificate, can talk to an address."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme in ("tls", "wss", "inproc"):
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"
