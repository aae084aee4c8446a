"""Rows whose own bytes lie in files, as chunks or as shards: any part of them is read alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.storage.chunkfiles import State, UnexpectedLengthError, bytes_of
from streamcurate.storage.shards import ShardError, check_index, needed_counts, read_index, shard_pieces

if TYPE_CHECKING:
    from streamcurate.storage.arrays import StoredArray

# Sixteen bytes for each chunk of a shard.
_KEPT_INDICES = 16
_TRIES = 3

# First row in a file, how many, and the memory they go to.
_Range = tuple[int, int, memoryview]


class PlainReader:
    """Reads rows of a stored array that no codec touches.

    Parameters
    ----------
    array : StoredArray
    """

    def __init__(self, array: StoredArray) -> None:
        self._array = array
        self._indices: OrderedDict[int, tuple[State, NDArray[np.uint64]]] = OrderedDict()
        self._lock = Lock()

    def read(self, row: int, out: NDArray[Any]) -> None:
        """Rows of one file, from a row of the array on."""
        if len(out):
            chunk, first = divmod(row, self._array.chunk_rows)
            self._fill(chunk, [(first, len(out), bytes_of(out))])

    def read_single(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Single rows of one file, by their numbers in the array."""
        chunk = int(rows[0]) // self._array.chunk_rows
        view, width = bytes_of(out), self._array.row_bytes
        inside = (rows - chunk * self._array.chunk_rows).tolist()
        self._fill(chunk, [(row, 1, view[number * width :][:width]) for number, row in enumerate(inside)])

    def _fill(self, chunk: int, ranges: Sequence[_Range]) -> None:
        array = self._array
        if not array.row_bytes:
            return
        name, expected = array.chunk_name(chunk), array.chunk_rows * array.row_bytes
        try:
            if array.layout.kind == "shards":
                self._fill_from_shard(chunk, name, ranges)
            else:
                array.files.read(name, [(first * array.row_bytes, view) for first, _, view in ranges], expected)
        except FileNotFoundError:
            raise array.absent(chunk, name) from None
        except ShardError as error:
            raise array.damaged(chunk, name, error) from None
        except UnexpectedLengthError as error:
            kind = "too long" if error.found is not None and error.found > expected else "truncated"
            holds = "fewer" if error.found is None else f"{error.found:,}"
            raise StoreError(
                f"{array.describe(chunk)} is {kind}: {array.files.place(name)} holds {holds} bytes instead of "
                f"{expected:,}; restore it or ingest again"
            ) from None

    def _fill_from_shard(self, chunk: int, name: str, ranges: Sequence[_Range]) -> None:
        array = self._array
        for _ in range(_TRIES):
            state, index = self._index(chunk, name)
            pieces = [piece for one in ranges for piece in shard_pieces(index, array.unit_rows, array.row_bytes, *one)]
            # A shard that was written anew has another index.
            with suppress(UnexpectedLengthError):
                if array.files.read(name, pieces) == state:
                    return
            with self._lock:
                self._indices.pop(chunk, None)
        raise ShardError("is being written by another process")

    def _index(self, chunk: int, name: str) -> tuple[State, NDArray[np.uint64]]:
        """State and checked index of a shard; those of a few shards are kept."""
        found = self._indices.get(chunk)
        if found is None:
            array = self._array
            found = read_index(array.files, name, array.layout)
            needed = needed_counts(array.layout, array.shape, (chunk, *(0 for _ in array.shape[1:])))
            check_index(found[1], found[0].size, array.layout, needed, array.unit_rows * array.row_bytes)
            with self._lock:
                self._indices[chunk] = found
                while len(self._indices) > _KEPT_INDICES:
                    self._indices.popitem(last=False)
        return found
