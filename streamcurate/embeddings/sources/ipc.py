"""Arrow IPC files and streams, and folders of Hugging Face ``datasets``, in slices of bounded size.

A file may be one record batch, which pyarrow would read whole: columns are read slice by slice, whatever the batches.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from streamcurate import objects
from streamcurate.embeddings.checks import check_floating, check_matrix, suffix_of
from streamcurate.embeddings.sources import arrow
from streamcurate.embeddings.sources.base import BLOCK_BYTES, Block, SourceReader, Stamp, block_rows
from streamcurate.embeddings.sources.ipccolumns import WHOLE_BYTES, ColumnSlices
from streamcurate.embeddings.sources.ipcmessages import Batch, DamageError, Messages, ReadAt, extent
from streamcurate.errors import DataError, InputError

# Lengths of lists looked at together, until one is not null.
_LOOK_ROWS = 1 << 16
_SUFFIXES = (".arrow", ".feather", ".ipc")
# What the files of one split end with.
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.arrow$|\.arrow$")


class _Column(NamedTuple):
    """A column of the schema."""

    number: int
    type: Any
    where: str


class _Found(NamedTuple):
    """A record batch, the number of its first row, and the batches of the ids' dictionary that hold for it."""

    batch: Batch
    row: int
    dictionary: tuple[Batch, ...]


