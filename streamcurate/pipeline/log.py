"""What a run tells while it is under way: its log, and through it whoever watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from streamcurate.errors import InputError
from streamcurate.runs import (
    Event,
    EventLog,
    Interrupted,
    LevelFinished,
    PassAdvanced,
    PassFinished,
    Resumed,
    Warned,
)
from streamcurate.runs.events import EVENTS_NAME
from streamcurate.streaming import EventListener, Executor, PassReport, ProgressListener

# Shorter passes come by the thousand and tell nothing.
_REPORTED_SECONDS = 0.1
# Where a pass has come to is noted so many seconds apart, or so large a share of what it has taken so far: of a pass
# that takes a day some two hundred times.
_ADVANCED_SECONDS, _ADVANCED_SHARE = 1.0, 0.05


@dataclass
class _UnderWay:
    """A pass that has begun; ``told`` is when it was last noted, ``told_done`` where it had come to then."""

    name: str
    rows: int
    began: float
    told: float
    done: int = 0
    bytes: int = 0
    told_done: int = -1


class RunLog:
    """The log of a run under way, and a ``ProgressListener`` for its executor. Threads may report side by side.

    An ``EventListener`` is handed each event once it is written. Any other listener hears of passes as they go, and of
    events what :func:`spoken` makes of them. What a listener raises ends the work.

    Parameters
    ----------
    log : EventLog
    listener : ProgressListener
    clock : callable
        Seconds that only grow.

    Attributes
    ----------
    level : int
        That passes belong to.
    """

    def __init__(self, log: EventLog, listener: ProgressListener, clock: Callable[[], float] = time.monotonic) -> None:
        self.level = 1
        self._log, self._listener, self._clock = log, listener, clock
        self._happened = listener.happened if isinstance(listener, EventListener) else None
        # Reentrant: a signal may end a pass while this very thread reports.
        self._lock = threading.RLock()
        # A pass may make others: those of one thread end in the order opposite to that in which they began.
        self._under_way: dict[int, list[_UnderWay]] = {}

    def emit(self, event: Event) -> None:
        """Note an event, and tell the listener."""
        with self._lock:  # whoever is handed events gets them in the order of the file
            self._log.append(event)
            if self._happened is not None:
                self._happened(event)
            elif (text := spoken(event)) is not None:
                self._listener.note(text)

    def took(self, report: PassReport) -> None:
        """Note what a pass took, unless it was short."""
        if report.seconds >= _REPORTED_SECONDS:
            self.emit(PassFinished(level=self.level, **asdict(report)))

    # -- the listener of the executor --------------------------------------------------------------------------------

    def started(self, name: str, rows: int) -> None:
        """A pass over ``rows`` rows begins."""
        now = self._clock()
        with self._lock:
            self._under_way.setdefault(threading.get_ident(), []).append(_UnderWay(name, rows, now, now))
        if self._happened is None:
            self._listener.started(name, rows)

    def advanced(self, rows: int, bytes: int) -> None:
        """So many more rows, of so many bytes, are done."""
        passes = self._under_way.get(threading.get_ident())
        if passes:
            now, own = self._clock(), passes[-1]
            own.done, own.bytes = own.done + rows, own.bytes + bytes
            if now - own.told >= max(_ADVANCED_SECONDS, _ADVANCED_SHARE * (now - own.began)):
                self._tell(own, now)
        if self._happened is None:
            self._listener.advanced(rows, bytes)

    def finished(self) -> None:
        """The pass has ended."""
        thread = threading.get_ident()
        passes = self._under_way.get(thread)
        if passes:
            own, now = passes.pop(), self._clock()
            if not passes:
                with self._lock:
                    del self._under_way[thread]
            # Where it has been noted, its end is too: not all of what is shown as a pass is reported as finished.
            if own.told_done not in (-1, own.done):
                self._tell(own, now)
        if self._happened is None:
            self._listener.finished()

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._listener.note(text)

    def _tell(self, own: _UnderWay, now: float) -> None:
        own.told, own.told_done = now, own.done
        self.emit(PassAdvanced(own.name, self.level, own.done, own.rows, own.bytes, now - own.began))


@contextmanager
def logged(run: Path, listener: ProgressListener, executor: Executor) -> Iterator[RunLog]:
    """The log of a run, to which the executor reports meanwhile; an error that ends the work is noted.

    Parameters
    ----------
    run : Path
        The run directory.
    listener : ProgressListener
    executor : Executor
        Tells of its passes.
    """
    before = executor.progress, executor.on_pass
    with EventLog(run / EVENTS_NAME) as file:
        log = RunLog(file, listener)
        executor.progress, executor.on_pass = log, log.took
        try:
            yield log
        except BaseException as error:
            with suppress(InputError):  # a full disk is told by the error itself
                log.emit(Interrupted(reason=type(error).__name__))
            raise
        finally:
            executor.progress, executor.on_pass = before


def spoken(event: Event) -> str | None:
    """What of an event is worth a line to a watching person."""
    if isinstance(event, Warned):
        return f"warning: {event.text}"
    if isinstance(event, LevelFinished):
        return (
            f"level {event.level}: {event.rows:,} points in {event.clusters:,} clusters, inertia {event.inertia:,.6g}"
            + (f", {event.empty:,} empty" if event.empty else "")
        )
    if isinstance(event, Resumed):
        return f"going on at level {event.level}"
    return None
