"""Rows of zeros have no direction: a tree of Euclidean distances may hold some, and no cosine threshold is for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import DataError
from streamcurate.kernels import Backend
from streamcurate.storage import StoredArray
from streamcurate.streaming import Executor, Points, State
from streamcurate.streaming.budget import Cost
from streamcurate.streaming.passes import Block

Columns = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class ZeroRowsPass:
    """How many rows with a label are zero, and the first of them (-1: none). Column: labels."""

    name: str = "directions"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """A boolean for each value of a block."""
        return Cost(row_bytes=dims + 16, row_operations=dims)

    def prepare(self, state: State, backend: Backend) -> None:
        """Nothing."""

    def chunk(self, block: Block, columns: Columns, ready: None) -> tuple[tuple[int, int], Columns]:
        """One block's."""
        zero = block.rows[(columns[0] >= 0) & ~block.values.any(axis=1)]
        return (len(zero), int(zero[0]) if len(zero) else -1), ()

    def combine(self, total: tuple[int, int], part: tuple[int, int]) -> tuple[int, int]:
        """Both together."""
        firsts = [first for first in (total[1], part[1]) if first >= 0]
        return total[0] + part[0], min(firsts, default=-1)

    def finalize(self, total: tuple[int, int] | None) -> tuple[int, int]:
        """The same."""
        return total or (0, -1)


def check_directions(embeddings: Embeddings, labels: StoredArray, executor: Executor) -> None:
    """Refuse rows without a direction.

    Parameters
    ----------
    embeddings : Embeddings
    labels : StoredArray of int32, shape (rows,)
        Rows labelled -1 are not looked at.
    executor : Executor

    Raises
    ------
    DataError
        Naming how many, and the first.
    """
    count, first = executor.run(ZeroRowsPass(), Points.all_of(embeddings), {}, columns=(labels,))
    if not count:
        return
    ids = embeddings.take_ids(np.array([first], dtype=np.int64))
    identify = "" if ids is None else f', id "{ids[0]}"'
    raise DataError(
        f"{embeddings.name}: {count:,} rows are zero and have no direction under metric cosine (first: row "
        f"{first}{identify}); give a distance (--l2), or leave them out: name the store and --subset"
    )
