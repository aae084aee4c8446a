"""Labels for new rows on workers are those of one process."""

from __future__ import annotations

import numpy as np
import pytest
from spreading import DIMS, LIMIT, rows, store

import streamcurate as sc
from streamcurate.errors import InputError

LEVELS = {
    "levels": [sc.Level(30), sc.Level(6)],
    "splits": [sc.Level(5, splits=7), sc.Level(4)],
}


@pytest.mark.parametrize("kind", LEVELS)
def test_labels_of_every_level(kind, workers, spread, handed, tmp_path):
    tree = sc.cluster(rows(), levels=LEVELS[kind], seed=9, threads=1)
    new = np.random.default_rng(2).standard_normal((1700, DIMS)).astype(np.float16) * 6
    place = store(tmp_path / "new.zarr", new)
    alone = sc.assign(tree, new, tmp_path / "alone.zarr")
    shared = tree.assign(place, tmp_path / "shared.zarr", client=workers(2), memory_limit=LIMIT)
    memory = sc.assign(tree, new, tmp_path / "memory.zarr", client=workers(2), memory_limit=LIMIT)
    assert handed.counts["PassTask labels"] >= 4
    for level in (1, 2):
        for found in (shared, memory):
            np.testing.assert_array_equal(found.labels(level)[:], alone.labels(level)[:])
            np.testing.assert_array_equal(found.distances(level)[:], alone.distances(level)[:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.zarr", "memory.zarr", "new.zarr", "shared.zarr"]


def test_refused_before_anything_is_written(workers, tmp_path):
    tree = sc.cluster(rows(), levels=[30], seed=9, threads=1)
    with pytest.raises(InputError, match="has 3 dims"):
        sc.assign(tree, np.ones((5, 3), np.float32), tmp_path / "out.zarr", client=workers(2), memory_limit=LIMIT)
    with pytest.raises(InputError, match="no such folder"):
        sc.assign(tree, rows(), tmp_path / "no" / "out.zarr", client=workers(2), memory_limit=LIMIT)
    assert list(tmp_path.iterdir()) == []
