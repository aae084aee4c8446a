"""Centroids on the device, laid out for screening."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.prepare import LARGEST_DIMS
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Float32, as_centroids, check_metric
from streamcurate.kernels.prepared_centroids import PreparedCentroids

GROUP = 16
"""Columns that share an error bound and one minimum: GROUP of cuda/nearest.cu."""

LARGEST_COLUMNS = 4096
"""Most columns of one tile of scores."""

# Up to so many dims, or clusters x (dims + 3), the formula over all pairs does no more work than screening would: a
# score is written and read through memory, 9 bytes, in the time of some twenty float64 operations. Not yet measured.
DIRECT_DIMS = 6
DIRECT_WORK = 4096


@dataclass(frozen=True)
class DeviceCentroids(PreparedCentroids):
    """Prepared centroids whose origin, columns, norms, order and bounds lie on the device.

    Attributes
    ----------
    resident : (k, d) float32
        The centroids themselves, on the device.
    """

    resident: DeviceArray

    @property
    def nbytes(self) -> int:
        """Bytes held on the device: about 8 d + 9 a cluster."""
        return super().nbytes + int(self.resident.nbytes)


def prepared_device_bytes(clusters: int, dims: int) -> int:
    """Bytes of device memory prepared centroids take, the work of preparing included."""
    padded = -(-clusters // GROUP) * GROUP
    return 4 * clusters * dims + padded * (4 * dims + 4 + 4 + 8 + 8) + 8 * dims + 4096


def prepare_centroids(device: Device, centroids: Float32, metric: str) -> DeviceCentroids:
    """Upload centroids and lay them out; see kernels/cpu/prepare.py for arguments and errors."""
    check_metric(metric)
    centroids = as_centroids(centroids)
    clusters, dims = centroids.shape
    if clusters == 0 or dims == 0:
        raise ValueError(f"centroids have shape {centroids.shape}; at least one centroid of one dim is needed")
    if dims > LARGEST_DIMS:
        raise ValueError(f"centroids have {dims} dims; the search's error bound holds up to {LARGEST_DIMS}")
    padded = -(-clusters // GROUP) * GROUP
    tile = min(padded, LARGEST_COLUMNS)
    with device.session():
        resident = device.upload(centroids)
        if dims <= DIRECT_DIMS or clusters * (dims + 3) <= DIRECT_WORK:
            none = device.empty((0,), np.float64)
            return DeviceCentroids(metric, centroids, True, tile, none, 1.0, none, none, none, none, resident)
        origin = device.empty((dims,), np.float64)
        device.launch("mean_of_centroids", dims, resident, clusters, dims, origin)
        largest_bits = device.zeros((1,), np.int64)
        device.launch("largest_difference", clusters, resident, clusters, dims, origin, largest_bits)
        largest = float(device.download(largest_bits).view(np.float64)[0])
        scale = 1.0 if largest == 0.0 else math.ldexp(1.0, 1 - math.frexp(largest)[1])
        squared_on_device = device.empty((clusters,), np.float64)
        device.launch("shifted_squared_norms", clusters, resident, clusters, dims, origin, scale, squared_on_device)
        squared = device.download(squared_on_device)
        # Neighbours in norm share a group, whose error bound is that of its largest member.
        order = np.full(padded, -1, dtype=np.int32)
        order[:clusters] = np.argsort(squared, kind="stable")
        norms = np.full(padded, np.inf, dtype=np.float32)
        norms[:clusters] = squared[order[:clusters]]
        # 1e-9 covers the float64 rounding of a norm of up to a million coordinates, 2^-100 its underflow.
        reach = np.zeros(padded)
        reach[:clusters] = np.sqrt(squared[order[:clusters]]) * (1 + 1e-9) + 2.0**-100
        bounds = reach.reshape(-1, GROUP).max(axis=1)
        columns = device.empty((padded, dims), np.float32)
        order_on_device = device.upload(order)
        device.launch("fill_columns", padded * dims, resident, dims, origin, scale, order_on_device, padded, columns)
        return DeviceCentroids(
            metric, centroids, False, tile, origin, scale, columns, device.upload(norms), order_on_device,
            device.upload(bounds), resident,
        )  # fmt: skip
