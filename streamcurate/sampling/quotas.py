"""Quotas: how many rows each child of a node gives, in whole numbers that add up exactly.

Water-filling (arXiv:2405.15613, section 3.3, made exact): every child is filled to the same level c, or to c times its
weight, as far as it holds that much; what is left over goes one each to a random choice of the children that could
hold more. All parents of a level are filled at once, in int64 throughout (weights: :mod:`.weighted`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import CapacityError, InputError
from streamcurate.sampling.hierarchy import segment_sums
from streamcurate.sampling.weighted import Float64, in_order_of_steps, weighted_levels

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

# Children filled together: working arrays of 8 MB each, which a processor's cache half holds.
_PIECE = 1 << 20

# First word of every random stream of this room ("samp" in ASCII): no other stage draws the same bits.
STREAM = 0x73616D70
_NODES = 0
_ROWS = 1


@dataclass(frozen=True)
class Filled:
    """What every child gives, and how it came about in every parent.

    Attributes
    ----------
    quotas : ndarray of int64, shape (c,)
    levels : ndarray of int64 or float64, shape (p,)
        c of every parent: a child gives c, with weights ⌊c · weight⌋, unless its bounds say otherwise.
    remainders : ndarray of int64, shape (p,)
        Given out one each after that.
    takers : ndarray of int64, shape (p,)
        How many children could have got one of them.
    """

    quotas: Int64
    levels: NDArray[Any]
    remainders: Int64
    takers: Int64


def water_fill(
    capacities: Int64, target: int, keys: UInt64 | None = None, lower: Int64 | None = None
) -> NDArray[np.int64]:
    """Share ``target`` among the children of one node as evenly as their capacities allow.

    Parameters
    ----------
    capacities : ndarray of int64, shape (c,)
        The most each child can give.
    target : int
        What they give together.
    keys : ndarray of uint64, shape (c,), optional
        The remainder goes to the children with the smallest keys; by default to the first ones.
    lower : ndarray of int64, shape (c,), optional
        What each child gives at least, not above its capacity.

    Returns
    -------
    ndarray of int64, shape (c,)
        Adds up to ``target``.

    Raises
    ------
    CapacityError
        The children cannot give that much.

    Examples
    --------
    >>> water_fill(np.array([1, 9, 0, 4]), 9)
    array([1, 4, 0, 4])
    """
    offsets = np.array([0, len(capacities)], dtype=np.int64)
    if keys is None:
        keys = np.arange(len(capacities), dtype=np.uint64)
    return segmented_water_fill(np.array([target], dtype=np.int64), capacities, offsets, keys, lower)


def segmented_water_fill(
    targets: Int64, capacities: Int64, offsets: Int64, keys: UInt64, lower: Int64 | None = None
) -> NDArray[np.int64]:
    """Share the targets of many parents among their children, each as :func:`water_fill` does.

    In every parent the level c is the largest integer with Σ clamp(c, lower, capacity) ≤ target; each child gets
    clamp(c, lower, capacity), and the remainder goes one each to the children with the smallest keys among those with
    lower ≤ c < capacity.

    Parameters
    ----------
    targets : ndarray of int64, shape (p,)
    capacities : ndarray of int64, shape (c,)
        The children's, those of one parent side by side. All together below 2**63.
    offsets : ndarray of int64, shape (p + 1,)
        Children of parent i: ``offsets[i]`` to ``offsets[i + 1]``.
    keys : ndarray of uint64, shape (c,)
        Equal keys: the child that comes first.
    lower : ndarray of int64, shape (c,), optional
        Between 0 and the capacity; 0 by default.

    Returns
    -------
    ndarray of int64, shape (c,)
        Adds up to the target inside every parent.

    Raises
    ------
    CapacityError
        A target is above what the parent's children can give.
    InputError
        A target is below what they must give.
    """
    return fill(targets, capacities, offsets, keys, lower).quotas


def fill(
    targets: Int64,
    capacities: Int64,
    offsets: Int64,
    keys: UInt64,
    lower: Int64 | None = None,
    weights: Float64 | None = None,
) -> Filled:
    """Share the targets as :func:`segmented_water_fill` does, or by weights, and say how it came about.

    With weights, c is the largest number with Σ clamp(⌊c · weight⌋, lower, capacity) ≤ target, and the remainder goes
    one each to the children whose ⌊c · weight⌋ is about to step; of those at the very same step, to the smallest keys.
    It is the method of d'Hondt and Jefferson with bounds: a larger target never takes anything from a child.

    Parameters
    ----------
    targets, capacities, offsets, keys, lower
        As there; with weights, targets are at most 2**48.
    weights : ndarray of float64, shape (c,), optional
        As :func:`streamcurate.sampling.weighted.rounded_weights` gives them. Only those of one parent are compared.

    Raises
    ------
    CapacityError, InputError
        As there.
    """
    quotas = np.empty(len(capacities), dtype=np.int64)
    parents = len(targets)
    levels = np.zeros(parents, dtype=np.int64 if weights is None else np.float64)
    remainders, takers = np.zeros(parents, dtype=np.int64), np.zeros(parents, dtype=np.int64)
    for first, last in _pieces(offsets, _PIECE):
        here = slice(int(offsets[first]), int(offsets[last]))
        piece = _fill_piece(
            targets[first:last],
            capacities[here],
            offsets[first : last + 1] - here.start,
            keys[here],
            None if lower is None else lower[here],
            None if weights is None else weights[here],
            first,
        )
        quotas[here] = piece.quotas
        levels[first:last], remainders[first:last] = piece.levels, piece.remainders
        takers[first:last] = piece.takers
    return Filled(quotas, levels, remainders, takers)


def node_keys(seed: int, level: int, nodes: Int64) -> UInt64:
    """The random order of a level's clusters when a remainder is given out; a function of its arguments alone."""
    return _bits(seed, (STREAM, _NODES, level), nodes)


