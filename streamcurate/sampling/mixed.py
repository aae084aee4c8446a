"""Rows of several stores as one export, with where each comes from: a line for each row of each part, in batches."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.embeddings.joined import ids_kind
from streamcurate.embeddings.rowsets import NumberFile
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import DataError, InputError
from streamcurate.files import placed_file
from streamcurate.sampling.lines import id_column
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.shuffle import RECORD, SortedRecords

Int64 = NDArray[np.int64]

SUFFIXES = (".parquet", ".csv", ".jsonl", ".txt", ".zarr")
# Lines written together.
_BATCH = 1 << 16


@dataclass(frozen=True)
class MixedPart:
    """The rows that one part of a mixture gives.

    Attributes
    ----------
    name : str
    embeddings : Embeddings
        Where they are read: one store, or the stores of an extended tree one after the other.
    stores : tuple of str
        Their paths.
    starts : tuple of int
        The first row of each store among those of ``embeddings``.
    rows : NumberFile
        Ascending, as ``embeddings`` numbers them.
    copies : NumberFile or int
        Of each row, or of all alike.
    """

    name: str
    embeddings: Embeddings
    stores: tuple[str, ...]
    starts: tuple[int, ...]
    rows: NumberFile
    copies: NumberFile | int

    def lines(self, start: int = 0, step: int | None = None) -> Iterator[Lines]:
        """The rows from the one at place ``start`` on, ``step`` at a time."""
        step = step or _BATCH
        rows = self.rows.pieces(start, step=step)
        if isinstance(self.copies, int):
            for piece in rows:
                yield Lines(self, piece, np.full(len(piece), self.copies, dtype=np.int64))
        else:
            for piece, copies in zip(rows, self.copies.pieces(start, step=step), strict=True):
                yield Lines(self, piece, copies)

    def located(self, rows: Int64) -> tuple[Int64, Int64]:
        """The store of each row, and its number there."""
        starts = np.asarray(self.starts, dtype=np.int64)
        store = np.searchsorted(starts, rows, side="right") - 1
        return store, rows - starts[store]


@dataclass(frozen=True)
class Lines:
    """Some rows of a part, and how often each counts."""

    part: MixedPart
    rows: Int64
    copies: Int64

    def ids(self) -> NDArray[Any] | None:
        """Their ids, None where there are none."""
        return self.part.embeddings.take_ids(self.rows)


def suffix_of(path: str) -> str:
    """The suffix that tells the format."""
    return os.path.splitext(path.rstrip("/"))[1].lower()


def check_sources(path: str, sources: Sequence[Embeddings]) -> None:
    """Refuse sources whose rows the format cannot hold together, before any work is done.

    Raises
    ------
    InputError
        Naming two that differ, or one without ids.
    """
    suffix = suffix_of(path)
    without = [source for source in sources if source.ids is None]
    if suffix == ".txt" and without:
        raise InputError(
            f"{path}: holds ids alone, and {without[0].name} has none; write .parquet or .csv, or ingest it with --ids"
        )
    if suffix != ".zarr":
        return
    first = sources[0]
    for other in sources[1:]:
        if other.dims != first.dims:
            raise InputError(
                f"{path}: a store has rows of one length; {other.name} has {other.dims} dims, {first.name} has "
                f"{first.dims}; write .parquet (which rows, without their embeddings)"
            )
    if without and len(without) < len(sources):
        named = next(source.name for source in sources if source.ids is not None)
        raise InputError(
            f"{path}: in a store all rows have ids or none; {without[0].name} has none, {named} has some; write "
            ".parquet, or ingest it with --ids"
        )


def write_mixture(
    parts: Sequence[MixedPart], path: str, folder: Path, memory: int, listener: ProgressListener, **store: Any
) -> None:
    """Write the format that the suffix of ``path`` names, complete or not at all.

    Parameters
    ----------
    parts : sequence of MixedPart
    path : str
        Path, or but for .zarr URL.
    folder : Path
        For what does not fit, and for the unfinished store.
    memory : int
        Bytes to use.
    listener : ProgressListener
    **store
        What a store says of itself.

    Raises
    ------
    DataError
        Names that one a line cannot tell apart.
    InputError
        It cannot be written there.
    """
    suffix = suffix_of(path)
    if suffix == ".zarr":
        from streamcurate.sampling.mixed_store import write_store

        write_store(parts, path, folder, store, listener)
        return
    if suffix == ".txt":
        _check_distinct(parts, path, folder / "ids-sort", memory, listener)
    listener.started(f"write {os.path.basename(path)}", sum(part.rows.count for part in parts))
    {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".txt": _txt}[suffix](parts, path, listener)
    listener.finished()


def id_type(parts: Sequence[MixedPart]) -> str | None:
    """``integers``, ``strings`` where some are, or None where no part has ids."""
    kinds = {ids_kind(part.embeddings) for part in parts} - {"none"}
    return None if not kinds else "integers" if kinds == {"integers"} else "strings"


def _tables(parts: Sequence[MixedPart], listener: ProgressListener) -> Iterator[Any]:
    """Tables of part, source, row, id (where any part has some) and copies."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = id_type(parts)
    wanted = pa.int64() if kind == "integers" else pa.string()
    fields = [("part", pa.string()), ("source", pa.string()), ("row", pa.int64())]
    schema = pa.schema([*fields, *([("id", wanted)] if kind else []), ("copies", pa.int64())])
    for part in parts:
        for lines in part.lines():
            store, own = part.located(lines.rows)
            columns = [
                pa.array([part.name], pa.string()).take(pa.array(np.zeros(len(own), dtype=np.int64))),
                pa.array(part.stores, pa.string()).take(pa.array(store)),
                pa.array(own),
            ]
            if kind is not None:
                ids = lines.ids()
                columns.append(pa.nulls(len(own), wanted) if ids is None else pc.cast(id_column(ids), wanted))
            yield pa.Table.from_arrays([*columns, pa.array(lines.copies)], schema=schema)
            listener.advanced(len(own), 0)


