"""Synthetic embeddings of any number of rows, made block by block, on every core.

    python benchmarks/synthetic.py rows.zarr --rows 1000000 --dims 64     # a store that any command takes

A mixture of 10,000 components around 200 groups. Component i has a share of rows proportional to i^-1: the largest
takes a tenth of all rows, the smallest a hundred-thousandth, so that densities differ by four orders of magnitude.
(k-means with fewer clusters cuts the large components up and joins small ones: the sizes of its clusters differ less,
2,000 of them by two to three orders.) A coordinate is the sum of three normal numbers (of the group, of the component
within it, of the row), each cut at 4.3 standard deviations, so that all values lie within ±1, rounded to float16.

Every number comes from a counter (Philox): the values of a row depend on its number, the number of dims and the seed
alone, whatever block it is made in.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from reporting import parser

from streamcurate.kernels import random_bits
from streamcurate.storage import create_array, create_group
from streamcurate.streaming.budget import available_threads

COMPONENTS = 10_000
GROUPS = 200
EXPONENT = 1.0
# Standard deviations of the three parts of a coordinate: together 0.23, and 4.32 × 0.23 < 1.
GROUP_SPREAD, COMPONENT_SPREAD, ROW_SPREAD = 0.09, 0.08, 0.06
CHUNK_BYTES = 32 << 20

# Coordinates are added up as whole multiples of 2^-14, several times faster than as float16.
_STEPS = 1 << 14
_COMPONENT_BITS = 20
# Small enough for the parts of a block to stay in the core's cache.
_BLOCK_VALUES = 1 << 18
_GROUP, _COMPONENT, _ROW, _CHOICE = range(4)


class Mixture:
    """The rows of the mixture.

    Parameters
    ----------
    dims : int
    seed : int
    """

    def __init__(self, dims: int, seed: int = 0) -> None:
        self.dims, self.seed = dims, seed
        groups = self._normal(_GROUP, 0, GROUPS, GROUP_SPREAD)
        own = self._normal(_COMPONENT, 0, COMPONENTS, COMPONENT_SPREAD)
        self._centres = own + groups[np.arange(COMPONENTS) % GROUPS]
        # A component for each pattern of 20 bits: a look-up instead of a search.
        edges = np.cumsum(shares())
        middles = (np.arange(1 << _COMPONENT_BITS) + 0.5) / (1 << _COMPONENT_BITS)
        self._component_of = np.searchsorted(edges / edges[-1], middles).astype(np.int16)

    def components(self, start: int, stop: int) -> NDArray[np.int16]:
        """The component of each row from ``start`` to ``stop``."""
        bits = random_bits(self.seed, (_CHOICE,), np.arange(start, stop))
        return self._component_of[bits >> np.uint64(64 - _COMPONENT_BITS)]

    def rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows ``start`` to ``stop``, float16 (stop - start, dims)."""
        out = np.empty((stop - start, self.dims), dtype=np.float16)
        step = max(_BLOCK_VALUES // self.dims, 1)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            steps = self._normal(_ROW, first, last, ROW_SPREAD)
            steps += self._centres[self.components(first, last)]
            np.take(_halves(), steps.view(np.uint16), out=out[first - start : last - start], mode="wrap")
        return out

    def _normal(self, purpose: int, start: int, stop: int, spread: float) -> NDArray[np.int16]:
        """Normal numbers (stop - start, dims) in steps of 2^-14: four for each 64 bits of the stream."""
        words = -(-self.dims // 4)
        bits = random_bits(self.seed, (purpose, self.dims), np.arange(start * words, stop * words))
        sixteen = bits.astype("<u8", copy=False).view("<u2").reshape(stop - start, 4 * words)[:, : self.dims]
        return np.take(_quantiles(spread), sixteen, mode="wrap")


def shares() -> NDArray[np.float64]:
    """The share of rows of each component, largest first."""
    weights = np.arange(1, COMPONENTS + 1) ** -EXPONENT
    return weights / weights.sum()


@cache
def _quantiles(spread: float) -> NDArray[np.int16]:
    """Quantiles of the normal distribution at the middles of 65,536 equal parts, in steps of 2^-14."""
    normal = NormalDist(0, spread * _STEPS)
    return np.array([round(normal.inv_cdf((part + 0.5) / 65536)) for part in range(65536)], dtype=np.int16)


@cache
def _halves() -> NDArray[np.float16]:
    """float16 of every int16 number of steps, at the place of its 16 bits."""
    return (np.arange(65536).astype(np.uint16).view(np.int16) / _STEPS).astype(np.float16)


def write_store(path: Path, rows: int, dims: int, seed: int = 0, threads: int | None = None) -> None:
    """A store of the mixture's rows, flushed to the device."""
    create_group(path, {"format": 1, "synthetic": {"seed": seed, "components": COMPONENTS, "exponent": EXPONENT}})
    chunk_rows = max(CHUNK_BYTES // (2 * dims), 1)
    array = create_array(path / "embeddings", (rows, dims), np.float16, chunk_rows)
    mixture = Mixture(dims, seed)

    def write(start: int) -> None:
        array.write(start, mixture.rows(start, min(start + chunk_rows, rows)))

    pool = ThreadPoolExecutor(threads or available_threads())
    try:
        for _ in pool.map(write, range(0, rows, chunk_rows)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("store", type=Path)
    made.add_argument("--rows", type=int, default=1_000_000)
    made.add_argument("--dims", type=int, default=64)
    made.add_argument("--seed", type=int, default=0)
    options = made.parse_args()
    began = time.perf_counter()
    write_store(options.store, options.rows, options.dims, options.seed)
    seconds = time.perf_counter() - began
    print(
        f"{options.store}: {options.rows:,} × {options.dims} float16 in {seconds:.1f} s, "
        f"{options.rows * options.dims / seconds / 1e6:,.0f} million values/s"
    )


if __name__ == "__main__":
    main()
