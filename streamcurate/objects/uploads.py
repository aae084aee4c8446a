"""Writing objects that take more than one request: they appear when they are complete, or not at all."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import TypeVar

from streamcurate.errors import ObjectError
from streamcurate.objects.client import (
    PassingError,
    Status,
    failure,
    library,
    of_bucket,
    open_store,
    patience,
    pause,
    refuse_final,
    said,
    status,
    tried,
)
from streamcurate.objects.urls import is_web

# S3 takes 10,000 parts: shards of up to 80 GB.
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 2
_KEPT_PARTS = 2
# Parts on their way, the one that fills and is copied, what waits to be handed over, and the first ones.
UPLOAD_BYTES = (_PARTS_AT_ONCE + 3 + _KEPT_PARTS) * _PART_BYTES
_MADE = TypeVar("_MADE")


def putting(put: Callable[[], _MADE]) -> _MADE:
    """A put; one that finds its own parts gone, because the answer that they were joined was lost, may pass."""
    try:
        return put()
    except FileNotFoundError as error:
        if of_bucket(error):
            raise
        raise PassingError(said(error)) from error


class Upload:
    """An object that comes piece by piece: it appears when it is complete, or not at all.

    Goes up in parts, of which a few are in memory (``UPLOAD_BYTES``); a part that fails is sent again. Use as a context
    manager: left by an error, the parts that were sent are removed again.

    Parameters
    ----------
    url : str
    """

    def __init__(self, url: str) -> None:
        if is_web(url):
            raise ObjectError(f"{url}: a web server cannot be written to; use an object store")
        self.url = url
        self._buffer = bytearray()
        # The first parts, while there are no others: a stream that has gone on cannot begin again.
        self._first: list[bytes] = []
        self._size = 0
        self._before: Status | None = None
        self._sending: _Sending | None = None
        self._ended = False
        self._failures, self._taken_at = 0, time.monotonic()

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes.

        Raises
        ------
        ObjectError
            The store no longer takes them.
        """
        view = memoryview(data).cast("B")
        while len(view):
            taken = view[: _PART_BYTES - len(self._buffer)]
            self._buffer += taken
            view = view[len(taken) :]
            if len(self._buffer) == _PART_BYTES:
                self._hand()

    def close(self) -> None:
        """Send what is left; the object is there afterwards.

        Raises
        ------
        ObjectError
            The store does not take it; nothing is there.
        """
        if self._ended:
            return
        self._ended = True
        if self._sending is None:  # short enough for a single request
            store, key = open_store(self.url, len(self._buffer))
            data = bytes(self._buffer)
            tried(self.url, lambda: putting(lambda: library().put(store, key, data, use_multipart=False)))
            return
        if self._buffer:
            self._hand()
        while (failed := self._sending.end(None)) is not None:
            if self._is_there():
                return
            self._again(failed)

    def abort(self) -> None:
        """Leave nothing of what was sent."""
        self._ended, self._buffer = True, bytearray()
        if self._sending is not None:
            self._sending.end(_AbortedError())

    def _hand(self) -> None:
        piece, self._buffer = bytes(self._buffer), bytearray()
        if self._sending is None:
            self._before = status(self.url)
            self._sending = _Sending(self.url)
        few = self._size < _KEPT_PARTS * _PART_BYTES and len(self._first) * _PART_BYTES == self._size
        self._first = [*self._first, piece] if few else []
        self._size += len(piece)
        if self._sending.hand(piece):
            self._taken_at = time.monotonic()
        else:
            self._again(self._sending.end(_AbortedError()))

    def _again(self, failed: BaseException | None) -> None:
        """Begin anew with the first parts, where there were no others; else, or when it takes too long, an error."""
        while True:
            error = failed or OSError("the upload ended early")
            self._failures += 1
            seconds = time.monotonic() - self._taken_at
            try:
                if not isinstance(error, FileNotFoundError) or of_bucket(error):
                    refuse_final(self.url, error)
                if not self._first or (self._failures > 2 and seconds >= patience()):
                    raise failure(self.url, error, seconds) from error
                pause(self._failures)
            except BaseException:
                self._ended = True
                raise
            self._sending = _Sending(self.url)
            if all(self._sending.hand(piece) for piece in self._first):
                return
            failed = self._sending.end(_AbortedError())

    def _is_there(self) -> bool:
        """Whether the object was completed all the same: the answer that says so may be what was lost."""
        now = status(self.url)
        return now is not None and now.size == self._size and now != self._before


class _Sending:
    """The thread in which the library takes parts and sends them."""

    def __init__(self, url: str) -> None:
        self._store, self._key = open_store(url, _PART_BYTES, once=True)
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=1)
        self._failed: BaseException | None = None
        self._thread = Thread(target=self._send, name="streamcurate-upload", daemon=True)
        self._thread.start()

    def hand(self, piece: bytes | BaseException | None) -> bool:
        """Hand over a part, the end, or an error to give up with; False where nobody takes it any more."""
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._pieces.put(piece, timeout=0.1)
                return True
        return False

    def end(self, last: BaseException | None) -> BaseException | None:
        """End the upload, and say what has failed."""
        self.hand(last)
        self._thread.join()
        return self._failed

    def _send(self) -> None:
        options = {"use_multipart": True, "chunk_size": _PART_BYTES, "max_concurrency": _PARTS_AT_ONCE}
        try:
            library().put(self._store, self._key, self._parts(), **options)
        except BaseException as error:  # for whoever writes
            self._failed = error

    def _parts(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


class _AbortedError(Exception):
    """Ends an upload that is not to be completed."""
