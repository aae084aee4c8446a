"""Parts decoded side by side come in order, never more ahead than allowed, and leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.embeddings.sources.ahead import in_order


def opener(read: Callable[[int], Iterator[int]], opened: list[str] | None = None):
    @contextmanager
    def open_parts():
        if opened is not None:
            opened.append("open")
        yield read
        if opened is not None:
            opened.append("close")

    return open_parts


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reading-ahead")]


@given(
    parts=st.lists(st.lists(st.integers(0, 50), max_size=5), max_size=12),
    threads=st.integers(1, 5),
    ahead_bytes=st.integers(0, 60),
    taken=st.integers(0, 70),
)
def test_order(parts, threads, ahead_bytes, taken):
    """Whatever the parts' sizes, threads and room; also where the taker goes away."""
    expected = [item for part in parts for item in part]
    opened: list[str] = []
    items = in_order(
        len(parts),
        opener(lambda part: iter(parts[part]), opened),
        lambda size: size,
        threads=threads,
        ahead_bytes=ahead_bytes,
    )
    got = [item for item, _ in zip(items, range(taken), strict=False)]
    items.close()
    assert got == expected[:taken]
    assert not reading_threads()
    assert len(opened) <= 2 * threads


def test_no_more_is_held_than_allowed():
    """Ten parts of ten items of one byte: nine may wait, and each thread holds one more."""
    held, most = 0, 0
    lock = threading.Lock()

    def read(part: int) -> Iterator[int]:
        nonlocal held, most
        for _ in range(10):
            with lock:
                held += 1
                most = max(most, held)
            yield 1

    for _ in in_order(10, opener(read), lambda _: 1, threads=3, ahead_bytes=9):
        with lock:
            held -= 1
    # The item being handed out has left the queue when the next is put there.
    assert 9 <= most <= 9 + 3 + 1


def test_parts_are_decoded_side_by_side():
    """Two threads that wait for each other: it would hang were they not both at work."""
    meeting = threading.Barrier(2, timeout=60)

    def read(part: int) -> Iterator[int]:
        meeting.wait()
        yield part

    assert list(in_order(2, opener(read), lambda _: 1, threads=2, ahead_bytes=10)) == [0, 1]


def test_an_error_comes_behind_what_precedes_it():
    def read(part: int) -> Iterator[int]:
        yield 2 * part
        if part == 2:
            raise ValueError("part 2 is bad")
        yield 2 * part + 1

    got: list[int] = []
    with pytest.raises(ValueError, match="part 2 is bad"):
        got.extend(in_order(6, opener(read), lambda _: 1, threads=3, ahead_bytes=100))
    assert got == [0, 1, 2, 3, 4]
    assert not reading_threads()


def test_what_cannot_be_opened():
    @contextmanager
    def open_parts():
        raise OSError("gone")
        yield

    with pytest.raises(OSError, match="gone"):
        list(in_order(3, open_parts, lambda _: 1, threads=2, ahead_bytes=10))
    assert not reading_threads()
