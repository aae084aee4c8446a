"""A log that is read while it is written."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_events import MadeRun

from streamcurate.runs import EventLog, RunStarted, Warned
from streamcurate.runs.follow import FollowedLog

EVENTS = MadeRun([(1000, 10, 1)]).events


@pytest.fixture
def written(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    with EventLog(path) as log:
        for event in EVENTS:
            log.append(event)
    return path.read_bytes()


def test_a_log_that_is_not_there_yet(tmp_path):
    log = FollowedLog(tmp_path / "events.jsonl")
    assert log.read() == ([], False)
    with EventLog(tmp_path / "events.jsonl") as file:
        file.append(EVENTS[0])
        assert log.read() == ([EVENTS[0]], False)
        assert log.read() == ([], False)
        file.append(EVENTS[1])
        assert log.read() == ([EVENTS[1]], False)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 1 << 14), max_size=8))
def test_cut_anywhere_it_comes_whole(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("log")
    path = folder / "events.jsonl"
    with EventLog(folder / "whole.jsonl") as file:
        for event in EVENTS:
            file.append(event)
    content = (folder / "whole.jsonl").read_bytes()
    log, found = FollowedLog(path), []
    for end in [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]:
        path.write_bytes(content[:end])
        found += log.read()[0]
    assert found == EVENTS
    assert log.skipped == 0


def test_a_torn_line_that_a_later_process_cuts_off(tmp_path, written):
    path = tmp_path / "events.jsonl"
    path.write_bytes(written + b'{"event": "warn')
    log = FollowedLog(path)
    assert log.read()[0] == EVENTS
    with EventLog(path) as file:  # cuts it off
        file.append(EVENTS[0])
    assert log.read() == ([EVENTS[0]], False)


def test_what_is_not_understood_is_passed_over(tmp_path, written):
    path = tmp_path / "events.jsonl"
    strange = b'{"event": "unheard-of", "time": "2030-01-01T00:00:00+00:00"}\n\0\0\0\n'
    warned = b'{"event": "warned", "time": "2030-01-01T00:00:00+00:00", "text": "t", "colour": "red"}\n'
    path.write_bytes(strange + warned + written)
    log = FollowedLog(path)
    assert log.read()[0] == [Warned("t", time="2030-01-01T00:00:00+00:00"), *EVENTS]
    assert log.skipped == 2


def test_a_run_begun_anew_in_the_same_place(tmp_path, written):
    path = tmp_path / "events.jsonl"
    path.write_bytes(written)
    log = FollowedLog(path)
    log.read()
    other = RunStarted(engine="2.0", store="b")
    with EventLog(tmp_path / "new") as file:
        file.append(other)
    os.replace(tmp_path / "new", path)
    assert log.read() == ([other], True)
    assert log.read() == ([], False)
