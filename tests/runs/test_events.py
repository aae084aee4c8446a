from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.errors import DiskFullError, RunError
from streamcurate.runs import (
    Event,
    EventLog,
    Interrupted,
    IterationFinished,
    LevelFinished,
    LevelPlanned,
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
    read_events,
)

EVENTS = [
    RunStarted(engine="0.1.0", store="emb.zarr"),
    LevelPlanned(level=1, levels=2, points=1000, dims=16, clusters=10, iterations=50, steps=3, rows_per_cluster=5),
    LevelStarted(level=1),
    StageStarted("statistics"),
    StageFinished("statistics", seconds=1.5, rows=1000),
    PassAdvanced("labels", level=1, done=500, rows=1000, bytes=32000, seconds=1.5),
    PassFinished("labels", level=1, rows=1000, bytes=64000, seconds=0.5, tasks=4, busy_seconds=0.9),
    Seeded(level=1, step=0, method="k-means++", clusters=10, seconds=0.1),
    IterationFinished(level=1, step=0, iteration=0, inertia=0.1 + 0.2, seconds=2.5, refilled=1),
    Warned("two clusters → one “row” each\n", level=1),
    Interrupted("SIGTERM"),
    Resumed(engine="0.1.0", level=1, step=0, iteration=1),
    LevelFinished(level=1, clusters=10, rows=1000, inertia=5.0, empty=0, digest="ab"),
    RunFinished(digest="cd", seconds=9.0),
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for event in EVENTS:
            log.append(event)
    return path


def test_events_come_back_as_they_were(path):
    assert read_events(path) == EVENTS
    assert {type(event) for event in EVENTS} == set(Event.__subclasses__())


def test_lines_are_json_for_any_reader(path):
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {
        "event": "run-started",
        "time": EVENTS[0].time,
        "engine": "0.1.0",
        "store": "emb.zarr",
        "machine": "",
    }


def test_log_goes_on_where_it_ended(path):
    with EventLog(path) as log:
        log.append(Warned("again"))
    assert len(read_events(path)) == len(EVENTS) + 1


def test_every_cut_leaves_the_whole_lines_before_it(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.jsonl"
    for length in range(len(whole) + 1):
        cut.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        assert read_events(cut) == EVENTS[:kept]
        with EventLog(cut) as log:
            log.append(EVENTS[-1])
        assert read_events(cut) == [*EVENTS[:kept], EVENTS[-1]]


@given(st.lists(st.text(max_size=200), max_size=5), st.binary(max_size=100).filter(lambda tail: b"\n" not in tail))
def test_any_torn_tail_is_cut(tmp_path_factory, texts, tail):
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    events = [Warned(text) for text in texts]
    with EventLog(path) as log:
        for event in events:
            log.append(event)
    with open(path, "ab") as file:
        file.write(tail)
    assert read_events(path) == events
    EventLog(path).close()
    assert path.read_bytes().count(b"\n") == len(events)
    assert read_events(path) == events


def test_long_lines_are_found_from_the_end(tmp_path):
    path = tmp_path / "events.jsonl"
    events = [Warned("x" * 200_000), Warned("y" * 70_000)]
    with EventLog(path) as log:
        for event in events:
            log.append(event)
    with open(path, "ab") as file:
        file.write(b"z" * 150_000)
    EventLog(path).close()
    assert read_events(path) == events


def test_last_line_of_zeros_is_torn(path):
    # What a power cut may leave of a line that was never flushed.
    with open(path, "ab") as file:
        file.write(b"\0" * 40 + b"\n")
    assert read_events(path) == EVENTS
    EventLog(path).close()
    assert b"\0" not in path.read_bytes()


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"", b"3", b'{"event": "nonsense"}', b'{"event": "warned"}', b'{"event": "warned", "colour": 1}'],
)
def test_unreadable_line_elsewhere_is_named(path, line):
    lines = path.read_bytes().split(b"\n")
    lines[3] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunError, match=r"events\.jsonl: line 4 is no event"):
        read_events(path)


def test_unknown_event_at_the_end_is_not_taken_for_a_torn_one(path):
    with open(path, "ab") as file:
        file.write(b'{"event": "nonsense"}\n')
    with pytest.raises(RunError, match=f"line {len(EVENTS) + 1} .*unknown event 'nonsense'"):
        read_events(path)


def test_missing_file(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        read_events(tmp_path / "events.jsonl")


def test_threads_do_not_mix_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        threads = [
            threading.Thread(target=lambda name=name: [log.append(Warned(name * 300)) for _ in range(50)])
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    texts = [event.text for event in read_events(path)]
    assert sorted(texts) == sorted([name * 300 for name in "abcd"] * 50)


def test_nan_is_refused_and_leaves_nothing(path):
    with EventLog(path) as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.append(IterationFinished(1, 0, 0, inertia=float("nan"), seconds=0.0))
    assert read_events(path) == EVENTS


def test_full_disk_is_said_and_leaves_whole_lines(path, monkeypatch):
    import os

    write = os.write

    def half(descriptor, data):
        """Half a line, then no space."""
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with EventLog(path) as log:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(DiskFullError, match="no space left"):
            log.append(Warned("much to say" * 10))
        monkeypatch.undo()
        log.append(EVENTS[0])
    assert read_events(path) == [*EVENTS, EVENTS[0]]


def test_closed_log_takes_nothing(path):
    log = EventLog(path)
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(EVENTS[0])


class TestAnotherVersion:
    @pytest.fixture
    def newer(self, path):
        lines = path.read_text().splitlines(keepends=True)
        lines.insert(3, '{"event": "unheard-of", "time": "2030-01-01T00:00:00+00:00"}\n')
        lines.insert(5, '{"event": "warned", "time": "2030-01-01T00:00:00+00:00", "text": "t", "colour": "red"}\n')
        lines.insert(6, '{"event": "warned", "time": "at noon", "text": "t"}\n')
        path.write_text("".join(lines) + '{"event": "torn')
        return path

    def test_is_refused(self, newer):
        with pytest.raises(RunError, match=r"line 4 is no event of this version .*unheard-of"):
            read_events(newer)

    def test_can_be_skipped(self, newer):
        events = read_events(newer, unknown="skip")
        # A field that is not known is left out, an event that is not known is left out whole.
        assert events[4] == Warned("t", time="2030-01-01T00:00:00+00:00")
        assert [event for event in events if event.time != "at noon" and event != events[4]] == EVENTS

    def test_damage_is_no_other_version(self, newer):
        lines = newer.read_text().splitlines(keepends=True)
        newer.write_text("".join([*lines[:2], "damaged\n", *lines[2:]]))
        with pytest.raises(RunError, match="line 3"):
            read_events(newer, unknown="skip")
