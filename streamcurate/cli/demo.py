"""``streamcurate demo``: two small pools, from file to balanced draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamcurate.demo import Curated


@click.command("demo")
@click.argument("folder", type=click.Path(), default="streamcurate-demo")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(folder: str, quiet: bool) -> None:
    """Curate two small pools that come with the package into FOLDER (./streamcurate-demo by default).

    Five rings of very different numbers of points, and handwritten digits of which most are zeros and ones. For each:
    the store, the run directory, a balanced draw, and a picture of before and after. Takes less than a minute; the same
    command again goes on where an earlier one stopped.
    """
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.demo import POOLS, curate, prepare_folder
    from streamcurate.demo.curation import MARKER
    from streamcurate.display.progress import Progress
    from streamcurate.files import write_json
    from streamcurate.version import __version__

    place = prepare_folder(folder)
    set_resume_hint(f"what is done is kept in {folder}; give the same command again to go on")
    if not quiet:
        click.echo("The first run on a machine compiles the kernels, which takes some seconds more.", err=True)
    done: list[Curated] = []
    for make_pool in POOLS:
        pool = make_pool()
        with Progress(quiet=quiet) as progress:
            progress.note(f"{pool.title}: {len(pool.rows):,} rows of {pool.rows.shape[1]} dimensions")
            done.append(curate(pool, place, progress))
        for line in result_lines(done[-1]):
            click.echo(line)
    figures = {curated.pool.name: curated.figures() for curated in done}
    write_json(place / MARKER, {"version": __version__, "figures": figures})
    for line in next_lines(folder, done):
        click.echo(line)


def result_lines(curated: Curated) -> list[str]:
    """What happened to a pool, for the terminal."""
    pool = curated.pool
    table = [
        (f"all {len(pool.rows):,}", pool.counts(), curated.before),
        (f"{pool.size:,} at random", pool.counts(curated.at_random), curated.random),
        (f"{pool.size:,} balanced", pool.counts(curated.selection.rows), curated.after),
    ]
    width = max(len(f"{count:,}") for _, counts, _ in table for count in counts)
    head = f"rows of each {pool.group_word}"
    lines = [
        f"{pool.title}: KL to even shares {curated.before:.3f} → {curated.after:.3f}  ({curated.seconds:.0f} s)",
        f"  {head:<20}" + "".join(f"  {name:>{width}}" for name in _short(pool.group_names)),
    ]
    for label, counts, value in table:
        lines.append(f"  {label:<20}" + "".join(f"  {count:>{width},}" for count in counts) + f"   KL {value:.3f}")
    return lines


def next_lines(folder: str, done: Sequence[Curated]) -> list[str]:
    """Where to look now."""
    first = done[0]
    return [
        "",
        "Look at",
        *[f"  {curated.picture}" for curated in done],
        "Try",
        f"  streamcurate inspect {first.folder / 'run'}",
        f"  streamcurate sample {first.folder / 'run'} --size 200 --out {first.folder / 'fewer.parquet'}",
        f"  streamcurate cluster {first.folder / 'emb.zarr'} {first.folder / 'flat'} --levels 300",
        "Then your own embeddings",
        "  streamcurate ingest 'shards/*.npy' emb.zarr",
        "  streamcurate cluster emb.zarr run --levels 5000,1000",
        "  streamcurate sample run --size 20000 --out curated.parquet",
    ]


def _short(names: Sequence[str]) -> list[str]:
    return [name.rsplit(" ", 1)[-1] for name in names]
