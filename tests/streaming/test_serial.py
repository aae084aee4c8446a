"""The serial executor: order, masks, columns, outputs, errors that leave nothing running, refusals before reading."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import DataError, MemoryLimitError
from streamcurate.storage import create_array
from streamcurate.streaming import Block, Cost, MemoryBudget, MemoryRows, Output, Points, SerialExecutor, StoredRows

MIB = 1 << 20


@dataclass(frozen=True)
class Seen:
    """Partial results that show every block; the output is the row number plus the column."""

    name: str = "seeing"
    reads_values: bool = True
    needed: Cost = Cost()  # noqa: RUF009 (frozen)
    fails_at: int = -1
    slow: float = 0.0
    writes: int = 0

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return self.needed

    def prepare(self, state: Any, backend: Any) -> None:
        return None

    def chunk(self, block: Block, columns: tuple, state: Any) -> tuple[list, tuple]:
        if self.slow:
            time.sleep(self.slow * (block.start % 3))
        if block.start <= self.fails_at < block.stop:
            raise ZeroDivisionError(f"row {self.fails_at}")
        outputs = [block.rows * 10, *(column + 1 for column in columns)][: self.writes]
        return [(block.start, block.stop, block.rows.tolist(), block.values.copy(), block.whole.shape)], tuple(outputs)

    def combine(self, total: list, part: list) -> list:
        return total + part

    def finalize(self, total: list | None) -> list:
        return total or []


class CountingRows(MemoryRows):
    """Counts reads."""

    def __init__(self, values: np.ndarray, chunk_rows: int = 5) -> None:
        super().__init__(values)
        self.chunk_rows = chunk_rows
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> np.ndarray:
        self.reads.append((start, stop))
        return super().read(start, stop)


def budget_of(threads: int, prefetch: int, limit: int = 1024 * MIB) -> MemoryBudget:
    return MemoryBudget(limit, threads, prefetch)


@pytest.fixture(params=[(1, 0), (1, 1), (2, 0), (3, 1)], ids=lambda pair: f"threads{pair[0]}-prefetch{pair[1]}")
def executor(request, monkeypatch):
    from streamcurate.streaming import budget

    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 10)
    monkeypatch.setattr(budget, "_SMALLEST_BLOCK_ROWS", 1)
    with SerialExecutor(budget_of(*request.param)) as made:
        yield made


def matrix(rows: int = 97, dims: int = 3) -> np.ndarray:
    return np.arange(rows * dims, dtype=np.float32).reshape(rows, dims)


@pytest.mark.parametrize("slow", [0.0, 0.002])
def test_blocks_and_outputs_come_in_order(tmp_path, executor, slow):
    values = matrix()
    out = create_array(tmp_path / "out", (97,), np.int64, 16)
    seen = executor.run(Seen(slow=slow, writes=1), Points.all_of(CountingRows(values)), {}, outputs=(Output(out, -1),))
    assert [part[0] for part in seen] == sorted(part[0] for part in seen)
    assert seen[0][0] == 0
    assert all(one[1] == other[0] for one, other in itertools.pairwise(seen))
    assert seen[-1][1] == 97
    assert all(part[1] - part[0] <= 10 for part in seen)
    np.testing.assert_array_equal(np.concatenate([part[3] for part in seen]), values)
    np.testing.assert_array_equal(out.read(0, 97), np.arange(97) * 10)


@settings(max_examples=25)
@given(counts=st.lists(st.booleans(), min_size=1, max_size=60), threads=st.integers(1, 3))
def test_masks_and_columns(tmp_path_factory, counts, threads):
    from streamcurate.streaming import budget

    folder = tmp_path_factory.mktemp("masks")
    rows = len(counts)
    chosen = np.flatnonzero(counts)
    values = matrix(rows, 2)
    mask = create_array(folder / "mask", (rows,), np.uint8, 7)
    mask.write(0, np.array(counts, dtype=np.uint8))
    column = create_array(folder / "column", (rows,), np.int32, 9)
    column.write(0, np.arange(rows, dtype=np.int32) * 3)
    outputs = [create_array(folder / f"out-{number}", (rows,), np.int64, 8) for number in range(2)]
    with pytest.MonkeyPatch.context() as patch, SerialExecutor(budget_of(threads, threads % 2)) as executor:
        patch.setattr(budget, "_LARGEST_BLOCK_ROWS", 6)
        patch.setattr(budget, "_SMALLEST_BLOCK_ROWS", 1)
        points = Points(MemoryRows(values), len(chosen), mask)
        seen = executor.run(
            Seen(writes=2), points, {}, columns=(column,), outputs=(Output(outputs[0], -7), Output(outputs[1], -8))
        )
        streamed = list(executor.stream(points, columns=(column,)))
    assert [row for part in seen for row in part[2]] == chosen.tolist()
    np.testing.assert_array_equal(np.concatenate([part[3] for part in seen]), values[chosen])
    assert all(part[4] == (part[1] - part[0], 2) for part in seen)  # all rows of the range are there as well
    first, second = (output.read(0, rows) for output in outputs)
    expected = np.full(rows, -7)
    expected[chosen] = chosen * 10
    np.testing.assert_array_equal(first, expected)
    expected = np.full(rows, -8)
    expected[chosen] = chosen * 3 + 1
    np.testing.assert_array_equal(second, expected)
    assert [row for block, _ in streamed for row in block.rows.tolist()] == chosen.tolist()
    np.testing.assert_array_equal(np.concatenate([columns[0] for _, columns in streamed]), chosen * 3)


def test_blocks_begin_at_multiples_of_align(executor):
    seen = executor.run(Seen(), Points.all_of(MemoryRows(matrix())), {}, align=8)
    assert all(part[0] % 8 == 0 for part in seen)
    assert len(seen) > 5
    seen = executor.run(Seen(), Points.all_of(MemoryRows(matrix())), {}, align=64)
    assert [part[0] for part in seen] == [0, 64]


def test_rows_that_are_not_asked_for_are_not_read(executor):
    source = CountingRows(matrix())
    seen = executor.run(Seen(reads_values=False), Points.all_of(source), {})
    assert source.reads == []
    assert [row for part in seen for row in part[2]] == list(range(97))
    assert seen[0][3].shape == (len(seen[0][2]), 0)


def test_every_row_is_read_once(executor):
    source = CountingRows(matrix())
    executor.run(Seen(), Points.all_of(source), {})
    assert sorted(source.reads)[0][0] == 0
    assert sum(stop - start for start, stop in source.reads) == 97


def busy() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("block", "read"))]


@pytest.mark.parametrize("where", ["chunk", "read", "combine", "listener"])
@pytest.mark.parametrize(("threads", "prefetch"), [(1, 0), (1, 1), (3, 0), (3, 1)])
def test_errors_come_out_and_leave_nothing_running(monkeypatch, where, threads, prefetch):
    from streamcurate.streaming import Silent, budget

    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 4)
    monkeypatch.setattr(budget, "_SMALLEST_BLOCK_ROWS", 1)
    under_way = [0]
    lock = threading.Lock()

    class Rows(CountingRows):
        def read(self, start: int, stop: int) -> np.ndarray:
            if where == "read" and start >= 40:
                raise ZeroDivisionError("read")
            return super().read(start, stop)

    class Work(Seen):
        def chunk(self, block: Block, columns: tuple, state: Any) -> tuple[list, tuple]:
            with lock:
                under_way[0] += 1
            try:
                time.sleep(0.002)
                return super().chunk(block, columns, state)
            finally:
                with lock:
                    under_way[0] -= 1

        def combine(self, total: list, part: list) -> list:
            if where == "combine" and part[0][0] >= 40:
                raise ZeroDivisionError("combine")
            return total + part

    class Listener(Silent):
        ended = 0

        def advanced(self, rows: int, bytes: int) -> None:
            if where == "listener":
                raise ZeroDivisionError("listener")

        def finished(self) -> None:
            self.ended += 1

    listener = Listener()
    source = Rows(matrix())
    executor = SerialExecutor(budget_of(threads, prefetch), listener)
    with pytest.raises(ZeroDivisionError):
        executor.run(Work(fails_at=41 if where == "chunk" else -1), Points.all_of(source), {})
    # What was under way has ended before the error came out, and nothing new begins.
    assert under_way[0] == 0
    reads = len(source.reads)
    time.sleep(0.01)
    assert len(source.reads) == reads
    assert listener.ended == 1
    # The executor can go on.
    where = "nowhere"
    assert len(executor.run(Seen(), Points.all_of(source), {})) > 5
    executor.close()
    assert busy() == []


def test_a_stream_left_early_leaves_nothing_running(executor):
    source = CountingRows(matrix())
    stream = executor.stream(Points.all_of(source))
    next(stream)
    stream.close()
    reads = len(source.reads)
    time.sleep(0.01)
    assert len(source.reads) == reads
    assert reads < 8


def test_map_keeps_order_and_few_under_way(executor):
    running, most = [0], [0]
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.001 * (item % 3))
        with lock:
            running[0] -= 1
        return item * item

    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    results = executor.side_by_side(work, items())
    assert next(results) == 0
    assert len(taken) <= executor.budget.threads + 1
    assert list(results) == [item * item for item in range(1, 20)]
    assert most[0] <= executor.budget.threads


def test_map_passes_errors_on(executor):
    def work(item: int) -> int:
        if item == 5:
            raise KeyError(item)
        return item

    results = executor.side_by_side(work, range(20))
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(KeyError):
        next(results)


def test_a_refusal_comes_before_anything_is_read(tmp_path):
    source = CountingRows(matrix())
    out = create_array(tmp_path / "out", (97,), np.int64, 16)
    with SerialExecutor(budget_of(2, 1, 600 * MIB)) as executor:
        work = Seen(needed=Cost(fixed_bytes=400 * MIB), writes=1)
        with pytest.raises(MemoryLimitError) as caught:
            executor.run(work, Points.all_of(source), {}, outputs=(Output(out, -1),))
        assert source.reads == []
        assert not (tmp_path / "out" / "c").exists()
    message = str(caught.value)
    assert "array in memory: seeing needs 400 MiB" in message
    assert "the memory limit of 600 MiB leaves" in message
    enough = int(message.split("--memory-limit ")[1].split("MiB")[0]) * MIB
    with SerialExecutor(budget_of(2, 1, enough)) as executor:
        assert executor.run(work, Points.all_of(source), {}, outputs=(Output(out, -1),))


def test_a_source_that_gives_too_few_rows_is_said(executor):
    class Short(MemoryRows):
        def read(self, start: int, stop: int) -> np.ndarray:
            return super().read(start, stop)[:-1]

    with pytest.raises(DataError, match="gave"):
        executor.run(Seen(), Points.all_of(Short(matrix())), {})


def test_blas_runs_on_one_thread_inside_and_as_before_after():
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with SerialExecutor(budget_of(2, 1)):
        assert set(threads()) <= {1}
    assert threads() == before


def test_stored_rows(tmp_path, executor):
    values = matrix()
    array = create_array(tmp_path / "a", values.shape, np.float32, 11)
    array.write(0, values)
    source = StoredRows(array)
    assert (source.rows, source.dims, source.chunk_rows, source.name) == (97, 3, 11, str(tmp_path / "a"))
    seen = executor.run(Seen(), Points.all_of(source), {})
    np.testing.assert_array_equal(np.concatenate([part[3] for part in seen]), values)
    np.testing.assert_array_equal(source.take(np.array([3, 50])), values[[3, 50]])


@dataclass(frozen=True)
class Keeping(Seen):
    """Partial results that are views of the blocks, which the pass thereby keeps."""

    def chunk(self, block: Block, columns: tuple, state: Any) -> tuple[list, tuple]:
        return [block.values[1:], *columns], ()


def test_blocks_that_a_pass_keeps_stay_as_they_were_read(tmp_path, executor):
    values = matrix(97, 3)
    array = create_array(tmp_path / "rows", values.shape, np.float32, 10)
    array.write(0, values)
    column = create_array(tmp_path / "column", (97,), np.int32, 97)
    column.write(0, np.arange(97, dtype=np.int32))
    points = Points.all_of(StoredRows(array))
    kept = executor.run(Keeping(), points, {}, columns=(column,))
    np.testing.assert_array_equal(np.concatenate(kept[::2]), np.delete(values, np.arange(0, 97, 10), axis=0))
    np.testing.assert_array_equal(np.concatenate(kept[1::2]), np.arange(97))
    blocks = [block for block, _ in executor.stream(points)]
    np.testing.assert_array_equal(np.concatenate([block.whole for block in blocks]), values)


def test_blocks_nobody_keeps_are_read_into_few_buffers(tmp_path, executor):
    @dataclass(frozen=True)
    class Places(Seen):
        def chunk(self, block: Block, columns: tuple, state: Any) -> tuple[list, tuple]:
            return [block.values.__array_interface__["data"][0]], ()

    values = matrix(970, 3)
    array = create_array(tmp_path / "rows", values.shape, np.float32, 10)
    array.write(0, values)
    places = executor.run(Places(), Points.all_of(StoredRows(array)), {})
    assert len(places) == 97
    assert len(set(places)) <= executor.budget.threads + executor.budget.prefetch


@pytest.mark.parametrize("prefetch", [0, 1])
def test_with_little_to_compute_blocks_are_read_side_by_side(monkeypatch, prefetch):
    from streamcurate.streaming import budget

    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 10)
    begun = {10: threading.Event(), 20: threading.Event()}

    class Waiting(CountingRows):
        def read(self, start: int, stop: int) -> np.ndarray:
            if start in begun:
                begun[start].set()
                assert begun[30 - start].wait(30)
            return super().read(start, stop)

    source = Waiting(matrix(100), 10)
    with SerialExecutor(budget_of(3, prefetch)) as executor:
        monkeypatch.setattr(budget, "_SMALLEST_BLOCK_ROWS", 1)
        seen = executor.run(Seen(), Points.all_of(source), {})
    assert [part[0] for part in seen] == list(range(0, 100, 10))
    assert sorted(source.reads) == [(start, start + 10) for start in range(0, 100, 10)]


def test_a_source_that_decodes_is_read_in_order_by_one_thread(executor):
    class Decoding(CountingRows):
        read_overhead_bytes = 1000
        threads: ClassVar[set[str]] = set()

        def read(self, start: int, stop: int) -> np.ndarray:
            self.threads.add(threading.current_thread().name)
            time.sleep(0.001 * (start % 3))
            return super().read(start, stop)

    source = Decoding(matrix())
    executor.run(Seen(), Points.all_of(source), {})
    assert source.reads == sorted(source.reads)
    assert len(source.threads) == 1


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 0), (1, 1), (2, 0), (3, 1)])
def test_no_more_blocks_are_under_way_than_memory_was_counted_for(monkeypatch, threads, prefetch):
    from streamcurate.streaming import budget

    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 5)
    monkeypatch.setattr(budget, "_SMALLEST_BLOCK_ROWS", 1)
    lock = threading.Lock()
    read, done, most = [0], [0], [0]

    class Rows(CountingRows):
        def read(self, start: int, stop: int) -> np.ndarray:
            with lock:
                read[0] += 1
                most[0] = max(most[0], read[0] - done[0])
            return super().read(start, stop)

    class Work(Seen):
        def combine(self, total: list, part: list) -> list:
            with lock:
                done[0] += 1
            time.sleep(0.001)
            return total + part

    with SerialExecutor(budget_of(threads, prefetch)) as executor:
        executor.run(Work(), Points.all_of(Rows(matrix(200))), {})
    assert most[0] <= threads + prefetch + 1  # the first block has nothing to be combined with, and counts for ever
