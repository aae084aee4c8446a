"""Lists of rows as files, written piece by piece in the forms in which every command takes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.embeddings.rowsets import write_counted, write_mask
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import DataError, InputError
from streamcurate.files import placed_file
from streamcurate.objects import is_url, refuse_web
from streamcurate.streaming.progress import ProgressListener, Silent

SUFFIXES = (".parquet", ".csv", ".npy", ".txt")
# Rows written together: ids are Python strings for a moment.
_BATCH = 1 << 16
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Near:
    """Some rows in ascending order, each with the example it is nearest to.

    Attributes
    ----------
    rows, examples : ndarray of int64, shape (m,)
    distances : ndarray of float32, shape (m,)
    """

    rows: Int64
    examples: Int64
    distances: NDArray[np.float32]


@dataclass(frozen=True)
class Columns:
    """Where the columns of a table come from.

    Attributes
    ----------
    source : Embeddings
        For the rows' ids.
    examples : Embeddings
        For those of the examples.
    called : str
        The column of the examples' row numbers.
    """

    source: Embeddings
    examples: Embeddings
    called: str


def check_destination(
    path: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES, what: str = "a list of rows"
) -> str:
    """Refuse a place for a file that cannot be written to, before any work is done; its suffix.

    Raises
    ------
    InputError
        Unknown suffix, no such folder, a folder in its place, or no permission.
    """
    suffix = suffix_of(path)
    if suffix not in suffixes:
        found = f"its suffix is {suffix!r}" if suffix else "it has no suffix"
        raise InputError(f"{path}: {found}; {what} is written as {', '.join(suffixes)}")
    if is_url(path):
        refuse_web(os.fspath(path), "be written to")
        return suffix
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{path}: a folder lies there; name a file")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: no permission to write into {folder}; choose another place")
    return suffix


def write_near(
    path: str | os.PathLike[str],
    pieces: Iterator[Near],
    count: int,
    columns: Columns,
    listener: ProgressListener | None = None,
) -> None:
    """Write rows with their nearest examples: .parquet and .csv (row, id, example, its id, distance), .npy (row
    numbers), .txt (ids, else row numbers).

    Parameters
    ----------
    path : path or URL
        Complete or not there; a file there is replaced.
    pieces : iterator of Near
    count : int
        Rows in all.
    columns : Columns
    listener : ProgressListener, optional

    Raises
    ------
    InputError
        It cannot be written there.
    DataError
        An id with a line break, for .txt.
    """
    watched = _watched(_batches(pieces), Path(path).name, count, listener or Silent())
    if check_destination(path) in (".parquet", ".csv"):
        _write_tables(path, (_near_table(near, columns) for near in watched))
    else:
        _write_plain(path, (near.rows for near in watched), count, columns.source)


def write_rows(
    path: str | os.PathLike[str],
    pieces: Iterator[Int64],
    count: int,
    source: Embeddings | None,
    listener: ProgressListener | None = None,
) -> None:
    """Write rows: .parquet and .csv (row, id), .npy (row numbers), .txt (ids, else row numbers); as above.

    Without a ``source`` there are no ids.
    """
    watched = _watched(_row_batches(pieces), Path(path).name, count, listener or Silent())
    if check_destination(path) in (".parquet", ".csv"):
        _write_tables(path, (_row_table(rows, source) for rows in watched))
    else:
        _write_plain(path, watched, count, source)


def write_row_mask(
    path: str | os.PathLike[str],
    pieces: Iterator[Int64],
    count: int,
    rows: int,
    listener: ProgressListener | None = None,
) -> None:
    """Write ``count`` ascending row numbers as a mask of ``rows`` booleans, .npy; as above."""
    write_mask(path, rows, _watched(pieces, Path(path).name, count, listener or Silent()))


def _batches(pieces: Iterator[Near]) -> Iterator[Near]:
    """The same rows in batches of one size, so that a file does not depend on how they came; the first is empty."""
    none = np.empty(0, dtype=np.int64)
    held = Near(none, none, np.empty(0, dtype=np.float32))
    yield held
    for near in pieces:
        held = Near(
            np.concatenate([held.rows, near.rows]),
            np.concatenate([held.examples, near.examples]),
            np.concatenate([held.distances, near.distances]),
        )
        while len(held.rows) >= _BATCH:
            yield _part(held, slice(0, _BATCH))
            held = _part(held, slice(_BATCH, None))
    yield held


def _part(near: Near, here: slice) -> Near:
    return Near(near.rows[here], near.examples[here], near.distances[here])


def _row_batches(pieces: Iterator[Int64]) -> Iterator[Int64]:
    held: Int64 = np.empty(0, dtype=np.int64)
    yield held
    for rows in pieces:
        held = np.concatenate([held, rows])
        while len(held) >= _BATCH:
            yield held[:_BATCH]
            held = held[_BATCH:]
    yield held


def _watched(pieces: Iterator[Any], name: str, count: int, listener: ProgressListener) -> Iterator[Any]:
    """The pieces, each reported once the next is asked for."""
    listener.started(f"write {name}", count)
    for piece in pieces:
        yield piece
        listener.advanced(len(piece.rows if isinstance(piece, Near) else piece), 0)
    listener.finished()


def _near_table(near: Near, columns: Columns) -> Any:
    import pyarrow as pa

    table = _row_table(near.rows, columns.source)
    table = table.append_column(columns.called, pa.array(near.examples))
    if columns.examples.ids is not None:
        table = table.append_column(f"{columns.called}_id", _id_column(columns.examples, near.examples))
    return table.append_column("distance", pa.array(near.distances))


def _row_table(rows: Int64, source: Embeddings | None) -> Any:
    import pyarrow as pa

    table = pa.table({"row": pa.array(rows)})
    return table if source is None or source.ids is None else table.append_column("id", _id_column(source, rows))


def _id_column(source: Embeddings, rows: Int64) -> Any:
    import pyarrow as pa

    ids = source.take_ids(rows)
    assert ids is not None  # asked of stores that have some
    if ids.dtype.kind in "iu":
        return pa.array(ids)
    return pa.array(ids.tolist(), type=pa.string())


def _write_tables(path: str | os.PathLike[str], tables: Iterator[Any]) -> None:
    """One table after the other, the first of which may be empty, as one file."""
    import pyarrow.csv
    import pyarrow.parquet

    first = next(tables)
    writer: Callable[..., Any] = pyarrow.parquet.ParquetWriter
    if suffix_of(path) == ".csv":
        writer = pyarrow.csv.CSVWriter
    with placed_file(path) as file, writer(file, first.schema) as opened:
        for table in tables:
            if len(table):
                opened.write_table(table)


def _write_plain(path: str | os.PathLike[str], pieces: Iterator[Int64], count: int, source: Embeddings | None) -> None:
    """Row numbers as .npy, or names as .txt."""
    if suffix_of(path) == ".npy":
        write_counted(path, count, pieces)
        return
    with placed_file(path) as file:
        for rows in pieces:
            ids = None if source is None else source.take_ids(rows)
            names = [str(name) for name in (rows if ids is None else ids).tolist()]
            for row, name in zip(rows.tolist(), names, strict=True):
                # What Python's and most other readers take for the end of a line.
                if "\n" in name or "\r" in name:
                    raise DataError(
                        f"{path}: the id of row {row} contains a line break ({name!r}), one a line cannot hold it; "
                        "write .parquet or .csv"
                    )
            file.write("".join(f"{name}\n" for name in names).encode())