def _parquet(parts: Sequence[MixedPart], path: str, listener: ProgressListener) -> None:
    import pyarrow.parquet

    tables = _tables(parts, listener)
    first = next(tables)
    with placed_file(path) as file, pyarrow.parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _csv(parts: Sequence[MixedPart], path: str, listener: ProgressListener) -> None:
    with placed_file(path) as file:
        for number, table in enumerate(_tables(parts, listener)):
            text = io.StringIO(newline="")
            lines = csv.writer(text, lineterminator="\n")
            if number == 0:
                lines.writerow(table.schema.names)
            lines.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
            file.write(text.getvalue().encode())


def _jsonl(parts: Sequence[MixedPart], path: str, listener: ProgressListener) -> None:
    with placed_file(path) as file:
        for table in _tables(parts, listener):
            lines = (json.dumps(line, ensure_ascii=False) for line in table.to_pylist())
            file.write("".join(f"{line}\n" for line in lines).encode())


def _txt(parts: Sequence[MixedPart], path: str, listener: ProgressListener) -> None:
    with placed_file(path) as file:
        for part in parts:
            for lines in part.lines():
                texts = _texts(lines, path)
                for row, text in zip(lines.rows.tolist(), texts, strict=True):
                    if "\n" in text or "\r" in text:
                        raise DataError(
                            f"{path}: the id of row {row} of {part.embeddings.name} contains a line break ({text!r}), "
                            "one a line cannot hold it; write .parquet or .csv"
                        )
                for text, copies in zip(texts, lines.copies.tolist(), strict=True):
                    for first in range(0, copies, _BATCH):
                        file.write(((text + "\n") * min(_BATCH, copies - first)).encode())
                listener.advanced(len(lines.rows), 0)


def _texts(lines: Lines, path: str) -> list[str]:
    ids = lines.ids()
    if ids is None:
        raise InputError(f"{path}: holds ids alone, and {lines.part.embeddings.name} has none; write .parquet or .csv")
    return [str(name) for name in ids.tolist()]


# -- ids that name two rows --------------------------------------------------------------------------------------------


