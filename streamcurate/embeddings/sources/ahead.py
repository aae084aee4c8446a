"""Parts of a source decoded side by side, ahead of whoever takes them, and handed out in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Read = Callable[[int], Iterator[T]]


def in_order(
    parts: int,
    open_parts: Callable[[], AbstractContextManager[Read[T]]],
    size: Callable[[T], int],
    *,
    threads: int,
    ahead_bytes: int,
) -> Iterator[T]:
    """Everything in parts 0, 1, ..., in order, decoded by several threads.

    Parameters
    ----------
    parts : int
        Number of parts.
    open_parts : callable
        Opens what one thread reads parts from: a context that gives ``read(part) -> iterator``.
    size : callable
        Bytes that one item holds.
    threads : int
        Parts under way at once.
    ahead_bytes : int
        Most bytes that wait to be taken. Beside them each thread holds the item it is about to add, and one item of
        the part that is being handed out waits whatever its size, so that things always go on.

    Raises
    ------
    Exception
        What a part raised, after all that comes before it.
    """
    shared = _Shared[T](parts, size, ahead_bytes)
    workers = [
        threading.Thread(target=shared.work, args=(open_parts,), name=f"reading-ahead-{number}", daemon=True)
        for number in range(min(threads, parts))
    ]
    try:
        for worker in workers:
            worker.start()
        for part in range(parts):
            yield from shared.take(part)
    finally:
        shared.stop()
        for worker in workers:
            if worker.ident is not None:
                worker.join()


@dataclass
class _Part(Generic[T]):
    """What is there of one part and has not been taken."""

    items: deque[T] = field(default_factory=deque)
    ended: bool = False
    error: BaseException | None = None


class _Shared(Generic[T]):
    """What the threads and the taker have in common; all of it under one lock."""

    def __init__(self, parts: int, size: Callable[[T], int], ahead_bytes: int) -> None:
        self._count, self._size, self._most = parts, size, ahead_bytes
        self._changed = threading.Condition()
        # Only parts begun and not yet taken to their end.
        self._parts: dict[int, _Part[T]] = {}
        self._next, self._head, self._held = 0, 0, 0
        self._stopped = False

    def work(self, open_parts: Callable[[], AbstractContextManager[Read[T]]]) -> None:
        """Decode one part after the other until none is left."""
        part = self._begin()
        try:
            if part is None:
                return
            with open_parts() as read:
                while part is not None:
                    for item in read(part):
                        if not self._add(part, item):
                            return
                    self._end(part, None)
                    part = self._begin()
        except BaseException as error:  # handed to the taker, whatever it is
            if part is not None:
                self._end(part, error)

    def take(self, part: int) -> Iterator[T]:
        """All items of the part that comes next."""
        while True:
            with self._changed:
                self._head = part
                self._changed.notify_all()
                self._changed.wait_for(lambda: part in self._parts and self._ready(self._parts[part]))
                waiting = self._parts[part]
                if not waiting.items:
                    del self._parts[part]
                    if waiting.error is not None:
                        raise waiting.error
                    return
                item = waiting.items.popleft()
                self._held -= self._size(item)
                self._changed.notify_all()
            yield item
            del item

    def stop(self) -> None:
        """Have the threads end after the item they are at."""
        with self._changed:
            self._stopped = True
            self._parts.clear()
            self._changed.notify_all()

    @staticmethod
    def _ready(part: _Part[T]) -> bool:
        return bool(part.items) or part.ended

    def _begin(self) -> int | None:
        """The next part that nobody has begun."""
        with self._changed:
            if self._stopped or self._next == self._count:
                return None
            part, self._next = self._next, self._next + 1
            self._parts[part] = _Part()
            return part

    def _add(self, part: int, item: T) -> bool:
        """Add an item once there is room; False if nobody wants it any more."""
        size = self._size(item)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._fits(part, size))
            if self._stopped:
                return False
            self._parts[part].items.append(item)
            self._held += size
            self._changed.notify_all()
            return True

    def _fits(self, part: int, size: int) -> bool:
        if self._held + size <= self._most:
            return True
        # Later parts may have filled all the room: the one that is waited for goes on, one item at a time.
        return part == self._head and not self._parts[part].items

    def _end(self, part: int, error: BaseException | None) -> None:
        with self._changed:
            if not self._stopped:
                self._parts[part].ended, self._parts[part].error = True, error
                self._changed.notify_all()
