"""What happened in a run: typed events, one JSON line each, in a file that only grows."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from streamcurate.errors import RunError
from streamcurate.files import disk_errors

EVENTS_NAME = "events.jsonl"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Event:
    """Something that happened. ``time`` is UTC in ISO 8601; levels and iterations count from 1, steps from 0."""

    time: str = field(default_factory=_now, kw_only=True)


@dataclass(frozen=True)
class RunStarted(Event):
    """A run began in an empty directory, led from ``machine``."""

    engine: str
    store: str
    machine: str = ""


@dataclass(frozen=True)
class Resumed(Event):
    """A run goes on after a stop or a kill, with what was kept up to here."""

    engine: str
    level: int
    step: int | None = None
    iteration: int | None = None
    machine: str = ""


@dataclass(frozen=True)
class LevelPlanned(Event):
    """What is to be done for a level; noted for each of them whenever work on the run begins, the finished ones too.

    ``points`` of ``dims`` coordinates go into ``clusters``, each of which becomes up to ``splits``; the first fit and
    ``steps`` resampling fits on up to ``rows_per_cluster`` points of each cluster take at most ``iterations`` passes
    each, and stop where one lowers the inertia by less than the share ``tolerance``.
    """

    level: int
    levels: int
    points: int
    dims: int
    clusters: int
    iterations: int
    splits: int = 1
    steps: int = 0
    rows_per_cluster: int = 0
    tolerance: float = 0.0


@dataclass(frozen=True)
class LevelStarted(Event):
    """Work on a level began, or goes on."""

    level: int


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage (statistics, seeding, fit, labels, ...) began."""

    stage: str
    level: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class StageFinished(Event):
    """A stage ended after ``seconds``, having read ``rows`` rows."""

    stage: str
    level: int | None = None
    step: int | None = None
    seconds: float = 0.0
    rows: int = 0


@dataclass(frozen=True)
class PassAdvanced(Event):
    """Where a pass has come to: ``done`` of its ``rows``, of ``bytes``, after ``seconds``.

    Noted now and then; never of a pass that is over within a second.
    """

    name: str
    level: int
    done: int
    rows: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class PassFinished(Event):
    """A pass over ``rows`` rows ended.

    ``tasks`` were handed to workers, which spent ``busy_seconds`` on them all together; none where one process did it.
    """

    name: str
    level: int
    rows: int
    bytes: int
    seconds: float
    tasks: int = 0
    busy_seconds: float = 0.0


@dataclass(frozen=True)
class Seeded(Event):
    """The first centroids of a fit were chosen."""

    level: int
    step: int
    method: str
    clusters: int
    seconds: float


@dataclass(frozen=True)
class IterationFinished(Event):
    """One Lloyd pass over ``points`` ended. ``inertia`` is that of the centroids it began with.

    ``moved`` points changed their cluster since the pass before; None in the first pass, and in the first after a stop.
    """

    level: int
    step: int
    iteration: int
    inertia: float
    seconds: float
    refilled: int = 0
    points: int = 0
    moved: int | None = None


@dataclass(frozen=True)
class LevelFinished(Event):
    """A level is at rest in the tree."""

    level: int
    clusters: int
    rows: int
    inertia: float
    empty: int
    digest: str


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know, in words."""

    text: str
    level: int | None = None


@dataclass(frozen=True)
class Interrupted(Event):
    """The run stopped before its end, and can be resumed."""

    reason: str


@dataclass(frozen=True)
class RunFinished(Event):
    """The tree is complete."""

    digest: str
    seconds: float


def _kind(event: type[Event]) -> str:
    """``IterationFinished`` is ``iteration-finished`` in the file."""
    return re.sub(r"(?<=.)([A-Z])", r"-\1", event.__name__).lower()


_KINDS = {_kind(event): event for event in Event.__subclasses__()}


class EventLog:
    """The event file of a run, open for appending.

    A line is one write, so that a kill leaves at most one torn line, at the end; opening cuts it off. Threads may
    append side by side. The log tells what happened; the manifest, not the log, decides what is finished.

    Parameters
    ----------
    path : path
        ``events.jsonl``; made where absent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with disk_errors(self.path):
            self._descriptor: int | None = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
        _cut_torn_tail(self._descriptor)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, event: Event) -> None:
        """Add one event.

        Raises
        ------
        DiskFullError
            The device is full; the log ends as before.
        """
        record = {"event": _kind(type(event)), **dataclasses.asdict(event)}
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with self._lock, disk_errors(self.path):
            if self._descriptor is None:
                raise ValueError(f"{self.path}: the log is closed")
            before = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
            except OSError:
                os.ftruncate(self._descriptor, before)
                raise

    def close(self) -> None:
        """Flush to the device and close. Once is enough; more does no harm."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


def read_events(path: str | os.PathLike[str], unknown: Literal["refuse", "skip"] = "refuse") -> list[Event]:
    """The events of a log, oldest first. A torn last line, left by a kill, is no event.

    Parameters
    ----------
    path : path
    unknown : "refuse" or "skip"
        What to do about events and fields of another version of streamcurate.

    Raises
    ------
    RunError
        The file is missing, or a line other than the last is unreadable; the message names it.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; give the {EVENTS_NAME} of a run directory") from None
    # What follows the last newline is nothing, or torn.
    lines.pop()
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(_decode(line))
        except (ValueError, TypeError, KeyError) as error:
            if unknown == "skip" and _is_record(line):
                events += [event] if (event := decode_known(line)) is not None else []
                continue
            if number == len(lines) and not _is_record(line):
                break
            raise RunError(
                f"{path}: line {number} is no event of this version ({error}); "
                "if the file was edited, restore it; the run's results do not depend on it"
            ) from error
    return events


def _decode(line: bytes) -> Event:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise TypeError("not keys with values")
    kind = record.pop("event", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown event {kind!r}")
    event: Event = _KINDS[kind](**record)
    return event


def decode_known(line: bytes) -> Event | None:
    """What this version knows of a line: an event, without fields it has not heard of; None where there is none."""
    try:
        record = json.loads(line)
        kind = _KINDS[record.pop("event")]
        known = {one.name for one in dataclasses.fields(kind)}
        event: Event = kind(**{name: value for name, value in record.items() if name in known})
        datetime.fromisoformat(event.time)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return event


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _cut_torn_tail(descriptor: int) -> None:
    """Cut what follows the last complete line, and that line as well where a power cut left no JSON in it."""
    end = os.fstat(descriptor).st_size
    whole = _line_start(descriptor, end)
    start = _line_start(descriptor, whole - 1) if whole else 0
    if whole and not _is_record(os.pread(descriptor, whole - start, start)):
        whole = start
    if whole != end:
        os.ftruncate(descriptor, whole)


def _line_start(descriptor: int, end: int) -> int:
    """Where the line that holds the byte before ``end`` begins: after the last newline before ``end``."""
    step = 1 << 16
    while end > 0:
        start = max(0, end - step)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
