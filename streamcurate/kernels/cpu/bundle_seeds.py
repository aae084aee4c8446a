"""Greedy k-means++ for many small problems in one call: the choices of ``clustering.plus_plus``, problem by problem."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.random import _DOMAIN, _WORD, _philox, philox4x32
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float64, Int64, UInt64


@compiled
def _random_bits(counter: int, word2: np.uint64, word3: np.uint64, key0: np.uint64, key1: np.uint64) -> np.uint64:
    # Philox4x32-10, as in cpu/random.py: what is compiled calls only what its own file holds.
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = np.uint64(counter) & mask, np.uint64(counter) >> shift, np.uint64(word2), np.uint64(word3)
    k0, k1 = np.uint64(key0), np.uint64(key1)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & mask, (p0 >> shift) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & mask, (k1 + np.uint64(0xBB67AE85)) & mask
    return c0 | (c1 << shift)


@compiled
def _high_product(a: np.uint64, b: np.uint64) -> np.uint64:
    # The upper 64 of the 128 bits of a b.
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & mask, a >> shift, b & mask, b >> shift
    middle = a1 * b0 + ((a0 * b0) >> shift)
    other = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> shift) + (other >> shift)


@compiled
def _distances(rows: Array, first: int, last: int, candidate: int, exact: bool, scale: float, out: Int64) -> None:
    dims = rows.shape[1]
    if exact:
        for i in range(first, last):
            value = 0.0
            for j in range(dims):
                difference = np.float64(rows[i, j]) - np.float64(rows[candidate, j])
                value += difference * difference
            out[i - first] = np.int64(np.rint(value * scale))
    else:
        for i in range(first, last):
            total = np.int32(0)
            for j in range(dims):
                step = np.int32(np.int32(rows[i, j]) - np.int32(rows[candidate, j]))
                total = np.int32(total + np.int32(step * step))
            out[i - first] = total


@compiled
def choose_seeds(
    rows: Array,
    exact: bool,
    starts: Int64,
    edges: Int64,
    scales: Float64,
    tries: Int64,
    largest_batches: Int64,
    ahead_share: int,
    words: UInt64,
    key0: np.uint64,
    key1: np.uint64,
    chosen: Int64,
    found: Int64,
) -> None:
    """Choose seeds for every segment.

    Parameters
    ----------
    rows : (m, d) int8 or float32
        In seeding form; all of a segment together.
    exact : bool
        float32 rows, whose potentials are rint(formula value x scale); int8 rows have integer squared distances.
    starts, edges : (segments + 1,) int64
        First row and first seed of each segment.
    scales : (segments,) float64
    tries : (segments,) int64
        Candidates for each seed.
    largest_batches : (segments,) int64
        Most candidates drawn at a time.
    ahead_share : int
        Seeds there are for each one drawn ahead.
    words : (segments, 2) uint64
        Words of each segment's random stream.
    key0, key1 : uint64
        Of the seed.
    chosen : (seeds,) int64
        Written: positions within the segment, in the order of choice.
    found : (segments,) int64
        Written: how many were chosen before every potential was zero.
    """
    longest = largest = most = 0
    for segment in range(len(starts) - 1):
        longest = max(longest, starts[segment + 1] - starts[segment])
        largest = max(largest, largest_batches[segment])
        most = max(most, tries[segment])
    potentials = np.empty(longest, dtype=np.int64)
    running = np.empty(longest, dtype=np.int64)
    candidates = np.empty(max(largest, most), dtype=np.int64)
    at_start = np.empty(max(largest, most), dtype=np.int64)
    trials = np.empty((most, longest), dtype=np.int64)
    positions = np.empty(most, dtype=np.int64)
    for segment in range(len(starts) - 1):
        first, last = starts[segment], starts[segment + 1]
        size, wanted, tried = last - first, edges[segment + 1] - edges[segment], tries[segment]
        found[segment] = 0
        if wanted == 0:
            continue
        word2, word3, scale = words[segment, 0], words[segment, 1], scales[segment]
        place = edges[segment]
        drawn = 1
        one = np.int64(_high_product(_random_bits(0, word2, word3, key0, key1), np.uint64(size)))
        chosen[place] = one
        count = 1
        _distances(rows, first, last, first + one, exact, scale, potentials)
        while count < wanted:
            total = np.int64(0)
            for i in range(size):
                total += potentials[i]
                running[i] = total
            if total == 0:
                break
            ahead = tried * max(count // ahead_share, 1)
            batch = max(min(largest_batches[segment], (wanted - count) * tried, ahead), tried)
            for b in range(batch):
                target = np.int64(_high_product(_random_bits(drawn, word2, word3, key0, key1), np.uint64(total)))
                drawn += 1
                low, high = 0, size
                while low < high:
                    middle = (low + high) // 2
                    if running[middle] <= target:
                        low = middle + 1
                    else:
                        high = middle
                candidates[b] = low
                at_start[b] = potentials[low]
            accepted = 0
            for b in range(batch):
                candidate = candidates[b]
                bits = _random_bits(drawn, word2, word3, key0, key1)
                drawn += 1
                if np.int64(_high_product(bits, np.uint64(at_start[b]))) < potentials[candidate]:
                    positions[accepted] = candidate
                    accepted += 1
                if accepted < tried:
                    continue
                best, least = 0, np.int64(-1)
                for trial in range(tried):
                    line = trials[trial]
                    _distances(rows, first, last, first + positions[trial], exact, scale, line)
                    left = np.int64(0)
                    for i in range(size):
                        left += min(potentials[i], line[i])
                    if least < 0 or left < least:
                        best, least = trial, left
                for i in range(size):
                    potentials[i] = min(potentials[i], trials[best, i])
                chosen[place + count] = positions[best]
                count += 1
                accepted = 0
                if count == wanted:
                    break
        found[segment] = count


def words_of_streams(seed: int, prefix: tuple[int, ...], last: Int64) -> UInt64:
    """The two words cpu/random.py makes of each stream (*prefix, l), for all l of ``last`` at once; (len(last), 2)."""
    key0, key1 = seed & _WORD, (seed >> 32) ^ _WORD
    state = (len(prefix) + 1, _DOMAIN)
    for element in prefix:
        first, second, _, _ = philox4x32((element & _WORD, element >> 32, *state), (key0, key1))
        state = (first, second)
    counters = np.empty((len(last), 4), dtype=np.uint64)
    elements = last.astype(np.uint64)
    counters[:, 0], counters[:, 1] = elements & np.uint64(_WORD), elements >> np.uint64(32)
    counters[:, 2], counters[:, 3] = state
    words = np.empty_like(counters)
    _philox(counters, np.uint64(key0), np.uint64(key1), words)
    return words[:, :2].copy()
