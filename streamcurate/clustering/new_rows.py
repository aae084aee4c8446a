"""Labels of new rows among frozen centroids, found a segment of rows at a time; finished segments outlive a kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.approximate import measured_recall
from streamcurate.clustering.frozen import FrozenLevel
from streamcurate.clustering.hierarchy import check_usable, measure
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.embeddings.fingerprint import unit_rows
from streamcurate.embeddings.snapshot import Snapshot, stamps_of
from streamcurate.embeddings.store import Embeddings
from streamcurate.kernels import ExactTotal, Statistics
from streamcurate.runs.digest import Digest
from streamcurate.storage import StoredArray, create_array, open_array
from streamcurate.streaming import Output, Points, RowSource
from streamcurate.streaming.buffers import Allocator
from streamcurate.streaming.source import read_into
from streamcurate.tree import add_array
from streamcurate.tree.level import aligned_chunk_rows

# What a kill may cost: one of so many segments, or, where rows are few or take long, a few minutes on two cores. Every
# segment is a pass of its own, which makes its centroids ready again.
_SEGMENTS = 64
_FEWEST_ROWS = 1 << 14
_SEGMENT_ROWS = 1 << 20
_SEGMENT_OPERATIONS = 1 << 44
_BLOCK_ROWS = 1 << 20
_FIX = "drop them when ingesting (--on-bad-row drop, with --metric cosine for zero rows)"


def measure_new(rows: Embeddings, around: Surroundings) -> tuple[Statistics, Snapshot]:
    """One pass over new rows: statistics and checksums.

    Raises
    ------
    DataError
        Rows that have no distance.
    """
    stamps = stamps_of(rows)
    statistics, digests = measure(Points.all_of(rows), around, unit_rows(rows.dims, rows.dtype))
    first = statistics.first_bad_row if statistics.bad_rows else statistics.first_zero_row
    identify = ""
    if first >= 0 and (ids := rows.take_ids(np.array([first], dtype=np.int64))) is not None:
        identify = f', id "{ids[0]}"'
    check_usable(statistics, rows.name, around.metric, identify, fix=_FIX, zero_fix=_FIX)
    snapshot = Snapshot.of(rows, digests, stamps)
    if around.checkpoints is not None:
        arrays, values = {}, {}
        for field in fields(statistics):
            value = getattr(statistics, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name.replace("_", "-")] = value
            else:
                values[field.name] = value
        around.checkpoints.save("new/statistics", arrays, values | {"fingerprint": snapshot.fingerprint})
    return statistics, snapshot


def measured_before(fingerprint: str, around: Surroundings) -> Statistics | None:
    """Statistics that :meth:`measure_new` kept of the rows with this fingerprint; None where there are none."""
    saved = None if around.checkpoints is None else around.checkpoints.load("new/statistics")
    if saved is None or saved[1].pop("fingerprint") != fingerprint:
        return None
    values: dict[str, Any] = {key.replace("-", "_"): array for key, array in saved[0].items()}
    return Statistics(**values, **saved[1])


class LabelledRows:
    """Labels and distances of new rows, in scratch.

    Attributes
    ----------
    rows : int
    measured : Measured
    inertia : ExactTotal
    """

    def __init__(
        self, measured: Measured, inertia: ExactTotal, segments: list[tuple[int, StoredArray, StoredArray]]
    ) -> None:
        self.rows = measured.points.source.rows
        self.measured, self.inertia = measured, inertia
        self._segments = segments
        self._starts = np.array([start for start, _, _ in segments], dtype=np.int64)

    def blocks(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """Labels and distances in the rows' order, some at a time."""
        for _, labels, distances in self._segments:
            for start in range(0, labels.rows, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, labels.rows)
                yield labels.read(start, stop), distances.read(start, stop)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Labels of single rows, given in ascending order."""
        out = np.empty(len(rows), dtype=np.int32)
        edges = [*np.searchsorted(rows, self._starts).tolist(), len(rows)]
        for number, (start, labels, _) in enumerate(self._segments):
            own = slice(edges[number], edges[number + 1])
            out[own] = labels.take(rows[own] - start)
        return out

    def recall(self, frozen: FrozenLevel, around: Surroundings) -> tuple[float, int]:
        """The share of rows drawn at random whose label is exact, and how many were drawn."""
        labels: Any = self  # of which only take() is asked
        return measured_recall(self.measured, frozen.in_memory(), labels, around)


def label_new_rows(
    source: RowSource, statistics: Statistics, fingerprint: str, frozen: FrozenLevel, around: Surroundings
) -> LabelledRows:
    """Label all rows of a source.

    Finished segments lie in the scratch folder, named by checkpoints: the same call goes on behind them.

    Parameters
    ----------
    source : RowSource
    statistics : Statistics
        Of its rows.
    fingerprint : str
        Of its rows: labels of other rows are not taken over.
    frozen : FrozenLevel
    around : Surroundings
        With checkpoints.
    """
    measured = frozen.measured(Points.all_of(source), statistics, around)
    total, found = measured.inertia, []
    ranges = list(segments_of(source.rows, source.chunk_rows, frozen.row_operations))
    for number, (start, stop) in enumerate(ranges):
        segment = _kept(number, start, stop, fingerprint, measured, around)
        if segment is None:
            piece = measured.part(Points.all_of(RowRange(source, start, stop)))
            segment = _label(number, start, stop, fingerprint, piece, frozen, around)
        total = total.combine(segment[0])
        found.append((start, segment[1], segment[2]))
    return LabelledRows(measured, total, found)


def segments_of(rows: int, chunk_rows: int, row_operations: int) -> Iterator[tuple[int, int]]:
    """Cut rows into the segments that are kept one by one: whole stored chunks where these are smaller."""
    few = max(_SEGMENT_OPERATIONS // max(row_operations, 1), _FEWEST_ROWS)
    step = max(-(-rows // _SEGMENTS), min(_SEGMENT_ROWS, few))
    if chunk_rows <= step:
        step = step // chunk_rows * chunk_rows
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


_Segment = tuple[ExactTotal, StoredArray, StoredArray]


def _label(
    number: int,
    start: int,
    stop: int,
    fingerprint: str,
    measured: Measured,
    frozen: FrozenLevel,
    around: Surroundings,
) -> _Segment:
    folder = _folder(number, around)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chunk = aligned_chunk_rows(stop - start, frozen.row_operations)
    labels, distances = (
        create_array(folder / name, (stop - start,), dtype, chunk, durable=False)
        for name, dtype in (("labels", np.int32), ("distances", np.float32))
    )
    inertia = frozen.label(measured, around, (Output(labels, -1), Output(distances, np.nan)))
    if around.checkpoints is not None:
        values = {
            "rows": [start, stop],
            "fingerprint": fingerprint,
            "inertia": str(inertia.units),  # JSON numbers end at 2^53
            "digest": _digest(labels, distances),
        }
        around.checkpoints.save(_name(number), {}, values)
    return inertia, labels, distances


def _kept(
    number: int, start: int, stop: int, fingerprint: str, measured: Measured, around: Surroundings
) -> _Segment | None:
    """A segment that an earlier process finished; None where there is none, or where it is not whole."""
    saved = None if around.checkpoints is None else around.checkpoints.load(_name(number))
    if saved is None:
        return None
    values = saved[1]
    if (values["rows"], values["fingerprint"]) != ([start, stop], fingerprint):
        return None
    folder = _folder(number, around)
    try:
        labels, distances = open_array(folder / "labels"), open_array(folder / "distances")
        if _digest(labels, distances) != values["digest"]:
            return None
    except Exception:  # scratch that is gone or damaged in whatever way is made again
        return None
    return replace(measured.inertia, units=int(values["inertia"])), labels, distances


def _name(number: int) -> str:
    return f"new/segment-{number}"


def _folder(number: int, around: Surroundings) -> Path:
    return around.scratch / "new" / f"segment-{number}"


def _digest(*arrays: StoredArray) -> str:
    digest = Digest()
    for array in arrays:
        add_array(digest, array)
    return digest.hexdigest()


class RowRange:
    """A range of a source's rows as a source."""

    def __init__(self, source: RowSource, start: int, stop: int) -> None:
        self._source, self._start = source, start
        self.name = source.name if stop - start == source.rows else f"{source.name} from row {start}"
        self.rows, self.dims, self.dtype = stop - start, source.dims, source.dtype
        self.chunk_rows = source.chunk_rows
        self.read_overhead_bytes = source.read_overhead_bytes
        self.travels = source.travels

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of the range."""
        return self._source.read(self._start + start, self._start + stop)

    def read_into(self, allocator: Allocator, start: int, stop: int) -> NDArray[Any]:
        """The same rows, in memory of ``allocator``."""
        return read_into(self._source, allocator, self._start + start, self._start + stop)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Single rows of the range, given in ascending order."""
        return self._source.take(rows + self._start)
