"""Labels for new rows from a finished tree, whose centroids stay as they are."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.approximate import Index, index_cost, measured_recall, require_faiss, told
from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.hierarchy import check_usable
from streamcurate.clustering.passes import StatisticsPass, nearest_cost
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import InputError
from streamcurate.files import move_folder
from streamcurate.kernels import Backend, Metric, PreparedCentroids
from streamcurate.storage import (
    StoredArray,
    create_array,
    create_group,
    node_kind,
    open_array,
    update_group_attributes,
)
from streamcurate.streaming import Block, Cost, Executor, Output, Points, State
from streamcurate.tree import Tree, level_name
from streamcurate.tree.level import aligned_chunk_rows

PARTIAL_SUFFIX = ".partial"
# Up to so many operations of one coarse cluster's rows and leaves are a share of one call for all such clusters.
_LARGE_OPERATIONS = 1 << 22
Columns = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Assignment:
    """Labels of new rows at rest.

    Attributes
    ----------
    path : str
    rows : int
    levels : int
    warnings : tuple of str
        What the user should know of the labels.
    """

    path: str
    rows: int
    levels: int
    warnings: tuple[str, ...] = ()

    def labels(self, level: int = 1) -> Any:
        """Zarr array, int32 (rows,): clusters of a level; -1 under a cluster that holds no row of the tree."""
        return open_array(Path(self.path) / level_name(level) / "labels").zarr

    def distances(self, level: int = 1) -> Any:
        """Zarr array, float32 (rows,): of the row to its level-1 centroid, of that to its level-2 centroid, ..."""
        return open_array(Path(self.path) / level_name(level) / "distances").zarr


@dataclass(frozen=True)
class _Frozen:
    """Centroids of level 1, those of its coarse clusters where it has splits, labels and distances of the others."""

    backend: Backend
    centroids: NDArray[np.float32]
    prepared: PreparedCentroids | Index
    coarse_offsets: NDArray[np.int64] | None
    upper: tuple[tuple[NDArray[np.int32], NDArray[np.float32]], ...]


@dataclass(frozen=True)
class _NewLabelsPass:
    """Outputs: labels and distances of every level in turn. ``beside``: bytes of the state but what is searched.

    ``approximate``: level 1 was labelled by an approximate index, and so are new rows.

    State: ``centroids`` of level 1; ``coarse`` and ``coarse-offsets`` where it has splits; ``labels-2``,
    ``distances-2`` and so on.
    """

    metric: Metric
    clusters: int
    levels: int
    beside: int
    approximate: bool = False
    name: str = "labels"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        if self.approximate:
            cost = index_cost(self.clusters, dims)
            return replace(cost, fixed_bytes=cost.fixed_bytes + self.beside, row_bytes=cost.row_bytes + 128)
        return nearest_cost(self.clusters, dims, held=self.beside, row_bytes=128)

    def prepare(self, state: State, backend: Backend) -> _Frozen:
        centroids = state["centroids"]
        searched = state.get("coarse", centroids)
        prepared: PreparedCentroids | Index
        if self.approximate:
            prepared = Index(searched, self.metric)
        else:
            prepared = backend.prepare_centroids(searched, self.metric)
        upper = tuple((state[f"labels-{level}"], state[f"distances-{level}"]) for level in range(2, self.levels + 1))
        return _Frozen(backend, centroids, prepared, state.get("coarse-offsets"), upper)

    def chunk(self, block: Block, columns: Columns, ready: _Frozen) -> tuple[int, Columns]:
        if isinstance(ready.prepared, Index):
            labels, values = ready.prepared.nearest(block.values)
        else:
            labels, values = ready.backend.nearest(block.values, ready.prepared)
        if ready.coarse_offsets is not None:
            labels, values = _within(block.values, labels, ready, self.metric)
        outputs: list[NDArray[Any]] = [labels, kernels.distance_of(values, self.metric)]
        for upper, distances in ready.upper:
            known = labels >= 0
            at = np.where(known, labels, 0)
            outputs.append(np.where(known, upper[at], np.int32(-1)).astype(np.int32))
            outputs.append(np.where(known, distances[at], np.float32(np.nan)).astype(np.float32))
            labels = outputs[-2]
        return len(labels), tuple(outputs)

    def combine(self, total: int, part: int) -> int:
        return total + part

    def finalize(self, total: int | None) -> int:
        return total or 0


def _within(
    values: NDArray[Any], coarse: NDArray[np.int32], frozen: _Frozen, metric: Metric
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The nearest leaf among those of each row's own coarse cluster."""
    from streamcurate.kernels.cpu.bundles import nearest_within

    assert frozen.coarse_offsets is not None
    offsets, centroids = frozen.coarse_offsets, frozen.centroids
    rows = np.bincount(coarse, minlength=len(offsets) - 1)
    large = rows * np.diff(offsets) * values.shape[1] > _LARGE_OPERATIONS
    labels, best = np.full(len(values), -1, dtype=np.int32), np.full(len(values), np.nan)
    small = np.flatnonzero(~large[coarse])
    labels[small], best[small] = nearest_within(
        values[small], coarse[small].astype(np.int64), offsets, centroids, metric
    )
    for own in np.flatnonzero(large).tolist():
        mine = np.flatnonzero(coarse == own)
        first, last = int(offsets[own]), int(offsets[own + 1])
        found, best[mine] = frozen.backend.nearest(
            values[mine], frozen.backend.prepare_centroids(centroids[first:last], metric)
        )
        labels[mine] = found + np.int32(first)
    best[labels < 0] = np.nan  # a coarse cluster without rows has no leaves
    return labels, best


