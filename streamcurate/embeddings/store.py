"""The embeddings a user holds: a store on disk, used in place, or an array in memory."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamcurate import objects
from streamcurate.embeddings.checks import check_floating, check_matrix, suffix_of
from streamcurate.embeddings.memory import rows_of
from streamcurate.errors import InputError, StoreError
from streamcurate.storage import (
    SequentialWriter,
    StoredArray,
    create_array,
    list_arrays,
    local_path,
    node_kind,
    open_array,
    open_group_attributes,
)
from streamcurate.streaming.buffers import Allocator
from streamcurate.streaming.source import HeldRows, MemoryRows, RowSource, StoredRows, read_into

ARRAY_NAME = "embeddings"
IDS_NAME = "ids"
PARTIAL_SUFFIX = ".partial"
_COPY_BYTES = 16 << 20


class Embeddings:
    """Embeddings, one row each, read a range of rows at a time; a ``RowSource``.

    Made by :func:`open_embeddings`, :func:`as_embeddings` and ``ingest``.

    Attributes
    ----------
    name : str
        How messages call it.
    path : str or None
        Path or URL of the store; None for an array in memory.
    rows, dims : int
    shape : tuple of int
        (rows, dims).
    dtype : numpy.dtype
        float16 or float32.
    chunk_rows : int
        Rows stored together.
    read_overhead_bytes : int
        Memory a read takes beside its result.
    travels : bool
        Whether other processes can read them where they lie.
    array, ids : StoredArray or None
        The stored embeddings and their ids, where there are any; ``ids[:3]`` reads the first three.
    attributes : dict
        What the store says of itself under the key ``streamcurate``: format, sources, options, fingerprint.
    """

    def __init__(
        self,
        source: RowSource,
        *,
        path: str | None = None,
        array: StoredArray | None = None,
        ids: StoredArray | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self._source = source
        self.path = path
        self.name: str = path or source.name
        self.rows, self.dims = source.rows, source.dims
        self.dtype: np.dtype[Any] = source.dtype
        self.chunk_rows = source.chunk_rows
        self.read_overhead_bytes = source.read_overhead_bytes
        self.travels = source.travels
        self.array = array
        self.ids = ids
        self.attributes = dict(attributes or {})

    def __repr__(self) -> str:
        return f"Embeddings({self.name!r}, rows={self.rows}, dims={self.dims}, dtype={self.dtype})"

    def __len__(self) -> int:
        return self.rows

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, read into memory: what ``numpy.asarray`` gives."""
        if self.path is None:
            return np.array(self.read(0, self.rows), dtype=dtype, copy=copy)
        if copy is False:
            raise ValueError(
                f"{self.name}: lies on disk, so that an array of it is always a copy; leave copy=False out"
            )
        return self.read(0, self.rows).astype(self.dtype if dtype is None else dtype, copy=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, dims)."""
        return (self.rows, self.dims)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, shape (stop - start, dims), C-contiguous."""
        return self._source.read(start, stop)

    def read_into(self, allocator: Allocator, start: int, stop: int) -> NDArray[Any]:
        """The same rows; read from files, they lie in memory of ``allocator``, a function like ``numpy.empty``."""
        return read_into(self._source, allocator, start, stop)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order; shape (len(rows), dims)."""
        return self._source.take(rows)

    def take_ids(self, rows: NDArray[np.int64]) -> NDArray[Any] | None:
        """Ids of rows, in the order given.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Any order, repeats allowed.

        Returns
        -------
        ndarray, shape (m,), or None
            int64, or objects of type ``str``; None where the embeddings have no ids.
        """
        if self.ids is None:
            return None
        distinct, places = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        return plain_ids(self.ids.take(distinct))[places]

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint noted when the store was made, None where the store has none."""
        value = self.attributes.get("fingerprint")
        return value if isinstance(value, str) else None

    def description(self) -> dict[str, Any]:
        """Path, rows, dims and dtype, as a run notes what it works on."""
        return {
            "path": self.path if self.path is None or objects.is_url(self.path) else os.path.abspath(self.path),
            "rows": self.rows,
            "dims": self.dims,
            "dtype": self.dtype.name,
        }


