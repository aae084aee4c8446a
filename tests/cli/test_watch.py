"""``streamcurate watch`` as it is typed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_events import MadeRun

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.runs import EventLog, Interrupted, RunLock


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("watch") / "run"
    sc.cluster(np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32), place, levels="20,4")
    return place


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_a_finished_run(run, capsys, options):
    assert main(["watch", str(run), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].startswith(f"{run}: finished in ")
    assert "  level 1: 300 points in 20 clusters, inertia " in out


def test_json(run, capsys):
    assert main(["watch", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], [level["clusters"] for level in found["levels"]]) == ("finished", [20, 4])


def test_a_run_that_was_stopped(tmp_path, capsys):
    with EventLog(tmp_path / "events.jsonl") as log:
        for event in [*MadeRun().events[:9], Interrupted("KeyboardInterrupt")]:
            log.append(event)
    message = f"{tmp_path}: was stopped at level 1 (KeyboardInterrupt); give the same cluster command again to go on\n"
    assert main(["watch", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", f"streamcurate: error: {message}")
    assert main(["watch", str(tmp_path), "--once"]) == 0
    assert capsys.readouterr() == (message, "")


def test_ctrl_c_stops_the_watching_only(tmp_path, capsys, monkeypatch):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append(MadeRun().events[0])

    def pressed(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", pressed)
    with RunLock(tmp_path):
        assert main(["watch", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "streamcurate: stopped; the run itself goes on\n"


@pytest.mark.parametrize("name", ["absent", "."])
def test_no_run(tmp_path, capsys, name):
    assert main(["watch", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is no run directory" in err
