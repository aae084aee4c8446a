"""Live lines of a run on a terminal."""

from __future__ import annotations

import io
import re
import threading
import time

import pytest
from made_events import MadeRun

from streamcurate.display.progress import Progress
from streamcurate.runs import IterationFinished, LevelFinished, PassAdvanced

HALF = MadeRun().events
HALF = HALF[: next(index for index, event in enumerate(HALF) if isinstance(event, PassAdvanced)) + 1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def shown(terminal):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def tell(progress, events):
    for event in events:
        progress.happened(event)


def test_level_step_and_pass(terminal):
    with Progress(terminal) as progress:
        tell(progress, HALF)
        progress._screen.refresh()
    text = shown(terminal)
    assert "level 1 of 2, 100,000 points in 1,000 clusters" in text
    assert "  first fit, pass 1 of at most 50" in text
    assert re.search(r"    k-means pass ━+─+ 50 %, [\d.]+ k rows/s, [\d.]+ MB/s, \d s left", text)


def test_lines_that_stay_scroll_above(terminal):
    before = set(threading.enumerate())
    with Progress(terminal) as progress:
        tell(progress, MadeRun().events)
    assert "level 1: 100,000 points in 1,000 clusters, inertia 5e+07, 48 passes in" in shown(terminal)
    # The last thing is the cursor given back, and a line that has been cleared.
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    for thread in set(threading.enumerate()) - before:  # that of the display ends by itself
        thread.join(10)
        assert not thread.is_alive()


def test_colours_only_where_they_are_wanted(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with Progress(terminal) as progress:
        tell(progress, HALF)
        progress._screen.refresh()
    assert "━" in terminal.getvalue()
    assert not re.search(r"\x1b\[(\d+;)*3\dm", terminal.getvalue())


def test_characters_that_the_terminal_has(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    class Old(io.TextIOWrapper):
        def isatty(self):
            return True

    raw = io.BytesIO()
    with Progress(Old(raw, encoding="ascii", write_through=True)) as progress:
        tell(progress, HALF)
        progress._screen.refresh()
        assert not progress._quiet
    assert b"k-means pass ====" in raw.getvalue()


def test_nothing_is_left_hidden_when_nobody_closes(terminal, monkeypatch):
    """As in ``sc.ingest(..., progress=sc.Progress())``."""
    monkeypatch.setattr("streamcurate.display.terminal._SECONDS_BETWEEN_FRAMES", 0.01)
    progress = Progress(terminal)
    progress.started("reading", 10)
    progress.advanced(10, 10)
    progress.finished()
    begun = time.monotonic()
    while progress._screen._live is not None and time.monotonic() - begun < 30:
        time.sleep(0.005)
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    # And there is more to come.
    progress.started("writing", 10)
    progress._screen.refresh()
    assert "writing" in shown(terminal)
    progress.close()


def test_the_end_of_a_run_gives_the_terminal_back(terminal):
    progress = Progress(terminal)
    tell(progress, MadeRun().events)
    assert progress._screen._live is None


def test_frames_come_by_themselves(terminal, monkeypatch):
    monkeypatch.setattr("streamcurate.display.terminal._SECONDS_BETWEEN_FRAMES", 0.01)
    with Progress(terminal) as progress:
        tell(progress, HALF[:-1])
        length, begun = len(terminal.getvalue()), time.monotonic()
        while len(terminal.getvalue()) == length and time.monotonic() - begun < 30:
            time.sleep(0.005)
    assert "level 1 of 2" in shown(terminal)


def test_many_events_are_not_many_frames(terminal):
    """Tiny fits make thousands of passes a second."""
    with Progress(terminal) as progress:
        tell(progress, HALF)
        before = len(terminal.getvalue())
        for number in range(1, 2000):
            progress.happened(IterationFinished(1, 0, number, 5.0, 0.001, 0, 10, 3))
        assert len(terminal.getvalue()) - before < 100_000
        progress.happened(LevelFinished(1, 2, 3, 4.0, 0, ""))
    assert "level 1: 3 points in 2 clusters" in shown(terminal)
