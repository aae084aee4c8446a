"""``streamcurate inspect``: what lies at a path. It changes nothing there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamcurate.errors import InputError, StoreError

if TYPE_CHECKING:
    from streamcurate.embeddings.store import Embeddings
    from streamcurate.runs.manifest import Manifest

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
    """Show what the store, the run, the dedup or the labels of new rows at PATH hold."""
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
    from streamcurate.runs.manifest import Manifest

    return Manifest.exists(path)


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
        "stores": [{"path": store.path, "rows": store.rows} for store in manifest.stores],
        "subset": None if manifest.subset is None else {"path": manifest.subset.path, "rows": manifest.subset.rows},
        **_extension_of(manifest),
    }


def _extension_of(manifest: Manifest) -> dict[str, Any]:
    """What an extended run holds beside."""
    if manifest.extension is None:
        return {}
    mapping: dict[str, Any] = manifest.to_mapping()["extension"]
    novelty = manifest.extension.novelty
    if novelty is not None:
        mapping["novelty"]["share"] = novelty.share
    return {"extension": mapping}


def _run_lines(path: str, run: dict[str, Any]) -> list[tuple[str, str]]:
    from streamcurate.runs.manifest import Manifest

    manifest = Manifest.read(path)
    lines = [
        ("complete", "yes" if run["complete"] else f"no; {_how_to_go_on(path, manifest.command)}"),
        ("digest", run["digest"] or "none yet"),
        ("seed", str(run["seed"])),
        ("metric", run["metric"]),
    ]
    for number, store in enumerate(manifest.stores, start=1):
        label = "store" if manifest.extension is None else f"store {number}"
        lines.append((label, f"{store.path}: {store.rows:,} rows of {store.dims} dimensions, {store.dtype}"))
    if (extension := manifest.extension) is not None:
        lines.append(("extends", f"{extension.run}, digest {extension.digest}"))
        if extension.novelty is not None:
            lines.append(("novelty", extension.novelty.told()))
    if manifest.subset is not None:
        lines.append(("subset", f"{manifest.subset.path}: {manifest.subset.rows:,} rows"))
    for number, level in enumerate(run["levels"], start=1):
        sizes = level["sizes"]
        # From level 2 on, what is clustered are the clusters of the level below.
        members = "rows" if number == 1 else "points"
        lines.append(
            (
                f"level {number}",
                f"{level['clusters']:,} clusters of {level['rows']:,} {members}, inertia {level['inertia']:g}, "
                f"{level['empty']:,} empty, sizes {sizes['min']:,} to {sizes['max']:,}, median {sizes['median']:g}",
            )
        )
    return lines + [("warning", warning) for warning in run["warnings"]]


def _how_to_go_on(path: str, command: str) -> str:
    from streamcurate.runs.lock import writer_of

    writer = writer_of(path)
    return f"give the same {command} command again to go on" if writer is None else f"it is being written by {writer}"


# -- near-duplicates ---------------------------------------------------------------------------------------------------


def _is_dedup(path: str) -> bool:
    from streamcurate.neighbors.duplicates import SUMMARY_NAME
    from streamcurate.objects import exists, join

    return exists(join(path.rstrip("/"), SUMMARY_NAME))


def _describe_dedup(path: str) -> dict[str, Any]:
    from streamcurate.neighbors.duplicates import open_duplicates

    found = open_duplicates(path)
    names = ("rows", "kept", "removed", "components", "sizes", "metric", "threshold", "keep", "seed")
    lists = {"keep_list": found.mask, "removed_list": found.removed_rows}
    shown = {name: found.summary[name] for name in names}
    return {"complete": found.complete, **shown, **lists, "warnings": list(found.warnings)}


def _dedup_lines(path: str, dedup: dict[str, Any]) -> list[tuple[str, str]]:
    from streamcurate.neighbors.duplicates import open_duplicates
    from streamcurate.neighbors.radius import Radius

    found = open_duplicates(path)
    source = found.summary["source"]
    rule = dedup["keep"] if dedup["seed"] is None else f"{dedup['keep']}, seed {dedup['seed']}"
    return [
        ("of", source["tree"] or source["path"] or "rows in memory"),
        ("duplicates", f"{Radius(dedup['metric'], dedup['threshold']).told()}; of each component is kept: {rule}"),
        *(("found", line) for line in found.told()),
        *(("warning", warning) for warning in dedup["warnings"]),
    ]


# -- labels of new rows ------------------------------------------------------------------------------------------------


def _is_labels(path: str) -> bool:
    from streamcurate.storage import node_kind, open_group_attributes

    if _is_unfinished_assign(path):
        return True
    return node_kind(path) == "group" and open_group_attributes(path).get("kind") == "labels"


def _is_unfinished_assign(path: str) -> bool:
    from streamcurate.objects import is_url

    return not is_url(path) and path.rstrip("/").endswith(".partial") and _job_of(path).get("kind") == "labels"


def _job_of(path: str) -> dict[str, Any]:
    """What unfinished work says it is; nothing where that cannot be read."""
    from streamcurate.objects import contents, join

    try:
        job = json.loads(contents(join(path, "job.json")) or b"{}")
    except ValueError:
        return {}
    return job if isinstance(job, dict) else {}


def _describe_labels(path: str) -> dict[str, Any]:
    from streamcurate.objects import join
    from streamcurate.storage import list_arrays, open_group_attributes
    from streamcurate.tree import level_name

    if path.rstrip("/").endswith(".partial"):
        raise InputError(f"{path}: an unfinished assign; give the same assign command again, then inspect its labels")
    levels = 0
    while "labels" in (arrays := list_arrays(join(path, level_name(levels + 1)))):
        shape, _ = arrays["labels"]
        levels += 1
    if not levels:
        raise StoreError(f"{path}: labels of new rows, but without the labels of level 1; assign them again")
    attributes = open_group_attributes(path)
    # Labels made by earlier versions have no novelty.
    novelty = {"novelty": attributes["novelty"]} if "novelty" in attributes else {}
    return {"rows": shape[0], "levels": levels, "tree": attributes["tree"], **novelty}


def _labels_lines(path: str, labels: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("rows", f"{labels['rows']:,}"),
        ("levels", str(labels["levels"])),
        ("tree", f"{labels['tree']['path']}, digest {labels['tree']['digest']}"),
        *([("novelty", _novelty_told(labels["novelty"]))] if "novelty" in labels else []),
    ]


def _novelty_told(novelty: dict[str, Any]) -> str:
    from streamcurate.runs.records import NoveltyRecord

    names = ("percentile", "threshold", "rows", "novel", "outside")
    return NoveltyRecord(**{name: novelty[name] for name in names}).told()


# -- stores ------------------------------------------------------------------------------------------------------------


def _describe_store(path: str) -> dict[str, Any]:
    from streamcurate.embeddings.store import open_embeddings

    embeddings = open_embeddings(path)
    return {
        "rows": embeddings.rows,
        "dims": embeddings.dims,
        "dtype": embeddings.dtype.name,
        "ids": embeddings.ids is not None,
        "fingerprint": embeddings.fingerprint,
        "bytes": embeddings.rows * embeddings.dims * embeddings.dtype.itemsize,
        **_chunks(embeddings),
    }


def _chunks(embeddings: Embeddings) -> dict[str, Any]:
    """Rows of a chunk, and of a shard where a file holds several chunks."""
    array = embeddings.array
    if array is None or array.unit_rows == array.chunk_rows:
        return {"chunk_rows": embeddings.chunk_rows}
    return {"chunk_rows": array.unit_rows, "shard_rows": array.chunk_rows}


def _store_lines(path: str, store: dict[str, Any]) -> list[tuple[str, str]]:
    from streamcurate.embeddings.store import open_embeddings
    from streamcurate.streaming.budget import format_bytes

    embeddings = open_embeddings(path)
    row = store["bytes"] // store["rows"]
    lines = [
        ("rows", f"{store['rows']:,}"),
        ("dims", f"{store['dims']:,}"),
        ("dtype", store["dtype"]),
        ("bytes", f"{store['bytes']:,} ({format_bytes(store['bytes'])})"),
        ("chunks", f"{store['chunk_rows']:,} rows ({format_bytes(store['chunk_rows'] * row)})"),
        *_shard_lines(store, row),
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


def _shard_lines(store: dict[str, Any], row_bytes: int) -> list[tuple[str, str]]:
    from streamcurate.streaming.budget import format_bytes

    rows = store.get("shard_rows")
    if rows is None:
        return []
    count = -(-store["rows"] // rows)
    each = f"{rows:,} rows ({format_bytes(rows * row_bytes)}), {rows // store['chunk_rows']:,} chunks each"
    return [("shards", f"{count:,} files of {each}")]


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


_MAKING = {
    "labels": ("assign", "its labels"),
    "dedup": ("dedup", "its folder"),
    "retrieve": ("retrieve", "what it makes"),
    "exclude": ("exclude", "what it makes"),
    "mixture": ("mix", "what it makes"),
}


def _making(partial: str) -> tuple[str, str]:
    """The command that unfinished work is of, and what it makes."""
    job = _job_of(partial)
    if (known := _MAKING.get(str(job.get("kind")))) is not None:
        return known
    # Draws are written as stores by the same means.
    return "sample" if "selection" in (job.get("identity") or {}) else "ingest", "the store"


def _is_anything(path: str) -> bool:
    from streamcurate import objects
    from streamcurate.embeddings.store import PARTIAL_SUFFIX
    from streamcurate.embeddings.unfinished import STATE_NAMES
    from streamcurate.runs.lock import LOCK_NAME, writer_of
    from streamcurate.storage import node_kind

    place = path.rstrip("/")
    bucket = objects.is_url(path) and not objects.is_web(path) and "/" not in place.partition("://")[2]
    if bucket and node_kind(place) is None:
        raise InputError(f"{path}: a whole bucket; name the store, the run or the labels in it")
    if place.endswith(PARTIAL_SUFFIX) and any(objects.exists(objects.join(place, name)) for name in STATE_NAMES):
        command, made = _making(place)
        raise InputError(f"{path}: an unfinished {command}; give the same {command} command again, then inspect {made}")
    if not objects.is_url(path) and not Path(place).exists() and Path(place + PARTIAL_SUFFIX).is_dir():
        command, made = _making(place + PARTIAL_SUFFIX)
        raise InputError(
            f"{path}: its {command} is unfinished ({place}{PARTIAL_SUFFIX}); give the same {command} command again, "
            f"then inspect {made}"
        )
    if (Path(path) / LOCK_NAME).exists() and node_kind(path) is None:
        if (writer := writer_of(path)) is not None:
            raise InputError(
                f"{path}: a run that is being written by {writer}; nothing is finished yet, inspect it later"
            )
        raise InputError(
            f"{path}: a run that was stopped before its first result; nothing is finished yet; give the same command "
            "again"
        )
    return True


# The first that recognises a path describes it; the last takes everything, and its errors say what a path can be.
KINDS = (
    Kind("run", _is_run, _describe_run, _run_lines),
    Kind("dedup", _is_dedup, _describe_dedup, _dedup_lines),
    Kind("labels", _is_labels, _describe_labels, _labels_lines),
    Kind("embeddings", _is_anything, _describe_store, _store_lines),
)
