from __future__ import annotations

import io
import itertools
import re
import time
from datetime import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_events import ANY_EVENT, BEGAN, MadeRun

import streamcurate as sc
from streamcurate.display.lines import duration
from streamcurate.display.progress import Progress
from streamcurate.display.terminal import Terminal as Screen
from streamcurate.runs import Event, Resumed, RunStarted, Warned
from streamcurate.streaming import EventListener


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def seconds_of(event: Event) -> float:
    """Since the run began."""
    return (datetime.fromisoformat(event.time) - BEGAN).total_seconds()


@pytest.fixture
def clock():
    return Clock()


def shown(terminal: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


class TestPlain:
    def test_line_says_how_far_how_fast_how_long(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        progress.started("labels", 4_000_000)
        clock.now += 20
        progress.advanced(1_000_000, 512_000_000)
        assert stream.getvalue() == (
            "labels: 1,000,000 of 4,000,000 rows, 25 %, 50,000 rows/s, 0.026 GB/s, 1 min 00 s left\n"
        )

    def test_at_most_one_line_per_interval_over_all_stages(self, clock):
        stream = io.StringIO()
        with Progress(stream, clock=clock) as progress:
            for stage in range(10):
                progress.started(f"iteration {stage}", 40)
                for _ in range(40):
                    clock.now += 0.25
                    progress.advanced(1, 100)
                progress.finished()
        assert stream.getvalue().count("\n") == 10

    def test_short_work_shows_nothing(self, clock):
        stream = io.StringIO()
        with Progress(stream, clock=clock) as progress:
            progress.started("labels", 10)
            clock.now += 9.9
            progress.advanced(10, 100)
            progress.finished()
        assert stream.getvalue() == ""

    def test_end_of_a_long_stage_without_reports(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        progress.started("shuffle", 10)
        clock.now += 60
        progress.finished()
        progress.finished()
        assert stream.getvalue() == "shuffle: 0 of 10 rows, 0 %\n"

    def test_notes_come_at_once(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        progress.note("level 1: [3] clusters are empty")
        progress.note("again")
        assert stream.getvalue() == "level 1: [3] clusters are empty\nagain\n"

    def test_stage_of_no_rows(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock, interval=0)
        progress.started("labels", 0)
        progress.advanced(0, 0)
        progress.finished()
        assert stream.getvalue() == "labels: 0 of 0 rows, 100 %\n" * 2

    def test_standard_error_is_the_place(self, capsys):
        Progress().note("here")
        assert capsys.readouterr() == ("", "here\n")

    def test_dumb_terminal_gets_plain_lines(self, clock, monkeypatch):
        monkeypatch.setenv("TERM", "dumb")
        terminal = Terminal()
        with Progress(terminal, clock=clock, interval=0) as progress:
            progress.started("labels", 2)
            progress.advanced(1, 1)
        assert terminal.getvalue() == "labels: 1 of 2 rows, 50 %\n"


class TestTerminal:
    @pytest.fixture
    def terminal(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        return Terminal()

    def test_live_line(self, clock, terminal):
        with Progress(terminal, clock=clock) as progress:
            progress.started("labels [1]", 4_000_000)
            clock.now += 10
            progress.advanced(1_000_000, 512_000_000)
            progress._screen.refresh()
            text = shown(terminal)
            progress.finished()
        assert "labels [1]" in text
        assert "25 %, 100,000 rows/s, 0.051 GB/s, 30 s left" in text

    def test_notes_stay_and_the_cursor_comes_back(self, clock, terminal):
        def work():
            with Progress(terminal, clock=clock) as progress:
                progress.started("labels", 10)
                progress.note("a [bold] note " + "x" * 200)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            work()
        assert "a [bold] note " + "x" * 200 + "\n" in shown(terminal)
        assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")

    def test_results_on_standard_output_are_left_alone(self, clock, terminal, capsys):
        with Progress(terminal, clock=clock) as progress:
            progress.started("labels", 10)
            print("result")
            progress.finished()
        assert capsys.readouterr().out == "result\n"
        assert "result" not in shown(terminal)

    def test_one_line_for_many_stages(self, clock, terminal):
        with Progress(terminal, clock=clock) as progress:
            for stage in range(30):
                progress.started(f"iteration {stage}", 10)
                progress.advanced(10, 10)
            progress._screen.refresh()
            progress.finished()
        # A transient line: nothing of it has scrolled up.
        assert "\n" not in shown(terminal).strip("\n")


class TestQuiet:
    @pytest.mark.parametrize("kind", [io.StringIO, Terminal])
    def test_nothing_at_all(self, clock, kind, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")
        stream = kind()
        with Progress(stream, quiet=True, clock=clock, interval=0) as progress:
            progress.started("labels", 10)
            progress.advanced(5, 5)
            progress.note("note")
            progress.finished()
        assert stream.getvalue() == ""


class TestGone:
    def test_stream_that_fails_does_not_stop_the_work(self, clock):
        class Gone(io.StringIO):
            writes = 0

            def write(self, text):
                self.writes += 1
                raise OSError(5, "Input/output error")

        stream = Gone()
        with Progress(stream, clock=clock, interval=0) as progress:
            progress.note("one")
            progress.started("labels", 10)
            progress.advanced(5, 5)
            progress.finished()
        assert stream.writes == 1


def test_durations():
    assert [duration(seconds) for seconds in (0, 59.4, 59.6, 3599, 3600, 90061)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "59 min 59 s",
        "1 h 00 min",
        "25 h 01 min",
    ]


class TestRuns:
    """What is shown of events."""

    def test_plain_lines_come_rarely_and_need_no_other(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        began = clock.now
        for event in MadeRun(speed=1e8).events:
            clock.now = began + seconds_of(event)
            progress.happened(event)
        lines = stream.getvalue().splitlines()
        assert lines[0] == "level 1/2, first fit, pass 1 of at most 50"
        middle = [line for line in lines if "inertia" in line and line.startswith("level 1/2, first fit")]
        assert re.fullmatch(
            r"level 1/2, first fit, pass \d+ of at most 50, k-means pass(es of 16 s| 50 %), 6.25 k rows/s, "
            r"inertia [\d.e+]+ \(-[\d.]+ %\), moved [\d.]+ %, about \d+ (min|s) left",
            middle[-1],
        )
        # Each level stays.
        assert [line for line in lines if re.match(r"level \d:", line)] == [
            "level 1: 100,000 points in 1,000 clusters, inertia 5e+07, 48 passes in 6 min 22 s",
            "level 2: 1,000 points in 100 clusters, inertia 500,000, 16 passes in 0.3 s",
        ]
        assert len(lines) < 40

    def test_a_short_run_shows_next_to_nothing(self, clock):
        stream = io.StringIO()
        with Progress(stream, clock=clock) as progress:
            began = clock.now
            for event in MadeRun([(1000, 10, 2), (10, 2, 0)]).events:
                clock.now = began + seconds_of(event)
                progress.happened(event)
        assert [line.partition(":")[0] for line in stream.getvalue().splitlines()] == ["level 1", "level 2"]

    def test_a_sign_of_life_while_nothing_happens(self, clock, monkeypatch):
        monkeypatch.setattr("streamcurate.display.plain._SECONDS_BETWEEN_BEATS", 0.01)
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        for event in MadeRun([(1000, 10, 0)]).events[:5]:
            progress.happened(event)
        for _ in range(2):
            clock.now += 20
            lines, begun = stream.getvalue().count("\n"), time.monotonic()
            while stream.getvalue().count("\n") == lines and time.monotonic() - begun < 30:
                time.sleep(0.005)
        progress.close()
        assert stream.getvalue() == "level 1/1, first fit, seeding for 20 s\nlevel 1/1, first fit, seeding for 40 s\n"

    def test_distance_between_lines_grows(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        progress.started("labels", 10**9)
        said = []
        for _ in range(40_000):
            before = stream.tell()
            clock.now += 1
            progress.advanced(1, 1)
            if stream.tell() > before:
                said.append(clock.now)
        gaps = [after - before for before, after in itertools.pairwise(said)]
        assert gaps[0] == 10
        assert max(gaps) == 300
        assert gaps == sorted(gaps)

    def test_warnings_and_resumption_are_said(self, clock):
        stream = io.StringIO()
        progress = Progress(stream, clock=clock)
        progress.happened(Resumed(engine="1", level=2))
        progress.happened(Warned("level 2 is degenerate", level=2))
        assert stream.getvalue() == "going on at level 2\nwarning: level 2 is degenerate\n"

    def test_a_second_run_is_not_mixed_with_the_first(self, clock):
        progress = Progress(io.StringIO(), clock=clock)
        for event in [*MadeRun([(1000, 10, 2)]).events, RunStarted(engine="1", store="b")]:
            progress.happened(event)
        assert progress._state.run.levels == {}

    def test_it_is_an_event_listener(self):
        assert isinstance(Progress(quiet=True), EventListener)

    def test_quiet_shows_nothing(self, capsys):
        progress = Progress(quiet=True)
        for event in MadeRun([(1000, 10, 2)]).events:
            progress.happened(event)
        assert capsys.readouterr() == ("", "")

    def test_trouble_with_showing_does_not_stop_the_work(self, clock, capsys, monkeypatch):
        def broken(*arguments):
            raise ZeroDivisionError("of points")

        monkeypatch.setattr("streamcurate.display.progress.said", broken)
        progress = Progress(io.StringIO(), clock=clock)
        for event in MadeRun([(1000, 10, 2)]).events:
            progress.happened(event)
        assert capsys.readouterr().err == (
            "progress is not shown any more (ZeroDivisionError: of points); the work goes on\n"
        )

    @pytest.mark.parametrize("kind", [io.StringIO, Terminal])
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(events=st.lists(ANY_EVENT, max_size=20))
    def test_any_events_are_shown(self, events, clock, kind, monkeypatch, capsys):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "60")
        stream = kind()
        with Progress(stream, clock=clock, interval=0) as progress:
            for event in events:
                clock.now += 1
                progress.happened(event)
                if isinstance(progress._screen, Screen):
                    progress._screen.refresh()
            assert not progress._quiet
        assert "not shown" not in capsys.readouterr().err

    def test_a_real_run_prints_its_levels(self):
        stream = io.StringIO()
        rows = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
        sc.cluster(rows, levels="20,4", progress=Progress(stream))
        assert re.search(
            r"level 1: 400 points in 20 clusters, inertia [\d.,]+, \d+ passes in [\d.]+ s\n", stream.getvalue()
        )
