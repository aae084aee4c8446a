"""Centroids on the device, laid out for screening, in the way each route wants them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamcurate.kernels.gpu.bound import LARGEST_DIMS, error_terms
from streamcurate.kernels.gpu.interface import FUSED, SINGLE, Device, DeviceArray
from streamcurate.kernels.metric import Float32, Float64, Int32, as_centroids, check_metric
from streamcurate.kernels.prepared_centroids import PreparedCentroids

GROUP = 16
"""Columns that share an error bound and one minimum: GROUP of cuda/screen.cu."""

LARGEST_COLUMNS = 1024
"""Most columns of one tile of scores: GROUP x PER_THREAD x (THREADS / 32) of cuda/screen.cu."""

PANEL_ROWS, PANEL_COLUMNS, PANEL_DIMS = 128, 256, 64
"""The fused kernel's panels: PANEL_ROWS and PANEL_COLUMNS of cuda/fused.cu, and 128 bytes of float16."""

# Up to so many dims, or clusters x (dims + 3), the formula over all pairs does no more work than screening would: a
# score is written and read through memory, 9 bytes, in the time of some twenty float64 operations. Not yet measured.
DIRECT_DIMS = 6
DIRECT_WORK = 4096

_CHUNK = 256  # centroids whose sum one thread takes, of one coordinate
_LEAST_SCALE, _LARGEST_SCALE = 2.0**-60, 2.0**60


@dataclass(frozen=True)
class Ground:
    """Where and how large: what all layouts with the same origin share.

    Attributes
    ----------
    origin : (d,) float64, on the device
    scale : float
        A power of two: the largest scaled coordinate of a centroid lies in [1, 2).
    squared : (k,) float64
        |scale (c - origin)|^2.
    """

    origin: DeviceArray
    scale: float
    squared: Float64


