"""``streamcurate ingest``: embeddings from files into a store."""

from __future__ import annotations

from typing import Literal

import click

from streamcurate.cli.signals import set_resume_hint


@click.command("ingest")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@click.argument("out", metavar="OUT")
@click.option("--column", metavar="NAME", help="Column, array or tensor of embeddings, where there are several.")
@click.option(
    "--ids",
    metavar="NAME|FILE",
    help="Column of ids; a file with an id a row (.txt .npy .csv .parquet[:COLUMN]); or a quoted pattern or a folder/ "
    "of such files, one for each source.",
)
@click.option("--dtype", type=click.Choice(["float16", "float32"]), help="Of the store; the sources' own by default.")
@click.option("--rows-per-chunk", type=click.IntRange(min=1), metavar="N", help="Chunks of about 64 MiB by default.")
@click.option(
    "--rows-per-shard",
    type=click.IntRange(min=1),
    metavar="N",
    help="Files of N rows, several chunks each: for stores that would be millions of files. By default a file a chunk.",
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with rows that hold NaN, Inf or values beyond the dtype.",
)
@click.option("--metric", type=click.Choice(["l2", "cosine"]), help="cosine: rows of zeros are bad rows too.")
@click.option("--memory-limit", metavar="SIZE", help="Refuse sources and chunks that need more, such as 4GiB.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    sources: tuple[str, ...],
    out: str,
    column: str | None,
    ids: str | None,
    dtype: str | None,
    rows_per_chunk: int | None,
    rows_per_shard: int | None,
    on_bad_row: str,
    metric: Literal["l2", "cosine"] | None,
    memory_limit: str | None,
    quiet: bool,
) -> None:
    """Read embeddings from SOURCES into the new store OUT.

    SOURCES are files, folders of files of one format, and quoted patterns ('shards/*.npy'), in natural order: .npy,
    .npz, Parquet, Arrow, folders saved by Hugging Face datasets, .safetensors, .pt, Lance, Zarr. Every row is checked.
    When it is stopped, the same command goes on; on a finished store it has nothing to do. SOURCES and OUT may be URLs
    (s3:// gs:// az://; http:// too for SOURCES).
    """
    from streamcurate.display.progress import Progress
    from streamcurate.embeddings.ingest import ingest
    from streamcurate.objects import is_url
    from streamcurate.streaming.budget import format_bytes

    files = "chunks" if rows_per_shard is None else "shards"
    # At a URL they lie where they belong, and beside them how far it is.
    where = f" at {out.rstrip('/')}" if is_url(out) else f" in {out.rstrip('/')}.partial"
    set_resume_hint(f"finished {files} are kept{where}; give the same command again to go on")
    with Progress(quiet=quiet) as progress:
        embeddings = ingest(
            list(sources),
            out,
            column=column,
            ids=ids,
            dtype=dtype,
            rows_per_chunk=rows_per_chunk,
            rows_per_shard=rows_per_shard,
            on_bad_row="drop" if on_bad_row == "drop" else "error",
            metric=metric,
            memory_limit=memory_limit,
            progress=progress,
        )
    size = format_bytes(embeddings.rows * embeddings.dims * embeddings.dtype.itemsize)
    click.echo(f"{out}: {embeddings.rows:,} rows of {embeddings.dims} dimensions, {embeddings.dtype.name}, {size}")
