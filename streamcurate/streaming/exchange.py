"""What the processes of one run hand each other through files: a pass's state, and sums too large for messages.

A folder that all of them see, inside the run's scratch. Everything in it is checksummed and named by its content or by
the task that wrote it, and can be made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    Attributes
    ----------
    path : str
        One file: the arrays one after the other, each int64 in C order.
    rows : int
        Of every array.
    slice_rows : int
        Rows under one checksum.
    widths : tuple of (name, width)
    checksums : tuple of tuple of int
        XXH3-64 of every slice of every array.
    """

    path: str
    rows: int
    slice_rows: int
    widths: tuple[tuple[str, int], ...]
    checksums: tuple[tuple[int, ...], ...]

    @classmethod
    def write(cls, path: Path, arrays: Mapping[str, NDArray[np.int64]], slice_rows: int) -> StoredSums:
        """Write arrays (rows, width), complete or not at all."""
        rows = len(next(iter(arrays.values())))
        checksums = []
        temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        with disk_errors(path):
            with open(temporary, "wb") as file:
                for array in arrays.values():
                    sums = []
                    for first in range(0, rows, slice_rows):
                        part = np.ascontiguousarray(array[first : first + slice_rows]).reshape(-1).view(np.uint8).data
                        sums.append(xxhash.xxh3_64_intdigest(part))
                        file.write(part)
                    checksums.append(tuple(sums))
            os.replace(temporary, path)
        widths = tuple((name, int(array.shape[1])) for name, array in arrays.items())
        return cls(os.fspath(path), rows, slice_rows, widths, tuple(checksums))

    def read(self, number: int) -> dict[str, NDArray[np.int64]]:
        """One slice of every array.

        Raises
        ------
        StoreError
            The file is gone or damaged.
        """
        first = number * self.slice_rows
        count = min(self.slice_rows, self.rows - first)
        found: dict[str, NDArray[np.int64]] = {}
        base = 0
        for (name, width), sums in zip(self.widths, self.checksums, strict=True):
            try:
                values = np.fromfile(self.path, np.int64, count * width, offset=(base + first * width) * 8)
            except FileNotFoundError:
                values = np.empty(0, dtype=np.int64)
            if values.size != count * width or xxhash.xxh3_64_intdigest(values.view(np.uint8).data) != sums[number]:
                raise StoreError(f"{self.path}: scratch is gone or damaged; give the same command again to rebuild it")
            found[name] = values.reshape(count, width)
            base += self.rows * width
        return found


def add_slices(stored: Sequence[StoredSums], number: int) -> dict[str, NDArray[np.int64]]:
    """The sum of one slice over many partial results; two slices are in memory at a time."""
    total = stored[0].read(number)
    for other in stored[1:]:
        for name, values in other.read(number).items():
            total[name] += values
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
            (folder / _STATES).mkdir(parents=True)
            (folder / _SUMS).mkdir()

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
