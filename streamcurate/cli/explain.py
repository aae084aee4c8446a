"""``streamcurate explain``: how the quotas of a draw come about, down a branch."""

from __future__ import annotations

import json
from typing import Any

import click

from streamcurate.cli.allocations import allocation_options, draw_options
from streamcurate.errors import InputError


@click.command("explain")
@click.argument("run", type=click.Path())
@click.option("--size", required=True, type=int, metavar="N", help="Rows to draw, copies counted.")
@click.option("--row", type=int, metavar="R", help="Down to this row of the store.")
@click.option("--id", "name", metavar="ID", help="Down to the row of this id.")
@click.option("--cluster", metavar="L:J", help="Down to cluster J of level L, such as 1:17; level 1 is above the rows.")
@draw_options
@allocation_options
@click.option("--memory-limit", metavar="SIZE", help="Such as 4GiB; by default half of what is free.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For a long list of eligible rows.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(
    run: str,
    size: int,
    row: int | None,
    name: str | None,
    cluster: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Show how the quotas of a draw from the finished RUN come about; nothing is written.

    Give the options of the draw as to sample. From the root down to --row, --id or --cluster it shows what each cluster
    gives, how high its children are filled, and which bound holds the one on the branch; without any of the three, the
    clusters of the top level.
    """
    from streamcurate.display.progress import Progress
    from streamcurate.sampling import explain
    from streamcurate.tree import open_tree

    place = None if cluster is None else _parsed(cluster)
    with Progress(quiet=quiet) as progress:
        tree = open_tree(run)
        explanation = explain(tree, size, row=row, id=name, cluster=place, progress=progress, **options)
    click.echo(json.dumps(explanation.to_dict()) if as_json else str(explanation))


def _parsed(cluster: str) -> tuple[int, int]:
    level, colon, number = cluster.partition(":")
    if not (colon and level.isdecimal() and number.isdecimal()):
        raise InputError(f"--cluster {cluster}: a cluster is given as its level and its number, such as 1:17")
    return int(level), int(number)
