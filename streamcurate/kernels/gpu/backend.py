"""The device's functions as one object."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from streamcurate.kernels.cpu import farthest as far
from streamcurate.kernels.cpu import formula, random, selection, sums
from streamcurate.kernels.gpu import integers, nearest, pairs, prepare, statistics
from streamcurate.kernels.gpu import sums as device_sums
from streamcurate.kernels.gpu.blocks import LARGEST_TILE, MEBIBYTE, checked
from streamcurate.kernels.gpu.choice import RouteChoice
from streamcurate.kernels.gpu.interface import Device
from streamcurate.kernels.gpu.trust import check_arithmetic, trusted_routes
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64

if TYPE_CHECKING:
    from streamcurate.kernels.fixed_point import FixedPoint
    from streamcurate.kernels.prepared_centroids import PreparedCentroids
    from streamcurate.kernels.row_statistics import Statistics
    from streamcurate.kernels.seeding import Quantiser
    from streamcurate.kernels.sums_partial import ClusterSums

WORKSPACE = 512 * MEBIBYTE
"""Device memory that the arrays of one call may take: tiles large enough to fill any GPU."""


class GpuBackend:
    """One CUDA device: what touches rows runs there, one call at a time; what is small stays on the host.

    Rows may lie on the host or, after :meth:`upload`, on the device; results are NumPy arrays. Every function is
    documented where the CPU has it (``streamcurate.kernels``) and gives the same bits.

    Parameters
    ----------
    device : Device
    workspace : int
        Bytes of device memory one call's arrays may take, beside uploaded rows and prepared centroids; never more than
        half of what is free.
    routes : tuple of str, optional
        Ways to scores to choose from; all the device has where not given.
    """

    name = "gpu"
    distance_of = staticmethod(formula.distance_of)
    mean_centroids = staticmethod(sums.mean_centroids)
    random_bits = staticmethod(random.random_bits)
    random_below = staticmethod(random.random_below)
    smallest_per_cluster = staticmethod(selection.smallest_per_cluster)
    farthest = staticmethod(far.farthest)

    def __init__(self, device: Device, workspace: int = WORKSPACE, routes: tuple[str, ...] | None = None) -> None:
        self._device = device
        self._workspace = workspace
        self._choice = RouteChoice(device.routes if routes is None else routes)

    @property
    def device_name(self) -> str:
        """What the maker calls the device."""
        return self._device.name

    @property
    def device_bytes(self) -> int | None:
        """All memory of the device."""
        return self._device.total_bytes

    @property
    def choice(self) -> RouteChoice:
        """What has been measured of the ways to scores."""
        return self._choice

    def upload(self, rows: Array) -> Array:
        """A block's rows on the device, for several calls; its memory is free again when the result is dropped."""
        rows = checked(self._device, rows)
        if self._device.holds(rows):
            return rows
        # Not in a session: while another thread computes.
        copy: Array = self._device.upload(rows)
        return copy

    def close(self) -> None:
        """Give device memory kept for later calls back; later calls take it anew."""
        self._device.close()

    def squared_distances_of_pairs(
        self, rows: Array, row_index: Int64, centroids: Float32, cluster_index: Int64, metric: str
    ) -> Float64:
        """The formula's value of each pair; (p,) float64."""
        return pairs.squared_distances_of_pairs(
            self._device, self._bytes(), rows, row_index, centroids, cluster_index, metric
        )

    def prepare_centroids(
        self, centroids: Float32, metric: str, before: Float32 | None = None, drift: float = 0.0
    ) -> PreparedCentroids:
        """Centroids on the device, ready for :meth:`nearest`; those before are of no use to it."""
        return prepare.prepare_centroids(self._device, centroids, metric)

    def nearest(
        self,
        rows: Array,
        prepared: PreparedCentroids,
        previous: tuple[Int32, Float64] | None = None,
        first_cluster: int = 0,
        guesses: Int32 | None = None,
    ) -> tuple[Int32, Float64]:
        """Label and formula value of each row; ``guesses`` save nothing here."""
        return nearest.nearest(self._device, self._bytes(), rows, prepared, previous, first_cluster, self._choice)

    def relabel(
        self,
        rows: Array,
        prepared: PreparedCentroids,
        labels: Int32 | None = None,
        floors: Float32 | None = None,
        margin: float = 0.0,
    ) -> tuple[Int32, Float64, Float32]:
        """Label and formula value of each row, all searched for anew, and the lowest of all floors: 0.

        Picking the rows that need a search would leave a device waiting for most of its work.
        """
        found, values = self.nearest(rows, prepared)
        return found, values, np.zeros(len(found), dtype=np.float32)

    def nearest_workspace_bytes(self, rows: int, dims: int, clusters: int) -> int:
        """Bytes of host memory one call of :meth:`nearest` uses beside its arguments and results."""
        return 64 * min(rows, LARGEST_TILE) + 40 * clusters + MEBIBYTE

    def nearest_device_bytes(self, rows: int, dims: int, clusters: int) -> int:
        """Bytes of device memory for centroids and :meth:`nearest`, uploaded rows aside; an upper bound."""
        return prepare.prepared_device_bytes(clusters, dims) + nearest.nearest_device_bytes(
            rows, dims, clusters, self._workspace, self._choice.routes
        )

    def statistics(self, rows: Array, metric: str = "l2", first_row: int = 0) -> Statistics:
        """What later passes need to know of the data."""
        return statistics.statistics(self._device, self._bytes(), rows, metric, first_row)

    def cluster_sums(
        self, rows: Array, labels: Int32, metric: str, fixed_point: FixedPoint, clusters: int
    ) -> ClusterSums:
        """Exact sums of a block's rows by cluster; they stay on the device until read, where there is room."""
        return device_sums.cluster_sums(self._device, self._bytes(), rows, labels, metric, fixed_point, clusters)

    def quantise(self, rows: Array, quantiser: Quantiser, metric: str) -> Array:
        """Rows as 8-bit integers."""
        return integers.quantise(self._device, self._bytes(), rows, quantiser, metric)

    def quantised_distances(self, rows: Array, others: Array) -> Int64:
        """Exact squared distances between rows of 8-bit integers."""
        return integers.quantised_distances(self._device, self._bytes(), rows, others)

    def _bytes(self) -> int:
        with self._device.session():
            return max(1, min(self._workspace, self._device.free_bytes() // 2))


@cache
def gpu_backend() -> GpuBackend:
    """The one backend of this process: its kernels are compiled once, and its calls take turns."""
    from streamcurate.kernels.gpu.device import open_device

    device = open_device()
    check_arithmetic(device)
    return GpuBackend(device, routes=trusted_routes(device))
