"""Ids that lie beside the rows: what ``--ids`` names, and one file of ids for each source.

``--ids`` is the name of a column; or one file with an id for each row of all sources; or a pattern or folder (written
with a slash) of files, one for each source. Sources and files of ids are both taken in the natural order of their
names, whatever order the rows come in; the numbers in the names must agree, and each file must hold an id for each row.

An .npy file has no columns: a column is looked up in the Parquet file of metadata that clip-retrieval, img2dataset and
embedding-reader keep beside it (``img_emb_07.npy``: ``metadata_07.parquet`` or ``img_emb_07.parquet``, in the same
folder or in ``../metadata``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from streamcurate import objects
from streamcurate.embeddings.sources.base import Block, SourceReader, Stamp, is_file
from streamcurate.embeddings.sources.idfiles import (
    READ_OVERHEAD_BYTES,
    SUFFIXES,
    IdsFile,
    IdsStream,
    ParquetIds,
    open_ids,
    stamp,
)
from streamcurate.embeddings.sources.places import contents, is_folder, is_pattern, matching, natural, suffix_of
from streamcurate.errors import DataError, InputError

METADATA_FOLDER = "metadata"
_WITH_COLUMN = re.compile(r"(?is)^(.+?\.parquet):(.+)$")


class IdsOption(NamedTuple):
    """What ``--ids`` names.

    Attributes
    ----------
    kind : {"column", "file", "files"}
        A column of the sources; one file for all sources; one file for each source.
    place : str
        The column, path, pattern or folder.
    column : str or None
        Column of the Parquet files: what stands behind a colon.
    """

    kind: Literal["column", "file", "files"]
    place: str
    column: str | None = None

    @classmethod
    def of(cls, ids: str) -> IdsOption:
        """Tell columns, files and patterns apart."""
        if os.path.isfile(ids):
            return cls("file", ids)
        parts = _WITH_COLUMN.match(ids)
        place, column = (parts[1], parts[2]) if parts else (ids, None)
        url = objects.is_url(place)
        if place.endswith("/"):
            return cls("files", place, column)
        if is_pattern(place) and (url or "/" in place or suffix_of(place) in SUFFIXES):
            return cls("files", place, column)
        if "/" in place and os.path.isdir(place):
            return cls("files", place, column)
        if url or suffix_of(place) in SUFFIXES:
            return cls("file", place, column)
        return cls("column", ids)

    @property
    def identity(self) -> str:
        """The same from whatever folder it is said."""
        place = self.place if self.kind == "column" or objects.is_url(self.place) else os.path.abspath(self.place)
        return place if self.column is None else f"{place}:{self.column}"


class WithIds:
    """A source whose ids lie in a file of their own."""

    def __init__(self, reader: SourceReader, ids: IdsFile) -> None:
        self._reader, self._ids = reader, ids
        self.name = reader.name
        self.rows = reader.rows
        self.dims = reader.dims
        self.dtype = reader.dtype
        self.ids_dtype: np.dtype[Any] | None = ids.dtype
        self.bad_values = reader.bad_values
        self.read_overhead_bytes = reader.read_overhead_bytes + READ_OVERHEAD_BYTES

    def stamps(self) -> list[Stamp]:
        """State of the rows' files and the file of ids."""
        return [*self._reader.stamps(), stamp(self._ids)]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on with their ids."""
        stream = IdsStream(self._ids, start)
        for values, _ in self._reader.blocks(start):
            yield values, stream.next(len(values))


def pair(readers: Sequence[SourceReader], option: IdsOption) -> list[SourceReader]:
    """Give each source the ids of its own file.

    Raises
    ------
    InputError
        Not as many files as sources, names with other numbers, or a file with not as many ids as its source has rows.
    """
    said = option.identity
    files = _ids_files(option.place)
    if len(files) != len(readers):
        raise InputError(
            f"{said}: {len(files)} files of ids, and {len(readers)} sources; one file is needed for each, or one "
            "for all"
        )
    order = sorted(range(len(readers)), key=lambda number: natural(_absolute(readers[number].name)))
    sources = [readers[number].name for number in order]
    for source, file, ours, theirs in zip(sources, files, _numbers(sources), _numbers(files), strict=True):
        if len(ours) == len(theirs) and ours != theirs:
            raise InputError(
                f"{said}: {file} would be the ids of {source}, and the numbers in their names differ; name sources "
                "and files of ids alike, or give one file of ids for all"
            )
    paired = list(readers)
    for number, file in zip(order, files, strict=True):
        reader = readers[number]
        if reader.rows is None:
            raise InputError(
                f"{file}: ids from a file need sources that tell their number of rows; {reader.name} does not"
            )
        paired[number] = WithIds(reader, open_ids(file, reader.rows, option.column, f"{reader.name} holds"))
    return paired


def metadata_names(name: str) -> list[str]:
    """What the Parquet file of an .npy file's metadata may be called."""
    stem = os.path.splitext(name)[0]
    digits = re.search(r"\d*$", stem)
    assert digits is not None
    numbered = f"metadata_{digits[0]}.parquet" if digits[0] else "metadata.parquet"
    return [numbered, f"{stem}.parquet"]


def with_metadata_ids(reader: SourceReader, column: str) -> SourceReader:
    """An .npy file with the ids of a column of the metadata beside it.

    Raises
    ------
    InputError
        There is no such file, no such column in it, or it holds other than one row for each embedding.
    """
    path, rows = reader.name, reader.rows
    folder = objects.parent(path)
    names = metadata_names(objects.base_name(path))
    for place in (folder, objects.join(objects.parent(folder), METADATA_FOLDER)):
        for name in names:
            file = objects.join(place, name)
            if is_file(file):
                ids = ParquetIds(file, column)
                if ids.count() != rows:
                    raise DataError(
                        f"{file}: {ids.count()} rows of metadata, and {path} holds {rows} embeddings; one belongs to "
                        "each, so make both again, or give ids of your own (--ids FILE)"
                    )
                return WithIds(reader, ids)
    raise InputError(
        f"{path}: an NPY file has no column {column!r}, and there is no metadata of it ({' or '.join(names)}, beside "
        f"it or in ../{METADATA_FOLDER}); give --ids a file such as ids.txt, or a pattern of files, one for each source"
    )


def _ids_files(place: str) -> list[str]:
    """Files of ids of a pattern or folder, in natural order."""
    if is_pattern(place):
        files = matching(place)
    else:
        if not is_folder(place):
            raise InputError(f"{place}: no such folder of ids; check the path")
        files = [objects.join(place, name) for name in contents(place).files if not name.startswith((".", "_"))]
        if not files:
            raise InputError(f"{place}: a folder without files; --ids needs one for each source")
    suffixes = sorted({suffix_of(file) for file in files})
    if len(suffixes) > 1 or suffixes[0] not in SUFFIXES:
        raise InputError(
            f"{place}: holds {' and '.join(suffix or 'files without suffix' for suffix in suffixes)}; files of ids are "
            f"all of one kind: {', '.join(SUFFIXES)}"
        )
    return files


def _numbers(paths: Sequence[str]) -> list[tuple[int, ...]]:
    """The numbers in names that are not the same in all; nothing where names are not built alike."""
    found = [[int(number) for number in re.findall(r"\d+", objects.base_name(path))] for path in paths]
    if len({len(numbers) for numbers in found}) != 1:
        return [()] * len(paths)
    varying = [place for place in range(len(found[0])) if len({numbers[place] for numbers in found}) > 1]
    return [tuple(numbers[place] for place in varying) for numbers in found]


def _absolute(path: str) -> str:
    return path if objects.is_url(path) else os.path.abspath(path)
