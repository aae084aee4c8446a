"""Which rows of the embeddings a run or a draw is about, in ascending order, whatever the list that names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.agreement import Agreement
from streamcurate.embeddings.idlookup import rows_of_ids
from streamcurate.embeddings.rowlist import RowList, open_list
from streamcurate.errors import DataError, InputError
from streamcurate.runs.digest import Digest
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.shuffle import SortedRecords

_PIECE = 1 << 20
_MASK_CHUNK_ROWS = 1 << 22


@dataclass(frozen=True)
class Subset:
    """The rows chosen.

    Attributes
    ----------
    path : str
        Where they were named.
    mask : StoredArray of uint8, shape (rows of the store,)
    rows : int
        How many are chosen.
    digest : str
        Of their numbers, ascending.
    """

    path: str
    mask: StoredArray
    rows: int
    digest: str


class OrderedRows:
    """The rows that a list names, in ascending order; a context manager.

    Parameters
    ----------
    chosen : path, array, sequence or selection
        Row numbers, a mask or ids; see :mod:`streamcurate.embeddings.rowlist`.
    rows : int
        Rows of the store.
    folder : Path
        For sorted runs, where the list is longer than the memory holds; made then, and removed at the end.
    memory : int
        Bytes to use.
    ids : StoredArray, or a function that gives it, optional
        The store's ids, read where the list is one of ids, or names ids beside row numbers.
    name : str
        How messages call a list in memory.
    repeats : bool
        Whether a row may be named more than once; it counts once.
    option : str
        How messages call the option that asks for the list.
    listener : ProgressListener, optional
        Told of the store's ids as they are read.
    known : bool
        Whether it is said of which store the rows are.

    Attributes
    ----------
    name : str
    named : int
        Entries of the list that name a row.

    Raises
    ------
    InputError
        No such file, or no list of rows.
    DataError
        A row number out of range, an unknown id, a row named twice, rows of another store; no row at all.
    """

    def __init__(
        self,
        chosen: Any,
        rows: int,
        folder: Path,
        memory: int,
        *,
        ids: StoredArray | Callable[[], StoredArray] | None = None,
        name: str = "subset",
        repeats: bool = False,
        option: str = "--subset",
        listener: ProgressListener | None = None,
        known: bool = True,
    ) -> None:
        listed = open_list(chosen, ids is not None if known else None, name, option)
        self.name, self.named = listed.name, 0
        self._repeats = repeats
        # A mask is in order as it is, and read twice rather than sorted.
        self._mask = listed if listed.kind == "mask" else None
        # Ids are looked up while the rows found are sorted.
        share = memory // 2 if listed.kind == "ids" else memory
        self._sorting = SortedRecords(folder, share)
        try:
            if self._mask is not None:
                _check_length(self._mask, rows)
                self.named = sum(int(np.count_nonzero(piece)) for piece in self._mask.pieces())
            elif listed.kind == "ids":
                assert ids is not None  # a list is taken for one of ids only where there are some
                stored = ids() if callable(ids) else ids
                for found in rows_of_ids(listed, stored, share, repeats=repeats, listener=listener):
                    self._add(found, rows)
            elif listed.tables is not None:
                agreement = Agreement(listed, ids)
                for piece, beside in listed.tables():
                    self._add(piece, rows)
                    agreement.check(piece.astype(np.int64), beside)
            else:
                for piece in listed.pieces():
                    self._add(piece, rows)
            if not self.named:
                raise DataError(f"{self.name}: names no row; leave {option} out to take all rows")
        except BaseException:
            self._sorting.close()
            raise

    def __enter__(self) -> OrderedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sorting.close()

    def pieces(self) -> Iterator[NDArray[np.int64]]:
        """The rows, ascending, each once; they may be gone through once."""
        if self._mask is not None:
            start = 0
            for piece in self._mask.pieces():
                if len(numbers := np.flatnonzero(piece)):
                    yield numbers + start
                start += len(piece)
            return
        previous = -1
        for records in self._sorting.blocks():
            numbers = np.ascontiguousarray(records["row"])
            if not len(numbers):
                continue
            fresh = np.diff(numbers, prepend=previous) != 0
            if not fresh.all():
                if not self._repeats:
                    twice = int(numbers[np.argmin(fresh)])
                    raise DataError(f"{self.name}: names row {twice} more than once; list each row once")
                numbers = numbers[fresh]
            previous = int(records["row"][-1])
            for start in range(0, len(numbers), _PIECE):
                yield numbers[start : start + _PIECE]

    def _add(self, piece: NDArray[Any], rows: int) -> None:
        if not len(piece):
            return
        low, high = int(piece.min()), int(piece.max())
        if low < 0 or high >= rows:
            wrong = low if low < 0 else high
            raise DataError(
                f"{self.name}: row {wrong} is not among the {rows:,} rows (0 to {rows - 1}); correct the list"
            )
        numbers = piece.astype(np.int64)
        self._sorting.add(numbers.astype(np.uint64), numbers)
        self.named += len(numbers)


def read_subset(
    chosen: Any,
    rows: int,
    folder: Path,
    memory: int,
    ids: StoredArray | None = None,
    listener: ProgressListener | None = None,
) -> Subset:
    """Turn a list of rows into a mask on disk.

    Parameters
    ----------
    chosen : path, array, sequence or selection
        Row numbers (any order, each once), booleans, one for each row, or ids.
    rows : int
        Rows of the store.
    folder : Path
        Where the mask is made.
    memory : int
        Bytes to use.
    ids : StoredArray, optional
        The store's ids, among which ids are looked up.
    listener : ProgressListener, optional

    Raises
    ------
    InputError
        No such file, or no list of rows.
    DataError
        A row number out of range, an unknown id, a row named twice; no row at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with OrderedRows(chosen, rows, folder / "subset-sort", memory, ids=ids, listener=listener) as ordered:
        mask = create_array(folder / "subset-mask", (rows,), np.uint8, _MASK_CHUNK_ROWS, durable=False, overwrite=True)
        digest = Digest().begin((ordered.named,), np.int64)
        position = 0
        with SequentialWriter(mask) as writer:
            for numbers in ordered.pieces():
                digest.update(numbers)
                position = _fill(writer, position, numbers)
            while position < rows:
                count = min(_MASK_CHUNK_ROWS, rows - position)
                writer.append(np.zeros(count, dtype=np.uint8))
                position += count
    return Subset(ordered.name, mask, ordered.named, digest.hexdigest())


def _check_length(listed: RowList, rows: int) -> None:
    if listed.length != rows:
        raise InputError(
            f"{listed.name}: a mask of {listed.length:,} entries for {rows:,} rows; give one entry for each row"
        )


def _fill(writer: SequentialWriter, position: int, numbers: NDArray[np.int64]) -> int:
    """Append the mask from ``position`` to the last of ``numbers``, in bounded pieces."""
    while len(numbers):
        stop = min(int(numbers[-1]) + 1, position + _MASK_CHUNK_ROWS)
        here = numbers[: int(np.searchsorted(numbers, stop))]
        part = np.zeros(stop - position, dtype=np.uint8)
        part[here - position] = 1
        writer.append(part)
        numbers = numbers[len(here) :]
        position = stop
    return position
