"""Where a run has come to, as its events tell: level, step and pass under way, and what came before.

One fold of the events, for the terminal, the notebook, the log and the report alike. It has no clock and reads no
files: times are those of the events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from streamcurate.runs.events import (
    Event,
    Interrupted,
    IterationFinished,
    LevelFinished,
    LevelPlanned,
    LevelStarted,
    PassAdvanced,
    PassFinished,
    Resumed,
    RunFinished,
    RunStarted,
    Seeded,
    StageFinished,
    StageStarted,
    Warned,
)

# Stages that follow one another in a level; others lie within them.
_OUTERMOST = {"statistics", "fit", "labels", "members"}
# The pass that chooses the points of a resampling step.
CHOICE = "resampling"


@dataclass
class FitProgress:
    """The first fit of a level, step 0, or one of its resampling steps.

    Attributes
    ----------
    step : int
    seeding : str or None
        How it began, once that is done.
    seeding_seconds : float
    passes : dict of int to IterationFinished
        Its Lloyd passes by their number. One that is made again after a kill takes the place of the first.
    latest : int or None
        Number of the last one; None where the fit goes on after a stop and none has been made since.
    finished : bool
    """

    step: int
    seeding: str | None = None
    seeding_seconds: float = 0.0
    passes: dict[int, IterationFinished] = field(default_factory=dict)
    latest: int | None = None
    finished: bool = False

    @property
    def iterations(self) -> list[IterationFinished]:
        """Its Lloyd passes, in order."""
        return [self.passes[number] for number in sorted(self.passes)]

    @property
    def last(self) -> IterationFinished | None:
        """The last Lloyd pass."""
        return self.passes[max(self.passes)] if self.passes else None

    @property
    def change(self) -> float | None:
        """By which share the last pass changed the inertia; below 0 where it fell."""
        if self.last is None or (before := self.passes.get(self.last.iteration - 1)) is None or not before.inertia:
            return None
        return self.last.inertia / before.inertia - 1


def moved_share(iteration: IterationFinished) -> float | None:
    """Share of the points that changed their cluster in a pass; None where it is not known."""
    if iteration.moved is None or not iteration.points:
        return None
    return iteration.moved / iteration.points


@dataclass
class LevelProgress:
    """A level.

    Attributes
    ----------
    number : int
    plan : LevelPlanned or None
        What is to be done; logs of earlier versions do not say.
    finished : LevelFinished or None
    fits : dict of int to FitProgress
        By their step.
    seeding_seconds : float
        Of all seedings, those made twice as well.
    bytes, tasks : int
        Of the passes that were long enough to be noted.
    noted : dict of str to PassFinished
        The last of those passes, by name.
    """

    number: int
    plan: LevelPlanned | None = None
    finished: LevelFinished | None = None
    fits: dict[int, FitProgress] = field(default_factory=dict)
    seeding_seconds: float = 0.0
    bytes: int = 0
    tasks: int = 0
    noted: dict[str, PassFinished] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """Lloyd passes of all its fits."""
        return sum(len(fit.passes) for fit in self.fits.values())

    @property
    def inertia(self) -> float | None:
        """Of the finished level, or of its last Lloyd pass."""
        if self.finished is not None:
            return self.finished.inertia
        last = self.fits[max(self.fits)].last if self.fits else None
        return None if last is None else last.inertia


class RunProgress:
    """The state of a run, event by event.

    Attributes
    ----------
    began : str or None
        When its log begins, UTC in ISO 8601.
    store : str or None
    engines, machines : list of str
        Versions of streamcurate that worked on it, and from where.
    resumed : int
        How often it was gone on with.
    ended : RunFinished or None
    interrupted : Interrupted or None
        Until it is gone on with.
    level : int
        The level under way.
    levels : dict of int to LevelProgress
        Those the log tells of.
    spent : dict of int to float
        Seconds of work on each level, without the time in which the run stood still.
    stages : list of StageStarted
        Those under way, the outermost first.
    reading : PassAdvanced or None
        The pass under way, as far as is known.
    warnings : list of str
    tasks : int
        Handed to workers.
    now : float
        When the last event happened, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.began: str | None = None
        self.store: str | None = None
        self.engines: list[str] = []
        self.machines: list[str] = []
        self.resumed = 0
        self.ended: RunFinished | None = None
        self.interrupted: Interrupted | None = None
        self.level = 1
        self.levels: dict[int, LevelProgress] = {}
        self.spent: dict[int, float] = {}
        self.stages: list[StageStarted] = []
        self.reading: PassAdvanced | None = None
        self.warnings: list[str] = []
        self.tasks = 0
        self.now = 0.0
        self._stage_began: list[float] = []

    @classmethod
    def of(cls, events: list[Event]) -> RunProgress:
        """After all these events."""
        progress = cls()
        for event in events:
            progress.apply(event)
        return progress

    # -- what is asked of it -----------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Of work on all of it."""
        return sum(self.spent.values())

    @property
    def count(self) -> int | None:
        """How many levels there will be; None where the log does not say."""
        return max((level.plan.levels for level in self.levels.values() if level.plan is not None), default=None)

    @property
    def current(self) -> LevelProgress:
        """The level under way."""
        return self.levels.get(self.level) or LevelProgress(self.level)

    @property
    def fit(self) -> FitProgress | None:
        """The fit under way."""
        for stage in self.stages:
            if stage.stage == "fit":
                return self.current.fits.get(stage.step or 0) or FitProgress(stage.step or 0)
        return None

    @property
    def stage(self) -> str | None:
        """The innermost stage under way. Before it seeds, a resampling step chooses its points; then it iterates."""
        if not self.stages:
            return None
        innermost, fit = self.stages[-1].stage, self.fit
        if innermost != "fit" or fit is None or fit.seeding is not None or fit.passes:
            return innermost
        if self.current.plan is None:  # a log of an earlier version, which has no stage for the seeding
            return "seeding"
        # Seeds may also be there from before a stop.
        reads_points = self.reading is None or self.reading.name == CHOICE
        return "choosing points" if fit.step and reads_points else "fit"

    @property
    def stage_seconds(self) -> float:
        """How long the innermost stage has been under way, when the last event happened."""
        return self.now - self._stage_began[-1] if self._stage_began else 0.0

    # -- the fold ----------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take one more event into account. One of a kind that it does not know only lets time pass."""
        self._let_time_pass(event)
        match event:
            case RunStarted():
                self._go_on(event, 1)
                self.store = event.store
            case Resumed():
                self._go_on(event, event.level)
                self.resumed += 1
            case LevelPlanned():
                self._level(event.level).plan = event
            case LevelStarted():
                self._rest()
                self.level = event.level
            case StageStarted():
                self._stage_started(event)
            case StageFinished():
                self._stage_finished(event)
            case PassAdvanced():
                self.reading = event
            case PassFinished():
                self._pass_finished(event)
            case Seeded():
                fit = self._fit(event.level, event.step)
                fit.seeding, fit.seeding_seconds = event.method, event.seconds
                self._level(event.level).seeding_seconds += event.seconds
                self.reading = None
            case IterationFinished():
                fit = self._fit(event.level, event.step)
                fit.passes[event.iteration], fit.latest = event, event.iteration
                self.reading = None
            case LevelFinished():
                self._level(event.level).finished = event
                self._rest()
                self.level = event.level + 1
            case Warned():
                if event.text not in self.warnings:  # one that is said again after a kill
                    self.warnings.append(event.text)
            case Interrupted():
                self.interrupted = event
                self.reading = None
            case RunFinished():
                self.ended = event
                self._rest()

    def _let_time_pass(self, event: Event) -> None:
        moment = datetime.fromisoformat(event.time).timestamp()
        if self.began is None:
            self.began = event.time
        elif not isinstance(event, (RunStarted, Resumed)):  # what lies between a stop and these was no work
            self.spent[self.level] = self.spent.get(self.level, 0.0) + max(moment - self.now, 0.0)
        self.now = moment

    def _go_on(self, event: RunStarted | Resumed, level: int) -> None:
        self.level, self.interrupted, self.ended = level, None, None
        self.engines += [] if event.engine in self.engines else [event.engine]
        self.machines += [] if event.machine in ("", *self.machines) else [event.machine]
        self._rest()
        for fit in self.current.fits.values():
            fit.latest = None

    def _rest(self) -> None:
        """Nothing is under way."""
        self.stages, self._stage_began, self.reading = [], [], None

    def _stage_started(self, event: StageStarted) -> None:
        if event.level is not None:
            self.level = event.level
        if event.stage in _OUTERMOST:  # one before that was broken off left no word of its end
            self._rest()
        self.stages.append(event)
        self._stage_began.append(self.now)
        self.reading = None
        if event.stage == "fit":
            self._fit(self.level, event.step or 0).finished = False

    def _stage_finished(self, event: StageFinished) -> None:
        self.reading = None
        if event.stage == "fit" and event.level is not None:
            self._fit(event.level, event.step or 0).finished = True
        for index in reversed(range(len(self.stages))):
            if self.stages[index].stage == event.stage:
                del self.stages[index:], self._stage_began[index:]
                return

    def _pass_finished(self, event: PassFinished) -> None:
        level = self._level(event.level)
        level.bytes += event.bytes
        level.tasks += event.tasks
        level.noted[event.name] = event
        self.tasks += event.tasks
        if self.reading is not None and self.reading.name == event.name:
            self.reading = None

    def _level(self, number: int) -> LevelProgress:
        return self.levels.setdefault(number, LevelProgress(number))

    def _fit(self, level: int, step: int) -> FitProgress:
        return self._level(level).fits.setdefault(step, FitProgress(step))
