"""What an ingest is asked to do, settled before the first row is read, and whether it has been done already."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import DTypeLike

from streamcurate.embeddings.sources import SourceReader, Stamp, open_sources
from streamcurate.embeddings.sources.base import BLOCK_BYTES
from streamcurate.embeddings.sources.companions import IdsOption
from streamcurate.embeddings.sources.idfiles import READ_OVERHEAD_BYTES, IdsFile, open_ids, stamp
from streamcurate.embeddings.writer import default_chunk_rows
from streamcurate.errors import ConfigError, DataError, InputError
from streamcurate.objects import UPLOAD_BYTES, is_url
from streamcurate.storage import node_kind, open_group_attributes
from streamcurate.streaming.budget import MemoryBudget

FORMAT = 1
# The list of sources stands in the store's metadata, which every opening parses.
_LISTED_SOURCES = 1000
# A block as read, converted, compared, and as text ids.
_BLOCKS_AT_ONCE = 6
# Beside shards the ids, which have none, lie in chunks of up to 2^18.
_SHARDED_IDS_BYTES = 25 << 20


@dataclass(frozen=True)
class Job:
    """Everything known before the first row is read."""

    readers: list[SourceReader]
    ids_file: IdsFile | None
    stamps: list[list[Stamp]]
    rows: int | None
    dims: int
    dtype: np.dtype[Any]
    ids_dtype: np.dtype[Any] | None
    chunk_rows: int
    options: dict[str, Any]

    @property
    def shard_rows(self) -> int | None:
        """Rows of one file of several chunks; None where every chunk is a file of its own."""
        rows: int | None = self.options.get("rows_per_shard")
        return rows

    @property
    def _all_stamps(self) -> list[Stamp]:
        return [stamp for each in self.stamps for stamp in each]

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two ingests the same."""
        stamps = "\n".join(
            f"{stamp.path}\t{stamp.bytes}\t{stamp.modified_ns}" for each in self.stamps for stamp in each
        )
        return {
            "sources": xxhash.xxh3_128_hexdigest(stamps.encode("utf-8", "surrogateescape")),
            "options": self.options,
        }

    @property
    def note(self) -> dict[str, Any]:
        """As the unfinished ingest notes it."""
        return {"format": FORMAT, "identity": self.identity, "chunk_rows": self.chunk_rows}

    def attributes(self, dropped: int) -> dict[str, Any]:
        """What the store says of itself, but for the fingerprint."""
        stamps = self._all_stamps
        return {
            "format": FORMAT,
            "sources": [stamp._asdict() for stamp in stamps[:_LISTED_SOURCES]],
            "source_count": len(stamps),
            "sources_digest": self.identity["sources"],
            "options": self.options,
            "ids": None if self.ids_dtype is None else "int64" if self.ids_dtype.kind == "i" else "string",
            "rows_dropped": dropped,
        }


def make_options(
    column: str | None,
    ids: str | os.PathLike[str] | None,
    dtype: DTypeLike | None,
    rows_per_chunk: int | None,
    on_bad_row: str,
    metric: str | None,
    rows_per_shard: int | None = None,
) -> dict[str, Any]:
    """The options as JSON values, which two ingests have in common or not.

    Raises
    ------
    ConfigError
        A value that is not allowed.
    """
    try:
        chosen = None if dtype is None else np.dtype(dtype).name
    except TypeError:
        chosen = str(dtype)
    if chosen not in (None, "float16", "float32"):
        raise ConfigError(f"dtype {chosen}: stores are float16 or float32; choose one of them")
    if on_bad_row not in ("error", "drop"):
        raise ConfigError(f"on-bad-row {on_bad_row!r}: either error or drop")
    if metric not in (None, "l2", "cosine"):
        raise ConfigError(f"metric {metric!r}: either l2 or cosine")
    for name, rows in (("rows-per-chunk", rows_per_chunk), ("rows-per-shard", rows_per_shard)):
        if rows is not None and (isinstance(rows, bool) or rows < 1):
            raise ConfigError(f"{name} {rows}: at least 1 is needed")
    options = {
        "column": column,
        "ids": None if ids is None else IdsOption.of(os.fspath(ids)).identity,
        "dtype": chosen,
        "rows_per_chunk": None if rows_per_chunk is None else int(rows_per_chunk),
        "on_bad_row": on_bad_row,
        # Nothing more is checked under l2 than without a metric, so that the two make the same store.
        "metric": "cosine" if metric == "cosine" else None,
    }
    if rows_per_shard is not None:
        # Only where given: stores made before there were shards are to be found complete as ever.
        options["rows_per_shard"] = int(rows_per_shard)
    return options


