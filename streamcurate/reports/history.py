"""What the log of a run tells: how long each level took, and how its fits converged."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from streamcurate.errors import RunError
from streamcurate.objects import contents, join
from streamcurate.runs.events import (
    EVENTS_NAME,
    Event,
    IterationFinished,
    LevelFinished,
    PassFinished,
    Resumed,
    RunFinished,
    RunStarted,
    Seeded,
    read_events,
)


@dataclass(frozen=True)
class FitHistory:
    """The Lloyd passes of one fit.

    Attributes
    ----------
    step : int
        0 for the first fit, 1 and so on for the resampling steps.
    seeding : str or None
        How it began.
    inertias : tuple of float
        Of the centroids each pass began with.
    refilled : int
        Empty clusters that were given a point.
    """

    step: int
    seeding: str | None
    inertias: tuple[float, ...]
    refilled: int


@dataclass(frozen=True)
class LevelHistory:
    """How a level came about.

    Attributes
    ----------
    level : int
    seconds : float
        Work on it, without the time in which the run stood still.
    seeding_seconds, lloyd_seconds : float
    bytes : int
        Read by the passes that were long enough to be noted.
    tasks : int
        Handed to workers.
    fits : tuple of FitHistory
    """

    level: int
    seconds: float
    seeding_seconds: float
    lloyd_seconds: float
    bytes: int
    tasks: int
    fits: tuple[FitHistory, ...]


@dataclass(frozen=True)
class History:
    """The log of a run.

    Attributes
    ----------
    levels : tuple of LevelHistory
        Those the log tells of.
    engines : tuple of str
        Versions of streamcurate that worked on it.
    machines : tuple of str
        From which it was led.
    began, ended : str or None
        UTC in ISO 8601.
    resumed : int
        How often it was gone on with.
    seconds : float
        Work on all of it.
    tasks : int
        Handed to workers.
    trouble : str or None
        Why there is no log, or why it cannot be read.
    """

    levels: tuple[LevelHistory, ...] = ()
    engines: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    began: str | None = None
    ended: str | None = None
    resumed: int = 0
    seconds: float = 0.0
    tasks: int = 0
    trouble: str | None = None


def read_history(run: str) -> History:
    """Read the log of a run, at a path or a URL. A run without one has a history that says so."""
    content = contents(join(run, EVENTS_NAME))
    if content is None:
        return History(trouble=f"{EVENTS_NAME} is not there")
    with tempfile.TemporaryDirectory(prefix="streamcurate-report-") as folder:
        path = Path(folder) / EVENTS_NAME
        path.write_bytes(content)
        try:
            events = read_events(path)
        except RunError as error:
            return History(trouble=str(error).replace(f"{folder}/", ""))
    return history_of(events)


def history_of(events: list[Event]) -> History:
    """Put the events of a log together."""
    levels = []
    begun = [event for event in events if isinstance(event, (RunStarted, Resumed))]
    engines = dict.fromkeys(event.engine for event in begun)
    machines = dict.fromkeys(event.machine for event in begun if event.machine)
    now: dict[int, list[Event]] = {}
    spent: dict[int, float] = {}
    level, before = 1, None
    for event in events:
        moment = datetime.fromisoformat(event.time)
        if isinstance(event, (RunStarted, Resumed)):
            # What lies between a stop and this was no work.
            level = event.level if isinstance(event, Resumed) else 1
        elif before is not None:
            spent[level] = spent.get(level, 0.0) + max((moment - before).total_seconds(), 0.0)
        before = moment
        now.setdefault(level, []).append(event)
        if isinstance(event, LevelFinished):
            level = event.level + 1
    finished = {event.level for event in events if isinstance(event, LevelFinished)}
    for number in sorted(finished):
        levels.append(_level(number, spent.get(number, 0.0), events))
    ends = [event.time for event in events if isinstance(event, RunFinished)]
    return History(
        levels=tuple(levels),
        engines=tuple(engines),
        machines=tuple(machines),
        began=events[0].time if events else None,
        ended=ends[-1] if ends else None,
        resumed=sum(isinstance(event, Resumed) for event in events),
        seconds=sum(spent.values()),
        tasks=sum(event.tasks for event in events if isinstance(event, PassFinished)),
        trouble=None if events else f"{EVENTS_NAME} is empty",
    )


def _level(number: int, seconds: float, events: list[Event]) -> LevelHistory:
    seeded, passes, iterations = [], [], dict[tuple[int, int], IterationFinished]()
    for event in events:
        if getattr(event, "level", None) != number:
            continue
        if isinstance(event, Seeded):
            seeded.append(event)
        elif isinstance(event, PassFinished):
            passes.append(event)
        elif isinstance(event, IterationFinished):
            # After a kill a pass may have been made again, with the same result.
            iterations[event.step, event.iteration] = event
    methods = {event.step: event.method for event in seeded}
    fits = []
    for step in sorted({step for step, _ in iterations}):
        own = [iterations[key] for key in sorted(iterations) if key[0] == step]
        inertias = tuple(event.inertia for event in own)
        fits.append(FitHistory(step, methods.get(step), inertias, sum(event.refilled for event in own)))
    return LevelHistory(
        level=number,
        seconds=seconds,
        seeding_seconds=sum(event.seconds for event in seeded),
        lloyd_seconds=sum(event.seconds for event in iterations.values()),
        bytes=sum(event.bytes for event in passes),
        tasks=sum(event.tasks for event in passes),
        fits=tuple(fits),
    )
