"""Blocks of rows on their way to the device: whole, or a tile at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.gpu.interface import Device, DeviceArray
from streamcurate.kernels.metric import Array, as_rows

MEBIBYTE = 2**20
LARGEST_TILE = 2**16
"""Most rows of one tile: more gain nothing, a GPU is full with fewer."""


@dataclass(frozen=True)
class Tile:
    """Rows on the device.

    Attributes
    ----------
    rows : (m, d) float16 or float32
    norms : (m,) float64
        Norms of the rows, where asked for; else one value that nothing reads.
    unit : int
        1 where the formula sees the rows divided by their norms (cosine).
    """

    rows: DeviceArray
    norms: DeviceArray
    unit: int

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.rows.shape[0])

    @property
    def dims(self) -> int:
        """Number of coordinates."""
        return int(self.rows.shape[1])

    def kernel(self, name: str) -> str:
        """The kernel for rows of this kind."""
        return f"{name}_{self.rows.dtype.name}"


def checked(device: Device, rows: Array) -> Array:
    """``rows`` as a block: on the device, or C-contiguous on the host; ValueError for another shape or dtype."""
    if not device.holds(rows):
        return as_rows(rows)
    if len(rows.shape) != 2 or rows.dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise ValueError(f"rows are {rows.dtype} of shape {rows.shape}; a block holds (rows, dims) float16 or float32")
    return rows


def whole(device: Device, rows: Array, metric: str, with_norms: bool = False) -> Tile:
    """All of ``rows`` on the device, uploaded unless they are there, and their norms where needed."""
    resident = rows if device.holds(rows) else device.upload(rows)
    unit = int(metric == "cosine")
    norms = device.empty((len(rows) if unit or with_norms else 1,), np.float64)
    tile = Tile(resident, norms, unit)
    if unit or with_norms:
        device.launch(tile.kernel("row_norms"), tile.count, resident, tile.count, tile.dims, norms)
    return tile


def parts(count: int, step: int) -> Iterator[slice]:
    """``count`` rows, ``step`` at a time.

    What is done with one part belongs in a function of its own, so that its arrays are gone before the next one's come.
    """
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def rows_per_tile(workspace: int, bytes_per_row: int) -> int:
    """Rows of a tile whose arrays take ``workspace`` bytes at most (but one row at least)."""
    return max(1, min(LARGEST_TILE, workspace // max(1, bytes_per_row)))
