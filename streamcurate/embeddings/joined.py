"""Several stores of embeddings as one: the rows of the first, then those of the second, and so on."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.store import Embeddings, plain_ids
from streamcurate.errors import InputError


def join_embeddings(parts: Sequence[Embeddings]) -> Embeddings:
    """Embeddings of several stores, one after the other; each store stays as and where it is.

    Parameters
    ----------
    parts : sequence of Embeddings
        Of the same dims; ids of one kind in all of them, or in none.

    Returns
    -------
    Embeddings
        float32 where one part is float32. An id that occurs in two parts stays in both: rows are told apart by their
        numbers.

    Raises
    ------
    InputError
        Parts of different dims, or with different kinds of ids.
    """
    check_joinable(parts)
    source = JoinedRows(parts)
    noted = {
        "sources": [source for part in parts for source in part.attributes.get("sources") or []],
        "rows_dropped": sum(part.attributes.get("rows_dropped") or 0 for part in parts),
    }
    joined = Embeddings(source, attributes=noted)
    if parts[0].ids is not None:
        joined.ids = JoinedIds(parts)  # type: ignore[assignment]  # what is asked of stored ids, it can
    return joined


def check_joinable(parts: Sequence[Embeddings]) -> None:
    """Refuse parts that cannot be one.

    Raises
    ------
    InputError
        Naming the two that differ, and in what.
    """
    first = parts[0]
    for other in parts[1:]:
        if other.dims != first.dims:
            raise InputError(
                f"{other.name}: has {other.dims} dims, {first.name} has {first.dims}; give embeddings of the same model"
            )
        if ids_kind(other) != ids_kind(first):
            raise InputError(
                f"{other.name}: {_told(other)}, {first.name} {_told(first)}; ids must be of one kind in both or in "
                "none: ingest it with such ids (--ids)"
            )


def ids_kind(embeddings: Embeddings) -> str:
    """``strings``, ``integers``, or ``none``."""
    if embeddings.ids is None:
        return "none"
    return "integers" if embeddings.ids.dtype.kind in "iu" else "strings"


def _told(embeddings: Embeddings) -> str:
    kind = ids_kind(embeddings)
    return "has no ids" if kind == "none" else f"has ids that are {kind}"


class _Joined:
    """Rows of several parts, numbered through."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(rows, dtype=np.int64)])
        self.rows = int(self._starts[-1])

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Part, and range of its own rows, of every part that rows ``start`` to ``stop`` touch."""
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"rows {start} to {stop} of {self.rows}")
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._starts[part + 1]))
            base = int(self._starts[part])
            yield part, start - base, end - base
            start, part = end, part + 1

    def _own(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, slice, NDArray[np.int64]]]:
        """Part, place within ``rows`` (ascending), and own row numbers, of every part that they touch."""
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self.rows:
            raise IndexError(f"rows {rows[0]} to {rows[-1]} of {self.rows}")
        edges = np.searchsorted(rows, self._starts)
        for part in np.flatnonzero(np.diff(edges)).tolist():
            place = slice(int(edges[part]), int(edges[part + 1]))
            yield part, place, rows[place] - self._starts[part]


class JoinedRows(_Joined):
    """The rows of several embeddings as one row source.

    Parameters
    ----------
    parts : sequence of Embeddings
        Of the same dims.
    """

    def __init__(self, parts: Sequence[Embeddings]) -> None:
        super().__init__([part.rows for part in parts])
        self.parts = tuple(parts)
        self.name = " + ".join(part.name for part in parts)
        self.dims = parts[0].dims
        self.dtype: np.dtype[Any] = np.result_type(*(part.dtype for part in parts))
        self.chunk_rows = parts[0].chunk_rows
        self.read_overhead_bytes = sum(part.read_overhead_bytes for part in parts)
        self.travels = all(part.travels for part in parts)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, across the seams."""
        pieces = [self.parts[part].read(low, high) for part, low, high in self._ranges(start, stop)]
        if len(pieces) == 1:
            return pieces[0].astype(self.dtype, copy=False)
        out = np.empty((stop - start, self.dims), dtype=self.dtype)
        filled = 0
        for piece in pieces:
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order."""
        out = np.empty((len(rows), self.dims), dtype=self.dtype)
        for part, place, own in self._own(rows):
            out[place] = self.parts[part].take(own)
        return out


class JoinedIds(_Joined):
    """The ids of several embeddings, read as those of one store are.

    Parameters
    ----------
    parts : sequence of Embeddings
        All with ids of one kind.
    """

    def __init__(self, parts: Sequence[Embeddings]) -> None:
        super().__init__([part.rows for part in parts])
        self._arrays = [part.ids for part in parts if part.ids is not None]
        self.path = " + ".join(array.path for array in self._arrays)
        self.shape = (self.rows,)
        integers = all(array.dtype.kind in "iu" for array in self._arrays)
        self.dtype: np.dtype[Any] = np.dtype(np.int64 if integers else object)
        self.chunk_rows = self._arrays[0].chunk_rows
        self.row_bytes = self.dtype.itemsize
        self.read_overhead_bytes = sum(array.read_overhead_bytes for array in self._arrays)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, key: Any) -> Any:
        """A single id, or those of a range of step 1."""
        if isinstance(key, slice):
            start, stop, step = key.indices(self.rows)
            if step == 1:
                return self.read(start, max(start, stop))
            raise TypeError(f"{self.path}: [{key!r}] is no range of step 1; use take()")
        row = operator.index(key)
        if not -self.rows <= row < self.rows:
            raise IndexError(f"{self.path}: row {row} of {self.rows}")
        return self.read(row % self.rows, row % self.rows + 1)[0]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Ids of rows ``start`` to ``stop``: int64, or objects of type ``str``."""
        pieces = [plain_ids(self._arrays[part].read(low, high)) for part, low, high in self._ranges(start, stop)]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=self.dtype)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Ids of single rows, given in ascending order."""
        out = np.empty(len(rows), dtype=self.dtype)
        for part, place, own in self._own(rows):
            out[place] = plain_ids(self._arrays[part].take(own))
        return out

    def stamps(self) -> list[tuple[int, int]]:
        """Size and time of every stored chunk of every part."""
        return [stamp for array in self._arrays for stamp in array.stamps()]

    def stored_digest(self, chunk: int) -> str:
        """Checksum of one of those chunks."""
        for array in self._arrays:
            count = -(-array.rows // array.chunk_rows)
            if chunk < count:
                return array.stored_digest(chunk)
            chunk -= count
        raise IndexError(f"{self.path}: no such chunk")
