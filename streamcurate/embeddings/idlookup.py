"""Rows by their ids: a list of ids, held in memory, looked up among the ids of a store, which are streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowlist import RowList
from streamcurate.errors import DataError, MemoryLimitError
from streamcurate.storage import StoredArray
from streamcurate.streaming.budget import format_bytes
from streamcurate.streaming.progress import ProgressListener, Silent

# An id read from the store is a NumPy string, a Python string and an Arrow string for a moment; measured at 150 bytes
# for ids of 24 letters.
_STORED_ID_BYTES = 256
_LARGEST_PIECE = 1 << 20
_SMALLEST_PIECE = 1 << 14
# Of each id listed, beside its text: its place in the list of distinct ids, and in the table that finds it.
_LISTED_ID_BYTES = 64


def rows_of_ids(
    listed: RowList,
    stored: StoredArray,
    memory: int,
    *,
    repeats: bool = False,
    listener: ProgressListener | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Numbers of all rows whose id is in a list, ascending, a piece at a time.

    Ids are compared as text: an integer id is its decimal digits. Where several rows of the store share an id, they
    are all meant.

    Parameters
    ----------
    listed : RowList
        Of kind "ids"; held in memory.
    stored : StoredArray of strings or integers, shape (rows,)
        Read once, in pieces.
    memory : int
        Bytes to use.
    repeats : bool
        Whether an id may be listed more than once.
    listener : ProgressListener, optional

    Raises
    ------
    MemoryLimitError
        The list does not fit.
    DataError
        An id is listed twice, or is no row's.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = _distinct(listed, memory, repeats)
    found = np.zeros(len(wanted), dtype=bool)
    # The table that finds ids is built anew for each piece: pieces as long as the list keep that in proportion.
    fitting = max(memory // 4 // _STORED_ID_BYTES, _SMALLEST_PIECE)
    step = min(max(len(wanted), _SMALLEST_PIECE), fitting, _LARGEST_PIECE)
    told = listener or Silent()
    told.started("ids", stored.rows)
    for start in range(0, stored.rows, step):
        ids = stored.read(start, min(start + step, stored.rows))
        if ids.dtype.kind in "iu":
            texts = pc.cast(pa.array(ids), pa.large_string())
        else:
            texts = pa.array(ids.astype(object), pa.large_string())
        if listed.header is not None and pc.any(pc.equal(texts, listed.header)).as_py():
            raise DataError(
                f'{listed.name}: its first line, "{listed.header}", is an id, and should name the column; put a line '
                '"id" before it, or call the file .txt'
            )
        places = pc.index_in(texts, value_set=wanted)
        rows = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
        if len(rows):
            found[places.drop_null().to_numpy()] = True
            yield rows + start
        told.advanced(len(ids), texts.nbytes)
    told.finished()
    if not found.all():
        missing = np.flatnonzero(~found)
        others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        are = "are" if others else "is"
        column = ""
        if listed.header is not None:
            column = f"; there is no column 'row' or 'id', so that the only one, {listed.header!r}, is read as ids"
        raise DataError(
            f'{listed.name}: id "{wanted[int(missing[0])]}"{others} {are} not among the ids of {stored.path}; '
            f"take what is not in the store out of the list, or give row numbers (.npy){column}"
        )


def _distinct(listed: RowList, memory: int, repeats: bool) -> Any:
    """The ids of a list in the order in which they come first, as text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces, count, size = [], 0, 0
    for piece in listed.pieces():
        text = piece if pa.types.is_large_string(piece.type) else pc.cast(piece, pa.large_string())
        pieces.append(text)
        count, size = count + len(text), size + text.nbytes
        # As listed, as distinct ones, and in the table.
        if (needed := 3 * size + _LISTED_ID_BYTES * count) > memory:
            raise MemoryLimitError(
                f"{listed.name}: its first {count:,} ids need {format_bytes(needed)} of memory to be looked up, "
                f"and the memory limit leaves {format_bytes(memory)} for it; raise it (--memory-limit), or give "
                "row numbers (.npy), of which any number will do"
            )
    whole = pa.chunked_array(pieces, pa.large_string())
    del pieces
    distinct = pc.unique(whole)
    if len(distinct) < count and not repeats:
        twice = _first_repeated(whole)
        raise DataError(f'{listed.name}: names id "{twice}" more than once; list each id once')
    return distinct


def _first_repeated(ids: Any) -> str:
    seen: set[str] = set()
    for chunk in ids.chunks:
        for name in chunk.to_pylist():
            if name in seen:
                return str(name)
            seen.add(name)
    raise AssertionError("no id comes twice")
