"""Readers of the formats embeddings come in.

A format is one module with ``open_reader(path, column, ids) -> SourceReader`` and one line in ``_READERS``.
"""

from __future__ import annotations

import glob
import importlib
import os
import re
from collections.abc import Iterable
from typing import Any

from streamcurate.embeddings.checks import suffix_of
from streamcurate.embeddings.memory import rows_of
from streamcurate.embeddings.sources.base import SourceReader, Stamp
from streamcurate.embeddings.sources.memory import MemoryReader
from streamcurate.embeddings.store import Embeddings, zarr_path
from streamcurate.errors import InputError
from streamcurate.storage import node_kind

# By suffix; the modules are imported when they are needed, for some bring heavy libraries.
_READERS = {".npy": "npy", ".parquet": "parquet", ".pq": "parquet", ".zarr": "stored"}

__all__ = ["SourceReader", "Stamp", "open_sources"]


def open_sources(sources: Any, column: str | None = None, ids: str | None = None) -> list[SourceReader]:
    """Open everything rows are to be read from.

    Parameters
    ----------
    sources : path, glob pattern, array, or a list of these
        Files of a pattern come in natural order (``part-2`` before ``part-10``), all else as given.
    column, ids : str, optional
        Names of the columns, where a format has columns.

    Raises
    ------
    InputError
        Nothing matches, the same file twice, an unknown format, or a file that its reader refuses.
    """
    readers: list[SourceReader] = []
    seen: set[str] = set()
    for source in _listed(sources):
        paths = _paths(source)
        if not paths:
            if column is not None or ids is not None:
                raise InputError(
                    f"column {column or ids!r}: an array in memory has no named columns; give ids in a file"
                )
            readers.append(MemoryReader(source if isinstance(source, Embeddings) else rows_of(source, convert=False)))
        for path in paths:
            where = os.path.realpath(path)
            if where in seen:
                raise InputError(f"{path}: given twice; its rows would be there twice")
            seen.add(where)
            readers.append(open_file(path, column, ids))
    if not readers:
        raise InputError("no sources given; name files, folders or patterns")
    return readers


def _paths(source: Any) -> list[str]:
    """The files and folders a source names; none for an array in memory."""
    if isinstance(source, (str, os.PathLike)):
        return expand(os.fspath(source))
    place = source.path if isinstance(source, Embeddings) else zarr_path(source)
    return [] if place is None else [place]


def expand(pattern: str) -> list[str]:
    """Paths of a glob pattern in natural order; a path that exists stands for itself."""
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    paths = sorted(glob.glob(pattern, recursive=True), key=_natural)
    if not paths:
        raise InputError(f"{pattern}: no file matches this pattern")
    return paths


def open_file(path: str, column: str | None, ids: str | None) -> SourceReader:
    """Open one file or folder with the reader of its format."""
    module = _READERS.get(suffix_of(path.rstrip("/")))
    if node_kind(path) is not None:
        module = "stored"
    if module is None:
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file or folder; check the path")
        if os.path.isdir(path):
            example = os.path.join(path, "*.npy")
            raise InputError(f"{path}: a folder that is not Zarr; name the files in it, e.g. '{example}'")
        raise InputError(f"{path}: unknown format; known are {', '.join(_READERS)}")
    try:
        reader = importlib.import_module(f"{__name__}.{module}").open_reader(path, column, ids)
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return reader  # type: ignore[no-any-return]


def _listed(sources: Any) -> Iterable[Any]:
    return sources if isinstance(sources, (list, tuple)) else [sources]


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key in which numbers inside names count as numbers."""
    parts = re.split(r"(\d+)", path)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]
