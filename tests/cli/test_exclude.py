"""``streamcurate exclude`` as it is typed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from frozen_trees import store_of

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.pipeline.retrieve import exclude


def rows(count: int, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, dims)).astype(np.float32)


@pytest.fixture
def places(tmp_path) -> tuple[str, str]:
    """A store and unwanted examples."""
    store = store_of(tmp_path / "rows.zarr", rows(300), np.arange(300) + 1000)
    return str(store), str(store_of(tmp_path / "unwanted.zarr", rows(12)))


def test_files_are_written(places, tmp_path, capsys):
    store, unwanted = places
    kept, removed = tmp_path / "kept.npy", tmp_path / "removed.csv"
    left = exclude(store, unwanted, l2=1)
    line = ["exclude", store, unwanted, "--out", str(kept), "--l2", "1", "--quiet"]
    assert main(line) == 0
    assert capsys.readouterr().out == f"{kept}: {left.kept} of 300 rows stay, {left.removed} go\n"
    np.testing.assert_array_equal(np.load(kept), left.mask)
    assert main([*line, "--removed", str(removed), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    counts = {"rows": 300, "kept": left.kept, "removed": left.removed}
    assert printed == {**counts, "out": str(kept), "removed_out": str(removed)}
    lines = removed.read_text().splitlines()
    assert lines[0] == '"row","id","unwanted","distance"'
    assert [int(line.split(",")[1]) for line in lines[1:]] == (left.near.rows + 1000).tolist()
    run = str(tmp_path / "run")
    sc.cluster(store, run, levels=[5])
    drawn = str(tmp_path / "drawn.npy")
    assert main(["sample", run, "--size", "50", "--eligible", str(kept), "--out", drawn, "--quiet"]) == 0
    assert left.mask[np.load(drawn)].all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "give exactly one of them"),
        (["--cosine", "1"], "not even copies reach it"),
        (["--l2", "x"], "'x' is not a valid float"),
        (["--l2", "1", "--removed", "gone/x.npy"], "does not exist"),
        (["--l2", "1", "--removed", "x.zarr"], "a list of rows is written as"),
    ],
)
def test_refusals(places, options, text, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["exclude", *places, "--out", str(tmp_path / "kept.npy"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert sorted(tmp_path.rglob("*")) == before
