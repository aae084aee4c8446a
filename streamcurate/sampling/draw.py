"""From quotas to rows: what each leaf's quota draws out of its members.

A leaf of s rows and quota q gives each row ⌊q/s⌋ times and q mod s of them once more: the closest to the centroid,
the furthest, or a random choice. Rows of an earlier draw keep the copies they have; the others are levelled up first.

Members are read in ranges of bounded size, and only those that matter: a closest or furthest draw reads its own rows.
What grows is the result, one pair (row, copies) for each distinct row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import ConfigError
from streamcurate.sampling.hierarchy import RowArray, segment_sums
from streamcurate.sampling.quotas import row_keys, smallest_in_segments
from streamcurate.streaming.progress import ProgressListener, Silent

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

# Members handled together: about 20 MB of working arrays.
_RANGE = 1 << 18

STRATEGIES = ("random", "closest", "furthest")


@dataclass(frozen=True)
class Included:
    """Rows of an earlier draw.

    Attributes
    ----------
    rows : ndarray of int64, shape (u,)
        Distinct, ascending.
    copies : ndarray of int64, shape (u,)
        1 or more.
    leaves : ndarray of int64, shape (u,)
        The cluster of level 1 each lies in.
    """

    rows: Int64
    copies: Int64
    leaves: Int64

    @property
    def size(self) -> int:
        """Rows with their copies."""
        return int(self.copies.sum())

    def lower(self, clusters: int) -> Int64:
        """Copies drawn before from each of ``clusters`` leaves."""
        return _sums_by_leaf(self.leaves, self.copies, clusters)

    def above(self, clusters: int, multiplier: int) -> Int64:
        """Copies above ``multiplier`` kept in each leaf: they add to what the leaf can give."""
        return _sums_by_leaf(self.leaves, np.maximum(self.copies - multiplier, 0), clusters)

    def part(self, marks: NDArray[np.bool_]) -> Included:
        """The marked rows."""
        return Included(self.rows[marks], self.copies[marks], self.leaves[marks])

    def copies_of(self, rows: Int64) -> Int64:
        """Copies of given rows, 0 for rows that were not drawn."""
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[place] == rows, self.copies[place], 0)


NOTHING = Included(*(np.empty(0, dtype=np.int64) for _ in range(3)))


def check_strategy(strategy: str) -> None:
    """Raise ConfigError for a strategy that does not exist."""
    if strategy not in STRATEGIES:
        raise ConfigError(f"strategy: {strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")


def draw_rows(
    members: RowArray,
    offsets: Int64,
    quotas: Int64,
    *,
    strategy: str = "random",
    seed: int = 0,
    included: Included = NOTHING,
    range_rows: int = _RANGE,
    listener: ProgressListener | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw every leaf's quota from its members.

    Parameters
    ----------
    members : RowArray of int64
        Row numbers ordered by (leaf, distance, row).
    offsets : ndarray of int64, shape (k + 1,)
    quotas : ndarray of int64, shape (k,)
        0 for empty leaves; at least the included copies of each leaf.
    strategy : {"random", "closest", "furthest"}
    seed : int
        Orders the rows of a leaf under ``random``.
    included : Included
        Rows drawn before, kept with their copies.
    range_rows : int
        Members handled together.
    listener : ProgressListener, optional

    Returns
    -------
    rows, copies : ndarray of int64, shape (u,)
        Distinct rows, ascending, and how often each is drawn; the copies add up to the quotas.
    """
    check_strategy(strategy)
    base, extra = leaf_levels(np.diff(offsets), quotas, included)
    # Rows in the draw before any remainder: the included ones, and all rows of leaves with a level above 0.
    rows = [included.rows]
    copies = [np.maximum(included.copies, base[included.leaves])]
    once_more: list[Int64] = []
    remainders = _Remainders(extra, range_rows)
    told = listener or Silent()
    for leaves, positions, unfinished in _ranges(offsets, base, extra, strategy, included, range_rows, told):
        found = _read(members, positions)
        before = included.copies_of(found) if len(included.rows) else np.zeros(len(found), dtype=np.int64)
        level = base[leaves]
        new = (level > 0) & (before == 0)
        rows.append(found[new])
        copies.append(level[new])
        candidate = (before <= level) & (extra[leaves] > 0)
        found = found[candidate]
        if strategy == "random":
            keys = row_keys(seed, found)
        else:
            keys = positions[candidate].astype(np.uint64)
            if strategy == "furthest":
                keys = ~keys
        once_more += remainders.choose(leaves[candidate], found, keys, unfinished)
        told.advanced(len(positions), 8 * len(positions))
    told.finished()
    return _merge(rows, copies, once_more)


