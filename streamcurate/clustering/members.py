"""Which points each cluster holds, nearest first: an external sort of (cluster, distance, point)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamcurate import kernels
from streamcurate.storage import SequentialWriter, StoredArray
from streamcurate.streaming.shuffle import SortedRecords

_READ_ROWS = 1 << 18


def write_members(
    labels: StoredArray, distances: StoredArray, members: StoredArray, scratch: Path, memory: int
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
    memory : int
        Bytes to use.
    """
    sorting = SortedRecords(scratch, memory)
    try:
        for start in range(0, labels.rows, _READ_ROWS):
            stop = min(start + _READ_ROWS, labels.rows)
            label = labels.read(start, stop)
            rows = np.flatnonzero(label >= 0)
            keys = label[rows].astype(np.uint64) << np.uint64(32)
            keys |= kernels.keys_of_distances(distances.read(start, stop)[rows])
            sorting.add(keys, rows + start)
        with SequentialWriter(members) as writer:
            for records in sorting.blocks():
                writer.append(records["row"])
    finally:
        sorting.close()
