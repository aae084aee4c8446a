"""Which row of each component is kept, how large the components are, and all of it in the order of the rows again.

Rows and components go through files twice, dealt out by ranges that fit into memory: by component, to find the row to
keep and the size, and back by row. Nothing is sorted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.neighbors.pairs.components import range_rows
from streamcurate.neighbors.pairs.edges import EdgeFile
from streamcurate.neighbors.pairs.scatter import RangeRecords
from streamcurate.storage import StoredArray
from streamcurate.streaming.progress import ProgressListener, Silent

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Keep = Literal["closest", "first", "random"]
RULES: tuple[Keep, ...] = ("closest", "first", "random")

# First word of every random stream of this room ("nbrs" in ASCII): no other stage draws the same bits.
STREAM = 0x6E627273
_KEPT_ROW = 0
# Components that the report names.
LARGEST = 100
# Of each row of a range, by component: the smallest key, its row, the size, and what finding them takes; by row: the
# component, size and mark of each.
_ROW_BYTES = 40
_PENDING_SHARE = 1 / 8
_BLOCK = 1 << 17


@dataclass(frozen=True)
class Component:
    """Rows that are duplicates of each other, directly or through others.

    Attributes
    ----------
    component : int
        Its lowest row, after which it is called.
    size : int
        Rows in it.
    kept : int
        The row that is kept.
    """

    component: int
    size: int
    kept: int


@dataclass(frozen=True)
class Marked:
    """Rows of a range of the store that have duplicates, ascending.

    Attributes
    ----------
    first, last : int
        The range.
    rows, components, sizes : ndarray of int64, shape (m,)
    kept : ndarray of bool, shape (m,)
    """

    first: int
    last: int
    rows: Int64
    components: Int64
    sizes: Int64
    kept: NDArray[np.bool_]


@dataclass
class Counts:
    """What going through all rows gave.

    Attributes
    ----------
    sizes : dict of int to int
        How many components there are of each size.
    largest : list of Component
        The largest ones, largest first; of equal ones the lowest first.
    """

    sizes: dict[int, int] = field(default_factory=dict)
    largest: list[Component] = field(default_factory=list)


RowKeys = Callable[[Int64], UInt64]


def keys_of(rule: Keep, seed: int, distances: StoredArray | None) -> RowKeys:
    """Of each row, given in ascending order, the number whose smallest decides which row of a component is kept.

    Parameters
    ----------
    rule : "closest", "first" or "random"
    seed : int
        For random.
    distances : StoredArray of float32, shape (rows,), or None
        For closest: those to the row's centroid. Finite and not negative for every row asked for.
    """
    if rule == "first":
        return lambda rows: rows.astype(np.uint64)
    if rule == "random":
        return lambda rows: kernels.random_bits(seed, (STREAM, _KEPT_ROW), rows)
    assert distances is not None
    stored = distances

    def bits(rows: Int64) -> UInt64:
        # Those of floats that are not negative are ordered as the floats are; abs: -0.0 is 0.0.
        return np.abs(np.asarray(stored.take(rows), dtype=np.float32)).view(np.uint32).astype(np.uint64)

    return bits


def mark_rows(
    records: EdgeFile,
    rows: int,
    keys: RowKeys,
    scratch: Path,
    memory: int,
    counts: Counts,
    listener: ProgressListener | None = None,
    *,
    span: int | None = None,
) -> Iterator[Marked]:
    """Choose the row to keep of each component.

    Parameters
    ----------
    records : EdgeFile
        Pairs (row, component) in ascending order of rows.
    rows : int
        Of the store.
    keys : callable
        The row with the smallest key is kept, of equal ones the lowest.
    scratch : Path
        A folder for what lies on disk meanwhile; made here, and removed.
    memory : int
        Bytes to use.
    counts : Counts
        Filled when the first range is given.
    listener : ProgressListener, optional
    span : int, optional
        Rows of a range; by default as many as fit into ``memory``.

    Yields
    ------
    Marked
        Ranges that together are all rows, in order.
    """
    span = span or range_rows(rows, memory, _ROW_BYTES)
    told = listener or Silent()
    pending = int(memory * _PENDING_SHARE)
    by_component = RangeRecords(scratch / "by-component", span, 3, pending)
    by_row = RangeRecords(scratch / "by-row", span, 3, pending)
    try:
        told.started("rows to keep", records.count)
        for block in records.blocks(_BLOCK):
            dealt = np.empty((len(block), 3), dtype=np.int64)
            dealt[:, 0], dealt[:, 1], dealt[:, 2] = block[:, 1], block[:, 0], keys(block[:, 0]).view(np.int64)
            by_component.add(block[:, 1], dealt)
            told.advanced(len(block), 0)
        told.finished()
        best: list[tuple[int, int, int]] = []
        for number in range(-(-rows // span)):
            if by_component.holds(number):
                _choose(by_component, by_row, number, span, counts, best)
                by_component.remove(number)
        counts.sizes = dict(sorted(counts.sizes.items()))
        counts.largest = [Component(-component, size, kept) for size, component, kept in sorted(best, reverse=True)]
        for number in range(-(-rows // span)):
            yield from _in_order(by_row, number, span, rows)
            by_row.remove(number)
    finally:
        by_component.close()
        by_row.close()


def _choose(
    dealt: RangeRecords, out: RangeRecords, number: int, span: int, counts: Counts, best: list[tuple[int, int, int]]
) -> None:
    first = number * span
    most = np.iinfo(np.uint64).max
    smallest = np.full(span, most, dtype=np.uint64)
    sizes = np.zeros(span, dtype=np.int64)
    for block in dealt.blocks(number):
        here = block[:, 0] - first
        np.minimum.at(smallest, here, np.ascontiguousarray(block[:, 2]).view(np.uint64))
        np.add.at(sizes, here, 1)
    kept = np.full(span, np.iinfo(np.int64).max, dtype=np.int64)
    for block in dealt.blocks(number):
        here = block[:, 0] - first
        hit = np.ascontiguousarray(block[:, 2]).view(np.uint64) == smallest[here]
        np.minimum.at(kept, here[hit], block[hit, 1])
    for block in dealt.blocks(number):
        here = block[:, 0] - first
        marked = np.empty_like(block)
        marked[:, 0], marked[:, 1] = block[:, 1], block[:, 0]
        # The mark in the lowest bit.
        marked[:, 2] = 2 * sizes[here] + (kept[here] == block[:, 1])
        out.add(block[:, 1], marked)
    for start in range(0, span, _BLOCK):
        part = slice(start, start + _BLOCK)
        own = np.flatnonzero(sizes[part]) + start
        found, times = np.unique(sizes[own], return_counts=True)
        for size, count in zip(found.tolist(), times.tolist(), strict=True):
            counts.sizes[size] = counts.sizes.get(size, 0) + count
        top = own[np.argsort(-sizes[own], kind="stable")[:LARGEST]]
        entries = [(int(sizes[at]), -(first + int(at)), int(kept[at])) for at in top]
        best[:] = heapq.nlargest(LARGEST, [*best, *entries])


def _in_order(dealt: RangeRecords, number: int, span: int, rows: int) -> Iterator[Marked]:
    """One range in pieces."""
    first = number * span
    count = min(span, rows - first)
    components = np.full(count if dealt.holds(number) else 0, -1, dtype=np.int64)
    packed = np.zeros(len(components), dtype=np.int64)
    for block in dealt.blocks(number):
        here = block[:, 0] - first
        components[here], packed[here] = block[:, 1], block[:, 2]
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        own = np.flatnonzero(components[start:stop] >= 0) + start
        yield Marked(
            first + start, first + stop, own + first, components[own], packed[own] >> 1, (packed[own] & 1).astype(bool)
        )
