"""``streamcurate report``: one page about a finished run and a draw from it."""

from __future__ import annotations

import json
from typing import Any

import click

from streamcurate.cli.allocations import allocation_options, draw_options


@click.command("report")
@click.argument("run", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(), metavar="FILE.html", help="Where to write. A file is replaced."
)
@click.option(
    "--selection", type=click.Path(), metavar="DRAW", help="The draw it is about (.parquet, .npy, .csv, .arrow, .zarr)."
)
@click.option(
    "--size", type=int, metavar="N", help="Or draw N rows now; by default a tenth of the rows, at most a million."
)
@draw_options
@allocation_options
@click.option(
    "--branch", metavar="ROW|L:J", help="Explain quotas down to this row, or to cluster J of level L, such as 2:17."
)
@click.option(
    "--metadata",
    multiple=True,
    metavar="PATTERN",
    help="Parquet files whose columns are shown: row i of all files is row i of the store.",
)
@click.option("--metadata-key", metavar="COLUMN", help="The metadata's column that holds the ids, to go by that.")
@click.option("--columns", metavar="A,B,..", help="Which columns of the metadata; all by default.")
@click.option(
    "--images",
    metavar="FOLDER|COLUMN",
    help="Thumbnails: of files called by the rows' ids, or of those that a column of the metadata holds.",
)
@click.option("--memory-limit", metavar="SIZE", help="Such as 4GiB; by default half of what is free.")
@click.option("--scratch", type=click.Path(), metavar="DIR", help="For what does not fit into memory.")
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Blocks at a time; by default one a processor."
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as one JSON object instead of a sentence.")
@click.pass_context
def command(
    context: click.Context,
    /,
    run: str,
    out: str,
    selection: str | None,
    size: int | None,
    branch: str | None,
    metadata: tuple[str, ...],
    metadata_key: str | None,
    columns: str | None,
    images: str | None,
    memory_limit: str | None,
    scratch: str | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
    **draw: Any,
) -> None:
    """Write one HTML page about the finished RUN and a draw from it.

    It shows how evenly the rows lie over the clusters of every level, in the pool, in the draw, and in draws of the
    same size at random; how far the pool's rows are from the nearest drawn one; maps; what lies in the top clusters;
    and how the run went. The page is one file that needs no network.
    """
    from streamcurate.display.progress import Progress
    from streamcurate.reports import report

    # With a selection, options of a draw are refused: those that were not given do not count.
    given = {name: value for name, value in draw.items() if selection is None or _was_given(context, name)}
    with Progress(quiet=quiet) as progress:
        written = report(
            run,
            out,
            selection,
            size,
            branch=branch,
            metadata=list(metadata) or None,
            metadata_key=metadata_key,
            columns=columns,
            images=images,
            memory_limit=memory_limit,
            scratch=scratch,
            threads=threads,
            progress=progress,
            **given,
        )
    if as_json:
        click.echo(json.dumps({"out": written.path, "bytes": written.bytes, **written.figures}))
        return
    rows, drawn = written.figures["rows"], written.figures["drawn"]
    click.echo(f"{written.path}: {written.bytes / 1e6:.1f} MB about {rows:,} rows and a draw of {drawn:,}")


def _was_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
