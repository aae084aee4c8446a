"""The external shuffle: more rows than memory, put into another order through files.

:class:`SortedRecords` orders small records, (key, row), completely: sorted runs on disk, then a merge by exact
splitters, so that no distribution of keys, however skewed, needs more memory than planned. :class:`RowSegments` carries
whole rows, grouped into buckets: any process may write a segment of them, each bucket is read back on its own.
:class:`RowBuckets` does the same for small records that come one after the other in one process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, write_file

RECORD = np.dtype([("key", "<u8"), ("row", "<i8")])
# A record held while a run is sorted: itself, the sorting order, and the sorted copy, with room for the sort's own.
_BYTES_IN_SORT = 64
_SMALLEST_RUN = 1024
# Rows put into order at a time while a segment is written.
_WRITE_ROWS = 1 << 14


class SortedRecords:
    """Sort (key, row) records of any number within ``memory`` bytes.

    Records must come in ascending order of their rows, run by run.

    Parameters
    ----------
    folder : Path
        For the sorted runs; made here, removed by :meth:`close`.
    memory : int
        Bytes to use.

    Attributes
    ----------
    capacity : int
        Records sorted in memory at a time.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        self._folder = folder
        self.capacity = max(memory // _BYTES_IN_SORT, _SMALLEST_RUN)
        self._pending: list[NDArray[Any]] = []
        self._pending_records = 0
        self._runs: list[tuple[Path, int]] = []

    def add(self, keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Take in records."""
        for start in range(0, len(rows), self.capacity):
            part = _records(keys[start : start + self.capacity], rows[start : start + self.capacity])
            if self._pending_records + len(part) > self.capacity:
                self._spill()
            self._pending.append(part)
            self._pending_records += len(part)

    def add_run(self, path: Path, records: int) -> None:
        """Take in a run that :func:`write_run` wrote, perhaps in another process."""
        self._spill()
        if records:
            self._runs.append((path, records))

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All records in ascending order of (key, row), a piece at a time."""
        if not self._runs:
            yield self._sorted_pending()
            return
        self._spill()
        yield from self._merged()

    def close(self) -> None:
        """Remove the runs."""
        self._pending.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sorted_pending(self) -> NDArray[Any]:
        records = np.concatenate(self._pending) if self._pending else np.empty(0, dtype=RECORD)
        self._pending, self._pending_records = [], 0
        return _sorted(records)

    def _spill(self) -> None:
        if not self._pending_records:
            return
        path = self._folder / f"run-{len(self._runs)}.bin"
        records = self._sorted_pending()
        _write(path, records)
        self._runs.append((path, len(records)))

    def _merged(self) -> Iterator[NDArray[Any]]:
        # Regular sampling: every step-th record of every run. Between splitters that enclose g samples lie at most
        # (g + runs) * step records, whatever the keys.
        runs = len(self._runs)
        step = max(self.capacity // (4 * runs), 1)
        samples = [_read(path, np.arange(step - 1, count, step)) for path, count in self._runs]
        ordered = np.sort(np.concatenate(samples), order=("key", "row"))
        splitters = ordered[2 * runs - 1 :: 2 * runs]
        cursors = [0] * runs
        for position in range(len(splitters) + 1):
            pieces = []
            for run, (path, count) in enumerate(self._runs):
                end = count
                if position < len(splitters):
                    end = _upper(path, count, samples[run], step, splitters[position])
                if end > cursors[run]:
                    pieces.append(np.fromfile(path, RECORD, end - cursors[run], offset=cursors[run] * RECORD.itemsize))
                    cursors[run] = end
            if pieces:
                yield _sorted(np.concatenate(pieces))


def write_run(path: Path, keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> int:
    """Sort records, given in ascending order of their rows, and write them for :meth:`SortedRecords.add_run`.

    Returns
    -------
    int
        How many.
    """
    records = _sorted(_records(keys, rows))
    if len(records):
        _write(path, records)
    return len(records)


def _records(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[Any]:
    records = np.empty(len(rows), dtype=RECORD)
    records["key"], records["row"] = keys, rows
    return records


def _sorted(records: NDArray[Any]) -> NDArray[Any]:
    # Stable, over records in ascending order of rows: ties keep that order, and runs that are sorted are only merged.
    ordered: NDArray[Any] = records[np.argsort(records["key"], kind="stable")]
    return ordered


def _write(path: Path, records: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Complete or not at all: another process may still be at it, too.
    write_file(path, records.view(np.uint8).data, durable=False)


def _read(path: Path, positions: NDArray[np.int64]) -> NDArray[Any]:
    out = np.empty(len(positions), dtype=RECORD)
    with open(path, "rb") as file:
        for index, position in enumerate(positions.tolist()):
            file.seek(position * RECORD.itemsize)
            out[index] = np.frombuffer(file.read(RECORD.itemsize), RECORD)[0]
    return out


def _upper(path: Path, count: int, samples: NDArray[Any], step: int, splitter: Any) -> int:
    """How many records of a run are not above ``splitter``."""
    known = _count_not_above(samples, splitter)
    low, high = known * step, min((known + 1) * step, count)
    between = np.fromfile(path, RECORD, high - low, offset=low * RECORD.itemsize)
    return low + _count_not_above(between, splitter)


def _count_not_above(records: NDArray[Any], splitter: Any) -> int:
    low = int(np.searchsorted(records["key"], splitter["key"], side="left"))
    high = int(np.searchsorted(records["key"], splitter["key"], side="right"))
    return low + int(np.searchsorted(records["row"][low:high], splitter["row"], side="right"))


class RowBuckets:
    """Rows grouped into numbered buckets on disk, each keeping the order in which its rows came.

    Parameters
    ----------
    folder : Path
        For the buckets' files; removed by :meth:`close`.
    buckets : int
    dims : int
    dtype : dtype
    memory : int
        Bytes of rows gathered before they are written.
    tags : int
        How many int64 numbers go with each row.
    """

    def __init__(self, folder: Path, buckets: int, dims: int, dtype: np.dtype[Any], memory: int, tags: int = 1) -> None:
        self._folder = folder
        self._dims, self._dtype = dims, dtype
        self._memory = memory
        self._tags = tags
        self._held = 0
        self._pending: dict[int, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
        self.sizes = np.zeros(buckets, dtype=np.int64)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def add(self, bucket_of_row: NDArray[np.int64], values: NDArray[Any], tags: NDArray[np.int64]) -> None:
        """Take in rows (m, dims), each with its bucket and its tags (m, tags)."""
        order = np.argsort(bucket_of_row, kind="stable")
        edges = np.flatnonzero(np.diff(bucket_of_row[order])) + 1
        for members in np.split(order, edges):
            if len(members):
                bucket = int(bucket_of_row[members[0]])
                self._pending.setdefault(bucket, []).append((values[members], tags[members]))
                self.sizes[bucket] += len(members)
        self._held += values.nbytes + tags.nbytes
        if self._held >= self._memory:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        for bucket, parts in self._pending.items():
            for kind, position in (("values", 0), ("tags", 1)):
                path = self._path(bucket, kind)
                with disk_errors(path), open(path, "ab") as file:
                    for part in parts:
                        file.write(np.ascontiguousarray(part[position]).reshape(-1).view(np.uint8).data)
        self._pending, self._held = {}, 0

    def tags(self, bucket: int) -> NDArray[np.int64]:
        """The tags of a bucket, shape (rows, tags), in the order in which its rows came."""
        return self._load(bucket, "tags", np.dtype(np.int64), 0, int(self.sizes[bucket]), self._tags)

    def values(self, bucket: int, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of a bucket, shape (stop - start, dims)."""
        stop = int(self.sizes[bucket]) if stop is None else stop
        return self._load(bucket, "values", self._dtype, start, stop, self._dims)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, bucket: int, kind: str) -> Path:
        return self._folder / f"bucket-{bucket}.{kind}"

    def _load(self, bucket: int, kind: str, dtype: np.dtype[Any], start: int, stop: int, width: int) -> NDArray[Any]:
        if stop == start:
            return np.empty((0, width), dtype=dtype)
        path = self._path(bucket, kind)
        found = np.fromfile(path, dtype, (stop - start) * width, offset=start * width * dtype.itemsize)
        if found.size != (stop - start) * width:
            raise StoreError(f"{path}: scratch was cut short; give the same command again to rebuild it")
        return found.reshape(stop - start, width)


class RowSegments:
    """Rows grouped into numbered buckets on disk, written a segment at a time by whichever process has the rows.

    A bucket holds its rows in the order of the segments, and within a segment in the order in which they were given.

    Parameters
    ----------
    folder : Path
        For the segments' files; it exists.
    buckets : int
    dims : int
    dtype : dtype
    tags : int
        How many int64 numbers go with each row.
    """

    def __init__(self, folder: Path, buckets: int, dims: int, dtype: np.dtype[Any], tags: int) -> None:
        self.folder, self.buckets = folder, buckets
        self.dims, self.dtype, self.tags = dims, dtype, tags

    def write(
        self, segment: int, bucket_of_row: NDArray[np.int64], values: NDArray[Any], tags: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Write a segment, over one of that number.

        Parameters
        ----------
        segment : int
        bucket_of_row : ndarray of int64, shape (m,)
        values : ndarray, shape (m, dims)
        tags : ndarray of int64, shape (m, tags)

        Returns
        -------
        ndarray of int64, shape (buckets,)
            Rows of each bucket.
        """
        order = np.argsort(bucket_of_row, kind="stable")
        for kind, parts in (("values", values), ("tags", tags)):
            path = self._path(segment, kind)
            temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
            with disk_errors(path):
                with open(temporary, "wb") as file:
                    for start in range(0, len(order), _WRITE_ROWS):
                        part = np.ascontiguousarray(parts[order[start : start + _WRITE_ROWS]])
                        file.write(part.reshape(-1).view(np.uint8).data)
                os.replace(temporary, path)
        return np.bincount(bucket_of_row, minlength=self.buckets).astype(np.int64, copy=False)

    def bucket(self, number: int, counts: NDArray[np.int64]) -> BucketRows:
        """One bucket.

        Parameters
        ----------
        number : int
        counts : ndarray of int64, shape (segments, buckets)
            What :meth:`write` returned for each segment.
        """
        return BucketRows(self, number, counts[:, :number].sum(axis=1), counts[:, number].copy())

    def load(self, segment: int, kind: str, dtype: np.dtype[Any], width: int, first: int, rows: int) -> NDArray[Any]:
        """Rows of one file, counted from ``first``."""
        path = self._path(segment, kind)
        found = np.fromfile(path, dtype, rows * width, offset=first * width * dtype.itemsize)
        if found.size != rows * width:
            raise StoreError(f"{path}: scratch was cut short; give the same command again to rebuild it")
        return found.reshape(rows, width)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, segment: int, kind: str) -> Path:
        return self.folder / f"segment-{segment}.{kind}"


class BucketRows:
    """One bucket of segments as a row source.

    Parameters
    ----------
    segments : RowSegments
    number : int
    begins, counts : ndarray of int64, shape (segments,)
        Where the bucket begins in each segment, and how many of its rows that holds.
    """

    chunk_rows = 1 << 62
    read_overhead_bytes = 0
    travels = True

    def __init__(
        self, segments: RowSegments, number: int, begins: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        self._segments, self._begins = segments, begins
        self._ends = np.cumsum(counts)
        self.name = f"bucket {number}"
        self.rows = int(counts.sum())
        self.dims, self.dtype = segments.dims, segments.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""
        return self._load("values", self.dtype, self.dims, start, stop)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows, given in ascending order."""
        if not len(rows):
            return np.empty((0, self.dims), dtype=self.dtype)
        return np.concatenate([self.read(row, row + 1) for row in rows.tolist()])

    def tags(self) -> NDArray[np.int64]:
        """The tags of all rows, shape (rows, tags)."""
        return self._load("tags", np.dtype(np.int64), self._segments.tags, 0, self.rows)

    def _load(self, kind: str, dtype: np.dtype[Any], width: int, start: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - start, width), dtype=dtype)
        segment = int(np.searchsorted(self._ends, start, side="right"))
        position = start
        while position < stop:
            end = min(int(self._ends[segment]), stop)
            begin = int(self._ends[segment - 1]) if segment else 0
            first = int(self._begins[segment]) + position - begin
            out[position - start : end - start] = self._segments.load(
                segment, kind, dtype, width, first, end - position
            )
            position, segment = end, segment + 1
        return out
