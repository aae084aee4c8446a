"""What a run's log is told of passes under way, and who hears of it; what a run's events say, on however many cores."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.pipeline import log as module
from streamcurate.pipeline.log import RunLog, logged
from streamcurate.runs import (
    EventLog,
    Interrupted,
    IterationFinished,
    LevelFinished,
    LevelPlanned,
    LevelStarted,
    PassAdvanced,
    PassFinished,
    RunStarted,
    Seeded,
    StageFinished,
    StageStarted,
    Warned,
    read_events,
)
from streamcurate.streaming import MemoryBudget, PassReport, SerialExecutor


class Plain:
    """A listener that keeps what it is told, in words."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, name: str, rows: int) -> None:
        self.told.append(f"started {name} {rows}")

    def advanced(self, rows: int, bytes: int) -> None:
        self.told.append(f"advanced {rows} {bytes}")

    def finished(self) -> None:
        self.told.append("finished")

    def note(self, text: str) -> None:
        self.told.append(f"note {text}")


class Hearing(Plain):
    """An event listener: ``file`` is what it finds in the log at every event."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.events: list[Any] = []

    def happened(self, event: Any) -> None:
        assert read_events(self.path)[-1] == event
        self.events.append(event)


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def open_log(path) -> Callable[[Any], tuple[RunLog, Clock]]:
    opened = []

    def make(listener: Any) -> tuple[RunLog, Clock]:
        opened.append(EventLog(path))
        clock = Clock()
        return RunLog(opened[-1], listener, clock), clock

    yield make
    for file in opened:
        file.close()


def run_pass(log: RunLog, clock: Clock, steps: int, seconds: float, name: str = "k-means pass") -> None:
    log.started(name, steps * 10)
    for _ in range(steps):
        clock.now += seconds
        log.advanced(10, 70)
    log.finished()


def test_a_pass_is_noted_from_one_second_on(open_log, path):
    log, clock = open_log(Plain())
    run_pass(log, clock, 9, 0.1)
    assert read_events(path) == []
    log.level = 3
    run_pass(log, clock, 30, 0.125)
    found = read_events(path)
    assert [(event.name, event.level, event.rows) for event in found] == [("k-means pass", 3, 300)] * 4
    assert [(event.done, event.bytes, event.seconds) for event in found] == [
        (80, 560, 1.0),
        (160, 1120, 2.0),
        (240, 1680, 3.0),
        (300, 2100, 3.75),  # its end
    ]


def test_a_long_pass_is_noted_ever_less_often(open_log, path):
    log, clock = open_log(Plain())
    run_pass(log, clock, 86_400, 1.0)
    times = [event.seconds for event in read_events(path)]
    assert times[:20] == [float(second) for second in range(1, 21)]
    assert len(times) < 300
    # Never more than a twentieth of the pass, and what a block takes, without a word.
    gaps = np.diff(times)
    assert np.all(gaps <= 0.05 * np.array(times[1:]) + 1.0)
    assert np.all(gaps[:-1] >= np.maximum(1.0, 0.05 * np.array(times[1:-1])))
    assert times[-1] == 86_400.0


def test_passes_within_a_pass(open_log, path):
    log, clock = open_log(Plain())
    log.started("splitting", 100)
    clock.now += 5.0
    log.started("statistics", 7)
    clock.now += 0.5
    log.advanced(7, 70)
    log.finished()
    log.advanced(60, 0)
    log.finished()
    assert [(event.name, event.done, event.rows, event.seconds) for event in read_events(path)] == [
        ("splitting", 60, 100, 5.5)
    ]


def test_threads_report_side_by_side(open_log, path):
    log, clock = open_log(Plain())
    clock.now += 0.0
    ready = threading.Barrier(4)

    def work(number: int) -> None:
        log.started(f"pass {number}", 100 * number)
        ready.wait()
        clock.now = 55.0
        for _ in range(50):
            log.advanced(number, 0)
        ready.wait()
        log.finished()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = {event.name: event for event in read_events(path)}
    assert {name: (event.done, event.rows) for name, event in last.items()} == {
        f"pass {number}": (50 * number, 100 * number) for number in range(1, 5)
    }
    log.finished()  # of a pass that never began: nobody minds


def test_a_plain_listener_hears_passes_and_words(open_log, path):
    listener = Plain()
    log, clock = open_log(listener)
    run_pass(log, clock, 2, 1.5)
    log.emit(Warned(text="hm", level=1))
    log.emit(Seeded(level=1, step=0, method="random", clusters=2, seconds=0.0))
    log.note("a word")
    passes = ["started k-means pass 20", "advanced 10 70", "advanced 10 70", "finished"]
    assert listener.told == [*passes, "note warning: hm", "note a word"]


def test_an_event_listener_hears_events_alone(open_log, path):
    listener = Hearing(path)
    log, clock = open_log(listener)
    run_pass(log, clock, 2, 1.5)
    log.took(PassReport("k-means pass", 20, 140, 3.0))
    log.took(PassReport("k-means pass", 20, 140, 0.01))
    log.emit(Warned(text="hm", level=1))
    log.note("a word")
    assert listener.told == ["note a word"]
    kinds = [type(event) for event in listener.events]
    assert kinds == [PassAdvanced, PassAdvanced, PassFinished, Warned]
    assert listener.events == read_events(path)


def test_the_executor_reports_while_the_log_is_open(tmp_path):
    listener = Hearing(tmp_path / "events.jsonl")
    with SerialExecutor(MemoryBudget(1 << 30, 1), listener) as executor:
        before = executor.on_pass
        with logged(tmp_path, listener, executor) as log:
            assert executor.progress is executor.local.progress is log
            executor.progress.started("statistics", 5)
            executor.on_pass(PassReport("statistics", 5, 20, 2.0))
        with pytest.raises(RuntimeError), logged(tmp_path, listener, executor):
            raise RuntimeError("oh")
        assert (executor.progress, executor.on_pass) == (listener, before)
    assert [type(event) for event in listener.events] == [PassFinished, Interrupted]
    assert listener.told == []


def test_what_a_listener_raises_ends_the_work(tmp_path):
    class Failing(Plain):
        def happened(self, event: Any) -> None:
            if isinstance(event, IterationFinished):
                raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        sc.cluster(clumps(), tmp_path / "run", levels=[8], progress=Failing())
    assert isinstance(read_events(tmp_path / "run" / "events.jsonl")[-1], Interrupted)


# -- of runs -----------------------------------------------------------------------------------------------------------


def clumps(rows: int = 500, dims: int = 4) -> np.ndarray:
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((9, dims)) * 3
    return (centres[generator.integers(0, 9, rows)] + generator.standard_normal((rows, dims))).astype(np.float32)


LEVELS = [
    sc.Level(40, iterations=4, resampling=sc.Resampling(2, 3), tolerance=0.5),
    sc.Level(8, splits=2, iterations=3),
    sc.Level(3, iterations=2),
]


def test_all_that_happens_is_in_the_events(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_REPORTED_SECONDS", 0.0)
    monkeypatch.setattr(module, "_ADVANCED_SECONDS", 0.0)
    listener = Hearing(tmp_path / "run" / "events.jsonl")
    tree = sc.cluster(clumps(), tmp_path / "run", levels=LEVELS, progress=listener)
    events = read_events(tmp_path / "run" / "events.jsonl")
    assert listener.events == events
    # Before there is a run, there is no log.
    assert [text for text in listener.told if not text.startswith("advanced")] == ["started statistics 500", "finished"]
    assert isinstance(events[0], RunStarted)
    assert [type(event) for event in events[1:4]] == [LevelPlanned] * 3
    first, second, third = (strip(event) for event in events[1:4])
    assert first == strip(LevelPlanned(1, 3, 500, 4, 40, 4, steps=2, rows_per_cluster=3, tolerance=0.5))
    assert second == strip(LevelPlanned(2, 3, 40, 4, 8, 3, splits=2, tolerance=LEVELS[1].tolerance))
    assert third == strip(LevelPlanned(3, 3, 16, 4, 3, 2, tolerance=LEVELS[2].tolerance))
    assert not [event for event in events[4:] if isinstance(event, LevelPlanned)]
    order = [event for event in events if isinstance(event, LevelStarted | LevelFinished)]
    assert [(type(event), event.level) for event in order] == [
        (kind, level) for level in (1, 2, 3) for kind in (LevelStarted, LevelFinished)
    ]
    check_stages(events)
    own = [event.name for event in events if isinstance(event, PassAdvanced) and event.level == 2]
    assert {"statistics", "k-means pass", "coarse labels", "regrouping rows", "splitting", "writing members"} <= {*own}
    iterations = [event for event in events if isinstance(event, IterationFinished)]
    assert [event.iteration for event in iterations if event.moved is None] == [1] * 5  # fits: three, one, one
    assert [event.points for event in iterations if event.level == 3] == [
        tree.levels[1].clusters - tree.manifest.levels[1].empty
    ] * 2


def check_stages(events: list[Any]) -> None:
    """Every stage that begins ends, those within it before it."""
    open_stages: list[Any] = []
    seen = set()
    for event in events:
        if isinstance(event, StageStarted):
            open_stages.append(event)
            seen.add((event.stage, event.level, event.step))
        elif isinstance(event, StageFinished):
            began = open_stages.pop()
            assert (began.stage, began.level, began.step) == (event.stage, event.level, event.step)
            assert event.seconds > 0
            assert event.rows > 0
        elif isinstance(event, IterationFinished):
            assert open_stages[-1].stage == "fit"
        elif isinstance(event, LevelFinished):
            assert not open_stages
    fits = {(stage, 1, step) for stage in ("fit", "seeding") for step in range(3)}
    others = {(stage, level, None) for stage in ("labels", "members") for level in (1, 2, 3)}
    assert fits | others | {("splitting", 2, None), ("statistics", 2, None), ("statistics", 3, None)} <= seen


def test_a_resumed_run_plans_with_what_is_known(tmp_path, monkeypatch):
    run = tmp_path / "run"
    append = EventLog.append

    def stopping(self: EventLog, event: Any) -> None:
        append(self, event)
        if isinstance(event, StageStarted) and event.level == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            sc.cluster(clumps(), run, levels=[30, 6], subset=np.arange(0, 500, 2))
    tree = sc.cluster(clumps(), run, levels=[30, 6], subset=np.arange(0, 500, 2))
    events = read_events(run / "events.jsonl")
    resumed = next(number for number, event in enumerate(events) if type(event).__name__ == "Resumed")
    planned = events[resumed + 1 : resumed + 3]
    filled = 30 - tree.manifest.levels[0].empty
    assert [(event.level, event.points, event.clusters) for event in planned] == [(1, 250, 30), (2, filled, 6)]
    assert strip(events[resumed + 3]) == strip(LevelStarted(2))


def test_levels_taken_over_are_planned_anew(tmp_path):
    sc.cluster(clumps(), tmp_path / "a", levels=[sc.Level(12, splits=40), 4])
    tree = sc.cluster(clumps(), tmp_path / "b", levels=[sc.Level(12, splits=40), 3], reuse=tmp_path / "a")
    events = read_events(tmp_path / "b" / "events.jsonl")
    planned = [(event.level, event.points) for event in events if isinstance(event, LevelPlanned)]
    record = tree.manifest.levels[0]
    assert record.clusters < 480
    assert planned == [(1, 500), (2, 480), (1, 500), (2, record.clusters - record.empty)]
    assert [event.level for event in events if isinstance(event, LevelStarted)] == [2]


def test_an_extended_run_tells_what_it_does(tmp_path):
    tree = sc.cluster(clumps(), tmp_path / "run", levels=[20, 4])
    new = clumps(300) + np.float32(0.5)
    listener = Hearing(tmp_path / "more" / "events.jsonl")
    sc.extend(tree, new, tmp_path / "more", progress=listener)
    events = read_events(tmp_path / "more" / "events.jsonl")
    assert listener.events == events
    filled = tree.manifest.levels[0].clusters
    assert [strip(event) for event in events[1:3]] == [
        strip(LevelPlanned(1, 2, 800, 4, 20, 0)),
        strip(LevelPlanned(2, 2, filled, 4, 4, 0)),
    ]
    assert [event.level for event in events if isinstance(event, LevelStarted)] == [1, 2]
    stages = [(event.stage, event.level) for event in events if isinstance(event, StageFinished)]
    assert stages == [("labels", 1), ("members", 1), ("members", 2)]


def strip(event: Any) -> dict[str, Any]:
    """An event without what a clock or the division of work decides."""
    record = {"event": type(event).__name__} | dataclasses.asdict(event)
    return {key: value for key, value in record.items() if key not in ("time", "seconds")}


def lasting(run: Path) -> list[dict[str, Any]]:
    events = read_events(run / "events.jsonl")
    return [strip(event) for event in events if not isinstance(event, PassAdvanced | PassFinished)]


def test_threads_and_blocks_do_not_change_the_log(tmp_path, monkeypatch):
    store = sc.ingest(clumps(), tmp_path / "e.zarr")
    sc.cluster(store, tmp_path / "one", levels=LEVELS, threads=1, prefetch=False)
    monkeypatch.setattr("streamcurate.streaming.budget._LARGEST_BLOCK_ROWS", 64)
    sc.cluster(store, tmp_path / "three", levels=LEVELS, threads=3)
    assert lasting(tmp_path / "three") == lasting(tmp_path / "one")
