"""The serial executor: one process, every core, the next block read while this one is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import DataError
from streamcurate.kernels.backend import Backend, get_backend
from streamcurate.storage import SequentialWriter, StoredArray
from streamcurate.streaming.budget import BlockPlan, Cost, MemoryBudget
from streamcurate.streaming.passes import (
    Answer,
    Block,
    Item,
    Output,
    Partial,
    Pass,
    PassReport,
    Points,
    Ready,
    Result,
    SlicedPass,
    State,
)
from streamcurate.streaming.progress import ProgressListener, Silent

Loaded = tuple[Block, tuple[NDArray[Any], ...]]


def no_report(report: PassReport) -> None:
    """Tell nobody."""


def source_row_bytes(points: Points, reads_values: bool) -> int:
    """Bytes of a row as a pass reads it."""
    return points.source.dims * points.source.dtype.itemsize if reads_values else 0


class SerialExecutor:
    """Runs passes in this process.

    Parameters
    ----------
    budget : MemoryBudget
        Its ``threads`` blocks are computed at a time; each on one BLAS thread.
    progress : ProgressListener, optional
    backend : Backend, optional
        Where blocks are computed; by default the CPU.
    """

    def __init__(
        self, budget: MemoryBudget, progress: ProgressListener | None = None, backend: Backend | None = None
    ) -> None:
        from threadpoolctl import threadpool_limits

        self.budget = budget
        self.progress: ProgressListener = progress or Silent()
        self.backend = backend or get_backend("cpu")
        self.on_pass: Callable[[PassReport], None] = no_report
        self._workers = ThreadPoolExecutor(budget.threads, thread_name_prefix="block")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read") if budget.prefetch else None
        self._blas = threadpool_limits(1, user_api="blas")

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is under way and give the threads back."""
        self._workers.shutdown(cancel_futures=True)
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
        self._blas.restore_original_limits()

    @property
    def local(self) -> SerialExecutor:
        """Itself."""
        return self

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
        """One pass over ``points``; see :class:`~streamcurate.streaming.passes.Executor`."""
        began = time.monotonic()
        rows, row_bytes = points.source.rows, source_row_bytes(points, work.reads_values)
        plan = self.plan(work, points, columns, align)
        ready = work.prepare(state, self.backend)
        self.progress.started(work.name, rows)
        try:
            total = self.part(
                work,
                points,
                ready,
                plan,
                (0, rows),
                columns,
                outputs,
                lambda done: self.progress.advanced(done, done * row_bytes),
            )
        finally:
            self.progress.finished()
        result = work.finalize(total)
        self.on_pass(PassReport(work.name, rows, rows * row_bytes, time.monotonic() - began))
        return result

    def slices(
        self,
        work: SlicedPass[Ready, Partial, Result],
        points: Points,
        state: State,
        *,
        columns: Sequence[StoredArray] = (),
    ) -> Iterator[tuple[int, int, Result]]:
        """One pass, its whole result as one slice: what it summed is in this process anyway."""
        yield 0, work.clusters, self.run(work, points, state, columns=columns)

    def part(
        self,
        work: Pass[Ready, Partial, Any],
        points: Points,
        ready: Ready,
        plan: BlockPlan,
        bounds: tuple[int, int],
        columns: Sequence[StoredArray] = (),
        outputs: Sequence[Output] = (),
        advanced: Callable[[int], None] = lambda rows: None,
    ) -> Partial | None:
        """The partial result of a range of rows, its outputs written.

        Parameters
        ----------
        work, points, columns, outputs
            As for :meth:`run`.
        ready : object
            What ``work.prepare`` gave.
        plan : BlockPlan
            Of :meth:`plan`.
        bounds : (start, stop)
            Rows of the source, whole chunks of every output.
        advanced : callable
            Called with the number of rows of a block before its outputs are written.
        """
        writers = [_OutputWriter(output, *bounds) for output in outputs]
        total: Partial | None = None

        def compute(loaded: Loaded) -> tuple[Partial, tuple[NDArray[Any], ...]]:
            return work.chunk(loaded[0], loaded[1], ready)

        for block, (part, results) in self._computed(points, plan, bounds, columns, work.reads_values, compute):
            total = part if total is None else work.combine(total, part)
            advanced(block.stop - block.start)
            for writer, result in zip(writers, results, strict=True):
                writer.put(block, result)
        return total

    def stream(
        self,
        points: Points,
        *,
        columns: Sequence[StoredArray] = (),
        row_bytes: int = 0,
        name: str = "reading",
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[Loaded]:
        """The blocks of ``points`` with their columns, in order, the next one read meanwhile."""
        plan = _plan(self.budget, name, points, Cost(row_bytes=row_bytes), True, columns, 1)
        bounds = (start, points.source.rows if stop is None else stop)
        yield from self._computed(points, plan, bounds, columns, True, lambda loaded: loaded[1])

    def map(
        self, function: Callable[[Item, State, SerialExecutor], Answer], items: Iterable[Item], state: State, name: str
    ) -> Iterator[Answer]:
        """One item after the other, each with all threads."""
        for item in items:
            yield function(item, state, self)

    def side_by_side(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
        """``function(item)`` in threads, results in order; as many under way as there are threads."""
        pending: deque[Future[Answer]] = deque()
        try:
            for item in items:
                pending.append(self._workers.submit(function, item))
                if len(pending) >= self.budget.threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            _settle(pending)

    def plan(
        self, work: Pass[Any, Any, Any], points: Points, columns: Sequence[StoredArray] = (), align: int = 1
    ) -> BlockPlan:
        """The blocks of a pass; see :func:`plan_pass`."""
        return plan_pass(self.budget, work, points, columns, align)

    def _computed(
        self,
        points: Points,
        plan: BlockPlan,
        bounds: tuple[int, int],
        columns: Sequence[StoredArray],
        reads_values: bool,
        compute: Callable[[Loaded], Answer],
    ) -> Iterator[tuple[Block, Answer]]:
        """Every block and what ``compute`` made of it, in the blocks' order."""

        def load(start: int, stop: int) -> Loaded:
            return _load(points, columns, reads_values, start, stop)

        alone = self.budget.threads == 1 and self._reader is None
        if alone or bounds[1] - bounds[0] <= plan.block_rows:  # nothing to overlap: spare the hand-over
            for start, stop in plan.between(*bounds):
                loaded = load(start, stop)
                yield loaded[0], compute(loaded)
            return
        reading: deque[Future[Loaded]] = deque()
        computing: deque[tuple[Block, Future[Answer]]] = deque()
        ranges = plan.between(*bounds)
        try:
            while True:
                while self._reader is not None and len(reading) < self.budget.prefetch:
                    following = next(ranges, None)
                    if following is None:
                        break
                    reading.append(self._reader.submit(load, *following))
                if len(computing) < self.budget.threads:
                    fresh: Loaded | None = None
                    if reading:
                        fresh = reading.popleft().result()
                    elif self._reader is None and (following := next(ranges, None)) is not None:
                        fresh = load(*following)
                    if fresh is not None:
                        computing.append((fresh[0], self._workers.submit(compute, fresh)))
                        del fresh
                        continue
                if not computing:
                    return
                block, future = computing.popleft()
                answer = future.result()
                del future
                yield block, answer
                del block, answer
        finally:
            _settle(reading)
            _settle([future for _, future in computing])


def plan_pass(
    budget: MemoryBudget,
    work: Pass[Any, Any, Any],
    points: Points,
    columns: Sequence[StoredArray] = (),
    align: int = 1,
) -> BlockPlan:
    """The blocks of a pass in a process of this budget.

    Raises
    ------
    MemoryLimitError
        Not even the smallest block fits within the memory limit.
    """
    cost = work.cost(points.source.dims, points.source.dtype)
    return _plan(budget, work.name, points, cost, work.reads_values, columns, align)


def _plan(
    budget: MemoryBudget,
    name: str,
    points: Points,
    cost: Cost,
    reads_values: bool,
    columns: Sequence[StoredArray],
    align: int,
) -> BlockPlan:
    source = points.source
    aligned = list(columns) + ([points.mask] if points.mask is not None else [])
    row_bytes = source_row_bytes(points, reads_values)
    overhead = (source.read_overhead_bytes if reads_values else 0) + sum(c.read_overhead_bytes for c in aligned)
    held = replace(cost, row_bytes=cost.row_bytes + 2 * sum(column.row_bytes for column in aligned))
    rows = budget.block_rows(f"{source.name}: {name}", source.rows, row_bytes, overhead, held)
    return BlockPlan.of(source.rows, rows, source.chunk_rows, align)


def _settle(futures: Iterable[Future[Any]]) -> None:
    """Leave no block under way behind an error: whoever mends it may remove the files these still read."""
    for future in list(futures):
        if not future.cancel():
            future.exception()


def _load(
    points: Points, columns: Sequence[StoredArray], reads_values: bool, start: int, stop: int
) -> tuple[Block, tuple[NDArray[Any], ...]]:
    source = points.source
    whole = source.read(start, stop) if reads_values else np.empty((stop - start, 0), dtype=source.dtype)
    if whole.shape[0] != stop - start:
        raise DataError(f"{source.name}: rows {start} to {stop - 1} gave {whole.shape[0]} rows")
    beside = tuple(column.read(start, stop) for column in columns)
    if points.mask is None:
        return Block(start, stop, np.arange(start, stop, dtype=np.int64), whole, whole), beside
    counts = points.mask.read(start, stop) != 0
    rows = np.flatnonzero(counts) + start
    return Block(start, stop, rows, whole[counts], whole), tuple(column[counts] for column in beside)


class _OutputWriter:
    """A row-aligned output, written in whole chunks; blocks come in order."""

    def __init__(self, output: Output, start: int, stop: int) -> None:
        self._fill, self._dtype = output.fill, output.array.dtype
        self._writer = SequentialWriter(output.array, start, stop)

    def put(self, block: Block, values: NDArray[Any]) -> None:
        if len(values) != block.stop - block.start:
            full = np.full((block.stop - block.start, *values.shape[1:]), self._fill, dtype=self._dtype)
            full[block.rows - block.start] = values
            values = full
        self._writer.append(values)
