"""Clusters that seeds fall into, and the rows under these."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.assign import is_approximate
from streamcurate.clustering.frozen import FrozenLevel
from streamcurate.clustering.passes import StatisticsPass
from streamcurate.clustering.surroundings import Surroundings, ignore
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import ConfigError, DataError
from streamcurate.neighbors.examples.cuts import Grouped
from streamcurate.neighbors.examples.nearest_seeds import Search
from streamcurate.neighbors.examples.wanted import Wanted
from streamcurate.runs.digest import Digest, combine_digests
from streamcurate.storage import SequentialWriter, create_array
from streamcurate.streaming import Output, Points
from streamcurate.tree import Tree
from streamcurate.tree.level import aligned_chunk_rows

_BLOCK_ROWS = 1 << 18
_MASK_CHUNK_ROWS = 1 << 20


def check_level(tree: Tree, level: int) -> None:
    """Refuse a level that a tree does not have.

    Raises
    ------
    ConfigError
    """
    if level > len(tree.levels):
        there = "level 1 alone" if len(tree.levels) == 1 else f"levels 1 to {len(tree.levels)}"
        raise ConfigError(f"level: {level}; {tree.path} has {there}")


def clusters_with_seeds(tree: Tree, seeds: Embeddings, asked: Wanted, search: Search) -> Grouped:
    """The clusters of a level that hold seeds enough; seeds are labelled as new rows are.

    Parameters
    ----------
    tree : Tree
    seeds : Embeddings
        Checked.
    asked : Wanted
        Its ``level`` and ``least_seeds``.
    search : Search

    Raises
    ------
    DataError
        There is none; or seeds are zero, and the tree's metric is cosine.
    """
    level, budget = tree.levels[asked.level - 1], search.executor.budget
    held = 16 * sum(one.points for one in tree.levels[1 : asked.level]) + 16 * (
        level.clusters + tree.levels[0].clusters
    )
    budget.require(held, f"{tree.path}: the clusters up to level {asked.level}", "choose a lower level")
    upward = _clusters_above(tree, asked.level)
    counts = np.zeros(level.clusters, dtype=np.int64)
    for labels in _labels_of(tree, seeds, search):
        found = upward[labels[labels >= 0]]
        counts += np.bincount(found[found >= 0], minlength=level.clusters)
    chosen = np.flatnonzero(counts >= asked.least_seeds)
    if not len(chosen):
        raise DataError(
            f"{seeds.name}: no cluster of level {asked.level} of {tree.path} holds {asked.least_seeds} of its seeds; "
            f"the most in one are {int(counts.max(initial=0))}; give a smaller --least-seeds"
        )
    group = np.full(level.clusters + 1, -1, dtype=np.int32)  # the last for clusters that are under none
    group[chosen] = np.arange(len(chosen), dtype=np.int32)
    return Grouped(tree.levels[0].stored_labels, group[upward], len(chosen))


def among_groups(search: Search, grouped: Grouped) -> Search:
    """The same search among the rows of some groups: of others no distance is needed."""
    rows = grouped.labels.rows
    mask = create_array(
        search.scratch / "in-clusters", (rows,), np.uint8, _MASK_CHUNK_ROWS, durable=False, overwrite=True
    )
    progress = search.executor.progress
    progress.started("rows of clusters with seeds", rows)
    with SequentialWriter(mask) as writer:
        for start in range(0, rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, rows)
            inside = grouped.read(start, stop) >= 0
            if search.mask is not None:
                inside &= search.mask.read(start, stop) != 0
            writer.append(inside.astype(np.uint8))
            progress.advanced(stop - start, 4 * (stop - start))
    progress.finished()
    groups = Digest().add(grouped.group_of_cluster).hexdigest()
    return replace(search, mask=mask, fingerprint=combine_digests([search.fingerprint, groups]))


def _clusters_above(tree: Tree, level: int) -> NDArray[np.int64]:
    """The cluster of a level that each cluster of level 1 is under; -1 where none."""
    found = np.arange(tree.levels[0].clusters, dtype=np.int64)
    for upper in tree.levels[1:level]:
        labels = upper.stored_labels.read(0, upper.points).astype(np.int64)
        found = np.where(found >= 0, labels[found], -1)
    return found


def _labels_of(tree: Tree, seeds: Embeddings, search: Search) -> Iterator[NDArray[np.int32]]:
    """The seeds' clusters of level 1, some at a time."""
    metric: Any = tree.metric
    executor = search.executor
    around = Surroundings(executor, metric, tree.seed, search.scratch, None, ignore, 1)
    points = Points.all_of(seeds)
    statistics, _ = executor.run(StatisticsPass(metric), points, {})
    if metric == "cosine" and statistics.zero_rows:
        raise DataError(
            f"{seeds.name}: {statistics.zero_rows:,} rows are zero and have no direction under metric cosine, that of "
            f"{tree.path} (first: row {statistics.first_zero_row}); take them out of the seeds"
        )
    frozen = FrozenLevel(tree.levels[0], is_approximate(tree, 1), around)
    folder = search.scratch / "seeds"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chunk = aligned_chunk_rows(seeds.rows, frozen.row_operations)
    labels, distances = (
        create_array(folder / name, (seeds.rows,), dtype, chunk, durable=False)
        for name, dtype in (("labels", np.int32), ("distances", np.float32))
    )
    frozen.label(frozen.measured(points, statistics, around), around, (Output(labels, -1), Output(distances, np.nan)))
    for start in range(0, seeds.rows, _BLOCK_ROWS):
        yield labels.read(start, min(start + _BLOCK_ROWS, seeds.rows))
