"""Zarr groups: folders of arrays and the attributes under the key ``streamcurate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from streamcurate.errors import InputError, StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder

ATTRIBUTES_KEY = "streamcurate"
# What zarr's LocalStore calls a file before it renames it.
_ZARR_TEMPORARY_SUFFIX = ".partial"


def node_kind(path: str | os.PathLike[str]) -> Literal["array", "group"] | None:
    """What Zarr node lies at ``path`` (v2 or v3), None where there is none."""
    folder = Path(path)
    if (folder / ".zarray").is_file():
        return "array"
    if (folder / ".zgroup").is_file():
        return "group"
    if not (folder / "zarr.json").is_file():
        return None
    return "array" if isinstance(_open(path), zarr.Array) else "group"


def create_group(path: str | os.PathLike[str], attributes: dict[str, Any] | None = None) -> None:
    """Create an empty Zarr v3 group; ``attributes`` go under the key ``streamcurate``."""
    with disk_errors(path):
        try:
            group = zarr.create_group(store=os.fspath(path), zarr_format=3)
        except (ContainsGroupError, ContainsArrayError) as error:
            raise InputError(f"{path}: already exists; choose another place or remove it first") from error
        if attributes:
            group.attrs[ATTRIBUTES_KEY] = attributes


def open_group_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes a group or array carries under the key ``streamcurate``; empty where it has none."""
    value = _open(path).attrs.get(ATTRIBUTES_KEY, {})
    return dict(value) if isinstance(value, dict) else {}


def update_group_attributes(path: str | os.PathLike[str], attributes: dict[str, Any]) -> None:
    """Replace single entries under the key ``streamcurate`` of a group or array."""
    node = zarr.open(store=os.fspath(path), mode="r+")
    with disk_errors(path):
        node.attrs[ATTRIBUTES_KEY] = open_group_attributes(path) | attributes


def list_arrays(path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Name → (shape, dtype) of the arrays directly in a group."""
    if node_kind(path) != "group":
        return {}
    found = {}
    # Not through the group: zarr warns of every file beside the arrays and overlooks arrays of another format version.
    for folder in sorted(entry for entry in Path(path).iterdir() if entry.is_dir()):
        if node_kind(folder) == "array":
            array = _open(folder)
            assert isinstance(array, zarr.Array)
            found[folder.name] = (array.shape, array.dtype)
    return found


def sync_metadata(path: str | os.PathLike[str]) -> None:
    """Flush the metadata of a group or array and of the arrays in it to the device; chunks are flushed when written."""
    for folder in (Path(path), *(Path(path, name) for name in list_arrays(path))):
        with disk_errors(folder):
            sync_folder(folder / "zarr.json")  # fsync works on a file's descriptor just as on a folder's
            sync_folder(folder)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that a killed writer left in a group or array."""
    for suffix in (TEMPORARY_SUFFIX, _ZARR_TEMPORARY_SUFFIX):
        for file in Path(path).rglob(f"*{suffix}"):
            file.unlink()


def _open(path: str | os.PathLike[str], mode: Literal["r", "r+"] = "r") -> zarr.Array[Any] | zarr.Group:
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder; check the path")
    try:
        return zarr.open(store=os.fspath(path), mode=mode)
    except Exception as error:  # zarr raises many kinds for a folder that is not, or no longer, Zarr
        raise StoreError(
            f"{path}: not a readable Zarr array or group ({type(error).__name__}: {error}); "
            "check the path, or make the store again"
        ) from error
