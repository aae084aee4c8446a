"""Which points each cluster holds, nearest first: an external sort of (cluster, distance, point)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.storage import SequentialWriter, StoredArray
from streamcurate.streaming import Executor, SerialExecutor, State
from streamcurate.streaming.shuffle import SortedRecords, write_run

# Of the usable memory. More would only make it hold more rows before it goes to disk, so that small stores took less
# memory than large ones. Twice as much where the runs would be so many that merging them looks at little of each.
_SHARE = 1 / 16
_MANY_RUNS = 256


def write_members(
    labels: StoredArray,
    distances: StoredArray,
    members: StoredArray,
    scratch: Path,
    executor: Executor,
) -> None:
    """Fill ``members`` with the labelled points ordered by (cluster, stored distance, point).

    Parameters
    ----------
    labels : StoredArray of int32, shape (points,)
        -1 where a point is in no cluster.
    distances : StoredArray of float32, shape (points,)
    members : StoredArray of int64, shape (labelled points,)
    scratch : Path
        A folder for what does not fit; removed again.
    executor : Executor
        Sorts runs wherever there is a process; they are merged here.
    """
    memory = int(executor.budget.usable * _SHARE)
    sorting = SortedRecords(scratch, memory)
    if labels.rows > _MANY_RUNS * sorting.capacity:
        sorting = SortedRecords(scratch, 2 * memory)
    try:
        if labels.rows <= sorting.capacity:
            sorting.add(*_keyed(labels, distances, 0, labels.rows))
        else:
            executor.progress.started("sorting members", labels.rows)
            starts = range(0, labels.rows, sorting.capacity)
            work = _SortedRun(labels, distances, scratch, sorting.capacity)
            for path, count in executor.map(work, starts, {}, "sorting members"):
                sorting.add_run(path, count)
                executor.progress.advanced(min(sorting.capacity, labels.rows), 0)
            executor.progress.finished()
        executor.progress.started("writing members", members.rows)
        with SequentialWriter(members) as writer:
            for records in sorting.blocks():
                writer.append(records["row"])
                executor.progress.advanced(len(records), len(records) * members.row_bytes)
        executor.progress.finished()
    finally:
        sorting.close()


@dataclass(frozen=True)
class _SortedRun:
    """Sort the points of one range and write them as a run."""

    labels: StoredArray
    distances: StoredArray
    folder: Path
    rows: int

    def __call__(self, start: int, state: State, executor: SerialExecutor) -> tuple[Path, int]:
        stop = min(start + self.rows, self.labels.rows)
        path = self.folder / f"run-{start}.bin"
        return path, write_run(path, *_keyed(self.labels, self.distances, start, stop))


def _keyed(
    labels: StoredArray, distances: StoredArray, start: int, stop: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sorting keys and numbers of the labelled points of a range."""
    label = labels.read(start, stop)
    rows = np.flatnonzero(label >= 0)
    keys = label[rows].astype(np.uint64) << np.uint64(32)
    keys |= kernels.keys_of_distances(distances.read(start, stop)[rows])
    return keys, rows + start
