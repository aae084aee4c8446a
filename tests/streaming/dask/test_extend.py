"""A tree extended on workers is the tree extended in one process."""

from __future__ import annotations

import numpy as np
import pytest
from spreading import DIMS, LIMIT, rows, store

import streamcurate as sc
from streamcurate.clustering import new_rows

LEVELS = {
    "levels": [sc.Level(30), sc.Level(6)],
    "splits": [sc.Level(5, splits=7), sc.Level(4)],
}


@pytest.mark.parametrize("kind", LEVELS)
def test_the_same_tree(kind, workers, spread, handed, tmp_path, monkeypatch):
    monkeypatch.setattr(new_rows, "_SEGMENT_ROWS", 900)
    tree = sc.cluster(rows(), levels=LEVELS[kind], seed=9, threads=1)
    new = np.random.default_rng(2).standard_normal((1700, DIMS)).astype(np.float16) * 6
    place = store(tmp_path / "new.zarr", new)
    alone = tree.extend(place, tmp_path / "alone")
    shared = tree.extend(place, tmp_path / "shared", client=workers(2), memory_limit=LIMIT)
    memory = tree.extend(new, tmp_path / "memory", client=workers(2), memory_limit=LIMIT)
    assert handed.counts["PassTask labels"] >= 4
    assert alone.digest == shared.digest == memory.digest
    assert alone.manifest.extension.novelty == shared.manifest.extension.novelty
    assert [path.name for path in (tmp_path / "shared").iterdir() if path.name.startswith("scratch")] == []
