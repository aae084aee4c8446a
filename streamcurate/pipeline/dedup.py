"""Near-duplicates of a whole store: its clusters, the edges between duplicates, components, the rows to keep."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from streamcurate import kernels, objects
from streamcurate.clustering.assign import stamps_digest
from streamcurate.config import Config, Level
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import ChangedStoreError, ConfigError, InputError
from streamcurate.neighbors.duplicate_files import write_rows, write_skipped
from streamcurate.neighbors.duplicates import (
    SKIPPED_NAME,
    SUMMARY_NAME,
    Duplicates,
    open_duplicates,
    summary_of_sizes,
    write_summary,
)
from streamcurate.neighbors.pairs.components import Components, find_components
from streamcurate.neighbors.pairs.directions import check_directions
from streamcurate.neighbors.pairs.grouped import tile_rows_for
from streamcurate.neighbors.pairs.keep import Counts, keys_of, mark_rows
from streamcurate.neighbors.pairs.search import EdgesFound, find_edges, join_bytes
from streamcurate.neighbors.radius import Radius
from streamcurate.neighbors.unfinished import UnfinishedWork
from streamcurate.pipeline.dedup_asked import Asked, finished_result, identity_of, refuse_file_names, refuse_for_trees
from streamcurate.pipeline.executors import check_device, executor_for
from streamcurate.pipeline.request import cluster
from streamcurate.pipeline.rows import open_rows
from streamcurate.runs import Manifest
from streamcurate.streaming import Executor, MemoryBudget, ProgressListener, Silent
from streamcurate.streaming.budget import SMALLEST_LIMIT
from streamcurate.tree import Tree
from streamcurate.version import __version__

_FEWEST_TILE_ROWS = 64
# Of what may be used, for rows and components as they go through files; the table's writer takes the rest.
_MEMORY_SHARE = 3 / 4
_CLUSTERING, _COMPONENTS = "clustering", "components"
# Any clusters give the same result, so that good ones are not worth much time. Measured on 20,000 text embeddings and
# on mixtures of 150,000 and 300,000 rows: a quarter or twice as many clusters as clusters_for gives, or twice the
# iterations, cost the same or up to twice the processor time.
_ITERATIONS, _FITTED_ROWS = 5, 64
# Beyond this share of the rows, and so many of them, a component is worth a warning.
_CHAINED_SHARE, _CHAINED_ROWS = 0.01, 1000


def dedup(
    source: Any,
    out: str | os.PathLike[str],
    *,
    cosine: float | None = None,
    l2: float | None = None,
    keep: str = "closest",
    seed: int | None = None,
    subset: Any = None,
    clusters: int | None = None,
    most_neighbours: int | None = None,
    search: str = "auto",
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Duplicates:
    """Find near-duplicates, and which row of each group to keep; the same call again goes on where it stopped.

    Two rows are duplicates when their cosine similarity is at least ``cosine``, or their Euclidean distance at most
    ``l2``, by the formula that labels are found by, with a row in the centroid's place. Rows that are duplicates of
    each other, directly or through others, make a component, of which one row is kept. Which rows need not be compared
    is certified from the clusters, so that the components are those of comparing all pairs, whatever the clusters.

    Parameters
    ----------
    source : Tree, Embeddings, path or URL of a run directory or of a store, or array
        A finished tree, whose level 1 says which rows lie near each other; or rows alone, which are clustered first.
    out : path or URL
        A folder made here: ``keep.npy``, ``removed.npy``, ``duplicates.parquet``, ``dedup.json``.
    cosine, l2 : float
        One of them. The metric need not be the tree's. An ``l2`` of 0 asks for copies.
    keep : "closest", "first" or "random"
        The row that is kept: the one nearest to its centroid of level 1 (of equally near ones the lowest), the lowest
        row number, or a random one.
    seed : int, optional
        For random; by default 0.
    subset : path, array, sequence or Selection, optional
        Look at these rows alone, as for ``cluster``. Of a tree the rows it was built on are looked at.
    clusters : int, optional
        Clusters to cut rows without a tree into; by default as many as suit their number.
    most_neighbours : int, optional
        Compare two cells (the groups of rows that clusters are cut into) only if one is among so many nearest ones of
        the other. What that leaves out is listed in ``skipped.parquet``; by default nothing is.
    search : "auto", "blas" or "faiss"
        What compares rows; it changes no result.
    memory_limit, threads, client, progress
        As for ``cluster``.
    scratch : path, optional
        Folder for intermediate arrays, about as large as the rows; by default beside ``out``, and for a URL where
        temporary files go.
    device : "auto", "cpu" or "gpu"
        Where rows without a tree are clustered; they are compared on the CPU.

    Returns
    -------
    Duplicates

    Raises
    ------
    InputError
        An option out of range, bad rows, a changed store, or a destination that holds anything but this very result,
        finished or not.
    """
    asked = Asked.of(Radius.of(cosine, l2), keep, seed, clusters, most_neighbours, search)
    check_device(client, device)
    budget = MemoryBudget.of(memory_limit, threads)
    listener = progress or Silent()
    place = os.fspath(out).rstrip("/")
    objects.refuse_web(place, "take a result")
    refuse_file_names(place)
    rows = open_rows(source)
    if rows.tree is not None:
        refuse_for_trees(rows.tree, subset, clusters)
    identity, count = identity_of(asked, rows, subset, budget, scratch, listener)
    if clusters is not None and clusters > count:
        raise ConfigError(f"clusters: {clusters:,} of {count:,} rows; choose at most {count:,}")
    stamps = None if rows.tree is not None else stamps_digest(rows.embeddings)
    tile_rows = _tile_rows(rows.embeddings, count, asked.search, budget)
    work = UnfinishedWork(place, "dedup", scratch)
    if (there := finished_result(place, identity, rows, stamps, listener)) is not None:
        if work.folder.exists():  # killed after the result was in its place
            with work:
                work.discard()
        listener.note(f"{place}: finished already, nothing to do")
        return there
    options = {"memory_limit": budget.limit, "threads": threads, "device": device, "client": client}
    with work:
        if (state := work.begin(identity)) is not None:
            listener.note(state)
        if device == "gpu":
            listener.note("rows are clustered on the GPU and compared on the CPU" if rows.tree is None else _CPU_ALONE)
        if count > 1 and not kernels.pairs_compiled():
            listener.note("the first dedup on a machine compiles what compares rows: some ten seconds more")
        tree = rows.tree or _cluster(rows.embeddings, work, asked, subset, count, options, listener)
        folders = (work.scratch, [work.folder])
        with executor_for(client, budget, listener, *folders, rows.embeddings, device, threads) as (executor, store):
            summary = _find(tree, store, asked, tile_rows, work, executor, listener)
            _check_unchanged(tree, work)  # ids and labels have been read since
        described = {
            "engine": __version__,
            "identity": identity,
            "source": {"tree": None if rows.tree is None else tree.path, **rows.embeddings.description()},
            "fingerprint": tree.manifest.store.fingerprint,
            "stamps": stamps,
            "metric": asked.radius.metric,
            "threshold": asked.radius.threshold,
            "keep": asked.keep,
            "seed": identity["seed"],
        }
        write_summary(work.result, described | summary)
        work.finish(SUMMARY_NAME)
    return open_duplicates(place)


_CPU_ALONE = "the rows of a tree are clustered already, and are compared on the CPU"


def _tile_rows(store: Embeddings, rows: int, search: str, budget: MemoryBudget) -> int:
    """Rows compared at a time: so many that the smallest memory limit does, whatever the limit is.

    A limit that changes between two runs must not throw away what is done.

    Raises
    ------
    MemoryLimitError
        Not even few rows fit.
    """
    dims, smallest = store.dims, MemoryBudget(SMALLEST_LIMIT, 1).usable
    tile = tile_rows_for(rows, dims)
    while tile > _FEWEST_TILE_ROWS and join_bytes(tile, dims, store.dtype.itemsize, search) > smallest:
        tile //= 2
    what = f"{store.name}: comparing rows of {dims} dims, {tile:,} with {tile:,}"
    budget.require(join_bytes(tile, dims, store.dtype.itemsize, search), what, "ingest rows of fewer dims")
    return tile


def clusters_for(rows: int) -> int:
    """Clusters that rows without a tree are cut into."""
    return max(1, math.isqrt(rows))


def _cluster(
    store: Embeddings,
    work: UnfinishedWork,
    asked: Asked,
    subset: Any,
    count: int,
    options: Mapping[str, Any],
    listener: ProgressListener,
) -> Tree:
    """A tree of one level in the working folder."""
    run = work.scratch / "tree"
    number = asked.clusters or clusters_for(count)
    level = Level(number, iterations=_ITERATIONS, init="random", fit_rows=min(count, _FITTED_ROWS * number))
    config = Config((level,), metric=asked.radius.metric)
    # What the run directory holds is worth going on with, from here on.
    work.checkpoints.save(_CLUSTERING, {})
    try:
        return cluster(store, run, config=config, subset=subset, progress=_PassesAlone(listener), **options)
    except ChangedStoreError as error:
        raise _of_other_rows(error, work) from error
    except InputError:
        if not Manifest.exists(run):
            work.checkpoints.discard(_CLUSTERING)
        raise


def _check_unchanged(tree: Tree, work: UnfinishedWork) -> None:
    """Refuse a store whose files changed while they were read: clusters, edges and rows would not belong together.

    Raises
    ------
    ChangedStoreError
    """
    try:
        tree.embeddings()
    except ChangedStoreError as error:
        raise _of_other_rows(error, work) from error


def _of_other_rows(error: ChangedStoreError, work: UnfinishedWork) -> ChangedStoreError:
    return ChangedStoreError(f"{error}; for a dedup of the rows as they are now, remove {work.folder} as well")


class _PassesAlone:
    """Tells of passes, and keeps the notes of a clustering that is a means to an end to itself."""

    def __init__(self, listener: ProgressListener) -> None:
        self.started, self.advanced, self.finished = listener.started, listener.advanced, listener.finished

    def note(self, text: str) -> None: ...


def _find(
    tree: Tree,
    store: Embeddings,
    asked: Asked,
    tile_rows: int,
    work: UnfinishedWork,
    executor: Executor,
    listener: ProgressListener,
) -> dict[str, Any]:
    """The work itself: all files of the result but the summary, whose values are given."""
    leaves = tree.levels[0]
    looked_at = leaves.stored_members.rows
    if asked.radius.metric == "cosine" and tree.metric != "cosine":
        check_directions(store, leaves.stored_labels, executor)
    found = find_edges(
        tree,
        store,
        asked.radius.limit,
        asked.radius.metric,
        executor,
        work.scratch,
        work.checkpoints,
        search=asked.search,
        most_neighbours=asked.most_neighbours,
        tile_rows=tile_rows,
    )
    _check_unchanged(tree, work)
    memory = int(executor.budget.usable * _MEMORY_SHARE)
    components = _components(found, store.rows, work, memory, listener)
    for left in work.result.iterdir():  # of a process that was killed while it wrote
        left.unlink()
    keys = keys_of(asked.keep, asked.seed, leaves.stored_distances)
    counts = Counts()
    marked = mark_rows(components.records, store.rows, keys, work.scratch / "keep", memory, counts, listener)
    take_ids = None if store.ids is None else store.take_ids
    labels = None if tree.manifest.subset is None else leaves.stored_labels
    kept, removed = write_rows(work.result, marked, store.rows, labels, take_ids)
    write_skipped(work.result, found.skipped_pairs)
    shown = summary_of_sizes(counts, take_ids)
    warnings = []
    if found.skipped:
        warnings.append(
            f"{found.skipped:,} pairs of cells that could hold duplicates were not compared ({SKIPPED_NAME} lists "
            "them): duplicates may be missing; without --most-neighbours all are compared"
        )
    largest = counts.largest[0].size if counts.largest else 0
    if largest >= max(_CHAINED_SHARE * looked_at, _CHAINED_ROWS):
        warnings.append(
            f"one component holds {largest:,} of {looked_at:,} rows, of which one is kept: copies of one, or rows "
            "that are not alike and hang together through others; look at some of them, and ask for nearer rows if so"
        )
    return {
        "rows": looked_at,
        "kept": kept,
        "removed": removed,
        **shown,
        "pairs": {"possible": found.possible, "covered": found.covered},
        "cells": {"number": found.cells, "joined": found.joined, "pruned": found.pruned, "skipped": found.skipped},
        "warnings": warnings,
    }


def _components(
    found: EdgesFound, rows: int, work: UnfinishedWork, memory: int, listener: ProgressListener
) -> Components:
    kept = work.checkpoints.load(_COMPONENTS)
    if kept is not None:
        components = Components.from_values(kept[1], work.scratch)
        if components.records.intact():
            return components
    place = work.scratch / "components.bin"
    components = find_components(found.files, rows, place, work.scratch / "components", memory, listener)
    work.checkpoints.save(_COMPONENTS, {}, components.to_values())
    return components