def assign_rows(tree: Tree, embeddings: Embeddings, out: str | os.PathLike[str], executor: Executor) -> Assignment:
    """Label new rows at every level; see ``streamcurate.assign``."""
    place = Path(out)
    first = tree.levels[0]
    dims = first.stored_centroids.shape[1]
    if embeddings.dims != dims:
        raise InputError(
            f"{embeddings.name}: has {embeddings.dims} dims, the tree in {tree.path} was built from {dims}; "
            "give embeddings of the same model"
        )
    if place.exists():
        raise InputError(f"{out}: already exists; choose another place or remove it first")
    metric: Metric = "cosine" if tree.metric == "cosine" else "l2"
    points = Points.all_of(embeddings)
    statistics, _ = executor.run(StatisticsPass(metric), points, {})
    fix = "drop them when ingesting (--on-bad-row drop, with --metric cosine for zero rows)"
    check_usable(statistics, embeddings.name, metric, fix=fix, zero_fix=fix)
    upper_bytes = 8 * sum(level.points for level in tree.levels[1:])
    coarse = first.stored_coarse_centroids
    prepared_clusters = first.clusters if coarse is None else coarse.rows
    leaves_bytes = 0 if coarse is None else 4 * dims * first.clusters
    approximate = tree.manifest.config["levels"][0].get("search", "exact") == "faiss"
    if approximate:
        require_faiss(tree.path)
    work = _NewLabelsPass(metric, prepared_clusters, len(tree.levels), upper_bytes + leaves_bytes, approximate)
    needed = work.cost(dims, embeddings.dtype).fixed_bytes
    executor.budget.require(needed, f"{tree.path}: the centroids of level 1", "use a machine with more memory")
    state = {"centroids": first.stored_centroids.read(0, first.clusters)}
    if coarse is not None:
        state["coarse"] = coarse.read(0, coarse.rows)
        offsets = first.stored_coarse_offsets
        assert offsets is not None
        state["coarse-offsets"] = offsets.read(0, offsets.rows)
    for level in tree.levels[1:]:
        state[f"labels-{level.number}"] = level.stored_labels.read(0, level.points)
        state[f"distances-{level.number}"] = level.stored_distances.read(0, level.points)
    partial = place.with_name(place.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        outputs = _make(partial, len(tree.levels), embeddings.rows, tree)
        executor.run(work, points, state, outputs=outputs)
        warnings: tuple[str, ...] = ()
        if approximate:
            around = Surroundings(executor, metric, tree.seed, partial / "scratch", None, ignore, 1)
            measured = Measured.of(points, statistics, metric)
            recall, rows = measured_recall(measured, in_memory(state["centroids"]), outputs[0].array, around)
            warnings = (told(os.fspath(out), recall, rows),)
            shutil.rmtree(around.scratch)
            update_group_attributes(partial, {"search": {"index": "faiss", "recall": recall, "rows": rows}})
        move_folder(partial, place)
    except BaseException:  # Ctrl-C too: nothing of it could be gone on with
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Assignment(os.fspath(out), embeddings.rows, len(tree.levels), warnings)


def _make(place: Path, levels: int, rows: int, tree: Tree) -> list[Output]:
    if not place.parent.exists():
        raise InputError(f"{place.parent}: no such folder; make it first, or choose another place")
    create_group(place, {"format": 1, "kind": "labels", "tree": {"digest": tree.digest, "path": tree.path}})
    outputs = []
    first = tree.levels[0].stored_centroids
    chunk = aligned_chunk_rows(rows, 2 * first.shape[1] * first.rows)
    for number in range(1, levels + 1):
        create_group(place / level_name(number))
        arrays: list[tuple[StoredArray, float]] = [
            (create_array(place / level_name(number) / name, (rows,), dtype, chunk), fill)
            for name, dtype, fill in (("labels", np.int32, -1), ("distances", np.float32, np.nan))
        ]
        outputs += [Output(array, fill) for array, fill in arrays]
    assert node_kind(place) == "group"
    return outputs
