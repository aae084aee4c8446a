"""Rows found by examples, in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import InputError
from streamcurate.neighbors.row_files import Columns, Near, check_destination, write_near

_PIECE = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Retrieved:
    """Rows near examples, each with the example it is nearest to.

    Attributes
    ----------
    rows : ndarray of int64, shape (m,)
        Ascending, distinct.
    seeds : ndarray of int64, shape (m,)
        Row number of the nearest seed.
    distances : ndarray of float32, shape (m,)
        To it: Euclidean, or 1 - cos.
    metric : "l2" or "cosine"
        Of the distances.
    source, examples : Embeddings
        Where rows and seeds lie.
    called : str
        What a table calls the nearest example: ``seed``, or ``unwanted``.
    """

    rows: NDArray[np.int64]
    seeds: NDArray[np.int64]
    distances: NDArray[np.float32]
    metric: str
    source: Embeddings
    examples: Embeddings
    called: str = "seed"

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        example = "seed" if self.called == "seed" else f"{self.called} example"
        plural = "" if self.examples.rows == 1 else "s"
        return f"Retrieved({len(self):,} of {self.source.rows:,} rows, near {self.examples.rows:,} {example}{plural})"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """:attr:`rows`: what ``numpy.asarray`` gives."""
        return np.array(self.rows, dtype=dtype, copy=copy)

    @property
    def unique_rows(self) -> NDArray[np.int64]:
        """:attr:`rows`; by this name, ``include``, ``eligible`` and ``subset`` take what was retrieved as it is."""
        return self.rows

    @property
    def ids(self) -> NDArray[Any] | None:
        """Ids of the rows, None where they have none."""
        return self.source.take_ids(self.rows)

    @property
    def seed_ids(self) -> NDArray[Any] | None:
        """Ids of each row's nearest seed, None where seeds have none."""
        return self.examples.take_ids(self.seeds)

    def pieces(self) -> Iterator[Near]:
        """All of it, some rows at a time."""
        for start in range(0, len(self.rows), _PIECE):
            here = slice(start, start + _PIECE)
            yield Near(self.rows[here], self.seeds[here], self.distances[here])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write in the format that the suffix names: .parquet or .csv (row, id, seed, seed_id, distance), .npy (row
        numbers) or .txt (ids, else row numbers). An existing file is replaced.

        Raises
        ------
        InputError
            Another suffix, or the file cannot be written there.
        """
        write_near(path, self.pieces(), len(self.rows), Columns(self.source, self.examples, self.called))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a line for each row; see :meth:`save`."""
        self._save_as(path, ".parquet")

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line for each row, with a header; see :meth:`save`."""
        self._save_as(path, ".csv")

    def to_npy(self, path: str | os.PathLike[str]) -> None:
        """Write the row numbers."""
        self._save_as(path, ".npy")

    def to_txt(self, path: str | os.PathLike[str]) -> None:
        """Write one id a line, the row number where there are no ids."""
        self._save_as(path, ".txt")

    def _save_as(self, path: str | os.PathLike[str], suffix: str) -> None:
        if (found := check_destination(path)) != suffix:
            raise InputError(f"{path}: its suffix is {found!r}, to_{suffix[1:]} writes {suffix}; name the file so")
        self.save(path)
