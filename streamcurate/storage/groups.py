"""Zarr groups: folders of arrays and the attributes under the key ``streamcurate``; at paths and at URLs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from streamcurate import objects
from streamcurate.errors import InputError, ObjectError, StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder
from streamcurate.storage.urls import METADATA_NAME, zarr_store

ATTRIBUTES_KEY = "streamcurate"
# What zarr's LocalStore calls a file before it renames it.
_ZARR_TEMPORARY_SUFFIX = ".partial"
# A web server cannot say what arrays a group holds: these are looked for.
_KNOWN_NAMES = ("embeddings", "ids")

Kind = Literal["array", "group"]


def node_kind(path: str | os.PathLike[str]) -> Kind | None:
    """What Zarr node lies at ``path`` (v2 or v3), None where there is none."""
    if objects.is_url(path):
        return _kind_at_url(os.fspath(path).rstrip("/"))[0]
    folder = Path(path)
    try:
        if (folder / ".zarray").is_file():
            return "array"
        if (folder / ".zgroup").is_file():
            return "group"
        if not (folder / METADATA_NAME).is_file():
            return None
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except OSError:  # a name that is too long is that of nothing
        return None
    return "array" if isinstance(open_node(path), zarr.Array) else "group"


def _kind_at_url(url: str) -> tuple[Kind | None, Literal[2, 3], dict[str, bytes]]:
    """What lies at a URL, in which format, and its metadata; Zarr itself would ask for every name it knows."""
    content = objects.contents(objects.join(url, METADATA_NAME))
    if content is not None:
        try:
            kind = json.loads(content)["node_type"]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(url, error) from error
        if kind not in ("array", "group"):
            raise _unreadable(url, ValueError(f"{METADATA_NAME} tells of a node of type {kind!r}"))
        return kind, 3, {METADATA_NAME: content}
    for name, old in ((".zarray", "array"), (".zgroup", "group")):
        content = objects.contents(objects.join(url, name))
        if content is not None:
            return ("array" if old == "array" else "group"), 2, {name: content}
    return None, 3, {}


def create_group(path: str | os.PathLike[str], attributes: dict[str, Any] | None = None) -> None:
    """Create an empty Zarr v3 group; ``attributes`` go under the key ``streamcurate``."""
    with disk_errors(path):
        try:
            zarr.create_group(
                store=zarr_store(os.fspath(path), writable=True),
                zarr_format=3,
                attributes={ATTRIBUTES_KEY: attributes} if attributes else None,
            )
        except (ContainsGroupError, ContainsArrayError) as error:
            raise InputError(f"{path}: already exists; choose another place or remove it first") from error


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """Content of the ``zarr.json`` of a group with attributes under the key ``streamcurate``."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTES_KEY: attributes}}
    return json.dumps(metadata, indent=2, allow_nan=False).encode()


def open_group_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes a group or array carries under the key ``streamcurate``; empty where it has none."""
    value = open_node(path).attrs.get(ATTRIBUTES_KEY, {})
    return dict(value) if isinstance(value, dict) else {}


def update_group_attributes(path: str | os.PathLike[str], attributes: dict[str, Any]) -> None:
    """Replace single entries under the key ``streamcurate`` of a group or array."""
    node = open_node(path, "r+")
    with disk_errors(path):
        node.attrs[ATTRIBUTES_KEY] = open_group_attributes(path) | attributes


def list_arrays(path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Name → (shape, dtype) of the arrays directly in a group.

    Of a group on a plain web server: those that its consolidated metadata tells of, else ``embeddings`` and ``ids``.
    """
    if node_kind(path) != "group":
        return {}
    found = {}
    # Not through the group: zarr warns of every file beside the arrays and overlooks arrays of another format version.
    for name in _names_in(path):
        place = objects.join(path, name)
        if objects.is_url(place):
            array = _open_at_url(place, "r")
        else:
            array = open_node(place) if node_kind(place) == "array" else None
        if isinstance(array, zarr.Array):
            found[name] = (array.shape, array.dtype)
    return found


def _names_in(path: str | os.PathLike[str]) -> list[str]:
    if not objects.is_url(path):
        try:
            return sorted(entry.name for entry in Path(path).iterdir() if entry.is_dir())
        except PermissionError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    url = os.fspath(path).rstrip("/")
    if not objects.is_web(url):
        return objects.names(url)[0]
    for name in (METADATA_NAME, ".zmetadata"):
        try:
            told = json.loads(objects.contents(objects.join(url, name)) or b"{}")
            told = told.get("consolidated_metadata") or told if name == METADATA_NAME else told
            nodes = told.get("metadata") if isinstance(told, dict) else None
        except ValueError as error:
            raise _unreadable(url, error) from error
        if isinstance(nodes, dict):
            return sorted({str(node).partition("/")[0] for node in nodes} - {".zattrs", ".zgroup"})
    return list(_KNOWN_NAMES)


def sync_metadata(path: str | os.PathLike[str]) -> None:
    """Flush the metadata of a group or array and of the arrays in it to the device; chunks are flushed when written."""
    if objects.is_url(path):  # what a store has taken is safe
        return
    for folder in (Path(path), *(Path(path, name) for name in list_arrays(path))):
        with disk_errors(folder):
            sync_folder(folder / METADATA_NAME)  # fsync works on a file's descriptor just as on a folder's
            sync_folder(folder)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that a killed writer left in a group or array; object stores keep none."""
    if objects.is_url(path):
        return
    for suffix in (TEMPORARY_SUFFIX, _ZARR_TEMPORARY_SUFFIX):
        for file in Path(path).rglob(f"*{suffix}"):
            file.unlink()


def open_node(path: str | os.PathLike[str], mode: Literal["r", "r+"] = "r") -> zarr.Array[Any] | zarr.Group:
    """An array or group of any version.

    Raises
    ------
    InputError
        There is none, or it cannot be read.
    """
    place = os.fspath(path)
    if not objects.is_url(place):
        if not os.path.exists(place):
            raise InputError(f"{path}: no such file or folder; check the path")
        return _open(place, mode, place)
    place = place.rstrip("/")
    node = _open_at_url(place, mode)
    if node is None:
        if not objects.exists(place):
            raise InputError(f"{place}: no such Zarr array or group; check the URL")
        raise StoreError(
            f"{place}: not a readable Zarr array or group (it has no {METADATA_NAME}); check the URL, or make the "
            "store again"
        )
    return node


def _open_at_url(url: str, mode: Literal["r", "r+"]) -> zarr.Array[Any] | zarr.Group | None:
    kind, version, seen = _kind_at_url(url)
    if kind is None:
        return None
    return _open(url, mode, zarr_store(url, writable=mode == "r+", seen=seen), version)


def _open(
    place: str, mode: Literal["r", "r+"], store: Any, version: Literal[2, 3] | None = None
) -> zarr.Array[Any] | zarr.Group:
    try:
        return zarr.open(store=store, mode=mode, zarr_format=version)
    except ObjectError:
        raise
    except Exception as error:  # zarr raises many kinds for a folder that is not, or no longer, Zarr
        raise _unreadable(place, error) from error


def _unreadable(place: str, error: Exception) -> StoreError:
    return StoreError(
        f"{place}: not a readable Zarr array or group ({type(error).__name__}: {error}); "
        "check the path, or make the store again"
    )