def make_job(
    sources: Any,
    ids: str | None,
    target: str,
    options: dict[str, Any],
    memory_limit: int | str | None,
) -> Job:
    """Open the sources and settle what the store will be.

    Parameters
    ----------
    sources : path, glob pattern, array, or a list of these
    ids : str or None
        As the user gave it; ``options`` holds the absolute path.
    target : str
        The store to make, for messages.
    options : dict
        From :func:`make_options`.
    memory_limit : int, str or None

    Raises
    ------
    InputError
        A source cannot be used, or does not fit the others.
    MemoryLimitError
        A chunk does not fit the memory limit.
    """
    option = None if ids is None else IdsOption.of(ids)
    one_file = option if option is not None and option.kind == "file" else None
    readers = open_sources(sources, options["column"], None if one_file else option)
    filled = [reader for reader in readers if reader.rows != 0]
    if not filled:
        raise DataError(f"{readers[0].name}: no rows{' in any source' if len(readers) > 1 else ''}; nothing to ingest")
    first = filled[0]
    for reader in filled:
        if reader.dims != first.dims:
            raise DataError(
                f"{reader.name}: rows of {reader.dims} dimensions, and {first.name} has {first.dims}; "
                "all rows of a store have one length, so ingest them into stores of their own"
            )
    narrow = all(reader.dtype == np.float16 for reader in filled)
    dtype = np.dtype(options["dtype"] or (np.float16 if narrow else np.float32))
    counts = [reader.rows for reader in readers]
    known = None if None in counts else sum(count or 0 for count in counts)
    ids_file = None
    stamps = [reader.stamps() for reader in readers]
    if one_file:
        if known is None:
            raise InputError(f"{ids}: ids from a file need sources that tell their number of rows")
        ids_file = open_ids(one_file.place, known, one_file.column)
        stamps.append([stamp(ids_file)])
    ids_dtype = ids_file.dtype if ids_file else _common_ids(filled)
    chunk_rows = options["rows_per_chunk"] or default_chunk_rows(first.dims, dtype)
    job = Job(readers, ids_file, stamps, known, first.dims, dtype, ids_dtype, chunk_rows, options)
    _check_shards(job)
    if memory_limit is not None:
        chunk = min(chunk_rows, known or chunk_rows) * first.dims * dtype.itemsize
        needed = chunk + _BLOCKS_AT_ONCE * BLOCK_BYTES + max(reader.read_overhead_bytes for reader in readers)
        needed += READ_OVERHEAD_BYTES if ids_file is not None else 0
        needed += UPLOAD_BYTES if is_url(target) else 0
        needed += _SHARDED_IDS_BYTES if job.shard_rows is not None and ids_dtype is not None else 0
        MemoryBudget.of(memory_limit).require(needed, f"{target}: ingest", "smaller chunks (--rows-per-chunk)")
    return job


def _check_shards(job: Job) -> None:
    """Refuse shards that are not whole chunks."""
    if job.shard_rows is None or job.shard_rows % job.chunk_rows == 0:
        return
    fewer = job.shard_rows // job.chunk_rows * job.chunk_rows
    near = f"{fewer} or {fewer + job.chunk_rows}" if fewer else str(job.chunk_rows)
    raise ConfigError(
        f"rows-per-shard {job.shard_rows}: a shard holds whole chunks, of {job.chunk_rows} rows here; "
        f"give --rows-per-shard {near}, or --rows-per-chunk a divisor"
    )


def _common_ids(readers: list[SourceReader]) -> np.dtype[Any] | None:
    first = readers[0]
    for reader in readers:
        if reader.ids_dtype != first.ids_dtype:
            raise DataError(
                f"{reader.name}: {_say_ids(reader)}, and {first.name}: {_say_ids(first)}; "
                "give --ids a file with one id for each row of all sources"
            )
    return first.ids_dtype


def _say_ids(reader: SourceReader) -> str:
    if reader.ids_dtype is None:
        return "no ids"
    return "integer ids" if reader.ids_dtype.kind == "i" else "ids of strings"


def is_finished(target: str, job: Job) -> bool:
    """Whether the store is there already; refuses anything else that is there."""
    if (node_kind(target) is None) if is_url(target) else not os.path.lexists(target):
        return False
    attributes = open_group_attributes(target) if node_kind(target) == "group" else {}
    identity = {"sources": attributes.get("sources_digest"), "options": attributes.get("options")}
    if None in identity.values():
        raise InputError(
            f"{target}: already exists, and was not made by ingest; the last argument is the store to make: "
            "choose another place"
        )
    if identity == job.identity:
        return True
    raise InputError(
        f"{target}: already exists, made {_difference(attributes, job)}; remove it or choose another destination"
    )


def _difference(attributes: dict[str, Any], job: Job) -> str:
    """The first thing in which a finished store differs from what is asked for."""
    for key in {**job.options, **attributes["options"]}:
        earlier, value = attributes["options"].get(key), job.options.get(key)
        if earlier != value:
            name = key.replace("_", "-")
            return f"with other options ({name}: {earlier or 'none'} before, {value or 'none'} now)"
    now = job.attributes(0)
    for before, after in zip(attributes.get("sources", []), now["sources"], strict=False):
        if before != after:
            if before.get("path") == after["path"]:
                return f"from {after['path']} as it was before it changed"
            return f"from other sources ({before.get('path')})"
    return f"from other sources ({attributes.get('source_count')} files, now {now['source_count']})"
