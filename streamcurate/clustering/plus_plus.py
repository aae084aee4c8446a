"""Greedy k-means++ on integer potentials: the same seeds on every device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.kernels import SeedingSpace

# Distances to a batch of candidates are computed in one matrix product of about so many bytes.
_BATCH_BYTES = 24 << 20
_LARGEST_BATCH = 512
# Small: many rejected; large: many small products. Between 2 and 16 the time differed by a tenth (20,000 text
# embeddings, k = 2000).
_CENTRES_A_CENTRE_AHEAD = 4
_WORTHWHILE_OPERATIONS = 1 << 24


def trials(clusters: int) -> int:
    """Candidates tried for each centre: 2 + ln k (Arthur & Vassilvitskii 2007, section 6)."""
    return 2 + int(math.log(clusters))


def working_bytes(rows: int, clusters: int, encoded_row_bytes: int) -> int:
    """Memory :func:`plus_plus` takes: the encoded rows, potentials, running sums and one batch of distances."""
    return rows * (encoded_row_bytes + 40) + max(_BATCH_BYTES, 8 * rows * trials(clusters))


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
    from streamcurate.kernels.cpu.potentials import trial_totals

    rows = len(encoded)
    mass = weights if weights.size else np.ones(1, dtype=np.int64)
    draws = _Draws(around)
    first = _draw(np.cumsum(np.broadcast_to(mass, rows), dtype=np.int64), [draws.next()])[0]
    chosen = [int(first)]
    potentials = _distances(encoded[first : first + 1], encoded, space, around)[0].copy()
    tries = trials(clusters)
    while len(chosen) < clusters:
        running = np.cumsum(potentials * mass, dtype=np.int64)
        if running[-1] == 0:
            break
        wanted = (clusters - len(chosen)) * tries
        # A batch long against the centres there are would mostly be rejected: each new centre lowers the potentials.
        ahead = tries * max(len(chosen) // _CENTRES_A_CENTRE_AHEAD, 1)
        batch = max(min(_BATCH_BYTES // (8 * rows), _LARGEST_BATCH, wanted, ahead), tries)
        candidates = _draw(running, [draws.next() for _ in range(batch)])
        at_start = potentials[candidates]
        distances = _distances(encoded[candidates], encoded, space, around)
        accepted: list[int] = []
        for position, candidate in enumerate(candidates.tolist()):
            if draws.next() * int(at_start[position]) < int(potentials[candidate]) << 64:
                accepted.append(position)
            if len(accepted) == tries:
                best = _best(trial_totals(distances[accepted], potentials, weights), accepted)
                chosen.append(int(candidates[best]))
                np.minimum(potentials, distances[best], out=potentials)
                accepted = []
                if len(chosen) == clusters:
                    break
        # What was accepted but not enough for another centre is dropped: the next batch draws afresh.
    return _complete(chosen, clusters, rows, around)


def _distances(
    candidates: NDArray[Any], encoded: NDArray[Any], space: SeedingSpace, around: Surroundings
) -> NDArray[np.int64]:
    """Potentials (candidates, rows), the rows shared out among the threads; freshly made."""
    threads = around.executor.local.budget.threads
    rows = len(encoded)
    if threads == 1 or len(candidates) * encoded.size < _WORTHWHILE_OPERATIONS:
        return space.potentials(candidates, encoded)
    distances = np.empty((len(candidates), rows), dtype=np.int64)
    step = -(-rows // threads)

    def part(start: int) -> None:
        distances[:, start : start + step] = space.potentials(candidates, encoded[start : start + step])

    for _ in around.executor.local.side_by_side(part, range(0, rows, step)):
        pass
    return distances


def _best(totals: NDArray[np.int64], positions: list[int]) -> int:
    return positions[int(np.argmin(totals))]


def _draw(running: NDArray[np.int64], bits: list[int]) -> NDArray[np.int64]:
    """Positions drawn in proportion to the steps of ``running``."""
    total = int(running[-1])
    targets = np.array([(value * total) >> 64 for value in bits], dtype=np.int64)
    return np.searchsorted(running, targets, side="right").astype(np.int64, copy=False)


def _complete(chosen: list[int], clusters: int, rows: int, around: Surroundings) -> NDArray[np.int64]:
    """Add rows not chosen, in the order of their random numbers: all distances are zero, so none is better."""
    found = np.array(chosen, dtype=np.int64)
    if len(found) < clusters:
        keys = around.random_bits(Purpose.RANDOM_SEEDS, np.arange(rows, dtype=np.int64))
        keys[found] = np.iinfo(np.uint64).max
        order = np.argsort(keys, kind="stable")
        fresh = order[~np.isin(order, found)]
        found = np.concatenate([found, fresh[: clusters - len(found)]])
    return found


class _Draws:
    """An endless sequence of 64 random bits, made a thousand at a time."""

    def __init__(self, around: Surroundings) -> None:
        self._numbers = self._endless(around)

    def next(self) -> int:
        return next(self._numbers)

    @staticmethod
    def _endless(around: Surroundings) -> Iterator[int]:
        start = 0
        while True:
            counters = np.arange(start, start + 1024, dtype=np.int64)
            yield from kernels.random_bits(around.seed, around.stream(Purpose.PLUS_PLUS), counters).tolist()
            start += 1024
