"""Potentials between rows of 8-bit integers: a float32 product bounds all pairs, integers decide those in question.

For rows a and candidates b of integers, less a common offset, a candidate is nearer than the potential p only if
|a|^2 + |b|^2 - 2 <a, b> < p. Columns z of float32 (cpu/columns.py) give <a, b> <= <z_a, z_b> + k |a| |b|, and as
2 |a| |b| <= |a|^2 + |b|^2, only pairs with

    <z_a, z_b>  >  ((1 - k) |a|^2 - p) / 2  +  (1 - k) |b|^2 / 2

need a look; theirs is an integer product of all coordinates, exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Int32, Int64
from streamcurate.kernels.workspace import work_array

UInt8 = npt.NDArray[np.uint8]

# Sums of so many products of 8-bit integers stay below 2^31.
_PIECE = 1 << 17
# Candidates compared with a row's potential before it is lowered.
_TOGETHER = 64


@compiled
def _measure(integers: Array, offset: Int64, squared: Int64, shifted: Int64) -> None:
    constant = np.int64(0)
    for j in range(len(offset)):
        constant += offset[j] * offset[j]
    for i in range(len(integers)):
        total, cross = np.int64(0), np.int64(0)
        for j in range(integers.shape[1]):
            value = np.int64(integers[i, j])
            total += value * value
            cross += value * offset[j]
        squared[i], shifted[i] = total, total - 2 * cross + constant


@compiled
def _thresholds(shifted: Int64, potentials: Int64, keep: float, thresholds: Float32) -> None:
    # 2^-22 of the terms covers the rounding to float32 and of the sum of a row's threshold and a candidate's.
    for i in range(len(shifted)):
        square, potential = np.float64(shifted[i]), np.float64(potentials[i])
        thresholds[i] = np.float32(0.5 * (keep * square - potential) - 2.0**-22 * (square + potential))


@compiled
def _distances(
    rows: Array, numbers: Int32, count: np.int64, squared: Int64, one: Array, square: np.int64, found: Int64
) -> None:
    """Squared distances between ``one`` and the first ``count`` of the rows ``numbers``."""
    dims = one.shape[0]
    whole = count - count % 4
    for first in range(0, dims, _PIECE):
        last = min(first + _PIECE, dims)
        other = one[first:last]
        # Four rows at a time share what is loaded of the other.
        for p in range(0, whole, 4):
            a, b = rows[numbers[p], first:last], rows[numbers[p + 1], first:last]
            c, d = rows[numbers[p + 2], first:last], rows[numbers[p + 3], first:last]
            s = t = u = v = np.int32(0)
            for j in range(len(other)):
                value = np.int32(other[j])
                s = np.int32(s + np.int32(a[j]) * value)
                t = np.int32(t + np.int32(b[j]) * value)
                u = np.int32(u + np.int32(c[j]) * value)
                v = np.int32(v + np.int32(d[j]) * value)
            if first == 0:
                found[p] = found[p + 1] = found[p + 2] = found[p + 3] = 0
            found[p] += s
            found[p + 1] += t
            found[p + 2] += u
            found[p + 3] += v
        for p in range(whole, count):
            a = rows[numbers[p], first:last]
            s = np.int32(0)
            for j in range(len(other)):
                s = np.int32(s + np.int32(a[j]) * np.int32(other[j]))
            found[p] = s if first == 0 else found[p] + s
    for p in range(count):
        found[p] = squared[numbers[p]] + square - 2 * found[p]


@compiled
def _collect(
    products: Float32, heights: Float32, thresholds: Float32, rows: Array, squared: Int64, potentials: Int64,
    first: int, candidates: Array, candidates_squared: Int64, above: UInt8, in_question: Int32, distances: Int64,
    hits: Int32, values: Array, ends: Int64,
) -> None:  # fmt: skip
    """Candidate by candidate, the rows it is nearer to than their potential, and those distances."""
    count = products.shape[1]
    eights = above.view(np.uint64)
    found = np.int64(0)
    for b in range(products.shape[0]):
        line, height = products[b], heights[b]
        for i in range(count):
            above[i] = np.uint8(line[i] > thresholds[i] + height)
        pairs = np.int64(0)
        for eight in range(len(eights)):
            if eights[eight]:
                for i in range(8 * eight, 8 * eight + 8):
                    in_question[pairs] = i
                    pairs += above[i]
        _distances(rows, in_question, pairs, squared, candidates[b], candidates_squared[b], distances)
        for pair in range(pairs):
            if distances[pair] < potentials[in_question[pair]]:
                hits[found], values[found] = first + in_question[pair], distances[pair]
                found += 1
        ends[b] = found


@compiled
def _choose(
    candidates: Int64, limits: Int64, tries: int, most: int, potentials: Int64, weights: Int64,
    starts: Int64, ends: Int64, hits: Int32, values: Array, chosen: Int64,
) -> int:  # fmt: skip
    count, tried, best_gain, best = 0, 0, np.int64(-1), 0
    for number in range(len(candidates)):
        if limits[number] >= potentials[candidates[number]]:
            continue
        gain = np.int64(0)
        for tile in range(len(starts)):
            begin = ends[tile, number - 1] if number else 0
            for hit in range(starts[tile] + begin, starts[tile] + ends[tile, number]):
                lowered = potentials[hits[hit]] - np.int64(values[hit])
                if lowered > 0:
                    gain += lowered * weights[hits[hit]] if weights.size else lowered
        if gain > best_gain:
            best_gain, best = gain, number
        tried += 1
        if tried == tries:
            for tile in range(len(starts)):
                begin = ends[tile, best - 1] if best else 0
                for hit in range(starts[tile] + begin, starts[tile] + ends[tile, best]):
                    potentials[hits[hit]] = min(potentials[hits[hit]], np.int64(values[hit]))
            chosen[count] = candidates[best]
            count += 1
            if count == most:
                break
            tried, best_gain = 0, np.int64(-1)
    return count


@compiled
def _lower(
    products: Float32, heights: Float32, rows: Array, squared: Int64, shifted: Int64, keep: float, candidates: Array,
    candidates_squared: Int64, above: UInt8, in_question: Int32, distances: Int64, first: int, potentials: Int64,
    nearest: Int32,
) -> None:  # fmt: skip
    count = products.shape[1]
    eights = above.view(np.uint64)
    for i in range(products.shape[0]):
        line, row = products[i], rows[i]
        best, label = potentials[i], nearest[i]
        square = np.float64(shifted[i])
        # Some candidates at a time, so that what the first of them leave is the bound for the others.
        for start in range(0, count, _TOGETHER):
            stop = min(start + _TOGETHER, count)
            threshold = np.float32(0.5 * (keep * square - best) - 2.0**-22 * (square + best))
            for b in range(start, stop):
                above[b - start] = np.uint8(line[b] > threshold + heights[b])
            for b in range(stop, start + _TOGETHER):
                above[b - start] = 0
            pairs = np.int64(0)
            for eight in range(len(eights)):
                if eights[eight]:
                    for b in range(8 * eight, 8 * eight + 8):
                        in_question[pairs] = start + b
                        pairs += above[b]
            _distances(candidates, in_question, pairs, candidates_squared, row, squared[i], distances)
            for pair in range(pairs):
                if distances[pair] < best:
                    best, label = distances[pair], np.int32(first + in_question[pair])
        potentials[i], nearest[i] = best, label


class Integers:
    """Rows of 8-bit integers with their norms.

    Attributes
    ----------
    rows : (n, d) int8
    squared : (n,) int64
    """

    def __init__(self, rows: Array) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.squared = np.empty(len(rows), dtype=np.int64)
        self.shifted = np.empty(len(rows), dtype=np.int64)
        self.shift(np.zeros(self.rows.shape[1], dtype=np.int64))

    def shift(self, offset: Int64) -> None:
        """Let ``shifted`` be the squared norms of the rows less ``offset``."""
        _measure(self.rows, offset, self.squared, self.shifted)


def collect(
    products: Float32, heights: Float32, rows: Integers, part: slice, potentials: Int64, keep: float,
    candidates: Integers, hits: Int32, values: Array, ends: Int64,
) -> None:  # fmt: skip
    """Find the rows of a tile that candidates are nearer to than their potential.

    Parameters
    ----------
    products : (b, m) float32
        Of the candidates' columns and those of the rows ``part``.
    heights : (b,) float32
    rows : Integers
    part : slice
    potentials : (n,) int64
        Of all rows.
    keep : float
        Of the columns.
    candidates : Integers
    hits, values : (b m,) int32, and int32 or int64
        Row numbers and distances are written there, candidate by candidate.
    ends : (b,) int64
        Where each candidate's end, written there.
    """
    size = products.shape[1]
    thresholds: Float32 = work_array("seeding thresholds", (size,), np.float32)
    above, in_question, distances = _pairs(size)
    _thresholds(rows.shifted[part], potentials[part], keep, thresholds)
    _collect(
        products, heights, thresholds, rows.rows[part], rows.squared[part], potentials[part], part.start,
        candidates.rows, candidates.squared, above, in_question, distances, hits, values, ends,
    )  # fmt: skip


def take_best(
    candidates: Int64, limits: Int64, tries: int, most: int, potentials: Int64, weights: Int64,
    starts: Int64, ends: Int64, hits: Int32, values: Array,
) -> Int64:  # fmt: skip
    """Go through candidates, as :class:`Trials` says, with what :func:`collect` found for each tile of rows.

    Parameters
    ----------
    candidates, limits, tries, most, potentials, weights
        As there; potentials are lowered in place.
    starts : (tiles,) int64
        Where a tile's hits begin.
    ends : (tiles, b) int64
    hits, values
    """
    chosen = np.empty(most, dtype=np.int64)
    count = _choose(candidates, limits, tries, most, potentials, weights, starts, ends, hits, values, chosen)
    return chosen[:count]


def lower(
    products: Float32, heights: Float32, rows: Integers, keep: float, candidates: Integers, tile: slice, first: int,
    potentials: Int64, nearest: Int32,
) -> None:  # fmt: skip
    """Lower the potentials of rows by the candidates ``tile``, products (m, b) of their columns given."""
    _lower(
        products, heights, rows.rows, rows.squared, rows.shifted, keep, candidates.rows[tile],
        candidates.squared[tile], *_pairs(_TOGETHER), first + tile.start, potentials, nearest,
    )  # fmt: skip


def _pairs(size: int) -> tuple[UInt8, Int32, Int64]:
    """Which of so many pairs are in question (zeros, in whole words), their numbers, their distances."""
    above: UInt8 = work_array("seeding comparisons", (-(-size // 8) * 8,), np.uint8)
    above[size:] = 0
    in_question: Int32 = work_array("seeding pairs", (len(above) + 1,), np.int32)
    distances: Int64 = work_array("seeding distances", (len(above),), np.int64)
    return above, in_question, distances
