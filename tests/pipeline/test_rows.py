"""What a user may name as rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.errors import InputError, RunError, StoreError
from streamcurate.pipeline.rows import open_rows


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    sc.ingest(tmp_path / "rows.npy", tmp_path / "emb.zarr")
    sc.cluster(tmp_path / "emb.zarr", tmp_path / "run", levels=[4], seed=0)
    return tmp_path / "run"


def test_a_run_by_path_and_as_a_tree(run: Path) -> None:
    for source in (run, str(run), sc.open_tree(run)):
        found = open_rows(source)
        assert found.tree is not None
        assert found.embeddings.rows == 40
        assert found.name == str(run)


def test_a_store_and_an_array(run: Path) -> None:
    assert open_rows(run.parent / "emb.zarr").tree is None
    assert open_rows(np.zeros((3, 2), dtype=np.float32)).embeddings.rows == 3


def test_rows_that_are_gone(run: Path) -> None:
    shutil.rmtree(run.parent / "emb.zarr")
    with pytest.raises(StoreError, match=r"emb\.zarr\); put the store back"):
        open_rows(run)


def test_an_unfinished_run_and_nothing(run: Path) -> None:
    manifest = run / "run.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(RunError):
        open_rows(run)
    with pytest.raises(InputError):
        open_rows(run.parent / "nothing")
