"""How long a run will still take, against logs whose end is known."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_events import ANY_EVENT, MadeRun

from streamcurate.runs import (
    Interrupted,
    IterationFinished,
    LevelPlanned,
    PassAdvanced,
    PassFinished,
    RunFinished,
    RunStarted,
    StageStarted,
)
from streamcurate.runs.progress import FitProgress, RunProgress
from streamcurate.runs.remaining import passes_left, remaining, seconds_of_rest


def plan(**fields: object) -> LevelPlanned:
    return LevelPlanned(
        **{"level": 1, "levels": 1, "points": 1000, "dims": 2, "clusters": 9, "iterations": 50, "tolerance": 1e-3}
        | fields
    )


def fit(inertias: list[float], moved: list[int | None] | None = None, **fields: object) -> FitProgress:
    moved = [None] * len(inertias) if moved is None else moved
    passes = {
        number: IterationFinished(1, 0, number, inertia, 1.0, 0, 1000, share)
        for number, (inertia, share) in enumerate(zip(inertias, moved, strict=True), start=1)
    }
    return FitProgress(0, passes=passes, latest=len(passes) or None, **fields)


def inertias(gains: list[float]) -> list[float]:
    found = [100.0]
    for gain in gains:
        found.append(found[-1] * (1 - gain))
    return found


class TestPassesLeft:
    def test_gains_that_fall_geometrically(self):
        gains = [0.16 * 0.5**number for number in range(3)]  # 0.16, 0.08, 0.04; then 0.02 .. 0.00125, 0.000625
        assert passes_left(fit(inertias(gains)), plan()) == (6, False)

    def test_at_most_the_iterations(self):
        gains = [0.1 * 0.99**number for number in range(6)]
        assert passes_left(fit(inertias(gains)), plan(iterations=10)) == (3, False)

    def test_nothing_to_go_by_gives_the_most(self):
        assert passes_left(fit([100.0]), plan()) == (49, True)
        assert passes_left(fit([100.0, 90.0]), plan()) == (48, True)
        assert passes_left(fit(inertias([0.1, 0.2])), plan()) == (47, True)

    def test_none_where_the_fit_has_stopped(self):
        assert passes_left(fit(inertias([0.1, 0.0001])), plan()) == (0, False)
        assert passes_left(fit(inertias([0.1, 0.05]), finished=True), plan()) == (0, False)
        assert passes_left(fit(inertias([0.1] * 49)), plan()) == (0, False)

    def test_without_tolerance_until_no_point_moves(self):
        moved = [None, 800, 400, 200, 100]  # then 50, 25, 12.5, 6.25, 3.1, 1.6, 0.8
        assert passes_left(fit([5.0, 4.0, 3.0, 2.0, 1.0], moved), plan(tolerance=0.0)) == (7, False)
        assert passes_left(fit([5.0, 4.0]), plan(tolerance=0.0)) == (48, True)

    def test_a_pass_that_is_made_again_after_a_stop(self):
        again = fit(inertias([0.16, 0.08, 0.04]))
        again.latest = 2
        assert passes_left(again, plan(iterations=5)) == (3, False)


def test_rest_of_a_pass():
    assert seconds_of_rest(PassAdvanced("labels", 1, 25, 100, 0, 5.0)) == 15
    assert seconds_of_rest(PassAdvanced("labels", 1, 0, 100, 0, 5.0)) == 0
    assert seconds_of_rest(PassAdvanced("labels", 1, 120, 100, 0, 5.0)) == 0


class TestRun:
    def test_nothing_before_a_pass_is_measured_and_after_the_end(self):
        events = MadeRun().events
        first = next(index for index, event in enumerate(events) if isinstance(event, IterationFinished))
        run = RunProgress()
        for event in events[:first]:
            run.apply(event)
            assert remaining(run) is None
        run.apply(events[first])
        assert remaining(run) is not None
        run.apply(Interrupted("x"))
        assert remaining(run) is None
        run.apply(RunFinished("d", 1.0))
        assert remaining(run) is None

    def test_nothing_from_a_log_that_does_not_say_what_is_planned(self):
        events = [event for event in MadeRun().events if not isinstance(event, (LevelPlanned, RunFinished))]
        assert remaining(RunProgress.of(events)) is None

    @pytest.mark.parametrize("levels", [((100_000, 1000, 0),), ((100_000, 1000, 3), (1000, 800, 2), (800, 10, 0))])
    @pytest.mark.parametrize("gain", [0.6, 0.85])
    def test_is_near_what_it_takes(self, levels, gain):
        """Once the first fit's gains show how fast they fall: within a third, or a twentieth of the whole."""
        events = MadeRun(levels, gain).events
        begin, end = (datetime.fromisoformat(events[index].time).timestamp() for index in (0, -1))
        run, looked = RunProgress(), 0
        for event in events[:-1]:
            run.apply(event)
            estimate = remaining(run)
            # A pass that has just finished is about to be counted.
            if estimate is None or estimate.most or isinstance(event, PassFinished):
                continue
            looked += 1
            assert estimate.seconds == pytest.approx(end - run.now, rel=1 / 3, abs=(end - begin) / 20), (event, looked)
        assert looked > len(events) / 2

    def test_more_levels_take_longer(self):
        def after_three_passes(levels):
            run = RunProgress()
            for event in MadeRun(levels).events:
                run.apply(event)
                if isinstance(event, IterationFinished) and event.iteration == 4:
                    return remaining(run).seconds
            raise AssertionError

        short = after_three_passes([(10_000, 1000, 0)])
        assert after_three_passes([(10_000, 1000, 0), (1000, 900, 3)]) > short
        assert after_three_passes([(10_000, 1000, 2)]) > short

    def test_splits_count(self):
        def left(splits):
            begun = [RunStarted(engine="1", store="a"), plan(splits=splits), StageStarted("fit", 1, 0)]
            passes = fit(inertias([0.16, 0.08, 0.04])).iterations
            return remaining(RunProgress.of([*begun, *passes])).seconds

        assert left(9) > 1.5 * left(1)


@given(st.lists(ANY_EVENT, max_size=40))
def test_any_log_gives_nothing_or_a_number(events):
    run = RunProgress()
    for event in events:
        run.apply(event)
        estimate = remaining(run)
        assert estimate is None or estimate.seconds >= 0
