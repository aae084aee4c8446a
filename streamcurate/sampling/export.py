"""Selections as files: which format a suffix names, and what goes with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamcurate.errors import ConfigError, InputError
from streamcurate.objects import is_url
from streamcurate.sampling import formats, store
from streamcurate.sampling.hierarchy import SampledTree
from streamcurate.sampling.keyed import JOINED_BYTES, JOINED_ROW_BYTES
from streamcurate.sampling.lines import check_names
from streamcurate.sampling.metadata import open_metadata
from streamcurate.sampling.output import Options
from streamcurate.sampling.selection import Selection
from streamcurate.streaming.budget import MemoryBudget, parse_bytes
from streamcurate.streaming.progress import ProgressListener, Silent


def make_options(
    *,
    metadata: Any = None,
    metadata_key: str | None = None,
    columns: Sequence[str] | str | None = None,
    shard_digits: int | None = None,
    embeddings: Any = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> Options:
    """Options as :meth:`Selection.save` takes them; the metadata's footers are read.

    Raises
    ------
    ConfigError
        A key or columns without metadata.
    InputError
        Metadata that cannot be read.
    """
    if metadata is None and (metadata_key is not None or columns is not None):
        name = "metadata-key" if metadata_key is not None else "columns"
        raise ConfigError(f"{name}: {metadata_key or columns!r} is of the metadata; name its files with --metadata")
    opened = None if metadata is None else open_metadata(metadata, columns=columns, key=metadata_key)
    limit = parse_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit
    return Options(opened, shard_digits, limit, scratch, progress or Silent(), embeddings)


Writer = Callable[[Selection, "str | os.PathLike[str]", Options], None]


def writer_for(path: str | os.PathLike[str]) -> Writer:
    """The function that writes the format ``path``'s suffix names.

    Raises
    ------
    InputError
        Another suffix.
    """
    return WRITERS[_known_suffix(path)]


def _known_suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        found = f"its suffix is {suffix!r}" if suffix else "it has no suffix"
        raise InputError(f"{path}: {found}; a selection is written as {', '.join(WRITERS)}")
    return suffix


def write_as(selection: Selection, path: str | os.PathLike[str], suffix: str, options: Options) -> None:
    """Write the format of ``suffix`` to a path with that suffix or none.

    Raises
    ------
    InputError
        ``path`` has another suffix, or cannot be written there.
    """
    write = WRITERS[suffix]
    found = Path(path).suffix
    if found and writer_for(path) is not write:
        raise InputError(
            f"{path}: its suffix is {found!r}, to_{suffix[1:]} writes {suffix}; "
            "name the file so, or use save, which goes by the suffix"
        )
    _check_options(selection.tree, path, suffix, options)
    if options.metadata is not None and options.metadata.key is not None:
        held = JOINED_BYTES + JOINED_ROW_BYTES * len(selection.unique_rows)
        what = f"{path}: joining {len(selection.unique_rows):,} rows by {options.metadata.key!r}"
        MemoryBudget.of(options.memory_limit, 1).require(held, what, "join by position (no --metadata-key)")
    write(selection, path, options)


def write(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """Write the format that the suffix of ``path`` names; raises as :func:`write_as` does."""
    write_as(selection, path, _known_suffix(path), options)


def check_destination(path: str | os.PathLike[str]) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises
    ------
    InputError
        Unknown suffix, no such folder, a folder in its place, or no permission.
    """
    suffix = _known_suffix(path)
    target = Path(path)
    if is_url(path) and suffix != ".zarr":
        return
    if suffix == ".zarr":
        store.check_absent(path)
    elif target.is_dir():
        raise InputError(f"{path}: a folder lies there; name a file")
    if not target.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {target.absolute().parent} does not exist; create it first")
    if not os.access(target.absolute().parent, os.W_OK):
        raise InputError(f"{path}: no permission to write into {target.absolute().parent}; choose another place")


def check_options(tree: SampledTree, path: str | os.PathLike[str], options: Options) -> None:
    """Refuse options that do not go with the format or the tree, before any work is done.

    Raises
    ------
    ConfigError
        The format has no place for what is asked for.
    InputError
        The metadata does not fit.
    """
    _check_options(tree, path, _known_suffix(path), options)


def _check_options(tree: SampledTree, path: str | os.PathLike[str], suffix: str, options: Options) -> None:
    metadata = options.metadata
    if options.shard_digits is not None and (suffix != ".jsonl" or options.shard_digits < 1):
        raise ConfigError(
            f"shard-digits {options.shard_digits}: tells the shard of each key of a .jsonl, from 1 upwards; "
            f"{path} is no place for it"
        )
    if suffix == ".jsonl" and metadata is None and options.shard_digits is None:
        raise ConfigError(
            f"{path}: which shard a key is in is not known; say how many of its first characters name the shard "
            "(--shard-digits 5 for img2dataset), or give the files of the shards (--metadata 'shards/*.parquet')"
        )
    if metadata is None:
        return
    if metadata.key is None:
        # What the store says of its making; nothing where it is gone, or was not ingested.
        noted = getattr(tree.embeddings(), "attributes", {})
        metadata.check_rows(tree.levels[0].stored_labels.rows, noted.get("rows_dropped") or 0)
        metadata.check_order([source["path"] for source in noted.get("sources") or []])
    if suffix in (".parquet", ".csv"):
        check_names(metadata, len(tree.levels))
        if suffix == ".csv":
            for field in metadata.schema:
                _check_plain(field, path)
    elif suffix in (".txt", ".jsonl"):
        if len(metadata.columns) != 1:
            raise ConfigError(
                f"{path}: holds one column, and {metadata.name} has {', '.join(map(repr, metadata.columns))}; "
                "choose one with --columns"
            )
        _check_plain(metadata.schema.field(0), path)
    else:
        raise ConfigError(f"{path}: has no place for metadata; write .parquet, .csv, or one column as .txt or .jsonl")


WRITERS: dict[str, Writer] = {
    ".parquet": formats.write_parquet,
    ".npy": formats.write_npy,
    ".csv": formats.write_csv,
    ".txt": formats.write_txt,
    ".jsonl": formats.write_jsonl,
    ".arrow": formats.write_arrow,
    ".zarr": store.write_store,
}


def _check_plain(field: Any, path: str | os.PathLike[str]) -> None:
    """Refuse a column that has no one way of being text."""
    import pyarrow as pa

    known = pa.types
    found = field.type.value_type if known.is_dictionary(field.type) else field.type
    strings = known.is_string(found) or known.is_large_string(found) or known.is_string_view(found)
    numbers = known.is_integer(found) or known.is_floating(found) or known.is_decimal(found)
    if not (strings or numbers or known.is_boolean(found) or known.is_temporal(found)):
        raise InputError(
            f"{path}: column {field.name!r} holds {field.type}, which text cannot hold; leave it out with --columns, "
            "or write .parquet"
        )
