"""The result of a draw: which rows, how often, and what the tree and the store know of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.sampling.hierarchy import SampledLevel, SampledTree

Int64 = NDArray[np.int64]

# Rows looked up and written together.
BATCH = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Rows drawn from a tree.

    Attributes
    ----------
    unique_rows : ndarray of int64, shape (u,)
        Distinct row numbers of the store, ascending.
    copies : ndarray of int64, shape (u,)
        How often each is drawn, 1 or more.
    strategy : str
    multiplier : int
    seed : int
        As they were asked for.
    tree : SampledTree
        Where it was drawn from; labels, distances and ids are looked up there when they are asked for.
    """

    unique_rows: Int64
    copies: Int64
    strategy: str
    multiplier: int
    seed: int
    tree: SampledTree
    _upper_labels: list[NDArray[np.int32]] = field(default_factory=list, init=False)

    def __len__(self) -> int:
        """Rows drawn, copies counted."""
        return int(self.copies.sum())

    def __repr__(self) -> str:
        return f"Selection({len(self):,} rows, {len(self.unique_rows):,} distinct, of {self.tree.path})"

    @property
    def rows(self) -> Int64:
        """Row numbers, ascending, repeated per copy; int64, shape (n,)."""
        return np.repeat(self.unique_rows, self.copies)

    @property
    def ids(self) -> NDArray[Any] | None:
        """Ids aligned with :attr:`rows`, None where the store has none.

        Raises
        ------
        StoreError
            The store had ids and is gone.
        """
        unique = self.unique_ids
        return None if unique is None else np.repeat(unique, self.copies)

    @property
    def unique_ids(self) -> NDArray[Any] | None:
        """Ids aligned with :attr:`unique_rows`, None where the store has none."""
        take = self.id_reader()
        return None if take is None else take(self.unique_rows)

    @property
    def labels(self) -> list[NDArray[np.int32]]:
        """The cluster at each level, level 1 first, each aligned with :attr:`unique_rows`."""
        batches = [labels for labels, _ in self._looked_up()]
        return [np.concatenate([batch[level] for batch in batches]) for level in range(len(self.tree.levels))]

    @property
    def distances(self) -> NDArray[np.float32]:
        """Distance to the level-1 centroid (Euclidean, or 1 − cos), aligned with :attr:`unique_rows`."""
        return np.concatenate([distances for _, distances in self._looked_up()])

    def id_reader(self) -> Callable[[Int64], NDArray[Any]] | None:
        """A function from ascending rows to their ids, None where the store has none.

        Raises
        ------
        StoreError
            The store had ids and is gone.
        """
        store = self.tree.embeddings()
        if store is None:
            if self.tree.source.get("ids"):
                place = self.tree.source.get("path") or "the store"
                raise StoreError(
                    f"{place}: is gone, and the ids of the drawn rows with it; put it back, or write .npy (row numbers)"
                )
            return None
        if store.take_ids(self.unique_rows[:1]) is None:
            return None

        def take(rows: Int64) -> NDArray[Any]:
            ids = store.take_ids(rows)
            assert ids is not None  # it had some a moment ago
            return ids

        return take

    def lookup(self, start: int, stop: int) -> tuple[list[NDArray[np.int32]], NDArray[np.float32]]:
        """Labels of every level and level-1 distances of ``unique_rows[start:stop]``."""
        rows = self.unique_rows[start:stop]
        first = self.tree.levels[0]
        labels = [np.asarray(first.stored_labels.take(rows), dtype=np.int32)]
        for upper in self._uppers():
            labels.append(upper[labels[-1]])
        return labels, np.asarray(first.stored_distances.take(rows), dtype=np.float32)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write one line per distinct row: row, id (where there are ids), label_1 .. label_L, distance, copies.

        Raises
        ------
        InputError
            The path has the suffix of another format, or the file cannot be written there.
        """
        self._write_as(path, ".parquet")

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of :meth:`to_parquet` with a header line; raises as it does."""
        self._write_as(path, ".csv")

    def to_npy(self, path: str | os.PathLike[str]) -> None:
        """Write :attr:`rows`: int64, ascending, repeated per copy; raises as :meth:`to_parquet` does."""
        self._write_as(path, ".npy")

    def to_txt(self, path: str | os.PathLike[str]) -> None:
        """Write one id a line (the row number where there are no ids), repeated per copy.

        Raises
        ------
        InputError
            The path has the suffix of another format, or the file cannot be written there.
        DataError
            An id contains a line break.
        """
        self._write_as(path, ".txt")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write in the format that the suffix names: .parquet, .npy, .csv or .txt. An existing file is replaced.

        Raises
        ------
        InputError
            Another suffix, or the file cannot be written there.
        """
        from streamcurate.sampling.export import writer_for

        writer_for(path)(self, path)

    def _write_as(self, path: str | os.PathLike[str], suffix: str) -> None:
        from streamcurate.sampling.export import write_as

        write_as(self, path, suffix)

    def _looked_up(self) -> Iterator[tuple[list[NDArray[np.int32]], NDArray[np.float32]]]:
        for start in range(0, len(self.unique_rows), BATCH):
            yield self.lookup(start, start + BATCH)

    def _uppers(self) -> list[NDArray[np.int32]]:
        """Labels of the levels above the first, read once: one int32 for each cluster below."""
        if len(self._upper_labels) != len(self.tree.levels) - 1:
            self._upper_labels[:] = [_all_labels(level) for level in self.tree.levels[1:]]
        return self._upper_labels


def _all_labels(level: SampledLevel) -> NDArray[np.int32]:
    return np.asarray(level.stored_labels.read(0, level.stored_labels.rows), dtype=np.int32)
