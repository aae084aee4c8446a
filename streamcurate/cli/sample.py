"""``streamcurate sample``: a balanced draw from a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("sample")
@click.argument("run", type=click.Path())
@click.option("--size", required=True, type=int, metavar="N", help="Rows to draw, copies counted.")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="Where to write: .parquet or .csv (a line per distinct row, with labels, distance and copies), .npy (row "
    "numbers) or .txt (ids), both repeated per copy. An existing file is replaced.",
)
@click.option(
    "--strategy",
    type=click.Choice(["random", "closest", "furthest"]),
    default="random",
    show_default=True,
    help="Which rows of a cluster come first.",
)
@click.option(
    "--multiplier", type=int, default=1, show_default=True, metavar="M", help="How often one row may be drawn."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="The same seed gives the same draw.")
@click.option(
    "--include",
    type=click.Path(),
    metavar="EARLIER",
    help="An earlier draw (.parquet, .npy or .csv): its rows stay and count towards --size.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a sentence.")
def command(
    run: str,
    size: int,
    out: str,
    strategy: str,
    multiplier: int,
    seed: int,
    include: str | None,
    as_json: bool,
) -> None:
    """Draw a balanced sample from the finished RUN and write it to a file.

    Every cluster of the top level gives the same number of rows as far as it can, and so down to the rows. Cheap to
    repeat with another size; with the same seed a smaller draw is part of a larger one.
    """
    from streamcurate.sampling import check_destination, sample
    from streamcurate.tree import open_tree

    check_destination(out)
    selection = sample(open_tree(run), size, strategy, multiplier, seed, include)
    selection.save(out)
    drawn, unique = len(selection), len(selection.unique_rows)
    if as_json:
        click.echo(
            json.dumps({"rows": drawn, "unique": unique, "strategy": strategy, "multiplier": multiplier, "out": out})
        )
    else:
        distinct = "" if unique == drawn else f" ({unique:,} distinct)"
        click.echo(f"{Path(out)}: {drawn:,} rows{distinct}, {strategy}, seed {seed}")
