"""NPY files, streamed with plain reads: mapped pages would count as the process's memory.

bfloat16, which NumPy does not know, is what the library ml_dtypes saves as ``<V2``: a type of raw bytes *with* a byte
order, which NumPy by itself never writes. ``|V2``, two raw bytes, may be anything and is refused.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from streamcurate.embeddings.checks import check_matrix
from streamcurate.embeddings.sources.base import Block, SourceReader, Stamp, open_binary
from streamcurate.embeddings.sources.raw import Header, read_blocks, read_overhead_bytes
from streamcurate.errors import DataError, InputError

_MAGIC = b"\x93NUMPY"
# NumPy's own limit for a header it will evaluate.
_LARGEST_HEADER = 10_000
_BFLOAT16 = ("<V2", "bfloat16")


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
        with open_binary(path) as file:
            header = parse_header(file, path)
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    check_size(path, header, size)
    return header


def parse_header(file: BinaryIO, path: str) -> Header:
    """Read the header at the beginning of NPY data.

    Raises
    ------
    InputError
        Not NPY, or holding Python objects.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise InputError(f"{path}: not an NPY file, or cut off in its header; write it with numpy.save")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    text = file.read(length) if length <= _LARGEST_HEADER else b""
    try:
        fields = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin1").strip())
        bfloat16 = isinstance(fields["descr"], str) and fields["descr"] in _BFLOAT16
        dtype = np.dtype("<u2" if bfloat16 else fields["descr"])
        shape = tuple(int(size) for size in fields["shape"])
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
        header = Header(dtype, bool(fields["fortran_order"]), shape, 8 + width + length, bfloat16)
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its NPY header cannot be read ({error}); write it again with numpy.save") from error
    if dtype.hasobject:
        raise InputError(f"{path}: holds pickled Python objects, which are never read; save a plain array of numbers")
    return header


def check_size(path: str, header: Header, size: int) -> None:
    """Refuse NPY data of another length than its header says."""
    expected = header.offset + header.nbytes
    if size != expected:
        kind = "truncated" if size < expected else "too long"
        raise DataError(
            f"{path}: {kind}: {size:,} bytes, and its header (shape {header.shape}, {header.dtype}) asks for "
            f"{expected:,}; copy or write the file again"
        )


def check_header(header: Header, where: str) -> np.dtype[Any]:
    """What the values of an array of embeddings are given as.

    Raises
    ------
    InputError
        Not a matrix, or not of floating-point values.
    """
    if header.dtype.names:
        raise InputError(f"{where}: a structured array; embeddings are a plain two-dimensional array, one row each")
    if header.dtype.kind == "V" and header.dtype.itemsize == 2:
        raise InputError(
            f"{where}: raw values of two bytes (|V2), which may be anything; save bfloat16 as an array of "
            "ml_dtypes.bfloat16, or as float32"
        )
    check_matrix(header.shape, where)
    return header.floating(where)


class NpyReader:
    """Rows of one two-dimensional NPY file, C or Fortran order, any byte order."""

    bad_values = "NaN or Inf"
    ids_dtype = None

    def __init__(self, path: str) -> None:
        self.name = path
        self._header = read_header(path)
        self.dtype = check_header(self._header, path)
        self.rows: int = self._header.shape[0]
        self.dims: int = self._header.shape[1]
        self.read_overhead_bytes = read_overhead_bytes(path, self._header)

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        for values in read_blocks(self.name, self._header, start):
            yield values, None


def open_reader(path: str, column: str | None, ids: str | None) -> SourceReader:
    """Open one file; ids are a column of the Parquet file of metadata beside it."""
    if column is not None:
        raise InputError(f"{path}: an NPY file has no columns; leave out --column {column}")
    reader = NpyReader(path)
    if ids is None:
        return reader
    from streamcurate.embeddings.sources.companions import with_metadata_ids

    return with_metadata_ids(reader, ids)
