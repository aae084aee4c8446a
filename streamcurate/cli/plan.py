"""``streamcurate plan``: what a run would take, before anything runs."""

from __future__ import annotations

import json

import click


@click.command("plan")
@click.argument("embeddings", type=click.Path())
@click.option("--config", type=click.Path(), metavar="FILE", help="Levels, metric and seed as YAML.")
@click.option("--levels", metavar="K1,K2,..", help="Clusters of each level, from the rows upwards; no resampling.")
@click.option("--metric", type=click.Choice(["l2", "cosine"]), help="Overrides the file; l2 by default.")
@click.option("--seed", type=int, metavar="N", help="Overrides the file; 0 by default.")
@click.option(
    "--subset",
    type=click.Path(),
    metavar="LIST",
    help="Rows to use: row numbers or a mask (.npy), ids (.txt), or a column row or id (.parquet, .csv).",
)
@click.option(
    "--memory-limit", metavar="SIZE", help="Memory of each process, such as 4GiB; by default half of what is free."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Plan for N processes of this machine.")
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Blocks at a time; by default one a processor."
)
@click.option(
    "--scratch", type=click.Path(), metavar="DIR", help="Where the run would write; by default the working directory."
)
@click.option(
    "--on",
    default="this",
    show_default=True,
    metavar="HARDWARE",
    help="this machine, GPUs such as 8xH100, or CPU nodes by their speed, such as 16x500GFLOPS.",
)
@click.option("--rates", type=click.Path(), metavar="FILE", help="Rates kept by --calibrate, instead of measuring.")
@click.option("--calibrate", type=click.Path(), metavar="FILE", help="Keep what is measured in FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    embeddings: str,
    config: str | None,
    levels: str | None,
    metric: str | None,
    seed: int | None,
    subset: str | None,
    memory_limit: str | None,
    workers: int | None,
    threads: int | None,
    scratch: str | None,
    on: str,
    rates: str | None,
    calibrate: str | None,
    as_json: bool,
) -> None:
    """Show what clustering EMBEDDINGS would take: passes, bytes, operations, memory, disk and time.

    A few seconds are spent on measuring with a sample of the rows; no run is begun, and nothing is left behind. Where
    the memory limit does not allow it, the plan is shown and the status is 2, as that of cluster would be.
    """
    from streamcurate.errors import MemoryLimitError
    from streamcurate.pipeline.plan import plan

    found = plan(
        embeddings,
        levels=levels,
        config=config,
        metric=metric,
        seed=seed,
        subset=subset,
        memory_limit=memory_limit,
        workers=workers,
        threads=threads,
        scratch=scratch,
        on=on,
        rates=rates,
        calibrate_to=calibrate,
        start_seconds=_process_seconds(),
    )
    click.echo(json.dumps(found.to_mapping()) if as_json else str(found))
    if found.refusal is not None:
        raise MemoryLimitError(found.refusal)


def _process_seconds() -> float:
    """How long this process has been there: what starting one takes."""
    import time

    import psutil

    return max(time.time() - float(psutil.Process().create_time()), 0.0)
