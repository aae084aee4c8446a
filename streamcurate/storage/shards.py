"""Shards: many chunks in one file, and an index that says where each lies.

Zarr v3, codec ``sharding_indexed``, section "Binary shard format": for every chunk of the shard two little-endian
uint64, offset and length, both 2^64 - 1 where the chunk is absent, and a CRC-32C behind them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from streamcurate.storage.chunkfiles import ChunkFiles, Piece, State, UnexpectedLengthError, bytes_of
from streamcurate.storage.layout import Layout

_ABSENT = np.uint64(2**64 - 1)
_ENTRY_BYTES, _CHECKSUM_BYTES = 16, 4
# Rows of another dtype, or not in one piece, are copied so many bytes at a time.
_CONVERTED_BYTES = 16 << 20


class ShardError(Exception):
    """What keeps a shard from being read."""


def index_bytes(offsets: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> bytes:
    """The index of a shard, with its checksum."""
    data = np.stack((offsets, lengths), axis=-1).astype("<u8").tobytes()
    return data + int(google_crc32c.value(data)).to_bytes(_CHECKSUM_BYTES, "little")


def written_index(chunks: int, whole: int, chunk_bytes: int) -> bytes:
    """The index of a shard whose first ``whole`` of ``chunks`` chunks lie one behind the other from its beginning."""
    offsets = np.full(chunks, _ABSENT, dtype=np.uint64)
    lengths = offsets.copy()
    offsets[:whole] = np.arange(whole, dtype=np.uint64) * np.uint64(chunk_bytes)
    lengths[:whole] = chunk_bytes
    return index_bytes(offsets, lengths)


def read_index(files: ChunkFiles, name: str, layout: Layout) -> tuple[State, NDArray[np.uint64]]:
    """State of a shard's file, and its index, shape (*chunks, 2).

    Raises
    ------
    FileNotFoundError
        There is no such shard.
    ShardError
        It is too short, or its index is damaged.
    """
    length = _index_length(layout)
    for _ in range(3):
        state = files.state(name)
        if state is None:
            raise FileNotFoundError(files.place(name))
        if state.size < length:
            raise ShardError(f"is truncated: it holds {state.size:,} bytes, and its index alone {length:,}")
        data = bytearray(length)
        try:
            now = files.read(name, [(state.size - length if layout.index_at_end else 0, memoryview(data))])
        except UnexpectedLengthError:
            continue
        if now == state:
            break
    else:
        raise ShardError("is being written by another process")
    plain = bytes(data[: length // _ENTRY_BYTES * _ENTRY_BYTES])
    if layout.index_checksum and int.from_bytes(data[-_CHECKSUM_BYTES:], "little") != google_crc32c.value(plain):
        raise ShardError("has a damaged index, or is truncated (its checksum is wrong)")
    return state, np.frombuffer(plain, dtype="<u8").reshape(*layout.counts, 2)


def check_index(
    index: NDArray[np.uint64], size: int, layout: Layout, needed: tuple[int, ...], chunk_bytes: int | None
) -> None:
    """Make sure that the chunks a reader needs are in the shard, and of their length where that is known.

    Zarr reads chunks that are missing inside a shard as zeros.

    Raises
    ------
    ShardError
    """
    entries = index[tuple(slice(count) for count in needed)].reshape(-1, 2)
    if (entries[:, 0] == _ABSENT).any():
        raise ShardError("lacks some of its chunks (chunks of zeros must be written too: write_empty_chunks)")
    offsets, lengths = entries[:, 0], entries[:, 1]
    if chunk_bytes is not None and (lengths != chunk_bytes).any():
        raise ShardError(f"has a damaged index: a chunk of other than {chunk_bytes:,} bytes")
    length = _index_length(layout)
    first, end = np.uint64(0 if layout.index_at_end else length), np.uint64(size - length * layout.index_at_end)
    # Compared so that nothing overflows.
    if (lengths > end).any() or (offsets < first).any() or (offsets > end - np.minimum(lengths, end)).any():
        raise ShardError(f"is truncated: it holds {size:,} bytes, and its index tells of more")


def _index_length(layout: Layout) -> int:
    entries = int(np.prod(layout.counts, dtype=np.int64))
    return entries * _ENTRY_BYTES + (_CHECKSUM_BYTES if layout.index_checksum else 0)


def needed_counts(layout: Layout, shape: tuple[int, ...], position: tuple[int, ...]) -> tuple[int, ...]:
    """How many chunks of a shard lie inside the array, along each axis."""
    counts = []
    for axis, place in enumerate(position):
        extent = min(shape[axis] - place * layout.file_shape[axis], layout.file_shape[axis])
        counts.append(-(-extent // layout.chunk_shape[axis]))
    return tuple(counts)


def shard_pieces(
    index: NDArray[np.uint64], chunk_rows: int, row_bytes: int, first: int, count: int, view: memoryview
) -> Iterator[Piece]:
    """Where in a shard rows lie, and where in memory they go; chunks that lie one behind the other make one piece."""
    begin, position, done = -1, 0, 0  # of the piece that is growing: where in the file, and where in memory
    row = first
    while row < first + count:
        chunk, inside = divmod(row, chunk_rows)
        rows = min(chunk_rows - inside, first + count - row)
        offset = int(index.reshape(-1, 2)[chunk, 0]) + inside * row_bytes
        if begin < 0 or offset != begin + done - position:
            if begin >= 0:
                yield begin, view[position:done]
            begin, position = offset, done
        done += rows * row_bytes
        row += rows
    yield begin, view[position:done]


class ShardWriter:
    """Writes one shard of a stored array front to back, holding none of it.

    The shard is there when the writer is closed, or not at all. As a context manager, an error gives it up.

    Parameters
    ----------
    array : StoredArray
        Of plain numbers, in shards.
    shard : int
        Its number: it holds the rows from ``shard * array.chunk_rows`` on.
    """

    def __init__(self, array: Any, shard: int) -> None:
        layout: Layout = array.layout
        if layout.kind != "shards":
            raise ValueError(f"{array.path}: is not an array of plain rows in shards")
        self._array, self._layout = array, layout
        self._rows = min(array.rows - shard * array.chunk_rows, array.chunk_rows)
        if not 0 < self._rows <= array.chunk_rows or shard < 0:
            raise ValueError(f"{array.path}: shard {shard} of {-(-array.rows // array.chunk_rows)}")
        self._name = array.chunk_name(shard)
        self._written = 0
        self._stream: Any = array.files.stream(self._name)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def append(self, values: NDArray[Any]) -> None:
        """Add rows.

        Raises
        ------
        DiskFullError, ObjectError
            The place does not take them.
        """
        if self._written + len(values) > self._rows:
            self.abort()
            raise ValueError(f"{self._array.path}: more rows than the {self._rows} of a shard")
        step = max(_CONVERTED_BYTES // max(self._array.row_bytes, 1), 1)
        for start in range(0, len(values), step):
            piece = np.ascontiguousarray(values[start : start + step], dtype=self._array.dtype)
            self._write(bytes_of(piece))
        self._written += len(values)

    def close(self, *, short: bool = False) -> None:
        """Complete the shard.

        Parameters
        ----------
        short : bool
            Fewer rows came than the array was to have: it is cut behind them.
        """
        if self._stream is None:
            return
        if self._written != self._rows and not short:
            self.abort()
            raise ValueError(f"{self._array.path}: {self._written} rows of the {self._rows} of a shard")
        chunk = self._layout.chunk_shape[0]
        whole = -(-self._written // chunk)
        # The last chunk of an array is stored at full length.
        self._write(memoryview(bytes((whole * chunk - self._written) * self._array.row_bytes)))
        self._write(memoryview(written_index(self._layout.counts[0], whole, chunk * self._array.row_bytes)))
        stream, self._stream = self._stream, None
        try:
            stream.close()
        except BaseException:
            stream.abort()
            raise

    def abort(self) -> None:
        """Leave nothing of the shard."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.abort()

    def _write(self, data: memoryview) -> None:
        try:
            self._stream.write(data)
        except BaseException:
            self.abort()
            raise
