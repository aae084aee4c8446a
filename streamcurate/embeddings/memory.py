"""Arrays in memory as rows: NumPy, CuPy and Dask, told apart by what they can do, so that none need be installed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import check_floating, check_matrix
from streamcurate.errors import DataError, InputError
from streamcurate.streaming.source import MemoryRows, RowSource

# A range of rows rarely touches more than two rows of blocks.
_KEPT_BLOCKS = 2


def rows_of(value: Any, *, convert: bool) -> RowSource:
    """An array in memory as a row source.

    Parameters
    ----------
    value : NumPy, CuPy or Dask array, or what NumPy takes for an array
    convert : bool
        Round float64 to float32; otherwise it is given as it is.

    Raises
    ------
    InputError
        Not an array, or of other dimensions or dtype.
    DataError
        A finite float64 value lies beyond float32.
    """
    if is_dask(value):
        name = f"Dask array {value.name}" if isinstance(getattr(value, "name", None), str) else "Dask array"
        check_matrix(value.shape, name)
        check_floating(np.dtype(value.dtype), name)
        return DaskRows(value, name, convert)
    name = "array in memory"
    if not hasattr(value, "__array__") and not hasattr(value, "__cuda_array_interface__"):
        raise InputError(
            f"{type(value).__name__} object: no embeddings; give a path, a NumPy, CuPy, Dask or Zarr array, "
            "or what open_embeddings returned"
        )
    values = _to_numpy(value)
    check_matrix(values.shape, name)
    check_floating(values.dtype, name)
    return MemoryRows(native(values, name, 0, convert), name)


def is_dask(value: Any) -> bool:
    """Whether something is a Dask array, without importing Dask."""
    return hasattr(value, "__dask_graph__") and hasattr(value, "chunks") and hasattr(value, "compute")


def native(values: NDArray[Any], name: str, first_row: int, convert: bool) -> NDArray[Any]:
    """Native byte order, C order, and float64 as float32 where asked; refuses what becomes infinite by that."""
    dtype = values.dtype.newbyteorder("=")
    if not (convert and dtype == np.float64):
        return np.ascontiguousarray(values, dtype=dtype)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(rounded).all():
        lost = np.flatnonzero((np.isinf(rounded) & np.isfinite(values)).any(axis=1))
        if len(lost):
            raise DataError(
                f"{name}: {len(lost)} rows hold float64 values beyond float32 (first: row {first_row + int(lost[0])}); "
                "scale the values, or leave these rows out"
            )
    return rounded


def _to_numpy(value: Any) -> NDArray[Any]:
    if hasattr(value, "__cuda_array_interface__") and hasattr(value, "get"):
        return np.asarray(value.get())
    return np.asarray(value)


class DaskRows:
    """A Dask array as a row source: blocks are computed when rows of them are read, and the last two kept."""

    travels = False

    def __init__(self, array: Any, name: str, convert: bool) -> None:
        heights = array.chunks[0]
        if any(height != height for height in heights):
            raise InputError(f"{name}: its chunk sizes are not known; call array.compute_chunk_sizes() first")
        self.name = name
        self._array, self._convert = array, convert
        self._edges = np.concatenate([[0], np.cumsum(np.asarray(heights, dtype=np.int64))])
        self.rows, self.dims = (int(size) for size in array.shape)
        stored = np.dtype(array.dtype).newbyteorder("=")
        self.dtype = np.dtype(np.float32) if convert and stored == np.float64 else stored
        self.chunk_rows = max((int(height) for height in heights), default=1) or 1
        self.read_overhead_bytes = (_KEPT_BLOCKS + 1) * self.chunk_rows * self.dims * stored.itemsize
        self._lock = threading.Lock()
        self._kept: dict[int, NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._kept = threading.Lock(), {}

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"{self.name}: rows {start} to {stop} of {self.rows}")
        out = np.empty((stop - start, self.dims), dtype=self.dtype)
        while start < stop:
            block = int(np.searchsorted(self._edges, start, side="right")) - 1
            first, last = int(self._edges[block]), min(int(self._edges[block + 1]), stop)
            out[len(out) - (stop - start) : len(out) - (stop - last)] = self._block(block)[start - first : last - first]
            start = last
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order."""
        out = np.empty((len(rows), self.dims), dtype=self.dtype)
        owners = np.searchsorted(self._edges, rows, side="right") - 1
        for block in np.unique(owners).tolist():
            mine = owners == block
            out[mine] = self._block(block)[rows[mine] - self._edges[block]]
        return out

    def _block(self, block: int) -> NDArray[Any]:
        with self._lock:
            if block not in self._kept:
                while len(self._kept) >= _KEPT_BLOCKS:
                    del self._kept[next(iter(self._kept))]
                first, last = int(self._edges[block]), int(self._edges[block + 1])
                values = _to_numpy(self._array[first:last].compute())
                if values.shape != (last - first, self.dims):
                    raise DataError(f"{self.name}: rows {first} to {last} were computed with shape {values.shape}")
                self._kept[block] = native(values, self.name, first, self._convert)
            return self._kept[block]
