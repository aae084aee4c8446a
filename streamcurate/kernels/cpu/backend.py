"""The CPU's functions as one object."""

from __future__ import annotations

from streamcurate.kernels.cpu import farthest as far
from streamcurate.kernels.cpu import formula, prepare, random, selection, sums
from streamcurate.kernels.cpu import nearest as search
from streamcurate.kernels.cpu import quantise as integers
from streamcurate.kernels.cpu import relabel as again
from streamcurate.kernels.cpu import statistics as ranges
from streamcurate.kernels.cpu.choice import Experience
from streamcurate.kernels.metric import Array, Float32
from streamcurate.kernels.prepared_centroids import PreparedCentroids


class CpuBackend:
    """NumPy and numba, one thread a call."""

    name = "cpu"
    device_bytes: int | None = None
    squared_distances_of_pairs = staticmethod(formula.squared_distances_of_pairs)
    distance_of = staticmethod(formula.distance_of)
    nearest = staticmethod(search.nearest)
    relabel = staticmethod(again.relabel)
    nearest_workspace_bytes = staticmethod(search.nearest_workspace_bytes)
    statistics = staticmethod(ranges.statistics)
    cluster_sums = staticmethod(sums.cluster_sums)
    mean_centroids = staticmethod(sums.mean_centroids)
    random_bits = staticmethod(random.random_bits)
    random_below = staticmethod(random.random_below)
    quantise = staticmethod(integers.quantise)
    quantised_distances = staticmethod(integers.quantised_distances)
    smallest_per_cluster = staticmethod(selection.smallest_per_cluster)
    farthest = staticmethod(far.farthest)

    def __init__(self) -> None:
        # Of the passes this backend served; it lives as long as its executor.
        self._experience = Experience()

    def prepare_centroids(
        self, centroids: Float32, metric: str, before: Float32 | None = None, drift: float = 0.0
    ) -> PreparedCentroids:
        """See :func:`prepare.prepare_centroids`."""
        return prepare.prepare_centroids(centroids, metric, self._experience, before, drift)

    @staticmethod
    def upload(rows: Array) -> Array:
        """The rows themselves: the processor reads them where they are."""
        return rows

    @staticmethod
    def close() -> None:
        """Nothing to give back: work buffers go with their threads."""
