"""Near-duplicates at rest: which rows to keep, which rows belong together, and what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowlist import open_list
from streamcurate.errors import InputError, StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder, write_json
from streamcurate.neighbors.pairs.keep import Counts, Marked
from streamcurate.neighbors.pairs.plan import SkippedPairs
from streamcurate.neighbors.unfinished import PARTIAL_SUFFIX
from streamcurate.objects import contents, exists, join
from streamcurate.storage import StoredArray

Int64 = NDArray[np.int64]
TakeIds = Callable[[Int64], "NDArray[Any] | None"]

KIND = "dedup"
SUMMARY_NAME, MASK_NAME, ROWS_NAME = "dedup.json", "keep.npy", "duplicates.parquet"
SKIPPED_NAME = "skipped.parquet"
_FORMAT = 1
# What is read of dedup.json.
_NOTED = {"identity", "fingerprint", "stamps", "rows", "kept", "removed", "components", "sizes", "largest", "metric"}
_NOTED |= {"threshold", "keep", "pairs", "cells", "warnings"}
# Lines of a row group: the file must not depend on the pieces in which its lines come.
_GROUP = 1 << 17
# Ids are Python strings for a moment.
_IDS = 1 << 14


@dataclass(frozen=True)
class LargestComponent:
    """One of the largest components.

    Attributes
    ----------
    component : int
        Its lowest row, after which it is called.
    size : int
        Rows in it.
    kept : int
        The row that is kept.
    id : str, int or None
        Of the row that is kept, where the rows have ids.
    """

    component: int
    size: int
    kept: int
    id: str | int | None = None


@dataclass(frozen=True)
class Duplicates:
    """What ``dedup`` found. Given as ``subset`` or ``eligible`` it stands for the rows that are kept.

    Attributes
    ----------
    path : str
        The folder, or its URL.
    rows : int
        Rows looked at: those of the store, or of the subset.
    kept, removed : int
        Of those; together they are ``rows``.
    components : int
        Groups of rows that are duplicates of each other, directly or through others; a row alone is none.
    sizes : dict of int to int
        How many components there are of each number of rows.
    largest : tuple of LargestComponent
        The hundred largest, largest first.
    metric : "l2" or "cosine"
    threshold : float
        Least cosine similarity, or largest Euclidean distance, of two duplicates.
    keep : "closest", "first" or "random"
    warnings : tuple of str
    summary : mapping
        All of ``dedup.json``.
    """

    path: str
    rows: int
    kept: int
    removed: int
    components: int
    sizes: Mapping[int, int]
    largest: tuple[LargestComponent, ...]
    metric: str
    threshold: float
    keep: str
    warnings: tuple[str, ...]
    summary: Mapping[str, Any]

    def __repr__(self) -> str:
        state = "" if self.complete else ", not all that are possible were compared"
        return (
            f"Duplicates({self.path!r}: {self.kept:,} of {self.rows:,} rows kept, {self.removed:,} removed, "
            f"{self.components:,} components{state})"
        )

    def __fspath__(self) -> str:
        return self.mask

    @property
    def mask(self) -> str:
        """``keep.npy``: a boolean for each row of the store, false where it is removed or was not looked at."""
        return join(self.path, MASK_NAME)

    @property
    def table(self) -> str:
        """``duplicates.parquet``: a line for each row that has duplicates, in the order of rows."""
        return join(self.path, ROWS_NAME)

    @property
    def complete(self) -> bool:
        """Whether every pair of rows was compared, or is certified to be farther apart than the threshold."""
        return not self.summary["cells"]["skipped"]

    def rows_kept(self) -> Iterator[Int64]:
        """Row numbers of what is kept, ascending, a piece in memory at a time."""
        start = 0
        for piece in open_list(self.mask, has_ids=False).pieces():
            yield np.flatnonzero(piece) + start
            start += len(piece)

    def told(self) -> list[str]:
        """The outcome in words, a line each."""
        lines = [
            f"{self.rows:,} rows: {self.kept:,} kept, {self.removed:,} removed as duplicates of those "
            f"({share(self.removed, self.rows)})"
        ]
        if self.components:
            shown = ", ".join(f"{count:,} of {name}" for name, count in _binned(self.sizes))
            lines.append(f"{self.components:,} components: {shown} rows")
            first = self.largest[0]
            named = "" if first.id is None else f' (id "{first.id}")'
            lines.append(f"the largest, {first.size:,} rows, keeps row {first.kept}{named}")
        pairs = self.summary["pairs"]
        if self.complete:
            lines.append(
                f"{share(pairs['covered'], pairs['possible'])} of all pairs of rows were compared; the others are "
                "certified to be farther apart"
            )
        return lines


def share(part: int, whole: int) -> str:
    """A percentage with as many digits as tell something."""
    percent = 100 * part / max(whole, 1)
    return f"{percent:.1f} %" if percent >= 1 or not part else f"{percent:.2g} %"


def _binned(sizes: Mapping[int, int]) -> list[tuple[str, int]]:
    """Sizes 2, 3, then ranges between powers of two: name and components of those there are."""
    bins: dict[tuple[int, int], int] = {}
    for size, count in sizes.items():
        low = 1 << (size.bit_length() - 1)
        key = (size, size) if size < 4 else (low, 2 * low - 1)
        bins[key] = bins.get(key, 0) + count
    return [(f"{low:,}" if low == high else f"{low:,}-{high:,}", count) for (low, high), count in sorted(bins.items())]


def open_duplicates(path: str | os.PathLike[str]) -> Duplicates:
    """Open what ``dedup`` made.

    Parameters
    ----------
    path : path or URL
        The folder.

    Raises
    ------
    InputError
        Nothing lies there, or something else, or an unfinished dedup.
    """
    place = path.path if isinstance(path, Duplicates) else os.fspath(path).rstrip("/")
    summary = read_summary(place)
    if summary is None:
        partial = place if place.endswith(PARTIAL_SUFFIX) else place + PARTIAL_SUFFIX
        if exists(partial):
            raise InputError(f"{place}: this dedup is unfinished ({partial}); give the same dedup command again")
        found = "holds no dedup.json; give the folder that streamcurate dedup made"
        raise InputError(f"{place}: {found if exists(place) else 'no such folder; check the path'}")
    for name in (MASK_NAME, ROWS_NAME):
        if not exists(join(place, name)):
            raise StoreError(f"{join(place, name)}: is missing; restore it, or give the dedup command anew elsewhere")
    return Duplicates(
        place,
        summary["rows"],
        summary["kept"],
        summary["removed"],
        summary["components"],
        {size: count for size, count in summary["sizes"]},
        tuple(LargestComponent(**one) for one in summary["largest"]),
        summary["metric"],
        summary["threshold"],
        summary["keep"],
        tuple(summary["warnings"]),
        summary,
    )


def read_summary(path: str) -> dict[str, Any] | None:
    """``dedup.json`` of a finished dedup; None where there is none.

    Raises
    ------
    StoreError
        It is damaged.
    """
    place = join(path, SUMMARY_NAME)
    content = contents(place)
    if content is None:
        return None
    try:
        value = json.loads(content)
        if (value["kind"], value["format"]) != (KIND, _FORMAT):
            raise ValueError(f"kind is {value['kind']!r} of format {value['format']!r}")
        if missing := _NOTED - value.keys():
            raise ValueError(f"{min(missing)!r} is missing")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{place}: unreadable ({error}); restore it, or choose another place") from error
    found: dict[str, Any] = value
    return found


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``dedup.json``; the rest of the folder is there by then."""
    write_json(folder / SUMMARY_NAME, {"format": _FORMAT, "kind": KIND, **summary})


