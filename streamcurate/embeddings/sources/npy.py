"""NPY files, streamed with plain reads: mapped pages would count as the process's memory."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import check_floating, check_matrix
from streamcurate.embeddings.sources.base import Block, Stamp, block_rows
from streamcurate.errors import DataError, InputError

_MAGIC = b"\x93NUMPY"
# NumPy's own limit for a header it will evaluate.
_LARGEST_HEADER = 10_000
# In Fortran order every column is a read of its own; four times as many rows a block make those four times as long.
_FORTRAN_BLOCKS = 4


class Header(NamedTuple):
    """What an NPY file says of itself, and where its values begin."""

    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]
    offset: int


def read_header(path: str) -> Header:
    """Read and check the header of an NPY file (format versions 1 to 3).

    Raises
    ------
    InputError
        Missing, not NPY, holding Python objects, or of another length than the header says.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder, not an NPY file; name the files in it, e.g. '{path}/*.npy'")
    try:
        with open(path, "rb") as file:
            header = _parse(file, path)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    if header.dtype.hasobject:
        raise InputError(f"{path}: holds pickled Python objects, which are never read; save a plain array of numbers")
    expected = header.offset + header.dtype.itemsize * int(np.prod(header.shape, dtype=object))
    if size != expected:
        kind = "truncated" if size < expected else "too long"
        raise DataError(
            f"{path}: {kind}: {size:,} bytes, and its header (shape {header.shape}, {header.dtype}) asks for "
            f"{expected:,}; copy or write the file again"
        )
    return header


def _parse(file: BinaryIO, path: str) -> Header:
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise InputError(f"{path}: not an NPY file, or cut off in its header; write it with numpy.save")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    text = file.read(length) if length <= _LARGEST_HEADER else b""
    try:
        fields = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin1").strip())
        dtype, shape = np.dtype(fields["descr"]), tuple(int(size) for size in fields["shape"])
        return Header(dtype, bool(fields["fortran_order"]), shape, 8 + width + length)
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its NPY header cannot be read ({error}); write it again with numpy.save") from error


class NpyReader:
    """Rows of one two-dimensional NPY file, C or Fortran order, any byte order."""

    bad_values = "NaN or Inf"
    read_overhead_bytes = 0
    ids_dtype = None

    def __init__(self, path: str) -> None:
        self.name = path
        self._header = read_header(path)
        if self._header.dtype.names:
            raise InputError(f"{path}: a structured array; embeddings are a plain two-dimensional array, one row each")
        check_matrix(self._header.shape, path)
        self.rows: int = self._header.shape[0]
        self.dims: int = self._header.shape[1]
        self.dtype = check_floating(self._header.dtype, path)

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        fortran = self._header.fortran_order and self.dims > 1
        step = block_rows(self.dims, self.dtype) * (_FORTRAN_BLOCKS if fortran else 1)
        # Unbuffered: every read goes straight into its array.
        with open(self.name, "rb", buffering=0) as file:
            for first in range(start, self.rows, step):
                count = min(step, self.rows - first)
                read = self._read_columns if fortran else self._read_rows
                yield read(file, first, count).astype(self.dtype, copy=False), None

    def _read_rows(self, file: BinaryIO, first: int, count: int) -> NDArray[Any]:
        values = np.empty((count, self.dims), dtype=self._header.dtype)
        fill(file, self._header.offset + first * self.dims * self.dtype.itemsize, values, self.name)
        return values

    def _read_columns(self, file: BinaryIO, first: int, count: int) -> NDArray[Any]:
        columns = np.empty((self.dims, count), dtype=self._header.dtype)
        for column in range(self.dims):
            place = self._header.offset + (column * self.rows + first) * self.dtype.itemsize
            fill(file, place, columns[column], self.name)
        return np.ascontiguousarray(columns.T)


def fill(file: BinaryIO, offset: int, out: NDArray[Any], name: str) -> None:
    """Fill a contiguous array with a file's bytes from ``offset`` on."""
    view = out.reshape(-1).view(np.uint8).data
    while len(view):
        count = os.preadv(file.fileno(), [view], offset)
        if count == 0:
            raise DataError(f"{name}: was cut short while it was read; write it again")
        view, offset = view[count:], offset + count


def open_reader(path: str, column: str | None, ids: str | None) -> NpyReader:
    """Open one file."""
    if column is not None:
        raise InputError(f"{path}: an NPY file has no columns; leave out --column {column}")
    if ids is not None:
        raise InputError(f"{path}: an NPY file has no ids column {ids!r}; give --ids a file such as ids.txt")
    return NpyReader(path)
