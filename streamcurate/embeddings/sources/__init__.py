"""Readers of the formats embeddings come in.

A format is a function ``open_reader(path, column, ids)`` that gives a :class:`SourceReader`: what one file holds (rows,
dims, dtypes), and its rows in blocks, from any row on. The known ones are in ``formats.py``; other packages add theirs
by an entry point, whose name is the suffix of the files (one of ours stays ours)::

    [project.entry-points."streamcurate.sources"]
    ".foo" = "package.module:open_reader"

``column`` and ``ids`` are what ``--column`` and ``--ids`` name inside the file, or None; a reader raises
``streamcurate.errors.InputError`` (what is wrong, where, how to mend it) for what it cannot use. It must give the
same rows whenever it is asked, hold no more than a block or two in memory, and never give fewer rows than it said:
lost data are an error. Blocks are about ``block_rows(dims, dtype)`` rows; ids are int64 (``INTEGER``) or NumPy's
variable-width strings (``TEXT``). :meth:`Stamp.of` gives the state of a file, by which a change while it is read is
noticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from streamcurate import objects
from streamcurate.embeddings.memory import rows_of
from streamcurate.embeddings.sources.base import (
    BLOCK_BYTES,
    INTEGER,
    TEXT,
    Block,
    SourceReader,
    Stamp,
    block_rows,
)
from streamcurate.embeddings.sources.companions import IdsOption, pair
from streamcurate.embeddings.sources.folders import shards
from streamcurate.embeddings.sources.formats import is_one_source, known_formats, open_file
from streamcurate.embeddings.sources.memory import MemoryReader
from streamcurate.embeddings.sources.places import is_folder, is_pattern, matching
from streamcurate.embeddings.store import Embeddings, zarr_path
from streamcurate.errors import InputError

__all__ = [
    "BLOCK_BYTES",
    "INTEGER",
    "TEXT",
    "Block",
    "SourceReader",
    "Stamp",
    "block_rows",
    "known_formats",
    "open_sources",
]


def open_sources(sources: Any, column: str | None = None, ids: str | IdsOption | None = None) -> list[SourceReader]:
    """Open everything rows are to be read from.

    Parameters
    ----------
    sources : path, URL, glob pattern, array, or a list of these
        Files of a pattern or folder come in natural order (``part-2`` before ``part-10``), all else as given. A folder
        stands for the files of rows directly in it, which are all of one format.
    column : str, optional
        Name of the column, array or tensor, where a format has several.
    ids : str, optional
        Name of the column of ids, or a pattern or folder of files of ids, one for each source.

    Raises
    ------
    InputError
        Nothing matches, the same file twice, an unknown format, or a file that its reader refuses.
    """
    option = IdsOption.of(ids) if isinstance(ids, str) else ids
    named = option.place if option is not None and option.kind == "column" else None
    readers: list[SourceReader] = []
    seen: set[str] = set()
    for source in _listed(sources):
        paths = _paths(source)
        if not paths:
            if column is not None or option is not None:
                name = option.place if column is None and option is not None else column
                raise InputError(f"column {name!r}: an array in memory has no named columns; give ids in a file")
            readers.append(MemoryReader(source if isinstance(source, Embeddings) else rows_of(source, convert=False)))
        for path in paths:
            where = path if objects.is_url(path) else os.path.realpath(path)
            if where in seen:
                raise InputError(f"{path}: given twice; its rows would be there twice")
            seen.add(where)
            readers.append(open_file(path, column, named))
    if not readers:
        raise InputError("no sources given; name files, folders or patterns")
    return pair(readers, option) if option is not None and option.kind == "files" else readers


def expand(source: str) -> list[str]:
    """What a path, pattern or folder stands for, each to be read by a reader of its own."""
    if is_pattern(source):
        return matching(source)
    if is_folder(source) and not is_one_source(source):
        return shards(source)
    return [source]


def _paths(source: Any) -> list[str]:
    """The files and folders a source names; none for an array in memory."""
    if isinstance(source, (str, os.PathLike)):
        return expand(os.fspath(source))
    place = source.path if isinstance(source, Embeddings) else zarr_path(source)
    return [] if place is None else [place]


def _listed(sources: Any) -> Iterable[Any]:
    return sources if isinstance(sources, (list, tuple)) else [sources]
