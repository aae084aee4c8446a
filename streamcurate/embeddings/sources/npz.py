"""NPZ files: arrays in a zip, stored or deflated, streamed from it, with the zip's own checksum over what is read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from streamcurate import objects
from streamcurate.embeddings.sources.base import Block, Stamp, block_rows, request_bytes
from streamcurate.embeddings.sources.idfiles import batch_rows, check_ids_array, plain
from streamcurate.embeddings.sources.npy import check_header, check_size, parse_header
from streamcurate.embeddings.sources.raw import Header, read_blocks, read_overhead_bytes
from streamcurate.errors import DataError, InputError
from streamcurate.streaming.buffers import BlockBuffers

# Inflated at once, while it is in the processor's cache.
_PIECE_BYTES = 1 << 20
# The fixed part of what stands before each file of a zip, and where in it the lengths of the rest are.
_LOCAL_HEADER_BYTES, _LENGTHS_AT = 30, 26


class NpzReader:
    """Rows of one array of an NPZ file, with the ids of another."""

    bad_values = "NaN or Inf"

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        with _opened(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) != len(archive.infolist()):
                raise InputError(f"{path}: holds several arrays of the same name; write it again with numpy.savez")
            if column is not None or ids is not None:
                for name in (column, ids):
                    if name is not None and name not in members:
                        raise InputError(f"{path}: no array {name!r}; it has {', '.join(map(repr, members))}")
            headers = {name: _header(archive, info, f"{path}: array {name!r}") for name, info in members.items()}
            self._array = _choose(path, headers) if column is None else column
            self._where = f"{path}: array {self._array!r}"
            self._header = headers[self._array]
            self.dtype = check_header(self._header, self._where)
            self.rows: int = self._header.shape[0]
            self.dims: int = self._header.shape[1]
            self._members = members
            self._data = 0
            if self._header.by_columns:
                if members[self._array].compress_type != zipfile.ZIP_STORED:
                    raise InputError(
                        f"{self._where}: compressed in Fortran order, of which no row can be read without the whole; "
                        "save numpy.ascontiguousarray of it"
                    )
                self._data = _place(archive, members[self._array])
        self._ids = ids
        self.ids_dtype: np.dtype[Any] | None = None
        self.read_overhead_bytes = 2 * _PIECE_BYTES + request_bytes(path)
        if self._header.by_columns:
            self.read_overhead_bytes += read_overhead_bytes(path, self._header)
        if ids is not None:
            self._ids_header = headers[ids]
            where = f"{path}: array {ids!r}"
            self.ids_dtype = check_ids_array(self._ids_header, where)
            if self._ids_header.shape[0] != self.rows:
                raise DataError(
                    f"{where}: {self._ids_header.shape[0]} ids, and {self._array!r} has {self.rows} rows; one id for "
                    "each row is needed"
                )
            # As NumPy keeps them, and as text.
            ids_bytes = block_rows(self.dims, self.dtype) * self._ids_header.dtype.itemsize
            self.read_overhead_bytes += 2 * ids_bytes

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on; those before are read and passed over, for the checksum is one over all."""
        with _opened(self.name) as archive:
            ids = None
            if self._ids is not None:
                ids = _Ids(archive, self._members[self._ids], self._ids_header, f"{self.name}: array {self._ids!r}")
                ids.skip(start)
            for values in self._values(archive, start):
                yield values, None if ids is None else ids.next(len(values))
            if ids is not None:
                ids.close()

    def _values(self, archive: zipfile.ZipFile, start: int) -> Iterator[NDArray[Any]]:
        header = self._header
        if header.by_columns:
            with archive.open(self._members[self._array]) as member:
                _pass_over(member, header.nbytes + header.offset, self._where)
            yield from read_blocks(self.name, header._replace(offset=self._data + header.offset), start)
            return
        row_bytes = self.dims * header.dtype.itemsize
        step, buffers = block_rows(self.dims, header.dtype), BlockBuffers()
        with archive.open(self._members[self._array]) as member:
            _pass_over(member, header.offset + start * row_bytes, self._where)
            for first in range(start, self.rows, step):
                values = buffers((min(step, self.rows - first), self.dims), header.dtype)
                _fill(member, values, self._where)
                yield header.native(values)
            _end(member, self._where)


