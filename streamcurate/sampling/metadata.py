"""Columns of the files that rows came from, beside drawn rows: Parquet files as long as the store, or with keys.

By position, row i of the store is row i of all files in their order. By key, a column holds what the store has as ids;
the values found are put into the order of the draw through files, a bucket of lines at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.sources import expand
from streamcurate.errors import DataError, InputError
from streamcurate.objects import base_name, is_url, match

Int64 = NDArray[np.int64]

# Values decoded together: captions and addresses, a kilobyte each, are 4 MB.
_BATCH = 1 << 12
# Keys decoded together.
_KEYS = 1 << 16


@dataclass(frozen=True)
class Metadata:
    """Columns of Parquet files.

    Attributes
    ----------
    files : tuple of str
        In their order.
    starts : ndarray of int64, shape (files + 1,)
        Rows before each.
    schema : pyarrow.Schema
        Of the columns chosen, in the order chosen.
    key : str or None
        The column that holds the ids; None where rows are told by their position.
    """

    files: tuple[str, ...]
    starts: Int64
    schema: Any
    key: str | None

    @property
    def rows(self) -> int:
        """Of all files."""
        return int(self.starts[-1])

    @property
    def name(self) -> str:
        """How messages call the files."""
        return self.files[0] if len(self.files) == 1 else f"{self.files[0]} and {len(self.files) - 1:,} more"

    @property
    def columns(self) -> list[str]:
        """Names of the columns chosen."""
        return list(self.schema.names)

    def check_rows(self, rows: int) -> None:
        """Refuse files that are not as long as the store, where position tells the rows.

        Raises
        ------
        InputError
            Naming both numbers.
        """
        if self.key is None and self.rows != rows:
            raise InputError(
                f"{self.name}: the metadata has {self.rows:,} rows, and the tree is of {rows:,}; name all files that "
                "were ingested, or name the column that holds the ids (--metadata-key)"
            )

    def files_of(self, rows: Int64) -> Int64:
        """The number of the file that each row lies in."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def shards(self) -> list[str]:
        """The name of each file, without folder and suffix."""
        return [os.path.splitext(base_name(file))[0] for file in self.files]


class Columns(Protocol):
    """Metadata in the order of a draw, read from front to back."""

    def take(self, start: int, stop: int) -> tuple[Any, Int64]:
        """A pyarrow table of the columns beside distinct rows ``start`` to ``stop`` of the draw, and the number of the
        file that each line comes from."""


def open_metadata(files: Any, *, columns: Sequence[str] | str | None = None, key: str | None = None) -> Metadata:
    """Open Parquet files for their columns; only their footers are read.

    Parameters
    ----------
    files : path, glob pattern, or a list of these
        Files of a pattern come in natural order.
    columns : sequence of str, or names with commas between, optional
        All columns by default.
    key : str, optional
        The column that holds the ids.

    Raises
    ------
    InputError
        Nothing matches, no such column, or columns of different types.
    """
    import pyarrow as pa

    from streamcurate.embeddings.sources.parquet import open_file

    wanted = [name.strip() for name in columns.split(",")] if isinstance(columns, str) else columns
    if wanted is not None and (not wanted or len(set(wanted)) != len(wanted) or "" in wanted):
        raise InputError(f"columns {', '.join(wanted)!r}: name each column once, with commas between")
    paths = [path for each in (files if isinstance(files, (list, tuple)) else [files]) for path in _paths(each)]
    counts, schema = [], None
    for path in paths:
        with open_file(path) as file:
            found, count = file.schema_arrow, int(file.metadata.num_rows)
        counts.append(count)
        for name in [*(found.names if wanted is None else wanted), *([key] if key else [])]:
            if found.names.count(name) != 1:
                listed = ", ".join(map(repr, found.names))
                how = "no column" if name not in found.names else "several columns"
                raise InputError(f"{path}: {how} {name!r}; it has {listed}")
        chosen = pa.schema([found.field(name) for name in (found.names if wanted is None else wanted)])
        if schema is None:
            schema = chosen
        elif [(field.name, field.type) for field in chosen] != [(field.name, field.type) for field in schema]:
            raise InputError(
                f"{path}: {_difference(schema, chosen)} in {paths[0]}; leave the column out with --columns"
            )
    assert schema is not None  # there is at least one path
    # One file may promise what the next does not: no nulls, or notes of its own on the fields.
    schema = pa.schema([pa.field(field.name, field.type) for field in schema])
    return Metadata(tuple(paths), np.append(0, np.cumsum(counts, dtype=np.int64)), schema, key)


