"""Buffers that are used again: only those that nobody can see any more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamcurate.streaming import buffers
from streamcurate.streaming.buffers import BlockBuffers

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_what_is_dropped_is_used_again_for_any_shape_that_fits():
    pool = BlockBuffers()
    first = pool((8, 4), F32)
    place = address(first)
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((8, 4), F32, True)
    first[:] = 1
    del first
    second = pool((5, 6), F16)
    assert address(second) == place
    assert (second.shape, second.dtype) == ((5, 6), F16)


@pytest.mark.parametrize(
    "hold",
    [
        lambda rows: rows,
        lambda rows: rows[2:3, 1],
        lambda rows: rows.view(np.uint8)[::2, 1:],
        lambda rows: memoryview(rows)[1:],
        lambda rows: np.frombuffer(rows, dtype=np.uint8)[7:],
        lambda rows: rows[1:].data.cast("B"),
        lambda rows: np.lib.stride_tricks.as_strided(rows, (2,), (4,)),
        lambda rows: np.broadcast_to(rows, (2, *rows.shape)),
        lambda rows: {"deep": [(rows.T,)]},
        lambda rows: rows.ctypes,
        lambda rows: iter(rows),
        lambda rows: np.asarray(memoryview(memoryview(rows[1:]))),
    ],
)
def test_what_somebody_holds_is_not_used_again(hold):
    pool = BlockBuffers()
    rows = pool((8, 4), F32)
    place = address(rows)
    held = hold(rows)
    del rows
    others = [pool((8, 4), F32) for _ in range(3)]
    assert place not in {address(other) for other in others}
    del held
    assert address(pool((8, 4), F32)) == place


def test_a_buffer_too_small_is_replaced_not_kept():
    pool = BlockBuffers()
    small = pool((2, 2), F32)
    del small
    large = pool((100, 100), F32)
    del large
    again = pool((100, 100), F32)
    other = pool((3, 3), F32)
    assert not np.shares_memory(again, other)
    assert len(pool._buffers) == 2


def test_arrays_of_nothing():
    pool = BlockBuffers()
    assert pool((0, 4), F32).shape == (0, 4)
    assert pool((4, 0), F32).shape == (4, 0)


def test_arrays_outlive_the_pool():
    pool = BlockBuffers()
    rows = pool((3, 3), F32)
    rows[:] = 7
    del pool
    assert (rows == 7).all()


def test_many_threads_never_share(monkeypatch):
    pool = BlockBuffers()
    begin = threading.Barrier(4)

    def work(number: int) -> bool:
        begin.wait()
        good = True
        for turn in range(300):
            rows = pool((16, 16), F32)
            mark = number * 1000 + turn
            rows[:] = mark
            if turn % 3:
                rows = rows[3:]
            good &= bool((rows == mark).all())
            del rows
        return good

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
    assert len(pool._buffers) <= 4


def test_where_counts_prove_nothing_memory_is_always_new(monkeypatch):
    monkeypatch.setattr(buffers, "_COUNTS_ARE_EXACT", False)
    pool = BlockBuffers()
    pool((8, 4), F32)
    assert pool._buffers == []
