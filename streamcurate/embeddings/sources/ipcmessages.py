"""Where the buffers of an Arrow IPC file or stream lie, from its metadata alone.

pyarrow reads a record batch whole, and a file may be a single one. With the places of its buffers a column can be read
in slices. After the specification of the format (arrow.apache.org/docs/format/Columnar.html, and Message.fbs,
Schema.fbs, File.fbs there); the metadata are FlatBuffers (flatbuffers.dev, "Internals").
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamcurate.errors import DataError

MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_CODECS = {0: "lz4", 1: "zstd"}
# One request brings the metadata of most messages: prefix, a few columns.
_FIRST_READ = 4096
# Metadata are a few bytes a column; what claims more is not metadata.
_LARGEST_METADATA = 1 << 28

ReadAt = Callable[[int, int], bytes]


class DamageError(Exception):
    """The metadata make no sense; the text says what."""


class _Table:
    """A FlatBuffers table."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - self._number("<i", position)
        self._length = self._number("<H", self._fields)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def scalar(self, field: int, kind: str, default: int = 0) -> int:
        place = self._place(field)
        return default if place is None else self._number(kind, place)

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return None if place is None else _Table(self._data, place + self._number("<I", place))

    def tables(self, field: int) -> list[_Table]:
        place, count = self._vector(field)
        places = range(place, place + 4 * count, 4)
        return [_Table(self._data, one + self._number("<I", one)) for one in places]

    def structs(self, field: int, dtype: Any) -> NDArray[Any]:
        """A vector of structs, or of numbers."""
        place, count = self._vector(field)
        if not count:
            return np.empty(0, dtype=dtype)
        return np.frombuffer(self._data, dtype=dtype, count=count, offset=place)

    def _vector(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if place is None:
            return 0, 0
        place += self._number("<I", place)
        return place + 4, self._number("<I", place)

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry >= self._length:
            return None
        offset = self._number("<H", self._fields + entry)
        return self._position + offset if offset else None

    def _number(self, kind: str, place: int) -> int:
        if place < 0:
            raise DamageError("an offset points outside")
        return int(struct.unpack_from(kind, self._data, place)[0])


@dataclass(frozen=True)
class Batch:
    """The metadata of a record batch, or of a batch of a dictionary.

    Attributes
    ----------
    body : int
        Place of the body in the file.
    rows : int
    nodes : ndarray of int64, shape (arrays, 2)
        Length and number of nulls of every array, children behind their parents.
    buffers : ndarray of int64, shape (buffers, 2)
        Place in the body, and bytes.
    codec : str or None
        What each buffer is compressed with.
    variadic : ndarray of int64
        Additional buffers of each array of views.
    old_layout : bool
        All arrays but those of nulls have a buffer of validity, as before version 5 of the metadata.
    dictionary : int or None
        Number of the dictionary whose values these are.
    delta : bool
        They are added to those there were.
    """

    body: int
    rows: int
    nodes: NDArray[np.int64]
    buffers: NDArray[np.int64]
    codec: str | None
    variadic: NDArray[np.int64]
    old_layout: bool
    dictionary: int | None = None
    delta: bool = False


@dataclass(frozen=True)
class _Message:
    kind: int
    header: _Table
    version: int
    body: int
    body_bytes: int

    @property
    def end(self) -> int:
        return self.body + self.body_bytes


class Messages:
    """The messages of one file or stream.

    Parameters
    ----------
    read_at : callable
        ``read_at(start, stop)``: the bytes there, fewer at the end of the file.
    size : int
        Bytes of the file.
    name : str
        How messages call it.

    Attributes
    ----------
    schema : pyarrow.Schema
    dictionary_ids : list of int or None
        For each column, the number of its dictionary.

    Raises
    ------
    DataError
        Neither a file nor a stream, truncated, or damaged.
    """

    def __init__(self, read_at: ReadAt, size: int, name: str) -> None:
        self._size, self._name = size, name
        begin = read_at(0, 8)
        if begin[:4] == b"FEA1":
            raise DataError(f"{name}: Feather version 1, which is no Arrow; write it again with version 2")
        self.is_file = begin[:6] == MAGIC
        self._blocks: list[NDArray[np.int64]] = []
        self._second = 0
        opened = False
        try:
            if self.is_file:
                # Not the message at the beginning, which some writers leave incomplete.
                footer = self._footer(read_at)
                schema, version = footer.table(1), footer.scalar(0, "<h")
            else:
                message = self._message(read_at, 0)
                if message is None or message.kind != _SCHEMA:
                    raise DamageError("it does not begin with a schema")
                schema, version, self._second = message.header, message.version, message.end
            if schema is None:
                raise DamageError("a footer without a schema")
            opened = True
            if schema.scalar(0, "<h"):
                raise DataError(f"{name}: values in big-endian order; write it again on a little-endian machine")
            if version < 3:
                raise DataError(f"{name}: written by an Arrow before 0.8; write it again with a newer one")
            self.schema = self._schema(read_at)
            self.dictionary_ids = [
                None if (encoding := field.table(4)) is None else encoding.scalar(0, "<q") for field in schema.tables(1)
            ]
        except (DamageError, struct.error, ValueError) as error:
            if not opened and not self.is_file:
                raise DataError(f"{name}: neither an Arrow IPC file nor a stream, or cut off ({error})") from error
            raise self.damaged(error) from error

    def damaged(self, error: object) -> DataError:
        """What to raise where the file makes no sense."""
        return DataError(f"{self._name}: damaged ({error}); copy or write it again")

    def batches(self, read_at: ReadAt) -> Iterator[Batch]:
        """Record batches in order, each behind the batches of dictionaries that come before it; only metadata is read.

        Raises
        ------
        DataError
            Truncated, or damaged.
        """
        try:
            for message in self._from_footer(read_at) if self.is_file else self._from_stream(read_at):
                if message.kind in (_BATCH, _DICTIONARY):
                    yield _batch(message)
        except (DamageError, struct.error, ValueError) as error:
            raise self.damaged(error) from error

    def _from_stream(self, read_at: ReadAt) -> Iterator[_Message]:
        place = self._second
        while (message := self._message(read_at, place)) is not None:
            yield message
            place = message.end

    def _from_footer(self, read_at: ReadAt) -> Iterator[_Message]:
        for blocks in self._blocks:
            for place in blocks.tolist():
                message = self._message(read_at, place)
                if message is None:
                    raise DamageError(f"its footer names a message at byte {place:,}, and none is there")
                yield message

    def _schema(self, read_at: ReadAt) -> Any:
        """The schema as pyarrow reads it."""
        try:
            with pa.PythonFile(_Readable(read_at, self._size), mode="r") as file:
                schema = (pa.ipc.open_file if self.is_file else pa.ipc.open_stream)(file).schema
            # Names are decoded only when they are asked for.
            _ = schema.names, str(schema)
        except (pa.ArrowException, OSError) as error:
            raise DamageError(str(error)) from error
        return schema

    def _footer(self, read_at: ReadAt) -> _Table:
        """The footer; notes the places of the dictionaries' batches, and of the record batches."""
        end = read_at(max(self._size - 10, 0), self._size)
        if end[4:] != MAGIC:
            raise DamageError("cut off: it does not end as a complete file does")
        length = int.from_bytes(end[:4], "little")
        if not 0 < length <= self._size - 18:
            raise DamageError(f"a footer of {length:,} bytes")
        table = _Table.root(read_at(self._size - 10 - length, self._size - 10))
        block = np.dtype([("place", "<i8"), ("metadata", "<i4"), ("", "<i4"), ("body", "<i8")])
        self._blocks = [table.structs(field, block)["place"] for field in (2, 3)]
        return table

    def _message(self, read_at: ReadAt, place: int) -> _Message | None:
        """The message at a place; None at the end of the stream."""
        if not 0 <= place <= self._size:
            raise DamageError(f"no message at byte {place:,}")
        raw = read_at(place, min(place + _FIRST_READ, self._size))
        prefix = 8 if raw[:4] == _CONTINUATION else 4
        if len(raw) < prefix:
            raise DamageError(f"cut off behind byte {place:,}: it has no end mark")
        length = int.from_bytes(raw[prefix - 4 : prefix], "little", signed=True)
        if length == 0:
            if not self.is_file and place + prefix < self._size:
                raise DamageError(f"{self._size - place - prefix:,} bytes behind its end mark")
            return None
        if not 0 < length <= _LARGEST_METADATA:
            raise DamageError(f"no message at byte {place:,}")
        body = place + prefix + length
        if body > self._size:
            raise DamageError(f"cut off inside a message at byte {place:,}")
        if len(raw) < prefix + length:
            raw = read_at(place, body)
        raw = raw[: prefix + length]
        table = _Table.root(raw[prefix:])
        header, body_bytes = table.table(2), table.scalar(3, "<q")
        if header is None or body_bytes < 0:
            raise DamageError(f"no message at byte {place:,}")
        if body + body_bytes > self._size:
            raise DamageError(f"cut off: {self._size:,} bytes, and a message ends at byte {body + body_bytes:,}")
        return _Message(table.scalar(1, "<B"), header, table.scalar(0, "<h"), body, body_bytes)


class _Readable:
    """The bytes as a file of Python's."""

    closed = False

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at, self._size, self._position = read_at, size, 0
        # What was read last, and where: few bytes are asked for at a time, and each may be a request.
        self._start, self._last = 0, b""

    def read(self, count: int) -> bytes:
        start, stop = self._position, min(self._position + count, self._size)
        if not self._start <= start <= stop <= self._start + len(self._last):
            self._start, self._last = start, self._read_at(start, min(start + max(count, _FIRST_READ), self._size))
        self._position = stop
        return self._last[start - self._start : stop - self._start]

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Nothing of its own to close."""


def _batch(message: _Message) -> Batch:
    header, dictionary, delta = message.header, None, False
    if message.kind == _DICTIONARY:
        dictionary, delta = header.scalar(0, "<q"), bool(header.scalar(2, "<B"))
        inner = header.table(1)
        if inner is None:
            raise DamageError("a dictionary without values")
        header = inner
    compression = header.table(3)
    codec = None
    if compression is not None:
        codec = _CODECS.get(compression.scalar(0, "<b"))
        if codec is None:
            raise DamageError("compressed in an unknown way")
    pair = np.dtype("<i8")
    nodes = header.structs(1, np.dtype((pair, 2)))
    buffers = header.structs(2, np.dtype((pair, 2)))
    variadic = header.structs(4, pair)
    rows = header.scalar(0, "<q")
    if (
        rows < 0
        or (variadic < 0).any()
        or (nodes < 0).any()
        or (buffers < 0).any()
        or (buffers.sum(axis=-1) > message.body_bytes).any()
    ):
        raise DamageError("a buffer outside its message")
    # The third version of the enumeration, counted from 0, is called V4.
    return Batch(message.body, rows, nodes, buffers, codec, variadic, message.version < 4, dictionary, delta)


def extent(type_: Any, old_layout: bool) -> NDArray[np.int64]:
    """How many arrays, buffers, and arrays of views a column of a type is laid out in."""
    types = pa.types
    if isinstance(type_, pa.BaseExtensionType):
        return extent(type_.storage_type, old_layout)
    children = [type_.field(number).type for number in range(type_.num_fields)]
    buffers, views = 2, 0
    if types.is_dictionary(type_):
        children = []
    elif types.is_null(type_):
        buffers = 0
    elif types.is_run_end_encoded(type_):
        buffers = int(old_layout)
    elif types.is_struct(type_) or types.is_fixed_size_list(type_):
        buffers = 1
    elif types.is_union(type_):
        buffers = (1 if type_.mode == "sparse" else 2) + old_layout
    elif types.is_string_view(type_) or types.is_binary_view(type_):
        views = 1
    elif (
        types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    ):
        buffers = 3
    return np.array([1, buffers, views], dtype=np.int64) + sum(extent(child, old_layout) for child in children)
