"""Uniform samples of the points by row number, of any size in bounded memory.

Every row has a random number of its own; the sample is the rows with the smallest. So it does not depend on how the
rows are stored or read, and no list of it needs to be held: a threshold describes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.kernels import Backend
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming import Block, Cost, Points, RowSource, State

_BITS = 16
_COLLECT_ROWS = 1 << 18
_SCRATCH_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Threshold:
    """The rows whose (random number, row) is not above (key, row)."""

    key: int
    row: int

    def holds(self, keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the rows are in the sample."""
        key = np.uint64(self.key)
        below: NDArray[np.bool_] = (keys < key) | ((keys == key) & (rows <= self.row))
        return below


@dataclass(frozen=True)
class _HistogramPass:
    """How many rows' random numbers begin with each pattern of 16 bits after a fixed beginning."""

    around_seed: int
    stream: tuple[int, ...]
    shift: int
    prefix: int
    name: str = "drawing rows"
    reads_values: bool = False

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost(fixed_bytes=16 << _BITS, row_bytes=64)

    def prepare(self, state: State, backend: Backend) -> None:
        return None

    def chunk(
        self, block: Block, columns: tuple[NDArray[Any], ...], ready: None
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
        keys = kernels.random_bits(self.around_seed, self.stream, block.rows)
        if self.shift + _BITS < 64:
            keys = keys[keys >> np.uint64(self.shift + _BITS) == np.uint64(self.prefix)]
        digits = (keys >> np.uint64(self.shift)) & np.uint64((1 << _BITS) - 1)
        return np.bincount(digits.astype(np.int64), minlength=1 << _BITS).astype(np.int64, copy=False), ()

    def combine(self, total: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.int64]:
        return total + part

    def finalize(self, total: NDArray[np.int64] | None) -> NDArray[np.int64]:
        assert total is not None
        return total


def sample_threshold(points: Points, size: int, purpose: Purpose, around: Surroundings) -> Threshold:
    """The threshold under which exactly ``size`` of the points lie, found digit by digit of the random numbers."""
    if size >= points.count:
        return Threshold((1 << 64) - 1, points.source.rows)
    prefix, remaining = 0, size
    for shift in range(64 - _BITS, -1, -_BITS):
        work = _HistogramPass(around.seed, around.stream(purpose), shift, prefix)
        running = np.cumsum(around.executor.run(work, points, {}))
        digit = int(np.searchsorted(running, remaining))
        remaining -= int(running[digit - 1]) if digit else 0
        prefix = (prefix << _BITS) | digit
        inside = int(running[digit]) - (int(running[digit - 1]) if digit else 0)
        if inside == remaining:  # the whole of this digit's rows belongs to the sample
            return Threshold(((prefix + 1) << shift) - 1, points.source.rows)
    # 64 equal bits: fall back on the row numbers among those that share them.
    threshold = Threshold(prefix, -1)
    ties = [row for block in _row_blocks(points) for row in _equal_keys(block, prefix, purpose, around)]
    return Threshold(threshold.key, sorted(ties)[remaining - 1])


def _equal_keys(block: NDArray[np.int64], key: int, purpose: Purpose, around: Surroundings) -> list[int]:
    found: list[int] = block[around.random_bits(purpose, block) == np.uint64(key)].tolist()
    return found


def _row_blocks(points: Points) -> Iterator[NDArray[np.int64]]:
    """Row numbers of the points, a block at a time."""
    for start in range(0, points.source.rows, _COLLECT_ROWS):
        stop = min(start + _COLLECT_ROWS, points.source.rows)
        rows = np.arange(start, stop, dtype=np.int64)
        yield rows if points.mask is None else rows[points.mask.read(start, stop) != 0]


def sampled_row_blocks(
    points: Points, size: int, purpose: Purpose, around: Surroundings
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of a uniform sample of ``size`` points, ascending, a block at a time."""
    threshold = sample_threshold(points, size, purpose, around)
    for rows in _row_blocks(points):
        yield rows[threshold.holds(around.random_bits(purpose, rows), rows)]


def sampled_rows(points: Points, size: int, purpose: Purpose, around: Surroundings) -> NDArray[np.int64]:
    """Row numbers of a uniform sample of ``size`` points, ascending."""
    blocks = list(sampled_row_blocks(points, size, purpose, around))
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int64)


def gather(source: RowSource, row_blocks: Iterator[NDArray[np.int64]], count: int, path: Path) -> StoredArray:
    """Copy chosen rows into a scratch array, in bounded memory.

    Parameters
    ----------
    source : RowSource
    row_blocks : iterator of ndarray of int64
        Ascending row numbers, ``count`` in all.
    count : int
    path : Path
        Where the array is made, over one that lies there.
    """
    row_bytes = source.dims * source.dtype.itemsize
    chunk = max(min(_SCRATCH_CHUNK_BYTES // row_bytes, count), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    array = create_array(path, (count, source.dims), source.dtype, chunk, durable=False, overwrite=True)
    with SequentialWriter(array) as writer:
        for rows in row_blocks:
            for start in range(0, len(rows), chunk):
                writer.append(source.take(rows[start : start + chunk]))
    return array
