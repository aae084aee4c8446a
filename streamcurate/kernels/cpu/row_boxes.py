"""Potentials at few dims: a tree of boxes around the rows tells which of them a new centre can reach.

Leaves hold 16 neighbouring rows, every other node eight nodes. Potentials here are rint(s 2^e) of the formula's square
s, in float64. From a box, s is bounded by the same formula over the box's nearest point: subtraction, multiplication,
addition and rint never turn the order of two values around when they round, so that the bound needs no margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.potentials import running_sums
from streamcurate.kernels.cpu.rows import float32_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64

_LEAF = 16
_FAN = 8
# Nodes waiting on the way through a tree: at most seven on each of its levels, of which 2^31 rows make eleven.
_WAITING = 128


@compiled
def _arrange(rows: Float32, order: Int32) -> None:
    """Put rows in an order in which leaves, and nodes of any level, are neighbours: split at medians, widest side."""
    lows, highs = np.empty(128, dtype=np.int64), np.empty(128, dtype=np.int64)
    lows[0], highs[0] = 0, len(order)
    waiting = 1
    while waiting:
        waiting -= 1
        low, high = lows[waiting], highs[waiting]
        leaves = (high - low + _LEAF - 1) // _LEAF
        if leaves < 2:
            continue
        half = 1
        while 2 * half < leaves:
            half *= 2
        # Whole nodes of the levels above lie on the left.
        middle = low + half * _LEAF
        side, widest = 0, -1.0
        for j in range(rows.shape[1]):
            smallest = largest = rows[order[low], j]
            for i in range(low, high):
                value = rows[order[i], j]
                smallest, largest = min(smallest, value), max(largest, value)
            width = np.float64(largest) - np.float64(smallest)
            if width > widest:
                side, widest = j, width
        first, last = low, high - 1
        while first < last:
            pivot = rows[order[(first + last) // 2], side]
            i, j = first, last
            while i <= j:
                while rows[order[i], side] < pivot:
                    i += 1
                while rows[order[j], side] > pivot:
                    j -= 1
                if i <= j:
                    order[i], order[j] = order[j], order[i]
                    i += 1
                    j -= 1
            if middle <= j:
                last = j
            elif middle >= i:
                first = i
            else:
                break
        lows[waiting], highs[waiting] = low, middle
        lows[waiting + 1], highs[waiting + 1] = middle, high
        waiting += 2


@compiled
def _fill(rows: Float32, order: Int32, leaves: Float32) -> None:
    for leaf in range(len(leaves)):
        for lane in range(_LEAF):
            row = order[min(leaf * _LEAF + lane, len(order) - 1)]
            for j in range(rows.shape[1]):
                leaves[leaf, j, lane] = rows[row, j]


@compiled
def _bound(leaves: Float32, edges: Int64, low: Float32, high: Float32) -> None:
    for level in range(len(edges) - 1):
        below = 1 if level == 0 else edges[level] - edges[level - 1]
        for node in range(edges[level + 1] - edges[level]):
            at = edges[level] + node
            for j in range(leaves.shape[1]):
                smallest, largest = np.float32(np.inf), np.float32(-np.inf)
                if level == 0:
                    for lane in range(_LEAF):
                        smallest = min(smallest, leaves[node, j, lane])
                        largest = max(largest, leaves[node, j, lane])
                else:
                    for child in range(node * _FAN, min((node + 1) * _FAN, below)):
                        under = edges[level - 1] + child
                        smallest, largest = min(smallest, low[under, j]), max(largest, high[under, j])
                low[at, j], high[at, j] = smallest, largest


@compiled
def _from_box(low: Float32, high: Float32, node: int, centre: Float32, scale: float) -> np.int64:
    total = 0.0
    for j in range(centre.shape[0]):
        difference = 0.0
        if centre[j] < low[node, j]:
            difference = np.float64(low[node, j]) - np.float64(centre[j])
        elif centre[j] > high[node, j]:
            difference = np.float64(centre[j]) - np.float64(high[node, j])
        total += difference * difference
    return np.int64(np.rint(total * scale))


@compiled
def _squares(leaves: Float32, leaf: int, centre: Float32, squares: Float64) -> None:
    """The formula for all rows of a leaf, side by side: each one's terms are added in their order."""
    # A loop of a length known to the compiler would be unrolled, and not vectorised.
    block, lanes = leaves[leaf], leaves.shape[2]
    for lane in range(lanes):
        squares[lane] = 0.0
    for j in range(centre.shape[0]):
        line, other = block[j], np.float64(centre[j])
        for lane in range(lanes):
            difference = np.float64(line[lane]) - other
            squares[lane] += difference * difference


