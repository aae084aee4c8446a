"""The words of progress, and that lines fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_events import ANY_EVENT, MadeRun

from streamcurate.display.lines import State, barred, finished_words, fitted, live_lines, one_line, text_bar
from streamcurate.runs import IterationFinished, LevelFinished, PassAdvanced
from streamcurate.runs.progress import LevelProgress


def state_of(events, seconds=0.0):
    """After the events, so many seconds later."""
    now = [0.0]
    state = State(lambda: now[0])
    for event in events:
        state.heard(event)
    now[0] += seconds
    return state


def until(kind, level, step, number):
    """The events of a run up to the one of a Lloyd pass, or a part of it."""
    events = MadeRun(speed=2e7).events
    for index, event in enumerate(events):
        if isinstance(event, kind) and event.level == level and getattr(event, "step", step) == step:
            number -= 1
            if not number:
                return events[: index + 1]
    raise AssertionError


def test_level_step_and_pass_at_a_glance():
    # Half of the eighth pass, 40 s, and three seconds more.
    state = state_of(until(PassAdvanced, 1, 0, 8), 3)
    assert live_lines(state, 100, text_bar) == [
        "level 1 of 2, 100,000 points in 1,000 clusters, 14 min 03 s so far, about 18 min left",
        "  first fit, pass 8 of at most 50, inertia 7.423e+07 (-0.93 %), moved 0.47 %",
        "    k-means pass ============------------ 50 %, 1.25 k rows/s, 0.08 MB/s, 37 s left",
    ]


def test_on_a_narrow_terminal_what_matters_most_stays():
    state = state_of(until(PassAdvanced, 1, 0, 8), 3)
    assert live_lines(state, 60, text_bar) == [
        "level 1 of 2, 14 min 03 s so far, about 18 min left",
        "  first fit, pass 8 of at most 50",
        "  inertia 7.423e+07 (-0.93 %), moved 0.47 %",
        "    k-means pass ======------ 50 %, 1.25 k rows/s, 37 s left",
    ]
    assert live_lines(state, 30, text_bar)[:2] == ["level 1 of 2", "  first fit, pass 8 of at m..."]


def test_passes_too_short_to_be_heard_of_are_told_by_the_last():
    assert live_lines(state_of(until(IterationFinished, 2, 0, 3)), 100, text_bar)[1:] == [
        "  first fit, pass 4 of at most 50, inertia 8.166e+05 (-7.2 %), moved 3.6 %",
        "    k-means passes of 0.08 s, 12.5 k rows/s",
    ]


def test_a_finished_level():
    events = until(LevelFinished, 1, None, 1)
    run = state_of(events).run
    assert finished_words(run.levels[1], 95.0) == (
        "level 1: 100,000 points in 1,000 clusters, inertia 5e+07, 48 passes in 1 min 35 s"
    )
    taken = LevelProgress(2, finished=LevelFinished(2, 3, 9, 1.5, 1, ""))
    assert finished_words(taken, 2.0) == "level 2: 9 points in 3 clusters, inertia 1.5, 1 empty, 2.0 s"


@given(st.lists(ANY_EVENT, min_size=1, max_size=30), st.integers(8, 200), st.floats(0, 1e6))
def test_no_line_is_too_long_or_two(events, width, seconds):
    state = state_of(events, seconds)
    for line in live_lines(state, width, text_bar):
        assert len(line) <= width
        assert "\n" not in line
    assert "\n" not in one_line(state)


@given(
    st.text("ab c", min_size=1, max_size=20), st.floats(0, 1), st.lists(st.text("xyz", min_size=1)), st.integers(1, 99)
)
def test_a_bar_fits(name, share, told, width):
    line = barred(name, share, told, width, text_bar)
    assert len(line) <= width


@pytest.mark.parametrize(("width", "line"), [(99, "a, bb, ccc"), (9, "a, ccc"), (5, "a"), (1, "a")])
def test_parts_of_the_lowest_rank_go_first(width, line):
    assert fitted([(0, "a"), (2, "bb"), (1, "ccc"), (0, None)], width) == line


def test_the_estimate_runs_down_between_events():
    events = until(IterationFinished, 1, 0, 8)
    early, late = state_of(events).seconds_left, state_of(events, 30).seconds_left
    assert late.seconds == pytest.approx(early.seconds - 30)
    assert state_of(events, 1e9).seconds_left.seconds == 0
