"""Writes a store chunk by chunk into the folder of an unfinished ingest, ready to go on after a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.fingerprint import FingerprintBuilder, unit_rows
from streamcurate.embeddings.partial import Partial, Progress
from streamcurate.embeddings.store import ARRAY_NAME, IDS_NAME
from streamcurate.errors import InputError
from streamcurate.storage import (
    create_array,
    create_group,
    open_array,
    remove_leftovers,
    set_rows,
    sync_metadata,
    update_group_attributes,
)

# Aim of a chunk; the contract allows 16 to 128 MiB.
CHUNK_BYTES = 64 << 20
# Ids are held as text until their chunk is written, tens of bytes each.
_IDS_CHUNK_ROWS = 1 << 16
# Length of an array whose rows are not known until all have come.
_UNKNOWN_ROWS = 1 << 40


def default_chunk_rows(dims: int, dtype: np.dtype[Any]) -> int:
    """Rows of a chunk of about 64 MiB: whole fingerprint units, and whole chunks of ids."""
    unit = unit_rows(dims, dtype)
    rows = max(CHUNK_BYTES // (dims * dtype.itemsize), 1)
    step = max(unit, _IDS_CHUNK_ROWS) if rows > _IDS_CHUNK_ROWS else unit
    return max(rows // step, 1) * step


def ids_chunk_rows(chunk_rows: int) -> int:
    """Rows of a chunk of ids: a divisor of ``chunk_rows`` near 65,536, so that both are complete at the same rows."""
    if chunk_rows <= _IDS_CHUNK_ROWS:
        return chunk_rows
    for rows in range(_IDS_CHUNK_ROWS, _IDS_CHUNK_ROWS // 16, -1):
        if chunk_rows % rows == 0:
            return rows
    return chunk_rows


class StoreWriter:
    """Takes good rows in order and writes them in chunks.

    Parameters
    ----------
    partial : Partial
        Locked, and its job begun.
    rows : int or None
        Most rows that can come.
    dims : int
    dtype : dtype
    ids_dtype : dtype or None
    chunk_rows : int

    Attributes
    ----------
    progress : Progress
        What is safely written; after opening, where to go on reading.
    """

    def __init__(
        self,
        partial: Partial,
        rows: int | None,
        dims: int,
        dtype: np.dtype[Any],
        ids_dtype: np.dtype[Any] | None,
        chunk_rows: int,
    ) -> None:
        self._partial = partial
        self._shape = (_UNKNOWN_ROWS if rows is None else rows, dims)
        self._dtype, self._ids_dtype = dtype, ids_dtype
        self.chunk_rows = min(chunk_rows, self._shape[0])
        # With a single chunk, ids and embeddings need not be complete together before the end.
        single = self.chunk_rows == self._shape[0]
        self._ids_chunk = min(_IDS_CHUNK_ROWS, self._shape[0]) if single else ids_chunk_rows(chunk_rows)
        self.progress = partial.progress()
        if not (self.progress.stored and self._reopen()):
            self._create()
        self._buffer: NDArray[Any] = np.empty((self.chunk_rows, dims), dtype=dtype)
        self._filled = 0
        self._pending_ids: list[NDArray[Any]] = []
        self._ids_written = self.progress.stored

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return self.progress.stored + self._filled

    def append(self, values: NDArray[Any], ids: NDArray[Any] | None, after: Callable[[int], Progress]) -> None:
        """Take good rows of one block of a source.

        Parameters
        ----------
        values : ndarray, shape (m, dims)
        ids : ndarray or None, shape (m,)
        after : callable
            Where reading would go on behind the first so many of these rows (``stored`` is filled in here).
        """
        taken = 0
        while taken < len(values):
            count = min(self.chunk_rows - self._filled, len(values) - taken)
            self._buffer[self._filled : self._filled + count] = values[taken : taken + count]
            if ids is not None:
                self._pending_ids.append(ids[taken : taken + count])
            self._filled += count
            taken += count
            if self._filled == self.chunk_rows:
                self._commit(after(taken))
            elif ids is not None and self.rows - self._ids_written >= self._ids_chunk:
                self._write_ids(self.rows - self._ids_written - self.rows % self._ids_chunk)

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write what is left, cut the arrays to the rows that came, and add the attributes with the fingerprint."""
        total = self.rows
        for array in (self._array, self._ids):
            if array is not None and array.rows != total:
                set_rows(array.path, total)
        self._open()
        rest = self._buffer[: self._filled]
        self._fingerprint.update(rest)
        if len(rest):
            self._array.write(self.progress.stored, rest)
        if self._ids is not None and self._ids_written < total:
            self._write_ids(total - self._ids_written)
        update_group_attributes(self._partial.store, attributes | {"fingerprint": self._fingerprint.result()})
        sync_metadata(self._partial.store)

    def _commit(self, after: Progress) -> None:
        """Write the full chunk, and only then note it."""
        noted = self._whole_units()
        start = self.progress.stored
        self._array.write(start, self._buffer)
        self._fingerprint.update(self._buffer)
        if self._ids is not None:
            self._write_ids(start + self.chunk_rows - self._ids_written)
        self.progress = replace(after, stored=start + self.chunk_rows)
        self._filled = 0
        self._partial.commit(self.progress, noted, self._fingerprint.whole_units(noted))

    def _write_ids(self, count: int) -> None:
        assert self._ids is not None
        pending = np.concatenate(self._pending_ids)
        for start in range(0, count, self._ids_chunk):
            self._ids.write(self._ids_written + start, pending[start : min(start + self._ids_chunk, count)])
        self._ids_written += count
        self._pending_ids = [pending[count:]]

    def _whole_units(self) -> int:
        return self.progress.stored // self._fingerprint.unit_rows

    def _create(self) -> None:
        self.progress = Progress()
        self._fingerprint = FingerprintBuilder(self._shape[1], self._dtype)
        if os.path.isdir(self._partial.store):
            shutil.rmtree(self._partial.store)
        create_group(self._partial.store)
        create_array(self._path(ARRAY_NAME), self._shape, self._dtype, self.chunk_rows)
        if self._ids_dtype is not None:
            kind = np.int64 if self._ids_dtype.kind == "i" else str
            create_array(self._path(IDS_NAME), self._shape[:1], kind, self._ids_chunk)
        self._open()

    def _open(self) -> None:
        self._array = open_array(self._path(ARRAY_NAME), writable=True)
        self._ids = None if self._ids_dtype is None else open_array(self._path(IDS_NAME), writable=True)

    def _reopen(self) -> bool:
        """Go on behind the chunks that are noted; False where they, or their digests, are not all there."""
        try:
            remove_leftovers(self._partial.store)
            self._open()
            self._fingerprint = FingerprintBuilder(self._shape[1], self._dtype)
            units = self._whole_units()
            digests = self._partial.digests(units)
            chunks = range(self.progress.stored // self.chunk_rows)
            whole = self.chunk_rows * self._array.row_bytes
            lost = any(self._array.stamp(chunk)[0] != whole for chunk in chunks)
            if digests is None or lost or self._array.chunk_rows != self.chunk_rows:
                return False
            self._fingerprint = FingerprintBuilder(self._shape[1], self._dtype, digests)
            self._fingerprint.update(self._array.read(units * self._fingerprint.unit_rows, self.progress.stored))
        except (InputError, OSError):
            return False
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._partial.store, name)
