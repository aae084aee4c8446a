"""The command against a run and a store on disk, clustered here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import streamcurate
from streamcurate.cli.main import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``emb.zarr`` and a finished ``run`` of two levels."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "emb.npy", np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    (folder / "ids.txt").write_text("".join(f"img_{row:03}\n" for row in range(200)))
    store = streamcurate.ingest(str(folder / "emb.npy"), folder / "emb.zarr", ids=str(folder / "ids.txt"))
    streamcurate.cluster(store, folder / "run", levels=[streamcurate.Level(12), streamcurate.Level(4)], seed=0)
    return folder


def call(*arguments: object) -> int:
    return main(["explain", *map(str, arguments)])


def test_json_is_all_of_it_and_says_what_sample_does(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--size", 50, "--allocation", "power", "--alpha", 0.5, "--seed", 3, "--strategy", "closest"]
    assert call(made / "run", *options, "--id", "img_017", "--json") == 0
    shown = capfd.readouterr()
    said = json.loads(shown.out)
    assert shown.err == ""
    tree = streamcurate.open_tree(made / "run")
    selection = tree.sample(50, "closest", seed=3, allocation="power", alpha=0.5)
    assert said["row"]["row"] == 17
    assert said["row"]["copies"] == int(17 in selection.rows)
    assert said["draw"]["allocation"] == {"allocation": "power", "alpha": 0.5}
    for step in said["branch"]:
        labels = selection.labels[step["level"] - 1]
        assert step["child"]["quota"] == int((labels == step["child"]["cluster"]).sum())
    same = tree.explain(50, strategy="closest", seed=3, allocation="power", alpha=0.5, row=17)
    assert same.to_dict() == {**said, "row": {**said["row"], "id": None}}


def test_text_goes_down_to_a_cluster_or_lists_the_top(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(made / "run", "--size", 50, "--cluster", "2:1", "--quiet") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == "the root gives 50 rows, from 4 clusters of level 2"
    assert any(line.startswith("  → cluster 1: ") for line in lines)
    assert any(line.startswith("cluster 1 of level 2 gives ") for line in lines)
    assert call(made / "run", "--size", 50) == 0
    assert len(capfd.readouterr().out.splitlines()) == 5 + 4 + 2  # with a remainder, and how to read it


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster", "17"], "--cluster 17: a cluster is given as its level and its number, such as 1:17"),
        (["--cluster", "1:x"], "such as 1:17"),
        (["--cluster", "1:99"], "level 1 has no cluster 99"),
        (["--row", "200"], "row: 200 is not in"),
        (["--id", "img_999"], "id: 'img_999' is not among the ids of"),
        (["--row", "1", "--id", "img_001"], "give one of them"),
        (["--alpha", "0.5"], "alpha: 0.5 says nothing"),
        (["--eligible", "absent.npy"], "absent.npy: no such file"),
    ],
)
def test_errors_are_one_message(made: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(made / "run", "--size", 5, *arguments) == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_help_needs_no_heavy_import() -> None:
    heavy = "{'numpy', 'zarr', 'numba', 'pyarrow'}"
    code = f"import sys, streamcurate.cli.explain; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
