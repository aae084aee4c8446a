"""What a search found, gone through in the rows' order as often as need be; nothing of it is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.neighbors.examples.cuts import cut_of_nearest, cuts_of_groups, group_bytes
from streamcurate.neighbors.examples.nearest_seeds import Search, SeedDistances, find_nearest
from streamcurate.neighbors.examples.ranges import ChosenRows
from streamcurate.neighbors.examples.seed_clusters import among_groups, clusters_with_seeds
from streamcurate.neighbors.examples.seed_lists import rows_of_seeds
from streamcurate.neighbors.examples.seeds import Seeds
from streamcurate.neighbors.examples.wanted import Wanted
from streamcurate.neighbors.row_files import Near
from streamcurate.storage import StoredArray
from streamcurate.tree import Tree

Int64 = NDArray[np.int64]
Inside = Callable[[Int64, NDArray[np.int32], NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Found:
    """Rows found, each with its nearest seed.

    Attributes
    ----------
    distances : SeedDistances
        Of all rows looked at.
    inside : callable
        Of some row numbers, their seeds and values: which are among the rows found.
    metric : "l2" or "cosine"
    chosen : ChosenRows or None
        The rows that ``distances`` are about, where these are not all of the source.
    clusters : int or None
        Of a tree, from which rows were taken.
    """

    distances: SeedDistances
    inside: Inside
    metric: str
    chosen: ChosenRows | None = None
    clusters: int | None = None

    def count(self) -> int:
        """How many."""
        return sum(int(np.count_nonzero(inside)) for _, _, _, inside in self._blocks())

    def pieces(self) -> Iterator[Near]:
        """All of them, some at a time."""
        for rows, seeds, values, inside in self._blocks():
            distances = kernels.distance_of(values[inside], self.metric)
            yield Near(rows[inside], seeds[inside].astype(np.int64), distances)

    def _blocks(self) -> Iterator[tuple[Int64, NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_]]]:
        for start, seeds, values in self.distances.blocks():
            stop = start + len(seeds)
            rows = np.arange(start, stop) if self.chosen is None else self.chosen.numbers(start, stop)
            yield rows, seeds, values, (seeds >= 0) & self.inside(rows, seeds, values)


def find(search: Search, seeds: Seeds, asked: Wanted, tree: Tree | None) -> Found:
    """The rows that are asked for.

    Parameters
    ----------
    search : Search
    seeds : Seeds
    asked : Wanted
    tree : Tree or None
        Of whose clusters ``per_cluster`` speaks.

    Raises
    ------
    FaultyRowsError
        Rows have no distance.
    DataError
        No cluster holds seeds enough.
    MemoryLimitError
        A list does not fit.
    """
    if asked.per_seed is not None:
        chosen = rows_of_seeds(search, seeds, min(asked.per_seed, search.source.rows), asked.limit)
        if not chosen.rows:
            return Found(SeedDistances(0, []), everywhere, asked.metric)
        # All of them are near some seed: what is left to ask is which is the nearest.
        among = replace(search, source=chosen, mask=None)
        return Found(find_nearest(among, seeds, None, "chosen"), everywhere, asked.metric, chosen)
    grouped, keep = None, 0
    budget = search.executor.budget
    if asked.per_cluster is not None:
        assert tree is not None  # it was checked
        keep = min(asked.per_cluster, search.source.rows)
        budget.require(group_bytes(keep), f"a list of {keep:,} rows for a cluster", "give a smaller --per-cluster")
        grouped = clusters_with_seeds(tree, seeds.embeddings, asked, search)
        search = among_groups(search, grouped)
    distances = find_nearest(search, seeds, asked.limit)
    if grouped is not None:
        cuts = cuts_of_groups(distances, grouped, keep, budget.usable // 2)

        def in_groups(rows: Int64, seeds: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.bool_]:
            groups = grouped.read(int(rows[0]), int(rows[-1]) + 1)
            return cuts.inside(groups, kernels.keys_of_values(values), rows)

        return Found(distances, in_groups, asked.metric, clusters=grouped.groups)
    if asked.nearest is not None:
        cut = cut_of_nearest(distances, asked.nearest)

        def in_list(rows: Int64, seeds: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.bool_]:
            return cut.inside(np.zeros(len(rows), dtype=np.int32), kernels.keys_of_values(values), rows)

        return Found(distances, in_list, asked.metric)
    return Found(distances, everywhere, asked.metric)


def everywhere(rows: Int64, seeds: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Every row."""
    return np.ones(len(rows), dtype=bool)


def staying(distances: SeedDistances, mask: StoredArray | None) -> Iterator[NDArray[np.bool_]]:
    """A mask over all rows, a piece at a time: those that count and are near no seed."""
    for start, seeds, _ in distances.blocks():
        stays = seeds < 0
        if mask is not None:
            stays &= mask.read(start, start + len(seeds)) != 0
        yield stays
