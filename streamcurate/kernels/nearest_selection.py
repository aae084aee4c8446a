"""The r smallest keys of each cluster, as a partial that combines in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.metric import Int64, UInt64


@dataclass(frozen=True)
class NearestSelection:
    """Up to r (key, row) pairs of each cluster, the smallest by key, then by row.

    Attributes
    ----------
    clusters, r : int
    ids : (t,) int64 or None
        The clusters of a block's selection, ascending; None where all k have r places each.
    counts : (t or k,) int64
        Pairs held of each cluster.
    offsets : (t or k,) int64
        Where a cluster's pairs begin in ``keys`` and ``rows``.
    keys : (pairs,) uint64, or (k r,) where ``ids`` is None
    rows : int64, alongside
    """

    clusters: int
    r: int
    ids: Int64 | None
    counts: Int64
    offsets: Int64
    keys: UInt64
    rows: Int64

    @property
    def nbytes(self) -> int:
        """Bytes held: 16 a pair, 24 a cluster."""
        arrays = (self.counts, self.offsets, self.keys, self.rows)
        return sum(int(array.nbytes) for array in arrays) + (0 if self.ids is None else int(self.ids.nbytes))

    @classmethod
    def empty(cls, clusters: int, r: int) -> NearestSelection:
        """A selection of nothing with room for all clusters: an accumulator."""
        return cls(
            clusters,
            r,
            None,
            np.zeros(clusters, dtype=np.int64),
            np.arange(clusters, dtype=np.int64) * r,
            np.zeros(clusters * r, dtype=np.uint64),
            np.zeros(clusters * r, dtype=np.int64),
        )

    def combine(self, other: NearestSelection) -> NearestSelection:
        """The selection from both; where one has room for all clusters it is merged into in place and returned.

        Otherwise a new one with room for all clusters is made: 16 (r + 1) bytes a cluster.
        """
        if (self.clusters, self.r) != (other.clusters, other.r):
            raise ValueError(
                f"selections of {self.r} from {self.clusters} and {other.r} from {other.clusters} cannot be combined"
            )
        from streamcurate.kernels.cpu.selection import merge_into

        if self.ids is None:
            merge_into(self, other)
            return self
        if other.ids is None:
            merge_into(other, self)
            return other
        total = NearestSelection.empty(self.clusters, self.r)
        merge_into(total, self)
        merge_into(total, other)
        return total

    def finalize(self) -> tuple[Int64, Int64]:
        """The selected rows in order of (cluster, key, row), and how many each cluster has: (sum counts,), (k,)."""
        counts = np.zeros(self.clusters, dtype=np.int64)
        if self.ids is None:
            counts[:] = self.counts
        else:
            counts[self.ids] = self.counts
        ends = np.cumsum(self.counts)
        total = int(ends[-1]) if len(ends) else 0
        places = np.arange(total, dtype=np.int64) + np.repeat(self.offsets - (ends - self.counts), self.counts)
        return self.rows[places], counts
