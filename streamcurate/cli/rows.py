"""``streamcurate rows``: lists of rows united, intersected, subtracted, or written in another form."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("rows")
@click.argument("how", type=click.Choice(["union", "intersection", "difference"]))
@click.argument("lists", nargs=-1, required=True, type=click.Path(), metavar="LIST...")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="Where to write, rows ascending: .npy (row numbers), .parquet or .csv (row, id) or .txt (ids, else row "
    "numbers). An existing file is replaced.",
)
@click.option(
    "--of",
    type=click.Path(),
    metavar="STORE|RUN",
    help="What the lists are about; needed for ids. By default a STORE or RUN among the lists.",
)
@click.option("--mask", is_flag=True, help="Write a mask: a boolean for each row of the store (.npy).")
@click.option("--memory-limit", metavar="SIZE", help="Such as 4GiB; by default half of what is free.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For long lists; by default beside FILE.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of sentences.")
def command(
    how: str,
    lists: tuple[str, ...],
    out: str,
    of: str | None,
    mask: bool,
    memory_limit: str | None,
    scratch: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Unite, intersect or subtract lists of rows.

    A list holds row numbers or a mask (.npy), ids (.txt), or a column 'row' or 'id' (.parquet, .csv), as dedup,
    retrieve, exclude and sample write them. A STORE or RUN in place of a list is all its rows. The difference is the
    first list without the rows of all others; of one list alone, FILE holds its rows in another form.
    """
    from streamcurate.display.progress import Progress
    from streamcurate.neighbors.row_files import check_destination
    from streamcurate.objects import is_url
    from streamcurate.pipeline.row_lists import combine_rows
    from streamcurate.sampling.words import counted

    check_destination(out)  # beside which scratch is made
    place = scratch or (None if is_url(out) else str(Path(out).absolute().parent))
    with Progress(quiet=quiet) as progress:
        options = {"mask": mask, "memory_limit": memory_limit, "scratch": place}
        found = combine_rows(how, lists, out, of, progress=progress, **options)  # type: ignore[arg-type]
    if as_json:
        named = [{"name": name, "rows": rows} for name, rows in found.lists]
        click.echo(json.dumps({"how": how, "lists": named, "rows": found.count, "out": out}))
        return
    for name, rows in found.lists:
        click.echo(f"{name}: {counted(rows, 'row')}")
    said = f", the {how}" if len(lists) > 1 else ""
    click.echo(f"{out}: {counted(found.count, 'row')}{said}")
