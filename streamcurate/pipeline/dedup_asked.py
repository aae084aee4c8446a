"""What a user asks ``dedup`` for, checked; and whether it is what lies there already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamcurate import kernels, objects
from streamcurate.clustering.approximate import require_faiss
from streamcurate.clustering.finished import fingerprint_of
from streamcurate.config.checks import choice, whole_number
from streamcurate.config.model import MOST_CLUSTERS
from streamcurate.embeddings.checks import suffix_of
from streamcurate.embeddings.subset import OrderedRows
from streamcurate.errors import ConfigError, InputError
from streamcurate.neighbors.duplicates import (
    MASK_NAME,
    REMOVED_NAME,
    ROWS_NAME,
    SKIPPED_NAME,
    Duplicates,
    open_duplicates,
    read_summary,
)
from streamcurate.neighbors.pairs.keep import RULES, Keep
from streamcurate.neighbors.radius import Radius
from streamcurate.neighbors.unfinished import difference
from streamcurate.pipeline.rows import SourceRows
from streamcurate.runs.digest import Digest
from streamcurate.sampling.scratch import scratch_folder
from streamcurate.streaming import MemoryBudget, ProgressListener
from streamcurate.tree import Tree

# Of files that hold rows or lists of them, and of stores.
_SUFFIXES = {".npy", ".npz", ".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".arrow", ".yaml", ".zarr"}
_MOST_NEIGHBOURS = 1 << 31
_MOST_SEED = (1 << 64) - 1


@dataclass(frozen=True)
class Asked:
    """The options that say what to find, checked.

    Attributes
    ----------
    radius : Radius
    keep : "closest", "first" or "random"
    seed : int
    clusters, most_neighbours : int or None
    search : "auto", "blas" or "faiss"
    """

    radius: Radius
    keep: Keep
    seed: int
    clusters: int | None
    most_neighbours: int | None
    search: str

    @classmethod
    def of(
        cls, radius: Radius, keep: object, seed: object, clusters: object, most_neighbours: object, search: object
    ) -> Asked:
        """The options as a user gives them.

        Raises
        ------
        ConfigError
            One is out of range.
        InputError
            FAISS is asked for and not installed.
        """
        if choice("search", search, kernels.SEARCHES) == "faiss":
            require_faiss("dedup")
        rule = _rule(keep)
        if seed is not None and rule != "random":
            raise ConfigError(
                f"seed: {seed!r} is of --keep random, and the row that is kept is {rule!r}; give --keep random too, or "
                "leave the seed out"
            )
        return cls(
            radius,
            rule,
            0 if seed is None else whole_number("seed", seed, 0, _MOST_SEED),
            None if clusters is None else whole_number("clusters", clusters, 1, MOST_CLUSTERS),
            None
            if most_neighbours is None
            else whole_number("most_neighbours", most_neighbours, 1, _MOST_NEIGHBOURS, "leave it out to compare all"),
            str(search),
        )


def _rule(keep: object) -> Keep:
    return next(rule for rule in RULES if rule == choice("keep", keep, RULES))


def refuse_file_names(out: str) -> None:
    """Refuse a place for the folder that is called like a file.

    Raises
    ------
    InputError
    """
    if (suffix := suffix_of(out)) in _SUFFIXES:
        folder = os.path.splitext(out)[0]
        raise InputError(
            f"{out}: is called like a file ({suffix}), and dedup makes a folder; give {folder}/, and {MASK_NAME} will "
            "lie in it"
        )


def refuse_for_trees(tree: Tree, subset: Any, clusters: int | None) -> None:
    """Refuse what a tree says already.

    Raises
    ------
    ConfigError
    """
    if subset is not None:
        raise ConfigError(
            f"subset: {tree.path} is a run, and the rows it was built on are looked at; name its store "
            f"({tree.source.get('path') or 'the embeddings'}) instead to look at a subset of it"
        )
    if clusters is not None:
        raise ConfigError(f"clusters: {clusters:,} for {tree.path}, a run that has its clusters; leave clusters out")


def identity_of(
    asked: Asked,
    rows: SourceRows,
    subset: Any,
    budget: MemoryBudget,
    scratch: str | os.PathLike[str] | None,
    listener: ProgressListener,
) -> tuple[dict[str, Any], int]:
    """All that the result depends on, as JSON values, and how many rows are looked at.

    What is in rows without a tree is compared by the clustering's own run directory.
    """
    store = rows.embeddings
    found: dict[str, Any] = {
        "tree": None if rows.tree is None else rows.tree.digest,
        "rows": store.rows,
        "dims": store.dims,
        "dtype": store.dtype.name,
        "cosine": asked.radius.threshold if asked.radius.metric == "cosine" else None,
        "l2": asked.radius.threshold if asked.radius.metric == "l2" else None,
        "keep": asked.keep,
        "seed": asked.seed if asked.keep == "random" else None,
        "most_neighbours": asked.most_neighbours,
    }
    if rows.tree is not None:
        return found | {"fingerprint": rows.tree.manifest.store.fingerprint}, rows.tree.levels[0].stored_members.rows
    found["clusters"] = asked.clusters
    found["subset"] = None
    if subset is None:
        return found, store.rows
    with scratch_folder("subset", scratch) as folder:
        memory = budget.usable // 2
        with OrderedRows(subset, store.rows, Path(folder) / "sort", memory, ids=store.ids, listener=listener) as listed:
            digest = Digest().begin((listed.named,), "int64")
            for numbers in listed.pieces():
                digest.update(numbers)
            return found | {"subset": digest.hexdigest()}, listed.named


def finished_result(
    out: str, identity: Mapping[str, Any], rows: SourceRows, stamps: str | None, listener: ProgressListener
) -> Duplicates | None:
    """The result at a place, if it is this very one; None where there is none.

    Raises
    ------
    InputError
        Something else lies there.
    """
    summary = read_summary(out)
    if summary is None:
        parts = {MASK_NAME, REMOVED_NAME, ROWS_NAME, SKIPPED_NAME}
        if objects.is_url(out):  # what a killed process sent is not there until the summary is
            strange = {found.url.removeprefix(f"{out}/") for found in objects.listing(out)} - parts
        else:
            strange = {out} if os.path.lexists(out) else set()
        if strange:
            raise InputError(f"{out}: already exists, and is no finished dedup; choose another place, or remove it")
        return None
    if (other := difference(summary["identity"], identity)) is not None:
        raise InputError(f"{out}: holds a finished dedup with {other}; choose another place, or remove it first")
    unsure = rows.tree is None and (stamps is None or stamps != summary["stamps"])
    if unsure and fingerprint_of(rows.embeddings, listener) != summary["fingerprint"]:
        raise InputError(
            f"{out}: holds a finished dedup of other rows than {rows.name} holds now; choose another place, or remove "
            "it first"
        )
    return open_duplicates(out)
