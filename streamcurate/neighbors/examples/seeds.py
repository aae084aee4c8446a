"""Seeds: the rows by which others are found; they take the part of centroids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import DataError, InputError
from streamcurate.kernels import Metric
from streamcurate.runs.digest import Digest
from streamcurate.streaming import Cost, MemoryBudget, MemoryRows, RowSource

# Rows of seeds read together; as centres they take 12 bytes a value for a moment.
_READ_BYTES = 8 << 20
_TILE_ROWS = 1024
# Seeds of no more than this share of the usable memory are made centres once and kept.
_HELD_SHARE = 1 / 12
# A pass should have room for blocks of so many rows beside its seeds; with less, tiles of them are better.
_COMFORTABLE_ROWS = 2048
SMALLEST_TILE = 64


@dataclass(frozen=True)
class Seeds:
    """Seeds that can be used.

    Attributes
    ----------
    embeddings : Embeddings
    metric : "l2" or "cosine"
    centres : RowSource of float32
        As centroids: of unit length under cosine.
    digest : str
        Of their values.
    """

    embeddings: Embeddings
    metric: Metric
    centres: RowSource
    digest: str

    @property
    def rows(self) -> int:
        """How many."""
        return self.embeddings.rows


def check_seeds(embeddings: Embeddings, rows: Embeddings, metric: Metric, budget: MemoryBudget, called: str) -> Seeds:
    """Read seeds once, and refuse those that no row can be near to.

    Parameters
    ----------
    embeddings : Embeddings
        The seeds.
    rows : Embeddings
        Among which they are to find some.
    metric : "l2" or "cosine"
    budget : MemoryBudget
    called : str
        What messages call a seed.

    Raises
    ------
    InputError
        Of other dims.
    DataError
        NaN, Inf, or under cosine rows of zeros.
    """
    if embeddings.dims != rows.dims:
        raise InputError(
            f"{embeddings.name}: has {embeddings.dims} dims, {rows.name} has {rows.dims}; "
            "give embeddings of the same model"
        )
    digest = Digest().begin(embeddings.shape, embeddings.dtype)
    faults = RowFaults()
    step = max(_READ_BYTES // (embeddings.dims * embeddings.dtype.itemsize), 1)
    for start in range(0, embeddings.rows, step):
        values = embeddings.read(start, min(start + step, embeddings.rows))
        digest.update(values)
        faults = faults.combine(faults_of(values, np.arange(start, start + len(values)), metric))
    fix = f"take them out of the {called}s"
    faults.refuse(embeddings, metric, fix, f"{fix}, or choose l2")
    centres: RowSource = CentreRows(embeddings, metric)
    if 4 * embeddings.rows * embeddings.dims <= budget.usable * _HELD_SHARE:
        centres = MemoryRows(centres.read(0, embeddings.rows), embeddings.name)
    return Seeds(embeddings, metric, centres, digest.hexdigest())


class CentreRows:
    """Rows as centroids, made when they are read; a ``RowSource``.

    Parameters
    ----------
    source : RowSource
    metric : "l2" or "cosine"
    """

    def __init__(self, source: RowSource, metric: Metric) -> None:
        self._source, self._metric = source, metric
        self.name = source.name
        self.rows, self.dims = source.rows, source.dims
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.chunk_rows = source.chunk_rows
        self.read_overhead_bytes = source.read_overhead_bytes
        self.travels = source.travels

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Centres of rows ``start`` to ``stop``."""
        out = np.empty((stop - start, self.dims), dtype=np.float32)
        for first in range(start, stop, _TILE_ROWS):
            last = min(first + _TILE_ROWS, stop)
            out[first - start : last - start] = centre_vectors(self._source.read(first, last), self._metric)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Centres of single rows, given in ascending order."""
        return centre_vectors(self._source.take(rows), self._metric)


def seed_tiles(
    seeds: int, source: RowSource, budget: MemoryBudget, cost: Callable[[int], Cost], largest: int | None = None
) -> list[int]:
    """Cut seeds into tiles whose passes over a source fit the memory limit: one tile where all of them do.

    Parameters
    ----------
    seeds : int
    source : RowSource
    budget : MemoryBudget
    cost : callable
        Cost of a pass with so many seeds.
    largest : int, optional
        Most seeds of a tile.

    Returns
    -------
    list of int
        Edges, from 0 to ``seeds``.
    """
    row_bytes = source.dims * source.dtype.itemsize
    tile = seeds if largest is None else min(max(largest, SMALLEST_TILE), seeds)
    while tile > 1 and not budget.fits(_COMFORTABLE_ROWS, row_bytes, source.read_overhead_bytes, cost(tile)):
        tile = -(-tile // 2)
    return [*range(0, seeds, tile), seeds]


@dataclass(frozen=True)
class RowFaults:
    """Rows without a distance: how many, and the first of either kind (-1: none)."""

    bad: int = 0
    first_bad: int = -1
    zero: int = 0
    first_zero: int = -1

    def __bool__(self) -> bool:
        return self.bad + self.zero > 0

    def combine(self, other: RowFaults) -> RowFaults:
        """Those of both."""
        return RowFaults(
            self.bad + other.bad,
            _first(self.first_bad, other.first_bad),
            self.zero + other.zero,
            _first(self.first_zero, other.first_zero),
        )

    def refuse(self, embeddings: Embeddings, metric: str, fix: str, zero_fix: str) -> None:
        """Refuse rows that have any.

        Raises
        ------
        DataError
            Naming how many, and the first, with its id.
        """
        if self.bad:
            where = _place(embeddings, self.first_bad)
            raise DataError(f"{embeddings.name}: {_counted(self.bad)} NaN or Inf (first: {where}); {fix}")
        if self.zero:
            where = _place(embeddings, self.first_zero)
            raise DataError(
                f"{embeddings.name}: {_counted(self.zero)} only zeros, and no direction under metric {metric} "
                f"(first: {where}); {zero_fix}"
            )


def faults_of(values: NDArray[Any], numbers: NDArray[np.int64], metric: Metric) -> RowFaults:
    """Rows of a block that have no distance; ``numbers`` are their row numbers."""
    bad, zero = kernels.unusable_rows(values, metric)
    return RowFaults(
        len(bad), int(numbers[bad[0]]) if len(bad) else -1, len(zero), int(numbers[zero[0]]) if len(zero) else -1
    )


def _first(one: int, other: int) -> int:
    return max(one, other) if one < 0 or other < 0 else min(one, other)


def _counted(count: int) -> str:
    return "1 row holds" if count == 1 else f"{count:,} rows hold"


def _place(embeddings: Embeddings, row: int) -> str:
    ids = embeddings.take_ids(np.array([row], dtype=np.int64))
    return f"row {row}" if ids is None else f'row {row}, id "{ids[0]}"'
