"""Files, folders and patterns of them, on this machine and in object stores."""

from __future__ import annotations

import glob
import os
import re
from typing import NamedTuple

from streamcurate import objects
from streamcurate.embeddings.checks import suffix_of as _suffix_of
from streamcurate.errors import InputError


class Contents(NamedTuple):
    """Names of what lies directly in a folder, in natural order."""

    folders: list[str]
    files: list[str]


def natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key in which numbers inside names count as numbers."""
    parts = re.split(r"(\d+)", path)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def suffix_of(path: str) -> str:
    """Lower-case suffix of a path or URL, with its dot."""
    return _suffix_of(re.split(r"[?#]", path)[0] if objects.is_web(path) else path.rstrip("/"))


def is_pattern(path: str) -> bool:
    """Whether a path stands for all files it matches; one that exists stands for itself."""
    if not objects.is_url(path):
        return glob.has_magic(path) and not os.path.exists(path)
    if objects.is_web(path):
        # Brackets are letters of names there; a star is one nowhere.
        if "*" in re.split(r"[?#]", path)[0]:
            objects.refuse_web(path, "list its files")
        return False
    return glob.has_magic(path)


def matching(pattern: str) -> list[str]:
    """The files of a pattern in natural order.

    Raises
    ------
    InputError
        There are none.
    """
    paths = objects.match(pattern) if objects.is_url(pattern) else glob.glob(pattern, recursive=True)
    if not paths and objects.is_url(pattern):
        raise InputError(
            f"{pattern}: no file matches this pattern; patterns stand for single objects, so name stores (.zarr) and "
            "other folders one by one"
        )
    if not paths:
        raise InputError(f"{pattern}: no file matches this pattern")
    return sorted(paths, key=natural)


def contents(folder: str) -> Contents:
    """What lies directly in a folder, or below the URL of one."""
    if objects.is_url(folder):
        folders, found = objects.names(folder)
        files = [objects.base_name(one.url) for one in found if not one.url.endswith("/")]
    else:
        try:
            with os.scandir(folder) as entries:
                kinds = [(entry.name, entry.is_dir()) for entry in entries]
        except PermissionError as error:
            raise InputError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
        folders = [name for name, is_folder in kinds if is_folder]
        files = [name for name, is_folder in kinds if not is_folder]
    return Contents(sorted(folders, key=natural), sorted(files, key=natural))


def is_folder(path: str) -> bool:
    """Whether something is a folder, or a URL with objects below it and none of that very name."""
    if not objects.is_url(path):
        return os.path.isdir(path)
    if objects.is_web(path):
        return False
    return objects.status(path) is None and any(objects.names(path))
