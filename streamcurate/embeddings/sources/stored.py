"""Zarr arrays and groups as a source: chunked anew, compression and other byte orders left behind, ids carried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from streamcurate import objects
from streamcurate.embeddings.sources.base import INTEGER, TEXT, Block, Stamp, block_rows
from streamcurate.embeddings.store import are_ids, find_arrays, plain_ids
from streamcurate.errors import InputError
from streamcurate.storage import StoredArray, open_array


class StoredReader:
    """Rows of one Zarr array and, where there are any, their ids."""

    bad_values = "NaN or Inf"

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        self._array, self._ids = find_arrays(path, column)
        if ids is not None:
            self._ids = _named_ids(path, ids, self._array.rows)
        self.rows: int = self._array.shape[0]
        self.dims: int = self._array.shape[1]
        self.dtype = self._array.dtype
        self.ids_dtype: np.dtype[Any] | None = None
        self.read_overhead_bytes = self._array.read_overhead_bytes
        if self._ids is not None:
            self.ids_dtype = INTEGER if self._ids.dtype.kind in "iu" else TEXT
            self.read_overhead_bytes += self._ids.read_overhead_bytes

    def stamps(self) -> list[Stamp]:
        """State of the arrays: bytes of all chunks together, time of the newest, or a digest of the tags of all."""
        return [_stamp(array) for array in (self._array, self._ids) if array is not None]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        step = block_rows(self.dims, self.dtype)
        for first in range(start, self.rows, step):
            last = min(first + step, self.rows)
            ids = None
            if self._ids is not None:
                ids = plain_ids(self._ids.read(first, last)).astype(self.ids_dtype, copy=False)
            yield self._array.read(first, last), ids


def _named_ids(path: str, name: str, rows: int) -> StoredArray:
    ids = open_array(f"{path}/{name}")
    if not are_ids(ids, rows):
        raise InputError(
            f"{ids.path}: shape {ids.shape} of {ids.dtype}; ids are {rows} strings or integers in one dimension"
        )
    return ids


def _stamp(array: StoredArray) -> Stamp:
    size, newest, states = 0, 0, xxhash.xxh3_64()
    for bytes_, modified in array.stamps():
        size, newest = size + max(bytes_, 0), max(newest, modified)
        states.update(f"{bytes_} {modified}\n".encode())
    if objects.is_url(array.path):
        # What tells states of an object apart is a tag, of which none is the newest.
        return Stamp(array.path, size, states.intdigest() >> 1)
    return Stamp(os.path.abspath(array.path), size, newest)


def open_reader(path: str, column: str | None, ids: str | None) -> StoredReader:
    """Open one array or group."""
    return StoredReader(path, column, ids)
