"""How the fits converged, as the page shows it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from made_events import MadeRun

from streamcurate.reports.history import FitHistory, History, LevelHistory, history_of
from streamcurate.reports.markup import Names
from streamcurate.reports.section_run import convergence_section


def section(history: History) -> str:
    found = SimpleNamespace(history=history, levels=[SimpleNamespace(level=each.level) for each in history.levels])
    return convergence_section(Names(), found)


def level(*fits: FitHistory) -> History:
    return History(levels=(LevelHistory(1, 1.0, 0.1, 0.9, 0, 0, fits),))


def heights(markup: str, title: str) -> list[list[float]]:
    """Of the lines of a chart, in units of its drawing, from the top."""
    chart = next(part for part in markup.split("<svg ") if f">{title}</title>" in part)
    paths = re.findall(r'<path class="line [^"]+" d="M([^"]+)"', chart)
    return [[float(place.split()[1]) for place in path.split("L")] for path in paths]


def test_inertia_and_what_moved_for_each_level() -> None:
    markup = section(history_of(MadeRun().events))
    for number in (1, 2):
        assert f"Inertia of level {number}" in markup
        assert f"Points of level {number} that moved" in markup
    lines = heights(markup, "Points of level 1 that moved")
    assert len(lines) == 3
    assert all(line == sorted(line) for line in lines)  # falling
    assert "moved at last" in markup


def test_decades_lie_evenly_and_nothing_that_moved_on_the_axis() -> None:
    markup = section(level(FitHistory(0, None, (5.0, 4.0, 3.0, 2.0, 1.0), 0, (None, 0.1, 0.01, 0.001, 0.0))))
    (line,) = heights(markup, "Points of level 1 that moved")
    assert line[1] - line[0] == pytest.approx(line[2] - line[1], abs=0.2)
    assert line[3] - line[2] == pytest.approx(line[1] - line[0], abs=0.2)
    ticks = re.findall(r'text-anchor="end">([^<]+)<', markup.split("Points of level 1 that moved")[1])
    assert ticks == ["0.1", "1", "10", "0"]


@pytest.mark.parametrize("moved", [(), (None, None), (None, 0.0)])
def test_a_log_that_does_not_tell_has_no_second_chart(moved: tuple[float | None, ...]) -> None:
    markup = section(level(FitHistory(0, None, (5.0, 4.0), 0, moved)))
    assert "Inertia of level 1" in markup
    assert "that moved</title>" not in markup