def plain_ids(ids: NDArray[Any]) -> NDArray[Any]:
    """Stored ids as int64 or objects of type ``str``."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64, copy=False)
    return ids.astype(object, copy=False)


def open_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Open embeddings at rest, in place.

    Parameters
    ----------
    path : path or URL
        A store made by ``ingest``, or any two-dimensional Zarr array (v2 or v3, any chunking), or a Zarr group with
        one two-dimensional floating-point array or one called ``embeddings``. A one-dimensional array ``ids`` of as
        many rows beside it gives the rows their ids.

    Raises
    ------
    InputError
        Missing, not Zarr, empty, of other dimensions, or neither float16 nor float32.
    """
    place = os.fspath(path)
    place = place.rstrip("/") if objects.is_url(place) else place
    array, ids = find_arrays(place)
    if array.dtype == np.float64:
        # A web server takes nothing.
        target = f"{objects.base_name(place) if objects.is_web(place) else place.rstrip('/')}"
        target = f"{target.removesuffix('.zarr')}-float32.zarr"
        raise InputError(
            f"{array.path}: holds float64, and stores are float16 or float32; "
            f"ingest it: streamcurate ingest {place} {target}"
        )
    if not array.rows:
        raise InputError(f"{array.path}: has no rows (shape {array.shape}); ingest embeddings into it anew")
    attributes = open_group_attributes(place)
    if ids is None and attributes.get("ids"):
        raise StoreError(f"{place}: its ids are absent, or not one for each row; restore them or ingest again")
    return Embeddings(StoredRows(array), path=place, array=array, ids=ids, attributes=attributes)


def as_embeddings(value: Any) -> Embeddings:
    """Whatever holds embeddings, as :class:`Embeddings`.

    Parameters
    ----------
    value : Embeddings, path, URL, NumPy, CuPy, Dask or Zarr array, Zarr group
        float64 in memory is rounded to float32.

    Raises
    ------
    InputError
        Nothing of the kind, or of other dimensions or dtype.
    DataError
        A finite float64 value lies beyond float32.
    """
    if isinstance(value, Embeddings):
        return value
    if isinstance(value, (str, os.PathLike)):
        return open_embeddings(os.fspath(value))
    place = zarr_path(value)
    if place is not None:
        return open_embeddings(place)
    source = rows_of(value, convert=True)
    if not source.rows:
        raise InputError(f"{source.name}: has no rows")
    return Embeddings(source)


