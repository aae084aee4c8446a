"""``streamcurate assign``: label new rows with a finished tree."""

from __future__ import annotations

import json

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("assign")
@click.argument("run", type=click.Path())
@click.argument("embeddings", type=click.Path())
@click.option("--out", required=True, type=click.Path(), metavar="LABELS.zarr", help="Where to write; a new place.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate arrays; by default beside LABELS.")
@computing_options
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    run: str,
    embeddings: str,
    out: str,
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
    """Label the rows of EMBEDDINGS with the frozen tree of RUN, at every level.

    Tells how many of them lie farther from their centroid than 99 % of the rows the tree was built from. The same line
    again goes on where an earlier one stopped.
    """
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.curated import assign
    from streamcurate.display.progress import Progress

    set_resume_hint("what is done is kept; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            found = assign(
                run,
                embeddings,
                out,
                memory_limit=limit,
                scratch=scratch,
                device=device,
                client=client,
                threads=threads,
                progress=progress,
            )
    for text in found.warnings:
        click.echo(f"warning: {text}", err=True)
    assert found.novelty is not None
    if as_json:
        description = {"rows": found.rows, "levels": found.levels, "out": out}
        novelty = found.novelty.to_mapping()
        click.echo(json.dumps({**description, "novelty": novelty, "warnings": list(found.warnings)}))
        return
    click.echo(f"{out}: {found.rows:,} rows labelled at {found.levels} level{'s' * (found.levels != 1)}")
    click.echo(found.novelty.told())
