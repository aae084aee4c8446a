"""The formats of a selection, written in batches."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import DataError
from streamcurate.sampling.lines import batches, names, tables
from streamcurate.sampling.output import Options, placed_file
from streamcurate.sampling.selection import BATCH, Selection

Int64 = NDArray[np.int64]


def write_parquet(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """One line per distinct row; see :meth:`Selection.to_parquet`."""
    import pyarrow.parquet

    found = _watched(tables(selection, options.metadata, options.scratch), path, selection, options)
    first = next(found)
    with placed_file(path) as file, pyarrow.parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in found:
            writer.write_table(table)


def write_csv(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """One line per distinct row; see :meth:`Selection.to_csv`."""
    with placed_file(path) as file:
        found = tables(selection, options.metadata, options.scratch)
        for number, table in enumerate(_watched(found, path, selection, options)):
            text = io.StringIO(newline="")
            lines = csv.writer(text, lineterminator="\n")
            if number == 0:
                lines.writerow(table.schema.names)
            lines.writerows(zip(*(_texts(column) for column in table.columns), strict=True))
            file.write(text.getvalue().encode())


def write_npy(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """Row numbers repeated per copy; see :meth:`Selection.to_npy`."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (len(selection),)}
    with placed_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for here, copies in _pieces(selection.copies):
            file.write(np.repeat(selection.unique_rows[here], copies).astype("<i8", copy=False).tobytes())


def write_arrow(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """Row numbers repeated per copy, as an index of ``datasets``; see :meth:`Selection.to_arrow`."""
    import pyarrow as pa

    schema = pa.schema([pa.field("indices", pa.uint64())])
    with placed_file(path) as file, pa.ipc.new_stream(file, schema) as writer:
        for here, copies in _pieces(selection.copies):
            rows = np.repeat(selection.unique_rows[here], copies).astype(np.uint64)
            writer.write_batch(pa.record_batch([pa.array(rows)], schema=schema))


def write_txt(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """One name a line; see :meth:`Selection.to_txt`."""
    with placed_file(path) as file:
        for start, texts, _ in _names(selection, path, options):
            for row, text in zip(selection.unique_rows[start : start + len(texts)], texts, strict=True):
                # What Python's and most other readers take for the end of a line.
                if "\n" in text or "\r" in text:
                    raise DataError(
                        f"{path}: the {_called(options)} of row {row} contains a line break ({text!r}), one a line "
                        "cannot hold it; write .parquet or .csv"
                    )
            for here, copies in _pieces(selection.copies[start : start + len(texts)]):
                pairs = zip(texts[here], copies.tolist(), strict=True)
                file.write("".join((text + "\n") * count for text, count in pairs).encode())


def write_jsonl(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """Names by shard; see :meth:`Selection.to_jsonl`."""
    with placed_file(path) as file:
        for shard, keys in _by_shard(_shards(selection, path, options)):
            file.write((json.dumps({"shard": shard, "keys": keys}, ensure_ascii=False) + "\n").encode())


def _shards(
    selection: Selection, path: str | os.PathLike[str], options: Options
) -> Iterator[tuple[list[str], list[str], Int64]]:
    """Shards, names and copies of pieces of the distinct rows."""
    files = None if options.metadata is None else options.metadata.shards()
    digits = options.shard_digits
    for start, texts, numbers in _names(selection, path, options):
        if digits is not None:
            lengths = np.array([len(text) for text in texts])
            if (lengths <= digits).any():
                index = int(np.argmax(lengths <= digits))
                raise DataError(
                    f"{path}: the {_called(options)} {texts[index]!r} of row {selection.unique_rows[start + index]} is "
                    f"not longer than the {digits} characters that name its shard; give fewer (--shard-digits)"
                )
            shards = [text[:digits] for text in texts]
        else:
            assert files is not None  # the options were checked
            assert numbers is not None
            shards = [files[number] for number in numbers.tolist()]
        for here, copies in _pieces(selection.copies[start : start + len(texts)]):
            yield shards[here], texts[here], copies


def _by_shard(pieces: Iterator[tuple[list[str], list[str], Int64]]) -> Iterator[tuple[str, list[str]]]:
    """Names repeated per copy, those of one shard together as long as they follow each other; at most so many."""
    shard, keys = "", list[str]()
    for shards, texts, copies in pieces:
        for place, text, count in zip(shards, texts, copies.tolist(), strict=True):
            if keys and (place != shard or len(keys) >= BATCH):
                yield shard, keys
                keys = []
            shard = place
            keys.extend([text] * count)
    if keys:
        yield shard, keys


def _pieces(copies: Int64) -> Iterator[tuple[slice, Int64]]:
    """Rows and their copies in pieces of so many lines: a row drawn a million times is spread over several."""
    ends = np.cumsum(copies)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, BATCH):
        stop = min(start + BATCH, total)
        low, high = np.searchsorted(ends, [start, stop - 1], side="right")
        here = slice(int(low), int(high) + 1)
        yield here, np.minimum(ends[here], stop) - np.maximum(ends[here] - copies[here], start)


def _names(
    selection: Selection, path: str | os.PathLike[str], options: Options
) -> Iterator[tuple[int, list[str], Int64 | None]]:
    """What rows are called, as text."""
    found = names(selection, options.metadata, options.scratch)
    for start, column, files in _watched(found, path, selection, options):
        if column.null_count:
            row = selection.unique_rows[start + int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))]
            raise DataError(f"{path}: the {_called(options)} of row {row} is missing; choose another column")
        yield start, [str(text) for text in _texts(column)], files


def _called(options: Options) -> str:
    return "id" if options.metadata is None else repr(options.metadata.columns[0])


def _watched(pieces: Iterator[Any], path: Any, selection: Selection, options: Options) -> Iterator[Any]:
    """The pieces, each reported once the next is asked for."""
    count = len(selection.unique_rows)
    options.listener.started(f"write {Path(path).name}", count)
    for (start, stop), piece in zip(batches(selection, options.metadata), pieces, strict=True):
        yield piece
        options.listener.advanced(stop - start, 0)
    options.listener.finished()


def _texts(column: Any) -> list[Any]:
    """The values of a column as the CSV writer takes them; None for what is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_float16(column.type):
        column = pc.cast(column, pa.float32())
    if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        # Floats as text straight from their own width: 0.1, not 0.10000000149.
        column = pc.cast(column, pa.string())
    values: list[Any] = column.to_pylist()
    return values
