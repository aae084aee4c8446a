"""What lies on disk: the tree that is left, and scratch at its fullest."""

from __future__ import annotations

from collections.abc import Sequence

from streamcurate.config import Level
from streamcurate.planning.stages import (
    KEPT_BYTES,
    LABEL_BYTES,
    RECORD_BYTES,
    TAG_BYTES,
    TILE_BYTES,
    Problem,
    Stage,
    beside_iterations,
    leaf_clusters,
)
from streamcurate.tree.level import ALIGNED_CHUNK_ROWS, aligned_chunk_rows

# As the writer of levels has it.
CENTROID_CHUNK_BYTES = 64 << 20

_SCATTERED_BYTES, _CHECKPOINT_ROW_BYTES = 16, 16
# Of an NPY file.
_HEADER_BYTES = 128


def tree_bytes(problem: Problem, level: Level) -> int:
    """Bytes of a level's arrays, chunks that are not full included: at most, where there are splits."""
    leaves = leaf_clusters(problem, level)
    dims = problem.dims
    aligned = aligned_chunk_rows(problem.rows, 2 * dims * level.clusters)
    centroid_rows = max(CENTROID_CHUNK_BYTES // (4 * dims), 1)
    total = 2 * _stored(problem.rows, 4, aligned)
    total += _stored(problem.count, 8, ALIGNED_CHUNK_ROWS) + _stored(leaves + 1, 8, ALIGNED_CHUNK_ROWS)
    total += _stored(leaves, 4 * dims, centroid_rows)
    if level.splits > 1:
        total += _stored(level.clusters, 4 * dims, centroid_rows) + _stored(level.clusters + 1, 8, ALIGNED_CHUNK_ROWS)
    return total


def scratch_bytes(problem: Problem, level: Level, stages: Sequence[Stage], sorted_at_once: int) -> int:
    """The most bytes a level has in scratch and checkpoints at a time.

    Parameters
    ----------
    problem : Problem
    level : Level
    stages : sequence of Stage
        Of the level.
    sorted_at_once : int
        Records of members that are sorted in memory; more go to disk.
    """
    lasting, most = problem.rows if problem.count < problem.rows else 0, 0  # a mask of the rows that count
    centroids = 4 * problem.dims * level.clusters + _HEADER_BYTES
    for stage in stages:
        if stage.name in ("sample rows", "gather"):
            # Every step's rows stay until the level is done.
            lasting += int(stage.written) * stage.fits
        elif stage.name == "seeding" and stage.method == "k-means||":
            lasting += 2 * TILE_BYTES * stage.points * stage.fits
        elif stage.name == "coarse labels":
            lasting += 4 * stage.points
        if stage.tiles > 1 and stage.name in ("iterations", "resampling", "labels"):
            # Two generations of labels and values, and three of centroids, stay with every step too; labels of the
            # iteration before as well.
            lasting += 2 * TILE_BYTES * stage.points * stage.fits
            lasting += (3 * centroids + LABEL_BYTES * stage.points) * stage.fits if stage.name == "iterations" else 0
        fleeting = 2 * centroids  # a checkpoint, and the one that takes its place
        if stage.name == "iterations":
            fleeting += 2 * stage.points * beside_iterations(stage.points, stage.kept) if stage.tiles == 1 else 0
        elif stage.name == "labels" and stage.kept:
            fleeting += KEPT_BYTES * stage.points
        elif stage.name in ("regroup", "split fits", "split labels"):
            fleeting += problem.count * (problem.row_bytes + TAG_BYTES)
            if stage.name != "regroup":
                leaves = leaf_clusters(problem, level)
                fleeting += problem.count * _CHECKPOINT_ROW_BYTES + leaves * (4 * problem.dims + 8)
            if stage.name == "split labels":  # the regrouped rows are gone by then
                fleeting += problem.count * (_SCATTERED_BYTES - problem.row_bytes - TAG_BYTES)
        elif stage.name == "members" and problem.count > sorted_at_once:
            fleeting += RECORD_BYTES * problem.count
        most = max(most, lasting + fleeting)
    return most


def _stored(rows: int, row_bytes: int, chunk_rows: int) -> int:
    """Bytes of an array whose chunks are all written whole."""
    chunk = max(1, min(chunk_rows, rows))
    return -(-rows // chunk) * chunk * row_bytes
