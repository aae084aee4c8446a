"""``streamcurate retrieve``: the rows near a set of seeds."""

from __future__ import annotations

import json

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("retrieve")
@click.argument("source", type=click.Path())
@click.argument("seeds", type=click.Path())
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="Where to write: .parquet or .csv (row, id, seed, seed_id, distance), .npy (row numbers) or .txt (ids). An "
    "existing file is replaced.",
)
@click.option("--cosine", type=float, metavar="T", help="Only rows whose cosine similarity to a seed is at least T.")
@click.option("--l2", type=float, metavar="R", help="Only rows whose Euclidean distance to a seed is at most R.")
@click.option("--nearest", type=int, metavar="M", help="The M rows nearest to any seed.")
@click.option("--per-seed", type=int, metavar="M", help="Of each seed its M nearest rows.")
@click.option(
    "--per-cluster", type=int, metavar="M", help="Of each cluster that holds seeds its M rows nearest to any."
)
@click.option(
    "--least-seeds", type=int, default=1, show_default=True, metavar="N", help="Clusters with fewer seeds give nothing."
)
@click.option("--level", type=int, default=1, show_default=True, metavar="L", help="Of the tree, for --per-cluster.")
@click.option(
    "--subset", type=click.Path(), metavar="LIST", help="Look at these rows alone (.npy, .txt, .csv, .parquet)."
)
@click.option(
    "--metric",
    type=click.Choice(["l2", "cosine"]),
    help="By default that of the radius, else of the tree, else cosine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate arrays; by default beside FILE.")
@computing_options
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    source: str,
    seeds: str,
    out: str,
    cosine: float | None,
    l2: float | None,
    nearest: int | None,
    per_seed: int | None,
    per_cluster: int | None,
    least_seeds: int,
    level: int,
    subset: str | None,
    metric: str | None,
    as_json: bool,
    scratch: str | None,
    memory_limit: str | None,
    device: str,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """List the rows of SOURCE, a run or a store, that are near the rows of SEEDS.

    Give a radius (--cosine or --l2), a quota (--nearest, --per-seed or --per-cluster), or both. FILE is taken by
    --include, --eligible and --subset as it is. The same line again goes on where an earlier one stopped.
    """
    from streamcurate.cli.kept import telling_what_is_kept
    from streamcurate.display.progress import Progress
    from streamcurate.pipeline.retrieve import retrieve_to
    from streamcurate.sampling.words import counted

    with telling_what_is_kept(out, "retrieve", scratch), Progress(quiet=quiet) as progress:
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            found = retrieve_to(
                out,
                source,
                seeds,
                cosine=cosine,
                l2=l2,
                nearest=nearest,
                per_seed=per_seed,
                per_cluster=per_cluster,
                least_seeds=least_seeds,
                level=level,
                subset=subset,
                metric=metric,
                memory_limit=limit,
                scratch=scratch,
                device=device,
                client=client,
                threads=threads,
                progress=progress,
            )
    if as_json:
        said = {"rows": found.rows, "of": found.looked_at, "seeds": found.seeds, **found.wanted.to_mapping()}
        if found.clusters is not None:
            said["clusters"] = found.clusters
        click.echo(json.dumps({**said, "out": out}))
        return
    where = "" if found.clusters is None else f" in {counted(found.clusters, 'cluster')} of level {level}"
    distance = "cosine distance (1 - cos)" if found.wanted.metric == "cosine" else "Euclidean distance"
    near = f"near {counted(found.seeds, 'seed')}{where}"
    click.echo(f"{out}: {found.rows:,} of {counted(found.looked_at, 'row')}, {near} by {distance}")
