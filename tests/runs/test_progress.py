"""What the events of a run tell of where it has come to."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_events import ANY_EVENT, MadeRun, at

from streamcurate.runs import (
    Event,
    Interrupted,
    IterationFinished,
    LevelFinished,
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
from streamcurate.runs.progress import RunProgress, moved_share


def iteration(number: int, inertia: float = 10.0, step: int = 0, **fields: object) -> IterationFinished:
    return IterationFinished(level=1, step=step, iteration=number, inertia=inertia, seconds=1.0, **fields)


def plain(run: RunProgress) -> dict[str, object]:
    """All of its state, to be compared."""
    return {name: value for name, value in vars(run).items()}


class TestNesting:
    def test_level_step_stage_and_pass(self):
        run = RunProgress()
        seen = []
        for event in MadeRun().events:
            run.apply(event)
            seen.append((run.level, None if run.fit is None else run.fit.step, run.stage, run.reading is not None))
        assert (1, 0, "seeding", False) in seen
        assert (1, 0, "fit", True) in seen
        assert (1, 2, "fit", False) in seen
        assert (1, None, "labels", True) in seen
        assert (1, None, "members", False) in seen
        assert (2, 0, "fit", False) in seen
        # Level 2 takes passes of less than a second: nothing is heard of them under way.
        assert not [each for each in seen if each[0] == 2 and each[3]]
        assert run.count == 2
        assert run.ended is not None
        assert (run.stages, run.reading) == ([], None)

    def test_a_resampling_step_chooses_its_points_first(self):
        run, seen = RunProgress(), []
        for event in MadeRun([(1000, 10, 1)]).events:
            run.apply(event)
            if run.fit is not None and run.fit.step and run.stage not in seen:
                seen.append(run.stage)
        assert seen == ["choosing points", "seeding", "fit"]

    def test_a_fit_seeds_first_where_stages_do_not_say_so(self):
        run = RunProgress.of([StageStarted("fit", 1, 0)])
        assert run.stage == "seeding"
        run.apply(Seeded(1, 0, "random", 3, 1.0))
        assert run.stage == "fit"

    def test_a_fit_that_is_broken_off_does_not_hold_what_follows(self):
        run = RunProgress.of([StageStarted("fit", 1, 1), Warned("it was skipped"), StageStarted("labels", 1)])
        assert run.fit is None
        assert run.stage == "labels"

    def test_a_pass_is_under_way_until_it_or_what_holds_it_ends(self):
        advanced = PassAdvanced("labels", 1, 5, 10, 50, 2.0)
        for end in (
            PassFinished("labels", 1, 10, 100, 4.0),
            iteration(1),
            StageFinished("labels", 1),
            Interrupted("x"),
        ):
            run = RunProgress.of([StageStarted("labels", 1), advanced])
            assert run.reading == advanced
            run.apply(PassFinished("another", 1, 10, 100, 4.0))
            assert run.reading == advanced
            run.apply(end)
            assert run.reading is None


class TestStops:
    def test_a_pass_made_again_takes_the_place_of_the_first(self):
        events = [
            RunStarted(engine="1.0", store="a"),
            StageStarted("fit", 1, 0),
            *(iteration(number, 10.0 - number) for number in (1, 2, 3)),
            Resumed(engine="1.1", level=1),
            StageStarted("fit", 1, 0),
        ]
        run = RunProgress.of(events)
        assert run.fit is not None
        assert run.fit.latest is None
        run.apply(iteration(2, 8.0))
        assert [each.inertia for each in run.fit.iterations] == [9.0, 8.0, 7.0]
        assert run.fit.latest == 2
        assert run.current.iterations == 3
        assert (run.resumed, run.engines) == (1, ["1.0", "1.1"])

    def test_interrupted_until_it_goes_on(self):
        run = RunProgress.of([RunStarted(engine="1.0", store="a"), Interrupted("KeyboardInterrupt")])
        assert run.interrupted is not None
        run.apply(Resumed(engine="1.0", level=2))
        assert run.interrupted is None
        assert run.level == 2

    def test_time_in_which_it_stood_still_is_no_work(self):
        run = RunProgress.of(
            [
                RunStarted(engine="1.0", store="a", time=at(0)),
                LevelStarted(1, time=at(1)),
                Interrupted("x", time=at(5)),
                Resumed(engine="1.0", level=1, time=at(500)),
                LevelFinished(1, 2, 3, 4.0, 0, "", time=at(503)),
                RunFinished("d", 3.0, time=at(504)),
            ]
        )
        assert run.spent == {1: pytest.approx(8), 2: pytest.approx(1)}

    def test_a_log_that_begins_in_the_middle(self):
        """As a process that goes on with a run tells it."""
        run = RunProgress.of([Resumed(engine="1.0", level=2), StageStarted("fit", 2, 1), iteration(9, step=1)])
        assert (run.level, run.count) == (2, None)
        assert run.fit is not None


def test_change_and_moved_share():
    run = RunProgress.of(
        [StageStarted("fit", 1, 0), iteration(1, 10.0, points=50), iteration(2, 9.0, points=50, moved=5)]
    )
    assert run.fit is not None
    assert run.fit.change == pytest.approx(-0.1)
    assert [moved_share(each) for each in run.fit.iterations] == [None, 0.1]
    run.apply(iteration(4, 8.0))
    assert run.fit.change is None  # of the pass before nothing is known
    assert moved_share(iteration(4, moved=3)) is None


def test_warnings_said_twice_are_one():
    assert RunProgress.of([Warned("a"), Warned("b"), Warned("a")]).warnings == ["a", "b"]


def test_an_event_that_it_does_not_know_lets_time_pass():
    # No class of its own: the subclasses of Event are the kinds of events there are.
    before = RunProgress.of([RunStarted(engine="1.0", store="a", time=at(0))])
    before.apply(Event(time=at(7)))
    assert before.seconds == pytest.approx(7)


@given(st.lists(ANY_EVENT, max_size=40))
def test_any_events_in_any_order_are_folded(events):
    run = RunProgress()
    for event in events:
        run.apply(event)
        _ = run.count, run.current.inertia, run.fit, run.stage, run.stage_seconds, run.seconds
        if run.fit is not None:
            _ = run.fit.change
    assert run.seconds >= 0
    assert run.began == (events[0].time if events else None)
    iterations = {(e.level, e.step, e.iteration): e for e in events if isinstance(e, IterationFinished)}
    kept = {
        (level, step, number): each
        for level, found in run.levels.items()
        for step, fit in found.fits.items()
        for number, each in fit.passes.items()
    }
    assert kept == iterations  # last wins


@given(st.integers(0, len(MadeRun().events) - 1), st.data())
def test_a_run_killed_anywhere_tells_the_same_fits(cut, data):
    """Made again from any earlier point on, as after a kill, passes are those of the undisturbed run."""
    whole = MadeRun().events
    back = data.draw(st.integers(0, cut))
    level = RunProgress.of(whole[:back]).level
    again = [*whole[:cut], dataclasses.replace(Resumed(engine="1.0", level=level), time=at(0)), *whole[back:]]
    told, undisturbed = RunProgress.of(again), RunProgress.of(whole)
    assert [fit.passes for fit in told.levels[1].fits.values()] == [
        fit.passes for fit in undisturbed.levels[1].fits.values()
    ]
    assert told.ended is not None