def _paths(pattern: str | os.PathLike[str]) -> list[str]:
    place = os.fspath(pattern)
    if not is_url(place):
        return expand(place)
    if not (found := match(place)):
        raise InputError(f"{place}: no object matches this pattern")
    return found


def _difference(first: Any, other: Any) -> str:
    for name in [*first.names, *other.names]:
        before, now = (schema.field(name).type if name in schema.names else "absent" for schema in (first, other))
        if before != now:
            return f"column {name!r} is {now}, and {before}"
    return f"its columns are in another order ({', '.join(other.names)}) than"


class AlignedColumns:
    """Metadata by position.

    Parameters
    ----------
    metadata : Metadata
    rows : ndarray of int64
        Distinct rows drawn, ascending.
    """

    def __init__(self, metadata: Metadata, rows: Int64) -> None:
        self._reader, self._rows = RowReader(metadata), rows
        self._metadata = metadata

    def take(self, start: int, stop: int) -> tuple[Any, Int64]:
        """See :class:`Columns`."""
        rows = self._rows[start:stop]
        return self._reader.take(rows), self._metadata.files_of(rows)

    def close(self) -> None:
        """Close the file that is open."""
        self._reader.close()


class RowReader:
    """Reads chosen rows of the files from front to back; row groups with none of them are not touched."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._number = -1
        self._file: Any = None
        self._group_starts: Int64 = np.zeros(1, dtype=np.int64)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._first = self._end = 0

    def take(self, rows: Int64) -> Any:
        """A table of the rows, ascending and behind those of earlier calls."""
        import pyarrow as pa

        pieces, done = [], 0
        try:
            while done < len(rows):
                self._advance(int(rows[done]))
                stop = done + int(np.searchsorted(rows[done:], self._end))
                pieces.append(self._batch.take(pa.array(rows[done:stop] - self._first)).columns)
                done = stop
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            path = self._metadata.files[self._number]
            raise DataError(f"{path}: damaged ({error}); copy or write it again") from error
        schema = self._metadata.schema
        batches = [pa.RecordBatch.from_arrays(columns, schema=schema) for columns in pieces]
        return pa.Table.from_batches(batches, schema=schema)

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()

    def _advance(self, row: int) -> None:
        if self._batch is not None and self._first <= row < self._end:
            return
        starts = self._metadata.starts
        number = int(np.searchsorted(starts, row, side="right")) - 1
        if number != self._number:
            self._open(number)
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        if group != self._group:
            self._group, self._end = group, int(self._group_starts[group])
            self._batches = self._file.iter_batches(_BATCH, row_groups=[group], columns=self._metadata.columns)
        while self._end <= row:
            # In the order asked for, whatever the file's.
            batch = next(self._batches, None)
            if batch is None:
                raise DataError(f"{self._metadata.files[number]}: has fewer rows than it announces; write it again")
            self._batch = batch.select(self._metadata.columns)
            self._first, self._end = self._end, self._end + len(batch)

    def _open(self, number: int) -> None:
        from streamcurate.embeddings.sources.parquet import open_file

        self.close()
        self._number, self._group = number, -1
        self._file = open_file(self._metadata.files[number])
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._group_starts = self._metadata.starts[number] + np.append(0, np.cumsum(counts, dtype=np.int64))


def key_pieces(metadata: Metadata, least: int) -> Iterator[tuple[int, Any]]:
    """The keys of all files as text: the row of the first, and a chunked array of ``least`` keys or some more."""
    import pyarrow as pa

    first, count, pieces = 0, 0, list[Any]()
    for keys in _keys(metadata):
        pieces.append(keys)
        count += len(keys)
        if count >= least:
            yield first, pa.chunked_array(pieces, pa.large_string())
            first, count, pieces = first + count, 0, []
    if pieces:
        yield first, pa.chunked_array(pieces, pa.large_string())


def _keys(metadata: Metadata) -> Iterator[Any]:
    import pyarrow as pa

    from streamcurate.embeddings.sources.arrow import ids_dtype
    from streamcurate.embeddings.sources.parquet import open_file

    for path in metadata.files:
        with open_file(path) as file:
            type_ = file.schema_arrow.field(metadata.key).type
            ids_dtype(type_, f"{path}: column {metadata.key!r}")  # strings or integers, or an error
            try:
                for batch in file.iter_batches(_KEYS, columns=[metadata.key]):
                    yield _as_text(batch.column(0))
            except (pa.ArrowInvalid, pa.ArrowIOError) as error:
                raise DataError(f"{path}: damaged ({error}); copy or write it again") from error


def _as_text(keys: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_decode()
    return pc.cast(keys, pa.large_string())
