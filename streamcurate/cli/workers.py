"""The options that say where to compute, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def computing_options(command: _Command) -> _Command:
    """Add ``--memory-limit``, ``--device``, ``--workers``, ``--scheduler``, ``--scheduler-file`` and ``--threads``."""
    for option in (
        click.option(
            "--threads", type=click.IntRange(min=1), metavar="N", help="Blocks at a time; by default one a processor."
        ),
        click.option("--scheduler-file", type=click.Path(), metavar="FILE", help="File with a scheduler's address."),
        click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler, such as tls://host:8786."),
        click.option(
            "--workers", type=click.IntRange(min=1), metavar="N", help="Compute in N processes (with gpu: on N GPUs)."
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "gpu"]),
            default="auto",
            show_default=True,
            help="Where to compute.",
        ),
        click.option(
            "--memory-limit",
            metavar="SIZE",
            help="Memory of each process, such as 4GiB; by default half of what is free.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def connected(
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    device: str,
    memory_limit: str | None,
    threads: int | None,
    note: Callable[[str], None],
) -> Iterator[tuple[Any, int | None]]:
    """A Dask client where one is asked for, None otherwise; and the memory limit of each process."""
    from streamcurate.streaming.budget import parse_bytes

    limit = None if memory_limit is None else parse_bytes(memory_limit)
    wanted = workers is not None or scheduler is not None or scheduler_file is not None
    if not wanted and device != "gpu":
        yield None, limit
        return
    from streamcurate.streaming.dask import connect
    from streamcurate.streaming.dask.connection import worker_share

    if workers is not None:
        limit = worker_share(workers, limit)
    kind = "gpu" if device == "gpu" else "cpu"
    with connect(workers, scheduler, scheduler_file, kind, limit, threads, note) as client:
        yield client, limit
