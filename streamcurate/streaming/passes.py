"""A pass: one immutable description of a sweep over rows, run by any executor.

Everything that touches rows is a pass. It says what every process makes ready once (``prepare``), what happens to one
block (``chunk``), how two partial results become one (``combine``, in any order and grouping: the result must not
depend on it) and what the whole gives (``finalize``). A pass over clusters too many to sum in one place gives its
largest arrays away to be added slice by slice (:class:`SlicedPass`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamcurate.kernels.backend import Backend
from streamcurate.storage import StoredArray
from streamcurate.streaming.budget import Cost, MemoryBudget
from streamcurate.streaming.progress import ProgressListener
from streamcurate.streaming.source import RowSource

if TYPE_CHECKING:
    from streamcurate.streaming.serial import SerialExecutor

State = Mapping[str, NDArray[Any]]
"""What a pass needs to know, the same for every block: arrays by name (centroids, say)."""

Ready = TypeVar("Ready")
Partial = TypeVar("Partial")
Result = TypeVar("Result")
Item = TypeVar("Item")
Answer = TypeVar("Answer")
ReadyState = TypeVar("ReadyState")
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


class Pass(Protocol[ReadyState, Partial, ResultOut]):
    """See the module's text. Implementations are frozen data classes, small enough to travel with every task."""

    @property
    def name(self) -> str:
        """What progress calls it."""

    @property
    def reads_values(self) -> bool:
        """False for passes over row numbers and columns alone."""

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """Memory and arithmetic it takes."""

    def prepare(self, state: State, backend: Backend) -> ReadyState:
        """What every ``chunk`` of a process shares, made once from the state; must not change what it is given."""

    def chunk(
        self, block: Block, columns: tuple[NDArray[Any], ...], ready: ReadyState
    ) -> tuple[Partial, tuple[NDArray[Any], ...]]:
        """One block's partial result, and its rows' entries of every output."""

    def combine(self, total: Partial, part: Partial) -> Partial:
        """Two partial results as one; may change and return ``total``."""

    def finalize(self, total: Partial | None) -> ResultOut:
        """The result of the whole pass; None where no block was read."""


class SlicedPass(Pass[ReadyState, Partial, ResultOut], Protocol[ReadyState, Partial, ResultOut]):
    """A pass whose partial result holds arrays with a row for each cluster that are simply added up."""

    @property
    def clusters(self) -> int:
        """Rows of those arrays."""

    def sums_bytes(self, dims: int) -> int:
        """Bytes of those arrays."""

    def detach(self, total: Partial) -> tuple[Partial, dict[str, NDArray[np.int64]]]:
        """A partial result without its large arrays, and those: int64, shape (clusters, width), to be added."""

    def attach(self, rest: Partial, arrays: Mapping[str, NDArray[np.int64]], first: int, last: int) -> Partial:
        """The partial result of clusters ``first`` to ``last`` from what :meth:`detach` gave."""


@dataclass(frozen=True)
class PassReport:
    """What a pass took.

    Attributes
    ----------
    name : str
    rows, bytes : int
        Of the source.
    seconds : float
    tasks : int
        Handed to other processes; 0 where it ran in this one.
    busy_seconds : float
        What those tasks took, all together.
    """

    name: str
    rows: int
    bytes: int
    seconds: float
    tasks: int = 0
    busy_seconds: float = 0.0


class Executor(Protocol):
    """Runs passes. Serial in one process; Dask's spreads the blocks over processes and hosts."""

    @property
    def budget(self) -> MemoryBudget:
        """The memory of one process."""

    @property
    def local(self) -> SerialExecutor:
        """The executor of this process alone."""

    progress: ProgressListener
    """Hears how passes go."""

    on_pass: Callable[[PassReport], None]
    """Hears what every pass took."""

    def run(
        self,
        work: Pass[Ready, Partial, Result],
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
        state : mapping of str to ndarray
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

    def slices(
        self,
        work: SlicedPass[Ready, Partial, Result],
        points: Points,
        state: State,
        *,
        columns: Sequence[StoredArray] = (),
        outputs: Sequence[Output] = (),
    ) -> Iterator[tuple[int, int, Result]]:
        """One pass, its result a slice of the clusters at a time: (first, last, result), in order.

        Outputs are written when the first slice is given.
        """

    def stream(
        self,
        points: Points,
        *,
        columns: Sequence[StoredArray] = (),
        row_bytes: int = 0,
        name: str = "reading",
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[tuple[Block, tuple[NDArray[Any], ...]]]:
        """The blocks of ``points`` (rows ``start`` to ``stop`` of the source) with their columns, in order."""

    def map(
        self, function: Callable[[Item, State, SerialExecutor], Answer], items: Iterable[Item], state: State, name: str
    ) -> Iterator[Answer]:
        """``function(item, state, executor)`` for independent items, wherever there is a process; results in order.

        Parameters
        ----------
        function : callable
            A frozen data class or a module's function, so that it can travel; it does all its work through the
            executor it is given.
        items : iterable
            Small.
        state : mapping of str to ndarray
            The same for every item.
        name : str
            What messages call the work.
        """
