"""Parquet files with a column of lists of floats; row groups are decoded side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamcurate import objects
from streamcurate.embeddings.checks import check_floating, check_matrix
from streamcurate.embeddings.sources import arrow
from streamcurate.embeddings.sources.ahead import in_order
from streamcurate.embeddings.sources.base import BLOCK_BYTES, Block, Stamp, block_rows
from streamcurate.errors import DataError, InputError
from streamcurate.streaming.budget import available_threads

# A field of Thrift's compact protocol: the one after the last, a 32-bit integer.
_NEXT_INTEGER = 0x15
# Without a buffer size pyarrow loads a row group's whole column at once.
_BUFFER_BYTES = 1 << 20
# A request to an object store takes tens of milliseconds, however little it asks for.
_REQUEST_BYTES = 4 << 20
# Decoding takes 1 s a GB and thread, checking and writing less: more threads would hardly shorten an ingest.
_THREADS = 3
# What waits decoded; a thread's pages, levels and values, and what the allocator keeps of them, measured for pages of
# 1 MiB; what larger pages take, compressed and not; and what pyarrow takes when it first reads.
_AHEAD_BYTES = 12 << 20
_THREAD_BYTES = 14 << 20
_PAGE_BYTES = 1 << 20
_PAGE_COPIES = 3
_FIXED_BYTES = 8 << 20


def open_file(path: str, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file, or object, so that its columns are streamed; known metadata is not read again.

    Raises
    ------
    InputError
        Missing, or not Parquet.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder, not a Parquet file; name the files in it, e.g. '{path}/*.parquet'")
    try:
        size = _REQUEST_BYTES if objects.is_url(path) else _BUFFER_BYTES
        source = objects.open_file(path) if objects.is_url(path) else path
        return pq.ParquetFile(
            source, metadata=metadata, buffer_size=size, pre_buffer=False, page_checksum_verification=True
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise InputError(f"{path}: not a Parquet file, or damaged ({error}); copy or write it again") from error


class ParquetReader:
    """Rows of one column of lists, with the ids of another column."""

    bad_values = "NaN, Inf or null"

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        with open_file(path) as file:
            schema = file.schema_arrow
            self._column = arrow.choose(path, schema, column)
            type_ = schema.field(self._column).type
            self._where = f"{path}: column {self._column!r}"
            self.dtype = check_floating(arrow.value_dtype(type_), self._where)
            self._ids = ids
            self.ids_dtype: np.dtype[Any] | None = None
            if ids is not None:
                self.ids_dtype = arrow.ids_dtype(arrow.field(path, schema, ids).type, f"{path}: column {ids!r}")
            self._metadata = file.metadata
            self.rows: int = self._metadata.num_rows
            counts = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
            self._group_starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
            first = batches(file, path, batch_size=64, columns=[self._column])
            self.dims: int = (
                arrow.plain(type_).list_size
                if pa.types.is_fixed_size_list(arrow.plain(type_))
                else arrow.first_length((batch.column(self._column) for batch in first), self._where)
            )
        check_matrix((self.rows, self.dims), self._where)
        # Some writers make pages of 100 MB: then one thread has to do.
        read = [self._column] if ids is None else [self._column, ids]
        larger = sum(max(_first_page_bytes(path, self._metadata, name) - _PAGE_BYTES, 0) for name in read)
        self._id_bytes = 0 if ids is None else _row_bytes(self._metadata, ids)
        self._thread_bytes: int = (
            _THREAD_BYTES + _PAGE_COPIES * larger + (_REQUEST_BYTES if objects.is_url(path) else 0)
        )
        # A thread that waits for an object store needs no processor.
        threads = _THREADS if objects.is_url(path) else min(available_threads(), _THREADS)
        threads = min(threads, _THREADS * _THREAD_BYTES // self._thread_bytes, self._metadata.num_row_groups)
        self._threads: int = max(threads, 1)

    @property
    def read_overhead_bytes(self) -> int:
        """What waits decoded, and what the threads decode with."""
        return _FIXED_BYTES + _AHEAD_BYTES + self._threads * self._thread_bytes

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on; row groups before it are not read."""
        # The last group that begins at the row or before it, but none of those that are empty.
        group = int(np.searchsorted(self._group_starts, start, side="right")) - 1
        groups = len(self._group_starts) - 1

        @contextmanager
        def open_groups() -> Iterator[Callable[[int], Iterator[Block]]]:
            with open_file(self.name, self._metadata) as file:
                yield lambda part: self._group(file, group + part, start)

        yield from in_order(
            groups - group, open_groups, self._bytes_of, threads=self._threads, ahead_bytes=_AHEAD_BYTES
        )

    def _group(self, file: pq.ParquetFile, group: int, start: int) -> Iterator[Block]:
        """Rows of one row group, those before ``start`` left out."""
        row = int(self._group_starts[group])
        columns = [self._column] if self._ids is None else [self._column, self._ids]
        # Arrow holds several batches' worth while it decodes one: small ones are as fast and take far less memory.
        size = min(block_rows(self.dims, self.dtype), BLOCK_BYTES // max(self._id_bytes, 1))
        size = max(size // 8, 1)
        for batch in batches(file, self.name, batch_size=size, row_groups=[group], columns=columns):
            skipped = min(max(start - row, 0), len(batch))
            row += skipped
            if skipped < len(batch):
                batch = batch.slice(skipped)
                values = arrow.matrix(batch.column(self._column), self.dims, self._where, row)
                named = None
                if self._ids is not None:
                    named = arrow.ids(batch.column(self._ids), f"{self.name}: column {self._ids!r}", row)
                yield values, named
                row += len(batch)

    def _bytes_of(self, block: Block) -> int:
        values, ids = block
        # What NumPy tells of strings are not their letters.
        return values.nbytes + (0 if ids is None else ids.nbytes + len(ids) * self._id_bytes)


def batches(file: pq.ParquetFile, path: str, **options: Any) -> Iterator[pa.RecordBatch]:
    """What ``iter_batches`` gives.

    Raises
    ------
    DataError
        The file is damaged.
    """
    try:
        yield from file.iter_batches(**options)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path}: damaged ({said}); copy or write it again") from error


def _first_page_bytes(path: str, metadata: pq.FileMetaData, column: str) -> int:
    """Bytes of the column's first page of values, decompressed, which its header tells; 0 where there is none.

    The header is a structure of Thrift's compact protocol (parquet.thrift, PageHeader): its first fields are the type
    and the two sizes, each a byte for the field and a number in groups of seven bits, the sign in its lowest.
    """
    if not metadata.num_row_groups:
        return 0
    group = metadata.row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    place = next(chunk.data_page_offset for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}."))
    with objects.open_file(path) as file:
        file.seek(place)
        header = iter(file.read(24))
    numbers: list[int] = []
    for field in header:
        if field != _NEXT_INTEGER or len(numbers) == 2:
            break
        number, shift, byte = 0, 0, 0x80
        while byte & 0x80:
            byte = next(header, 0)
            number |= (byte & 0x7F) << shift
            shift += 7
        numbers.append(number >> 1)
    return numbers[1] if len(numbers) == 2 else 0


def _row_bytes(metadata: pq.FileMetaData, column: str) -> int:
    """Bytes of a value, decompressed, in the row group where they are longest."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [(group.num_rows, group.column(number)) for group in groups for number in range(group.num_columns)]
    sizes = [(rows, chunk.total_uncompressed_size) for rows, chunk in chunks if chunk.path_in_schema == column]
    return max((-(-size // max(rows, 1)) for rows, size in sizes), default=0)


def open_reader(path: str, column: str | None, ids: str | None) -> ParquetReader:
    """Open one file."""
    return ParquetReader(path, column, ids)
