"""Connected components of rows from their edges, in bounded memory, whatever the number of rows and edges.

The rows are cut into ranges that fit into memory, and gone through twice.

*Downwards*, from the highest range to the lowest: the edges inside a range are united. Of the rows below it to which a
group of the range has edges, the lowest becomes the row it waits for; each of the others gets an edge to that one,
dealt out to its own range: so what hangs together through this range does so without it from now on.

*Upwards*: when a range is reached, every group that waits for a row below has been told that row's component; a group
that waits for none is called after its own lowest row. So the component of every row is the lowest row in it.

Every edge is read a few times in order and passed on at most once for each range below its own; only rows with an edge
are written. Neither the cut nor the order of the edges changes the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.neighbors.pairs.edges import EdgeFile, write_pairs
from streamcurate.neighbors.pairs.scatter import RangeRecords
from streamcurate.streaming.progress import ProgressListener, Silent

Int64 = NDArray[np.int64]

# Of each row of a range: what it points to, the row below it waits for, whether it has an edge.
_ROW_BYTES = 24
# Shares of the memory: a range's rows; records gathered for each of the files written at a time (three at most). What
# is left is for the blocks under way.
_RANGE_SHARE, _PENDING_SHARE = 1 / 2, 1 / 12
_BLOCK = 1 << 17


@dataclass(frozen=True)
class Components:
    """The components of all rows that have an edge.

    Attributes
    ----------
    records : EdgeFile
        Pairs (row, component) in ascending order of rows; a component is called after its lowest row.
    count : int
        How many components.
    """

    records: EdgeFile
    count: int

    def to_values(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {"records": self.records.to_values(), "count": self.count}

    @classmethod
    def from_values(cls, values: dict[str, Any], folder: Path) -> Components:
        """What :meth:`to_values` gave, the file lying in ``folder``."""
        return cls(EdgeFile.from_values(values["records"], folder), int(values["count"]))


def range_rows(rows: int, memory: int, row_bytes: int) -> int:
    """Rows of a range of which so many bytes a row are held: as few ranges as fit, all of about one size."""
    fitting = max(int(memory * _RANGE_SHARE) // row_bytes, 1)
    return -(-rows // -(-rows // fitting))


def find_components(
    edges: Sequence[EdgeFile],
    rows: int,
    out: Path,
    scratch: Path,
    memory: int,
    listener: ProgressListener | None = None,
    *,
    span: int | None = None,
) -> Components:
    """The connected components of rows.

    Parameters
    ----------
    edges : sequence of EdgeFile
        In any order; an edge may be there more than once.
    rows : int
        All row numbers are below.
    out : Path
        The file to write the records to.
    scratch : Path
        A folder for what lies on disk meanwhile; made here, and removed.
    memory : int
        Bytes to use.
    listener : ProgressListener, optional
    span : int, optional
        Rows of a range; by default as many as fit into ``memory``.

    Raises
    ------
    StoreError
        A file of edges is gone or damaged.
    """
    span = span or range_rows(rows, memory, _ROW_BYTES)
    told = listener or Silent()
    work = _Work(edges, rows, span, scratch, int(memory * _PENDING_SHARE))
    try:
        told.started("components", 2 * rows)
        work.deal()
        for number in reversed(range(work.ranges)):
            told.advanced(work.unite(number), 0)
        records = write_pairs(out, work.resolved(told))
        told.finished()
    finally:
        work.close()
    return Components(records, work.components)


class _Work:
    """The files between the two ways, and what is done with one range."""

    def __init__(self, edges: Sequence[EdgeFile], rows: int, span: int, scratch: Path, pending: int) -> None:
        self._files, self._rows, self._span = edges, rows, span
        self.ranges = -(-rows // span)
        # Edges by their higher row; (row, lowest row of its group inside the range); (row, group that waits for it);
        # (group, component it was told).
        self._edges = RangeRecords(scratch / "edges", span, 2, pending)
        self._groups = RangeRecords(scratch / "groups", span, 2, pending)
        self._waiting = RangeRecords(scratch / "waiting", span, 2, pending)
        self._told = RangeRecords(scratch / "told", span, 2, pending)
        self.components = 0

    def deal(self) -> None:
        """Deal the edges out to the ranges of their higher rows; with a single range they lie well where they are."""
        if self.ranges == 1:
            return
        for block in self._checked():
            self._edges.add(block[:, 0], block)

    def _checked(self) -> Iterator[Int64]:
        """All edges. That a file is damaged shows at its end: no row number may reach compiled code unchecked."""
        for file in self._files:
            for block in file.blocks():
                if block[:, 1].min() < 0 or block[:, 0].max() >= self._rows or (block[:, 0] <= block[:, 1]).any():
                    raise file.damaged()
                yield block

    def _edges_of(self, number: int) -> Iterator[Int64]:
        return self._edges.blocks(number) if self.ranges > 1 else self._checked()

    def unite(self, number: int) -> int:
        """Downwards: unite a range's rows, and pass on what hangs together through them. Gives its rows."""
        first = number * self._span
        count = min(self._span, self._rows - first)
        if not (self.ranges == 1 or self._edges.holds(number) or self._waiting.holds(number)):
            return count
        parents = np.arange(count, dtype=np.int64)
        touched = np.zeros(count, dtype=bool)
        for block in self._edges_of(number):
            kernels.unite_edges(parents, block, first)
            touched[block[:, 0] - first] = True
            touched[block[block[:, 1] >= first, 1] - first] = True
        for block in self._waiting.blocks(number):
            touched[block[:, 0] - first] = True
        kernels.settle_groups(parents)
        if number:
            self._pass_on(number, first, parents)
        self._edges.remove(number)
        for start in range(0, count, _BLOCK):
            own = np.flatnonzero(touched[start : start + _BLOCK]) + start
            if len(own):
                self._groups.add(own + first, np.stack([own, parents[own]], axis=1) + first)
        return count

    def _pass_on(self, number: int, first: int, parents: Int64) -> None:
        none = np.iinfo(np.int64).max
        lowest = np.full(len(parents), none, dtype=np.int64)
        for block in self._edges_of(number):
            below = block[block[:, 1] < first]
            np.minimum.at(lowest, parents[below[:, 0] - first], below[:, 1])
        for block in self._edges_of(number):
            below = block[block[:, 1] < first]
            passed = np.stack([below[:, 1], lowest[parents[below[:, 0] - first]]], axis=1)
            passed = _distinct(passed[passed[:, 0] != passed[:, 1]])
            self._edges.add(passed[:, 0], passed)
        for start in range(0, len(lowest), _BLOCK):
            groups = np.flatnonzero(lowest[start : start + _BLOCK] != none) + start
            waited = lowest[groups]
            if len(groups):
                self._waiting.add(waited, np.stack([waited, groups + first], axis=1))

    def resolved(self, told: ProgressListener) -> Iterator[Int64]:
        """Upwards: (row, component) in ascending order of rows."""
        for number in range(self.ranges):
            first = number * self._span
            count = min(self._span, self._rows - first)
            if self._groups.holds(number):
                yield from self._resolve(number, first, count)
            told.advanced(count, 0)

    def _resolve(self, number: int, first: int, count: int) -> Iterator[Int64]:
        component = np.arange(first, first + count, dtype=np.int64)
        for block in self._told.blocks(number):
            component[block[:, 0] - first] = block[:, 1]
        for block in self._groups.blocks(number):
            # A group's lowest row comes before its others, and keeps what it has.
            block[:, 1] = component[block[:, 1] - first]
            component[block[:, 0] - first] = block[:, 1]
            self.components += int(np.count_nonzero(block[:, 0] == block[:, 1]))
            yield block
        for block in self._waiting.blocks(number):
            self._told.add(block[:, 1], np.stack([block[:, 1], component[block[:, 0] - first]], axis=1))
        for records in (self._told, self._groups, self._waiting):
            records.remove(number)

    def close(self) -> None:
        """Remove the files."""
        for records in (self._edges, self._groups, self._waiting, self._told):
            records.close()


def _distinct(pairs: Int64) -> Int64:
    """Each pair once."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    fresh = np.ones(len(pairs), dtype=bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[fresh]
