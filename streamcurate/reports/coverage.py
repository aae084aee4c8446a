"""How far the rows of the pool lie from the nearest row drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.clustering.passes import Searching, centroids_ready, nearest_cost
from streamcurate.embeddings.store import Embeddings
from streamcurate.kernels import Backend, Metric
from streamcurate.reports.drawn import DRAW_SAMPLE, Drawn, uniform_places
from streamcurate.streaming import Block, Cost, Executor, MemoryRows, Points, State

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

# Arithmetic that one draw's search may take: some seconds on two cores. Rows of the pool are measured as far as that
# goes, within these bounds.
_OPERATIONS = 2e11
_FEWEST_ROWS, _MOST_ROWS = 2_000, 20_000
# Beyond so many drawn rows for the fewest rows of the pool, only some of them are looked at.
_MOST_OPERATIONS = 4e12
# Of the pool's rows, held in memory; and of drawn rows, held as given and as prepared.
_SAMPLE_BYTES = 24 << 20
_TILE_BYTES = 24 << 20
_COMFORTABLE_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Coverage:
    """Distances from rows of the pool to the nearest row of a draw.

    Attributes
    ----------
    distances : ndarray of float32, shape (m,)
        Ascending. Euclidean, or 1 − cos.
    looked_at : int
        Drawn rows among which the nearest was sought.
    drawn : int
        Distinct rows of the draw.
    """

    distances: Float32
    looked_at: int
    drawn: int

    @property
    def figures(self) -> dict[str, float]:
        """Mean, median, 95th percentile and largest."""
        values = self.distances.astype(np.float64)
        return {
            "mean": float(values.mean()),
            "median": float(np.quantile(values, 0.5)),
            "p95": float(np.quantile(values, 0.95)),
            "max": float(values[-1]),
        }


@dataclass(frozen=True)
class _NearestPass:
    """The nearest among some drawn rows and those looked at before; the result holds one entry for each row."""

    metric: Metric
    clusters: int
    first: int
    name: str = "coverage"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return nearest_cost(self.clusters, dims, held=0, row_bytes=64)

    def prepare(self, state: State, backend: Backend) -> tuple[Searching, State]:
        return centroids_ready(state, backend, self.metric), state

    def chunk(
        self, block: Block, columns: tuple[NDArray[Any], ...], ready: tuple[Searching, State]
    ) -> tuple[list[tuple[int, NDArray[np.int32], NDArray[np.float64]]], tuple[NDArray[Any], ...]]:
        (backend, centroids), state = ready
        assert centroids is not None
        here = slice(block.start, block.stop)
        before = (state["labels"][here], state["values"][here]) if self.first else None
        labels, values = backend.nearest(block.values, centroids, before, self.first)
        return [(block.start, labels, values)], ()

    def combine(self, total: list[Any], part: list[Any]) -> list[Any]:
        return total + part

    def finalize(self, total: list[Any] | None) -> dict[str, NDArray[Any]]:
        assert total is not None
        ordered = sorted(total, key=lambda found: found[0])
        return {
            "labels": np.concatenate([each[1] for each in ordered]),
            "values": np.concatenate([e[2] for e in ordered]),
        }


def pool_rows_measured(drawn: int, dims: int, rows: int, row_bytes: int) -> int:
    """How many rows of the pool are measured against so many drawn rows: all of a small pool."""
    affordable = int(_OPERATIONS / (2 * max(drawn, 1) * dims))
    wanted = min(max(affordable, _FEWEST_ROWS), _MOST_ROWS, max(_SAMPLE_BYTES // row_bytes, _FEWEST_ROWS // 2))
    return min(wanted, rows)


def drawn_rows_looked_at(drawn: int, dims: int, measured: int) -> int:
    """Among how many drawn rows the nearest is sought: all, unless there are too many for the time it may take."""
    return min(drawn, max(int(_MOST_OPERATIONS / (2 * measured * dims)), 1))


def measure_coverage(
    store: Embeddings, pool: NDArray[Any], pool_rows: Int64, draw: Drawn, metric: Metric, executor: Executor, seed: int
) -> Coverage:
    """Find the nearest drawn row of every row of the pool, by the certified search of the labels.

    Parameters
    ----------
    store : Embeddings
    pool : ndarray, shape (m, dims)
    pool_rows : ndarray of int64, shape (m,)
        Their numbers, ascending.
    draw : Drawn
        Read from the store a tile at a time, as the memory limit allows.
    metric : "l2" or "cosine"
    executor : Executor
    seed : int
    """
    count = drawn_rows_looked_at(len(draw.rows), store.dims, len(pool))
    chosen = draw.rows
    if count < len(chosen):
        chosen = chosen[uniform_places(len(chosen), count, seed, (DRAW_SAMPLE,))]
    points = Points.all_of(MemoryRows(pool, store.name))
    tile = _tile(count, store.dims, points, executor, metric)
    state: Mapping[str, NDArray[Any]] = {}
    for first in range(0, count, tile):
        rows = chosen[first : first + tile]
        picked = centre_vectors(store.take(rows), metric)
        work = _NearestPass(metric, len(rows), first)
        state = executor.run(work, points, {**state, "centroids": picked})
    distances = kernels.distance_of(state["values"], metric)
    # A row that is drawn lies at no distance from itself, whatever rounding makes of it.
    distances[np.isin(pool_rows, chosen, assume_unique=True)] = 0
    distances.sort()
    return Coverage(distances, count, len(draw.rows))


def _tile(count: int, dims: int, points: Points, executor: Executor, metric: Metric) -> int:
    tile = min(count, max(_TILE_BYTES // (4 * dims), 1024))
    source, work = points.source, _NearestPass(metric, tile, 0)
    while tile > 64 and not executor.budget.fits(
        min(_COMFORTABLE_ROWS, source.rows),
        dims * source.dtype.itemsize,
        0,
        replace(work, clusters=tile).cost(dims, source.dtype),
    ):
        tile = -(-tile // 2)
    return tile