@compiled
def _largest(potentials: Int64, edges: Int64, largest: Int64, level: int, node: int) -> None:
    """Bring the largest potential under a node up to date from what is right below it."""
    best = np.int64(0)
    if level == 0:
        for i in range(node * _LEAF, min((node + 1) * _LEAF, len(potentials))):
            best = max(best, potentials[i])
    else:
        first, count = edges[level - 1], edges[level] - edges[level - 1]
        for child in range(node * _FAN, min((node + 1) * _FAN, count)):
            best = max(best, largest[first + child])
    largest[edges[level] + node] = best


@compiled
def _visit(
    leaves: Float32, weights: Int64, potentials: Int64, edges: Int64, low: Float32, high: Float32, largest: Int64,
    levels: Int64, nodes: Int64, centre: Float32, squares: Float64, place: int, scale: float, lower: bool,
) -> np.int64:  # fmt: skip
    """What the row at ``place`` as a centre takes off the sum of potentials; ``lower`` them as well."""
    for j in range(len(centre)):
        centre[j] = leaves[place // _LEAF, j, place % _LEAF]
    gain = np.int64(0)
    levels[0], nodes[0] = len(edges) - 2, 0
    waiting = 1
    while waiting:
        waiting -= 1
        level, node = levels[waiting], nodes[waiting]
        if level > 0:
            first, count = edges[level - 1], edges[level] - edges[level - 1]
            for child in range(node * _FAN, min((node + 1) * _FAN, count)):
                if _from_box(low, high, first + child, centre, scale) < largest[first + child]:
                    levels[waiting], nodes[waiting] = level - 1, child
                    waiting += 1
            continue
        lowered = False
        _squares(leaves, node, centre, squares)
        # Above this no square makes a potential below the largest of the leaf: a look at the others will do.
        reach = np.float64(largest[node]) * (1 + 2.0**-50) + 1.0
        for i in range(node * _LEAF, min((node + 1) * _LEAF, len(potentials))):
            scaled = squares[i - node * _LEAF] * scale
            if scaled > reach:
                continue
            value = np.int64(np.rint(scaled))
            if value < potentials[i]:
                gain += (potentials[i] - value) * weights[i] if weights.size else potentials[i] - value
                if lower:
                    potentials[i] = value
                    lowered = True
        if lowered:
            for above in range(len(edges) - 1):
                _largest(potentials, edges, largest, above, node)
                node //= _FAN
    return gain


@compiled
def _choose(
    candidates: Int64, limits: Int64, tries: int, most: int, places: Int32, leaves: Float32, weights: Int64,
    potentials: Int64, edges: Int64, low: Float32, high: Float32, largest: Int64, scale: float, chosen: Int64,
) -> int:  # fmt: skip
    levels, nodes = np.empty(_WAITING, dtype=np.int64), np.empty(_WAITING, dtype=np.int64)
    centre, squares = np.empty(leaves.shape[1], dtype=np.float32), np.empty(_LEAF, dtype=np.float64)
    count, tried, best_gain, best = 0, 0, np.int64(0), np.int64(0)
    for number in range(len(candidates)):
        place = int(places[candidates[number]])
        if limits[number] >= potentials[place]:
            continue
        # Neither call's last argument is a constant, of which each would be compiled for itself.
        gain = _visit(
            leaves, weights, potentials, edges, low, high, largest, levels, nodes, centre, squares, place, scale,
            tried > tries,
        )  # fmt: skip
        if tried == 0 or gain > best_gain:
            best_gain, best = gain, candidates[number]
        tried += 1
        if tried == tries:
            _visit(
                leaves, weights, potentials, edges, low, high, largest, levels, nodes, centre, squares,
                int(places[best]), scale, tried == tries,
            )  # fmt: skip
            chosen[count] = best
            count += 1
            if count == most:
                break
            tried = 0
    return count


@compiled
def _lower(
    queries: Float32, leaves: Float32, order: Int32, edges: Int64, low: Float32, high: Float32, scale: float,
    first: int, potentials: Int64, nearest: Int32,
) -> None:  # fmt: skip
    levels, nodes = np.empty(_WAITING, dtype=np.int64), np.empty(_WAITING, dtype=np.int64)
    bounds, squares = np.empty(_WAITING, dtype=np.int64), np.empty(_LEAF, dtype=np.float64)
    for q in range(len(queries)):
        query = queries[q]
        best, label = potentials[q], nearest[q]
        levels[0], nodes[0], bounds[0] = len(edges) - 2, 0, 0
        waiting = 1
        while waiting:
            waiting -= 1
            if bounds[waiting] > best:
                continue
            level, node = levels[waiting], nodes[waiting]
            if level == 0:
                _squares(leaves, node, query, squares)
                for i in range(node * _LEAF, min((node + 1) * _LEAF, len(order))):
                    value = np.int64(np.rint(squares[i - node * _LEAF] * scale))
                    number = np.int32(first + order[i])
                    # Candidates of earlier rounds have lower numbers and keep what they share.
                    if value < best or (value == best and number < label):
                        best, label = value, number
                continue
            under, count = edges[level - 1], edges[level] - edges[level - 1]
            start = waiting
            for child in range(node * _FAN, min((node + 1) * _FAN, count)):
                bound = _from_box(low, high, under + child, query, scale)
                if bound > best:
                    continue
                # The nearest box on top.
                at = waiting
                while at > start and bounds[at - 1] < bound:
                    levels[at], nodes[at], bounds[at] = levels[at - 1], nodes[at - 1], bounds[at - 1]
                    at -= 1
                levels[at], nodes[at], bounds[at] = level - 1, child, bound
                waiting += 1
        potentials[q], nearest[q] = best, label


@dataclass(frozen=True)
class BoxTree:
    """Rows in an order in which neighbours lie together, and the boxes around them.

    Attributes
    ----------
    order : (n,) int32
        Which row lies at each place.
    leaves : (n / 16, d, 16) float32
        Coordinates of each leaf's rows side by side; the last leaf is filled up with its last row.
    edges : (levels + 1,) int64
        Where each level's nodes begin, leaves first.
    low, high : (nodes, d) float32
    """

    order: Int32
    leaves: Float32
    edges: Int64
    low: Float32
    high: Float32

    @classmethod
    def of(cls, rows: Array) -> BoxTree:
        """A tree over rows (n, d) float16 or float32, at least one; n below 2^31."""
        values = np.ascontiguousarray(rows, dtype=np.float32)
        order = np.arange(len(values), dtype=np.int32)
        _arrange(values, order)
        counts = [-(-len(values) // _LEAF)]
        while counts[-1] > 1:
            counts.append(-(-counts[-1] // _FAN))
        edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        low = np.empty((edges[-1], values.shape[1]), dtype=np.float32)
        high = np.empty_like(low)
        leaves = np.empty((counts[0], values.shape[1], _LEAF), dtype=np.float32)
        _fill(values, order, leaves)
        _bound(leaves, edges, low, high)
        return cls(order, leaves, edges, low, high)


class BoxTrials:
    """Potentials of rows at few dims, lowered by one centre after the other; see :class:`Trials`.

    Parameters
    ----------
    encoded : (n, d) float16 or float32
    exponent : int
        Of :class:`~streamcurate.kernels.SeedingSpace`.
    weights : (n,) or (0,) int64
    """

    def __init__(self, encoded: Array, exponent: int, weights: Int64) -> None:
        self._tree = BoxTree.of(encoded)
        self._scale = float(np.ldexp(1.0, exponent))
        self._weights = weights
        # In the tree's order, like the potentials.
        self._arranged_weights = weights[self._tree.order] if weights.size else weights
        self._places = np.empty_like(self._tree.order)
        self._places[self._tree.order] = np.arange(len(encoded), dtype=np.int32)
        self._potentials = np.full(len(encoded), np.iinfo(np.int64).max, dtype=np.int64)
        self._largest = np.full(self._tree.edges[-1], np.iinfo(np.int64).max, dtype=np.int64)

    def running_sums(self) -> Int64:
        """Of weight times potential, over the rows as given."""
        return running_sums(self._potentials, self._places, self._weights)

    def potentials_of(self, rows: Int64) -> Int64:
        """Of some rows."""
        found: Int64 = self._potentials[self._places[rows]]
        return found

    def begin(self, row: int) -> None:
        """Make the first centre."""
        # Above any limit, and the only one tried: what it takes off is not asked.
        self.choose(np.array([row], dtype=np.int64), np.full(1, -1, dtype=np.int64), 1, 1)

    def choose(self, candidates: Int64, limits: Int64, tries: int, most: int) -> Int64:
        """Go through candidates; see :class:`Trials`."""
        tree = self._tree
        chosen = np.empty(most, dtype=np.int64)
        count = _choose(
            candidates, limits, tries, most, self._places, tree.leaves, self._arranged_weights,
            self._potentials, tree.edges, tree.low, tree.high, self._largest, self._scale, chosen,
        )  # fmt: skip
        return chosen[:count]


class BoxSearch:
    """Candidates at few dims, to lower potentials by; see :class:`Search`."""

    def __init__(self, candidates: Array, exponent: int) -> None:
        self._tree = BoxTree.of(candidates)
        self._scale = float(np.ldexp(1.0, exponent))

    def lower(self, encoded: Array, potentials: Int64, nearest: Int32, first: int) -> None:
        """Lower potentials in place; see :class:`Search`."""
        tree = self._tree
        _lower(
            float32_rows(encoded, "rows to search for"), tree.leaves, tree.order, tree.edges, tree.low, tree.high,
            self._scale, first, potentials, nearest,
        )  # fmt: skip
