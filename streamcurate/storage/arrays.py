"""One Zarr array as a list of rows: checked reads, whole-chunk atomic writes.

Uncompressed chunks on a local disk are read and written as plain files: their bytes are the array's own. That gives
reads of part of a chunk, the length check that tells a truncated chunk, and writes that are flushed and renamed;
everything else (compression, shards, chunked columns, other byte orders) goes through Zarr's own codecs.
"""

from __future__ import annotations

import json
import operator
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.storage import LocalStore

from streamcurate.errors import InputError, StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder, write_json
from streamcurate.storage.groups import _open, node_kind
from streamcurate.storage.layout import is_raw, shard_fault

# Below this share of pages wanted in a range, single rows are fetched one by one instead of the whole range: a single
# row costs a call, and at least a page.
_SPARSE_SHARE = 1 / 16
_PAGE_BYTES = 4096
_TAKE_BYTES = 8 << 20


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
        Rows of one chunk (of one shard, where the array is sharded).
    """

    def __init__(self, path: str, array: zarr.Array[Any], *, durable: bool = True, writable: bool = True) -> None:
        self.path = path
        self.zarr = array
        self._writable = writable
        self.shape: tuple[int, ...] = tuple(array.shape)
        # Strings have no byte order, and NumPy refuses to be asked for one.
        self.dtype: np.dtype[Any] = array.dtype if array.dtype.kind in "OTU" else array.dtype.newbyteorder("=")
        self._durable = durable
        chunks = array.shards or array.chunks
        self.chunk_rows: int = max(int(chunks[0]), 1)
        self._column_chunks = tuple(
            -(-size // max(width, 1)) for size, width in zip(self.shape[1:], chunks[1:], strict=True)
        )
        self._raw = is_raw(array, self._column_chunks)
        self._lock = threading.Lock()
        self._decoded: tuple[int, NDArray[Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopened, (os.path.abspath(self.path), self._writable, self._durable))

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
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, uncompressed."""
        return self.rows * self.row_bytes

    @property
    def read_overhead_bytes(self) -> int:
        """Memory one read takes beside its result: encoded chunks are decoded whole and the last is kept."""
        return 0 if self._raw else 2 * self.chunk_rows * self.row_bytes

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
        for chunk in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
            first = chunk * self.chunk_rows
            low, high = max(start, first), min(stop, first + self.chunk_rows)
            part = out[low - start : high - start]
            if self._raw:
                self._read_raw(chunk, low - first, part)
            else:
                self._read_encoded(chunk, low - first, part)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read single rows, given in ascending order; shape (len(rows), ...)."""
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self.rows:
            raise IndexError(f"{self.path}: rows {rows[0]} to {rows[-1]} of {self.rows}")
        span = max(1, min(self.chunk_rows, _TAKE_BYTES // max(self.row_bytes, 1)))
        position = 0
        while position < len(rows):
            start = int(rows[position])
            stop = min(start + span, (start // self.chunk_rows + 1) * self.chunk_rows, self.rows)
            end = int(np.searchsorted(rows, stop))
            wanted = rows[position:end]
            range_bytes = (int(wanted[-1]) + 1 - start) * self.row_bytes
            if self._raw and len(wanted) * max(self.row_bytes, _PAGE_BYTES) < _SPARSE_SHARE * range_bytes:
                chunk = start // self.chunk_rows
                self._read_single_rows(chunk, wanted - chunk * self.chunk_rows, out[position:end])
            else:
                out[position:end] = self.read(start, int(wanted[-1]) + 1)[wanted - start]
            position = end
        return out

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
            if not self._raw:
                self._write_encoded(start, values)
                return
            values = np.ascontiguousarray(values, dtype=self.dtype)
            for first in range(start, stop, self.chunk_rows):
                self._write_raw(first // self.chunk_rows, values[first - start : first - start + self.chunk_rows])

    def stamps(self) -> list[tuple[int, int]]:
        """(bytes, modification time in ns) of every chunk's files, summed over the chunks of a row; (-1, -1) absent."""
        return [self.stamp(chunk) for chunk in range(-(-self.rows // self.chunk_rows))]

    def stored_digest(self, chunk: int) -> str:
        """XXH3-128 of the bytes of the files that hold one chunk of rows, as they are stored.

        Raises
        ------
        StoreError
            A file is absent.
        """
        digest = xxhash.xxh3_128()
        for file in self._chunk_files(chunk):
            try:
                with open(file, "rb") as stored:
                    while piece := stored.read(_TAKE_BYTES):
                        digest.update(piece)
            except FileNotFoundError:
                raise self._absent(chunk, file) from None
        return digest.hexdigest()

    def stamp(self, chunk: int) -> tuple[int, int]:
        """(bytes, latest modification time in ns) of the files that hold one chunk of rows; (-1, -1) where absent."""
        size, newest = 0, 0
        for file in self._chunk_files(chunk):
            try:
                status = os.stat(file)
            except FileNotFoundError:
                return (-1, -1)
            size += status.st_size
            newest = max(newest, status.st_mtime_ns)
        return (size, newest)

    # -- one chunk ---------------------------------------------------------------------------------------------------

    def _chunk_files(self, chunk: int) -> Iterator[str]:
        for columns in np.ndindex(*self._column_chunks):
            yield os.path.join(self.path, self.zarr.metadata.encode_chunk_key((chunk, *columns)))

    def _describe(self, chunk: int) -> str:
        first = chunk * self.chunk_rows
        return f"{self.path}: chunk {chunk} (rows {first} to {min(first + self.chunk_rows, self.rows) - 1})"

    def _absent(self, chunk: int, file: str) -> StoreError:
        return StoreError(
            f"{self._describe(chunk)} is absent ({file} does not exist); restore it or ingest again "
            "(chunks of zeros must be written too: write_empty_chunks)"
        )

    def _open_raw(self, chunk: int) -> int:
        file = next(self._chunk_files(chunk))
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            raise self._absent(chunk, file) from None
        size, expected = os.fstat(descriptor).st_size, self.chunk_rows * self.row_bytes
        if size != expected:
            os.close(descriptor)
            kind = "truncated" if size < expected else "too long"
            raise StoreError(
                f"{self._describe(chunk)} is {kind}: {file} holds {size:,} bytes instead of {expected:,}; "
                "restore it or ingest again"
            )
        return descriptor

    def _read_raw(self, chunk: int, row: int, out: NDArray[Any]) -> None:
        descriptor = self._open_raw(chunk)
        try:
            self._fill(descriptor, chunk, row, out)
        finally:
            os.close(descriptor)

    def _read_single_rows(self, chunk: int, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        descriptor = self._open_raw(chunk)
        try:
            for position, row in enumerate(rows.tolist()):
                self._fill(descriptor, chunk, row, out[position : position + 1])
        finally:
            os.close(descriptor)

    def _fill(self, descriptor: int, chunk: int, row: int, out: NDArray[Any]) -> None:
        view, offset = out.data.cast("B") if out.size else memoryview(b""), row * self.row_bytes
        while len(view):
            count = os.preadv(descriptor, [view], offset)
            if count == 0:  # shrunk between the size check and here
                raise StoreError(f"{self._describe(chunk)} was cut short while it was read; restore it or ingest again")
            view, offset = view[count:], offset + count

    def _read_encoded(self, chunk: int, row: int, out: NDArray[Any]) -> None:
        with self._lock:
            if self._decoded is None or self._decoded[0] != chunk:
                self._decoded = None
                self._decoded = (chunk, self._decode(chunk))
            out[:] = self._decoded[1][row : row + len(out)]

    def _decode(self, chunk: int) -> NDArray[Any]:
        for file in self._chunk_files(chunk):
            if not os.path.exists(file):
                raise self._absent(chunk, file)
        first = chunk * self.chunk_rows
        rows = min(self.rows - first, self.chunk_rows)
        for column, file in zip(np.ndindex(*self._column_chunks), self._chunk_files(chunk), strict=True):
            if fault := shard_fault(self.zarr, file, rows, column):
                raise StoreError(f"{self._describe(chunk)}: {file} {fault}; restore it or ingest again")
        try:
            return np.asarray(self.zarr[first : first + rows])
        except Exception as error:  # each codec has its own errors for damaged input
            raise StoreError(
                f"{self._describe(chunk)} cannot be decoded ({type(error).__name__}: {error}); "
                "restore it or ingest again"
            ) from error

    def _write_raw(self, chunk: int, values: NDArray[Any]) -> None:
        file = next(self._chunk_files(chunk))
        if not os.path.isdir(folder := os.path.dirname(file)):
            if not os.path.isdir(self.path):  # an orphan of a run that has moved on must not make it again
                raise StoreError(f"{self.path}: is gone; another process removed it while it was being written")
            os.makedirs(folder, exist_ok=True)
        temporary = f"{file}.{os.getpid()}{TEMPORARY_SUFFIX}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                view = values.data.cast("B") if values.size else memoryview(b"")
                while len(view):
                    view = view[os.write(descriptor, view) :]
                os.ftruncate(descriptor, self.chunk_rows * self.row_bytes)  # an edge chunk is stored at full length
                if self._durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, file)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        if self._durable:
            sync_folder(os.path.dirname(file))

    def _write_encoded(self, start: int, values: NDArray[Any]) -> None:
        stop = start + len(values)
        self.zarr[start:stop] = values
        if self._durable:
            for chunk in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
                for file in self._chunk_files(chunk):
                    sync_folder(file)  # fsync works on a file's descriptor just as on a folder's
                    sync_folder(os.path.dirname(file))


def open_array(path: str | os.PathLike[str], *, writable: bool = False) -> StoredArray:
    """Open an existing Zarr array (v2 or v3) of one or two dimensions, for reading unless ``writable``.

    Raises
    ------
    InputError
        There is no such array.
    """
    node = _open(path, "r+" if writable else "r")
    if not isinstance(node, zarr.Array):
        raise InputError(f"{path}: a Zarr group, not an array; name one of its arrays")
    if node.ndim not in (1, 2):
        raise InputError(f"{path}: an array of {node.ndim} dimensions; one or two are needed")
    return StoredArray(os.fspath(path), node, writable=writable)


@lru_cache(maxsize=64)
def _opened(path: str, writable: bool, durable: bool, stamp: tuple[int, int, int] | None) -> StoredArray:
    return StoredArray(path, open_array(path, writable=writable).zarr, durable=durable, writable=writable)


def _reopened(path: str, writable: bool, durable: bool) -> StoredArray:
    """An array out of a pickle. Tasks come by the thousand, so that the metadata is read again only when it changed."""
    stamp = None
    for name in ("zarr.json", ".zarray"):
        with suppress(FileNotFoundError):
            status = os.stat(os.path.join(path, name))
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            break
    return _opened(path, writable, durable, stamp)


def create_array(
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    chunk_rows: int,
    *,
    durable: bool = True,
    overwrite: bool = False,
) -> StoredArray:
    """Create a Zarr v3 array, uncompressed unless it holds strings, every chunk written.

    Parameters
    ----------
    path : path
        Its folder, inside a group's folder or alone.
    shape : tuple of int
        One or two dimensions.
    dtype : dtype
        A numeric dtype, or ``str``.
    chunk_rows : int
        Rows of a chunk; chunks span all columns.
    durable : bool
        Flush what is written to the device; False for scratch.
    overwrite : bool
        Replace an array that lies there.
    """
    if not overwrite and node_kind(path) is not None:
        raise InputError(f"{path}: already exists; choose another place or remove it first")
    text = np.dtype(dtype).kind in "UT"
    with disk_errors(path):
        array = zarr.create_array(
            store=os.fspath(path),
            shape=shape,
            dtype=str if text else np.dtype(dtype).newbyteorder("<"),
            chunks=(max(1, min(chunk_rows, shape[0])), *(max(1, size) for size in shape[1:])),
            compressors="auto" if text else None,
            filters="auto",
            fill_value="" if text else 0,
            zarr_format=3,
            config={"write_empty_chunks": True},
            overwrite=overwrite,
        )
    return StoredArray(os.fspath(path), array, durable=durable)


def set_rows(path: str | os.PathLike[str], rows: int) -> StoredArray:
    """Set the length of a Zarr v3 array's first axis, durably; no chunk is touched.

    For arrays whose length is known only when all rows have come: they are created longer and cut here.

    Returns
    -------
    StoredArray
        The array of the new length, writable.
    """
    file = os.path.join(path, "zarr.json")
    with open(file, "rb") as source:
        metadata = json.load(source)
    metadata["shape"][0] = rows
    write_json(file, metadata)
    return open_array(path, writable=True)


def local_path(node: Any) -> str | None:
    """Folder of an open Zarr array or group on a local disk; None where it lies elsewhere or is neither."""
    if not isinstance(node, zarr.Array | zarr.Group) or not isinstance(node.store, LocalStore):
        return None
    return os.path.join(node.store.root, node.path) if node.path else os.fspath(node.store.root)
