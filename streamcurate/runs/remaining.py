"""How long a run will still take: an estimate from the passes it has made.

What is still to come of the fit under way, of the level's other fits, and of the levels above is counted in passes; a
pass costs in proportion to points x clusters x dims, at the rate measured so far. How many passes a fit still makes
follows from how fast its gains fall: Lloyd's algorithm stops where one is below the tolerance, and they fall roughly
geometrically.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from itertools import pairwise

from streamcurate.runs.events import IterationFinished, LevelPlanned, PassAdvanced
from streamcurate.runs.progress import CHOICE, FitProgress, RunProgress, moved_share

# Ratios of successive gains that are looked at: single ones jump. The first gains, behind the seeding, fall faster than
# those that follow ever do.
_RATIOS, _LEAST_RATIO = 4, 0.5
# The time of a pass changes within a fit: labels kept from the pass before spare work, more and more of it.
_LAST_PASSES = 3
_SPLITTING = "splitting"


@dataclass(frozen=True)
class Remaining:
    """Seconds left; ``most``: an upper figure, for nothing tells yet how many passes a fit takes."""

    seconds: float
    most: bool


def seconds_of_rest(reading: PassAdvanced) -> float:
    """How long the rest of a pass takes at its own rate."""
    if not reading.done:
        return 0.0
    return reading.seconds * max(reading.rows - reading.done, 0) / reading.done


def passes_left(fit: FitProgress, plan: LevelPlanned) -> tuple[int, bool]:
    """How many Lloyd passes a fit will still make, and whether that is but the most it can make.

    Examples
    --------
    >>> plan = LevelPlanned(level=1, levels=1, points=100, dims=2, clusters=9, iterations=50, tolerance=0.01)
    >>> done = [IterationFinished(1, 0, number, inertia, 1.0) for number, inertia in ((1, 100.0), (2, 80.0), (3, 72.0))]
    >>> passes = {each.iteration: each for each in done}
    >>> passes_left(FitProgress(0, passes=passes), plan)  # gains 0.2, 0.1, then 0.05, 0.025, 0.0125, 0.00625
    (4, False)
    """
    done = fit.iterations
    most = max(plan.iterations - (fit.latest or len(done)), 0)
    if fit.finished or not most:
        return 0, False
    if plan.tolerance > 0:
        signs = [1 - after.inertia / before.inertia for before, after in pairwise(done) if before.inertia > 0]
        floor = plan.tolerance
        if signs and signs[-1] < floor and done and not done[-1].refilled:
            return 0, False
    else:  # until no point moves
        signs = [share for each in done if (share := moved_share(each)) is not None]
        floor = 1 / max(plan.points, 2)
    falling = [sign for sign in signs if sign > 0][-_RATIOS - 1 :]
    ratios = [after / before for before, after in pairwise(falling)]
    if not ratios or (ratio := statistics.median(ratios)) >= 1:
        return most, True
    ratio = max(ratio, _LEAST_RATIO)
    left = math.ceil(math.log(floor / falling[-1]) / math.log(ratio) - 1e-9) if falling[-1] > floor else 1
    return min(max(left, 1), most), False


def remaining(run: RunProgress) -> Remaining | None:
    """How long a run will still take, from when its last event happened.

    None before there is a measured Lloyd pass, for a run that does not go on, and where the log does not tell what is
    planned.
    """
    if run.ended is not None or run.interrupted is not None:
        return None
    plans = {number: level.plan for number, level in run.levels.items() if level.plan is not None}
    measured = _Measured(run, plans)
    if run.level not in plans or not measured.rates:
        return None
    seconds = sum(measured.level(plan) for number, plan in plans.items() if number > run.level)
    seconds += measured.rest_of_level(plans[run.level])
    return Remaining(seconds, measured.most)


class _Measured:
    """Rates and numbers of passes measured so far, by level and by whether a fit is the first.

    Where nothing was measured of one kind of fit, the other of the level stands in, and then all others together.
    """

    def __init__(self, run: RunProgress, plans: dict[int, LevelPlanned]) -> None:
        self.run = run
        self.most = False
        # Seconds and work; passes and fits; each summed up under its kind, under its level, and under everything.
        self.rates: dict[tuple[int | None, bool | None], list[float]] = {}
        self.seedings: dict[tuple[int | None, bool | None], list[float]] = {}
        self.passes: dict[tuple[int | None, bool | None], list[float]] = {}
        for number, plan in plans.items():
            for fit in run.levels[number].fits.values():
                work = _work(plan, fit.step, fit.last)
                for each in fit.passes.values():
                    _note(self.rates, number, fit.step, each.seconds, work)
                if fit.seeding is not None:
                    _note(self.seedings, number, fit.step, fit.seeding_seconds, work)
                if fit.finished and fit.passes:
                    _note(self.passes, number, fit.step, len(fit.passes), 1)

    def one_pass(self, plan: LevelPlanned, step: int) -> float:
        """Seconds of a Lloyd pass of a fit to come."""
        return _ratio(self.rates, plan.level, step, 0.0) * _work(plan, step)

    def seeding(self, plan: LevelPlanned, step: int) -> float:
        """Seconds of the seeding of a fit to come."""
        return _ratio(self.seedings, plan.level, step, 0.0) * _work(plan, step)

    def number(self, plan: LevelPlanned, step: int) -> float:
        """Passes of a fit to come."""
        known = _ratio(self.passes, plan.level, step, -1.0)
        if known < 0 and (fit := self.run.fit) is not None and (own := self.run.current.plan) is not None:
            left, bound = passes_left(fit, own)
            self.most = self.most or bound
            known = len(fit.passes) + left
        if known < 0:
            self.most, known = True, plan.iterations
        return min(known, plan.iterations)

    def fit(self, plan: LevelPlanned, step: int) -> float:
        """Seconds of a fit to come, the choice of its points included."""
        choice = self.labels(plan) if step else 0.0
        return choice + self.seeding(plan, step) + self.number(plan, step) * self.one_pass(plan, step)

    def labels(self, plan: LevelPlanned) -> float:
        """Seconds of a pass that labels all points, as the choice of those to resample and the last of a level do."""
        noted = self.run.levels[plan.level].noted.get(CHOICE)
        return noted.seconds if noted is not None else self.one_pass(plan, 0)

    def final_labels(self, plan: LevelPlanned) -> float:
        """Seconds of the level's last labels, unless they are there."""
        return 0.0 if "labels" in self.run.levels[plan.level].noted else self.labels(plan)

    def splits(self, plan: LevelPlanned) -> float:
        """Seconds of the fits inside the coarse clusters."""
        if plan.splits <= 1:
            return 0.0
        work = plan.points * plan.splits * plan.dims
        return (self.number(plan, 0) + 1) * work * _ratio(self.rates, plan.level, 0, 0.0)

    def level(self, plan: LevelPlanned) -> float:
        """Seconds of a level to come."""
        fits = self.fit(plan, 0) + (plan.steps * self.fit(plan, 1) if plan.steps else 0.0)
        return fits + self.labels(plan) + self.splits(plan)

    def rest_of_level(self, plan: LevelPlanned) -> float:
        """Seconds of what is left of the level under way."""
        run, outer = self.run, self.run.stages[0].stage if self.run.stages else None
        rest = seconds_of_rest(run.reading) if run.reading is not None else 0.0
        if outer == "members":
            return rest
        if outer == "labels":
            if run.reading is not None and run.reading.name == _SPLITTING:
                return rest
            return (rest or self.final_labels(plan)) + self.splits(plan)
        fit = run.fit
        if fit is None:  # before the first, or between two
            step = max((each.step for each in run.current.fits.values() if each.finished), default=-1) + 1
            if step > plan.steps:
                return self.final_labels(plan)
            under_way = self.fit(plan, step)
        else:
            step = fit.step
            under_way = self.rest_of_fit(plan, fit, rest)
        to_come = plan.steps - step
        return under_way + (to_come * self.fit(plan, 1) if to_come > 0 else 0) + self.labels(plan) + self.splits(plan)

    def rest_of_fit(self, plan: LevelPlanned, fit: FitProgress, rest: float) -> float:
        """Seconds of what is left of the fit under way, ``rest`` of them in the pass under way."""
        run = self.run
        if run.stage == "choosing points":
            return (rest or self.labels(plan)) + self.fit(plan, fit.step) - self.labels(plan)
        if not fit.passes:
            passes = self.number(plan, fit.step) * self.one_pass(plan, fit.step)
            if fit.seeding is not None:
                return passes
            return max(self.seeding(plan, fit.step) - run.stage_seconds, rest) + passes
        left, bound = passes_left(fit, plan)
        if bound and (others := _ratio(self.passes, plan.level, fit.step, 0.0)):
            left, bound = min(max(round(others) - len(fit.passes), 1), left), False
        self.most = self.most or bound
        last = fit.iterations[-_LAST_PASSES:]
        one = sum(each.seconds for each in last) / len(last)
        return rest + (left - 1) * one if rest and left else left * one


def _work(plan: LevelPlanned, step: int, last: IterationFinished | None = None) -> float:
    """What a pass of a fit costs: points x clusters x dims."""
    points = plan.points if not step else min(plan.points, plan.clusters * plan.rows_per_cluster)
    if last is not None and last.points:
        points = last.points
    return max(points * plan.clusters * plan.dims, 1)


def _note(
    table: dict[tuple[int | None, bool | None], list[float]], level: int, step: int, amount: float, per: float
) -> None:
    for key in ((level, step > 0), (level, None), (None, None)):
        sums = table.setdefault(key, [0.0, 0.0])
        sums[0] += amount
        sums[1] += per


def _ratio(table: dict[tuple[int | None, bool | None], list[float]], level: int, step: int, otherwise: float) -> float:
    for key in ((level, step > 0), (level, None), (None, None)):
        if key in table:
            return table[key][0] / table[key][1]
    return otherwise
