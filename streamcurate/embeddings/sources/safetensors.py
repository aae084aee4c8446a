"""safetensors files: a JSON header, then tensors as plain bytes in C order.

Read without the library of that name, which maps files into memory: mapped pages would count as the process's. The
format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamcurate.embeddings.checks import check_matrix
from streamcurate.embeddings.sources.base import INTEGER, Block, Stamp, block_rows, open_binary
from streamcurate.embeddings.sources.idfiles import plain
from streamcurate.embeddings.sources.raw import Header, fill, read_blocks, read_overhead_bytes
from streamcurate.errors import DataError, InputError

# The library's own limit.
_LARGEST_HEADER = 100_000_000
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_INTEGERS = {
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "<u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
}


class SafetensorsReader:
    """Rows of one two-dimensional tensor, with the ids of a one-dimensional one of integers."""

    bad_values = "NaN or Inf"

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        tensors = _read_header(path)
        name = _choose(path, tensors) if column is None else column
        where = f"{path}: tensor {name!r}"
        kind, header = _tensor(path, tensors, name)
        check_matrix(header.shape, where)
        if kind not in _FLOATS:
            raise InputError(
                f"{where}: holds {kind}, and embeddings are F16, BF16, F32 or F64; convert the values first"
            )
        self._header = header
        self.dtype = header.floating(where)
        self.rows: int = header.shape[0]
        self.dims: int = header.shape[1]
        self.ids_dtype: np.dtype[Any] | None = None
        self.read_overhead_bytes = read_overhead_bytes(path, header)
        self._ids: Header | None = None
        if ids is not None:
            self._ids_where = f"{path}: tensor {ids!r}"
            kind, self._ids = _tensor(path, tensors, ids)
            if kind not in _INTEGERS or self._ids.shape != (self.rows,):
                raise InputError(
                    f"{self._ids_where}: shape {self._ids.shape} of {kind}; ids in safetensors are {self.rows} "
                    "integers in one dimension; give others in a file (--ids FILE)"
                )
            self.ids_dtype = INTEGER
            self.read_overhead_bytes += 2 * block_rows(self.dims, self.dtype) * INTEGER.itemsize

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        if self._ids is None:
            for values in read_blocks(self.name, self._header, start):
                yield values, None
            return
        with open_binary(self.name) as file:
            for values in read_blocks(self.name, self._header, start):
                ids = np.empty(len(values), dtype=self._ids.dtype)
                fill(file, self._ids.offset + start * ids.itemsize, ids, self.name)
                start += len(values)
                yield values, plain(ids, self._ids_where)


def _read_header(path: str) -> dict[str, Any]:
    """Name → dtype, shape and place of every tensor, checked against the file's length."""
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder, not a safetensors file; name the files in it, e.g. '{path}/*.safetensors'")
    try:
        with open_binary(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_LARGEST_HEADER, size - 8):
                raise InputError(f"{path}: not a safetensors file, or cut off in its header; copy or write it again")
            text = np.empty(length, dtype=np.uint8)
            fill(file, 8, text, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    try:
        entries = json.loads(text.tobytes().decode("utf-8"), object_pairs_hook=_no_twins)
        entries.pop("__metadata__", None)
        tensors = {}
        for name, entry in entries.items():
            begin, end = map(int, entry["data_offsets"])
            tensors[str(name)] = (str(entry["dtype"]), tuple(map(int, entry["shape"])), 8 + length + begin, end - begin)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a safetensors file (header: {error}); write it again") from error
    expected = max((offset + nbytes for _, _, offset, nbytes in tensors.values()), default=8 + length)
    if size != expected:
        kind = "truncated" if size < expected else "too long"
        raise DataError(
            f"{path}: {kind}: {size:,} bytes, and its header asks for {expected:,}; copy or write the file again"
        )
    return tensors


def _tensor(path: str, tensors: dict[str, Any], name: str) -> tuple[str, Header]:
    """What a tensor holds, and where."""
    if name not in tensors:
        raise InputError(f"{path}: no tensor {name!r}; it has {', '.join(map(repr, tensors))}")
    kind, shape, offset, nbytes = tensors[name]
    # Others are refused by whoever asked for the tensor: their size does not matter.
    dtype = np.dtype((_FLOATS | _INTEGERS).get(kind, "V1"))
    header = Header(dtype, False, shape, offset, kind == "BF16")
    if dtype.kind != "V" and (header.nbytes != nbytes or min(shape, default=0) < 0):
        raise DataError(
            f"{path}: tensor {name!r}: {nbytes:,} bytes for shape {shape} of {kind}: damaged; write the file again"
        )
    return kind, header


def _choose(path: str, tensors: dict[str, Any]) -> str:
    """The only tensor that can be embeddings."""
    found = [name for name, (kind, shape, _, _) in tensors.items() if kind in _FLOATS and len(shape) == 2]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path}: several tensors may be embeddings; choose with --column one of {', '.join(map(repr, found))}"
        )
    has = ", ".join(f"{name!r} ({kind}, shape {shape})" for name, (kind, shape, _, _) in tensors.items())
    raise InputError(f"{path}: no two-dimensional tensor of F16, BF16, F32 or F64; it has {has or 'no tensors'}")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("the same name twice")
    return entries


def open_reader(path: str, column: str | None, ids: str | None) -> SafetensorsReader:
    """Open one file."""
    return SafetensorsReader(path, column, ids)
