"""The serial executor: one process, every core, blocks read while others are computed."""

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
from streamcurate.streaming.buffers import Allocator, BlockBuffers
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
from streamcurate.streaming.source import read_into

Loaded = tuple[Block, tuple[NDArray[Any], ...]]


def no_report(report: PassReport) -> None:
    """Tell nobody."""


def source_row_bytes(points: Points, reads_values: bool) -> int:
    """Bytes of a row as a pass reads it."""
    return points.source.dims * points.source.dtype.itemsize if reads_values else 0


def read_overhead(points: Points, columns: Sequence[StoredArray], reads_values: bool) -> int:
    """Bytes that reading a block takes beside the block: what its source, columns and mask decode."""
    aligned = [*columns, *([points.mask] if points.mask is not None else [])]
    return (points.source.read_overhead_bytes if reads_values else 0) + sum(one.read_overhead_bytes for one in aligned)


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
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
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
        outputs: Sequence[Output] = (),
    ) -> Iterator[tuple[int, int, Result]]:
        """One pass, its whole result as one slice: what it summed is in this process anyway."""
        yield 0, work.clusters, self.run(work, points, state, columns=columns, outputs=outputs)

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
            del block, part, results  # or they would hold a buffer until there is a next block
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
        buffers = BlockBuffers()

        def load(start: int, stop: int) -> Loaded:
            return _load(points, columns, reads_values, start, stop, buffers)

        alone = self.budget.threads == 1 and not self.budget.prefetch
        if alone or bounds[1] - bounds[0] <= plan.block_rows:  # nothing to overlap: spare the hand-over
            for start, stop in plan.between(*bounds):
                loaded = load(start, stop)
                yield loaded[0], compute(loaded)
                del loaded
            return
        # A source that decodes whole chunks keeps the last one: its blocks are read in order, by one thread.
        in_order = read_overhead(points, columns, reads_values) > 0

        def work(reading: Future[Loaded], start: int, stop: int) -> tuple[Block, Answer]:
            # Whoever is free reads: with little to compute all threads do, with much only the reader.
            loaded = load(start, stop) if not in_order and reading.cancel() else reading.result()
            return loaded[0], compute(loaded)

        reads: deque[Future[Loaded]] = deque()
        working: deque[Future[tuple[Block, Answer]]] = deque()
        ranges = plan.between(*bounds)
        try:
            while True:
                while len(working) < self.budget.threads + self.budget.prefetch:
                    following = next(ranges, None)
                    if following is None:
                        break
                    reads.append(self._reader.submit(load, *following))
                    working.append(self._workers.submit(work, reads[-1], *following))
                if not working:
                    return
                working[0].exception()  # waits for it where, interrupted, it is still settled below
                reads.popleft()
                yield working.popleft().result()
        finally:
            _settle(working)
            _settle(reads)


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
    overhead = read_overhead(points, columns, reads_values)
    held = replace(cost, row_bytes=cost.row_bytes + 2 * sum(column.row_bytes for column in aligned))
    rows = budget.block_rows(f"{source.name}: {name}", source.rows, row_bytes, overhead, held)
    return BlockPlan.of(source.rows, rows, source.chunk_rows, align)


def _settle(futures: Iterable[Future[Any]]) -> None:
    """Leave no block under way behind an error: whoever mends it may remove the files these still read."""
    for future in list(futures):
        if not future.cancel():
            future.exception()


def _load(
    points: Points, columns: Sequence[StoredArray], reads_values: bool, start: int, stop: int, allocator: Allocator
) -> tuple[Block, tuple[NDArray[Any], ...]]:
    source = points.source
    whole = (
        read_into(source, allocator, start, stop) if reads_values else np.empty((stop - start, 0), dtype=source.dtype)
    )
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
