"""``streamcurate cluster``: build the hierarchy."""

from __future__ import annotations

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("cluster")
@click.argument("embeddings", type=click.Path())
@click.argument("run", type=click.Path())
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
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate arrays; by default inside RUN.")
@computing_options
@click.option(
    "--reuse", type=click.Path(), metavar="RUN", help="Take over identical leading levels of another run of the store."
)
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    embeddings: str,
    run: str,
    config: str | None,
    levels: str | None,
    metric: str | None,
    seed: int | None,
    subset: str | None,
    memory_limit: str | None,
    scratch: str | None,
    device: str,
    threads: int | None,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    reuse: str | None,
    quiet: bool,
) -> None:
    """Build the hierarchy of clusters over EMBEDDINGS in the directory RUN.

    The same line again goes on where an earlier one stopped, and does nothing once the run is finished. Memory limit,
    scratch, device, threads and workers may change in between; levels, metric, seed and subset may not.
    """
    from streamcurate.cli.errors import announce
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.display.progress import Progress
    from streamcurate.pipeline import cluster, resolve_config

    resolved = resolve_config(levels, config, metric, seed, subset)
    set_resume_hint(f"what is done is kept in {run}; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        for note in resolved.notes:
            progress.note(note)
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            tree = cluster(
                embeddings,
                run,
                config=resolved,
                memory_limit=limit,
                scratch=scratch,
                device=device,
                threads=threads,
                client=client,
                reuse=reuse,
                progress=progress,
            )
    if quiet:  # no progress, but nothing silent
        for text in tree.warnings:
            announce(f"warning: {text}")
    clusters = ", ".join(f"{record.clusters:,}" for record in tree.manifest.levels)
    click.echo(f"{run}: {clusters} clusters, digest {tree.digest}")
