"""Rows as 8-bit integers, and integer distances between them, on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamcurate.kernels.cpu.quantise import _EXACT_COLUMNS
from streamcurate.kernels.gpu.blocks import checked, parts, rows_per_tile, whole
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Array, Int64, check_metric

if TYPE_CHECKING:
    from streamcurate.kernels.seeding import Quantiser

_LARGEST_OTHERS = 4096  # columns of one tile of distances


def quantise(device: Device, workspace: int, rows: Array, quantiser: Quantiser, metric: str) -> Array:
    """See kernels/cpu/quantise.py."""
    check_metric(metric)
    rows = checked(device, rows)
    dims = int(rows.shape[1])
    integers = np.empty(rows.shape, dtype=np.int8)
    with device.session():
        offset = device.upload(np.ascontiguousarray(quantiser.offset, dtype=np.float64))

        def round_rows(part: slice) -> None:
            tile = whole(device, rows[part], metric)
            rounded = device.empty((tile.count, dims), np.int8)
            device.launch(
                tile.kernel("round_rows"), tile.count * dims, tile.rows, tile.norms, tile.unit, tile.count, dims,
                offset, float(quantiser.step), rounded,
            )  # fmt: skip
            integers[part] = device.download(rounded)

        for part in parts(len(rows), rows_per_tile(workspace, (rows.dtype.itemsize + 1) * dims + 8)):
            round_rows(part)
    return integers


def quantised_distances(device: Device, workspace: int, rows: Array, others: Array) -> Int64:
    """See kernels/cpu/quantise.py: the same products, exact in float32 in any order."""
    for array in (rows, others):
        if array.dtype != np.int8 or len(array.shape) != 2 or array.shape[1] != rows.shape[1]:
            raise ValueError(f"{array.dtype} rows of shape {array.shape}; both must be int8 with equal dims")
    dims = int(rows.shape[1])
    distances = np.empty((len(rows), len(others)), dtype=np.int64)
    piece = min(dims, _EXACT_COLUMNS)
    per_row = dims + 4 * piece + 8
    width = max(1, min(_LARGEST_OTHERS, len(others), workspace // 4 // per_row))
    step = rows_per_tile(3 * workspace // 4, per_row + 12 * width)
    with device.session():

        def measure(part: slice, right: _Integers) -> Int64:
            left = _Integers(device, rows[part])
            pairs = left.count * right.count
            result = device.empty((left.count, right.count), np.int64)
            products = device.empty((left.count, right.count), np.float32)
            for first in range(0, dims, piece):
                some = min(piece, dims - first)
                device.product(left.columns(first, some), right.columns(first, some), products)
                device.launch(
                    "place_distances", pairs, products, left.squared, right.squared, left.count, right.count,
                    int(first == 0), result,
                )  # fmt: skip
            found: Int64 = device.download(result)
            return found

        def measure_all(opposite: slice) -> None:
            right = _Integers(device, others[opposite])
            for part in parts(len(rows), step):
                distances[part, opposite] = measure(part, right)

        for opposite in parts(len(others), width):
            measure_all(opposite)
    return distances


class _Integers:
    """A tile of int8 rows on the device, and their squared norms."""

    def __init__(self, device: Device, rows: Array) -> None:
        self._device = device
        self._rows: DeviceArray = rows if device.holds(rows) else device.upload(np.ascontiguousarray(rows))
        self.count, self._dims = int(rows.shape[0]), int(rows.shape[1])
        self.squared: DeviceArray = device.empty((self.count,), np.int64)
        device.launch("integer_norms", self.count, self._rows, self.count, self._dims, self.squared)

    def columns(self, first: int, some: int) -> DeviceArray:
        values = self._device.empty((self.count, some), np.float32)
        self._device.launch(
            "integers_to_float32", self.count * some, self._rows, self.count, self._dims, first, some, values
        )
        return values
