"""Slices of one column of an Arrow record batch, read from a file without the rest of the batch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamcurate.embeddings.sources import arrow
from streamcurate.embeddings.sources.ipcmessages import Batch, DamageError, extent

Bytes = NDArray[np.uint8]

# Compressed buffers up to this size are decompressed in one go, which is faster; larger ones are streamed.
WHOLE_BYTES = 8 << 20
# No codec makes runs of one byte any smaller.
_LARGEST_RATIO = 1 << 16
_SKIPPED_BYTES = 1 << 20


class ColumnSlices:
    """One column of one record batch.

    Parameters
    ----------
    file : binary file
    batch : Batch
    before : ndarray of int64, shape (3,)
        Sum of :func:`extent` over the columns before it.
    type_ : pyarrow type
    dictionary : pyarrow array, optional
        Values, where the column holds numbers of those.
    vectors : tuple of int, str and int, optional
        Length that every list must have, how messages call the column, and the number of the batch's first row.

    Raises
    ------
    DamageError
        The batch holds fewer buffers than the schema asks for.
    """

    def __init__(
        self,
        file: BinaryIO,
        batch: Batch,
        before: NDArray[np.int64],
        type_: Any,
        dictionary: Any = None,
        vectors: tuple[int, str, int] | None = None,
    ) -> None:
        self._file, self._batch, self._type = file, batch, arrow.plain(type_)
        self._dictionary, self._vectors = dictionary, vectors
        nodes, buffers, views = extent(type_, batch.old_layout)
        start, self._views = int(before[2]), int(views)
        self._node = int(before[0])
        self._buffer = int(before[1] + batch.variadic[:start].sum())
        self._variadic = int(batch.variadic[start : start + self._views].sum())
        self._opened: dict[int, _Buffer] = {}
        self._viewed: Any = None
        if (
            self._node + nodes > len(batch.nodes)
            or self._buffer + buffers + self._variadic > len(batch.buffers)
            or start + self._views > len(batch.variadic)
            or batch.nodes[self._node, 0] != batch.rows
        ):
            raise DamageError("a record batch that does not fit the schema")

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its buffers, as they lie in the file."""
        _, buffers, _ = extent(self._type, self._batch.old_layout)
        mine = self._batch.buffers[self._buffer : self._buffer + int(buffers) + self._variadic]
        return int(mine[:, 1].sum())

    @property
    def bytes(self) -> int:
        """Bytes of all its buffers, decompressed."""
        _, buffers, _ = extent(self._type, self._batch.old_layout)
        return sum(self._open(self._buffer + number).bytes for number in range(int(buffers) + self._variadic))

    def array(self, start: int, stop: int) -> Any:
        """Rows ``start`` to ``stop``; calls must come in ascending order of both.

        Raises
        ------
        DamageError
            What lies there is no such array.
        DataError
            A list of another length.
        """
        try:
            if self._views:
                return self._all_views().slice(start, stop - start)
            return self._slice(self._type, self._node, self._buffer, start, stop)
        except pa.ArrowException as error:
            raise DamageError(str(error)) from error

    def lengths(self, start: int, stop: int) -> NDArray[Any]:
        """Lengths of the lists in rows ``start`` to ``stop``, -1 for nulls; nothing but offsets is read."""
        first, validity = self._validity(self._node, self._buffer, start, stop)
        width = 4 if pa.types.is_list(self._type) else 8
        lengths = np.diff(self._numbers(self._buffer + 1, f"<i{width}", start, stop + 1))
        return lengths if validity is None else np.where(_bits(validity, start - first, stop - first), lengths, -1)

    def _slice(self, type_: Any, node: int, buffer: int, start: int, stop: int) -> Any:
        types = pa.types
        if isinstance(type_, pa.BaseExtensionType):
            storage = self._slice(type_.storage_type, node, buffer, start, stop)
            return pa.ExtensionArray.from_storage(type_, storage)
        first, validity = self._validity(node, buffer, start, stop)
        count, children = stop - first, []
        buffers = [None if validity is None else pa.py_buffer(validity)]
        if types.is_dictionary(type_):
            if self._dictionary is None:
                raise DamageError("a dictionary that does not come before its numbers")
            indices = self._slice(type_.index_type, node, buffer, start, stop)
            return pa.DictionaryArray.from_arrays(indices, self._dictionary)
        if types.is_fixed_size_list(type_):
            size = type_.list_size
            children = [self._slice(type_.value_type, node + 1, buffer + 1, first * size, stop * size)]
        elif types.is_null(type_):
            return pa.nulls(stop - start)
        elif types.is_primitive(type_) or types.is_fixed_size_binary(type_):
            width = type_.bit_width // 8
            buffers.append(pa.py_buffer(self._open(buffer + 1).read(first * width, stop * width)))
        else:
            long = types.is_large_list(type_) or types.is_large_string(type_)
            offsets = self._numbers(buffer + 1, "<i8" if long else "<i4", first, stop + 1)
            if node == self._node and self._vectors is not None:
                self._check_lengths(offsets, first, start, validity)
            elif len(offsets) and (np.diff(offsets) < 0).any():
                raise DamageError("offsets that go back")
            inner = int(offsets[0]), int(offsets[-1])
            buffers.append(pa.py_buffer(offsets - offsets[0]))
            if arrow.is_list(type_):
                children = [self._slice(type_.value_type, node + 1, buffer + 2, *inner)]
            else:
                buffers.append(pa.py_buffer(self._open(buffer + 2).read(*inner)))
        array = pa.Array.from_buffers(type_, count, buffers, children=children)
        return array.slice(start - first)

    def _validity(self, node: int, buffer: int, start: int, stop: int) -> tuple[int, Bytes | None]:
        """The row that the bits begin with, and the bits; none where there are no nulls."""
        if not self._batch.nodes[node, 1]:
            return start, None
        return start - start % 8, self._open(buffer).read(start // 8, -(-stop // 8))

    def _check_lengths(self, offsets: NDArray[Any], first: int, start: int, validity: Bytes | None) -> None:
        assert self._vectors is not None
        dims, where, batch_row = self._vectors
        lengths = np.diff(offsets[start - first :])
        present = None if validity is None else _bits(validity, start - first, len(offsets) - 1)
        arrow.check_lengths(lengths, dims, where, batch_row + start, present)
        if (lengths < 0).any():
            raise DamageError("offsets that go back")

    def _numbers(self, buffer: int, kind: str, start: int, stop: int) -> NDArray[Any]:
        dtype = np.dtype(kind)
        return self._open(buffer).read(start * dtype.itemsize, stop * dtype.itemsize).view(dtype)

    def _all_views(self) -> Any:
        """Views point anywhere into their buffers: all rows of the batch."""
        if self._viewed is None:
            opened = [self._open(self._buffer + number) for number in range(2 + self._variadic)]
            read = [pa.py_buffer(one.read(0, one.bytes)) for one in opened]
            if not self._batch.nodes[self._node, 1]:
                read[0] = None
            self._viewed = pa.Array.from_buffers(self._type, self._batch.rows, read)
            self._viewed.validate(full=True)
        return self._viewed

    def _open(self, number: int) -> _Buffer:
        if number not in self._opened:
            place, count = self._batch.buffers[number].tolist()
            self._opened[number] = _open(self._file, self._batch.body + place, count, self._batch.codec)
        return self._opened[number]


class _Buffer(Protocol):
    """Bytes of one buffer of a record batch."""

    bytes: int

    def read(self, start: int, stop: int) -> Bytes:
        """Some of them, from ascending places on."""


def _open(file: BinaryIO, place: int, count: int, codec: str | None) -> _Buffer:
    plain = _Plain(file, place, count)
    if codec is None or not count:
        return plain
    size = int(plain.read(0, 8).view("<i8")[0])
    if size == -1:  # compression would not have made it smaller
        return _Plain(file, place + 8, count - 8)
    if not 0 <= size <= count * _LARGEST_RATIO:
        raise DamageError(f"a buffer of {count:,} bytes that is to hold {size:,} decompressed")
    if max(size, count) > WHOLE_BYTES:
        return _Stream(plain, size, codec)
    compressed = plain.read(8, count)
    try:
        return _Whole(np.frombuffer(_codec(codec).decompress(compressed, size), dtype=np.uint8))
    except (pa.ArrowException, OSError) as error:
        raise DamageError(str(error)) from error


@lru_cache
def _codec(name: str) -> Any:
    return pa.Codec(name)


def _bits(validity: Bytes, start: int, stop: int) -> NDArray[np.bool_]:
    return np.unpackbits(validity, bitorder="little")[start:stop].astype(bool)


def _check(start: int, stop: int, count: int) -> None:
    if not 0 <= start <= stop <= count:
        raise DamageError("a buffer shorter than its rows")


class _Plain:
    """As they lie in the file."""

    def __init__(self, file: BinaryIO, place: int, count: int) -> None:
        self._file, self._place, self.bytes = file, place, count

    def read(self, start: int, stop: int) -> Bytes:
        _check(start, stop, self.bytes)
        out = np.empty(stop - start, dtype=np.uint8)
        view = memoryview(out.data)
        self._file.seek(self._place + start)
        while len(view):
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise DamageError("cut short while it was read")
            view = view[count:]
        return out


class _Whole:
    """Decompressed in one go."""

    def __init__(self, data: Bytes) -> None:
        self._data, self.bytes = data, len(data)

    def read(self, start: int, stop: int) -> Bytes:
        _check(start, stop, self.bytes)
        return self._data[start:stop]


class _Stream:
    """Decompressed as it is asked for; the bytes last given are kept, for slices have a few in common."""

    def __init__(self, compressed: _Plain, count: int, codec: str) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(_Piece(compressed), mode="r"), codec)
        self.bytes, self._position, self._last = count, 0, np.empty(0, dtype=np.uint8)

    def read(self, start: int, stop: int) -> Bytes:
        _check(start, stop, self.bytes)
        while self._position < start:
            self._last = self._next(min(start - self._position, _SKIPPED_BYTES))
        common = self._position - start
        assert common <= len(self._last)
        given = self._last[len(self._last) - common :]
        if stop > self._position:
            new = self._next(stop - self._position)
            given = np.concatenate([given, new]) if common else new
        self._last = given
        return given[: stop - start]

    def _next(self, count: int) -> Bytes:
        out = np.empty(count, dtype=np.uint8)
        view = memoryview(out.data)
        while len(view):
            try:
                read = self._stream.readinto(view)
            except (pa.ArrowException, OSError) as error:
                raise DamageError(str(error)) from error
            if not read:
                raise DamageError("a compressed buffer shorter than it says")
            view = view[read:]
        self._position += count
        return out


class _Piece:
    """The compressed bytes as a file of their own: the file itself has one position for all buffers."""

    closed = False

    def __init__(self, compressed: _Plain) -> None:
        self._compressed, self._position = compressed, 8

    def read(self, count: int) -> bytes:
        stop = min(self._position + count, self._compressed.bytes)
        data = self._compressed.read(self._position, stop).tobytes()
        self._position = stop
        return data

    def close(self) -> None:
        """Nothing of its own to close."""
