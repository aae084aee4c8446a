"""Sets of row numbers larger than memory: ascending streams merged, and kept as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.embeddings.rowlist import open_list
from streamcurate.embeddings.subset import OrderedRows
from streamcurate.errors import StoreError
from streamcurate.files import placed_file
from streamcurate.storage import StoredArray
from streamcurate.streaming.progress import ProgressListener

Int64 = NDArray[np.int64]
Pieces = Iterator[Int64]

OPERATIONS = ("union", "intersection", "difference")
# Of one list while it is merged: a piece as it was read, and what of it is merged, a few times.
LIST_BYTES = 16 << 20
_PIECE = 1 << 18
_STORED = np.dtype("<i8")


# -- merging -----------------------------------------------------------------------------------------------------------


class _Cursor:
    """A stream of ascending pieces, taken up to a bound at a time."""

    def __init__(self, pieces: Iterable[Int64]) -> None:
        self._pieces = iter(pieces)
        self.held = np.empty(0, dtype=np.int64)
        self.rows = 0

    def fill(self) -> bool:
        """Whether anything is left; then some of it is held."""
        while not len(self.held):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self.held = piece
            self.rows += len(piece)
        return True

    def near(self) -> int:
        """A row held, few enough rows on."""
        return int(self.held[min(len(self.held), _PIECE) - 1])

    def take(self, bound: int) -> Int64:
        """What is held up to ``bound``, which is included."""
        count = int(np.searchsorted(self.held, bound, side="right"))
        taken, self.held = self.held[:count], self.held[count:]
        return taken


class MergedRows:
    """Ascending streams of distinct rows as one.

    Parameters
    ----------
    how : {"union", "intersection", "difference"}
        The difference is the first stream without the rows of all others.
    streams : sequence of iterables of int64 arrays
        Each ascending, within the arrays and from one to the next, and without repeats.

    Attributes
    ----------
    counts : list of int
        Rows of each stream, once it has been gone through.
    """

    def __init__(self, how: str, streams: Sequence[Iterable[Int64]]) -> None:
        if how not in OPERATIONS:
            raise ValueError(f"{how!r} is none of {OPERATIONS}")
        self._how = how
        self._cursors = [_Cursor(stream) for stream in streams]

    @property
    def counts(self) -> list[int]:
        return [cursor.rows for cursor in self._cursors]

    def pieces(self) -> Pieces:
        """The rows, ascending, each once; they may be gone through once."""
        while live := [cursor for cursor in self._cursors if cursor.fill()]:
            bound = min(cursor.near() for cursor in live)
            merged = _merge(self._how, [cursor.take(bound) for cursor in self._cursors])
            if len(merged):
                yield merged


def _merge(how: str, parts: Sequence[Int64]) -> Int64:
    if how == "difference":
        first, others = parts[0], np.concatenate(parts[1:]) if len(parts) > 1 else parts[0][:0]
        if not len(first) or not len(others):
            return first
        others.sort()
        places = np.minimum(np.searchsorted(others, first), len(others) - 1)
        kept: Int64 = first[others[places] != first]
        return kept
    if how == "intersection":
        if not all(len(part) for part in parts):
            return parts[0][:0]
        rows, counts = np.unique(np.concatenate(parts), return_counts=True)
        common: Int64 = rows[counts == len(parts)]
        return common
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else np.unique(np.concatenate(filled))


# -- lists -------------------------------------------------------------------------------------------------------------


@contextmanager
def ordered(
    chosen: Any,
    rows: int,
    folder: Path,
    memory: int,
    *,
    ids: StoredArray | Callable[[], StoredArray] | None = None,
    name: str = "list",
    repeats: bool = True,
    option: str = "the list",
    listener: ProgressListener | None = None,
    known: bool = True,
) -> Iterator[Iterator[Int64]]:
    """The rows that a list names, ascending and each once; a list of none is an empty set.

    Parameters are those of :class:`streamcurate.embeddings.subset.OrderedRows`, and so are the errors, but for that of
    an empty list.
    """
    listed = open_list(chosen, ids is not None if known else None, name, option)
    if not any(piece.any() if listed.kind == "mask" else len(piece) for piece in listed.pieces()):
        if listed.kind == "mask" and listed.length != rows:
            OrderedRows(chosen, rows, folder, memory, name=name)  # which refuses its length
        yield iter(())
        return
    options: dict[str, Any] = {"ids": ids, "name": name, "repeats": repeats, "option": option, "listener": listener}
    options["known"] = known
    with OrderedRows(chosen, rows, folder, memory, **options) as found:
        yield found.pieces()


# -- files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberFile:
    """Whole numbers in an .npy file, read a piece at a time: row numbers, ascending, or what belongs to them.

    Attributes
    ----------
    path : str
    count : int
    checksum : str
        XXH3-128 of the numbers.
    """

    path: str
    count: int
    checksum: str

    def __len__(self) -> int:
        return self.count

    def to_values(self) -> dict[str, Any]:
        """What JSON can hold; the folder is left out, so that it may be moved."""
        return {"file": os.path.basename(self.path), "count": self.count, "checksum": self.checksum}

    @classmethod
    def from_values(cls, values: dict[str, Any], folder: str | os.PathLike[str]) -> NumberFile:
        """What :meth:`to_values` gave, the file lying in ``folder``."""
        return cls(os.path.join(folder, values["file"]), int(values["count"]), str(values["checksum"]))

    def pieces(self, start: int = 0, stop: int | None = None, step: int | None = None) -> Pieces:
        """Numbers ``start`` to ``stop`` in their order, ``step`` at a time.

        Raises
        ------
        StoreError
            The file is gone or cut short.
        """
        end, step = self.count if stop is None else stop, step or _PIECE
        try:
            offset = self._offset()
            for first in range(start, end, step):
                wanted = min(step, end - first)
                found = np.fromfile(self.path, _STORED, wanted, offset=offset + first * _STORED.itemsize)
                if len(found) != wanted:
                    raise self._damaged()
                yield found.astype(np.int64, copy=False)
        except FileNotFoundError:
            raise self._damaged() from None

    def between(self, low: int, high: int) -> Pieces:
        """Of ascending numbers those from ``low`` to below ``high``."""
        return self.pieces(self.position(low), self.position(high))

    def take(self, places: Int64) -> Int64:
        """Single numbers."""
        return np.array(np.load(self.path, mmap_mode="r")[places], dtype=np.int64)

    def position(self, number: int) -> int:
        """Of ascending numbers, how many are below ``number``."""
        low, high = 0, self.count
        while high - low > _PIECE:
            middle = (low + high) // 2
            if int(next(self.pieces(middle, middle + 1))[0]) < number:
                low = middle + 1
            else:
                high = middle
        for piece in self.pieces(low, high):
            low += int(np.searchsorted(piece, number))
        return low

    def intact(self) -> bool:
        """Whether the file is there with the numbers it was written with; reads it through."""
        digest = xxhash.xxh3_128()
        try:
            if os.path.getsize(self.path) != self._offset() + self.count * _STORED.itemsize:
                return False
            for piece in self.pieces():
                digest.update(_bytes(piece))
        except (StoreError, OSError):
            return False
        return digest.hexdigest() == self.checksum

    def _offset(self) -> int:
        return len(_header(self.count, "<i8"))

    def _damaged(self) -> StoreError:
        return StoreError(f"{self.path}: is gone or was cut short; give the same command again to make it anew")


def write_numbers(path: str | os.PathLike[str], pieces: Iterable[Int64]) -> NumberFile:
    """Write numbers as they come to an .npy file, complete or not at all.

    Parameters
    ----------
    path : path
        Of this machine; its folder exists. An existing file is replaced.
    pieces : iterable of int64 arrays
    """
    digest, count = xxhash.xxh3_128(), 0
    with placed_file(path) as file:
        file.write(_header(0, "<i8"))
        for piece in pieces:
            data = _bytes(piece)
            digest.update(data)
            file.write(data)
            count += len(piece)
        file.seek(0)
        file.write(_header(count, "<i8"))
    return NumberFile(os.fspath(path), count, digest.hexdigest())


def write_mask(path: str | os.PathLike[str], rows: int, pieces: Iterable[Int64]) -> int:
    """Write ascending rows as a mask of ``rows`` booleans, an .npy file, complete or not at all; returns how many."""
    count = 0
    with placed_file(path) as file:
        for data, marked in _mask_data(rows, pieces):
            file.write(data)
            count += marked
    return count


def _mask_data(rows: int, pieces: Iterable[Int64]) -> Iterator[tuple[bytes, int]]:
    """The bytes of such a file in pieces, each with the number of rows marked in it."""
    yield _header(rows, "|b1"), 0
    numbers, streams = np.empty(0, dtype=np.int64), iter(pieces)
    for start in range(0, rows, _PIECE):
        stop = min(start + _PIECE, rows)
        mask = np.zeros(stop - start, dtype=bool)
        while True:
            count = int(np.searchsorted(numbers, stop))
            mask[numbers[:count] - start] = True
            numbers = numbers[count:]
            if len(numbers):
                break
            piece = next(streams, None)
            if piece is None:
                break
            numbers = piece
        yield mask.tobytes(), int(np.count_nonzero(mask))


def write_counted(path: str | os.PathLike[str], count: int, pieces: Iterable[Int64]) -> None:
    """Write numbers, of which it is known how many there are, to an .npy file: at a URL none can be changed later."""
    with placed_file(path) as file:
        file.write(_header(count, "<i8"))
        for piece in pieces:
            file.write(_bytes(piece))


def _header(count: int, descr: str) -> bytes:
    import io

    header = io.BytesIO()
    # NumPy leaves room for the longest first axis, so that the length does not depend on it.
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": (count,)})
    return header.getvalue()


def _bytes(piece: Int64) -> memoryview:
    return np.ascontiguousarray(piece, dtype=_STORED).view(np.uint8).data
