"""What the log of a run tells: how long each level took, and how its fits converged."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from streamcurate.errors import RunError
from streamcurate.objects import contents, join
from streamcurate.runs.events import EVENTS_NAME, Event, read_events
from streamcurate.runs.progress import LevelProgress, RunProgress, moved_share


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
    moved : tuple of (float or None)
        Share of the points that changed their cluster since the pass before; None where the log does not tell.
    """

    step: int
    seeding: str | None
    inertias: tuple[float, ...]
    refilled: int
    moved: tuple[float | None, ...] = ()


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
            # What a newer version noted beside is no reason to tell nothing.
            events = read_events(path, unknown="skip")
        except RunError as error:
            return History(trouble=str(error).replace(f"{folder}/", ""))
    return history_of(events)


def history_of(events: list[Event]) -> History:
    """Put the events of a log together."""
    run = RunProgress.of(events)
    return History(
        levels=tuple(
            _level(level, run.spent.get(number, 0.0))
            for number, level in sorted(run.levels.items())
            if level.finished is not None
        ),
        engines=tuple(run.engines),
        machines=tuple(run.machines),
        began=run.began,
        ended=None if run.ended is None else run.ended.time,
        resumed=run.resumed,
        seconds=run.seconds,
        tasks=run.tasks,
        trouble=None if events else f"{EVENTS_NAME} tells of nothing",
    )


def _level(level: LevelProgress, seconds: float) -> LevelHistory:
    fits = []
    for step in sorted(level.fits):
        own = level.fits[step].iterations
        if own:
            inertias, moved = tuple(event.inertia for event in own), tuple(moved_share(event) for event in own)
            refilled = sum(event.refilled for event in own)
            fits.append(FitHistory(step, level.fits[step].seeding, inertias, refilled, moved))
    return LevelHistory(
        level=level.number,
        seconds=seconds,
        seeding_seconds=level.seeding_seconds,
        lloyd_seconds=sum(event.seconds for fit in level.fits.values() for event in fit.iterations),
        bytes=level.bytes,
        tasks=level.tasks,
        fits=tuple(fits),
    )