def summary_of_sizes(counts: Counts, take_ids: TakeIds | None) -> dict[str, Any]:
    """Sizes and the largest components, as ``dedup.json`` holds them."""
    kept = np.array([one.kept for one in counts.largest], dtype=np.int64)
    ids = None if take_ids is None or not len(kept) else take_ids(kept)
    named = [None] * len(kept) if ids is None else ids.tolist()
    largest = [
        {"component": one.component, "size": one.size, "kept": one.kept, "id": name}
        for one, name in zip(counts.largest, named, strict=True)
    ]
    return {
        "components": sum(counts.sizes.values()),
        "sizes": [[size, count] for size, count in counts.sizes.items()],
        "largest": largest,
    }


def write_rows(
    folder: Path, marked: Iterator[Marked], rows: int, labels: StoredArray | None, take_ids: TakeIds | None
) -> tuple[int, int]:
    """Write ``keep.npy`` and ``duplicates.parquet``, a piece in memory at a time.

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
    kept = removed = 0
    with placed(folder / MASK_NAME) as mask, placed(folder / ROWS_NAME) as table:
        np.lib.format.write_array_header_1_0(mask, {"descr": "|b1", "fortran_order": False, "shape": (rows,)})
        lines = _Lines(table, take_ids)
        for part in marked:
            if labels is None:
                keep = np.ones(part.last - part.first, dtype=bool)
            else:
                keep = labels.read(part.first, part.last) >= 0
            keep[part.rows - part.first] = part.kept
            mask.write(keep.data)
            kept += int(np.count_nonzero(keep))
            removed += int(np.count_nonzero(~part.kept))
            lines.add(part)
        lines.close()
    return kept, removed


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
    with placed(folder / SKIPPED_NAME) as file:
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


@contextmanager
def placed(path: Path) -> Iterator[IO[bytes]]:
    """A file written under a temporary name beside ``path``, flushed to the device and renamed at the end."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with disk_errors(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
