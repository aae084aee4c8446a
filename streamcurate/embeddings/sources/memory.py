"""Arrays in memory as a source: NumPy, CuPy, Dask, or embeddings already opened."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xxhash

from streamcurate.embeddings.memory import DaskRows
from streamcurate.embeddings.sources.base import Block, Stamp, block_rows
from streamcurate.streaming.source import RowSource


class MemoryReader:
    """Rows of an array in memory."""

    bad_values = "NaN or Inf"
    ids_dtype = None

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self.name = source.name
        self.rows: int = source.rows
        self.dims: int = source.dims
        self.dtype = source.dtype
        self.read_overhead_bytes = source.read_overhead_bytes

    def stamps(self) -> list[Stamp]:
        """Dask's own name, which tells what an array is computed from, or a digest of the values."""
        size = self.rows * self.dims * self.dtype.itemsize
        if isinstance(self._source, DaskRows):
            return [Stamp(self.name, size, 0)]
        digest = xxhash.xxh3_128()
        step = block_rows(self.dims, self.dtype)
        for start in range(0, self.rows, step):
            values = self._source.read(start, min(start + step, self.rows))
            digest.update(values.reshape(-1).view(np.uint8).data)
        shape = f"{self.rows} x {self.dims} {self.dtype.name}"
        return [Stamp(f"{self.name} {shape} {digest.hexdigest()}", size, 0)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        step = block_rows(self.dims, self.dtype)
        for first in range(start, self.rows, step):
            yield self._source.read(first, min(first + step, self.rows)), None
