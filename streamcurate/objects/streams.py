"""Reading objects as streams of bytes: ranges into memory that is there already, and files."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import local
from typing import Any, BinaryIO, TypeVar

from streamcurate.objects.client import (
    ChangedError,
    LengthError,
    Status,
    absent,
    library,
    open_store,
    status,
    status_of,
    tried,
)
from streamcurate.objects.urls import is_url

# A range of this many bytes a request: enough for a store to be as fast as it can, little enough to be sent again.
PIECE_BYTES = 8 << 20
_AT_ONCE = 8
# What a request hands over at a time.
_HANDED_BYTES = 1 << 20
# What requests under way hold beside the memory they fill, all of a process together; measured, see fill().
READ_OVERHEAD_BYTES = 4 * _AT_ONCE * _HANDED_BYTES
_FILE_BUFFER_BYTES = 1 << 20
_OURS = local()
_GIVEN = TypeVar("_GIVEN")
_MADE = TypeVar("_MADE")


def fill(url: str, pieces: Sequence[tuple[int, memoryview]], length: int | None = None) -> Status:
    """Read ranges of one object into memory that is there already, several requests at a time.

    Parameters
    ----------
    url : str
    pieces : sequence of (int, memoryview)
        Where each begins in the object, and the bytes to fill. At least one, none of them empty.
    length : int, optional
        What the whole object must hold.

    Returns
    -------
    Status
        Of the object that all of them came from.

    Raises
    ------
    AbsentError
        There is none.
    LengthError
        It ends before a range does, or is not of the length it must have.
    ChangedError
        It was written anew meanwhile.
    """
    spans = [
        (start + offset, view[offset : offset + PIECE_BYTES])
        for start, view in pieces
        for offset in range(0, len(view), PIECE_BYTES)
    ]
    if len(spans) == 1:
        return _span(url, *spans[0], length)
    found: list[Status] = []
    for one in side_by_side(lambda span: _span(url, *span, length), spans):
        if found and (one.state, one.size) != (found[0].state, found[0].size):
            raise ChangedError(f"{url}: was written anew while it was being read; give the same command again")
        found = found or [one]
    return found[0]


def _span(url: str, start: int, view: memoryview, length: int | None) -> Status:
    """One range by one request; a request that breaks off goes on behind what has come."""
    store, key = open_store(url, len(view), reading=True)
    done = 0
    seen: Status | None = None

    def attempt() -> Status:
        nonlocal done, seen
        if done == len(view):  # it broke off behind the last byte, and stores refuse to send none
            done = 0
        got = library().get(store, key, options={"range": (start + done, start + len(view))})
        now = status_of(url, got.meta)
        if length is not None and now.size != length:
            raise LengthError(f"{url}: holds {now.size:,} bytes instead of {length:,}; restore it", now.size)
        if now.size < start + len(view):
            raise LengthError(
                f"{url}: holds {now.size:,} bytes, and {start + len(view):,} were to be read; restore it", now.size
            )
        if seen is not None and seen.state != now.state:
            done, seen = 0, now  # the object is another one: what has come is worth nothing
            raise OSError("it was written anew meanwhile")
        seen = now
        if tuple(got.range) != (start + done, start + len(view)):
            raise OSError(f"bytes {got.range} came instead of {(start + done, start + len(view))}")
        for data in got.stream(min_chunk_size=_HANDED_BYTES):
            if done + len(data) > len(view):
                raise OSError("more bytes came than were asked for")
            view[done : done + len(data)] = data
            done += len(data)
        if done < len(view):
            raise OSError(f"{done:,} bytes came instead of {len(view):,}")
        return now

    return tried(url, attempt)


def side_by_side(work: Callable[[_GIVEN], _MADE], items: Iterable[_GIVEN]) -> Iterator[_MADE]:
    """What ``work`` makes of each item, in their order, by a few threads; one of these does its own items by itself."""
    if getattr(_OURS, "inside", False):  # all threads could come to wait for each other
        yield from map(work, items)
        return
    pool, under_way = _pool(os.getpid()), deque[Future[_MADE]]()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) >= 2 * _AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        # Nothing of ours fills memory that whoever asked for it has given up.
        for future in under_way:
            if not future.cancel():
                future.exception()


@lru_cache(maxsize=1)
def _pool(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        _AT_ONCE, thread_name_prefix="streamcurate-objects", initializer=lambda: setattr(_OURS, "inside", True)
    )


# -- files to read -----------------------------------------------------------------------------------------------------


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, or an object, for reading; seekable and buffered."""
    place = os.fspath(path)
    if not is_url(place):
        return open(place, "rb")
    return io.BufferedReader(_ObjectFile(place), _FILE_BUFFER_BYTES)


class _ObjectFile(io.RawIOBase):
    """An object as a file; every read is a request, so put a buffer before it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.name = url
        found = status(url)
        if found is None:
            raise absent(url)
        self._status = found
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._status.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        count = min(len(target), max(self._status.size - self._position, 0))
        if count:
            now = fill(self.name, [(self._position, target[:count])], self._status.size)
            if now.state != self._status.state:
                raise ChangedError(f"{self.name}: was written anew while it was being read; give the command again")
            self._position += count
        return count
