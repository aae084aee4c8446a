"""A run stays bound to its rows, their ids and its own arrays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.errors import DegenerateTreeWarning, RunError, StoreError

LEVELS = "30,6"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    np.save(tmp_path / "rows.npy", values)
    ingest(tmp_path, [f"n{row}" for row in range(300)])
    return tmp_path


def ingest(folder: Path, ids: list[str]) -> None:
    shutil.rmtree(folder / "emb.zarr", ignore_errors=True)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    sc.ingest(str(folder / "rows.npy"), folder / "emb.zarr", ids=str(folder / "ids.txt"))


def test_changed_ids_are_refused(store):
    tree = sc.cluster(store / "emb.zarr", store / "run", levels=LEVELS)
    assert tree.sample(5).ids[0].startswith("n")
    ingest(store, [f"n{row}" for row in reversed(range(300))])
    with pytest.raises(StoreError, match="ids changed since the run began"):
        list(sc.open_tree(store / "run").sample(5).ids)
    with pytest.raises(StoreError, match="ids changed since the run began"):
        sc.cluster(store / "emb.zarr", store / "run", levels=LEVELS)


def test_the_same_ids_written_again_are_fine(store):
    sc.cluster(store / "emb.zarr", store / "run", levels=LEVELS)
    ingest(store, [f"n{row}" for row in range(300)])
    assert len(sc.open_tree(store / "run").sample(5).ids) == 5


def test_moved_run_and_store_find_each_other_again(store):
    digest = sc.cluster(store / "emb.zarr", store / "run", levels=LEVELS).digest
    moved = store / "elsewhere"
    moved.mkdir()
    (store / "emb.zarr").rename(moved / "emb.zarr")
    (store / "run").rename(moved / "run")
    with pytest.raises(StoreError):
        list(sc.open_tree(moved / "run").sample(5).ids)
    assert sc.cluster(moved / "emb.zarr", moved / "run", levels=LEVELS).digest == digest
    assert len(sc.open_tree(moved / "run").sample(5).ids) == 5


def damaged(store: Path) -> Path:
    sc.cluster(store / "emb.zarr", store / "run", levels=LEVELS)
    chunk = store / "run/tree.zarr/level-1/members/c/0"
    members = np.fromfile(chunk, np.int64)
    members[::-1].tofile(chunk)
    return store / "run"


def test_reuse_refuses_a_damaged_level_and_leaves_nothing(store):
    run = damaged(store)
    with pytest.raises(RunError, match=r"run: level 1 is damaged"):
        sc.cluster(store / "emb.zarr", store / "new", levels="30,4", reuse=run)
    assert not (store / "new").exists()


def test_missing_array_of_a_tree_is_named(store, capsys):
    sc.cluster(store / "emb.zarr", store / "run", levels=LEVELS)
    shutil.rmtree(store / "run/tree.zarr/level-2/labels")
    with pytest.raises(StoreError, match=r"level-2/labels: is missing: the tree is damaged"):
        sc.open_tree(store / "run")
    assert main(["cluster", str(store / "emb.zarr"), str(store / "run"), "--levels", LEVELS]) == 2
    assert "level-2/labels: is missing" in capsys.readouterr().err
    with pytest.raises(StoreError, match="level-2/labels"):
        sc.cluster(store / "emb.zarr", store / "new", levels="30,6,2", reuse=store / "run")
    assert not (store / "new").exists()


def test_warnings_are_heard(tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.repeat(np.eye(3, dtype=np.float32), 20, axis=0))
    sc.ingest(str(tmp_path / "rows.npy"), tmp_path / "emb.zarr")
    with pytest.warns(DegenerateTreeWarning, match="7 of 10 clusters are empty"):
        sc.cluster(tmp_path / "emb.zarr", levels="10,3")
    assert main(["cluster", str(tmp_path / "emb.zarr"), str(tmp_path / "run"), "--levels", "10,3", "--quiet"]) == 0
    assert "7 of 10 clusters are empty" in capsys.readouterr().err


def test_skipped_resampling_is_told_once(tmp_path):
    rows = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    levels = [sc.Level(10, resampling=sc.Resampling(steps=2, rows_per_cluster=1))]
    tree = sc.cluster(rows, tmp_path / "run", levels=levels)
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert sum("resampling step 1" in event.get("text", "") for event in events) == 1
    assert sum("resampling step 1" in text for text in tree.warnings) == 1


def test_natural_arguments(store):
    one = sc.cluster(store / "emb.zarr", levels=20, memory_limit="1GiB")
    assert one.digest == sc.cluster(store / "emb.zarr", levels=[np.int64(20)]).digest
    assert one.levels[0].coarse_centroids is None
    split = sc.cluster(store / "emb.zarr", levels=[sc.Level(5, splits=3)])
    assert split.levels[0].coarse_centroids.shape == (5, 6)
    assert split.levels[0].coarse_offsets[-1] == split.levels[0].clusters
