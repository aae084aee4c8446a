"""One Zarr array as a list of rows: checked reads, whole-chunk atomic writes.

Uncompressed chunks, alone or in shards, are read and written as plain files or objects: their bytes are the array's
own. That gives reads of part of a chunk, the length check that tells a truncated chunk, and writes that are flushed and
renamed; everything else (compression, chunked columns, other byte orders) goes through Zarr's own codecs.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import xxhash
import zarr
from numpy.typing import DTypeLike, NDArray

from streamcurate.errors import ObjectError, StoreError
from streamcurate.files import disk_errors, sync_folder
from streamcurate.objects import is_url
from streamcurate.storage.chunkfiles import ChunkFiles, LocalFiles, State, bytes_of
from streamcurate.storage.layout import layout_of
from streamcurate.storage.plain import PlainReader
from streamcurate.storage.shards import ShardError, ShardWriter, check_index, needed_counts, read_index
from streamcurate.storage.urls import ObjectFiles

# Below this share of bytes wanted in a range, single rows are fetched one by one instead of the whole range.
_SPARSE_SHARE = 1 / 16


class StoredArray:
    """Handle of one Zarr array (v2 or v3) of one or two dimensions, cut into chunks along its rows.

    Safe to use from several threads. Pickles as its path, and comes out of a pickle as one handle a process.

    Attributes
    ----------
    path : str
        Where it lies, as messages name it.
    shape : tuple of int
    dtype : numpy.dtype
        In native byte order.
    chunk_rows : int
        Rows of one file, which is written whole: of a chunk, or of a shard where the array is sharded.
    unit_rows : int
        Rows of one chunk, inside a shard where the array is sharded.
    row_bytes : int
        Bytes of one row.
    layout : Layout
        What the files hold.
    files : ChunkFiles
        The files themselves.
    """

    def __init__(self, path: str, array: zarr.Array[Any], *, durable: bool = True, writable: bool = True) -> None:
        self.path = path
        self.zarr = array
        self._writable = writable
        self.shape: tuple[int, ...] = tuple(array.shape)
        # Strings have no byte order, and NumPy refuses to be asked for one.
        self.dtype: np.dtype[Any] = array.dtype if array.dtype.kind in "OTU" else array.dtype.newbyteorder("=")
        self.row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._durable = durable
        self.layout = layout_of(array)
        self.chunk_rows: int = self.layout.file_shape[0]
        self.unit_rows: int = self.layout.chunk_shape[0]
        self._column_files = tuple(
            -(-size // width) for size, width in zip(self.shape[1:], self.layout.file_shape[1:], strict=True)
        )
        self.files: ChunkFiles = ObjectFiles(path) if is_url(path) else LocalFiles(path, durable=durable)
        self._timed = isinstance(self.files, LocalFiles)
        self._lock = threading.Lock()
        self._decoded: tuple[int, NDArray[Any]] | None = None
        self._plain = PlainReader(self) if self.layout.kind != "encoded" else None

    def __reduce__(self) -> tuple[Any, ...]:
        from streamcurate.storage.opening import reopened  # which imports this module

        place = self.path if is_url(self.path) else os.path.abspath(self.path)
        return (reopened, (place, self._writable, self._durable))

    def __repr__(self) -> str:
        return f"StoredArray({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, key: Any) -> Any:
        """A single row, or a range of rows as :meth:`read` gives it; strings as objects of type ``str``.

        Raises
        ------
        IndexError
            There is no such row.
        TypeError
            Neither a whole number nor a slice of step 1.
        """
        if isinstance(key, slice):
            start, stop, step = key.indices(self.rows)
            if step == 1:
                values = self.read(start, max(start, stop))
                return values.astype(object) if self.dtype.kind in "OTU" else values
        elif hasattr(key, "__index__") and not isinstance(key, bool | np.ndarray):
            row = operator.index(key)
            if not -self.rows <= row < self.rows:
                raise IndexError(f"{self.path}: row {row} of {self.rows}")
            return self[row % self.rows : row % self.rows + 1][0]
        raise TypeError(
            f"{self.path}: [{key!r}] is no single row and no range of step 1; "
            "use take() for some rows, or read a range and index that"
        )

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, read into memory; without it NumPy would fetch them one by one."""
        if copy is False:
            raise ValueError(
                f"{self.path}: lies on disk, so that an array of it is always a copy; leave copy=False out"
            )
        values: NDArray[Any] = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)

    @property
    def rows(self) -> int:
        """Length of the first axis."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, uncompressed."""
        return self.rows * self.row_bytes

    @property
    def read_overhead_bytes(self) -> int:
        """Memory one read takes beside its result: encoded chunks are decoded whole and the last is kept."""
        if self._plain:
            return self.files.overhead_bytes
        # An object comes whole before it is decoded.
        held = 2 if self.files.overhead_bytes == 0 else 3
        return held * self.unit_rows * self.row_bytes + self.files.overhead_bytes

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read rows ``start`` to ``stop``.

        Parameters
        ----------
        start, stop : int
            A range inside the array.
        out : ndarray, optional
            C-contiguous array of the result's shape and dtype to read into.

        Returns
        -------
        ndarray, shape (stop - start, ...)
            C-contiguous, native byte order.

        Raises
        ------
        StoreError
            A chunk is absent, truncated or cannot be decoded.
        """
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"{self.path}: rows {start} to {stop} of {self.rows}")
        if out is None:
            out = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        step = self.chunk_rows if self._plain else self.unit_rows
        edges = [start, *range((start // step + 1) * step, stop, step), stop]
        parts = ((low, out[low - start : high - start]) for low, high in pairwise(edges))
        if self._plain and step * self.row_bytes <= self.files.piece_bytes:
            self.files.each(lambda part: self._read_part(*part), parts)
        else:  # long ones one by one, each of them in pieces side by side
            for part in parts:
                self._read_part(*part)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read single rows, given in ascending order; shape (len(rows), ...)."""
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self.rows:
            raise IndexError(f"{self.path}: rows {rows[0]} to {rows[-1]} of {self.rows}")
        work = partial(self._take_range, rows, out)
        if self._plain:
            self.files.each(work, self._ranges(rows))
        else:  # in order, so that each chunk is decoded once
            for bounds in self._ranges(rows):
                work(bounds)
        return out

    def _ranges(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Positions in ascending ``rows`` that lie together in a file, near enough to be read at once."""
        span = max(1, min(self.chunk_rows, self.files.take_bytes // max(self.row_bytes, 1)))
        position = 0
        while position < len(rows):
            start = int(rows[position])
            end = int(np.searchsorted(rows, min(start + span, (start // self.chunk_rows + 1) * self.chunk_rows)))
            yield position, end
            position = end

    def _take_range(self, rows: NDArray[np.int64], out: NDArray[Any], bounds: tuple[int, int]) -> None:
        wanted, part = rows[bounds[0] : bounds[1]], out[bounds[0] : bounds[1]]
        start, stop = int(wanted[0]), int(wanted[-1]) + 1
        sparse = len(wanted) * max(self.row_bytes, self.files.request_bytes)
        if self._plain and sparse < _SPARSE_SHARE * (stop - start) * self.row_bytes:
            self._plain.read_single(wanted, part)
        elif stop - start == len(wanted) and (np.diff(wanted) == 1).all():
            self.read(start, stop, part)
        else:
            part[...] = self.read(start, stop)[wanted - start]

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Write whole chunks: ``start`` on a chunk boundary, ``values`` up to another or to the array's end.

        Each chunk appears complete or not at all.

        Raises
        ------
        DiskFullError
            The device is full.
        """
        stop = start + len(values)
        if start % self.chunk_rows or (stop % self.chunk_rows and stop != self.rows) or stop > self.rows:
            raise ValueError(f"{self.path}: rows {start} to {stop} are not whole chunks of {self.chunk_rows} rows")
        with disk_errors(self.path):
            if not self._plain:
                self._write_encoded(start, values)
                return
            for first in range(start, stop, self.chunk_rows):
                part = values[first - start : first - start + self.chunk_rows]
                if self.layout.kind == "shards":
                    with ShardWriter(self, first // self.chunk_rows) as writer:
                        writer.append(part)
                else:
                    part = np.ascontiguousarray(part, dtype=self.dtype)
                    name = self.chunk_name(first // self.chunk_rows)
                    # A chunk at the edge is stored at full length.
                    self.files.write(name, bytes_of(part), self.chunk_rows * self.row_bytes)

    def stamps(self) -> list[tuple[int, int]]:
        """(bytes, change) of every chunk's files, summed over the chunks of a row; (-1, -1) where absent.

        What changes is the modification time in ns of a local file and the tag of an object.
        """
        width = int(np.prod(self._column_files, dtype=np.int64))
        chunks = range(-(-self.rows // self.chunk_rows))
        states = iter(self.files.states([name for chunk in chunks for name in self._names(chunk)]))
        return [_stamp(list(islice(states, width)), self._timed) for _ in chunks]

    def stamp(self, chunk: int) -> tuple[int, int]:
        """(bytes, change) of the files that hold one chunk of rows; (-1, -1) where absent."""
        return _stamp([self.files.state(name) for name in self._names(chunk)], self._timed)

    def stored_digest(self, chunk: int) -> str:
        """XXH3-128 of the bytes of the files that hold one chunk of rows, as they are stored.

        Raises
        ------
        StoreError
            A file is absent.
        """
        digest = xxhash.xxh3_128()
        for name in self._names(chunk):
            try:
                for block in self.files.blocks(name):
                    digest.update(block)
            except FileNotFoundError:
                raise self.absent(chunk, name) from None
        return digest.hexdigest()

    def chunk_name(self, chunk: int) -> str:
        """Name, below the array, of the file that holds a chunk of rows (the first one, where columns are cut too)."""
        return next(self._names(chunk))

    # -- one chunk ---------------------------------------------------------------------------------------------------

    def _names(self, chunk: int) -> Iterator[str]:
        for columns in np.ndindex(*self._column_files):
            yield self.zarr.metadata.encode_chunk_key((chunk, *columns))

    def describe(self, chunk: int) -> str:
        """A chunk, as messages name it."""
        first = chunk * self.chunk_rows
        return f"{self.path}: chunk {chunk} (rows {first} to {min(first + self.chunk_rows, self.rows) - 1})"

    def absent(self, chunk: int, name: str) -> StoreError:
        """The error of a file that is not there."""
        return StoreError(
            f"{self.describe(chunk)} is absent ({self.files.place(name)} does not exist); restore it or ingest again "
            "(chunks of zeros must be written too: write_empty_chunks)"
        )

    def damaged(self, chunk: int, name: str, fault: object) -> StoreError:
        """The error of a file that cannot be read."""
        return StoreError(f"{self.describe(chunk)}: {self.files.place(name)} {fault}; restore it or ingest again")

    def _read_part(self, start: int, out: NDArray[Any]) -> None:
        """Rows of one file, or of one chunk that is decoded whole."""
        if self._plain:
            self._plain.read(start, out)
        elif len(out):
            self._read_encoded(start, out)

    def _read_encoded(self, row: int, out: NDArray[Any]) -> None:
        unit = row // self.unit_rows
        with self._lock:
            if self._decoded is None or self._decoded[0] != unit:
                self._decoded = None
                self._decoded = (unit, self._decode(unit))
            row -= unit * self.unit_rows
            out[:] = self._decoded[1][row : row + len(out)]

    def _decode(self, unit: int) -> NDArray[Any]:
        first = unit * self.unit_rows
        chunk = first // self.chunk_rows
        stop = min(first + self.unit_rows, (chunk + 1) * self.chunk_rows, self.rows)
        for columns, name in zip(np.ndindex(*self._column_files), self._names(chunk), strict=True):
            try:
                if self.layout.fault:
                    raise ShardError(self.layout.fault)
                if self.layout.sharded:
                    state, index = read_index(self.files, name, self.layout)
                    needed = needed_counts(self.layout, self.shape, (chunk, *columns))
                    check_index(index, state.size, self.layout, needed, None)
                elif self.files.state(name) is None:
                    raise self.absent(chunk, name)
            except FileNotFoundError:
                raise self.absent(chunk, name) from None
            except ShardError as error:
                raise self.damaged(chunk, name, error) from None
        try:
            return np.asarray(self.zarr[first:stop])
        except ObjectError:
            raise
        except Exception as error:  # each codec has its own errors for damaged input
            raise StoreError(
                f"{self.describe(chunk)} cannot be decoded ({type(error).__name__}: {error}); "
                "restore it or ingest again"
            ) from error

    def _write_encoded(self, start: int, values: NDArray[Any]) -> None:
        stop = start + len(values)
        self.zarr[start:stop] = values
        if self._durable and self._timed:
            for chunk in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
                for name in self._names(chunk):
                    sync_folder(file := self.files.place(name))  # fsync works on a file's descriptor just as well
                    sync_folder(os.path.dirname(file))


def _stamp(states: list[State | None], timed: bool) -> tuple[int, int]:
    if any(state is None for state in states):
        return (-1, -1)
    there = [state for state in states if state is not None]
    changes = [state.changed for state in there]
    # Of times the newest tells of a change; tags have no order, so that all of them count.
    if timed or len(there) == 1:
        changed = max(changes, default=0)
    else:
        changed = xxhash.xxh3_64_intdigest(repr(changes).encode()) >> 1
    return (sum(state.size for state in there), changed)
