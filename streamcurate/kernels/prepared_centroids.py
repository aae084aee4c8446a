"""Centroids made ready for a pass."""

from __future__ import annotations

from dataclasses import dataclass

from streamcurate.kernels.metric import Float32, Float64, Int32


@dataclass(frozen=True)
class PreparedCentroids:
    """Centroids laid out for :func:`nearest`; made once per pass by :func:`prepare_centroids`, shared by all threads.

    What only one device needs is in its own subclass.

    Attributes
    ----------
    metric : "l2" or "cosine"
    centroids : (k, d) float32
        The stored centroids, the formula's operands (the caller's array, not a copy, where it is C-contiguous).
    direct : bool
        True where the formula itself, over all pairs, is faster than screening; the arrays below are then empty.
    tile : int
        Columns of one tile of scores.
    origin : (d,) float64
        Subtracted from rows and centroids before anything is rounded to float32.
    scale : float
        A power of two: the largest scaled coordinate of a centroid lies in [1, 2).
    columns : (padded k, d) float32
        -2 scale (c - origin) in order of norm, padded by zeros to whole registers.
    norms : (padded k,) float32
        |scale (c - origin)|^2, infinite for padding.
    order : (padded k,) int32
        The cluster of each column, -1 for padding.
    bounds : float64
        Upper bounds of the norms |scale (c - origin)|, of each column or of each group of them.
    """

    metric: str
    centroids: Float32
    direct: bool
    tile: int
    origin: Float64
    scale: float
    columns: Float32
    norms: Float32
    order: Int32
    bounds: Float64

    @property
    def clusters(self) -> int:
        """Number of centroids, k."""
        return int(self.centroids.shape[0])

    @property
    def dims(self) -> int:
        """Number of coordinates, d."""
        return int(self.centroids.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held beside the caller's centroids: about 4 d + 16 a cluster."""
        arrays = (self.origin, self.columns, self.norms, self.order, self.bounds)
        return sum(int(array.nbytes) for array in arrays)