def row_keys(seed: int, rows: Int64) -> UInt64:
    """The random order of rows inside a leaf; a function of its arguments alone."""
    return _bits(seed, (STREAM, _ROWS), rows)


def smallest_in_segments(keys: UInt64, segments: Int64, wanted: Int64) -> NDArray[np.bool_]:
    """Mark the elements with the smallest keys, so many in each segment.

    Parameters
    ----------
    keys : ndarray of uint64, shape (m,)
    segments : ndarray of int64, shape (m,)
        Ascending.
    wanted : ndarray of int64, shape (p,)
        Marks in each segment, at most its number of elements. Equal keys: the element that comes first.

    Returns
    -------
    ndarray of bool, shape (m,)
    """
    counts = np.bincount(segments, minlength=len(wanted))
    if (wanted > counts).any():
        raise ValueError("more elements are wanted than a segment holds")
    marks: NDArray[np.bool_] = (wanted == counts)[segments]
    open_segments = (wanted > 0) & (wanted < counts)
    index = np.flatnonzero(open_segments[segments])
    if not len(index):
        return marks
    # One sort of one integer each, the segment in its high bits and the key in the low ones, finds the largest key
    # that is still wanted; the bits of the key that were cut off matter only among elements equal to it.
    ranks = (np.cumsum(open_segments) - 1)[segments[index]]
    open_counts, open_wanted = counts[open_segments], wanted[open_segments]
    rank_bits = (len(open_counts) - 1).bit_length()
    packed = keys[index]
    if rank_bits:
        packed = (packed >> np.uint64(rank_bits)) | (ranks.astype(np.uint64) << np.uint64(64 - rank_bits))
    starts = np.cumsum(open_counts) - open_counts
    limits = np.sort(packed)[starts + open_wanted - 1][ranks]
    below = packed < limits
    marks[index[below]] = True
    missing = open_wanted - np.bincount(ranks[below], minlength=len(open_counts))
    at_limit = np.flatnonzero(packed == limits)
    at_limit = at_limit[np.lexsort((keys[index[at_limit]], ranks[at_limit]))]
    equal_counts = np.bincount(ranks[at_limit], minlength=len(open_counts))
    place = np.arange(len(at_limit)) - np.repeat(np.cumsum(equal_counts) - equal_counts, equal_counts)
    marks[index[at_limit[place < missing[ranks[at_limit]]]]] = True
    return marks


