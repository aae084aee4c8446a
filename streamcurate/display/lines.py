"""The words of progress: what is under way, as lines that fit a width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamcurate.runs.events import Event, LevelFinished, LevelPlanned, Resumed, Warned
from streamcurate.runs.progress import LevelProgress, RunProgress, moved_share
from streamcurate.runs.remaining import Remaining, remaining, seconds_of_rest

# Below this many seconds an estimate of the time left says nothing that is not over when it is read.
_LEAST_LEFT = 3.0
# What the stages of a run are called where their own names would not tell.
_STAGES = {"members": "sorting members", "seeding": "seeding", "statistics": "statistics", "labels": "labels"}


@dataclass
class Reading:
    """A pass under way in work that has no log.

    Attributes
    ----------
    name : str
    rows, done, bytes : int
    began : float
        By the clock of the state.
    """

    name: str
    rows: int
    began: float
    done: int = 0
    bytes: int = 0


class State:
    """All that is shown, and when it was heard of.

    Attributes
    ----------
    clock : callable
        Seconds that only grow.
    run : RunProgress or None
        The run under way, or the one that has ended.
    reading : Reading or None
        A pass under way outside of it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.run: RunProgress | None = None
        self.reading: Reading | None = None
        self._heard = clock()
        self._left: Remaining | None = None

    def heard(self, event: Event) -> None:
        """Take an event into account that happened just now."""
        run = self.run or RunProgress()
        run.apply(event)
        self.take_over(run, 0.0)

    def take_over(self, run: RunProgress, ago: float) -> None:
        """Show a run whose last event happened so many seconds ago."""
        self.run, self._left = run, None
        self._heard = self.clock() - ago

    @property
    def under_way(self) -> bool:
        """Whether a run goes on."""
        return self.run is not None and self.run.ended is None and self.run.interrupted is None

    @property
    def waited(self) -> float:
        """Seconds since the last event."""
        return max(self.clock() - self._heard, 0.0)

    @property
    def seconds_left(self) -> Remaining | None:
        """The estimate for the run."""
        if self.run is None:
            return None
        if self._left is None:  # once an event: it looks at all passes
            self._left = remaining(self.run)
        if self._left is None:
            return None
        return Remaining(max(self._left.seconds - self.waited, 0.0), self._left.most)


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


def brief(seconds: float) -> str:
    """Seconds that may be few.

    Examples
    --------
    >>> brief(0.0312), brief(1.84), brief(12.3)
    ('0.03 s', '1.8 s', '12 s')
    """
    if seconds >= 9.95:
        return duration(seconds)
    return f"{seconds:.1f} s" if seconds >= 0.095 else f"{seconds:.2f} s"


def left(estimate: Remaining) -> str:
    """An estimate, no finer than it is.

    Examples
    --------
    >>> [left(Remaining(seconds, False)) for seconds in (2, 38, 100, 745)]
    ['seconds left', 'about 40 s left', 'about 2 min left', 'about 12 min left']
    >>> [left(Remaining(seconds, False)) for seconds in (5000, 200_000)]
    ['about 1 h 25 min left', 'about 2 d 8 h left']
    >>> left(Remaining(7300, True))
    'at most 2 h left'
    """
    seconds = estimate.seconds
    if seconds < _LEAST_LEFT:
        return "seconds left"
    about = "at most" if estimate.most else "about"
    if seconds < 57.5:
        return f"{about} {max(5 * round(seconds / 5), 5)} s left"
    if seconds < 3570:
        return f"{about} {max(round(seconds / 60), 1)} min left"
    if seconds < 86_400:
        minutes = 5 * round(seconds / 300)
        rest = f" {minutes % 60:02d} min" if minutes % 60 else ""
        return f"{about} {minutes // 60} h{rest} left"
    hours = round(seconds / 3600)
    return f"{about} {hours // 24} d{f' {hours % 24} h' if hours % 24 else ''} left"


