"""The device's functions as one object."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from streamcurate.errors import InputError
from streamcurate.kernels.cpu import farthest as far
from streamcurate.kernels.cpu import formula, random, selection, sums
from streamcurate.kernels.gpu import integers, nearest, pairs, prepare, statistics
from streamcurate.kernels.gpu import sums as device_sums
from streamcurate.kernels.gpu.blocks import LARGEST_TILE, MEBIBYTE, checked
from streamcurate.kernels.gpu.interface import Device
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64

if TYPE_CHECKING:
    from streamcurate.kernels.fixed_point import FixedPoint
    from streamcurate.kernels.prepared_centroids import PreparedCentroids
    from streamcurate.kernels.row_statistics import Statistics
    from streamcurate.kernels.seeding import Quantiser
    from streamcurate.kernels.sums_partial import ClusterSums

WORKSPACE = 512 * MEBIBYTE
"""Device memory that the arrays of one call may take: tiles large enough to fill any GPU."""

_CHECK_ROWS, _CHECK_DIMS = 600, 321  # no multiples of any tile's size


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
    """

    name = "gpu"
    distance_of = staticmethod(formula.distance_of)
    mean_centroids = staticmethod(sums.mean_centroids)
    random_bits = staticmethod(random.random_bits)
    random_below = staticmethod(random.random_below)
    smallest_per_cluster = staticmethod(selection.smallest_per_cluster)
    farthest = staticmethod(far.farthest)

    def __init__(self, device: Device, workspace: int = WORKSPACE) -> None:
        self._device = device
        self._workspace = workspace

    @property
    def device_name(self) -> str:
        """What the maker calls the device."""
        return self._device.name

    @property
    def device_bytes(self) -> int | None:
        """All memory of the device."""
        return self._device.total_bytes

    def upload(self, rows: Array) -> Array:
        """A block's rows on the device, for several calls; its memory is free again when the result is dropped."""
        rows = checked(self._device, rows)
        if self._device.holds(rows):
            return rows
        with self._device.session():
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

    def prepare_centroids(self, centroids: Float32, metric: str) -> PreparedCentroids:
        """Centroids on the device, ready for :meth:`nearest`."""
        return prepare.prepare_centroids(self._device, centroids, metric)

    def nearest(
        self,
        rows: Array,
        prepared: PreparedCentroids,
        previous: tuple[Int32, Float64] | None = None,
        first_cluster: int = 0,
    ) -> tuple[Int32, Float64]:
        """Label and formula value of each row."""
        return nearest.nearest(self._device, self._bytes(), rows, prepared, previous, first_cluster)

    def nearest_workspace_bytes(self, rows: int, dims: int, clusters: int) -> int:
        """Bytes of host memory one call of :meth:`nearest` uses beside its arguments and results."""
        return 64 * min(rows, LARGEST_TILE) + 40 * clusters + MEBIBYTE

    def nearest_device_bytes(self, rows: int, dims: int, clusters: int) -> int:
        """Bytes of device memory for centroids and :meth:`nearest`, uploaded rows aside; an upper bound."""
        return prepare.prepared_device_bytes(clusters, dims) + nearest.nearest_device_bytes(
            rows, dims, clusters, self._workspace
        )

    def statistics(self, rows: Array, metric: str = "l2", first_row: int = 0) -> Statistics:
        """What later passes need to know of the data."""
        return statistics.statistics(self._device, self._bytes(), rows, metric, first_row)

    def cluster_sums(
        self, rows: Array, labels: Int32, metric: str, fixed_point: FixedPoint, clusters: int
    ) -> ClusterSums:
        """Exact sums of a block's rows by cluster."""
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


def check_arithmetic(device: Device) -> None:
    """Try on the device what the certificate takes for granted: float32 products, and a formula without contraction.

    TF32, which cuBLAS can be told to use from outside, keeps 11 bits of each operand and misses the bound a
    thousandfold.

    Raises
    ------
    InputError
        The device's arithmetic is another.
    """
    rng = np.random.default_rng(0)
    left, right = (np.zeros((_CHECK_ROWS, _CHECK_DIMS), dtype=np.float32) for _ in range(2))
    # Three products that are not zero, far apart: their sum errs by 3 units in the last place at most.
    places = np.array([0, _CHECK_DIMS // 2, _CHECK_DIMS - 1])
    left[:, places], right[:, places] = rng.standard_normal((2, _CHECK_ROWS, 3))
    exact = left.astype(np.float64) @ right.astype(np.float64).T
    scale = np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64).T
    x, c = (rng.standard_normal((_CHECK_ROWS, 33)).astype(np.float32) for _ in range(2))
    both = np.arange(_CHECK_ROWS)
    with device.session():
        out = device.empty((_CHECK_ROWS, _CHECK_ROWS), np.float32)
        device.product(device.upload(left), device.upload(right), out)
        products = device.download(out)
    found = pairs.squared_distances_of_pairs(device, MEBIBYTE, x, both, c, both, "l2")
    wrong = []
    if not (np.abs(products - exact) <= 3.01 * 2.0**-24 * scale).all():
        wrong.append("its float32 matrix products are not of float32 precision (see NVIDIA_TF32_OVERRIDE)")
    if not np.array_equal(found, formula.squared_distances_of_pairs(x, both, c, both, "l2")):
        wrong.append("its float64 arithmetic is not the processor's")
    if wrong:
        raise InputError(f"device gpu: {device.name} gives other results: {' and '.join(wrong)}; use --device cpu")


@cache
def gpu_backend() -> GpuBackend:
    """The one backend of this process: its kernels are compiled once, and its calls take turns."""
    from streamcurate.kernels.gpu.device import open_device

    device = open_device()
    check_arithmetic(device)
    return GpuBackend(device)
