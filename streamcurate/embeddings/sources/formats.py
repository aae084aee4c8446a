"""Which reader reads what: by suffix, or by what lies in a folder."""

from __future__ import annotations

import importlib
import json
from typing import Protocol, cast

from streamcurate import objects
from streamcurate.embeddings.sources import plugins
from streamcurate.embeddings.sources.base import SourceReader, is_file
from streamcurate.embeddings.sources.places import contents, is_folder, suffix_of
from streamcurate.errors import InputError
from streamcurate.storage import node_kind

# Modules of this package; imported when they are needed, for some bring heavy libraries.
_READERS = {
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
    ".safetensors": "safetensors",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".lance": "lance",
    ".zarr": "stored",
}
# Kept as folders, not as files.
_FOLDERS = ("lance", "stored")


class _OpensReader(Protocol):
    def open_reader(self, path: str, column: str | None, ids: str | None) -> SourceReader: ...


class Formats:
    """What is known now, our own formats and those of other installed packages, by suffix.

    Attributes
    ----------
    suffixes : list of str
        Our own first.
    """

    def __init__(self) -> None:
        # Of a file's format its name is one of ours, or the suffix that another package reads.
        self._by_suffix = {suffix: suffix for suffix in plugins.suffixes()} | _READERS
        self.suffixes = sorted(self._by_suffix, key=lambda suffix: suffix not in _READERS)

    def of(self, path: str) -> str | None:
        """Name of the format of a path, by its suffix alone; None where it is not known."""
        return self._by_suffix.get(suffix_of(path))

    def may_be_folder(self, path: str) -> bool:
        """Whether one source of this format may be a folder."""
        format_ = self.of(path)
        return format_ is not None and (format_ in _FOLDERS or format_ not in _READERS.values())


def known_formats() -> list[str]:
    """Suffixes that can be read: our own, then those of other installed packages."""
    return Formats().suffixes


def is_one_source(path: str) -> bool:
    """Whether a folder is read as a whole, by one reader: Zarr, Lance, or a data set that ``datasets`` saved.

    Raises
    ------
    InputError
        It holds several data sets.
    """
    return Formats().may_be_folder(path) or node_kind(path) is not None or _saved_by_datasets(path)


def open_file(path: str, column: str | None, ids: str | None) -> SourceReader:
    """Open one file, or a folder that is one source, with the reader of its format.

    Raises
    ------
    InputError
        Missing, unreadable, of an unknown format, or refused by its reader.
    """
    suffix = suffix_of(path)
    module = _READERS.get(suffix)
    # On a disk a look into a folder costs nothing, at a URL it is several requests for each of many files.
    if not objects.is_url(path) or (module is None and not objects.is_web(path)):
        if node_kind(path) is not None:
            module = "stored"
        elif module is None and is_folder(path) and _saved_by_datasets(path):
            module = "ipc"
    try:
        if module is not None:
            opener = cast(_OpensReader, importlib.import_module(f"{__package__}.{module}"))
            return opener.open_reader(path, column, ids)
        point = plugins.find(suffix) if suffix else None
        if point is not None and (is_file(path) or is_folder(path)):
            return plugins.open_reader(point, path, column, ids)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if is_folder(path):
        raise InputError(f"{path}: a folder among single files; give it by itself, or a pattern of the files in it")
    if not is_file(path):
        raise InputError(f"{path}: no such file or folder; check the path")
    raise InputError(f"{path}: unknown format; known are {', '.join(known_formats())}")


def _saved_by_datasets(path: str) -> bool:
    """Whether the library datasets saved a data set to this folder."""
    names = contents(path).files
    if "dataset_dict.json" in names:
        text = objects.contents(objects.join(path, "dataset_dict.json"))
        try:
            splits = [str(split) for split in json.loads(text or b"")["splits"]]
        except (ValueError, KeyError, TypeError):
            splits = []
        places = " or ".join(objects.join(path, split) for split in splits)
        raise InputError(f"{path}: a data set of several splits; give one of them{': ' if places else ''}{places}")
    if "state.json" in names:
        return True
    # A folder of the library's cache is one too.
    return "dataset_info.json" in names and any(suffix_of(name) == ".arrow" for name in names)
