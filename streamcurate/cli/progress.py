"""Progress for people: one live line on a terminal, a plain line now and then everywhere else.

It has the methods of the ``ProgressListener`` that the lower rooms report to.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import rich.progress

# Plain lines end up in logs, where more of them would bury the rest.
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows what is being read, how fast, and when it will be done. Threads may report side by side.

    Parameters
    ----------
    stream : text file, optional
        Standard error by default, so that standard output holds results only.
    quiet : bool
        Show nothing at all.
    interval : float
        Fewest seconds between plain lines.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        interval: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._interval = interval
        self._clock = clock
        self._live = not quiet and self._stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._display: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        # Reentrant: a signal may end the stage while this very thread reports.
        self._lock = threading.RLock()
        self._name: str | None = None
        self._total = self._rows = self._bytes = 0
        self._began = self._last_line = clock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def started(self, name: str, rows: int) -> None:
        """A stage begins that will read ``rows`` rows. A stage still open ends with it."""
        if self._quiet:
            return
        with self._showing():
            self.finished()
            self._name, self._total, self._rows, self._bytes = name, rows, 0, 0
            self._began = self._clock()
            if self._live:
                self._task = self._show().add_task(name, total=max(rows, 1), detail="")

    def advanced(self, rows: int, bytes: int) -> None:
        """So many more rows and bytes of the stage have been read."""
        if self._quiet:
            return
        with self._showing():
            self._rows += rows
            self._bytes += bytes
            if self._name is None:
                return
            if self._display is not None and self._task is not None:
                self._display.update(self._task, advance=rows, detail=self._detail())
            else:
                self._now_and_then()

    def finished(self) -> None:
        """The stage has ended. Once is enough; more does no harm."""
        if self._quiet:
            return
        with self._showing():
            if self._name is None:
                return
            if self._display is not None and self._task is not None:
                self._display.remove_task(self._task)
                # At once, so that what a command prints next does not share the line.
                self._display.refresh()
                self._task = None
            else:
                self._now_and_then()
            self._name = None

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if self._quiet:
            return
        with self._showing():
            if self._display is not None:
                self._display.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                self._line(text)

    def close(self) -> None:
        """Give the terminal back. Once is enough; more does no harm."""
        with self._showing():
            display, self._display, self._task, self._name = self._display, None, None, None
            if display is not None:
                display.stop()

    @contextmanager
    def _showing(self) -> Iterator[None]:
        """One report at a time. A terminal that has gone ends the reports, not the work."""
        with self._lock:
            try:
                yield
            except (OSError, ValueError):
                self._quiet = True

    def _now_and_then(self) -> None:
        now = self._clock()
        if now - self._last_line >= self._interval:
            self._last_line = now
            self._line(f"{self._name}: {self._rows:,} of {self._total:,} rows, {self._detail()}")

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _show(self) -> rich.progress.Progress:
        if self._display is None:
            import rich.console
            import rich.progress

            self._display = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(bar_width=16),
                rich.progress.TextColumn("{task.fields[detail]}", markup=False),
                console=rich.console.Console(file=self._stream, force_terminal=True),
                transient=True,
                # Results go to standard output, whatever is shown here.
                redirect_stdout=False,
            )
            self._display.start()
        return self._display

    def _detail(self) -> str:
        """Share, rates and time left, from the averages since the stage began."""
        share = f"{100 * self._rows // self._total if self._total else 100} %"
        seconds = self._clock() - self._began
        if seconds <= 0 or self._rows <= 0:
            return share
        rate = self._rows / seconds
        left = max(0.0, (self._total - self._rows) / rate)
        return f"{share}, {rate:,.0f} rows/s, {self._bytes / seconds / 1e9:,.3f} GB/s, {duration(left)} left"


def duration(seconds: float) -> str:
    """Seconds for people.

    Examples
    --------
    >>> duration(7.4), duration(95), duration(3 * 3600 + 120)
    ('7 s', '1 min 35 s', '3 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
