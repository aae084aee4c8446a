"""The files of rows in a folder of shards, and what does not belong there."""

from __future__ import annotations

from collections.abc import Sequence

from streamcurate import objects
from streamcurate.embeddings.sources.companions import METADATA_FOLDER, metadata_names
from streamcurate.embeddings.sources.formats import Formats
from streamcurate.embeddings.sources.places import Contents, contents, suffix_of
from streamcurate.errors import InputError

# What lies beside data everywhere and holds no rows of it.
_SIDE_FILES = (".json", ".jsonl", ".txt", ".csv", ".tsv", ".md", ".yaml", ".yml", ".toml", ".log", ".html", ".crc")


def shards(folder: str) -> list[str]:
    """The files of rows directly in a folder, in natural order.

    Names that begin with a dot or underscore, and small text files beside the data, are passed over. In the layouts of
    clip-retrieval and embedding-reader the Parquet files of metadata beside .npy files are no rows.

    Raises
    ------
    InputError
        There are none, they are of several formats, or there is something else that may hold rows.
    """
    found, known = _shown(contents(folder)), Formats()
    formats: dict[str, list[str]] = {}
    strangers = []
    for name in found.files:
        if (format_ := known.of(name)) is not None:
            formats.setdefault(format_, []).append(name)
        elif suffix_of(name) not in _SIDE_FILES:
            strangers.append(name)
    folders = []
    for name in found.folders:
        if (format_ := known.of(name)) is not None and known.may_be_folder(name):
            formats.setdefault(format_, []).append(name)
        elif name != METADATA_FOLDER:
            folders.append(name)
    if set(formats) == {"npy", "parquet"}:
        metadata = {one for name in formats["npy"] for one in metadata_names(name)}
        if metadata.issuperset(formats["parquet"]):
            del formats["parquet"]
    if not formats:
        raise InputError(_none(folder, folders, known))
    names = next(iter(formats.values()))
    example = objects.join(folder, f"*{suffix_of(names[0])}")
    if len(formats) > 1:
        kinds = ", ".join(several[0] for several in formats.values())
        raise InputError(
            f"{folder}: holds files of several formats ({kinds}); say by a pattern which are meant, e.g. '{example}'"
        )
    if strangers:
        raise InputError(
            f"{folder}: holds {_some(strangers)} beside {names[0]}; say by a pattern which files are meant, "
            f"e.g. '{example}'"
        )
    if folders:
        deeper = objects.join(folder, "**", f"*{suffix_of(names[0])}")
        raise InputError(
            f"{folder}: holds the folder {folders[0]} beside {names[0]}; say by a pattern which files are meant, "
            f"'{example}' or '{deeper}'"
        )
    return [objects.join(folder, name) for name in names]


def _shown(found: Contents) -> Contents:
    return Contents(*([name for name in names if not name.startswith((".", "_"))] for names in found))


def _none(folder: str, folders: Sequence[str], known: Formats) -> str:
    """What to say of a folder without files of rows."""
    inside = [
        name
        for name in folders
        if any(known.of(file) is not None for file in _shown(contents(objects.join(folder, name))).files)
    ]
    if inside:
        places = " or ".join(objects.join(folder, name) for name in inside[:3])
        return f"{folder}: holds no files of rows, but folders that may; give {places}, or a pattern of files"
    return f"{folder}: a folder without files of a known format ({', '.join(known.suffixes)}); check the path"


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more unknown files"
