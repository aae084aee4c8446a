"""``streamcurate mix``: several sources, one export."""

from __future__ import annotations

import json

import click

from streamcurate.cli.workers import computing_options, connected


@click.command("mix")
@click.argument("config", type=click.Path(), metavar="MIXTURE.yaml")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="Where to write: .parquet, .csv or .jsonl (part, source, row, id, copies), .txt (ids, repeated per copy), or "
    ".zarr (the rows as a new store). An existing file is replaced.",
)
@click.option("--seed", type=int, metavar="N", help="In place of the file's.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For intermediate files; by default beside FILE.")
@computing_options
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of sentences.")
def command(
    config: str,
    out: str,
    seed: int | None,
    scratch: str | None,
    device: str,
    memory_limit: str | None,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Draw from several sources, as MIXTURE.yaml says, into one export.

    Parts are balanced draws from runs, rows near seeds, whole stores and lists of rows; each row is written with where
    it comes from. Paths in MIXTURE.yaml are relative to the working directory. The same line again goes on where an
    earlier one stopped.
    """
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.config.mixture import MixtureConfig
    from streamcurate.display.progress import Progress
    from streamcurate.pipeline.mixture import mix
    from streamcurate.sampling.words import counted

    asked = MixtureConfig.from_file(config)
    set_resume_hint("finished parts are kept; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        options = (workers, scheduler, scheduler_file, device, memory_limit, threads)
        with connected(*options, progress.note) as (client, limit):
            found = mix(
                asked,
                out,
                seed=seed,
                memory_limit=limit,
                scratch=scratch,
                threads=threads,
                device=device,
                client=client,
                progress=progress,
            )
    if as_json:
        click.echo(json.dumps(found.to_mapping()))
        return
    for note in found.notes:
        click.echo(f"note: {note}")
    for part in found.parts:
        distinct = "" if part.distinct == part.given else f" ({part.distinct:,} distinct)"
        over = f", {part.passed_over:,} excluded or taken by others" if part.passed_over else ""
        click.echo(f"{part.name}: {counted(part.given, 'row')}{distinct} of {part.source}{over}")
    distinct = "" if found.distinct == len(found) else f" ({found.distinct:,} distinct)"
    click.echo(f"{out}: {counted(len(found), 'row')}{distinct}, seed {found.seed}")
