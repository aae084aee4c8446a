"""The options that say how a draw is shared among clusters, the same for ``sample`` and ``explain``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def allocation_options(command: _Command) -> _Command:
    """Add ``--allocation``, ``--alpha``, ``--least-rows``, ``--weights``, ``--outlier-share`` and their companions."""
    for option in (
        click.option(
            "--outlier-percentile",
            type=float,
            metavar="P",
            help="Below the top level an outlier lies farther out than clusters with P % of the rows; by default 90.",
        ),
        click.option("--outlier-rows", type=int, metavar="N", help="Most rows of an outlier; by default 1."),
        click.option(
            "--outlier-share",
            type=float,
            metavar="S",
            help="Lone outliers give together at most this share (0 to 1) of what their parent gives.",
        ),
        click.option(
            "--weights",
            type=click.Path(),
            metavar="FILE",
            help="Of single clusters: columns level, cluster and any of weight, cap, least (.csv, .parquet).",
        ),
        click.option(
            "--least-rows-level",
            type=int,
            metavar="L",
            help="The level of --least-rows; 1, above the rows, by default.",
        ),
        click.option("--least-rows", type=int, metavar="N", help="Clusters with fewer rows give nothing."),
        click.option("--alpha", type=float, metavar="A", help="For power: 0 is balanced, 1 is proportional."),
        click.option(
            "--allocation",
            type=click.Choice(["balanced", "proportional", "power"]),
            default="balanced",
            show_default=True,
            help="Clusters give evenly, in proportion to their rows, or to their rows to the power of --alpha.",
        ),
    ):
        command = option(command)
    return command


def draw_options(command: _Command) -> _Command:
    """Add the options of a draw: ``--strategy``, ``--multiplier``, ``--seed``, ``--include``, ``--eligible``."""
    for option in (
        click.option(
            "--eligible",
            type=click.Path(),
            metavar="LIST",
            help="Draw among these rows alone: row numbers or a mask (.npy), ids (.txt), or a column 'row' or 'id' "
            "(.parquet, .csv).",
        ),
        click.option(
            "--include",
            type=click.Path(),
            metavar="EARLIER",
            help="An earlier draw (.parquet, .npy, .csv, .arrow, .zarr): its rows stay and count towards --size.",
        ),
        click.option(
            "--seed", type=int, default=0, show_default=True, metavar="N", help="The same seed gives the same draw."
        ),
        click.option(
            "--multiplier", type=int, default=1, show_default=True, metavar="M", help="How often one row may be drawn."
        ),
        click.option(
            "--strategy",
            type=click.Choice(["random", "closest", "furthest"]),
            default="random",
            show_default=True,
            help="Which rows of a cluster come first.",
        ),
    ):
        command = option(command)
    return command
