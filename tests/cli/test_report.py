"""``streamcurate report`` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.runs import Manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    np.save(tmp_path / "emb.npy", rows)
    store = sc.ingest(tmp_path / "emb.npy", tmp_path / "emb.zarr")
    sc.cluster(store, tmp_path / "run", levels=[12, 3])
    return tmp_path / "run"


def call(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


def test_json_is_one_object_and_nothing_else(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.html"
    assert call(run, "--out", out, "--size", 30, "--strategy", "closest", "--json", "--quiet", "--threads", 1) == 0
    shown = capfd.readouterr()
    said = json.loads(shown.out)
    assert shown.err == ""
    assert (said["out"], said["bytes"], said["rows"], said["drawn"]) == (str(out), out.stat().st_size, 200, 30)
    assert [level["clusters"] for level in said["levels"]] == [12, 3]
    assert said["coverage"]["exact"] is True


def test_the_draw_of_a_file_is_the_one_that_is_shown(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw, out = tmp_path / "a.parquet", tmp_path / "a.html"
    assert main(["sample", str(run), "--size", "25", "--out", str(draw), "--quiet"]) == 0
    capfd.readouterr()
    assert call(run, "--out", out, "--selection", draw, "--branch", "1:3") == 0
    assert capfd.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.1f} MB about 200 rows and a draw of 25\n"
    assert "It is not known how this draw was made" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "201"], "at most 200 can be drawn"),
        (["--selection", "absent.npy"], "absent.npy: no such file"),
        (["--selection", "absent.npy", "--size", "3"], "size: says how to draw, and a selection is given"),
        (["--selection", "absent.npy", "--seed", "0"], "seed: says how to draw, and a selection is given"),
        (["--branch", "1:99"], "cluster 99 is not in level 1"),
        (["--metadata", "absent-*.parquet"], "no file matches"),
        (["--images", "nowhere"], "images 'nowhere'"),
        (["--memory-limit", "1MiB"], "the smallest supported is 512 MiB"),
        (["--scratch", "s3://bucket/x"], "scratch cannot lie at a URL"),
    ],
)
def test_errors_are_one_message_and_no_file(
    run: Path, tmp_path: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    assert call(run, "--out", tmp_path / "a.html", "--quiet", *arguments) == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    replace(Manifest.read(run), complete=False, digest=None).write(run)
    assert call(run, "--out", tmp_path / "a.html") == 2
    assert "the run is unfinished" in capfd.readouterr().err


def test_an_allocation_is_told(run: Path, tmp_path: Path) -> None:
    assert call(run, "--out", tmp_path / "a.html", "--size", 40, "--allocation", "proportional", "--quiet") == 0
    assert "random, seed 0, allocation proportional" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_help_needs_no_heavy_import() -> None:
    heavy = "{'numpy', 'zarr', 'numba', 'pyarrow'}"
    code = f"import sys, streamcurate.cli.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
