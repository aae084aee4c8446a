"""``streamcurate dedup``: find near-duplicates."""

from __future__ import annotations

import json

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("dedup")
@click.argument("source", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--cosine", type=float, metavar="T", help="Duplicates have a cosine similarity of T or more.")
@click.option("--l2", type=float, metavar="R", help="Duplicates have a Euclidean distance of R or less; 0: copies.")
@click.option(
    "--keep",
    type=click.Choice(["closest", "first", "random"]),
    default="closest",
    show_default=True,
    help="Which row of a group: nearest to its centroid, lowest row number, or any.",
)
@click.option("--seed", type=int, metavar="N", help="For --keep random; by default 0.")
@click.option(
    "--subset",
    type=click.Path(),
    metavar="LIST",
    help="Rows of a store to look at: numbers or a mask (.npy), ids (.txt), or a column row or id (.parquet, .csv).",
)
@click.option("--clusters", type=int, metavar="K", help="Clusters to cut a store into first; by default by its rows.")
@click.option(
    "--most-neighbours",
    type=int,
    metavar="N",
    help="Compare two cells of rows only if one is among the N nearest of the other, and list what is left out; by "
    "default all that could hold duplicates are compared.",
)
@click.option(
    "--search",
    type=click.Choice(["auto", "blas", "faiss"]),
    default="auto",
    show_default=True,
    help="What compares rows; changes no result.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate arrays; by default beside OUT.")
@computing_options
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    source: str,
    out: str,
    cosine: float | None,
    l2: float | None,
    keep: str,
    seed: int | None,
    subset: str | None,
    clusters: int | None,
    most_neighbours: int | None,
    search: str,
    as_json: bool,
    memory_limit: str | None,
    scratch: str | None,
    device: str,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Find the near-duplicates among the rows of SOURCE, a run or a store, and write into the folder OUT which to keep.

    OUT/keep.npy goes wherever a list of rows is asked for, such as --subset of cluster and --eligible of sample;
    OUT/removed.npy lists the rows that are not kept; OUT/duplicates.parquet tells of every row that has duplicates
    which group it is in, and whether it is kept. The same line again goes on where an earlier one stopped.
    """
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.display.progress import Progress
    from streamcurate.pipeline.dedup import dedup

    set_resume_hint("what is done is kept; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            found = dedup(
                source,
                out,
                cosine=cosine,
                l2=l2,
                keep=keep,
                seed=seed,
                subset=subset,
                clusters=clusters,
                most_neighbours=most_neighbours,
                search=search,
                memory_limit=limit,
                scratch=scratch,
                threads=threads,
                device=device,
                client=client,
                progress=progress,
            )
    for text in found.warnings:
        click.echo(f"warning: {text}", err=True)
    if as_json:
        click.echo(json.dumps({**found.summary, "out": out}))
        return
    for line in found.told():
        click.echo(f"{out}: {line}")