def _check_distinct(
    parts: Sequence[MixedPart], path: str, folder: Path, memory: int, listener: ProgressListener
) -> None:
    """Refuse an id that is that of two different rows: its line would not tell which is meant."""
    sorting = SortedRecords(folder, memory)
    starts = np.append(0, np.cumsum([part.rows.count for part in parts], dtype=np.int64))
    listener.started("ids", int(starts[-1]))
    try:
        line = 0
        for part in parts:
            for lines in part.lines():
                texts = _texts(lines, path)
                keys = np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], dtype=np.uint64)
                sorting.add(keys, np.arange(line, line + len(keys), dtype=np.int64))
                line += len(keys)
                listener.advanced(len(keys), 0)
        held = np.empty(0, dtype=RECORD)
        for records in sorting.blocks():
            together = np.concatenate([held, records])
            if not len(together):
                continue
            # Those of the last key go on with the next block.
            last = int(np.searchsorted(together["key"], together["key"][-1]))
            _compare(parts, starts, together[:last], path)
            held = together[last:]
            # Of one hash no more is held than different rows of one id can be.
            if len(held) > len(parts):
                _compare(parts, starts, held[: len(parts) + 1], path)
        _compare(parts, starts, held, path)
    finally:
        sorting.close()
    listener.finished()


def _compare(parts: Sequence[MixedPart], starts: Int64, records: NDArray[Any], path: str) -> None:
    """Refuse the first two lines of one hash that are different rows of the same id."""
    fresh = np.flatnonzero(np.append(True, np.diff(records["key"]) != 0)) if len(records) else np.empty(0, np.int64)
    sizes = np.diff(np.append(fresh, len(records)))
    lines, sizes = records["row"][np.repeat(sizes > 1, sizes)], sizes[sizes > 1]
    bounds, first = np.append(0, np.cumsum(sizes)), 0
    # Places and ids are objects, many times as large as records: of all groups only a few at a time become such.
    while first < len(sizes):
        last = max(int(np.searchsorted(bounds, bounds[first] + _BATCH, side="right")) - 1, first + 1)
        here = lines[bounds[first] : bounds[last]]
        if len(here) > _BATCH:
            # A part gives a row once, so that among more lines than parts are different rows, most surely of one id.
            _compare_groups(parts, starts, here[: len(parts) + 1], sizes[first:last], path)
        _compare_groups(parts, starts, here, sizes[first:last], path)
        first = last


def _compare_groups(parts: Sequence[MixedPart], starts: Int64, lines: Int64, sizes: Int64, path: str) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes)
    seen: dict[tuple[str, int], int] = {}
    names: dict[str, tuple[str, int]] = {}
    for index, place in enumerate(_places(parts, starts, lines)):
        if not index or group[index] != group[index - 1]:
            seen, names = {}, {}
        if place in seen:  # the same row in two parts
            continue
        seen[place] = int(lines[index])
        if len(seen) < 2:
            continue
        for other, line in seen.items():
            name = _id_at(parts, starts, line)
            if names.setdefault(name, other) != other:
                raise DataError(
                    f'{path}: the id "{name}" is that of row {names[name][1]} of {names[name][0]} and of row '
                    f"{other[1]} of {other[0]}, so that one a line does not tell which is meant; write .parquet, .csv "
                    "or .jsonl, which name the source"
                )


def _places(parts: Sequence[MixedPart], starts: Int64, lines: Int64) -> list[tuple[str, int]]:
    """Store and row of lines."""
    found: list[tuple[str, int]] = [("", 0)] * len(lines)
    part_of = np.searchsorted(starts, lines, side="right") - 1
    for number in np.unique(part_of).tolist():
        part, places = parts[number], np.flatnonzero(part_of == number)
        store, own = part.located(part.rows.take(lines[places] - starts[number]))
        for place, at, row in zip(places.tolist(), store.tolist(), own.tolist(), strict=True):
            found[place] = part.stores[at], row
    return found


def _id_at(parts: Sequence[MixedPart], starts: Int64, line: int) -> str:
    number = int(np.searchsorted(starts, line, side="right")) - 1
    part = parts[number]
    ids = part.embeddings.take_ids(part.rows.take(np.array([line - starts[number]])))
    assert ids is not None  # they were read a moment ago
    return str(ids[0])
