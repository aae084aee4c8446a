"""Where lists of the nearest rows end: the last (value, row) that belongs to them, found in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.kernels import NearestSelection
from streamcurate.neighbors.examples.nearest_seeds import SeedDistances
from streamcurate.storage import StoredArray

_BITS = 16
_PATTERN = np.uint64((1 << _BITS) - 1)
_LAST_KEY, _LAST_ROW = 2**64 - 1, 2**63 - 1
# Bytes of a list's entry while it is merged into the lists so far.
_ENTRY_BYTES = 48


@dataclass(frozen=True)
class Cuts:
    """The last that belongs to each group's list, in the order of (value, row).

    Attributes
    ----------
    keys : ndarray of uint64, shape (groups,)
        Of :func:`streamcurate.kernels.keys_of_values`.
    rows : ndarray of int64, shape (groups,)
    """

    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]

    def inside(self, groups: NDArray[np.int32], keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows belong to their group's list; those of group -1 to none."""
        known = groups >= 0
        at = np.where(known, groups, 0)
        last = self.keys[at]
        found: NDArray[np.bool_] = known & ((keys < last) | ((keys == last) & (rows <= self.rows[at])))
        return found


def cut_of_nearest(distances: SeedDistances, count: int) -> Cuts:
    """The cut of a list of the ``count`` rows nearest to any seed; all that have one, where these are fewer.

    Exact, in bounded memory: bit patterns of the values, 16 bits at a time, are counted.
    """
    prefix, rank = 0, count
    for shift in range(64 - _BITS, -1, -_BITS):
        counts = np.zeros(1 << _BITS, dtype=np.int64)
        for _, seeds, values in distances.blocks():
            keys = kernels.keys_of_values(values[seeds >= 0])
            if shift + _BITS < 64:
                keys = keys[keys >> np.uint64(shift + _BITS) == prefix]
            digits = (keys >> np.uint64(shift) & _PATTERN).astype(np.int64)
            counts += np.bincount(digits, minlength=len(counts))
        running = np.cumsum(counts)
        if running[-1] < rank:
            return Cuts(np.array([_LAST_KEY], dtype=np.uint64), np.array([_LAST_ROW]))
        digit = int(np.searchsorted(running, rank))
        rank -= int(running[digit] - counts[digit])
        prefix = prefix << _BITS | digit
    for start, seeds, values in distances.blocks():
        same = np.flatnonzero((seeds >= 0) & (kernels.keys_of_values(values) == np.uint64(prefix)))
        if len(same) >= rank:
            return Cuts(np.array([prefix], dtype=np.uint64), np.array([start + int(same[rank - 1])]))
        rank -= len(same)
    raise AssertionError("a row has the value that was counted")


@dataclass(frozen=True)
class Grouped:
    """Groups of rows: the chosen clusters of a level.

    Attributes
    ----------
    labels : StoredArray of int32
        The rows' clusters of level 1.
    group_of_cluster : ndarray of int32
        The group each of them is under, -1 for none.
    groups : int
    """

    labels: StoredArray
    group_of_cluster: NDArray[np.int32]
    groups: int

    def read(self, start: int, stop: int) -> NDArray[np.int32]:
        """The groups of rows ``start`` to ``stop``; -1 for none."""
        labels = self.labels.read(start, stop)
        found: NDArray[np.int32] = np.where(labels >= 0, self.group_of_cluster[labels], np.int32(-1))
        return found


def cuts_of_groups(distances: SeedDistances, grouped: Grouped, keep: int, memory: int) -> Cuts:
    """The cuts of lists of the ``keep`` rows of each group that are nearest to any seed.

    Parameters
    ----------
    distances : SeedDistances
    grouped : Grouped
    keep : int
    memory : int
        Bytes to use: groups are taken so many at a time. At least :func:`group_bytes`.
    """
    sizes = np.zeros(grouped.groups, dtype=np.int64)
    for start, seeds, _ in distances.blocks():
        groups = grouped.read(start, start + len(seeds))
        sizes += np.bincount(groups[(groups >= 0) & (seeds >= 0)], minlength=grouped.groups)
    cuts = Cuts(np.full(grouped.groups, _LAST_KEY, dtype=np.uint64), np.full(grouped.groups, _LAST_ROW))
    # Of the others, all rows belong.
    long = np.flatnonzero(sizes > keep)
    step = max(memory // group_bytes(keep), 1)
    for first in range(0, len(long), step):
        some = long[first : first + step]
        place = np.full(grouped.groups, -1, dtype=np.int32)
        place[some] = np.arange(len(some), dtype=np.int32)
        total = NearestSelection.empty(len(some), keep)
        for start, seeds, values in distances.blocks():
            groups = grouped.read(start, start + len(seeds))
            mine = np.flatnonzero((groups >= 0) & (seeds >= 0))
            mine = mine[place[groups[mine]] >= 0]
            if len(mine):
                keys = kernels.keys_of_values(values[mine])
                part = kernels.smallest_per_cluster(place[groups[mine]], keys, mine + start, keep, len(some))
                total = total.combine(part)
        last = total.offsets + keep - 1
        cuts.keys[some], cuts.rows[some] = total.keys[last], total.rows[last]
    return cuts


def group_bytes(keep: int) -> int:
    """Bytes that the list of one group takes while it is made."""
    return _ENTRY_BYTES * keep + 64
