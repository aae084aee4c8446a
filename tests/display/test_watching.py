"""A run that another process makes, watched by its log."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading

import numpy as np
import pytest
from made_events import MadeRun, at

import streamcurate as sc
from streamcurate.display import watching
from streamcurate.display.progress import Progress
from streamcurate.display.watching import as_mapping, look, summary
from streamcurate.errors import RunError
from streamcurate.files import working_folder
from streamcurate.runs import (
    EventLog,
    Interrupted,
    IterationFinished,
    LevelFinished,
    PassAdvanced,
    Resumed,
    RunFinished,
    RunLock,
    RunStarted,
)

pytest_plugins = ["object_store"]

EVENTS = MadeRun([(100_000, 1000, 1), (1000, 100, 0)]).events
IN_A_PASS = next(index for index, event in enumerate(EVENTS) if isinstance(event, PassAdvanced)) + 1
IN_LEVEL_2 = next(index for index, event in enumerate(EVENTS) if isinstance(event, LevelFinished)) + 8


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watching, "_SECONDS_BETWEEN_LOOKS", 0.01)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    sc.cluster(np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32), run, levels="20,4")
    return run


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def note(run, events):
    with EventLog(run / "events.jsonl") as log:
        for event in events:
            log.append(event)


def watched(run):
    stream = io.StringIO()
    sc.watch(run, progress=Progress(stream))
    return stream.getvalue().splitlines()


class TestLook:
    def test_under_way(self, run):
        note(run, EVENTS[:IN_A_PASS])
        with RunLock(run):
            now = look(run)
            assert now.status == "running"
            lines = summary(now)
        assert lines[0].startswith(f"{run}: under way, process {os.getpid()} on ")
        assert lines[1].startswith("  level 1 of 2, 100,000 points in 1,000 clusters, ")
        assert lines[2:] == [
            "    first fit, pass 1 of at most 50",
            "      k-means pass ============------------ 50 %, 62.5 k rows/s, 4 MB/s, 0 s left",
        ]

    def test_as_values(self, run):
        note(run, EVENTS[:IN_LEVEL_2])
        with RunLock(run):
            found = json.loads(json.dumps(as_mapping(look(run)), allow_nan=False))
        assert (found["status"], found["level"], found["step"], found["stage"]) == ("running", 2, 0, "fit")
        assert (found["iteration"], found["pass"]) == (1, None)
        assert [level["finished"] for level in found["levels"]] == [True, False]
        assert found["levels"][0]["passes"] == sum(
            isinstance(event, IterationFinished) and event.level == 1 for event in EVENTS
        )
        # Years after the made log, nothing is left.
        assert found["seconds_left"] == 0

    def test_stopped_and_gone(self, run):
        note(run, [*EVENTS[:IN_LEVEL_2]])
        RunLock(run).acquire()
        (run / ".lock").unlink()  # as after a kill: nobody holds it
        assert summary(look(run))[0] == (
            f"{run}: its process is gone, at level 2; give the same cluster command again to go on"
        )
        note(run, [Interrupted("KeyboardInterrupt")])
        assert summary(look(run))[0] == (
            f"{run}: was stopped at level 2 (KeyboardInterrupt); give the same cluster command again to go on"
        )

    def test_a_lock_of_another_host_may_not_be_seen(self, run, monkeypatch):
        note(run, EVENTS[:IN_A_PASS])
        (run / ".lock").write_text('{"pid": 1, "host": "far-away", "since": "now"}')
        assert look(run).status == "gone"  # the log has been silent for years
        note(run, [RunStarted(engine="1", store="a")])
        assert look(run).status == "running"
        assert "its lock cannot be seen from here" in look(run).outcome
        (run / ".lock").write_text("half a li")
        assert look(run).status == "gone"

    def test_a_run_that_reads_its_rows_has_no_log(self, run):
        with RunLock(run):
            assert summary(look(run))[0].startswith(f"{run}: has no log yet; process ")

    def test_finished(self, finished):
        assert look(finished).status == "finished"
        lines = summary(look(finished))
        assert lines[0].startswith(f"{finished}: finished in ")
        assert [line.partition(":")[0] for line in lines[1:3]] == ["  level 1", "  level 2"]

    def test_finished_without_a_log(self, finished, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "run.json").write_bytes((finished / "run.json").read_bytes())
        assert look(tmp_path / "run").status == "finished"

    @pytest.mark.parametrize("name", ["absent", "."])
    def test_no_run(self, tmp_path, name):
        with pytest.raises(RunError, match="is no run directory"):
            look(tmp_path / name)


class TestWatch:
    def test_to_the_end(self, run):
        lock, log = RunLock(run), EventLog(run / "events.jsonl")
        lock.acquire()
        for event in EVENTS[:IN_A_PASS]:
            log.append(event)

        def work():
            for event in EVENTS[IN_A_PASS:]:
                log.append(event)
                threading.Event().wait(0.001)
            log.close()
            lock.release()

        worker = threading.Thread(target=work)
        worker.start()
        lines = watched(run)
        worker.join()
        assert [line.partition(" points")[0] for line in lines] == ["level 1: 100,000", "level 2: 1,000"]

    def test_from_before_there_is_a_log(self, run):
        lock = RunLock(run)
        lock.acquire()

        def work():
            threading.Event().wait(0.1)
            note(run, EVENTS)
            lock.release()

        worker = threading.Thread(target=work)
        worker.start()
        lines = watched(run)
        worker.join()
        assert "has no log yet" in lines[0]
        assert len(lines) == 3

    def test_what_was_finished_before_is_said_too(self, run):
        note(run, EVENTS[:IN_LEVEL_2])
        stream = io.StringIO()
        with pytest.raises(RunError, match="its process is gone, at level 2; give the same cluster command again"):
            sc.watch(run, progress=Progress(stream))
        assert stream.getvalue().startswith("level 1: 100,000 points in 1,000 clusters")

    def test_a_run_that_is_stopped_and_gone_on_with(self, run):
        lock = RunLock(run)
        lock.acquire()
        note(run, [*EVENTS[:IN_A_PASS], Interrupted("Terminated")])

        def work():
            threading.Event().wait(0.1)
            note(run, [Resumed(engine="1", level=1, time=at(50)), *EVENTS[IN_A_PASS:]])
            lock.release()

        worker = threading.Thread(target=work)
        worker.start()
        lines = watched(run)
        worker.join()
        assert lines[0] == "going on at level 1"
        assert len(lines) == 3

    def test_a_finished_run(self, finished):
        assert [line.partition(":")[0] for line in watched(finished)] == ["level 1", "level 2"]


class TestURL:
    @pytest.fixture(autouse=True)
    def temporary(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))

    def test_the_log_of_this_machine(self, object_store):
        url = object_store.url("run")
        folder = working_folder(url, "run")
        folder.mkdir()
        note(folder, EVENTS[:IN_A_PASS])
        with RunLock(folder):
            assert summary(look(f"{url}/"))[0].startswith(f"{url}/: under way, process")

    def test_the_working_folder_goes_when_all_is_published(self, object_store, finished):
        url = object_store.url("run")
        folder = working_folder(url, "run")
        folder.mkdir()
        whole = (finished / "events.jsonl").read_bytes()
        (folder / "events.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:-3]))
        lock = RunLock(folder)
        lock.acquire()
        stream, shown = io.StringIO(), threading.Event()

        class Noticing(Progress):
            def caught_up(self, run, ago):
                super().caught_up(run, ago)
                shown.set()

        def work():
            shown.wait(30)
            object_store.put("run/events.jsonl", whole)
            object_store.put("run/run.json", (finished / "run.json").read_bytes())
            shutil.rmtree(folder)
            lock.release()

        worker = threading.Thread(target=work)
        worker.start()
        sc.watch(url, progress=Noticing(stream))
        worker.join()
        # Nothing twice, and nothing left out.
        assert [line.partition(":")[0] for line in stream.getvalue().splitlines()] == ["level 1", "level 2"]

    def test_a_run_of_another_machine(self, object_store, finished):
        url = object_store.url("run")
        with pytest.raises(RunError, match="is no run directory"):
            look(url)
        begun = json.loads((finished / "run.json").read_text()) | {"complete": False, "digest": None, "levels": []}
        object_store.put("run/run.json", json.dumps(begun).encode())
        assert "another machine" in summary(look(url))[0]
        with pytest.raises(RunError, match="is built on another machine, where its log lies until a level is finished"):
            sc.watch(url, progress=Progress(io.StringIO()))
        object_store.put("run/run.json", (finished / "run.json").read_bytes())
        object_store.put("run/events.jsonl", (finished / "events.jsonl").read_bytes())
        assert summary(look(url)) == [line.replace(str(finished), url) for line in summary(look(finished))]
        assert len(watched(url)) == 2


def test_seconds_of_a_run_that_was_resumed(run):
    """The last process knows of its own alone."""
    note(run, [*EVENTS[:-1], RunFinished("d", 0.5)])
    assert "finished in 0 s" not in summary(look(run))[0]
