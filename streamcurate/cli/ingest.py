"""``streamcurate ingest``: embeddings from files into a store."""

from __future__ import annotations

from typing import Literal

import click

from streamcurate.cli.progress import Progress
from streamcurate.cli.signals import set_resume_hint


@click.command("ingest")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@click.argument("out", metavar="OUT")
@click.option("--column", metavar="NAME", help="Parquet column or array of a Zarr group that holds the embeddings.")
@click.option("--ids", metavar="NAME|FILE", help="Column of ids, or a file with an id a row (.txt .npy .parquet .csv).")
@click.option("--dtype", type=click.Choice(["float16", "float32"]), help="Of the store; the sources' own by default.")
@click.option("--rows-per-chunk", type=click.IntRange(min=1), metavar="N", help="Chunks of about 64 MiB by default.")
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with rows that hold NaN, Inf or values beyond the dtype.",
)
@click.option("--metric", type=click.Choice(["l2", "cosine"]), help="cosine: rows of zeros are bad rows too.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    sources: tuple[str, ...],
    out: str,
    column: str | None,
    ids: str | None,
    dtype: str | None,
    rows_per_chunk: int | None,
    on_bad_row: str,
    metric: Literal["l2", "cosine"] | None,
    quiet: bool,
) -> None:
    """Read embeddings from SOURCES (.npy, .parquet, Zarr) into the new store OUT.

    Every row is checked. Quoted patterns ('shards/*.npy') come in natural order. When it is stopped, the same command
    goes on; on a finished store it has nothing to do.
    """
    from streamcurate.embeddings.ingest import ingest
    from streamcurate.streaming.budget import format_bytes

    set_resume_hint(f"finished chunks are kept in {out.rstrip('/')}.partial; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        embeddings = ingest(
            list(sources),
            out,
            column=column,
            ids=ids,
            dtype=dtype,
            rows_per_chunk=rows_per_chunk,
            on_bad_row="drop" if on_bad_row == "drop" else "error",
            metric=metric,
            progress=progress,
        )
    size = format_bytes(embeddings.rows * embeddings.dims * embeddings.dtype.itemsize)
    click.echo(f"{out}: {embeddings.rows:,} rows of {embeddings.dims} dimensions, {embeddings.dtype.name}, {size}")