def laid_down(embeddings: Embeddings, path: str | os.PathLike[str]) -> Embeddings:
    """Embeddings that other processes can read: themselves, or what is in memory written to a scratch array.

    Parameters
    ----------
    embeddings : Embeddings
    path : path
        Of the array; one that lies there is replaced.
    """
    if embeddings.travels:
        return embeddings
    rows = max(_COPY_BYTES // (embeddings.dims * embeddings.dtype.itemsize), 1)
    array = create_array(path, embeddings.shape, embeddings.dtype, rows, durable=False, overwrite=True)
    with SequentialWriter(array) as writer:
        for start in range(0, embeddings.rows, rows):
            writer.append(embeddings.read(start, min(start + rows, embeddings.rows)))
    copy = StoredRows(array)
    copy.name = embeddings.name
    held = isinstance(embeddings._source, MemoryRows)
    source = HeldRows(embeddings.read(0, embeddings.rows), copy) if held else copy
    return Embeddings(source, ids=embeddings.ids, attributes=embeddings.attributes)


def zarr_path(value: Any) -> str | None:
    """Folder or URL of an open Zarr array or group, None for what is neither.

    Raises
    ------
    InputError
        A Zarr array or group that lies neither on a local disk nor at a URL that we opened.
    """
    if isinstance(value, StoredArray):
        return value.path
    if type(value).__module__.partition(".")[0] != "zarr":
        return None
    place = local_path(value)
    if place is None:
        raise InputError(
            f"{value!r}: not a Zarr array or group on a local disk; "
            "save it to a folder, give the URL where it lies, or give array[:] to hold it in memory"
        )
    return place


def find_arrays(path: str, name: str | None = None) -> tuple[StoredArray, StoredArray | None]:
    """The embeddings and ids at a path: floating-point of any width, any number of rows.

    Parameters
    ----------
    path : str
        Path or URL of a Zarr array or group.
    name : str, optional
        Which array of a group.

    Raises
    ------
    InputError
        There are none, or it is not clear which.
    """
    kind = node_kind(path)
    if kind is None:
        _refuse(path)
    group = path
    if kind == "group":
        array = open_array(objects.join(path, name or _choose(path)))
    else:
        array = open_array(path)
        group = objects.parent(path)
    check_matrix(array.shape, array.path)
    check_floating(array.dtype, array.path)
    return array, _find_ids(group, array)


def _choose(path: str) -> str:
    arrays = list_arrays(path)
    if ARRAY_NAME in arrays:
        return ARRAY_NAME
    matrices = [name for name, (shape, dtype) in arrays.items() if len(shape) == 2 and dtype.kind == "f"]
    if len(matrices) == 1:
        return matrices[0]
    listed = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in arrays.items()) or "no arrays"
    if not matrices:
        raise InputError(f"{path}: a Zarr group without a two-dimensional array of floats; it holds {listed}")
    example = objects.join(path, matrices[0])
    raise InputError(f"{path}: several arrays could be the embeddings: {listed}; name one, e.g. {example}")


def _find_ids(group: str, array: StoredArray) -> StoredArray | None:
    """An array ``ids`` in the group with one string or integer for each row."""
    place = objects.join(group, IDS_NAME)
    if node_kind(group) != "group" or node_kind(place) != "array":
        return None
    try:
        ids = open_array(place)
    except InputError:  # of some other shape
        return None
    return ids if are_ids(ids, array.rows) else None


def are_ids(array: StoredArray, rows: int) -> bool:
    """Whether an array holds one string or integer for each row. Bytes do not count: their encoding is not known."""
    return array.shape == (rows,) and array.dtype.kind in "iuOTU"


def _refuse(path: str) -> NoReturn:
    partial = path.rstrip("/") + PARTIAL_SUFFIX
    store = objects.base_name(path).removesuffix(suffix_of(path)) + ".zarr"
    if objects.is_url(path):
        _refuse_url(path, partial, store)
    if not os.path.exists(path):
        if os.path.isdir(partial):
            raise InputError(f"{path}: its ingest is unfinished ({partial}); give the same ingest command again")
        raise InputError(f"{path}: no such file or folder; check the path")
    if os.path.isfile(path):
        store = os.path.join(os.path.dirname(path), store)
        raise InputError(f"{path}: a file, not a store of embeddings; ingest it: streamcurate ingest {path} {store}")
    raise InputError(f"{path}: a folder, but neither a Zarr array nor a Zarr group; check the path")


def _refuse_url(path: str, partial: str, store: str) -> NoReturn:
    if objects.status(path) is not None:
        raise InputError(f"{path}: a file, not a store of embeddings; ingest it: streamcurate ingest {path} {store}")
    if objects.is_web(path):
        raise InputError(f"{path}: no Zarr array or group there (no zarr.json, .zarray or .zgroup); check the URL")
    if objects.exists(partial):
        raise InputError(f"{path}: its ingest is unfinished ({partial}/); give the same ingest command again")
    if objects.exists(path):
        raise InputError(
            f"{path}: holds objects, but nothing that says it is a Zarr array or group (zarr.json); its ingest or "
            "upload is unfinished, or it is another kind of folder: check the URL"
        )
    raise InputError(f"{path}: no such object or folder; check the URL")
