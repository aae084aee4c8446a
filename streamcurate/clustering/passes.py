"""The passes of clustering: statistics, labels, and with them the nearest of each cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.embeddings.fingerprint import unit_digest
from streamcurate.kernels import (
    Backend,
    ExactTotal,
    Metric,
    NearestSelection,
    PreparedCentroids,
    Statistics,
)
from streamcurate.streaming import Block, Cost, State

Columns = tuple[NDArray[Any], ...]

_LARGEST_BLOCK_ROWS = 1 << 16


class Searching(NamedTuple):
    """What a pass that looks for nearest centroids makes ready: where to compute, and the centroids laid out for it."""

    backend: Backend
    centroids: PreparedCentroids | None


def centroids_ready(state: State, backend: Backend, metric: Metric, drift: float = 0.0) -> Searching:
    """Make the array ``centroids`` of a pass's state ready, after those ``before`` where it has them; None without."""
    if "centroids" not in state:
        return Searching(backend, None)
    before = state.get("before")
    return Searching(backend, backend.prepare_centroids(state["centroids"], metric, before, drift))


def nearest_cost(clusters: int, dims: int, *, held: int, row_bytes: int, beside: int = 0) -> Cost:
    """Cost of a pass that finds the nearest of so many centroids, held as given and as prepared.

    Parameters
    ----------
    clusters, dims : int
    held : int
        Bytes of what the pass accumulates.
    row_bytes : int
        For each row of a block.
    beside : int
        Bytes of a block's partial result that do not depend on its rows.
    """
    return Cost(
        fixed_bytes=held + 4 * dims * clusters + kernels.prepared_centroids_bytes(clusters, dims),
        # However many rows a block has: the kernel works on a tile of them at a time.
        thread_bytes=kernels.nearest_workspace_bytes(_LARGEST_BLOCK_ROWS, dims, clusters) + beside,
        row_bytes=row_bytes,
        row_operations=2 * dims * clusters,
        # On a GPU they are held as given and as float16 in panels of 64 dims, with norms, order and bounds beside.
        device_bytes=(8 * -(-dims // 64) * 64 + 64) * clusters + 64 * dims,
    )


@dataclass(frozen=True)
class StatisticsPass:
    """Ranges, exponents, norms and bad rows of the points; checksums of all rows, unit by unit.

    Attributes
    ----------
    metric : "l2" or "cosine"
    unit_rows : int
        Rows under one checksum; blocks must begin at multiples of it. 0 takes no checksums.
    """

    metric: Metric
    unit_rows: int = 0
    name: str = "statistics"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """Accumulators of a few rows' size."""
        return Cost(fixed_bytes=64 * dims, thread_bytes=64 * dims, row_operations=8 * dims)

    def prepare(self, state: State, backend: Backend) -> Backend:
        """Only where to compute."""
        return backend

    def chunk(
        self, block: Block, columns: Columns, backend: Backend
    ) -> tuple[tuple[Statistics, dict[int, str]], Columns]:
        """One block's statistics and the checksums of its units."""
        digests = {}
        if self.unit_rows:
            for start in range(block.start, block.stop, self.unit_rows):
                part = block.whole[start - block.start : start - block.start + self.unit_rows]
                digests[start // self.unit_rows] = unit_digest(part)
        found = backend.statistics(block.values, self.metric)
        # Numbers of rows in the block become numbers of rows in the source, between which some may not count.
        numbered = replace(
            found,
            first_bad_row=int(block.rows[found.first_bad_row]) if found.bad_rows else -1,
            first_zero_row=int(block.rows[found.first_zero_row]) if found.zero_rows else -1,
        )
        return (numbered, digests), ()

    def combine(
        self, total: tuple[Statistics, dict[int, str]], part: tuple[Statistics, dict[int, str]]
    ) -> tuple[Statistics, dict[int, str]]:
        """Both together; adds into ``total``'s checksums, of which there may be hundreds of thousands."""
        total[1].update(part[1])
        return total[0].combine(part[0]), total[1]

    def finalize(self, total: tuple[Statistics, dict[int, str]] | None) -> tuple[Statistics, list[str]]:
        """The statistics, and the checksums in the units' order."""
        assert total is not None
        return total[0], [total[1][unit] for unit in sorted(total[1])]


@dataclass(frozen=True)
class TilePass:
    """Nearest among the centroids of one tile and those before; columns and outputs: labels and values.

    Attributes
    ----------
    clusters : int
        Of the tile.
    first : int
        The number of its first cluster.
    """

    metric: Metric
    clusters: int
    first: int
    name: str = "labels of a tile"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """The tile's centroids as given and as prepared; for each row two labels and values."""
        return nearest_cost(self.clusters, dims, held=0, row_bytes=64)

    def prepare(self, state: State, backend: Backend) -> Searching:
        """The tile's centroids."""
        return centroids_ready(state, backend, self.metric)

    def chunk(self, block: Block, columns: Columns, ready: Searching) -> tuple[None, Columns]:
        """Labels and values of one block."""
        backend, centroids = ready
        assert centroids is not None
        previous = (columns[0], columns[1]) if columns else None
        return None, backend.nearest(block.values, centroids, previous, self.first)

    def combine(self, total: None, part: None) -> None:
        """Nothing is summed."""

    def finalize(self, total: None) -> None:
        """Nothing is summed."""


@dataclass(frozen=True)
class Labelled:
    """What a labels pass found beside the labels themselves.

    Attributes
    ----------
    counts : ndarray of int64, shape (clusters,)
    inertia : ExactTotal
    selection : NearestSelection or None
        The kept points of each cluster.
    """

    counts: NDArray[np.int64]
    inertia: ExactTotal
    selection: NearestSelection | None


@dataclass(frozen=True)
class LabelPass:
    """Labels, distances, cluster sizes, and in the same pass the points that resampling keeps of each cluster.

    Outputs, as ``writes`` names them: labels int32, distances float32.

    Attributes
    ----------
    keep : int
        Points kept of each cluster; 0 keeps none.
    strategy : "closest" or "random"
    seed, stream
        Of the random strategy.
    writes : tuple of str
        Which of labels and distances are wanted, in the order of the outputs.
    known : bool
        Labels and values come as columns, found before tile by tile; there is no state then.
    again : bool
        Labels and floors of the pass before come as columns, and its centroids in the state as ``before``.
    drift : float
        Centroids that moved by no more than this are left to the floors.
    """

    metric: Metric
    inertia: ExactTotal
    clusters: int
    keep: int = 0
    strategy: str = "closest"
    seed: int = 0
    stream: tuple[int, ...] = ()
    writes: tuple[str, ...] = ("labels", "distances")
    known: bool = False
    again: bool = False
    drift: float = 0.0
    name: str = "labels"

    @property
    def reads_values(self) -> bool:
        """Not where the labels are known."""
        return not self.known

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """Centroids as given and as prepared, the kept points; for each row label, value, distance, key."""
        kept = self.clusters * (16 + 16 * self.keep)
        if self.known:
            return Cost(fixed_bytes=kept, thread_bytes=16 * self.clusters, row_bytes=96)
        if self.again:
            kept += 4 * dims * self.clusters + kernels.moved_centroids_bytes(self.clusters, dims)
        row_bytes = 160 if self.again else 96
        return nearest_cost(self.clusters, dims, held=kept, row_bytes=row_bytes, beside=16 * self.clusters)

    def prepare(self, state: State, backend: Backend) -> Searching:
        """The centroids, where labels are not known."""
        return centroids_ready(state, backend, self.metric, self.drift)

    def chunk(self, block: Block, columns: Columns, ready: Searching) -> tuple[Labelled, Columns]:
        """Labels and distances of one block."""
        backend, centroids = ready
        if centroids is None:
            labels, values = columns
        elif self.again:
            before, floors = columns
            labels, values, _ = backend.relabel(block.values, centroids, before, floors)
        else:
            labels, values = backend.nearest(block.values, centroids)
        distances = kernels.distance_of(values, self.metric)
        selection = None
        if self.keep:
            if self.strategy == "closest":
                keys = kernels.keys_of_distances(distances)
            else:
                keys = kernels.random_bits(self.seed, self.stream, block.rows)
            selection = kernels.smallest_per_cluster(labels, keys, block.rows, self.keep, self.clusters)
        counts = np.bincount(labels, minlength=self.clusters).astype(np.int64, copy=False)
        found = Labelled(counts, self.inertia.add(values), selection)
        aligned: dict[str, NDArray[Any]] = {"labels": labels, "distances": distances}
        return found, tuple(aligned[name] for name in self.writes)

    def combine(self, total: Labelled, part: Labelled) -> Labelled:
        """Both together; adds into ``total``."""
        np.add(total.counts, part.counts, out=total.counts)
        selection = total.selection
        if selection is not None and part.selection is not None:
            selection = selection.combine(part.selection)
        return Labelled(total.counts, total.inertia.combine(part.inertia), selection)

    def finalize(self, total: Labelled | None) -> Labelled:
        """As it is."""
        assert total is not None
        return total
