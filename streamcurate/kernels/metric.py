"""The two metrics and the checks every kernel makes of its arrays."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Metric = Literal["l2", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


def check_metric(metric: str) -> None:
    """Raise ValueError unless ``metric`` is "l2" or "cosine"."""
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; it must be one of {', '.join(METRICS)}")


def as_rows(rows: Array) -> Array:
    """``rows`` as a C-contiguous (m, d) float16 or float32 array in native byte order (itself where it is one)."""
    if rows.ndim != 2:
        raise ValueError(f"rows have shape {rows.shape}; a block is two-dimensional (rows, dims)")
    if rows.dtype.newbyteorder("=") not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise ValueError(f"rows are {rows.dtype}; a block holds float16 or float32")
    return np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("="))


def as_centroids(centroids: Array, dims: int | None = None) -> Float32:
    """``centroids`` as a C-contiguous (k, d) float32 array; ValueError for another dtype, shape or number of dims."""
    if centroids.ndim != 2 or centroids.dtype.newbyteorder("=") != np.dtype(np.float32):
        raise ValueError(f"centroids are {centroids.dtype} of shape {centroids.shape}; they must be (k, d) float32")
    if dims is not None and centroids.shape[1] != dims:
        raise ValueError(f"centroids have {centroids.shape[1]} dims, the rows {dims}")
    return np.ascontiguousarray(centroids, dtype=np.float32)
