"""``streamcurate mix`` as it is typed."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest
from frozen_trees import Centroids, build, store_of

from streamcurate.cli.main import main

MIXTURE = """
size: 30
seed: 2
parts:
  - {name: drawn, draw: run, share: 1, multiplier: 2}
  - {name: small, all: small.zarr, copies: 2}
exclude:
  - {rows: unwanted.npy, of: small.zarr}
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    build(tmp_path / "run", store_of(tmp_path / "pool.zarr", points), [Centroids(points[:4])])
    store_of(tmp_path / "small.zarr", points[:6] + 1)
    np.save("unwanted.npy", np.array([2]))
    (tmp_path / "mixture.yaml").write_text(MIXTURE)
    return tmp_path


def test_says_what_each_part_gave(made, capsys):
    assert main(["mix", "mixture.yaml", "--out", "out.parquet", "--threads", "1", "--quiet"]) == 0
    said = capsys.readouterr()
    table = pyarrow.parquet.read_table("out.parquet").to_pydict()
    drawn = table["part"].count("drawn")
    assert said.out.splitlines() == [
        "drawn: 20 rows" + (f" ({drawn} distinct)" if drawn < 20 else "") + " of run",
        "small: 10 rows (5 distinct) of small.zarr, 1 excluded or taken by others",
        f"out.parquet: 30 rows ({drawn + 5} distinct), seed 2",
    ]
    assert sum(table["copies"]) == 30
    assert said.err == ""


def test_as_json_with_another_seed(made, capsys):
    arguments = ["mix", "mixture.yaml", "--out", "out.csv", "--seed", "5", "--json", "--memory-limit", "1GiB"]
    assert main([*arguments, "--scratch", str(made / "scratch")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["seed"], said["out"]) == (30, 5, "out.csv")
    assert said["parts"][1] == {
        "name": "small",
        "kind": "all",
        "source": "small.zarr",
        "asked": None,
        "given": 10,
        "distinct": 5,
        "passed_over": 1,
    }
    assert (made / "out.csv").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("draw: run", "darw: run"), r"mixture.yaml: parts[0] (drawn): darw: unknown key; did you mean draw?"),
        (("draw: run", "draw: ruin"), "mixture.yaml: parts[0] (drawn): draw: ruin: no such file"),
        (("draw: run", "draw: run: run"), "error: mixture.yaml: line 5, column 28: expected ',' or '}'"),
        (("size: 30", "size: 300"), "mixture.yaml: parts[0] (drawn): "),
        (("unwanted.npy", "absent.npy"), "mixture.yaml: exclude[0]: rows: absent.npy: no such file"),
    ],
)
def test_what_is_wrong_ends_in_2(made, capsys, change, told):
    (made / "mixture.yaml").write_text(MIXTURE.replace(*change))
    assert main(["mix", "mixture.yaml", "--out", "out.parquet"]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert "Traceback" not in said.err
    assert not (made / "out.parquet").exists()


def test_one_is_one(made, capsys):
    (made / "mixture.yaml").write_text("parts: [{name: one, rows: unwanted.npy, of: small.zarr}]")
    assert main(["mix", "mixture.yaml", "--out", "out.csv", "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == ["one: 1 row of small.zarr", "out.csv: 1 row, seed 0"]
