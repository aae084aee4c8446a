"""What a log tells of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_events import MadeRun

from streamcurate.reports.history import history_of, read_history
from streamcurate.runs.events import (
    EventLog,
    IterationFinished,
    LevelFinished,
    PassFinished,
    Resumed,
    RunFinished,
    RunStarted,
    Seeded,
)
from streamcurate.runs.progress import RunProgress


def at(second: float) -> str:
    return f"2026-01-02T03:{int(second) // 60:02}:{second % 60:06.3f}+00:00"


def iteration(level: int, step: int, number: int, inertia: float, second: float) -> IterationFinished:
    return IterationFinished(
        level=level, step=step, iteration=number, inertia=inertia, seconds=1.0, refilled=1, time=at(second)
    )


def level(number: int, second: float) -> LevelFinished:
    return LevelFinished(level=number, clusters=3, rows=9, inertia=1.0, empty=0, digest="0", time=at(second))


EVENTS = [
    RunStarted(engine="1.0", store="a", time=at(0)),
    PassFinished(name="statistics", level=1, rows=9, bytes=36, seconds=1.0, tasks=4, time=at(2)),
    Seeded(level=1, step=0, method="k-means++", clusters=3, seconds=2.0, time=at(4)),
    iteration(1, 0, 1, 50.0, 5),
    iteration(1, 0, 2, 40.0, 6),
    # Killed here; half a minute later the second pass is made again.
    Resumed(engine="1.1", level=1, step=0, iteration=2, time=at(40)),
    iteration(1, 0, 2, 40.0, 42),
    iteration(1, 1, 1, 20.0, 43),
    level(1, 45),
    iteration(2, 0, 1, 7.0, 48),
    level(2, 50),
    RunFinished(digest="d", seconds=10.0, time=at(51)),
]


def test_times_leave_out_what_lies_between_a_stop_and_the_next_start() -> None:
    found = history_of(EVENTS)
    assert [each.level for each in found.levels] == [1, 2]
    assert [each.seconds for each in found.levels] == [pytest.approx(6 + 5), pytest.approx(5)]
    assert found.seconds == pytest.approx(17)
    assert (found.resumed, found.tasks, found.engines) == (1, 4, ("1.0", "1.1"))
    assert (found.began, found.ended, found.trouble) == (at(0), at(51), None)


def test_passes_made_twice_count_once() -> None:
    first, second = history_of(EVENTS).levels
    assert [(fit.step, fit.seeding, fit.inertias, fit.refilled) for fit in first.fits] == [
        (0, "k-means++", (50.0, 40.0), 2),
        (1, None, (20.0,), 1),
    ]
    assert (first.seeding_seconds, first.lloyd_seconds, first.bytes, first.tasks) == (2.0, 3.0, 36, 4)
    assert [fit.inertias for fit in second.fits] == [(7.0,)]


def test_shares_of_points_that_moved() -> None:
    first = MadeRun([(100_000, 1000, 1)]).events
    (level,) = history_of(first).levels
    for fit in level.fits:
        assert fit.moved[0] is None
        assert len(fit.moved) == len(fit.inertias)
        shares = [share for share in fit.moved if share is not None]
        assert shares == sorted(shares, reverse=True)
    assert level.fits[0].moved[1] == pytest.approx(0.06)
    # Logs of earlier versions do not tell.
    assert history_of(EVENTS).levels[0].fits[0].moved == (None, None)


def test_is_the_one_fold_of_the_log() -> None:
    events = MadeRun().events
    run, found = RunProgress.of(events), history_of(events)
    assert [each.level for each in found.levels] == list(run.levels)
    assert found.seconds == run.seconds
    for level in found.levels:
        progress = run.levels[level.level]
        assert sum(len(fit.inertias) for fit in level.fits) == progress.iterations
        assert (level.seconds, level.bytes) == (run.spent[level.level], progress.bytes)
        assert [fit.inertias[-1] for fit in level.fits] == [
            fit.last.inertia for fit in progress.fits.values() if fit.last
        ]


def test_what_a_newer_version_noted_is_left_out(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        for event in EVENTS:
            log.append(event)
    before = read_history(str(tmp_path))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "unheard-of", "time": "2026-01-02T03:00:00+00:00"}\n')
    assert read_history(str(tmp_path)) == before == history_of(EVENTS)


def test_without_a_log_it_says_so(tmp_path: Path) -> None:
    assert read_history(str(tmp_path)).trouble == "events.jsonl is not there"
    (tmp_path / "events.jsonl").write_text('no event\n{"event": "x"}\n')
    found = read_history(str(tmp_path))
    assert found.trouble is not None
    assert found.trouble.startswith("events.jsonl: line 1 is no event of this version")
    (tmp_path / "events.jsonl").write_text("")
    assert read_history(str(tmp_path)).trouble == "events.jsonl tells of nothing"
