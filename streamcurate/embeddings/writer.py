"""Writes a store chunk by chunk into an unfinished ingest, ready to go on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.fingerprint import FingerprintBuilder, unit_rows
from streamcurate.embeddings.unfinished import Arrays, Layout, Progress, Unfinished
from streamcurate.errors import InputError
from streamcurate.storage import ShardWriter

# Aim of a chunk; the contract allows 16 to 128 MiB.
CHUNK_BYTES = 64 << 20
# Ids are held as text until their chunk is written, tens of bytes each.
_IDS_CHUNK_ROWS = 1 << 16
# Where files are to be few and large, those of ids are fewer too, as far as memory allows.
_SHARDED_IDS_CHUNK_ROWS = 1 << 18
# Length of an array whose rows are not known until all have come.
_UNKNOWN_ROWS = 1 << 40


def default_chunk_rows(dims: int, dtype: np.dtype[Any]) -> int:
    """Rows of a chunk of about 64 MiB: whole fingerprint units, and whole chunks of ids."""
    unit = unit_rows(dims, dtype)
    rows = max(CHUNK_BYTES // (dims * dtype.itemsize), 1)
    step = max(unit, _IDS_CHUNK_ROWS) if rows > _IDS_CHUNK_ROWS else unit
    return max(rows // step, 1) * step


def ids_chunk_rows(file_rows: int, most: int = _IDS_CHUNK_ROWS) -> int:
    """Rows of a chunk of ids: a divisor of ``file_rows`` near ``most``, so that both are complete at the same rows."""
    if file_rows <= most:
        return file_rows
    for rows in range(most, most // 16, -1):
        if file_rows % rows == 0:
            return rows
    return file_rows


class StoreWriter:
    """Takes good rows in order and writes them in chunks.

    Parameters
    ----------
    partial : Unfinished
        Claimed, and its job begun.
    rows : int or None
        Most rows that can come.
    dims : int
    dtype : dtype
    ids_dtype : dtype or None
    chunk_rows : int
    shard_rows : int, optional
        Rows of files of several chunks.

    Attributes
    ----------
    progress : Progress
        What is safely written; after opening, where to go on reading.
    """

    def __init__(
        self,
        partial: Unfinished,
        rows: int | None,
        dims: int,
        dtype: np.dtype[Any],
        ids_dtype: np.dtype[Any] | None,
        chunk_rows: int,
        shard_rows: int | None = None,
    ) -> None:
        self._partial = partial
        self._layout = make_layout(rows, dims, dtype, ids_dtype, chunk_rows, shard_rows)
        self.progress = partial.progress
        self._fingerprint = FingerprintBuilder(dims, dtype)
        if not (self.progress.stored and self._reopen()):
            self.progress = Progress()
            self._fingerprint = FingerprintBuilder(dims, dtype)
            self._take(partial.create(self._layout))
        self._buffer: NDArray[Any] = np.empty((self._layout.chunk_rows, dims), dtype=dtype)
        # Rows in the buffer, and behind those that are safely written in a shard that is not yet complete.
        self._filled = self._begun = 0
        self._shard: ShardWriter | None = None
        self._pending_ids: list[NDArray[Any]] = []
        self._ids_written = self.progress.stored

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return self.progress.stored + self._begun + self._filled

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            self._shard.abort()

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
            count = min(len(self._buffer) - self._filled, len(values) - taken)
            self._buffer[self._filled : self._filled + count] = values[taken : taken + count]
            if ids is not None:
                self._pending_ids.append(ids[taken : taken + count])
            self._filled += count
            taken += count
            if self._filled == len(self._buffer):
                self._write_buffer()
                if self._begun == self._layout.file_rows:
                    self._commit(after(taken))
            if self.rows - self._ids_written >= self._layout.ids_chunk_rows:
                self._write_ids(self.rows - self._ids_written - self.rows % self._layout.ids_chunk_rows)

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write what is left, cut the arrays to the rows that came, and add the attributes with the fingerprint."""
        total = self.rows
        self._take(self._partial.cut(total))
        if self._filled:
            self._write_buffer()
        self._complete_shard(short=True)
        if self._ids_written < total:
            self._write_ids(total - self._ids_written)
        self._partial.seal(attributes | {"fingerprint": self._fingerprint.result()})

    def _write_buffer(self) -> None:
        """Write the rows of the buffer: a chunk, or a piece of a shard."""
        rows = self._buffer[: self._filled]
        start = self.progress.stored + self._begun
        if self._layout.shard_rows is None:
            self._partial.require()
            self._array.write(start, rows)
        else:
            if self._shard is None:
                self._shard = ShardWriter(self._array, start // self._layout.shard_rows)
            self._shard.append(rows)
        self._fingerprint.update(rows)
        self._begun += self._filled
        self._filled = 0

    def _complete_shard(self, *, short: bool = False) -> None:
        if self._shard is not None:
            self._partial.require()
            self._shard.close(short=short)
            self._shard = None

    def _commit(self, after: Progress) -> None:
        """Complete the file, and only then note it."""
        noted = self._whole_units()
        self._complete_shard()
        stored = self.progress.stored + self._begun
        if self._ids_written < stored:
            self._write_ids(stored - self._ids_written)
        self.progress = replace(after, stored=stored)
        self._begun = 0
        self._partial.commit(self.progress, noted, self._fingerprint.whole_units(noted))

    def _write_ids(self, count: int) -> None:
        if self._ids is None:
            self._ids_written += count
            return
        self._partial.require()
        pending, step = np.concatenate(self._pending_ids), self._layout.ids_chunk_rows
        for start in range(0, count, step):
            self._ids.write(self._ids_written + start, pending[start : min(start + step, count)])
        self._ids_written += count
        self._pending_ids = [pending[count:]]

    def _whole_units(self) -> int:
        return self.progress.stored // self._fingerprint.unit_rows

    def _take(self, arrays: Arrays) -> None:
        self._array, self._ids = arrays

    def _reopen(self) -> bool:
        """Go on behind the files that are noted; False where they, or their digests, are not all there."""
        try:
            arrays = self._partial.reopen(self._layout)
            units = self._whole_units()
            digests = self._partial.digests(units)
            if arrays is None or digests is None:
                return False
            self._take(arrays)
            self._fingerprint = FingerprintBuilder(self._layout.shape[1], self._layout.dtype, digests)
            for start in range(units * self._fingerprint.unit_rows, self.progress.stored, self._layout.chunk_rows):
                stop = min(start + self._layout.chunk_rows, self.progress.stored)
                self._fingerprint.update(self._array.read(start, stop))
        except (InputError, OSError):
            return False
        return True


def make_layout(
    rows: int | None,
    dims: int,
    dtype: np.dtype[Any],
    ids_dtype: np.dtype[Any] | None,
    chunk_rows: int,
    shard_rows: int | None,
) -> Layout:
    """The arrays for so many rows (None: it is not known how many)."""
    total = _UNKNOWN_ROWS if rows is None else rows
    chunk_rows = min(chunk_rows, total)
    if shard_rows is not None:
        shard_rows = min(shard_rows, -(-total // chunk_rows) * chunk_rows)
    # With a single chunk, ids and embeddings need not be complete together before the end.
    if chunk_rows == total:
        ids_chunk = min(_IDS_CHUNK_ROWS, total)
    elif shard_rows is None:
        ids_chunk = ids_chunk_rows(chunk_rows)
    else:
        ids_chunk = ids_chunk_rows(shard_rows, _SHARDED_IDS_CHUNK_ROWS)
        if ids_chunk > _SHARDED_IDS_CHUNK_ROWS:  # no divisor near it
            ids_chunk = ids_chunk_rows(chunk_rows)
    ids = None if ids_dtype is None else np.int64 if ids_dtype.kind == "i" else str
    return Layout((total, dims), np.dtype(dtype), chunk_rows, shard_rows, ids, min(ids_chunk, total))