def many(count: float) -> str:
    """A large number in three digits.

    Examples
    --------
    >>> many(950), many(24_884), many(1_234_567), many(2.5e9)
    ('950', '24.9 k', '1.23 M', '2.5 G')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f}"


def percent(share: float) -> str:
    """A share of 1 in two digits.

    Examples
    --------
    >>> percent(-0.379), percent(0.0213), percent(-8.36e-5), percent(0), percent(1), percent(-3e-9)
    ('-38 %', '2.1 %', '-0.0084 %', '0 %', '100 %', '-0.0000 %')
    """
    value = 100 * share
    if value == 0:
        return "0 %"
    size = abs(value)
    digits = 0 if size >= 9.95 else 1 if size >= 0.995 else 2 if size >= 0.0995 else 3 if size >= 0.00995 else 4
    return f"{value:.{digits}f} %"


def rates(rows: int, bytes: int, seconds: float) -> list[str]:
    """Rows and bytes a second; nothing before there is a rate."""
    if seconds <= 0 or rows <= 0:
        return []
    found = [f"{many(rows / seconds)} rows/s"]
    speed = bytes / seconds
    return found + ([f"{speed / 1e9:.2f} GB/s" if speed >= 1e8 else f"{speed / 1e6:.3g} MB/s"] if bytes else [])


def details_of(reading: Reading, now: float) -> str:
    """Share, rates and time left of a pass outside a run, from the averages since it began."""
    share = f"{100 * reading.done // reading.rows if reading.rows else 100} %"
    seconds = now - reading.began
    if seconds <= 0 or reading.done <= 0:
        return share
    rate = reading.done / seconds
    rest = max(0.0, (reading.rows - reading.done) / rate)
    return f"{share}, {rate:,.0f} rows/s, {reading.bytes / seconds / 1e9:,.3f} GB/s, {duration(rest)} left"


# -- the parts ---------------------------------------------------------------------------------------------------------


def level_words(run: RunProgress) -> str:
    """Which level."""
    return f"level {run.level}" + ("" if run.count is None else f" of {run.count}")


def content_words(plan: LevelPlanned | None) -> str | None:
    """What becomes of what in a level."""
    if plan is None:
        return None
    splits = f" x {plan.splits:,}" if plan.splits > 1 else ""
    return f"{plan.points:,} points in {plan.clusters:,}{splits} clusters"


def step_words(run: RunProgress) -> str | None:
    """Which fit of the level."""
    if run.fit is None:
        return None
    if not run.fit.step:
        return "first fit"
    steps = run.current.plan.steps if run.current.plan is not None else 0
    return f"resampling {run.fit.step}" + (f" of {steps}" if steps else "")


def doing_words(run: RunProgress, waited: float) -> str | None:
    """What is done in it: the number of the Lloyd pass, or the stage."""
    fit, plan = run.fit, run.current.plan
    if run.stage == "fit" and fit is not None:
        if fit.latest is None and fit.passes:
            return "going on"
        number = (fit.latest or 0) + 1
        if plan is None or not plan.iterations:
            return f"pass {number}"
        return f"pass {min(number, plan.iterations)} of at most {plan.iterations}"
    if run.stage is None:
        return None
    words = _STAGES.get(run.stage, run.stage)
    seconds = run.stage_seconds + waited
    return f"{words} for {duration(seconds)}" if seconds >= 10 else words


def inertia_words(run: RunProgress) -> list[str]:
    """Inertia of the last Lloyd pass with its change, and the share of points that moved."""
    fit = run.fit
    if fit is None or fit.last is None:
        return []
    change = "" if fit.change is None else f" ({percent(fit.change)})"
    moved = moved_share(fit.last)
    return [f"inertia {fit.last.inertia:.4g}{change}"] + ([f"moved {percent(moved)}"] if moved is not None else [])


def pass_words(run: RunProgress, waited: float) -> tuple[str, float | None, list[str]]:
    """Name of the pass under way, the share of it that is done, its rates and time left.

    Of passes too short to be heard of while they are under way, the last one tells.
    """
    if (reading := run.reading) is not None:
        share = min(reading.done / reading.rows, 1.0) if reading.rows else 1.0
        told = rates(reading.done, reading.bytes, reading.seconds)
        rest = max(seconds_of_rest(reading) - waited, 0.0)
        return reading.name, share, told + ([f"{duration(rest)} left"] if told else [])
    fit = run.fit
    if fit is None or fit.last is None or run.stage != "fit" or fit.last.seconds <= 0:
        return "", None, []
    seconds = fit.last.seconds
    return f"k-means passes of {brief(seconds)}", None, rates(fit.last.points, 0, seconds)


# -- the lines ---------------------------------------------------------------------------------------------------------


def fitted(parts: Sequence[tuple[int, str | None]], width: int) -> str:
    """Parts joined by commas, without those of the lowest rank (the highest numbers) where they are too long.

    Examples
    --------
    >>> fitted([(0, "level 1 of 3"), (2, "9 points in 3 clusters"), (1, "about 2 min left")], 40)
    'level 1 of 3, about 2 min left'
    """
    kept = [(rank, text) for rank, text in parts if text]
    while (line := ", ".join(text for _, text in kept)) and len(line) > width:
        lowest = max(rank for rank, _ in kept)
        if not lowest:
            return line[: max(width - 3, 0)] + "..."[:width]
        kept = [(rank, text) for rank, text in kept if rank != lowest]
    return line


def live_lines(state: State, width: int, bar: Callable[[float, int], str]) -> list[str]:
    """What a terminal shows of a run under way: the level, the step, the pass.

    Parameters
    ----------
    state : State
    width : int
        Columns; no line is longer.
    bar : callable
        Share and columns to a bar.
    """
    run = state.run
    assert run is not None
    waited, estimate = state.waited, state.seconds_left
    level = [
        (0, level_words(run)),
        (3, content_words(run.current.plan)),
        (2, f"{duration(run.seconds + waited)} so far"),
        (1, left(estimate) if estimate is not None else None),
    ]
    step = ", ".join(part for part in (step_words(run), doing_words(run, waited)) if part)
    inertia = ", ".join(inertia_words(run))
    lines = [fitted(level, width)]
    # Side by side where there is room.
    together = [f"{step}, {inertia}"] if inertia and len(step) + len(inertia) + 4 <= width else [step, inertia]
    lines += [f"  {fitted([(0, part)], width - 2)}" for part in together if part]
    name, share, told = pass_words(run, waited)
    if name:
        lines.append("    " + barred(name, share, told, width - 4, bar))
    return lines


def barred(name: str, share: float | None, told: Sequence[str], width: int, bar: Callable[[float, int], str]) -> str:
    """A pass: its name, a bar, how much of it is done, and what else there is to tell, as far as there is room."""
    if share is None:
        return fitted([(0, name), *((rank, text) for rank, text in enumerate(told, start=1))], width)
    done = f"{int(100 * share)} %"
    # The time left comes last and is the last to go.
    ranks = [*range(2, len(told) + 1), 1][: len(told)]
    beside = fitted([(0, done), *zip(ranks, told, strict=True)], max(width - len(name) - 10, len(done)))
    columns = min(width - len(name) - len(beside) - 2, 24)
    if columns < 4:
        return fitted([(0, name), (0, done)], width)
    return f"{name} {bar(share, columns)} {beside}"


def text_bar(share: float, columns: int) -> str:
    """A bar of plain characters."""
    done = min(int(share * columns), columns)
    return "=" * done + "-" * (columns - done)


def one_line(state: State) -> str:
    """A run under way in one line that needs no other, for logs."""
    run = state.run
    assert run is not None
    waited, estimate = state.waited, state.seconds_left
    name, share, told = pass_words(run, waited)
    done = f"{name} {int(100 * share)} %" if share is not None else name
    short = level_words(run).replace(" of ", "/")
    step = (step_words(run) or "").replace(" of ", "/")
    parts = [short, step, doing_words(run, waited), done, *told[:1], *inertia_words(run)]
    parts.append(left(estimate) if estimate is not None else None)
    return ", ".join(part for part in parts if part)


def finished_words(level: LevelProgress, seconds: float | None) -> str:
    """A finished level."""
    finished = level.finished
    assert finished is not None
    passes = f", {level.iterations:,} passes" if level.iterations else ""
    took = "" if seconds is None else f"{' in' if passes else ','} {brief(seconds)}"
    return (
        f"level {level.number}: {finished.rows:,} points in {finished.clusters:,} clusters, inertia "
        f"{finished.inertia:,.6g}{f', {finished.empty:,} empty' if finished.empty else ''}{passes}{took}"
    )


def said(event: Event, run: RunProgress) -> str | None:
    """What of an event stays for a watching person to read."""
    if isinstance(event, Warned):
        return f"warning: {event.text}"
    if isinstance(event, LevelFinished):
        return finished_words(run.levels[event.level], run.spent.get(event.level))
    if isinstance(event, Resumed):
        return f"going on at level {event.level}"
    return None
