from __future__ import annotations

import io
import re

import pytest

from streamcurate.cli.progress import Progress, duration


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


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
            progress._display.refresh()
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
            assert len(progress._display.tasks) == 1
            progress.finished()
            assert progress._display.tasks == []
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
