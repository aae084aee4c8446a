"""``streamcurate exclude``: the rows that are near no unwanted example."""

from __future__ import annotations

import json

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("exclude")
@click.argument("source", type=click.Path())
@click.argument("unwanted", type=click.Path())
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="The rows that stay: .npy (a mask over all rows), .parquet or .csv (row, id), or .txt (ids). An existing file "
    "is replaced.",
)
@click.option(
    "--removed",
    type=click.Path(),
    metavar="FILE",
    help="The rows that go: .parquet or .csv (row, id, unwanted, unwanted_id, distance), .npy (row numbers) or .txt.",
)
@click.option("--cosine", type=float, metavar="T", help="Rows go whose cosine similarity to an example is at least T.")
@click.option("--l2", type=float, metavar="R", help="Rows go whose Euclidean distance to an example is at most R.")
@click.option(
    "--subset", type=click.Path(), metavar="LIST", help="Look at these rows alone (.npy, .txt, .csv, .parquet)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate arrays; by default beside FILE.")
@computing_options
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    source: str,
    unwanted: str,
    out: str,
    removed: str | None,
    cosine: float | None,
    l2: float | None,
    subset: str | None,
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
    """List the rows of SOURCE, a run or a store, that are near no row of UNWANTED.

    FILE is taken by --eligible and --subset as it is. The same line again goes on where an earlier one stopped.
    """
    from streamcurate.cli.kept import telling_what_is_kept
    from streamcurate.display.progress import Progress
    from streamcurate.pipeline.retrieve import exclude
    from streamcurate.sampling.words import counted

    with telling_what_is_kept(out, "exclude", scratch), Progress(quiet=quiet) as progress:
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            found = exclude(
                source,
                unwanted,
                out,
                removed=removed,
                cosine=cosine,
                l2=l2,
                subset=subset,
                memory_limit=limit,
                scratch=scratch,
                device=device,
                client=client,
                threads=threads,
                progress=progress,
            )
    if as_json:
        said = {"rows": found.rows, "kept": found.kept, "removed": found.removed, "out": out}
        click.echo(json.dumps(said | ({} if removed is None else {"removed_out": removed})))
        return
    verb = "stays" if found.kept == 1 else "stay"
    gone = "goes" if found.removed == 1 else "go"
    click.echo(
        f"{out}: {found.kept:,} of {counted(found.kept + found.removed, 'row')} {verb}, {found.removed:,} {gone}"
    )
