"""A pass: one immutable description of a sweep over rows, run by any executor.

Everything that touches rows is a pass. It says what happens to one block (``chunk``), how two partial results become
one (``combine``, in any order and grouping: the result must not depend on it) and what the whole gives (``finalize``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamcurate.storage import StoredArray
from streamcurate.streaming.budget import Cost, MemoryBudget
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.source import RowSource

State = TypeVar("State")
Partial = TypeVar("Partial")
Result = TypeVar("Result")
Item = TypeVar("Item")
Answer = TypeVar("Answer")
StateIn = TypeVar("StateIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


@dataclass(frozen=True)
class Points:
    """The rows a pass is about: a source, and which of its rows count.

    Attributes
    ----------
    source : RowSource
    count : int
        How many rows count.
    mask : StoredArray or None
        uint8 (source.rows,), non-zero where a row counts; None where all do.
    """

    source: RowSource
    count: int
    mask: StoredArray | None = None

    @classmethod
    def all_of(cls, source: RowSource) -> Points:
        """Every row of a source."""
        return cls(source, source.rows)


@dataclass(frozen=True)
class Block:
    """The counting rows among rows ``start`` to ``stop`` of a source.

    Attributes
    ----------
    start, stop : int
    rows : ndarray of int64, shape (m,)
        Their row numbers, ascending.
    values : ndarray, shape (m, dims)
        Empty (0 columns) for passes that do not read the rows themselves.
    whole : ndarray, shape (stop - start, dims)
        All rows of the range, counting or not.
    """

    start: int
    stop: int
    rows: NDArray[np.int64]
    values: NDArray[Any]
    whole: NDArray[Any]


@dataclass(frozen=True)
class Output:
    """A row-aligned array a pass writes; rows that do not count get ``fill``."""

    array: StoredArray
    fill: int | float


class Pass(Protocol[StateIn, Partial, ResultOut]):
    """See the module's text. Implementations are frozen data classes."""

    @property
    def name(self) -> str:
        """What progress calls it."""

    @property
    def reads_values(self) -> bool:
        """False for passes over row numbers and columns alone."""

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """Memory and arithmetic it takes."""

    def chunk(
        self, block: Block, columns: tuple[NDArray[Any], ...], state: StateIn
    ) -> tuple[Partial, tuple[NDArray[Any], ...]]:
        """One block's partial result, and its rows' entries of every output."""

    def combine(self, total: Partial, part: Partial) -> Partial:
        """Two partial results as one; may change and return ``total``."""

    def finalize(self, total: Partial | None) -> ResultOut:
        """The result of the whole pass; None where no block was read."""


class Executor(Protocol):
    """Runs passes. Serial here; others may spread the blocks over processes and hosts."""

    @property
    def budget(self) -> MemoryBudget:
        """The memory of one process."""

    @property
    def progress(self) -> ProgressListener:
        """Who hears of the progress."""

    def run(
        self,
        work: Pass[State, Partial, Result],
        points: Points,
        state: State,
        *,
        columns: Sequence[StoredArray] = (),
        outputs: Sequence[Output] = (),
        align: int = 1,
    ) -> Result:
        """One pass over ``points``.

        Parameters
        ----------
        work : Pass
        points : Points
        state : object
            What the pass needs to know, the same for every block (centroids, say).
        columns : sequence of StoredArray
            Row-aligned arrays to read beside the rows.
        outputs : sequence of Output
            Row-aligned arrays to write.
        align : int
            Blocks begin at multiples of so many rows.

        Raises
        ------
        MemoryLimitError
            Not even the smallest block fits within the memory limit.
        """

    def stream(
        self, points: Points, *, columns: Sequence[StoredArray] = (), row_bytes: int = 0, name: str = "reading"
    ) -> Iterator[tuple[Block, tuple[NDArray[Any], ...]]]:
        """The blocks of ``points`` with their columns, in order."""

    def map(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
        """``function(item)`` for independent items, results in the items' order, a bounded number under way."""
