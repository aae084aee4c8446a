"""``streamcurate sample``: a balanced draw from a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from streamcurate.cli.allocations import allocation_options, draw_options
from streamcurate.cli.signals import set_resume_hint


@click.command("sample")
@click.argument("run", type=click.Path())
@click.option("--size", required=True, type=int, metavar="N", help="Rows to draw, copies counted.")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="Where to write: .parquet or .csv (a line per distinct row, with labels, distances and copies), .npy (row "
    "numbers), .arrow (the same, as an index of Hugging Face datasets), .txt (ids), .jsonl (ids by shard), all "
    "repeated per copy, or .zarr (the rows as a new store). An existing file is replaced.",
)
@draw_options
@allocation_options
@click.option(
    "--metadata",
    multiple=True,
    metavar="PATTERN",
    help="Parquet files whose columns are written too: row i of all files is row i of the store.",
)
@click.option("--metadata-key", metavar="COLUMN", help="The metadata's column that holds the ids, to go by that.")
@click.option("--columns", metavar="A,B,..", help="Which columns of the metadata; all by default.")
@click.option(
    "--shard-digits",
    type=int,
    metavar="N",
    help="For .jsonl: the first N characters of a key name its shard (5 for img2dataset); else its metadata file does.",
)
@click.option("--memory-limit", metavar="SIZE", help="Such as 4GiB; by default half of what is free.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For what does not fit; by default beside FILE.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a sentence.")
def command(
    run: str,
    size: int,
    out: str,
    strategy: str,
    multiplier: int,
    seed: int,
    include: str | None,
    eligible: str | None,
    metadata: tuple[str, ...],
    metadata_key: str | None,
    columns: str | None,
    shard_digits: int | None,
    memory_limit: str | None,
    scratch: str | None,
    quiet: bool,
    as_json: bool,
    **allocation: Any,
) -> None:
    """Draw a balanced sample from the finished RUN and write it to a file.

    Every cluster of the top level gives the same number of rows as far as it can, and so down to the rows; --allocation
    and what follows it change that, and streamcurate explain shows how. Cheap to repeat with another size; with the
    same seed and options a smaller draw is part of a larger one.
    """
    from streamcurate.display.progress import Progress
    from streamcurate.objects import is_url
    from streamcurate.sampling import check_destination, check_options, make_options, sample, write
    from streamcurate.sampling.words import allocation_words, counted
    from streamcurate.tree import open_tree

    check_destination(out)
    if out.lower().rstrip("/").endswith(".zarr"):
        set_resume_hint(f"what is written is kept in {out.rstrip('/')}.partial; give the same command again to go on")
    place = scratch or (None if is_url(out) else str(Path(out).absolute().parent))
    with Progress(quiet=quiet) as progress:
        options = make_options(
            metadata=list(metadata) or None,
            metadata_key=metadata_key,
            columns=columns,
            shard_digits=shard_digits,
            memory_limit=memory_limit,
            scratch=place,
            progress=progress,
        )
        tree = open_tree(run)
        check_options(tree, out, options)
        selection = sample(
            tree,
            size,
            strategy,
            multiplier,
            seed,
            include,
            eligible,
            memory_limit=memory_limit,
            scratch=place,
            progress=progress,
            **allocation,
        )
        write(selection, out, options)
    drawn, unique = len(selection), len(selection.unique_rows)
    if as_json:
        said: dict[str, Any] = {
            "rows": drawn,
            "unique": unique,
            "strategy": strategy,
            "multiplier": multiplier,
            "out": out,
        }
        if selection.eligible is not None:
            said["eligible"] = selection.eligible
        if selection.allocation:
            said["allocation"] = dict(selection.allocation)
        if selection.notes:
            said["notes"] = list(selection.notes)
        click.echo(json.dumps(said))
    else:
        distinct = "" if unique == drawn else f" ({unique:,} distinct)"
        among = "" if selection.eligible is None else f" of {selection.eligible:,} eligible"
        how = "".join(f", {text}" for text in allocation_words(selection.allocation))
        place = out if is_url(out) else str(Path(out))
        click.echo(f"{place}: {counted(drawn, 'row')}{distinct}{among}, {strategy}, seed {seed}{how}")
