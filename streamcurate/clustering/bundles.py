"""k-means of many small clusters at a time, step by step together: the fits of :mod:`fit`, without the calls around.

A fit of a hundred rows is a few hundredths of a millisecond of arithmetic and milliseconds of passes, plans and
events. Here the rows of many clusters lie in one array, cluster after cluster, and every step of the algorithm is one
call for all that are not finished. Seeds, means, stopping decisions and refills are the same as those of a fit alone,
bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering import plus_plus
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.clustering.iteration import REFILLS, least_apart
from streamcurate.clustering.seeding import choose_method
from streamcurate.clustering.streams import Purpose, stream
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.config import Level
from streamcurate.kernels import ClusterSums, ExactTotal, FarthestRows

# Up to so many rows times leaves times dims a bundle is faster (measured on one thread: 25 times for 100 rows, 10
# leaves and 8 dims, 13 times at 64 dims, 5 at 384; 1.7 to 2.4 near the limit; beyond, matrix products catch up).
_MOST_OPERATIONS = 1 << 22
# Bounds of so many pairs are 2 MiB. 2^13 rows are what exact totals in float64 allow.
_MOST_PAIRS = 1 << 18
_MOST_ROWS = 1 << 13
# int32 holds squared distances of 8-bit rows up to 2^31 / 254^2 dims.
_MOST_DIMS = 1 << 15
# Larger bundles share the calls of a step among more clusters; beyond, they gained little (measured 4 to 64 MiB).
_BUNDLE_BYTES = 32 << 20
# Exponents whose powers of two are normal float64 numbers, with room to spare.
_NORMAL = 900


@dataclass(frozen=True)
class BundleFit:
    """Leaf clusters of a bundle's clusters.

    Attributes
    ----------
    found : ndarray of bool, shape (clusters,)
        False where the cluster has to be fitted alone; the rest says nothing about it.
    edges : ndarray of int64, shape (clusters + 1,)
        First leaf of each cluster, empty leaves included.
    centroids : ndarray of float32, shape (leaves, dims)
    labels, values : ndarray of int32 and float64, shape (rows,)
        Each row's leaf, numbered through the bundle, and its formula value.
    inertia : list of int
        Of each cluster, in units of the level's ``ExactTotal``.
    """

    found: NDArray[np.bool_]
    edges: NDArray[np.int64]
    centroids: NDArray[np.float32]
    labels: NDArray[np.int32]
    values: NDArray[np.float64]
    inertia: list[int]


def fits_bundle(rows: int, dims: int, level: Level, measured: Measured) -> bool:
    """Whether the k-means of a cluster of so many rows can be part of a bundle."""
    if not 0 < rows <= _MOST_ROWS or dims > _MOST_DIMS or level.algorithm != "lloyd":
        return False
    clusters = min(level.splits, rows)
    if rows * clusters > min(_MOST_PAIRS, _MOST_OPERATIONS // dims) or abs(measured.inertia.exponent) > _NORMAL:
        return False
    method = choose_method(rows, clusters, dims) if level.init == "auto" else level.init
    return method == "k-means++" or clusters == rows


def bundle_bytes(rows: int, dims: int, level: Level, measured: Measured, row_bytes: int) -> int:
    """Memory the fit of a cluster takes within a bundle: its rows in three forms, bounds, sums and centroids."""
    clusters = min(level.splits, rows)
    leaf = 24 * (measured.fixed_point.limbs + 1) * dims + 64
    return rows * (2 * row_bytes + 13 * dims + 64 + 32 * clusters) + clusters * leaf


def bundles_of(sizes: list[int], limit: int) -> list[tuple[int, int]]:
    """Cut clusters that take so many bytes each into runs of at most ``limit`` bytes, or of one cluster."""
    runs, first, filled = [], 0, 0
    limit = min(limit, _BUNDLE_BYTES)
    for number, size in enumerate(sizes):
        if filled and filled + size > limit:
            runs.append((first, number))
            first, filled = number, 0
        filled += size
    return [*runs, (first, len(sizes))] if sizes else []


def fit_bundle(
    rows: NDArray[Any],
    starts: NDArray[np.int64],
    numbers: NDArray[np.int64],
    measured: Measured,
    level: Level,
    around: Surroundings,
) -> BundleFit:
    """Fit every cluster of a bundle.

    Parameters
    ----------
    rows : ndarray, shape (m, dims)
        As stored, the clusters' rows one cluster after the other.
    starts : ndarray of int64, shape (clusters + 1,)
        Where each cluster's rows begin; none is empty.
    numbers : ndarray of int64, shape (clusters,)
        Of the coarse clusters: they name the random streams.
    measured : Measured
        The level's arithmetic.
    level : Level
        With ``splits``.
    around : Surroundings
        Metric, seed, level and step are used.
    """
    sizes = np.diff(starts)
    wanted = np.minimum(sizes, level.splits)
    edges = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(wanted)])
    chosen, found = _seeds(rows, starts, edges, numbers, measured, around)
    centroids = centre_vectors(rows[chosen + np.repeat(starts[:-1], wanted)], around.metric)
    state = _Fits(rows, starts, edges, centroids, measured, around)
    state.run(np.flatnonzero(found == wanted), level.iterations, level.tolerance)
    units = _exact_units(state.totals(), measured.inertia)
    return BundleFit(found == wanted, edges, state.centroids, state.labels, state.values, units)


def _seeds(
    rows: NDArray[Any],
    starts: NDArray[np.int64],
    edges: NDArray[np.int64],
    numbers: NDArray[np.int64],
    measured: Measured,
    around: Surroundings,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the seeds within their clusters, and how many k-means++ chose of each cluster.

    Where it chose fewer than wanted, all rows left are copies of chosen ones.
    """
    from streamcurate.kernels.cpu.bundle_seeds import choose_seeds, words_of_streams

    sizes, wanted = np.diff(starts), np.diff(edges)
    dims = rows.shape[1]
    spaces = {
        bits: kernels.seeding_space(measured.statistics, (1 << bits) - 1, dims, around.metric)
        for bits in {size.bit_length() for size in sizes.tolist()}
    }
    space = next(iter(spaces.values()))
    exact = space.quantiser is None
    encoded = space.encode(rows)
    if exact:
        encoded = encoded.astype(np.float32, copy=False)
    scales = np.array([np.ldexp(1.0, spaces[size.bit_length()].exponent) for size in sizes.tolist()])
    counts = {count: plus_plus.trials(count) for count in set(wanted.tolist())}
    tries = np.array([counts[count] for count in wanted.tolist()], dtype=np.int64)
    batches = np.minimum(plus_plus.BATCH_BYTES // (8 * sizes), plus_plus.LARGEST_BATCH)
    prefix = stream(around.level, around.step, Purpose.PLUS_PLUS, int(Purpose.SPLIT))
    words = words_of_streams(around.seed, prefix, numbers)
    chosen = np.empty(edges[-1], dtype=np.int64)
    found = np.empty(len(sizes), dtype=np.int64)
    key0, key1 = np.uint64(around.seed & 0xFFFFFFFF), np.uint64(around.seed >> 32)
    # A cluster of as many leaves as rows takes all of them, in order.
    drawn = wanted < sizes
    draw_edges = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.where(drawn, wanted, 0))])
    drawn_seeds = np.empty(draw_edges[-1], dtype=np.int64)
    choose_seeds(
        encoded, exact, starts, draw_edges, scales, tries, batches, plus_plus.CENTRES_A_CENTRE_AHEAD, words,
        key0, key1, drawn_seeds, found,
    )  # fmt: skip
    of_seed = np.repeat(drawn, wanted)
    chosen[of_seed] = drawn_seeds
    chosen[~of_seed] = (np.arange(edges[-1]) - np.repeat(edges[:-1], wanted))[~of_seed]
    found[~drawn] = wanted[~drawn]
    # What was not chosen is never used; it has to name a row all the same.
    chosen[np.arange(edges[-1]) - np.repeat(edges[:-1], wanted) >= np.repeat(found, wanted)] = 0
    return chosen, found


