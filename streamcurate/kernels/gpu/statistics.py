"""Statistics of one block, on a device."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.statistics import _exponents
from streamcurate.kernels.gpu.blocks import checked, parts, rows_per_tile, whole
from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Array, Float64, check_metric
from streamcurate.kernels.row_statistics import Statistics

_CHUNK = 256  # rows one thread takes, of one coordinate


def _ordered(value: float) -> int:
    """The key under which cuda/rows.cu compares a float64."""
    bits = int(np.float64(value).view(np.int64))
    return bits ^ 0x7FFFFFFFFFFFFFFF if bits < 0 else bits


class _Ranges:
    """Least and greatest value of each coordinate so far, on the device."""

    def __init__(self, device: Device, dims: int) -> None:
        self.device = device
        self.minimum: DeviceArray = device.upload(np.full(dims, _ordered(np.inf), dtype=np.int64))
        self.maximum: DeviceArray = device.upload(np.full(dims, _ordered(-np.inf), dtype=np.int64))

    def values(self) -> tuple[Float64, Float64]:
        return self._value(self.minimum), self._value(self.maximum)

    def _value(self, keys: DeviceArray) -> Float64:
        bits = self.device.download(keys)
        value: Float64 = np.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits).view(np.float64)
        # Adding zero turns -0.0 into 0.0.
        return value + 0.0


def statistics(device: Device, workspace: int, rows: Array, metric: str = "l2", first_row: int = 0) -> Statistics:
    """See kernels/cpu/statistics.py."""
    check_metric(metric)
    rows = checked(device, rows)
    dims = int(rows.shape[1])
    usable = np.empty(len(rows), dtype=np.bool_)
    norms = np.empty(len(rows), dtype=np.float64)
    with device.session():
        ranges, unit_ranges = _Ranges(device, dims), _Ranges(device, dims)
        masks = device.zeros((256,), np.uint32)
        step = rows_per_tile(workspace, rows.dtype.itemsize * dims + 9)

        def measure(part: slice) -> None:
            tile = whole(device, rows[part], metric, with_norms=True)
            flags = device.empty((tile.count,), np.uint8)
            device.launch(tile.kernel("usable_rows"), tile.count, tile.rows, tile.count, dims, flags)
            chunks = -(-tile.count // _CHUNK)
            for unit in range(tile.unit + 1):
                taken = unit_ranges if unit else ranges
                device.launch(
                    tile.kernel("column_ranges"), chunks * dims, tile.rows, tile.norms, unit, flags, tile.count, dims,
                    _CHUNK, chunks, taken.minimum, taken.maximum, masks,
                )  # fmt: skip
            usable[part] = device.download(flags) != 0
            norms[part] = device.download(tile.norms)

        for part in parts(len(rows), step):
            measure(part)
        minimum, maximum = ranges.values()
        unit_minimum, unit_maximum = unit_ranges.values()
        lowest, highest = _exponents(device.download(masks))
    bad, zero = np.flatnonzero(~usable), np.flatnonzero(usable & (norms == 0.0))
    good = norms[usable]
    return Statistics(
        rows=len(rows),
        minimum=minimum.astype(np.float32),
        maximum=maximum.astype(np.float32),
        lowest_exponent=lowest,
        highest_exponent=highest,
        bad_rows=len(bad),
        first_bad_row=first_row + int(bad[0]) if len(bad) else -1,
        zero_rows=len(zero),
        first_zero_row=first_row + int(zero[0]) if len(zero) else -1,
        smallest_norm=float(good.min(initial=np.inf)),
        largest_norm=float(good.max(initial=0.0)),
        unit_minimum=unit_minimum if metric == "cosine" else None,
        unit_maximum=unit_maximum if metric == "cosine" else None,
    )