class _Remainders:
    """Chooses the rows drawn once more, range by range; a leaf that goes on in the next range stays open."""

    def __init__(self, extra: Int64, slack: int) -> None:
        self._extra = extra
        self._slack = slack
        self._open: int | None = None
        self._candidates = _Smallest(0, slack)

    def choose(self, leaves: Int64, rows: Int64, keys: UInt64, unfinished: int | None) -> list[Int64]:
        """Take the candidates of one range; give the rows chosen in the leaves that end in it."""
        chosen = []
        start, stop = 0, len(leaves)
        if self._open is not None:
            start = int(np.searchsorted(leaves, self._open, side="right"))
            self._candidates.add(rows[:start], keys[:start])
            if unfinished != self._open:
                chosen.append(self._candidates.rows())
                self._open = None
        if unfinished is not None and self._open is None:
            stop = int(np.searchsorted(leaves, unfinished, side="left"))
            self._open = unfinished
            self._candidates = _Smallest(int(self._extra[unfinished]), self._slack)
            self._candidates.add(rows[stop:], keys[stop:])
        leaves, rows, keys = leaves[start:stop], rows[start:stop], keys[start:stop]
        if len(leaves):
            ranks = np.cumsum(np.diff(leaves, prepend=leaves[:1]) != 0)
            first_of = np.flatnonzero(np.diff(ranks, prepend=-1))
            chosen.append(rows[smallest_in_segments(keys, ranks, self._extra[leaves[first_of]])])
        return chosen


class _Smallest:
    """The rows of the ``wanted`` smallest keys of a stream. Holds half as many again, so that the work stays linear."""

    def __init__(self, wanted: int, slack: int) -> None:
        self._wanted = wanted
        self._most = wanted + wanted // 2 + slack
        self._pieces: list[tuple[Int64, UInt64]] = []
        self._count = 0
        self._limit: np.uint64 | None = None

    def add(self, rows: Int64, keys: UInt64) -> None:
        if self._limit is not None:
            # Of equal keys the first wins: what comes later must be smaller.
            better = keys < self._limit
            rows, keys = rows[better], keys[better]
        self._pieces.append((rows, keys))
        self._count += len(rows)
        if self._count > self._most:
            self._shrink()

    def rows(self) -> Int64:
        self._shrink()
        return self._pieces[0][0]

    def _shrink(self) -> None:
        rows = np.concatenate([piece for piece, _ in self._pieces])
        keys = np.concatenate([piece for _, piece in self._pieces])
        self._pieces.clear()
        if len(rows) > self._wanted:
            self._limit = np.partition(keys, max(self._wanted - 1, 0))[max(self._wanted - 1, 0)]
            keep = keys < self._limit
            keep[np.flatnonzero(keys == self._limit)[: self._wanted - int(np.count_nonzero(keep))]] = True
            rows, keys = rows[keep], keys[keep]
        self._pieces.append((rows, keys))
        self._count = len(rows)


