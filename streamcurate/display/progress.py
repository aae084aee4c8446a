"""What listens to the work, and shows it where it is watched."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol, TextIO

from streamcurate.display.lines import Reading, State, finished_words, said
from streamcurate.display.notebook import Notebook, in_notebook
from streamcurate.display.plain import SECONDS_BETWEEN_LINES, PlainLines
from streamcurate.display.terminal import Terminal, is_terminal
from streamcurate.runs.events import Event, Interrupted, LevelFinished, Resumed, RunFinished, RunStarted
from streamcurate.runs.progress import RunProgress


class Screen(Protocol):
    """A place where progress is shown."""

    # Whether finished levels stand in a table, and need no line.
    has_table: bool

    def begins(self) -> None:
        """A pass has begun."""

    def changed(self) -> None:
        """There is something new to show."""

    def ends(self) -> None:
        """The pass under way ends; it is still in the state."""

    def idle(self) -> None:
        """It is gone from the state."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Show no more, for now."""


class Progress:
    """Shows what is being done, how fast, and when it will be done: ``progress=sc.Progress()`` in any function.

    On a terminal live lines show level, step and pass of a run, with rates, the time left, inertia and the share of
    points that moved. In a notebook the same is an output of the cell, and a table of the levels stays. Elsewhere, as
    in the log of a job, there is a line now and then, and short work prints next to nothing. Threads may report side by
    side.

    Parameters
    ----------
    stream : text file, optional
        Standard error by default, so that standard output holds results only; in a notebook the cell's output.
    quiet : bool
        Show nothing at all.
    interval : float
        Fewest seconds between plain lines. Of long work they become rarer, up to one in five minutes.
    clock : callable
        Seconds that only grow.

    Examples
    --------
    >>> import numpy as np
    >>> import streamcurate as sc
    >>> rows = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    >>> tree = sc.cluster(rows, levels="20,4", progress=sc.Progress(quiet=True))
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        interval: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._state = State(clock)
        # Reentrant: a signal may end the work while this very thread reports.
        self._lock = threading.RLock()
        place = sys.stderr if stream is None else stream
        self._screen: Screen
        if not quiet and stream is None and in_notebook():
            self._screen = Notebook(self._state)
        elif not quiet and is_terminal(place):
            self._screen = Terminal(place, self._state, self._showing)
        else:
            self._screen = PlainLines(place, self._state, self._showing, interval)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def happened(self, event: Event) -> None:
        """Something happened in a run of this process."""
        with self._showing() as shown:
            if shown:
                if isinstance(event, (RunStarted, Resumed)):
                    self._state.run = None  # what is heard from here on is of this run
                self._take(event)

    def followed(self, event: Event) -> None:
        """Something happened in a run that another process makes."""
        with self._showing() as shown:
            if shown:
                self._take(event)

    def waited(self) -> None:
        """Time has passed without anything that happened, which alone may be worth showing."""
        with self._showing() as shown:
            if shown and self._state.under_way:
                self._screen.changed()

    def caught_up(self, run: RunProgress, ago: float) -> None:
        """Take over what happened in a run before anybody watched, the last of it so many seconds ago."""
        with self._showing() as shown:
            if shown:
                self._state.take_over(run, ago)
                for level in sorted(run.levels):
                    if run.levels[level].finished is not None and not self._screen.has_table:
                        self._screen.line(finished_words(run.levels[level], run.spent.get(level)))
                for text in run.warnings:
                    self._screen.line(f"warning: {text}")
                self._screen.changed()

    def started(self, name: str, rows: int) -> None:
        """A pass begins that will read ``rows`` rows. A pass still open ends with it."""
        with self._showing() as shown:
            if shown:
                self.finished()
                self._state.reading = Reading(name, rows, self._state.clock())
                self._screen.begins()

    def advanced(self, rows: int, bytes: int) -> None:
        """So many more rows and bytes of the pass have been read."""
        with self._showing() as shown:
            if shown and (reading := self._state.reading) is not None:
                reading.done += rows
                reading.bytes += bytes
                self._screen.changed()

    def finished(self) -> None:
        """The pass has ended. Once is enough; more does no harm."""
        with self._showing() as shown:
            if shown and self._state.reading is not None:
                self._screen.ends()
                self._state.reading = None
                self._screen.idle()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        with self._showing() as shown:
            if shown:
                self._screen.line(text)

    def close(self) -> None:
        """Give the terminal back. Once is enough; more does no harm."""
        with self._showing() as shown:
            if shown:
                self._state.reading = None
                self._screen.close()
                self._state.run = None

    def _take(self, event: Event) -> None:
        self._state.heard(event)
        run = self._state.run
        assert run is not None
        if (text := said(event, run)) is not None and not (isinstance(event, LevelFinished) and self._screen.has_table):
            self._screen.line(text)
        if isinstance(event, (RunFinished, Interrupted)):
            self._screen.close()
            self._state.run = None
        else:
            self._screen.changed()

    @contextmanager
    def _showing(self) -> Iterator[bool]:
        """One report at a time, and whether it is shown. Trouble with showing ends the reports, not the work."""
        if self._quiet:
            yield False
            return
        with self._lock:
            try:
                yield True
            except Exception as error:
                self._quiet = True
                # A terminal that has gone needs no word; nor is there anybody to hear it.
                with suppress(Exception):
                    self._screen.close()
                with suppress(Exception):
                    if not isinstance(error, (OSError, ValueError)):
                        text = f"progress is not shown any more ({type(error).__name__}: {error}); the work goes on"
                        print(text, file=sys.stderr, flush=True)
