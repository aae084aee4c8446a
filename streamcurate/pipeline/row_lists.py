"""Lists of rows united, intersected, subtracted or written in another form, whatever theirs and however long."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.embeddings.rowlist import SUFFIXES, open_list
from streamcurate.embeddings.rowsets import (
    LIST_BYTES,
    OPERATIONS,
    MergedRows,
    NumberFile,
    ordered,
    write_numbers,
)
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import ConfigError, InputError
from streamcurate.neighbors.row_files import check_destination, write_row_mask, write_rows
from streamcurate.pipeline.rows import SourceRows, open_rows
from streamcurate.sampling.scratch import scratch_folder
from streamcurate.sampling.words import counted
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent
from streamcurate.tree import Tree

Int64 = NDArray[np.int64]

# Rows that can be numbered at all.
_MOST_ROWS = 2**63 - 1
_PIECE = 1 << 18


@dataclass(frozen=True, eq=False, repr=False)
class CombinedRows:
    """What became of several lists of rows.

    Attributes
    ----------
    how : {"union", "intersection", "difference"}
    lists : tuple of (str, int)
        Name and number of distinct rows of each list.
    count : int
        Rows of the result.
    out : str or None
        Where the result was written.
    rows : ndarray of int64, shape (count,), or None
        The result, ascending; None where it was written.
    """

    how: str
    lists: tuple[tuple[str, int], ...]
    count: int
    out: str | None
    rows: Int64 | None

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"CombinedRows({counted(self.count, 'row')}, the {self.how} of {counted(len(self.lists), 'list')})"

    @property
    def unique_rows(self) -> Int64:
        """The result, as everything that takes a list of rows asks for it.

        Raises
        ------
        InputError
            It was written to a file.
        """
        if self.rows is None:
            raise InputError(f"{self.out}: the rows were written there, and are not held; give that file instead")
        return self.rows


def combine_rows(
    how: str,
    lists: Sequence[Any],
    out: str | os.PathLike[str] | None = None,
    of: Any = None,
    *,
    mask: bool = False,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> CombinedRows:
    """Unite, intersect or subtract lists of rows.

    Parameters
    ----------
    how : {"union", "intersection", "difference"}
        The difference is the first list without the rows of all others.
    lists : sequence of path, array, sequence, object with ``unique_rows``, Tree or Embeddings
        Row numbers, masks or ids, as ``subset`` of ``cluster`` takes them; a row named more than once counts once. A
        store stands for all its rows, a run for those it was built on. One list alone is written in another form.
    out : path or URL, optional
        Where to write the result, rows ascending: .npy (row numbers, or with ``mask`` a boolean for each row of the
        store), .parquet or .csv (columns ``row`` and, where the store has ids, ``id``), .txt (ids where there are some,
        else row numbers). An existing file is replaced.
    of : Tree, Embeddings, path or array, optional
        The rows that the lists are about: a run directory or a store; by default the one among the lists. Needed for
        lists of ids; with it, row numbers beyond its rows are refused, and ids beside row numbers must be theirs.
    mask : bool
        Write a mask; its length is that of ``of``, else that of the masks given.
    memory_limit : int or str, optional
        Bytes this process may use; by default half of what is available. Longer lists are sorted through files.
    scratch : path, optional
        Folder for these; by default the system's for temporary files.
    progress : ProgressListener, optional

    Returns
    -------
    CombinedRows
        With the rows, where they are not written.

    Raises
    ------
    InputError
        A list cannot be read, is about other rows, or the result cannot be written there.
    """
    if how not in OPERATIONS:
        raise ConfigError(f"how: {how!r} is not allowed; it must be {' or '.join(OPERATIONS)}")
    if isinstance(lists, (str, os.PathLike)) or not len(lists):
        raise ConfigError(f"lists: a {how} is of one list or more; give a sequence of them")
    place = None if out is None else os.fspath(out)
    if place is not None:
        check_destination(place)
    if mask and (place is None or suffix_of(place) != ".npy"):
        raise ConfigError(f"mask: a mask is written as .npy, {place or 'nothing'} is no place for it; name a .npy file")
    budget = MemoryBudget.of(memory_limit, 1)
    what = f"{counted(len(lists), 'list')} of rows"
    budget.require(LIST_BYTES * len(lists), what, "combine fewer at a time, then their results")
    given = [_whole(chosen) for chosen in lists]
    store = _store_of(of, given)
    rows = _rows_of(given, store)
    if mask and rows is None:
        raise ConfigError("mask: how many rows there are is not known; name the store or the run with --of")
    listener = progress or Silent()
    with scratch_folder("rows", scratch) as folder:
        names, counts, found = _combined(how, given, store, rows, budget, Path(folder), listener)
        held = None
        if place is None:
            budget.require(16 * found.count, f"holding {found.count:,} rows", "write them to a file (out=)")
            held = np.concatenate([np.empty(0, dtype=np.int64), *found.pieces()])
        elif mask:
            assert rows is not None  # refused above
            write_row_mask(place, found.pieces(), found.count, rows, listener)
        else:
            write_rows(place, found.pieces(), found.count, store, listener)
    return CombinedRows(how, tuple(zip(names, counts, strict=True)), found.count, place, held)


def _whole(chosen: Any) -> Any:
    """A store or a run among the lists, opened; any other list as it is."""
    if isinstance(chosen, (str, os.PathLike)):
        return chosen if suffix_of(chosen) in SUFFIXES or os.path.isfile(chosen) else open_rows(chosen)
    return open_rows(chosen) if isinstance(chosen, (Tree, Embeddings)) else chosen


def _store_of(of: Any, lists: Sequence[Any]) -> Embeddings | None:
    """The store that the lists are about: the one named, else that among them."""
    stores = [] if of is None else [open_rows(of).embeddings]
    stores += [chosen.embeddings for chosen in lists if isinstance(chosen, SourceRows)]
    for other in stores[1:]:
        if other.rows != stores[0].rows:
            raise InputError(
                f"{other.name}: has {other.rows:,} rows, {stores[0].name} has {stores[0].rows:,}; row numbers of one "
                "mean nothing in the other: combine lists of one store"
            )
    return stores[0] if stores else None


def _rows_of(lists: Sequence[Any], store: Embeddings | None) -> int | None:
    """How many rows the lists are about: those of the store, else as many as the masks have; None: not known."""
    if store is not None:
        return store.rows
    known: tuple[str, int] | None = None
    for number, chosen in enumerate(lists):
        with _hint(chosen, number, store):
            listed = open_list(chosen, None, _name(number), "the list")
        if listed.kind != "mask" or listed.length is None:
            continue
        if known is not None and listed.length != known[1]:
            raise InputError(
                f"{listed.name}: a mask of {listed.length:,} entries, and {known[0]} has {known[1]:,}; masks must be "
                "of the same store"
            )
        known = listed.name, listed.length
    return None if known is None else known[1]


def _combined(
    how: str,
    lists: Sequence[Any],
    store: Embeddings | None,
    rows: int | None,
    budget: MemoryBudget,
    folder: Path,
    listener: ProgressListener,
) -> tuple[list[str], list[int], NumberFile]:
    """Names and rows of the lists, and the result in a file."""
    names, streams = list[str](), list[Iterator[Int64]]()
    memory = max(budget.usable // len(lists) - LIST_BYTES, 1 << 20)
    ids, known = None if store is None else store.ids, store is not None
    with ExitStack() as stack:
        for number, chosen in enumerate(lists):
            place = folder / f"list-{number}"
            options: dict[str, Any] = {"ids": ids, "name": _name(number), "listener": listener, "known": known}
            if isinstance(chosen, SourceRows):
                streams.append(_all_rows(chosen))
                names.append(chosen.name)
                continue
            with _hint(chosen, number, store):
                opened = ordered(chosen, _MOST_ROWS if rows is None else rows, place, memory, **options)
                streams.append(stack.enter_context(opened))
            names.append(os.fspath(chosen) if isinstance(chosen, (str, os.PathLike)) else _name(number))
        merged = MergedRows(how, streams)
        found = write_numbers(folder / "rows.npy", _told(merged.pieces(), rows, how, listener))
    return names, merged.counts, found


def _all_rows(source: SourceRows) -> Iterator[Int64]:
    """All rows of a store; of a tree those that it was built on."""
    labels = None if source.tree is None else source.tree.levels[0].stored_labels
    for start in range(0, source.embeddings.rows, _PIECE):
        stop = min(start + _PIECE, source.embeddings.rows)
        rows = np.arange(start, stop)
        yield rows if labels is None else rows[labels.read(start, stop) >= 0]


def _told(pieces: Iterator[Int64], rows: int | None, how: str, listener: ProgressListener) -> Iterator[Int64]:
    """The pieces, while the listener is told how far they are, where the number of rows is known."""
    if rows is None:
        yield from pieces
        return
    listener.started(how, rows)
    done = 0
    for piece in pieces:
        yield piece
        listener.advanced(int(piece[-1]) + 1 - done, piece.nbytes)
        done = int(piece[-1]) + 1
    listener.finished()


def _name(number: int) -> str:
    return f"lists[{number}]"


@contextmanager
def _hint(chosen: Any, number: int, store: Embeddings | None) -> Iterator[None]:
    """What is no list of row numbers may be one of ids, whose store was not named."""
    try:
        yield
    except InputError as error:
        if store is None and _may_be_ids(chosen, number):
            raise type(error)(f"{error}; of ids, name the store or the run with --of") from error
        raise


def _may_be_ids(chosen: Any, number: int) -> bool:
    try:
        return open_list(chosen, True, _name(number), "the list").kind == "ids"
    except InputError:
        return False
