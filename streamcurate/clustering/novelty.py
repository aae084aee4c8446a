"""How far new rows lie from the centroids, measured by the rows that these were fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.kernels import Backend
from streamcurate.runs.records import NoveltyRecord
from streamcurate.storage import StoredArray
from streamcurate.streaming import Block, Cost, Executor, Points, State

PERCENTILE = 99
_BITS = 16
_INFINITY = 0x7F800000
_TOP = 10
_COUNTED_ROWS = 1 << 20


class RowNumbers:
    """Rows without values, for passes over stored columns alone; a ``RowSource``.

    Parameters
    ----------
    rows : int
    chunk_rows : int
        Of the columns.
    name : str
    """

    dims = 0
    read_overhead_bytes = 0
    travels = True
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, rows: int, chunk_rows: int, name: str) -> None:
        self.rows, self.chunk_rows, self.name = rows, chunk_rows, name

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Nothing for each row."""
        return np.empty((stop - start, 0), dtype=self.dtype)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Nothing for each row."""
        return np.empty((len(rows), 0), dtype=self.dtype)


@dataclass(frozen=True)
class _BitsPass:
    """How many distances there are of each pattern of 16 bits: the upper ones, or the lower ones after ``upper``.

    The bit patterns of floats that are not negative are in the order of their values.
    """

    upper: int | None = None
    name: str = "distances of the tree"
    reads_values: bool = False

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost(fixed_bytes=8 << _BITS, thread_bytes=16 << _BITS, row_bytes=32)

    def prepare(self, state: State, backend: Backend) -> None:
        return None

    def chunk(
        self, block: Block, columns: tuple[NDArray[Any], ...], ready: None
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
        bits = columns[0].view(np.uint32)
        bits = bits[bits <= _INFINITY]  # not NaN, which rows in no cluster have
        if self.upper is not None:
            bits = bits[bits >> _BITS == self.upper] & np.uint32((1 << _BITS) - 1)
        else:
            bits = bits >> np.uint32(_BITS)
        return np.bincount(bits, minlength=1 << _BITS).astype(np.int64, copy=False), ()

    def combine(self, total: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.int64]:
        return total + part

    def finalize(self, total: NDArray[np.int64] | None) -> NDArray[np.int64]:
        return np.zeros(1 << _BITS, dtype=np.int64) if total is None else total


def percentile_of(distances: StoredArray, rows: int, executor: Executor, percent: int = PERCENTILE) -> float:
    """The smallest stored distance that at least ``percent`` % of the distances do not exceed (nearest rank).

    Exact, in bounded memory: two passes over the distances count bit patterns.

    Parameters
    ----------
    distances : StoredArray of float32
        NaN is no distance.
    rows : int
        How many of them count, from the first on.
    executor : Executor
    percent : int
        1 to 100.

    Returns
    -------
    float
        NaN where there are no distances.
    """
    points = Points.all_of(RowNumbers(rows, distances.chunk_rows, distances.path))
    pattern: int | None = None
    upper = executor.run(_BitsPass(), points, {}, columns=(distances,))
    rank = -(-int(upper.sum()) * percent // 100)
    if not rank:
        return float("nan")
    running = np.cumsum(upper)
    pattern = int(np.searchsorted(running, rank))
    rank -= int(running[pattern]) - int(upper[pattern])
    lower = np.cumsum(executor.run(_BitsPass(pattern), points, {}, columns=(distances,)))
    bits = np.uint32(pattern << _BITS | int(np.searchsorted(lower, rank)))
    return float(np.array([bits]).view(np.float32)[0])


@dataclass(frozen=True)
class Novelty:
    """Where new rows went, and how many of them lie farther out than the rows the centroids were fitted to.

    Attributes
    ----------
    record : NoveltyRecord
        Threshold and counts.
    rows : ndarray of int64, shape (clusters,)
        New rows of each cluster of level 1.
    novel : ndarray of int64, shape (clusters,)
        The novel ones among them.
    """

    record: NoveltyRecord
    rows: NDArray[np.int64]
    novel: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Of the new rows, how many are novel."""
        return self.record.share

    def __repr__(self) -> str:
        return f"Novelty({self.told()})"

    def told(self) -> str:
        """In words."""
        return self.record.told()

    def to_mapping(self) -> dict[str, Any]:
        """As JSON values, with the clusters that received most rows, and most novel rows."""
        record = self.record
        return {
            "percentile": record.percentile,
            "threshold": record.threshold,
            "rows": record.rows,
            "novel": record.novel,
            "outside": record.outside,
            "share": record.share,
            "clusters": {"most_rows": self._top(self.rows), "most_novel": self._top(self.novel)},
        }

    def _top(self, counts: NDArray[np.int64]) -> list[dict[str, int]]:
        first = np.argsort(-counts, kind="stable")[:_TOP]
        return [
            {"cluster": cluster, "rows": int(self.rows[cluster]), "novel": int(self.novel[cluster])}
            for cluster in first.tolist()
            if counts[cluster]
        ]


