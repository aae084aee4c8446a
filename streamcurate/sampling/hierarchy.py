"""The shape of a tree: who is whose child, and sums from the leaves up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError

Int64 = NDArray[np.int64]


class RowArray(Protocol):
    """A stored array of one dimension; :class:`streamcurate.storage.StoredArray` is one."""

    @property
    def rows(self) -> int: ...
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Elements ``start`` to ``stop``."""

    def take(self, rows: Int64) -> NDArray[Any]:
        """Single elements, given in ascending order."""


class SampledLevel(Protocol):
    """What a draw reads of one level."""

    @property
    def clusters(self) -> int: ...
    @property
    def stored_labels(self) -> RowArray: ...
    @property
    def stored_distances(self) -> RowArray: ...
    @property
    def stored_members(self) -> RowArray: ...
    @property
    def stored_offsets(self) -> RowArray: ...


class SampledStore(Protocol):
    """What a selection asks of the embeddings."""

    @property
    def rows(self) -> int: ...
    @property
    def dims(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def ids(self) -> Any:
        """The stored ids, None where there are none."""

    def take(self, rows: Int64) -> NDArray[Any]:
        """Rows, given in ascending order."""

    def take_ids(self, rows: Int64) -> NDArray[Any] | None:
        """The ids of rows, given in ascending order; None where the store has none."""


class SampledTree(Protocol):
    """What a draw reads of a tree; :class:`streamcurate.tree.Tree` is one."""

    @property
    def path(self) -> str: ...
    @property
    def complete(self) -> bool: ...
    @property
    def levels(self) -> Sequence[SampledLevel]:
        """Level 1 first."""

    @property
    def source(self) -> Mapping[str, Any]:
        """The store's description; its entry ``ids`` is true where the store had ids."""

    def embeddings(self) -> SampledStore | None:
        """The store, None where it is gone."""


@dataclass(frozen=True)
class Hierarchy:
    """Children of every node above the rows, a few int64 per cluster.

    Attributes
    ----------
    leaf_offsets : ndarray of int64, shape (k_1 + 1,)
        Of level 1: its members are rows and stay on disk.
    uppers : tuple of (members, offsets)
        Of levels 2 and above: clusters of the level below, ordered by cluster.
    """

    leaf_offsets: Int64
    uppers: tuple[tuple[Int64, Int64], ...]

    @property
    def depth(self) -> int:
        """Number of levels."""
        return 1 + len(self.uppers)

    @property
    def sizes(self) -> Int64:
        """Rows in each cluster of level 1."""
        return np.diff(self.leaf_offsets)

    @property
    def rows(self) -> int:
        """Rows under the root."""
        return int(self.leaf_offsets[-1])

    def clusters(self, level: int) -> int:
        """k of a level, counted from 1."""
        offsets = self.leaf_offsets if level == 1 else self.uppers[level - 2][1]
        return len(offsets) - 1

    def children(self, level: int) -> tuple[Int64, Int64]:
        """Clusters of ``level`` ordered by their parent, and the parents' offsets into them. The root is the one
        parent of the top level."""
        if level < self.depth:
            return self.uppers[level - 1]
        clusters = self.clusters(level)
        return np.arange(clusters, dtype=np.int64), np.array([0, clusters], dtype=np.int64)

    def totals(self, leaf_values: Int64) -> list[Int64]:
        """Sums of values of the clusters of level 1 under every cluster: one array a level, level 1 first."""
        totals = [leaf_values]
        for level in range(2, self.depth + 1):
            totals.append(self.sums(level, totals[-1]))
        return totals

    def sums(self, level: int, values: Int64) -> Int64:
        """Sums of values of the clusters of the level below under every cluster of ``level``, 2 or more."""
        members, offsets = self.uppers[level - 2]
        return segment_sums(values[members], offsets)


def read_hierarchy(tree: SampledTree) -> Hierarchy:
    """Read the offsets of every level and the members of all but the first.

    Raises
    ------
    StoreError
        Offsets and members do not belong together.
    """
    uppers = []
    for number, level in enumerate(tree.levels, start=1):
        offsets = np.asarray(level.stored_offsets.read(0, level.stored_offsets.rows), dtype=np.int64)
        count = level.stored_members.rows
        if (
            len(offsets) != level.clusters + 1
            or offsets[0] != 0
            or offsets[-1] != count
            or (np.diff(offsets) < 0).any()
        ):
            raise StoreError(
                f"{tree.path}: the offsets of level {number} do not fit its {level.clusters:,} clusters and "
                f"{count:,} members; restore the run directory or cluster again"
            )
        if number == 1:
            leaf_offsets = offsets
        else:
            uppers.append((np.asarray(level.stored_members.read(0, count), dtype=np.int64), offsets))
    return Hierarchy(leaf_offsets, tuple(uppers))


def segment_sums(values: Int64, offsets: Int64) -> Int64:
    """Exact sums of ``values[offsets[i]:offsets[i + 1]]``; 0 for an empty range."""
    sums = np.zeros(len(offsets) - 1, dtype=np.int64)
    filled = np.diff(offsets) > 0
    if filled.any():
        # An empty range would make reduceat return the next element instead of 0.
        sums[filled] = np.add.reduceat(values, offsets[:-1][filled])
    return sums
