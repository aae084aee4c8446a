"""Exact sums of rows by cluster, as a partial that combines in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.fixed_point import FixedPoint
from streamcurate.kernels.metric import Int64


@dataclass(frozen=True)
class ClusterSums:
    """Sums of rows by cluster: of one block over the clusters it touches, or of many blocks over all clusters.

    The sum of coordinate j over cluster ids[t] is  2^lowest sum_l limbs[l, t, j] 2^(l limb_bits),  exactly. How a sum
    is spread over its limbs depends on the blocks; the sum does not.

    Attributes
    ----------
    fixed_point : FixedPoint
    clusters : int
        Number of clusters, k.
    ids : (t,) int64 or None
        The clusters touched, ascending; None where all k have their place.
    limbs : (limbs, t or k, d) int64
    counts : (t or k,) int64
        Rows of each cluster.
    """

    fixed_point: FixedPoint
    clusters: int
    ids: Int64 | None
    limbs: Int64
    counts: Int64

    @property
    def nbytes(self) -> int:
        """Bytes held: 8 (limbs d + 1) a cluster, and 8 more for its number in a block's sums."""
        return int(self.limbs.nbytes + self.counts.nbytes + (0 if self.ids is None else self.ids.nbytes))

    @classmethod
    def empty(cls, clusters: int, dims: int, fixed_point: FixedPoint) -> ClusterSums:
        """Sums of no rows over all clusters: an accumulator."""
        limbs = np.zeros((fixed_point.limbs, clusters, dims), dtype=np.int64)
        return cls(fixed_point, clusters, None, limbs, np.zeros(clusters, dtype=np.int64))

    def combine(self, other: ClusterSums) -> ClusterSums:
        """The sums of both; where one of them covers all clusters it is added to in place and returned.

        Otherwise a new accumulator over all clusters is made.
        """
        if (self.fixed_point, self.clusters, self.limbs.shape[2]) != (
            other.fixed_point, other.clusters, other.limbs.shape[2],
        ):  # fmt: skip
            raise ValueError("sums of different layouts, numbers of clusters or dims cannot be combined")
        from streamcurate.kernels.cpu.sums import add_into

        if self.ids is None:
            add_into(self, other)
            return self
        if other.ids is None:
            add_into(other, self)
            return other
        total = ClusterSums.empty(self.clusters, int(self.limbs.shape[2]), self.fixed_point)
        add_into(total, self)
        add_into(total, other)
        return total

    def minus(self, other: ClusterSums) -> ClusterSums:
        """These sums of a block less others of a block, over the clusters that either touches; a new object."""
        if self.ids is None or other.ids is None:
            raise ValueError("only sums over the clusters touched are subtracted")
        ids = np.union1d(self.ids, other.ids)
        limbs = np.zeros((self.fixed_point.limbs, len(ids), self.limbs.shape[2]), dtype=np.int64)
        counts = np.zeros(len(ids), dtype=np.int64)
        here, there = np.searchsorted(ids, self.ids), np.searchsorted(ids, other.ids)
        limbs[:, here], counts[here] = self.limbs, self.counts
        limbs[:, there] -= other.limbs
        counts[there] -= other.counts
        return ClusterSums(self.fixed_point, self.clusters, ids, limbs, counts)

    def dense(self) -> ClusterSums:
        """These sums over all clusters (themselves where they are so already)."""
        if self.ids is None:
            return self
        return ClusterSums.empty(self.clusters, int(self.limbs.shape[2]), self.fixed_point).combine(self)