class StoredNovelty(Novelty):
    """What was noted beside labels at rest; the clusters' counts are taken from the labels when they are asked for.

    Parameters
    ----------
    noted : mapping
        What :meth:`Novelty.to_mapping` gave.
    labels, distances : StoredArray
        Of level 1.
    clusters : int or None
        Of level 1; None for as many as the labels name.
    """

    def __init__(
        self, noted: Mapping[str, Any], labels: StoredArray, distances: StoredArray, clusters: int | None
    ) -> None:
        record = NoveltyRecord(**{field.name: noted[field.name] for field in fields(NoveltyRecord)})
        # The base is frozen.
        self.__dict__.update(record=record, _noted=noted, _arrays=(labels, distances), _clusters=clusters)

    @cached_property
    def _counted(self) -> Novelty:
        labels, distances = self.__dict__["_arrays"]
        pieces = [(start, min(start + _COUNTED_ROWS, labels.rows)) for start in range(0, labels.rows, _COUNTED_ROWS)]
        clusters = self.__dict__["_clusters"]
        if clusters is None:  # made by an earlier version
            clusters = 1 + max(int(labels.read(*piece).max()) for piece in pieces)
        count = NoveltyCount(self.record.threshold, clusters)
        for piece in pieces:
            count.add(labels.read(*piece), distances.read(*piece))
        return count.result()

    @property
    def rows(self) -> NDArray[np.int64]:
        """New rows of each cluster of level 1; int64 (clusters,)."""
        return self._counted.rows

    @property
    def novel(self) -> NDArray[np.int64]:
        """The novel ones among them; int64 (clusters,)."""
        return self._counted.novel

    def to_mapping(self) -> dict[str, Any]:
        """As it was noted."""
        return dict(self.__dict__["_noted"])


class NoveltyCount:
    """Counts new rows as their labels go by.

    Parameters
    ----------
    threshold : float
    clusters : int
    """

    def __init__(self, threshold: float, clusters: int) -> None:
        self.threshold = threshold
        self.rows = np.zeros(clusters, dtype=np.int64)
        self.novel = np.zeros(clusters, dtype=np.int64)
        self._seen = 0

    def add(self, labels: NDArray[np.int32], distances: NDArray[np.float32]) -> None:
        """Take in the labels and distances of some rows."""
        inside = labels >= 0
        far = inside & (distances > np.float32(self.threshold))
        for counts, chosen in ((self.rows, inside), (self.novel, far)):
            if len(counts) <= len(labels):
                counts += np.bincount(labels[chosen], minlength=len(counts))
            else:  # no second array of all clusters for some rows
                cluster, times = np.unique(labels[chosen], return_counts=True)
                counts[cluster] += times
        self._seen += len(labels)

    def result(self) -> Novelty:
        """What was seen."""
        labelled = int(self.rows.sum())
        record = NoveltyRecord(PERCENTILE, self.threshold, self._seen, int(self.novel.sum()), self._seen - labelled)
        return Novelty(record, self.rows, self.novel)