def _fill_piece(
    targets: Int64,
    capacities: Int64,
    offsets: Int64,
    keys: UInt64,
    lower: Int64 | None,
    weights: Float64 | None,
    first: int,
) -> Filled:
    totals = segment_sums(capacities, offsets)
    if (targets > totals).any():
        parent = int(np.argmax(targets > totals))
        raise CapacityError(
            f"parent {first + parent}: {int(targets[parent]):,} are asked for, its children can give "
            f"{int(totals[parent]):,} at most; ask for {int(totals[parent]):,} or less"
        )
    if lower is None:
        lower = np.zeros(len(capacities), dtype=np.int64)
    bound = segment_sums(lower, offsets)
    if (targets < bound).any():
        parent = int(np.argmax(targets < bound))
        raise InputError(
            f"parent {first + parent}: {int(targets[parent]):,} are asked for, its children must give "
            f"{int(bound[parent]):,} at least; ask for {int(bound[parent]):,} or more"
        )
    counts = np.diff(offsets)
    parents = np.repeat(np.arange(len(targets), dtype=np.int64), counts)
    levels: NDArray[Any]
    if weights is None:
        levels = _levels(targets - bound, capacities, offsets, lower, targets)
        level_of = np.repeat(levels, counts)
        quotas = np.maximum(np.minimum(level_of, capacities), lower)
        steps = (lower <= level_of) & (level_of < capacities)
    else:
        levels, quotas, steps = weighted_levels(targets, capacities, offsets, lower, weights)
    remainders = targets - segment_sums(quotas, offsets)
    eligible = np.flatnonzero(steps & (remainders[parents] > 0))
    order, segments = keys[eligible], parents[eligible]
    if weights is not None:
        order = in_order_of_steps(quotas[eligible] + 1, weights[eligible], order, segments)
    chosen = smallest_in_segments(order, segments, remainders)
    quotas[eligible[chosen]] += 1
    return Filled(quotas, levels, remainders, np.bincount(segments, minlength=len(targets)).astype(np.int64))


def _levels(free: Int64, capacities: Int64, offsets: Int64, lower: Int64, targets: Int64) -> Int64:
    """The largest c of every parent with Σ clamp(c, lower, capacity) ≤ target, at most its largest capacity.

    Bisection on whole numbers, all parents at once: a pass costs a few sums over the children, no sort is needed, and
    no intermediate value exceeds the sum of the capacities. ``free`` is the target less Σ lower; sharing that out
    evenly on top of 0 is always possible, which gives the lower end.
    """
    counts = np.diff(offsets)
    low = free // np.maximum(counts, 1)
    high = _segment_maxima(capacities, offsets) + 1
    low = np.minimum(low, high - 1)
    while (high - low > 1).any():
        middle = low + (high - low) // 2
        given = np.repeat(middle, counts)
        np.minimum(given, capacities, out=given)
        np.maximum(given, lower, out=given)
        enough = segment_sums(given, offsets) <= targets
        low = np.where(enough, middle, low)
        high = np.where(enough, high, middle)
    return low


def _segment_maxima(values: Int64, offsets: Int64) -> Int64:
    maxima = np.zeros(len(offsets) - 1, dtype=np.int64)
    filled = np.diff(offsets) > 0
    if filled.any():
        maxima[filled] = np.maximum.reduceat(values, offsets[:-1][filled])
    return maxima


def _pieces(offsets: Int64, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole parents with about ``size`` children each; a single larger parent is a range of its own."""
    first, parents = 0, len(offsets) - 1
    while first < parents:
        last = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        last = min(max(last, first + 1), parents)
        yield first, last
        first = last


def _bits(seed: int, stream: tuple[int, ...], counters: Int64) -> UInt64:
    from streamcurate.kernels import random_bits  # compiled on first use

    bits: UInt64 = random_bits(seed, stream, counters)
    return bits
