"""What is written of a selection: a line for each distinct row, a batch of lines at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import InputError
from streamcurate.sampling.keyed import JoinedColumns
from streamcurate.sampling.metadata import AlignedColumns, Columns, Metadata
from streamcurate.sampling.selection import BATCH, Selection

Int64 = NDArray[np.int64]


def own_columns(levels: int) -> list[str]:
    """The columns of a table that come from the tree and the store."""
    labels = [f"label_{level}" for level in range(1, levels + 1)]
    return ["row", "id", *labels, *(distance_name(level) for level in range(1, levels + 1)), "copies"]


def distance_name(level: int) -> str:
    """The column of the distance at a level: of the row at level 1, of the cluster below at the others."""
    return "distance" if level == 1 else f"distance_{level}"


def check_names(metadata: Metadata, levels: int) -> None:
    """Refuse metadata whose columns are called as our own.

    Raises
    ------
    InputError
        Naming them.
    """
    own = set(own_columns(levels))
    if taken := [name for name in metadata.columns if name in own]:
        free = [name for name in metadata.columns if name not in own]
        instead = f"name the others: --columns {','.join(free)}" if free else "rename them in the files"
        raise InputError(
            f"{metadata.name}: columns {', '.join(map(repr, taken))} would stand beside the selection's own of that "
            f"name; {instead}"
        )


def tables(selection: Selection, metadata: Metadata | None, scratch: Any = None) -> Iterator[Any]:
    """Tables of row, id (where there are ids), labels, distances, copies and the metadata's columns."""
    import pyarrow as pa

    take = selection.id_reader()
    with metadata_columns(selection, metadata, scratch) as columns:
        for start, stop in batches(selection, metadata):
            rows = selection.unique_rows[start:stop]
            labels, distances = selection.lookup(start, stop)
            table = {"row": pa.array(rows)}
            if take is not None:
                table["id"] = id_column(take(rows))
            for level, label in enumerate(labels, start=1):
                table[f"label_{level}"] = pa.array(label)
            for level, distance in enumerate(distances, start=1):
                table[distance_name(level)] = pa.array(distance)
            table["copies"] = pa.array(selection.copies[start:stop])
            found = pa.table(table)
            if columns is not None:
                beside, _ = columns.take(start, stop)
                for name in beside.column_names:
                    found = found.append_column(beside.schema.field(name), beside[name])
            yield found


def names(
    selection: Selection, metadata: Metadata | None, scratch: Any = None
) -> Iterator[tuple[int, Any, Int64 | None]]:
    """What each row is called, a batch of distinct rows at a time: the first, an Arrow array, and the metadata file
    that each comes from.

    A row is called by the one column of the metadata, else by its id, else by its number.
    """
    import pyarrow as pa

    take = None if metadata is not None and metadata.key is None else selection.id_reader()
    with metadata_columns(selection, metadata, scratch) as columns:
        for start, stop in batches(selection, metadata):
            rows = selection.unique_rows[start:stop]
            if columns is not None:
                table, files = columns.take(start, stop)
                yield start, table.column(0).combine_chunks(), files
            else:
                yield start, pa.array(rows) if take is None else id_column(take(rows)), None


def batches(selection: Selection, metadata: Metadata | None = None) -> Iterator[tuple[int, int]]:
    """Ranges of distinct rows, shorter beside wide metadata; one empty range where there are none."""
    count = len(selection.unique_rows)
    step = BATCH if metadata is None else metadata.rows_at_once(BATCH)
    for start in range(0, max(count, 1), step):
        yield start, min(start + step, count)


@contextmanager
def metadata_columns(selection: Selection, metadata: Metadata | None, scratch: Any) -> Iterator[Columns | None]:
    """The metadata in the order of a selection, None where there is none."""
    if metadata is None:
        yield None
    elif metadata.key is None:
        metadata.check_rows(selection.tree.levels[0].stored_labels.rows)
        aligned = AlignedColumns(metadata, selection.unique_rows)
        try:
            yield aligned
        finally:
            aligned.close()
    else:
        joined = JoinedColumns(metadata, _ids_as_text(selection, metadata), scratch)
        try:
            yield joined
        finally:
            joined.close()


def id_column(ids: NDArray[Any]) -> Any:
    """Ids as an Arrow array of int64 or strings."""
    import pyarrow as pa

    if ids.dtype.kind in "iu":
        return pa.array(ids.astype(np.int64))
    return pa.array([str(name) for name in ids.tolist()], type=pa.string())


def _ids_as_text(selection: Selection, metadata: Metadata) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    take = selection.id_reader()
    if take is None:
        raise InputError(
            f"{metadata.name}: column {metadata.key!r} cannot be matched: the store has no ids; leave --metadata-key "
            "out to go by position, or ingest with --ids"
        )
    for start, stop in batches(selection):
        yield pc.cast(id_column(take(selection.unique_rows[start:stop])), pa.large_string())
