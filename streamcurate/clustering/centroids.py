"""Centroids of a fit under way: in memory where they fit, in a scratch array read tile by tile where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.runs.digest import Digest
from streamcurate.storage import SequentialWriter, create_array, open_array
from streamcurate.streaming import Cost, MemoryRows, Pass, RowSource, StoredRows
from streamcurate.tree import add_array

_CHUNK_BYTES = 16 << 20
# A pass should have room for blocks of so many rows beside its centroids; with less, tiles of them are better.
_COMFORTABLE_ROWS = 2048
SMALLEST_TILE = 64

Centroids = RowSource


def in_memory(centroids: NDArray[np.float32]) -> Centroids:
    """An array (clusters, dims) as centroids."""
    return MemoryRows(centroids, "centroids")


def whole(centroids: Centroids) -> NDArray[np.float32]:
    """All centroids as one array (clusters, dims)."""
    array: NDArray[np.float32] = centroids.read(0, centroids.rows)
    return array


def centre_vectors(rows: NDArray[Any], metric: str) -> NDArray[np.float32]:
    """Rows as centroids: float32, of unit length under cosine."""
    if metric == "cosine":
        rows = kernels.formula_rows(rows, metric)
    return rows.astype(np.float32)


def has_room(work: Pass[Any, Any, Any], measured: Measured, around: Surroundings) -> bool:
    """Whether a pass fits the memory limit with blocks of a comfortable size."""
    source = measured.points.source
    cost = work.cost(source.dims, source.dtype)
    row_bytes = source.dims * source.dtype.itemsize
    return around.executor.budget.fits(_COMFORTABLE_ROWS, row_bytes, source.read_overhead_bytes, cost)


def tile_edges(clusters: int, measured: Measured, around: Surroundings, cost: Callable[[int], Cost]) -> list[int]:
    """Cut the clusters into tiles whose passes fit the memory limit: one tile where all of them do.

    Parameters
    ----------
    clusters : int
    measured : Measured
        The points the passes run over.
    around : Surroundings
    cost : callable
        Cost of a pass over a tile of so many clusters.

    Returns
    -------
    list of int
        Edges, from 0 to ``clusters``.
    """
    source = measured.points.source
    row_bytes = source.dims * source.dtype.itemsize
    tile = clusters
    while tile > SMALLEST_TILE and not around.executor.budget.fits(
        _COMFORTABLE_ROWS, row_bytes, source.read_overhead_bytes, cost(tile)
    ):
        tile = -(-tile // 2)
    return [*range(0, clusters, tile), clusters]


def store(
    vectors: Iterable[NDArray[np.float32]], clusters: int, dims: int, name: str, around: Surroundings
) -> Centroids:
    """Write centroids, given in order a piece at a time, to a scratch array.

    Parameters
    ----------
    vectors : iterable of ndarray of float32, shape (m, dims)
    clusters, dims : int
    name : str
        Of the array, within this fit's scratch; one that lies there is replaced.
    around : Surroundings
    """
    path = around.scratch / around.name / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = max(min(_CHUNK_BYTES // (4 * dims), clusters), 1)
    array = create_array(path, (clusters, dims), np.float32, rows, durable=False, overwrite=True)
    with SequentialWriter(array) as writer:
        for part in vectors:
            writer.append(part)
    return StoredRows(array)


def save(name: str, centroids: Centroids, values: dict[str, Any], around: Surroundings) -> None:
    """Keep centroids and what belongs to them as a checkpoint of this fit; a scratch array is kept by its digest."""
    if around.checkpoints is None:
        return
    if isinstance(centroids, StoredRows):
        kept = {"array": centroids.array.path, "digest": _digest(centroids)}
        around.checkpoints.save(f"{around.name}/{name}", {}, values | kept)
    else:
        around.checkpoints.save(f"{around.name}/{name}", {"centroids": whole(centroids)}, values)


def load(name: str, around: Surroundings) -> tuple[Centroids, dict[str, Any]] | None:
    """What :func:`save` kept; None where there is nothing, or where it is damaged."""
    saved = None if around.checkpoints is None else around.checkpoints.load(f"{around.name}/{name}")
    if saved is None:
        return None
    arrays, values = saved
    if "array" not in values:
        return in_memory(arrays["centroids"]), values
    try:
        centroids = StoredRows(open_array(values["array"]))
        return (centroids, values) if _digest(centroids) == values["digest"] else None
    except Exception:  # scratch that is gone or damaged in whatever way is made again
        return None


def _digest(centroids: StoredRows) -> str:
    digest = Digest()
    add_array(digest, centroids.array)
    return digest.hexdigest()
