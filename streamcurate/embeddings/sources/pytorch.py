"""PyTorch's .pt and .pth files: a tensor, or a dict of them, as ``torch.save`` writes it.

Loaded by PyTorch itself, tensors only (``weights_only``), mapped rather than read. Mapped pages count as the process's
memory, so the map is made anew every so many rows. Files in the format of before PyTorch 1.6 can only be loaded whole
and are refused.
"""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamcurate import objects
from streamcurate.embeddings.checks import check_matrix
from streamcurate.embeddings.sources.base import INTEGER, Block, Stamp, block_rows
from streamcurate.embeddings.sources.idfiles import plain
from streamcurate.errors import DataError, InputError
from streamcurate.streaming.buffers import BlockBuffers

# Making a map takes milliseconds, reading so much tens of them.
_MAPPED_BYTES = 64 << 20
_FLOATS = {"float16": "float16", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"


class TorchReader:
    """Rows of one two-dimensional tensor, with the ids of a one-dimensional one of integers."""

    bad_values = "NaN or Inf"

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        _check_file(path)
        self._column, self._ids = column, ids
        self._opened = Stamp.of(path)
        tensor, named = self._load()
        where = path if column is None else f"{path}: tensor {column!r}"
        kind = _dtype(tensor)
        check_matrix(tuple(tensor.shape), where)
        if kind not in _FLOATS:
            raise InputError(
                f"{where}: holds {kind}, and embeddings are float16, bfloat16, float32 or float64; convert the tensor "
                "first"
            )
        self.rows, self.dims = (int(size) for size in tensor.shape)
        self.dtype: np.dtype[Any] = np.dtype(_FLOATS[kind])
        if self.rows > 1 and self.dims > 1 and tensor.stride(1) != 1:
            raise InputError(
                f"{where}: saved transposed, so that its rows do not lie together; save tensor.contiguous()"
            )
        self.read_overhead_bytes = _MAPPED_BYTES
        self.ids_dtype: np.dtype[Any] | None = None
        if ids is not None:
            if _dtype(named) not in _INTEGERS or tuple(named.shape) != (self.rows,):
                raise InputError(
                    f"{path}: tensor {ids!r}: shape {tuple(named.shape)} of {_dtype(named)}; ids in .pt files are "
                    f"{self.rows} integers in one dimension; give others in a file (--ids FILE)"
                )
            self.ids_dtype = INTEGER

    def stamps(self) -> list[Stamp]:
        """State of the file."""
        return [Stamp.of(self.name)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on; bfloat16 is given as float32."""
        torch, buffers = _torch(), BlockBuffers()
        step = block_rows(self.dims, self.dtype)
        mapped = step * max(_MAPPED_BYTES // max(step * self.dims * self.dtype.itemsize, 1), 1)
        for first_mapped in range(start, self.rows, mapped):
            # A file cut short while it is mapped would end the process.
            if Stamp.of(self.name) != self._opened:
                raise DataError(f"{self.name}: was changed while it was read; give the same command again")
            tensor, named = self._load()
            for first in range(first_mapped, min(first_mapped + mapped, self.rows), step):
                last = min(first + step, first_mapped + mapped, self.rows)
                values = buffers((last - first, self.dims), self.dtype)
                torch.from_numpy(values).copy_(tensor[first:last])
                ids = None
                if named is not None:
                    ids = plain(named[first:last].numpy(), f"{self.name}: tensor {self._ids!r}")
                yield values, ids

    def _load(self) -> tuple[Any, Any]:
        """The tensor of rows and that of ids, mapped."""
        torch, path = _torch(), self.name
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # torch raises many kinds
            if "eights only" in str(error):
                raise InputError(
                    f"{path}: holds more than tensors, which is never loaded; save the tensor alone: "
                    f"torch.save(tensor, {os.path.basename(path)!r})"
                ) from error
            reason = str(error).partition("\n")[0]
            raise DataError(f"{path}: not a PyTorch file, or damaged ({reason}); copy or save it again") from error
        if isinstance(found, dict):
            tensors = {str(name): value for name, value in found.items() if _is_plain(torch, value)}
            column = _choose(path, tensors) if self._column is None else self._column
            return _named(path, tensors, column), None if self._ids is None else _named(path, tensors, self._ids)
        if not _is_plain(torch, found):
            raise InputError(
                f"{path}: holds a {type(found).__name__}; save a dense tensor of two dimensions, or a dict of tensors"
            )
        for option, name in (("--column", self._column), ("--ids", self._ids)):
            if name is not None:
                fix = "leave it out" if option == "--column" else "give --ids a file such as ids.txt"
                raise InputError(f"{path}: holds a single tensor, which has no name ({option} {name}); {fix}")
        return found.detach(), None


def _check_file(path: str) -> None:
    """Refuse what is not a zip of this machine's byte order, as PyTorch has written them since 1.6."""
    if objects.is_url(path):
        raise InputError(
            f"{path}: PyTorch files are read from disks only; download it first, or save it as .safetensors"
        )
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder, not a PyTorch file; name the files in it, e.g. '{path}/*.pt'")
    try:
        with open(path, "rb") as file:
            start = file.read(len(_ZIP))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    if start[:1] == _PICKLE:
        raise InputError(
            f"{path}: in PyTorch's format of before version 1.6, which takes as much memory as the file is large; load "
            "it and save it again with torch.save"
        )
    try:
        if start != _ZIP:
            raise zipfile.BadZipFile("it does not begin as one")
        with zipfile.ZipFile(path) as archive:
            orders = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path}: not a PyTorch file, or damaged ({error}); copy or save it again") from error
    if any(order.decode("latin1") != sys.byteorder for order in orders):
        raise InputError(f"{path}: saved on a machine of the other byte order; save it again on this one")


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise InputError(
            "reading .pt and .pth files needs PyTorch; pip install torch, or save the tensor as .safetensors or .npy"
        ) from error


def _is_plain(torch: Any, value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _named(path: str, tensors: dict[str, Any], name: str) -> Any:
    if name not in tensors:
        raise InputError(f"{path}: no dense tensor {name!r}; it has {', '.join(map(repr, tensors)) or 'none'}")
    return tensors[name].detach()


def _choose(path: str, tensors: dict[str, Any]) -> str:
    """The only tensor that can be embeddings."""
    found = [name for name, value in tensors.items() if value.dim() == 2 and _dtype(value) in _FLOATS]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path}: several tensors may be embeddings; choose with --column one of {', '.join(map(repr, found))}"
        )
    has = ", ".join(f"{name!r} ({_dtype(value)}, shape {tuple(value.shape)})" for name, value in tensors.items())
    raise InputError(
        f"{path}: no two-dimensional tensor of float16, bfloat16, float32 or float64; it has {has or 'no tensors'}"
    )


def open_reader(path: str, column: str | None, ids: str | None) -> TorchReader:
    """Open one file."""
    return TorchReader(path, column, ids)