class _Ids:
    """The ids of an NPZ file, handed out in pieces."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Header, where: str) -> None:
        self._member, self._header, self._where = archive.open(info), header, where
        _pass_over(self._member, header.offset, where)

    def skip(self, count: int) -> None:
        _pass_over(self._member, count * self._header.dtype.itemsize, self._where)

    def next(self, count: int) -> NDArray[Any]:
        step = batch_rows(self._header.dtype.itemsize)
        pieces = [self._read(min(step, count - first)) for first in range(0, count, step)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def close(self) -> None:
        _end(self._member, self._where)
        self._member.close()

    def _read(self, count: int) -> NDArray[Any]:
        values = np.empty(count, dtype=self._header.dtype)
        if values.nbytes:
            _fill(self._member, values, self._where)
        return plain(values, self._where)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder, not an NPZ file; name the files in it, e.g. '{path}/*.npz'")
    try:
        file = objects.open_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OverflowError) as error:
            raise InputError(
                f"{path}: not an NPZ file, or cut off ({error}); copy it again, or write it with numpy.savez"
            ) from error
        with archive:
            yield archive


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Header:
    if info.flag_bits & 1:
        raise InputError(f"{where}: encrypted; write the file with numpy.savez")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where}: compressed as NumPy never does; write the file with numpy.savez_compressed")
    try:
        with archive.open(info) as member:
            header = parse_header(cast(BinaryIO, member), where)
    except (zipfile.BadZipFile, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise _damaged(where, error) from error
    check_size(where, header, info.file_size)
    return header


def _choose(path: str, headers: dict[str, Header]) -> str:
    """The only array that can be embeddings."""
    found = [
        name
        for name, header in headers.items()
        if len(header.shape) == 2 and (header.bfloat16 or header.dtype.kind == "f")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path}: several arrays may be embeddings; choose with --column one of {', '.join(map(repr, found))}"
        )
    arrays = ", ".join(f"{name!r} ({header.dtype}, shape {header.shape})" for name, header in headers.items())
    raise InputError(f"{path}: no two-dimensional array of float16, float32 or float64; it has {arrays or 'no arrays'}")


def _place(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored file begin in the zip."""
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset + _LENGTHS_AT)
    lengths = file.read(4)
    return (
        info.header_offset
        + _LOCAL_HEADER_BYTES
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )


def _fill(member: IO[bytes], out: NDArray[Any], where: str) -> None:
    """Fill a contiguous array with the next bytes."""
    view = out.reshape(-1).view(np.uint8).data
    while len(view):
        piece = _read(member, min(_PIECE_BYTES, len(view)), where)
        if not piece:
            raise DataError(f"{where}: ends too early; copy or write the file again")
        view[: len(piece)] = piece
        view = view[len(piece) :]


def _pass_over(member: IO[bytes], count: int, where: str) -> None:
    while count:
        piece = _read(member, min(_PIECE_BYTES, count), where)
        if not piece:
            raise DataError(f"{where}: ends too early; copy or write the file again")
        count -= len(piece)


def _end(member: IO[bytes], where: str) -> None:
    """Only at the end is the checksum compared."""
    if _read(member, 1, where):
        raise DataError(f"{where}: is longer than it says; copy or write the file again")


def _read(member: IO[bytes], count: int, where: str) -> bytes:
    try:
        return member.read(count)
    except (zipfile.BadZipFile, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: damaged ({error}); copy or write the file again")


def open_reader(path: str, column: str | None, ids: str | None) -> NpzReader:
    """Open one file."""
    return NpzReader(path, column, ids)
