"""Columns of the files that rows came from, beside drawn rows: Parquet files as long as the store, or with keys.

By position, row i of the store is row i of all files in their order. By key, a column holds what the store has as ids;
the values found are put into the order of the draw through files, a bucket of lines at a time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.sources import expand
from streamcurate.errors import DataError, InputError
from streamcurate.objects import base_name, is_url

Int64 = NDArray[np.int64]

# Values decoded together: captions and addresses, a kilobyte each, are 4 MB.
_BATCH = 1 << 12
# Most of the values held together where they are images.
_HELD_BYTES = 32 << 20
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
    row_bytes : int
        Of the columns chosen, a row of the widest row group, as the footers tell.
    """

    files: tuple[str, ...]
    starts: Int64
    schema: Any
    key: str | None
    row_bytes: int

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

    def rows_at_once(self, most: int) -> int:
        """How many rows to hold together, ``most`` where they are narrow."""
        return max(1, min(most, _HELD_BYTES // max(self.row_bytes, 1)))

    def check_rows(self, rows: int, dropped: int = 0) -> None:
        """Refuse files that are not as long as the store, where position tells the rows.

        Parameters
        ----------
        rows : int
            Of the store.
        dropped : int
            Bad rows left out when it was made.

        Raises
        ------
        InputError
            Naming both numbers.
        """
        if self.key is None and self.rows != rows:
            fix = "name all files that were ingested, or name"
            if dropped:
                fix = f"{dropped:,} bad rows were dropped when it was ingested, so position does not tell; name"
            raise InputError(
                f"{self.name}: the metadata has {self.rows:,} rows, and the tree is of {rows:,}; {fix} the column that "
                "holds the ids (--metadata-key)"
            )

    def check_order(self, sources: Sequence[str]) -> None:
        """Refuse files in another order than that in which they were ingested, where position tells the rows.

        Parameters
        ----------
        sources : sequence of str
            Absolute paths, or URLs, of what was ingested, in its order; others than these files may be among them.

        Raises
        ------
        InputError
            Naming the first two that are the wrong way round.
        """
        if self.key is not None:
            return
        # Of what was ingested twice, into two stores of an extended tree, the place is not clear.
        count = Counter(sources)
        place = {source: number for number, source in enumerate(sources) if count[source] == 1}
        known = [file for file in self.files if _absolute(file) in place]
        for first, second in pairwise(known):
            if place[_absolute(first)] > place[_absolute(second)]:
                raise InputError(
                    f"{second}: its rows come before those of {first} in the store, and the metadata has them the "
                    "other way round; name the files in the order in which they were ingested, or name the column "
                    "that holds the ids (--metadata-key)"
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
    given = files if isinstance(files, (list, tuple)) else [files]
    paths = [path for each in given for path in expand(os.fspath(each))]
    counts, schema, row_bytes = [], None, 0
    for path in paths:
        with open_file(path) as file:
            found, count = file.schema_arrow, int(file.metadata.num_rows)
            row_bytes = max(row_bytes, _row_bytes(file, found.names if wanted is None else wanted))
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
    return Metadata(tuple(paths), np.append(0, np.cumsum(counts, dtype=np.int64)), schema, key, row_bytes)


def _row_bytes(file: Any, columns: Sequence[str]) -> int:
    """Bytes of a row of some columns, decompressed, in the row group where they are widest."""
    prefixes = tuple(f"{name}." for name in columns)
    numbers = [number for number, leaf in enumerate(file.schema) if f"{leaf.path}.".startswith(prefixes)]
    widest = 0
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        size = sum(group.column(number).total_uncompressed_size for number in numbers)
        widest = max(widest, -(-size // max(group.num_rows, 1)))
    return widest


def _absolute(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


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
            self._batches = self._file.iter_batches(
                self._metadata.rows_at_once(_BATCH), row_groups=[group], columns=self._metadata.columns
            )
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
                    yield _as_text(batch.column(metadata.key))
            except (pa.ArrowInvalid, pa.ArrowIOError) as error:
                raise DataError(f"{path}: damaged ({error}); copy or write it again") from error


def _as_text(keys: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_decode()
    return pc.cast(keys, pa.large_string())
