"""``streamcurate inspect``: what lies at a path."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from streamcurate.errors import InputError

# Rows whose norms are shown, in this many places of the store.
_SAMPLE_ROWS = 1024
_SAMPLE_PLACES = 16


@dataclass(frozen=True)
class Kind:
    """Something ``inspect`` knows.

    Attributes
    ----------
    name : str
        The value of ``kind`` in the JSON object.
    recognises : callable
        Whether it lies at a path.
    describe : callable
        Path → the other keys of the JSON object.
    lines : callable
        Path and description → what people read.
    """

    name: str
    recognises: Callable[[str], bool]
    describe: Callable[[str], dict[str, Any]]
    lines: Callable[[str, dict[str, Any]], list[tuple[str, str]]]


@click.command("inspect")
@click.argument("path", metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: str, as_json: bool) -> None:
    """Show what the store or run at PATH holds."""
    kind = next(kind for kind in KINDS if kind.recognises(path))
    description = kind.describe(path)
    if as_json:
        click.echo(json.dumps({"kind": kind.name, **description}))
        return
    click.echo(f"{path}: {kind.name}")
    lines = kind.lines(path, description)
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        click.echo(f"  {label:<{width}}  {text}")


# -- runs --------------------------------------------------------------------------------------------------------------


def _is_run(path: str) -> bool:
    from streamcurate.runs.manifest import MANIFEST_NAME

    return (Path(path) / MANIFEST_NAME).exists()


def _describe_run(path: str) -> dict[str, Any]:
    from streamcurate.runs.manifest import Manifest

    manifest = Manifest.read(path)
    return {
        "complete": manifest.complete,
        "digest": manifest.digest,
        "seed": manifest.seed,
        "metric": manifest.metric,
        "levels": [
            {
                "clusters": level.clusters,
                "rows": level.rows,
                "inertia": level.inertia,
                "empty": level.empty,
                "sizes": {"min": level.sizes.min, "median": level.sizes.median, "max": level.sizes.max},
            }
            for level in manifest.levels
        ],
        # Each names its level.
        "warnings": [warning for level in manifest.levels for warning in level.warnings],
    }


def _run_lines(path: str, run: dict[str, Any]) -> list[tuple[str, str]]:
    from streamcurate.runs.manifest import Manifest

    manifest = Manifest.read(path)
    store = manifest.store
    lines = [
        ("complete", "yes" if run["complete"] else "no; give the same cluster command again to go on"),
        ("digest", run["digest"] or "none yet"),
        ("seed", str(run["seed"])),
        ("metric", run["metric"]),
        ("store", f"{store.path}: {store.rows:,} rows of {store.dims} dimensions, {store.dtype}"),
    ]
    if manifest.subset is not None:
        lines.append(("subset", f"{manifest.subset.path}: {manifest.subset.rows:,} rows"))
    for number, level in enumerate(run["levels"], start=1):
        sizes = level["sizes"]
        lines.append(
            (
                f"level {number}",
                f"{level['clusters']:,} clusters of {level['rows']:,} rows, inertia {level['inertia']:g}, "
                f"{level['empty']:,} empty, sizes {sizes['min']:,} to {sizes['max']:,}, median {sizes['median']:g}",
            )
        )
    return lines + [("warning", warning) for warning in run["warnings"]]


# -- stores ------------------------------------------------------------------------------------------------------------


def _describe_store(path: str) -> dict[str, Any]:
    from streamcurate.embeddings.store import open_embeddings

    embeddings = open_embeddings(path)
    return {
        "rows": embeddings.rows,
        "dims": embeddings.dims,
        "dtype": embeddings.dtype.name,
        "ids": embeddings.ids is not None,
        "bytes": embeddings.rows * embeddings.dims * embeddings.dtype.itemsize,
        "chunk_rows": embeddings.chunk_rows,
    }


def _store_lines(path: str, store: dict[str, Any]) -> list[tuple[str, str]]:
    from streamcurate.embeddings.store import open_embeddings
    from streamcurate.streaming.budget import format_bytes

    embeddings = open_embeddings(path)
    chunk = store["chunk_rows"] * store["bytes"] // store["rows"]
    lines = [
        ("rows", f"{store['rows']:,}"),
        ("dims", f"{store['dims']:,}"),
        ("dtype", store["dtype"]),
        ("bytes", f"{store['bytes']:,} ({format_bytes(store['bytes'])})"),
        ("chunks", f"{store['chunk_rows']:,} rows ({format_bytes(chunk)})"),
        ("ids", "none" if embeddings.ids is None else _ids_kind(embeddings.ids.dtype.kind)),
        ("norms", _norms(embeddings)),
        ("fingerprint", embeddings.fingerprint or "none noted (not made by ingest)"),
    ]
    noted = embeddings.attributes
    if dropped := noted.get("rows_dropped"):
        lines.append(("dropped", f"{dropped:,} bad rows when it was made"))
    sources = noted.get("sources") or []
    lines += [("source", f"{source['path']} ({format_bytes(source['bytes'])})") for source in sources[:5]]
    if (count := noted.get("source_count", len(sources))) > 5:
        lines.append(("source", f"and {count - 5:,} more"))
    return lines


def _ids_kind(kind: str) -> str:
    return "integers" if kind in "iu" else "strings"


def _norms(embeddings: Any) -> str:
    import numpy as np

    places = np.unique(np.linspace(0, embeddings.rows - 1, _SAMPLE_PLACES).astype(np.int64))
    each = _SAMPLE_ROWS // _SAMPLE_PLACES
    rows = np.unique((places[:, None] + np.arange(each)).clip(0, embeddings.rows - 1))
    norms = np.sqrt((embeddings.take(rows).astype(np.float64) ** 2).sum(axis=1))
    unusable = int((~np.isfinite(norms)).sum())
    warning = f"; {unusable} of them hold NaN or Inf" if unusable else ""
    finite = norms[np.isfinite(norms)]
    if not len(finite):
        return f"of {len(rows):,} rows, all hold NaN or Inf"
    return f"{finite.min():.4g} to {finite.max():.4g}, median {np.median(finite):.4g} (of {len(rows):,} rows{warning})"


def _is_anything(path: str) -> bool:
    from streamcurate.embeddings.store import PARTIAL_SUFFIX

    place = path.rstrip("/")
    if place.endswith(PARTIAL_SUFFIX) and (Path(place) / "job.json").exists():
        raise InputError(f"{path}: an unfinished ingest; give the same ingest command again, then inspect the store")
    return True


# The first that recognises a path describes it; the last takes everything, and its errors say what a path can be.
KINDS = (
    Kind("run", _is_run, _describe_run, _run_lines),
    Kind("embeddings", _is_anything, _describe_store, _store_lines),
)