class IpcReader:
    """Rows of one column of lists in a file or stream, with the ids of another column."""

    bad_values = "NaN, Inf or null"

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        with _open(path) as file:
            self._messages = Messages(*_access(file, path), path)
            schema = self._messages.schema
            self._types = [field.type for field in schema]
            chosen = arrow.choose(path, schema, column)
            self._vectors = self._column(chosen)
            self.dtype = check_floating(arrow.value_dtype(self._vectors.type), self._vectors.where)
            self._ids: _Column | None = None
            self.ids_dtype: np.dtype[Any] | None = None
            if ids is not None:
                self.ids_dtype = arrow.ids_dtype(arrow.field(path, schema, ids).type, f"{path}: column {ids!r}")
                self._ids = self._column(ids)
            self.rows, self.read_overhead_bytes = self._look_through(file)
            self.dims = self._first_length(file)
        check_matrix((1 if self.rows is None else self.rows, self.dims), self._vectors.where)

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on; of batches before it only metadata are read."""
        step = block_rows(self.dims, self.dtype)
        dictionary: tuple[tuple[Batch, ...] | None, Any] = (None, None)
        with _open(self.name) as file, self._damage():
            for batch, row, parts in self._batches(file):
                if row + batch.rows <= start:
                    continue
                vectors = self._slices(file, batch, self._vectors, vectors=(self.dims, self._vectors.where, row))
                named: ColumnSlices | None = None
                if self._ids is not None:
                    if parts and parts is not dictionary[0]:
                        dictionary = (parts, self._dictionary(file, parts))
                    named = self._slices(file, batch, self._ids, dictionary=dictionary[1])
                # Long ids are more than the rows they belong to.
                each = 1 if named is None else max(named.bytes // batch.rows, 1)
                here = max(min(step, BLOCK_BYTES // each), 1)
                for first in range(max(start - row, 0), batch.rows, here):
                    last = min(first + here, batch.rows)
                    values = arrow.matrix(vectors.array(first, last), self.dims, self._vectors.where, row + first)
                    ids = None
                    if named is not None and self._ids is not None:
                        ids = arrow.ids(named.array(first, last), self._ids.where, row + first)
                    yield values, ids

    def count(self) -> int:
        """Number of rows; in an object store each batch is a request."""
        if self.rows is not None:
            return self.rows
        with _open(self.name) as file, self._damage():
            return sum(batch.rows for batch, _, _ in self._batches(file))

    def _column(self, name: str) -> _Column:
        index = self._messages.schema.get_field_index(name)
        return _Column(index, self._types[index], f"{self.name}: column {name!r}")

    def _slices(self, file: BinaryIO, batch: Batch, column: _Column, **options: Any) -> ColumnSlices:
        before = sum((extent(type_, batch.old_layout) for type_ in self._types[: column.number]), np.zeros(3, np.int64))
        return ColumnSlices(file, batch, before, column.type, **options)

    def _batches(self, file: BinaryIO) -> Iterator[_Found]:
        """Record batches in order."""
        wanted = None if self._ids is None else self._messages.dictionary_ids[self._ids.number]
        row = 0
        dictionary: tuple[Batch, ...] = ()
        for batch in self._messages.batches(_access(file, self.name)[0]):
            if batch.dictionary is None:
                if batch.rows:
                    yield _Found(batch, row, dictionary)
                row += batch.rows
            elif batch.dictionary == wanted:
                dictionary = (*dictionary, batch) if batch.delta else (batch,)

    def _dictionary(self, file: BinaryIO, parts: tuple[Batch, ...]) -> Any:
        assert self._ids is not None
        type_ = self._ids.type.value_type
        before = np.zeros(3, dtype=np.int64)
        arrays = [ColumnSlices(file, part, before, type_).array(0, part.rows) for part in parts]
        if pa.types.is_string_view(type_):  # of which pyarrow cannot take single values
            arrays = [array.cast(pa.large_string()) for array in arrays]
        return pa.concat_arrays(arrays)

    def _look_through(self, file: BinaryIO) -> tuple[int | None, int]:
        """Number of rows, and the bytes that reading takes beside the blocks.

        In an object store each batch would be a request: there it is left open, and the first batch stands for all.
        """
        rows, most = 0, 0
        remote = objects.is_url(self.name)
        with self._damage():
            for batch, _, dictionary in self._batches(file):
                rows += batch.rows
                # Buffers decompressed in one go: of values, of offsets, of ids, and one still compressed.
                taken = 0 if batch.codec is None else 4 * WHOLE_BYTES
                whole = sum(int(part.buffers[:, 1].sum()) for part in dictionary)
                if self._ids is not None and extent(self._ids.type, False)[2]:
                    whole += self._slices(file, batch, self._ids).stored_bytes
                # Dictionaries and columns of views are read whole; how far they were compressed is a guess.
                taken += whole * (2 if batch.codec is None else 6)
                most = max(most, taken)
                if remote:
                    return None, most
        return rows, most

    def _first_length(self, file: BinaryIO) -> int:
        """Length of the first list that is not null."""
        type_ = arrow.plain(self._vectors.type)
        if pa.types.is_fixed_size_list(type_):
            return int(type_.list_size)
        empty = True
        with self._damage():
            for batch, _, _ in self._batches(file):
                slices = self._slices(file, batch, self._vectors)
                for first in range(0, batch.rows, _LOOK_ROWS):
                    lengths = slices.lengths(first, min(first + _LOOK_ROWS, batch.rows))
                    if (present := lengths[lengths >= 0]).size:
                        return int(present[0])
                    empty = False
        if not empty:
            raise DataError(f"{self._vectors.where}: every row is null; choose another column")
        return 0

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except DamageError as error:
            raise self._messages.damaged(error) from error


class FolderReader:
    """Rows of all files of a data set that ``datasets`` saved or prepared."""

    bad_values = IpcReader.bad_values

    def __init__(self, path: str, column: str | None, ids: str | None) -> None:
        self.name = path
        self._state, files = _files_of(path)
        self._readers = [IpcReader(objects.join(path, file), column, ids) for file in files]
        filled = [reader for reader in self._readers if reader.rows != 0] or self._readers
        first = filled[0]
        for reader in filled:
            for what in ("dims", "dtype", "ids_dtype"):
                mine, theirs = getattr(reader, what), getattr(first, what)
                if mine != theirs:
                    raise DataError(
                        f"{reader.name}: {what.replace('_', ' ')} {mine}, and {first.name} has {theirs}; "
                        "the files of a data set are of one kind: save it again"
                    )
        self.dims, self.dtype, self.ids_dtype = first.dims, first.dtype, first.ids_dtype
        counts = [reader.rows for reader in self._readers]
        self.rows = None if None in counts else sum(count or 0 for count in counts)
        self.read_overhead_bytes = max(reader.read_overhead_bytes for reader in self._readers)

    def stamps(self) -> list[Stamp]:
        """State of all files, and of the list of them."""
        stamps = [stamp for reader in self._readers for stamp in reader.stamps()]
        return stamps if self._state is None else [Stamp.of(self._state), *stamps]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        for reader in self._readers:
            if start and (count := reader.count()) <= start:
                start -= count
            else:
                yield from reader.blocks(start)
                start = 0


def _files_of(folder: str) -> tuple[str | None, list[str]]:
    """The list of a saved data set, if it has one, and the names of its files in order."""
    place = objects.join(folder, "state.json")
    state = objects.contents(place)
    if state is None:
        return None, _prepared(folder)
    listed = _json(place, state)
    if listed.get("_indices_data_files") or listed.get("_indices_files"):
        raise InputError(
            f"{folder}: its rows are chosen and ordered by a separate file of indices; save it again after "
            "dataset = dataset.flatten_indices()"
        )
    try:
        files = [str(file["filename"]) for file in listed["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{place}: names no files ({error!r}); save the data set again with save_to_disk") from error
    if not files:
        raise DataError(f"{folder}: a data set without files; nothing to read")
    return place, files


def _prepared(folder: str) -> list[str]:
    """Files of one split in a folder of the cache: ``name-train-00000-of-00002.arrow``, beside ``cache-*.arrow``."""
    names = [one.url for one in objects.names(folder)[1]] if objects.is_url(folder) else os.listdir(folder)
    files = sorted(name for name in map(objects.base_name, names) if name.endswith(".arrow"))
    files = [name for name in files if not name.startswith(("cache-", "tmp"))]
    shards: dict[str, list[str]] = {}
    for name in files:
        shards.setdefault(_SHARD.sub("", name), []).append(name)
    if not shards:
        raise InputError(f"{folder}: a folder of a data set without .arrow files; name the files to read")
    if len(shards) > 1:
        named = ", ".join(repr(objects.join(folder, f"{name}*.arrow")) for name in shards)
        raise InputError(f"{folder}: holds several splits; give one of them: {named}")
    expected = int(found[1] or 1) if (found := _SHARD.search(files[0])) else 1
    if len(files) != expected:
        raise DataError(f"{folder}: {len(files)} of {expected} files are there; download or save the data set again")
    return files


def _json(place: str, data: bytes) -> dict[str, Any]:
    try:
        listed = json.loads(data)
    except ValueError as error:
        raise DataError(f"{place}: damaged ({error}); save the data set again") from error
    if not isinstance(listed, dict):
        raise DataError(f"{place}: holds no JSON object; save the data set again")
    return listed


def _open(path: str) -> BinaryIO:
    try:
        return objects.open_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None


def _access(file: BinaryIO, path: str) -> tuple[ReadAt, int]:
    """What reads metadata, and the size of the file."""
    size = file.seek(0, os.SEEK_END)

    def read_at(start: int, stop: int) -> bytes:
        stop = min(stop, size)
        if objects.is_url(path):  # not through the file, whose buffer would fetch far more
            return bytes(objects.read_range(path, start, stop))
        file.seek(start)
        return file.read(stop - start)

    return read_at, size


def open_reader(path: str, column: str | None, ids: str | None) -> SourceReader:
    """Open one file, or the folder of a data set."""
    place = path.rstrip("/")
    remote = objects.is_url(place)
    if os.path.isdir(place) or (remote and suffix_of(place) not in _SUFFIXES and objects.status(place) is None):
        return FolderReader(place, column, ids)
    return IpcReader(path, column, ids)