def leaf_levels(sizes: Int64, quotas: Int64, included: Included) -> tuple[Int64, Int64]:
    """Of every leaf: the largest c with Σ over its rows of max(c, copies before) ≤ quota, and what is left then."""
    level = quotas // np.maximum(sizes, 1)
    if len(included.rows):
        # Only leaves with included rows differ; ⌊q/s⌋ is their upper end. Rows not drawn before count c each.
        order = np.argsort(included.leaves, kind="stable")
        leaves, starts = np.unique(included.leaves[order], return_index=True)
        before = included.copies[order]
        bounds = np.append(starts, len(before))
        counts = np.diff(bounds)
        fresh = sizes[leaves] - counts
        low, high = np.zeros(len(leaves), dtype=np.int64), level[leaves] + 1
        while (high - low > 1).any():
            middle = low + (high - low) // 2
            given = fresh * middle + segment_sums(np.maximum(before, np.repeat(middle, counts)), bounds)
            enough = given <= quotas[leaves]
            low, high = np.where(enough, middle, low), np.where(enough, high, middle)
        level[leaves] = low
        remainder = quotas - level * sizes
        above = segment_sums(np.maximum(before - np.repeat(low, counts), 0), bounds)
        remainder[leaves] -= above
        return level, remainder
    return level, quotas - level * sizes


def _ranges(
    offsets: Int64,
    base: Int64,
    extra: Int64,
    strategy: str,
    included: Included,
    range_rows: int,
    listener: ProgressListener,
) -> Iterator[tuple[Int64, Int64, int | None]]:
    """The members to look at, range by range: their leaves, their positions, and the leaf that goes on after it."""
    leaves = np.flatnonzero((base > 0) | (extra > 0))
    first, last = offsets[leaves], offsets[leaves + 1]
    if strategy != "random":
        # The remainder lies at one end; rows drawn before may lie there too and be passed over. Where the level is 0
        # both together are no more than the leaf.
        reach = extra[leaves] + np.bincount(included.leaves, minlength=len(base))[leaves]
        part = base[leaves] == 0
        if strategy == "closest":
            last = np.where(part, first + reach, last)
        else:
            first = np.where(part, last - reach, first)
    lengths = last - first
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    listener.started("draw", total)
    for start in range(0, total, range_rows):
        stop = min(start + range_rows, total)
        low, high = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, stop - 1, side="right"))
        here = slice(low, high + 1)
        from_ = np.maximum(ends[here] - lengths[here], start)
        counts = np.minimum(ends[here], stop) - from_
        shift = first[here] - (ends[here] - lengths[here])
        positions = np.arange(start, stop, dtype=np.int64) + np.repeat(shift, counts)
        unfinished = int(leaves[high]) if ends[high] > stop else None
        yield np.repeat(leaves[here], counts), positions, unfinished


def _read(members: RowArray, positions: Int64) -> Int64:
    start, stop = int(positions[0]), int(positions[-1]) + 1
    gapless = stop - start == len(positions)
    values = members.read(start, stop) if gapless else members.take(positions)
    return np.asarray(values, dtype=np.int64)


def _merge(rows: list[Int64], copies: list[Int64], once_more: list[Int64]) -> tuple[Int64, Int64]:
    """Put the pieces together, sorted by row, the copies of each row added up.

    For large draws these arrays are the memory that counts: pieces are taken out of their lists, and no more than
    about five int64 a row live at once.
    """
    last = _joined(once_more)
    last.sort()
    drawn, counts = _joined(rows), _joined(copies)
    order = np.argsort(drawn)
    drawn = drawn[order]
    counts = counts[order]
    del order
    if not len(drawn):  # the usual case: every row once
        return last, np.ones_like(last)
    place = np.searchsorted(drawn, last)
    known = drawn[np.minimum(place, len(drawn) - 1)] == last
    counts[place[known]] += 1
    return np.insert(drawn, place[~known], last[~known]), np.insert(counts, place[~known], 1)


def with_rows(rows: Int64, copies: Int64, others: Included) -> tuple[Int64, Int64]:
    """A draw and rows that are not in it, together in ascending order."""
    if not len(others.rows):
        return rows, copies
    place = np.searchsorted(rows, others.rows)
    return np.insert(rows, place, others.rows), np.insert(copies, place, others.copies)


def _joined(pieces: list[Int64]) -> Int64:
    whole = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
    pieces.clear()
    return whole


def _sums_by_leaf(leaves: Int64, values: Int64, clusters: int) -> Int64:
    sums = np.zeros(clusters, dtype=np.int64)
    np.add.at(sums, leaves, values)  # bincount's weights would be float64
    return sums
