"""The files that ``dedup`` writes, as they are written: a piece in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowsets import write_numbers
from streamcurate.files import placed_file
from streamcurate.neighbors.duplicates import MASK_NAME, REMOVED_NAME, ROWS_NAME, SKIPPED_NAME
from streamcurate.neighbors.pairs.keep import Marked
from streamcurate.neighbors.pairs.plan import SkippedPairs
from streamcurate.storage import StoredArray

Int64 = NDArray[np.int64]
TakeIds = Callable[[Int64], "NDArray[Any] | None"]

# Lines of a row group: the file must not depend on the pieces in which its lines come.
_GROUP = 1 << 17
# Ids are Python strings for a moment.
_IDS = 1 << 14


def write_rows(
    folder: Path, marked: Iterator[Marked], rows: int, labels: StoredArray | None, take_ids: TakeIds | None
) -> tuple[int, int]:
    """Write ``keep.npy``, ``removed.npy`` and ``duplicates.parquet``, a piece in memory at a time.

    Parameters
    ----------
    folder : Path
    marked : iterator of Marked
        Ranges that together are all rows, in order.
    rows : int
        Of the store.
    labels : StoredArray or None
        Of level 1: a row labelled -1 is outside the subset; None where there is no subset.
    take_ids : callable or None
        Ids of rows, given in ascending order; None where there are none.

    Returns
    -------
    kept, removed : int
    """
    kept = 0

    def marks(mask: IO[bytes], lines: _Lines) -> Iterator[Int64]:
        nonlocal kept
        for part in marked:
            if labels is None:
                keep = np.ones(part.last - part.first, dtype=bool)
            else:
                keep = labels.read(part.first, part.last) >= 0
            keep[part.rows - part.first] = part.kept
            mask.write(keep.data)
            kept += int(np.count_nonzero(keep))
            lines.add(part)
            yield part.rows[~part.kept]

    with placed_file(folder / MASK_NAME) as mask, placed_file(folder / ROWS_NAME) as table:
        np.lib.format.write_array_header_1_0(mask, {"descr": "|b1", "fortran_order": False, "shape": (rows,)})
        lines = _Lines(table, take_ids)
        removed = write_numbers(folder / REMOVED_NAME, marks(mask, lines))
        lines.close()
    return kept, len(removed)


def write_skipped(folder: Path, pairs: SkippedPairs | None) -> None:
    """Write ``skipped.parquet``, a line for each pair of cells that was not compared; no file where there is none.

    Columns: ``cell_a``, ``cell_b``; ``rows_a``, ``rows_b``, how many each holds; ``row_a``, ``row_b``, one of them;
    ``least``, the Euclidean distance below which no two rows of them can be (of unit vectors, for cosine).
    """
    import pyarrow as pa
    import pyarrow.parquet

    (folder / SKIPPED_NAME).unlink(missing_ok=True)
    if pairs is None or not pairs.count:
        return
    names = {"cell_a": "low", "cell_b": "high", "rows_a": "rows_low", "rows_b": "rows_high"}
    names |= {"row_a": "example_low", "row_b": "example_high", "least": "least"}
    writer = None
    with placed_file(folder / SKIPPED_NAME) as file:
        for block in pairs.blocks():
            table = pa.table({name: pa.array(np.ascontiguousarray(block[field])) for name, field in names.items()})
            writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


class _Lines:
    """``duplicates.parquet`` as it is written, in row groups of one length."""

    def __init__(self, file: IO[bytes], take_ids: TakeIds | None) -> None:
        self._file, self._take_ids = file, take_ids
        self._waiting: list[Marked] = []
        self._count = 0
        self._writer: Any = None

    def add(self, part: Marked) -> None:
        if not len(part.rows):
            return
        self._waiting.append(part)
        self._count += len(part.rows)
        if self._count >= _GROUP:
            self._write(last=False)

    def close(self) -> None:
        self._write(last=True)
        self._writer.close()

    def _write(self, last: bool) -> None:
        columns = {
            "row": _joined([part.rows for part in self._waiting], np.int64),
            "component": _joined([part.components for part in self._waiting], np.int64),
            "size": _joined([part.sizes for part in self._waiting], np.int64),
            "kept": _joined([part.kept for part in self._waiting], np.bool_),
        }
        start = 0
        while self._count - start >= _GROUP:
            self._group({name: values[start : start + _GROUP] for name, values in columns.items()})
            start += _GROUP
        rest = {name: values[start:] for name, values in columns.items()}
        self._waiting, self._count = [], self._count - start
        if last and (self._count or self._writer is None):
            self._group(rest)
        elif self._count:
            left = Marked(0, 0, rest["row"], rest["component"], rest["size"], rest["kept"])
            self._waiting = [left]

    def _group(self, columns: Mapping[str, NDArray[Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        table = {"row": pa.array(columns["row"])}
        if self._take_ids is not None:
            table["id"] = self._ids(columns["row"], self._take_ids)
        table |= {name: pa.array(columns[name]) for name in ("component", "size", "kept")}
        found = pa.table(table)
        if self._writer is None:
            # Rows and ids come once each: dictionaries of them take memory, and room in the file.
            self._writer = pyarrow.parquet.ParquetWriter(self._file, found.schema, use_dictionary=False)
        self._writer.write_table(found, row_group_size=_GROUP)

    def _ids(self, rows: Int64, take_ids: TakeIds) -> Any:
        import pyarrow as pa

        pieces = []
        for start in range(0, max(len(rows), 1), _IDS):
            ids = take_ids(rows[start : start + _IDS])
            assert ids is not None
            pieces.append(pa.array(ids) if ids.dtype.kind in "iu" else pa.array(ids.tolist(), pa.string()))
        return pa.chunked_array(pieces)


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
