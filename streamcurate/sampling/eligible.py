"""Draws among eligible rows alone: the members of every leaf that a list names, without clustering again.

The list is put into ascending order, labels and distances are read beside it, and the records (leaf, distance, row)
are sorted: that is what the members of a tree would be that holds the eligible rows only. Nothing of the size of the
store is held or read beyond what the list names, and a list longer than the memory is sorted through files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.subset import OrderedRows
from streamcurate.errors import InputError, StoreError
from streamcurate.sampling.draw import Included
from streamcurate.sampling.hierarchy import Hierarchy, RowArray, SampledTree
from streamcurate.sampling.scratch import scratch_folder
from streamcurate.storage import SequentialWriter, create_array
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.shuffle import SortedRecords

Int64 = NDArray[np.int64]

# Labels and distances looked up together.
_BATCH = 1 << 18
_MEMBERS_CHUNK_ROWS = 1 << 17
# As many members as this stay in memory: 8 bytes each.
_HELD_MEMBERS = 1 << 20


@dataclass(frozen=True)
class Eligible:
    """The eligible rows of a tree.

    Attributes
    ----------
    name : str
        Where they were named.
    named : int
        Rows named, those outside the tree included.
    members : RowArray of int64
        Those in the tree, ordered by (leaf, distance, row).
    hierarchy : Hierarchy
        Of the tree, with the leaves' offsets into ``members``.
    included : ndarray of bool
        Which rows of the earlier draw are eligible.
    """

    name: str
    named: int
    members: RowArray
    hierarchy: Hierarchy
    included: NDArray[np.bool_]


class HeldArray:
    """An array in memory, read as one at rest is."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.rows = len(values)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Elements ``start`` to ``stop``."""
        return self._values[start:stop]

    def take(self, rows: Int64) -> NDArray[Any]:
        """Single elements."""
        return self._values[rows]


@contextmanager
def eligible_rows(
    chosen: Any,
    tree: SampledTree,
    hierarchy: Hierarchy,
    included: Included,
    memory: int,
    scratch: str | os.PathLike[str] | None,
    listener: ProgressListener,
) -> Iterator[Eligible]:
    """Find the members of a tree that a list names; what is on scratch goes at the end.

    Parameters
    ----------
    chosen : path, array, sequence or selection
        Row numbers, a mask of all rows, or ids; rows may be named more than once, and lie outside the tree.
    tree : SampledTree
    hierarchy : Hierarchy
        Of the whole tree.
    included : Included
        An earlier draw.
    memory : int
        Bytes to use.
    scratch : path or None
        A folder for what does not fit; None takes the system's for temporary files.
    listener : ProgressListener

    Raises
    ------
    InputError
        No list of rows, an unknown row or id, or none that is in the tree.
    """
    with scratch_folder("eligible", scratch) as place:
        yield _members(chosen, tree, hierarchy, included, memory // 2, Path(place), listener)


def _members(
    chosen: Any,
    tree: SampledTree,
    hierarchy: Hierarchy,
    included: Included,
    memory: int,
    place: Path,
    listener: ProgressListener,
) -> Eligible:
    leaves = tree.levels[0]
    rows = leaves.stored_labels.rows
    sizes = np.zeros(hierarchy.clusters(1), dtype=np.int64)
    marks = np.zeros(len(included.rows), dtype=bool)
    ids = (lambda: _ids_of(tree)) if tree.source.get("ids") else None
    options: dict[str, Any] = {"name": "eligible", "repeats": True, "option": "--eligible", "listener": listener}
    sorting = SortedRecords(place / "members-sort", memory)
    with OrderedRows(chosen, rows, place / "rows-sort", memory, ids=ids, **options) as ordered:
        named = 0
        listener.started("eligible rows", ordered.named)
        for numbers in _batches(ordered.pieces()):
            labels = np.asarray(leaves.stored_labels.take(numbers), dtype=np.int64)
            distances = np.asarray(leaves.stored_distances.take(numbers), dtype=np.float32)
            count = len(numbers)
            named += count
            inside = np.flatnonzero(labels >= 0)
            labels, numbers = labels[inside], numbers[inside]
            np.add.at(sizes, labels, 1)
            sorting.add(_keys(labels, distances[inside]), numbers)
            _mark(included.rows, numbers, marks)
            listener.advanced(count, 8 * count)  # a label and a distance
    listener.finished()
    offsets = np.append(0, np.cumsum(sizes))
    if not offsets[-1]:
        raise InputError(
            f"{ordered.name}: none of its {named:,} rows is in {tree.path}: they all lie outside the subset it was "
            "built on; name rows of the subset"
        )
    held = _gathered(sorting, int(offsets[-1]), place)
    sorting.close()
    return Eligible(ordered.name, named, held, Hierarchy(offsets, hierarchy.uppers), marks)


def _ids_of(tree: SampledTree) -> Any:
    store = tree.embeddings()
    if store is None or store.ids is None:
        place = tree.source.get("path") or "the store"
        raise StoreError(f"{place}: is gone, and its ids with it; put it back, or name eligible rows by number (.npy)")
    return store.ids


def _keys(labels: Int64, distances: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Sort keys by (leaf, distance): the bits of floats that are not negative are ordered as the floats are."""
    bits = np.abs(distances).view(np.uint32).astype(np.uint64)  # abs: −0.0 is 0.0
    return (labels.astype(np.uint64) << np.uint64(32)) | bits


def _mark(rows: Int64, found: Int64, marks: NDArray[np.bool_]) -> None:
    """Mark those of ``rows`` that were found; both ascending."""
    if not len(rows) or not len(found):
        return
    here = slice(*np.searchsorted(rows, [found[0], found[-1] + 1]).tolist())
    place = np.minimum(np.searchsorted(found, rows[here]), len(found) - 1)
    marks[here] |= found[place] == rows[here]


def _batches(pieces: Iterator[Int64]) -> Iterator[Int64]:
    for piece in pieces:
        for start in range(0, len(piece), _BATCH):
            yield piece[start : start + _BATCH]


def _gathered(sorting: SortedRecords, count: int, place: Path) -> RowArray:
    blocks = (np.ascontiguousarray(records["row"]) for records in sorting.blocks())
    if count <= _HELD_MEMBERS:
        return HeldArray(np.concatenate(list(blocks)))
    array = create_array(place / "members", (count,), np.int64, _MEMBERS_CHUNK_ROWS, durable=False)
    with SequentialWriter(array) as writer:
        for rows in blocks:
            writer.append(rows)
    return array
