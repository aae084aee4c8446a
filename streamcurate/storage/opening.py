"""Opening and creating arrays, at paths and at URLs."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from streamcurate import objects
from streamcurate.errors import InputError, StoreError
from streamcurate.files import disk_errors, write_file
from streamcurate.storage.arrays import StoredArray
from streamcurate.storage.groups import node_kind, open_node
from streamcurate.storage.urls import METADATA_NAME, UrlStore, zarr_store


def open_array(path: str | os.PathLike[str], *, writable: bool = False) -> StoredArray:
    """Open an existing Zarr array (v2 or v3) of one or two dimensions, for reading unless ``writable``.

    Raises
    ------
    InputError
        There is no such array.
    """
    node = open_node(path, "r+" if writable else "r")
    if not isinstance(node, zarr.Array):
        raise InputError(f"{path}: a Zarr group, not an array; name one of its arrays")
    if node.ndim not in (1, 2):
        raise InputError(f"{path}: an array of {node.ndim} dimensions; one or two are needed")
    return StoredArray(place_of(path), node, writable=writable)


@lru_cache(maxsize=64)
def _opened(path: str, writable: bool, durable: bool, stamp: tuple[int, ...] | None) -> StoredArray:
    return StoredArray(path, open_array(path, writable=writable).zarr, durable=durable, writable=writable)


def reopened(path: str, writable: bool, durable: bool) -> StoredArray:
    """An array out of a pickle. Tasks come by the thousand, so that the metadata is read again only when it changed."""
    stamp: tuple[int, ...] | None = None
    for name in (METADATA_NAME, ".zarray"):
        if objects.is_url(path):
            found = objects.status(objects.join(path, name))
            if found is not None:
                stamp = (found.size, found.state)
                break
        else:
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
    shard_rows: int | None = None,
    durable: bool = True,
    overwrite: bool = False,
) -> StoredArray:
    """Create a Zarr v3 array, uncompressed unless it holds strings, every chunk written.

    Parameters
    ----------
    path : path or URL
        Its folder, inside a group's folder or alone.
    shape : tuple of int
        One or two dimensions.
    dtype : dtype
        A numeric dtype, or ``str``.
    chunk_rows : int
        Rows of a chunk; chunks span all columns.
    shard_rows : int, optional
        Rows of a file that holds several chunks, a multiple of ``chunk_rows``: for arrays that would make too many
        files. It is the ``chunk_rows`` of the array then, for a shard is written whole.
    durable : bool
        Flush what is written to the device; False for scratch.
    overwrite : bool
        Replace an array that lies there.

    Raises
    ------
    InputError
        Something lies there already.
    """
    if not overwrite and node_kind(path) is not None:
        raise InputError(f"{path}: already exists; choose another place or remove it first")
    store = zarr_store(place_of(path), writable=True)
    with disk_errors(path):
        array = _create(store, shape, dtype, chunk_rows, shard_rows, overwrite)
    return StoredArray(place_of(path), array, durable=durable)


def unannounced_array(
    url: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    chunk_rows: int,
    *,
    shard_rows: int | None = None,
) -> StoredArray:
    """An array at a URL whose chunks can be written and read, and which nobody else takes for an array yet.

    Its metadata is in memory only; :func:`array_metadata` gives it, to be put in place when all chunks are.
    """
    place = place_of(url)
    return StoredArray(place, _create(UrlStore(place, withheld={}), shape, dtype, chunk_rows, shard_rows, False))


def with_rows(array: StoredArray, rows: int) -> StoredArray:
    """An unannounced array of another length, with the same chunks."""
    metadata = json.loads(array_metadata(array))
    metadata["shape"][0] = rows
    store = UrlStore(array.path, withheld={METADATA_NAME: json.dumps(metadata).encode()})
    return StoredArray(array.path, zarr.open_array(store, mode="r+", zarr_format=3))


def array_metadata(array: StoredArray) -> bytes:
    """Content of the ``zarr.json`` of an array."""
    return array.zarr.metadata.to_buffer_dict(default_buffer_prototype())[METADATA_NAME].to_bytes()


def _create(
    store: Any, shape: tuple[int, ...], dtype: DTypeLike, chunk_rows: int, shard_rows: int | None, overwrite: bool
) -> zarr.Array[Any]:
    text = np.dtype(dtype).kind in "UT"
    chunk = max(1, min(chunk_rows, shape[0]))
    columns = tuple(max(1, size) for size in shape[1:])
    shards = None
    if shard_rows is not None:
        if shard_rows < chunk_rows or shard_rows % chunk_rows:
            raise ValueError(f"shards of {shard_rows} rows do not hold whole chunks of {chunk_rows}")
        shards = (max(1, min(shard_rows // chunk, -(-shape[0] // chunk))) * chunk, *columns)
    return zarr.create_array(
        store=store,
        shape=shape,
        dtype=str if text else np.dtype(dtype).newbyteorder("<"),
        chunks=(chunk, *columns),
        shards=shards,
        compressors="auto" if text else None,
        filters="auto",
        fill_value="" if text else 0,
        zarr_format=3,
        config={"write_empty_chunks": True},
        overwrite=overwrite,
    )


def set_rows(path: str | os.PathLike[str], rows: int) -> StoredArray:
    """Set the length of a Zarr v3 array's first axis, durably; no chunk is touched.

    For arrays whose length is known only when all rows have come: they are created longer and cut here.

    Returns
    -------
    StoredArray
        The array of the new length, writable.
    """
    file = objects.join(place_of(path), METADATA_NAME)
    content = objects.contents(file)
    if content is None:
        raise StoreError(f"{file}: does not exist; make the array again")
    metadata = json.loads(content)
    metadata["shape"][0] = rows
    write_file(file, (json.dumps(metadata, indent=2, allow_nan=False) + "\n").encode())
    return open_array(path, writable=True)


def local_path(node: Any) -> str | None:
    """Folder or URL of an open Zarr array or group of ours; None where it lies elsewhere or is neither."""
    if not isinstance(node, zarr.Array | zarr.Group):
        return None
    if isinstance(node.store, UrlStore):
        return objects.join(node.store.url, node.path) if node.path else node.store.url
    if not isinstance(node.store, LocalStore):
        return None
    return os.path.join(node.store.root, node.path) if node.path else os.fspath(node.store.root)


def place_of(path: str | os.PathLike[str]) -> str:
    """A path as text; a URL without a slash at its end."""
    place = os.fspath(path)
    return place.rstrip("/") if objects.is_url(place) else place
