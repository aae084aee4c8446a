"""Where arithmetic runs: one protocol, and the choice of its implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from streamcurate.errors import InputError
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64, UInt64

if TYPE_CHECKING:
    from streamcurate.kernels.farthest_rows import FarthestRows
    from streamcurate.kernels.fixed_point import FixedPoint
    from streamcurate.kernels.nearest_selection import NearestSelection
    from streamcurate.kernels.prepared_centroids import PreparedCentroids
    from streamcurate.kernels.row_statistics import Statistics
    from streamcurate.kernels.seeding import Quantiser
    from streamcurate.kernels.sums_partial import ClusterSums


class Backend(Protocol):
    """What a device offers. Every implementation gives the same bits; the CPU's functions document each of them."""

    @property
    def name(self) -> str:
        """ "cpu" or "gpu"."""

    @property
    def device_bytes(self) -> int | None:
        """All memory of the device; None where rows stay in the host's."""

    def upload(self, rows: Array) -> Array:
        """A block's rows where the device reads them, for several calls; on the CPU the rows themselves.

        Every function takes rows as they are or uploaded, and gives NumPy arrays. Drop the result to free its memory.
        """

    def close(self) -> None:
        """Give memory kept for later calls back."""

    def squared_distances_of_pairs(
        self, rows: Array, row_index: Int64, centroids: Float32, cluster_index: Int64, metric: str
    ) -> Float64:
        """The formula's value of each pair; (p,) float64."""

    def distance_of(self, values: Float64, metric: str) -> Float32:
        """Stored distances of formula values."""

    def prepare_centroids(
        self, centroids: Float32, metric: str, before: Float32 | None = None, drift: float = 0.0
    ) -> PreparedCentroids:
        """Centroids ready for :meth:`nearest`; with those of the pass before also for :meth:`relabel`."""

    def nearest(
        self,
        rows: Array,
        prepared: PreparedCentroids,
        previous: tuple[Int32, Float64] | None = None,
        first_cluster: int = 0,
        guesses: Int32 | None = None,
    ) -> tuple[Int32, Float64]:
        """Label and formula value of each row; guesses may save time."""

    def relabel(
        self,
        rows: Array,
        prepared: PreparedCentroids,
        labels: Int32 | None = None,
        floors: Float32 | None = None,
        margin: float = 0.0,
    ) -> tuple[Int32, Float64, Float32]:
        """The same where labels of the pass before may be known, and lower bounds of the distances to all others."""

    def nearest_workspace_bytes(self, rows: int, dims: int, clusters: int) -> int:
        """Bytes one call of :meth:`nearest` uses."""

    def statistics(self, rows: Array, metric: str = "l2", first_row: int = 0) -> Statistics:
        """What later passes need to know of the data."""

    def cluster_sums(
        self, rows: Array, labels: Int32, metric: str, fixed_point: FixedPoint, clusters: int
    ) -> ClusterSums:
        """Exact sums of a block's rows by cluster."""

    def mean_centroids(self, sums: ClusterSums, metric: str, previous: Float32) -> Float32:
        """Centroids of exact sums."""

    def random_bits(self, seed: int, stream: tuple[int, ...], counters: Int64 | UInt64) -> UInt64:
        """64 random bits for each counter."""

    def random_below(self, seed: int, stream: tuple[int, ...], bound: int) -> int:
        """A uniform integer below ``bound``."""

    def quantise(self, rows: Array, quantiser: Quantiser, metric: str) -> Array:
        """Rows as 8-bit integers."""

    def quantised_distances(self, rows: Array, others: Array) -> Int64:
        """Exact squared distances between rows of 8-bit integers."""

    def smallest_per_cluster(self, labels: Int32, keys: UInt64, rows: Int64, r: int, clusters: int) -> NearestSelection:
        """The r smallest (key, row) of each cluster."""

    def farthest(self, values: Float64, rows: Int64, count: int) -> FarthestRows:
        """The rows with the largest values."""


def get_backend(device: str = "auto") -> Backend:
    """The implementation for ``device``: "cpu", "gpu" (the first CUDA device that is visible), or "auto".

    "auto" is the CPU for now: it will choose a GPU once that path has been measured on one. Labels, sums and all else
    are the same bits on either.

    Raises
    ------
    InputError
        "gpu" where CuPy, a driver or a device is missing or too old (the message says which), or an unknown device.
    """
    if device in ("cpu", "auto"):
        from streamcurate.kernels.cpu.backend import CpuBackend

        return CpuBackend()
    if device != "gpu":
        raise InputError(f"device is {device!r}; it must be auto, cpu or gpu")
    from streamcurate.kernels.gpu.backend import gpu_backend

    return gpu_backend()
