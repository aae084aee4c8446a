"""``streamcurate retrieve`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from frozen_trees import store_of

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.pipeline.retrieve import retrieve


def rows(count: int, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, dims)).astype(np.float32)


@pytest.fixture
def places(tmp_path) -> tuple[str, str, str]:
    """A run, its store, and seeds."""
    store = store_of(tmp_path / "rows.zarr", rows(300), np.array([f"r{row}" for row in range(300)]))
    sc.cluster(store, tmp_path / "run", levels=[10, 3], metric="l2")
    seeds = store_of(tmp_path / "seeds.zarr", rows(12))
    return str(tmp_path / "run"), str(store), str(seeds)


def said(arguments: list[Any], capsys: Any) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return str(capsys.readouterr().out)


def test_a_file_is_written(places, tmp_path, capsys):
    run, store, seeds = places
    out = tmp_path / "near.parquet"
    line = ["retrieve", run, seeds, "--out", out, "--quiet"]
    found = retrieve(run, seeds, l2=1)
    assert said([*line, "--l2", 1], capsys) == f"{out}: {len(found)} of 300 rows, near 12 seeds by Euclidean distance\n"
    table = pyarrow.parquet.read_table(out)
    assert table["row"].to_pylist() == found.rows.tolist()
    assert table["id"].to_pylist() == [f"r{row}" for row in found.rows]
    text = said([*line, "--per-cluster", 2, "--level", 2], capsys)
    labels = sc.assign(run, seeds, tmp_path / "labels.zarr").labels(2)[:]
    clusters = len(np.unique(labels))
    assert (
        text
        == f"{out}: {2 * clusters} of 300 rows, near 12 seeds in {clusters} clusters of level 2 by Euclidean distance\n"
    )
    subset = tmp_path / "some.npy"
    np.save(subset, np.arange(50))
    options = [
        "--per-seed",
        2,
        "--cosine",
        0.5,
        "--subset",
        subset,
        "--scratch",
        tmp_path / "s",
        "--threads",
        1,
        "--json",
    ]
    printed = json.loads(said(["retrieve", store, seeds, "--out", tmp_path / "near.txt", *options], capsys))
    expected = retrieve(store, seeds, per_seed=2, cosine=0.5, subset=subset)
    assert printed == {
        "rows": len(expected),
        "of": 50,
        "seeds": 12,
        "metric": "cosine",
        "cosine": 0.5,
        "per_seed": 2,
        "out": str(tmp_path / "near.txt"),
    }
    assert expected.ids is not None
    assert (tmp_path / "near.txt").read_text().splitlines() == expected.ids.tolist()
    text = said([*line, "--per-cluster", 3, "--least-seeds", 2, "--json"], capsys)
    assert json.loads(text).items() >= {"per_cluster": 3, "least_seeds": 2, "level": 1}.items()
    said(["sample", run, "--size", 100, "--include", out, "--out", tmp_path / "drawn.npy", "--quiet"], capsys)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "which rows to retrieve is not said: give a radius (--cosine T, --l2 R), a quota"),
        (["--l2", "1", "--cosine", "0.5"], "exactly one of them"),
        (["--nearest", "3", "--per-seed", "3"], "quotas of different kinds"),
        (["--nearest", "301"], "ask for at most 300"),
        (["--l2", "1", "--subset", "gone.npy"], "no such file"),
        (["--per-cluster", "2", "--level", "3"], "has levels 1 to 2"),
    ],
)
def test_refusals(places, options, text, tmp_path, capsys):
    run, _, seeds = places
    before = sorted(tmp_path.rglob("*"))
    assert main(["retrieve", run, seeds, "--out", str(tmp_path / "near.npy"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_source(places, tmp_path, capsys):
    _, store, seeds = places
    other = store_of(tmp_path / "other.zarr", rows(9, 5))
    for source, examples, text in (
        (tmp_path / "gone", seeds, "no such file or folder"),
        (store, other, "has 5 dims"),
        (store, tmp_path / "gone.zarr", "no such file or folder"),
    ):
        arguments = ["retrieve", source, examples, "--out", Path(tmp_path, "near.npy"), "--nearest", 3]
        assert main([str(argument) for argument in arguments]) == 2
        assert text in capsys.readouterr().err
    assert not list(tmp_path.glob("near*"))


def test_one_is_said_as_one(places, tmp_path, capsys):
    _, store, _ = places
    one = store_of(tmp_path / "one.zarr", rows(1))
    out = tmp_path / "near.npy"
    line = ["retrieve", store, one, "--out", out, "--quiet", "--nearest", 1]
    assert said(line, capsys) == f"{out}: 1 of 300 rows, near 1 seed by cosine distance (1 - cos)\n"


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", ["retrieve", "exclude"])
def test_stopped_it_says_what_is_kept(places, tmp_path, capsys, monkeypatch, kept, name):
    """And only where something is."""
    from streamcurate.neighbors.examples import nearest_seeds

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    if kept:
        monkeypatch.setattr("streamcurate.neighbors.examples.found.Found.count", stop)
    else:
        monkeypatch.setattr(nearest_seeds, "_search", stop)
    _, store, seeds = places
    out = tmp_path / "near.npy"
    assert main([name, store, seeds, "--out", str(out), "--l2", "1", "--quiet"]) == 130
    told = capsys.readouterr().err
    assert (f"stopped; what is done is kept in {out}.partial; give the same command again" in told) == kept
    assert ("stopped; nothing was finished that could be kept; the same command begins anew" in told) == (not kept)
    assert (tmp_path / "near.npy.partial").exists() == kept
