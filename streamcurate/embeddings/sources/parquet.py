"""Parquet files with a column of lists of floats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamcurate.embeddings.checks import check_floating, check_matrix
from streamcurate.embeddings.sources import arrow
from streamcurate.embeddings.sources.base import Block, Stamp, block_rows
from streamcurate.errors import DataError, InputError

# Without a buffer size pyarrow loads a row group's whole column at once.
_BUFFER_BYTES = 1 << 20


def open_file(path: str) -> pq.ParquetFile:
    """Open a Parquet file so that its columns are streamed.

    Raises
    ------
    InputError
        Missing, or not Parquet.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder, not a Parquet file; name the files in it, e.g. '{path}/*.parquet'")
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise InputError(f"{path}: not a Parquet file, or damaged ({error}); copy or write it again") from error


class ParquetReader:
    """Rows of one column of lists, with the ids of another column."""

    bad_values = "NaN, Inf or null"
    # Pages of the column are decompressed and decoded beside the block; measured below this for 1 MiB pages.
    read_overhead_bytes = 16 << 20

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        with open_file(path) as file:
            schema = file.schema_arrow
            self._column = _choose(path, schema, column)
            type_ = schema.field(self._column).type
            self._where = f"{path}: column {self._column!r}"
            self.dtype = check_floating(arrow.value_dtype(type_), self._where)
            self._ids = ids
            self.ids_dtype: np.dtype[Any] | None = None
            if ids is not None:
                self.ids_dtype = arrow.ids_dtype(_field(path, schema, ids).type, f"{path}: column {ids!r}")
            self.rows: int = file.metadata.num_rows
            self._group_rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            self.dims: int = type_.list_size if pa.types.is_fixed_size_list(type_) else self._first_length(file)
        check_matrix((self.rows, self.dims), self._where)

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on; row groups before it are not read."""
        group, row = 0, 0
        while group < len(self._group_rows) and row + self._group_rows[group] <= start:
            row += self._group_rows[group]
            group += 1
        columns = [self._column] if self._ids is None else [self._column, self._ids]
        # Arrow holds several batches' worth while it decodes one: quarter blocks are as fast and take far less memory.
        size = max(block_rows(self.dims, self.dtype) // 4, 1)
        with open_file(self.name) as file:
            for batch in _batches(
                file, self.name, batch_size=size, row_groups=range(group, len(self._group_rows)), columns=columns
            ):
                if row + len(batch) > start:
                    batch = batch.slice(max(start - row, 0))
                    first = max(start, row)
                    row = first
                    values = arrow.matrix(batch.column(self._column), self.dims, self._where, first)
                    named = None
                    if self._ids is not None:
                        named = arrow.ids(batch.column(self._ids), f"{self.name}: column {self._ids!r}", first)
                    yield values, named
                row += len(batch)

    def _first_length(self, file: pq.ParquetFile) -> int:
        """Length of the first list that is not null."""
        for batch in _batches(file, self.name, batch_size=64, columns=[self._column]):
            lists = batch.column(0)
            for row in range(len(lists)):
                if lists[row].is_valid:
                    return len(lists[row])
        if self.rows:
            raise DataError(f"{self._where}: every row is null; choose another column")
        return 0


def _batches(file: pq.ParquetFile, path: str, **options: Any) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(**options)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise DataError(f"{path}: damaged ({error}); copy or write it again") from error


def _field(path: str, schema: pa.Schema, column: str) -> pa.Field:
    if column not in schema.names:
        raise InputError(f"{path}: no column {column!r}; it has {', '.join(map(repr, schema.names))}")
    return schema.field(column)


def _choose(path: str, schema: pa.Schema, column: str | None) -> str:
    if column is not None:
        type_ = _field(path, schema, column).type
        if not arrow.is_list_of_floats(type_):
            raise InputError(
                f"{path}: column {column!r} holds {type_}, not lists of float16, float32 or float64; "
                f"{_candidates(schema)}"
            )
        return column
    candidates = [field.name for field in schema if arrow.is_list_of_floats(field.type)]
    if len(candidates) == 1:
        return str(candidates[0])
    if candidates:
        raise InputError(f"{path}: several columns hold lists of floats; {_candidates(schema)}")
    columns = ", ".join(f"{field.name!r} ({field.type})" for field in schema)
    raise InputError(f"{path}: no column holds lists of float16, float32 or float64; it has {columns}")


def _candidates(schema: pa.Schema) -> str:
    names = [field.name for field in schema if arrow.is_list_of_floats(field.type)]
    return f"choose with --column one of {', '.join(map(repr, names))}" if names else "no column of this file does"


def open_reader(path: str, column: str | None, ids: str | None) -> ParquetReader:
    """Open one file."""
    return ParquetReader(path, column, ids)
