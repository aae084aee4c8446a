"""The r smallest (key, row) pairs of each cluster."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.grouping import group_by_label
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Float32, Int32, Int64, UInt64
from streamcurate.kernels.nearest_selection import NearestSelection


def keys_of_distances(distances: Float32) -> UInt64:
    """Keys that order as non-negative float32 distances do: their bits."""
    positive = np.ascontiguousarray(distances, dtype=np.float32) + np.float32(0.0)  # -0.0 orders as 0.0
    return positive.view(np.uint32).astype(np.uint64)


@compiled
def _sift_down(keys: UInt64, rows: Int64, start: int, place: int, length: int) -> None:
    # A heap whose root is the largest pair, in keys[start : start + length].
    key, row = keys[start + place], rows[start + place]
    while True:
        child = 2 * place + 1
        if child >= length:
            break
        c = start + child
        if child + 1 < length and (keys[c] < keys[c + 1] or (keys[c] == keys[c + 1] and rows[c] < rows[c + 1])):
            child += 1
            c += 1
        if key > keys[c] or (key == keys[c] and row >= rows[c]):
            break
        keys[start + place], rows[start + place] = keys[c], rows[c]
        place = child
    keys[start + place], rows[start + place] = key, row


@compiled
def _select(
    order: Int64,
    starts: Int64,
    keys: UInt64,
    rows: Int64,
    offsets: Int64,
    held: Int64,
    out_keys: UInt64,
    out_rows: Int64,
) -> None:
    for t in range(len(held)):
        begin, room = offsets[t], held[t]
        for p in range(room):
            out_keys[begin + p] = keys[order[starts[t] + p]]
            out_rows[begin + p] = rows[order[starts[t] + p]]
        for place in range(room // 2 - 1, -1, -1):
            _sift_down(out_keys, out_rows, begin, place, room)
        for p in range(starts[t] + room, starts[t + 1]):
            key, row = keys[order[p]], rows[order[p]]
            if key < out_keys[begin] or (key == out_keys[begin] and row < out_rows[begin]):
                out_keys[begin], out_rows[begin] = key, row
                _sift_down(out_keys, out_rows, begin, 0, room)
        for last in range(room - 1, 0, -1):
            key, row = out_keys[begin + last], out_rows[begin + last]
            out_keys[begin + last], out_rows[begin + last] = out_keys[begin], out_rows[begin]
            out_keys[begin], out_rows[begin] = key, row
            _sift_down(out_keys, out_rows, begin, 0, last)


@compiled
def _merge(
    places: Int64, counts: Int64, offsets: Int64, keys: UInt64, rows: Int64,
    total_counts: Int64, total_keys: UInt64, total_rows: Int64, r: int,
) -> None:  # fmt: skip
    kept_keys, kept_rows = np.empty(r, dtype=np.uint64), np.empty(r, dtype=np.int64)
    for t in range(len(places)):
        k = places[t]
        have, begin = total_counts[k], k * r
        for p in range(have):
            kept_keys[p], kept_rows[p] = total_keys[begin + p], total_rows[begin + p]
        room = min(r, have + counts[t])
        one, two = 0, 0
        for p in range(room):
            q = offsets[t] + two
            first = two >= counts[t]
            if not first and one < have:
                first = kept_keys[one] < keys[q] or (kept_keys[one] == keys[q] and kept_rows[one] <= rows[q])
            if first:
                total_keys[begin + p], total_rows[begin + p] = kept_keys[one], kept_rows[one]
                one += 1
            else:
                total_keys[begin + p], total_rows[begin + p] = keys[q], rows[q]
                two += 1
        total_counts[k] = room


def merge_into(total: NearestSelection, part: NearestSelection) -> None:
    """Merge ``part`` into ``total``, which has room for all clusters, in place."""
    places = np.arange(part.clusters, dtype=np.int64) if part.ids is None else part.ids
    _merge(places, part.counts, part.offsets, part.keys, part.rows, total.counts, total.keys, total.rows, total.r)


def smallest_per_cluster(labels: Int32, keys: UInt64, rows: Int64, r: int, clusters: int) -> NearestSelection:
    """The r smallest (key, row) pairs of each cluster in a block.

    Parameters
    ----------
    labels : (m,) int32
        Rows labelled -1 are left out.
    keys : (m,) uint64
        ``keys_of_distances`` for the closest rows; ``random_bits`` for a random choice.
    rows : (m,) int64
        Row numbers; equal keys are decided by them.
    r : int
        At least 1.
    clusters : int

    Returns
    -------
    NearestSelection
        Over the clusters touched; 16 bytes a pair kept.

    Notes
    -----
    Besides the result 16 bytes a row (their order by cluster).
    """
    if r < 1:
        raise ValueError(f"r is {r}; at least one row of each cluster is selected")
    if not (labels.shape == keys.shape == rows.shape and labels.ndim == 1):
        raise ValueError(f"labels, keys and rows have shapes {labels.shape}, {keys.shape} and {rows.shape}")
    ids, starts, order = group_by_label(labels, clusters)
    held = np.minimum(np.diff(starts), r)
    offsets = np.cumsum(held) - held
    kept = int(held.sum())
    out_keys, out_rows = np.empty(kept, dtype=np.uint64), np.empty(kept, dtype=np.int64)
    keys = np.ascontiguousarray(keys, dtype=np.uint64)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    _select(order, starts, keys, rows, offsets, held, out_keys, out_rows)
    return NearestSelection(clusters, r, ids, held, offsets, out_keys, out_rows)
