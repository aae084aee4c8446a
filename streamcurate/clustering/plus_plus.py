"""Greedy k-means++ on integer potentials: the same seeds on every device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.kernels import SeedingSpace
from streamcurate.kernels.trials import Means, Trials

# Candidates are drawn in batches whose distances to all rows would fill so many bytes. A batch's length is part of what
# is chosen: another one gives other seeds.
BATCH_BYTES = 24 << 20
LARGEST_BATCH = 512
# Small: many rejected; large: many small products. Between 2 and 16 the time differed by a tenth (20,000 text
# embeddings, k = 2000).
CENTRES_A_CENTRE_AHEAD = 4
_DRAWS = 4096


def trials(clusters: int) -> int:
    """Candidates tried for each centre: 2 + ln k (Arthur & Vassilvitskii 2007, section 6)."""
    return 2 + int(math.log(clusters))


def working_bytes(rows: int, clusters: int, encoded_row_bytes: int) -> int:
    """Memory :func:`plus_plus` takes: the encoded rows, norms, potentials, running sums and a batch of distances.

    At few dims there is a tree instead of distances, while it is made as large again as the encoded rows.
    """
    return rows * (encoded_row_bytes + 40) + max(BATCH_BYTES, 8 * rows * max(trials(clusters), 5))


def plus_plus(
    encoded: NDArray[Any], clusters: int, space: SeedingSpace, around: Surroundings, weights: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Choose ``clusters`` rows, each time the best of a few drawn in proportion to their squared distance.

    Candidates are drawn a batch ahead in proportion to the potentials at the batch's start, and accepted with the
    probability by which their potential has fallen since: what is accepted is distributed as if drawn afresh.

    Parameters
    ----------
    encoded : ndarray, shape (n, ...)
        Rows in the form of ``space``.
    clusters : int
        At most n.
    space : SeedingSpace
    around : Surroundings
        Names the random stream.
    weights : ndarray of int64, shape (n,) or (0,)
        How many points each row stands for; empty where each stands for one.

    Returns
    -------
    ndarray of int64, shape (clusters,)
        Distinct positions. Fewer distinct rows than clusters: the rest are positions in order of their random number.
    """
    return greedy(potentials_of(encoded, clusters, space, around, weights), len(encoded), clusters, around, weights)


def potentials_of(
    encoded: NDArray[Any], clusters: int, space: SeedingSpace, around: Surroundings, weights: NDArray[np.int64]
) -> Trials:
    """Potentials of encoded rows for :func:`greedy`, with the threads and the memory there are.

    At few dims they keep the rows in an order of their own, and ``encoded`` may be let go.
    """
    executor = around.executor.local
    budget = executor.budget

    def spread(function: Callable[[int], None], count: int) -> None:
        for _ in executor.side_by_side(function, range(count)):
            pass

    spare = budget.usable - working_bytes(len(encoded), clusters, space.bytes_per_row)
    means = Means(clusters, trials(clusters), max(spare, 0), budget.threads, spread)
    return space.trials(encoded, weights, means)


def greedy(
    potentials: Trials, rows: int, clusters: int, around: Surroundings, weights: NDArray[np.int64]
) -> NDArray[np.int64]:
    """:func:`plus_plus` over ``rows`` rows whose potentials are set up."""
    from streamcurate.kernels.cpu.potentials import shares

    tries = trials(clusters)
    draws = _Draws(around)
    mass = np.cumsum(weights, dtype=np.int64) if weights.size else np.arange(1, rows + 1, dtype=np.int64)
    chosen = _draw(mass, draws.take(1))
    del mass
    potentials.begin(int(chosen[0]))
    progress = around.executor.progress
    progress.started("choosing seeds", clusters)
    while len(chosen) < clusters:
        running = potentials.running_sums()
        if running[-1] == 0:
            break
        wanted = (clusters - len(chosen)) * tries
        # A batch long against the centres there are would mostly be rejected: each new centre lowers the potentials.
        ahead = tries * max(len(chosen) // CENTRES_A_CENTRE_AHEAD, 1)
        batch = max(min(BATCH_BYTES // (8 * rows), LARGEST_BATCH, wanted, ahead), tries)
        candidates = _draw(running, draws.take(batch))
        # Accepted: a potential above this share of what it was. What is accepted but not enough for another centre is
        # dropped: the next batch draws afresh.
        limits = shares(draws.take(batch), potentials.potentials_of(candidates))
        found = potentials.choose(candidates, limits, tries, clusters - len(chosen))
        chosen = np.concatenate([chosen, found])
        progress.advanced(len(found), 0)
    progress.finished()
    return _complete(chosen, clusters, rows, around)


def _draw(running: NDArray[np.int64], bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions drawn in proportion to the steps of ``running``."""
    from streamcurate.kernels.cpu.potentials import shares

    return np.searchsorted(running, shares(bits, running[-1:]), side="right").astype(np.int64, copy=False)


def _complete(found: NDArray[np.int64], clusters: int, rows: int, around: Surroundings) -> NDArray[np.int64]:
    """Add rows not chosen, in the order of their random numbers: all distances are zero, so none is better."""
    if len(found) < clusters:
        keys = around.random_bits(Purpose.RANDOM_SEEDS, np.arange(rows, dtype=np.int64))
        keys[found] = np.iinfo(np.uint64).max
        order = np.argsort(keys, kind="stable")
        fresh = order[~np.isin(order, found)]
        found = np.concatenate([found, fresh[: clusters - len(found)]])
    return found


class _Draws:
    """An endless sequence of 64 random bits, made thousands at a time."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._made = np.empty(0, dtype=np.uint64)
        self._next = 0

    def take(self, count: int) -> NDArray[np.uint64]:
        """The next ``count`` of them."""
        if count > len(self._made):
            counters = np.arange(self._next, self._next + max(count, _DRAWS), dtype=np.int64)
            self._next += len(counters)
            more = kernels.random_bits(self._around.seed, self._around.stream(Purpose.PLUS_PLUS), counters)
            self._made = np.concatenate([self._made, more])
        taken, self._made = self._made[:count], self._made[count:]
        return taken
