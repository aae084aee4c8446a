"""What the processes of one run hand each other through files: a pass's state, and sums too large for messages.

A folder that all of them see, inside the run's scratch. Everything in it is checksummed and named by its content or by
the task that wrote it, and can be made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.digest import Digest
from streamcurate.streaming.passes import State

_STATES = "states"
_SUMS = "sums"


@dataclass(frozen=True)
class StateReference:
    """Where a state lies: the folder of an exchange, and the digest it is kept under."""

    folder: str
    digest: str

    def load(self) -> dict[str, NDArray[Any]]:
        """The arrays by name.

        Raises
        ------
        StoreError
            They are gone or damaged.
        """
        found = Checkpoints(self.folder, durable=False).load(self.digest)
        if found is None:
            raise StoreError(
                f"{self.folder}: the state {self.digest} is gone or damaged; give the same command again to rebuild it"
            )
        return found[0]


@dataclass(frozen=True)
class StoredSums:
    """Arrays of one partial result at rest, to be read slice by slice.

    Only the rows that are not zero are there: a task with fewer points than there are clusters touches few of them.

    Attributes
    ----------
    path : str
        One file: the numbers of the rows, then the arrays one after the other, all int64 in C order.
    rows : int
        Of every array, zeros included.
    slice_rows : int
        Rows under one checksum.
    edges : tuple of int
        Where each slice begins among the rows that are there, and the end.
    widths : tuple of (name, width)
    checksums : tuple of tuple of int
        XXH3-64 of every slice of the numbers and of every array.
    """

    path: str
    rows: int
    slice_rows: int
    edges: tuple[int, ...]
    widths: tuple[tuple[str, int], ...]
    checksums: tuple[tuple[int, ...], ...]

    @classmethod
    def write(cls, path: Path, arrays: Mapping[str, NDArray[np.int64]], slice_rows: int) -> StoredSums:
        """Write arrays (rows, width), complete or not at all."""
        rows = len(next(iter(arrays.values())))
        touched = np.flatnonzero(np.logical_or.reduce([(array != 0).any(axis=1) for array in arrays.values()]))
        edges = np.searchsorted(touched, [*range(0, rows, slice_rows), rows])
        checksums = []
        temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        with disk_errors(path):
            with open(temporary, "wb") as file:
                for array in (None, *arrays.values()):
                    sums = []
                    for first, last in pairwise(edges.tolist()):
                        part = touched[first:last] if array is None else array[touched[first:last]]
                        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
                        sums.append(xxhash.xxh3_64_intdigest(data))
                        file.write(data)
                    checksums.append(tuple(sums))
            os.replace(temporary, path)
        widths = tuple((name, int(array.shape[1])) for name, array in arrays.items())
        return cls(os.fspath(path), rows, slice_rows, tuple(edges.tolist()), widths, tuple(checksums))

    def add_to(self, total: Mapping[str, NDArray[np.int64]], number: int) -> None:
        """Add one slice of every array to ``total``.

        Raises
        ------
        StoreError
            The file is gone or damaged.
        """
        first, last = self.edges[number], self.edges[number + 1]
        if first == last:
            return
        there = self.edges[-1]
        rows = self._load(first, last, 1, self.checksums[0][number])[:, 0] - number * self.slice_rows
        base = there
        for (name, width), sums in zip(self.widths, self.checksums[1:], strict=True):
            total[name][rows] += self._load(base + first * width, base + last * width, width, sums[number])
            base += there * width

    def _load(self, first: int, last: int, width: int, checksum: int) -> NDArray[np.int64]:
        """Values ``first`` to ``last`` of the file."""
        try:
            values = np.fromfile(self.path, np.int64, last - first, offset=first * 8)
        except FileNotFoundError:
            values = np.empty(0, dtype=np.int64)
        if values.size != last - first or xxhash.xxh3_64_intdigest(values.view(np.uint8).data) != checksum:
            raise StoreError(f"{self.path}: scratch is gone or damaged; give the same command again to rebuild it")
        return values.reshape(-1, width)


def add_slices(stored: Sequence[StoredSums], number: int) -> dict[str, NDArray[np.int64]]:
    """The sum of one slice over many partial results; two slices are in memory at a time."""
    rows = min(stored[0].slice_rows, stored[0].rows - number * stored[0].slice_rows)
    total = {name: np.zeros((rows, width), dtype=np.int64) for name, width in stored[0].widths}
    for one in stored:
        one.add_to(total, number)
    return total


class Exchange:
    """The folder, as the process that leads the run sees it.

    Parameters
    ----------
    folder : Path
        Made here; what an earlier process left in it is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        with disk_errors(folder):
            # A worker of a driver that was killed may still put a file there: what it leaves is never looked at.
            (folder / _STATES).mkdir(parents=True, exist_ok=True)
            (folder / _SUMS).mkdir(exist_ok=True)

    @property
    def sums(self) -> Path:
        """Folder of sums."""
        return self.folder / _SUMS

    def put(self, state: State) -> StateReference | None:
        """Lay a state down, once for all processes; None where it is empty."""
        if not state:
            return None
        digest = Digest()
        for name in sorted(state):
            digest.add(np.frombuffer(name.encode(), dtype=np.uint8)).add(state[name])
        folder = self.folder / _STATES
        reference = StateReference(os.fspath(folder), digest.hexdigest())
        Checkpoints(folder, durable=False).save(reference.digest, state)
        return reference

    def drop(self, reference: StateReference | None) -> None:
        """Remove a state that no pass needs any more."""
        if reference is not None:
            Checkpoints(reference.folder).discard(reference.digest)

    def drop_sums(self, stored: Sequence[StoredSums]) -> None:
        """Remove sums that have been added up."""
        for one in stored:
            Path(one.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