class _Fits:
    """Lloyd's algorithm on the clusters of a bundle, all passes together."""

    def __init__(
        self,
        rows: NDArray[Any],
        starts: NDArray[np.int64],
        edges: NDArray[np.int64],
        centroids: NDArray[np.float32],
        measured: Measured,
        around: Surroundings,
    ) -> None:
        self.rows, self.starts, self.edges = rows, starts, edges
        self.centroids, self.measured, self.around = centroids, measured, around
        self.labels = np.empty(len(rows), dtype=np.int32)
        self.values = np.empty(len(rows), dtype=np.float64)
        # A copy: what the kernel gives may be a work buffer of this thread.
        self._exact = np.array(kernels.formula_rows(rows, around.metric))
        self._cluster_of_leaf = np.repeat(np.arange(len(starts) - 1), np.diff(edges))
        exponent, limb_bits = measured.inertia.exponent, ExactTotal._limb_bits(measured.inertia.rows)
        self._scale, self._limb_bits = float(np.ldexp(1.0, -exponent - limb_bits)), limb_bits
        self._totals = np.zeros((len(starts) - 1, 2), dtype=np.float64)

    def run(self, active: NDArray[np.int64], iterations: int, tolerance: float) -> None:
        """Iterate the clusters ``active`` until each is finished, and label their rows with the last centroids."""
        from streamcurate.kernels.cpu.bundles import first_labels, movements, next_labels

        metric, fixed_point = self.around.metric, self.measured.fixed_point
        leaves = len(self.centroids)
        sizes, wanted = np.diff(self.starts), np.diff(self.edges)
        places = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes * wanted)])
        bounds = np.empty(places[-1], dtype=np.float64)
        first_labels(
            self._exact, self.starts, self.edges, self.centroids, places[:-1], self.labels, self.values, bounds
        )
        sums = kernels.cluster_sums(self.rows, self.labels, metric, fixed_point, leaves).dense()
        touched = np.flatnonzero(np.isin(self._cluster_of_leaf, active))
        moved = np.zeros(leaves, dtype=np.float64)
        changed, before = np.empty(len(self.rows), dtype=np.int64), np.empty(len(self.rows), dtype=np.int32)
        previous = np.full(len(sizes), np.nan)
        iteration = 0
        while len(active):
            iteration += 1
            inertia = self._inertia(active)
            means = self.centroids.copy()
            part = ClusterSums(fixed_point, len(touched), None, sums.limbs[:, touched], sums.counts[touched])
            means[touched] = kernels.mean_centroids(part, metric, self.centroids[touched])
            refilled, taken = self._refill(means, sums.counts, active)
            touched = np.union1d(touched, refilled)
            movements(self.centroids, means, touched, moved)
            self.centroids = means
            still = np.zeros(len(sizes), dtype=np.bool_)
            still[self._cluster_of_leaf[touched[moved[touched] > 0]]] = True
            # The decisions of ``lloyd``, cluster by cluster.
            finished = ~still[active]
            if iteration == iterations:
                finished[:] = True
            if tolerance > 0:
                with np.errstate(invalid="ignore"):
                    little = previous[active] - inertia < tolerance * previous[active]
                finished |= little & ~taken[active]
            previous[active] = inertia
            count = next_labels(
                self._exact, self.starts, self.edges, active[still[active]], self.centroids, moved, places,
                self.labels, self.values, bounds, changed, before,
            )  # fmt: skip
            moved[touched] = 0.0
            active = active[~finished]
            if not len(active):
                break
            going_on = np.zeros(len(sizes), dtype=np.bool_)
            going_on[active] = True
            kept = going_on[self._cluster_of_leaf[before[:count]]]
            touched = self._update(sums, changed[:count][kept], before[:count][kept])

    def totals(self) -> NDArray[np.float64]:
        """The clusters' exact totals as they are now, whole numbers and rests."""
        self._inertia(np.arange(len(self._totals)))
        return self._totals

    def _inertia(self, active: NDArray[np.int64]) -> NDArray[np.float64]:
        from streamcurate.kernels.cpu.bundles import segment_totals

        segment_totals(self.values, self.starts, active, self._scale, self._limb_bits, self._totals)
        inertia: NDArray[np.float64] = self._totals[active].sum(axis=1) / self._scale
        return inertia

    def _update(self, sums: ClusterSums, rows: NDArray[np.int64], old: NDArray[np.int32]) -> NDArray[np.int64]:
        """Move rows from their old leaves' sums to their new ones'; the leaves touched."""
        metric, fixed_point, leaves = self.around.metric, self.measured.fixed_point, sums.clusters
        values = self.rows[rows]
        came = kernels.cluster_sums(values, self.labels[rows], metric, fixed_point, leaves)
        went = kernels.cluster_sums(values, old, metric, fixed_point, leaves)
        assert came.ids is not None
        assert went.ids is not None
        sums.limbs[:, came.ids] += came.limbs
        sums.counts[came.ids] += came.counts
        sums.limbs[:, went.ids] -= went.limbs
        sums.counts[went.ids] -= went.counts
        return np.union1d(came.ids, went.ids)

    def _refill(
        self, means: NDArray[np.float32], counts: NDArray[np.int64], active: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Move the centroids of empty leaves as ``lloyd`` does; those moved, and which clusters they belong to."""
        taken = np.zeros(len(self.starts) - 1, dtype=np.bool_)
        empty = np.flatnonzero(counts == 0)
        moved: list[int] = []
        if len(empty):
            for cluster in np.intersect1d(self._cluster_of_leaf[empty], active).tolist():
                mine = empty[self._cluster_of_leaf[empty] == cluster].tolist()
                for leaf, vector in zip(mine, self._farthest(cluster), strict=False):
                    means[leaf] = vector
                    moved.append(leaf)
                    taken[cluster] = True
        return np.array(moved, dtype=np.int64), taken

    def _farthest(self, cluster: int) -> list[NDArray[np.float32]]:
        """The distinct vectors farthest from their centroids, farthest first."""
        mine = slice(self.starts[cluster], self.starts[cluster + 1])
        values = self.values[mine]
        least = least_apart(self.around.metric)
        if not values.max() > least:
            return []
        count = min(REFILLS, int(self.edges[cluster + 1] - self.edges[cluster]))
        far = FarthestRows.of(values, np.arange(len(values), dtype=np.int64), count)
        vectors = centre_vectors(self.rows[mine][far.rows[far.values > least]], self.around.metric)
        distinct: dict[bytes, NDArray[np.float32]] = {}
        for vector in vectors:
            distinct.setdefault(vector.tobytes(), vector)
        return list(distinct.values())


def _exact_units(totals: NDArray[np.float64], inertia: ExactTotal) -> list[int]:
    limb_bits = ExactTotal._limb_bits(inertia.rows)
    rests = np.ldexp(totals[:, 1], limb_bits).tolist()
    return [(int(whole) << limb_bits) + int(rest) for whole, rest in zip(totals[:, 0].tolist(), rests, strict=True)]