@dataclass(frozen=True)
class Layout:
    """Centroids as columns for one route, all on the device but ``scale`` and ``terms``.

    Attributes
    ----------
    route : str
    exact : bool
        True where float16 rows are used as they are; the origin is zero then.
    width : int
        Coordinates of a column or row, zeros included.
    origin : (d,) float64
    scale : float
    norms : (padded k,) float32
        |scale (c - origin)|^2 in ascending order, infinite for padding.
    order : (padded k,) int32
        The cluster of each column, -1 for padding.
    bounds, residuals : float64
        Largest B and sigma (see bound.py) of each group of GROUP columns, or of each panel.
    columns : (padded k, width) float16
        -2 scale (c - origin); in panels for the fused route, nothing for the float32 route, whose columns are made
        tile by tile.
    terms : tuple of float
        Of the error bound.
    """

    route: str
    exact: bool
    width: int
    origin: DeviceArray
    scale: float
    norms: DeviceArray
    order: DeviceArray
    bounds: DeviceArray
    residuals: DeviceArray
    columns: DeviceArray
    terms: tuple[float, float, float, float]

    @property
    def padded(self) -> int:
        """Number of columns."""
        return int(self.norms.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        arrays = (self.origin, self.norms, self.order, self.bounds, self.residuals, self.columns)
        return sum(int(array.nbytes) for array in arrays)


@dataclass(frozen=True)
class DeviceCentroids(PreparedCentroids):
    """Centroids on the device; layouts are made when a route first asks for them, and kept.

    The arrays that the CPU's search reads are empty.

    Attributes
    ----------
    resident : (k, d) float32
        The centroids themselves, on the device.
    """

    resident: DeviceArray
    grounds: dict[bool, Ground] = field(default_factory=dict, repr=False, compare=False)
    layouts: dict[tuple[str, bool], Layout] = field(default_factory=dict, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes held on the device: 4 d a cluster, and 2 d + 9 more for a layout of float16 columns."""
        return int(self.resident.nbytes) + sum(layout.nbytes for layout in self.layouts.values())


def prepared_device_bytes(clusters: int, dims: int) -> int:
    """Bytes of device memory prepared centroids take with the largest layout, the work of preparing included."""
    padded = -(-clusters // PANEL_COLUMNS) * PANEL_COLUMNS
    width = -(-dims // PANEL_DIMS) * PANEL_DIMS
    chunks = -(-clusters // _CHUNK)
    per_column = 2 * width + 3 * (4 + 4 + 1 + 1) + 8 + 8
    return 4 * clusters * dims + padded * per_column + 8 * dims * (chunks + 4) + 8192


def prepare_centroids(device: Device, centroids: Float32, metric: str) -> DeviceCentroids:
    """Upload centroids; see kernels/cpu/prepare.py for arguments and errors."""
    check_metric(metric)
    centroids = as_centroids(centroids)
    clusters, dims = centroids.shape
    if clusters == 0 or dims == 0:
        raise ValueError(f"centroids have shape {centroids.shape}; at least one centroid of one dim is needed")
    if dims > LARGEST_DIMS:
        raise ValueError(f"centroids have {dims} dims; the search's error bound holds up to {LARGEST_DIMS}")
    with device.session():
        return DeviceCentroids(
            metric=metric,
            centroids=centroids,
            direct=dims <= DIRECT_DIMS or clusters * (dims + 3) <= DIRECT_WORK,
            tile=LARGEST_COLUMNS,
            origin=np.empty(0, np.float64),
            scale=1.0,
            columns=np.empty((0, dims), np.float32),
            norms=np.empty(0, np.float32),
            order=np.empty(0, np.int32),
            bounds=np.empty(0, np.float64),
            resident=device.upload(centroids),
        )


def layout_of(device: Device, prepared: DeviceCentroids, route: str, dtype: np.dtype[Any]) -> Layout:
    """The layout for rows of this dtype; inside a session."""
    exact = route != SINGLE and dtype == np.float16 and _as_they_are(device, prepared)
    layout = prepared.layouts.get((route, exact))
    if layout is None:
        if route != SINGLE:
            # One set of float16 columns at a time: routes change only while they are measured.
            for other in [key for key in prepared.layouts if key[0] != SINGLE]:
                del prepared.layouts[other]
        layout = prepared.layouts[route, exact] = _laid_out(device, prepared, route, exact)
    return layout


def _ground(device: Device, prepared: DeviceCentroids, shifted: bool) -> Ground:
    ground = prepared.grounds.get(shifted)
    if ground is None:
        ground = prepared.grounds[shifted] = _measured(device, prepared, shifted)
    return ground


def _measured(device: Device, prepared: DeviceCentroids, shifted: bool) -> Ground:
    clusters, dims = prepared.clusters, prepared.dims
    origin = device.zeros((dims,), np.float64)
    if shifted:
        chunks = -(-clusters // _CHUNK)
        partial = device.empty((chunks, dims), np.float64)
        device.launch("sums_of_chunks", chunks * dims, prepared.resident, clusters, dims, _CHUNK, chunks, partial)
        device.launch("mean_of_chunks", dims, partial, chunks, clusters, dims, origin)
    squared = device.empty((clusters,), np.float64)

    def largest_at(scale: float) -> float:
        bits = device.zeros((1,), np.int64)
        threads = device.blocks(clusters, 8)
        device.launch("centroid_extents", threads, prepared.resident, clusters, dims, origin, scale, bits, squared)
        return float(device.download(bits).view(np.float64)[0])

    largest = largest_at(1.0)
    scale = 1.0 if largest == 0.0 else math.ldexp(1.0, 1 - math.frexp(largest)[1])
    if scale != 1.0:
        largest_at(scale)
    return Ground(origin, scale, device.download(squared))


def _as_they_are(device: Device, prepared: DeviceCentroids) -> bool:
    """Whether float16 rows are better not shifted; see bound.py."""
    scale = _ground(device, prepared, False).scale
    if not _LEAST_SCALE <= scale <= _LARGEST_SCALE:
        return False
    shifted = _ground(device, prepared, True)
    origin = device.download(shifted.origin)
    spread = math.sqrt(float(shifted.squared.mean())) / shifted.scale
    return float(np.sqrt((origin * origin).sum())) <= spread


def _laid_out(device: Device, prepared: DeviceCentroids, route: str, exact: bool) -> Layout:
    ground = _ground(device, prepared, not exact)
    clusters, dims = prepared.clusters, prepared.dims
    together = PANEL_COLUMNS if route == FUSED else GROUP
    padded = -(-clusters // together) * together
    # Neighbours in norm share a group, whose error bound is that of its largest member.
    order: Int32 = np.full(padded, -1, dtype=np.int32)
    order[:clusters] = np.argsort(ground.squared, kind="stable")
    squared = ground.squared[order[:clusters]]
    norms = np.full(padded, np.inf, dtype=np.float32)
    norms[:clusters] = squared
    # 1e-9 covers the float64 rounding of a norm of up to a million coordinates, 2^-100 its underflow.
    reach = np.zeros(padded)
    reach[:clusters] = np.sqrt(squared) * (1 + 1e-9) + 2.0**-100
    lost = np.zeros(padded)
    order_on_device = device.upload(order)
    width, columns = dims, device.empty((0, dims), np.float16)
    if route != SINGLE:
        multiple = PANEL_DIMS if route == FUSED else 8
        width = -(-dims // multiple) * multiple
        columns = device.empty((padded, width), np.float16)
        residuals = device.empty((padded,), np.float64)
        device.launch(
            "halve_columns", device.blocks(padded, 8), prepared.resident, dims, ground.origin, ground.scale,
            order_on_device, padded, width, PANEL_COLUMNS if route == FUSED else 0, columns, residuals,
        )  # fmt: skip
        # 2^-50 covers the float64 rounding of the shifted centroid.
        lost[:clusters] = (device.download(residuals) * (1 + 1e-9))[:clusters] + 2.0**-50 * reach[:clusters]
    return Layout(
        route=route,
        exact=exact,
        width=width,
        origin=ground.origin,
        scale=ground.scale,
        norms=device.upload(norms),
        order=order_on_device,
        bounds=device.upload((reach + lost).reshape(-1, together).max(axis=1)),
        residuals=device.upload(lost.reshape(-1, together).max(axis=1)),
        columns=columns,
        terms=error_terms(width, route != SINGLE),
    )
