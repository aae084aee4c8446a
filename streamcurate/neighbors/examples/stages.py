"""Many passes told of as one stage: whoever watches sees how far the whole is, and not each part anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamcurate.streaming import ProgressListener


class Stages:
    """A listener that passes on what it hears, but for stages inside one that was announced whole.

    Parameters
    ----------
    listener : ProgressListener
    """

    def __init__(self, listener: ProgressListener) -> None:
        self._listener = listener
        self._inside = False
        self._rows = 0

    @contextmanager
    def one(self, name: str, rows: int) -> Iterator[None]:
        """All passes inside are one stage over ``rows`` rows."""
        self._listener.started(name, rows)
        self._inside, self._rows = True, 0
        try:
            yield
        finally:
            self._inside = False
            self._listener.finished()

    def reached(self, rows: int) -> None:
        """So many rows of the stage are done, though no pass may have gone through them: they were kept."""
        if rows > self._rows:
            self.advanced(rows - self._rows, 0)

    def started(self, name: str, rows: int) -> None:
        """A pass begins."""
        if not self._inside:
            self._listener.started(name, rows)

    def advanced(self, rows: int, bytes: int) -> None:
        """So many more rows, of so many bytes, are done."""
        self._rows += rows
        self._listener.advanced(rows, bytes)

    def finished(self) -> None:
        """The pass has ended."""
        if not self._inside:
            self._listener.finished()

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._listener.note(text)
