"""``streamcurate extend``: a finished tree with more rows in it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("extend")
@click.argument("run", type=click.Path())
@click.argument("embeddings", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate arrays; by default inside OUT.")
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
    """Add the rows of EMBEDDINGS to the finished tree of RUN, in a new run directory OUT.

    The centroids stay as they are; labels, distances, members and sizes are those of both stores, the new rows numbered
    behind the old ones, and `sample OUT` draws from both. RUN is not touched. The same line again goes on where an
    earlier one stopped.
    """
    from streamcurate.cli.errors import announce
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.curated import extend
    from streamcurate.display.progress import Progress

    set_resume_hint(f"what is done is kept for {out}; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            tree = extend(
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
    if quiet:  # no progress, but nothing silent
        for text in tree.warnings:
            announce(f"warning: {text}")
    extension = tree.manifest.extension
    assert extension is not None
    assert extension.novelty is not None
    novelty = extension.novelty
    if as_json:
        counts = {"rows": tree.manifest.store.rows, "stores": len(extension.stores), "digest": tree.digest, "out": out}
        told = {**asdict(novelty), "share": novelty.share}
        click.echo(json.dumps({**counts, "novelty": told, "warnings": tree.warnings}))
        return
    click.echo(f"{out}: {tree.manifest.store.rows:,} rows of {len(extension.stores)} stores, digest {tree.digest}")
    click.echo(novelty.told())
