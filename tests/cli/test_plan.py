"""``streamcurate plan``: what is printed, what is refused, and that nothing is left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_plans import fixed_rates

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.storage import create_array


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    sc.ingest(random.normal(size=(600, 12)).astype(np.float16), "rows.zarr")
    fixed_rates(2).save("rates.json")
    return tmp_path


def listed() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def shown(capsys, *arguments: str) -> str:
    before = listed()
    assert main(["plan", *arguments]) == 0
    assert listed() == before
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys, *arguments: str) -> tuple[str, str]:
    before = listed()
    assert main(["plan", *arguments]) == 2
    assert listed() == before
    captured = capsys.readouterr()
    assert captured.err.startswith("streamcurate: error: ")
    assert captured.err.count("\n") == 1
    return captured.out, captured.err


def test_in_text(capsys):
    text = shown(capsys, "rows.zarr", "--levels", "40,5", "--rates", "rates.json", "--memory-limit", "1GiB")
    assert text.startswith("rows.zarr: 600 rows of 12 dims, float16 (14.1 KiB); metric l2, seed 0\n")
    assert "memory limit 1.0 GiB a process: fits" in text
    assert "level 1: 600 points, 40 clusters, seeding k-means++" in text
    assert "level 2: 40 points, 5 clusters" in text
    assert "iterations  10 of 50" in text
    assert "rates    measured: a machine of tests" in text


def test_as_json(capsys):
    options = ["rows.zarr", "--levels", "40,5", "--metric", "cosine", "--seed", "7", "--rates", "rates.json"]
    found = json.loads(shown(capsys, *options, "--threads", "3", "--workers", "2", "--json"))
    assert found["config"]["metric"] == "cosine"
    assert found["config"]["seed"] == 7
    assert (found["memory"]["threads"], found["memory"]["workers"], found["memory"]["fits"]) == (3, 2, True)
    assert [level["clusters"] for level in found["levels"]] == [40, 5]
    assert found["store"]["bytes"] == 600 * 12 * 2


def test_measured_and_kept(capsys):
    Path("levels.yaml").write_text("levels:\n  - clusters: 20\n    iterations: 3\n  - clusters: 4\n")
    options = ["rows.zarr", "--config", "levels.yaml", "--memory-limit", "1GiB", "--json"]
    assert main(["plan", *options, "--calibrate", "mine.json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(listed()) >= {"mine.json", "rows.zarr"}
    assert not Path("run").exists()
    again = json.loads(shown(capsys, *options, "--rates", "mine.json"))
    assert again["levels"] == first["levels"]
    assert first["seconds"]["start"] > 0


def test_a_subset_is_counted(capsys):
    np.save("some.npy", np.arange(0, 600, 2))
    options = ["rows.zarr", "--levels", "40,5", "--rates", "rates.json", "--subset", "some.npy", "--json"]
    found = json.loads(shown(capsys, *options))
    assert found["store"]["count"] == found["levels"][0]["points"] == 300
    _, error = refused(capsys, "rows.zarr", "--levels", "301,5", "--rates", "rates.json", "--subset", "some.npy")
    assert "301 clusters from the 300 rows of some.npy" in error


def test_what_does_not_fit_is_planned_and_refused(capsys):
    create_array("wide.zarr", (10**9, 768), "float16", 1 << 16)
    options = ["wide.zarr", "--memory-limit", "512MiB", "--rates", "one.json"]
    fixed_rates(1).save("one.json")
    Path("levels.yaml").write_text("levels: [{clusters: 100, init: k-means++}]\n")
    out, error = refused(capsys, *options, "--config", "levels.yaml", "--json")
    refusal = json.loads(out)["memory"]["refusal"]
    assert error == f"streamcurate: error: {refusal}\n"
    assert main(["cluster", "wide.zarr", "run", "--config", "levels.yaml", "--memory-limit", "512MiB"]) == 2
    assert refusal.split(" of working memory")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nothing.zarr", "--levels", "5"], "nothing.zarr: no such file or folder"),
        (["rows.zarr"], "give exactly one of them"),
        (["rows.zarr", "--levels", "5", "--config", "levels.yaml"], "give exactly one of them"),
        (["rows.zarr", "--levels", "601"], "601 clusters from the 600 rows of rows.zarr"),
        (["rows.zarr", "--levels", "5,9"], "levels[1].clusters"),
        (["rows.zarr", "--levels", "5", "--memory-limit", "1MiB"], "the smallest supported is 512 MiB"),
        (["rows.zarr", "--levels", "5", "--on", "8xAbacus"], "no hardware known by that name"),
        (["rows.zarr", "--levels", "5", "--rates", "absent.json"], "absent.json: cannot be read"),
        (["rows.zarr", "--levels", "5", "--rates", "rates.json"], "rates of 2 levels, and the configuration has 1"),
        (["rows.zarr", "--levels", "5", "--scratch", "rates.json"], "rates.json"),
        (["rows.zarr", "--levels", "5", "--calibrate", "none/such.json"], "none"),
    ],
)
def test_what_is_refused(capsys, options, said):
    out, error = refused(capsys, *options)
    assert out == ""
    assert said in error


def test_named_hardware(capsys):
    options = ["rows.zarr", "--levels", "40,5", "--rates", "rates.json"]
    assert "rates    assumed: nearest, 3.35e+13 FLOP/s a GPU" in shown(capsys, *options, "--on", "8xH100")
