"""The tree that any number of workers build is the one that one process builds."""

from __future__ import annotations

import numpy as np
import pytest
from spreading import DIMS, LIMIT, plain, rows, store

import streamcurate as sc
from streamcurate.clustering import centroids, fit
from streamcurate.streaming import MemoryBudget
from streamcurate.streaming.dask import executor

LEVELS = {
    "resampled": [
        sc.Level(40, iterations=4, resampling=sc.Resampling(1, 3)),
        sc.Level(8, resampling=sc.Resampling(1, 3, "random")),
    ],
    "oversampled": [sc.Level(30, init="k-means||", iterations=3), sc.Level(5, init="k-means||", iterations=3)],
    "minibatch": [sc.Level(30, algorithm="minibatch", iterations=2), sc.Level(5, init="random", iterations=3)],
    "fit rows": [sc.Level(30, fit_rows=901, iterations=3), sc.Level(5, fit_rows=20, iterations=3)],
    "splits": [sc.Level(9, splits=4, iterations=3), sc.Level(7, splits=2, iterations=3)],
}
# Kinds of tasks that each must have had: a pass that should have been spread and was not proves nothing.
HANDED = {
    "resampled": {
        "PassTask statistics",
        "PassTask seeding",
        "PassTask k-means pass",
        "SliceTask k-means pass",
        "PassTask resampling",
        "PassTask labels",
        "MapTask sorting members",
    },
    "oversampled": {"PassTask k-means|| round", "PassTask k-means|| draw", "PassTask k-means|| weights"},
    "minibatch": {"PassTask k-means pass", "PassTask labels"},
    "fit rows": {"PassTask drawing rows", "PassTask labels"},
    "splits": {"PassTask coarse labels", "MapTask regrouping rows", "MapTask splitting", "MapTask sorting members"},
}


@pytest.mark.parametrize("kind", LEVELS)
def test_two_workers(kind, workers, spread, handed, tmp_path):
    levels, run = LEVELS[kind], tmp_path / "run"
    place = store(tmp_path / "e.zarr")
    tree = sc.cluster(place, run, levels=levels, seed=9, client=workers(2), memory_limit=LIMIT)
    assert tree.digest == plain(levels)
    assert {kind for kind, count in handed.counts.items() if count > 2} >= HANDED[kind]
    assert not (run / "scratch").exists()
    assert not list(run.glob(".session-*"))


def test_one_and_four_workers(workers, spread, tmp_path):
    levels = LEVELS["oversampled"]
    expected, place = plain(levels), store(tmp_path / "e.zarr")
    for count in (1, 4):
        assert sc.cluster(place, levels=levels, seed=9, client=workers(count)).digest == expected


@pytest.mark.parametrize("chunk_rows", [13, pytest.param(1500, marks=pytest.mark.slow)])
def test_chunks_of_the_store(workers, spread, tmp_path, chunk_rows, monkeypatch):
    monkeypatch.setattr(fit, "_HELD_SHARE", 0)  # the rows are read from the store, not sent for once
    levels = LEVELS["resampled"]
    place = store(tmp_path / "e.zarr", chunk_rows=chunk_rows)
    assert sc.cluster(place, levels=levels, seed=9, client=workers(2)).digest == plain(levels)


def test_cosine_and_float32(workers, spread, tmp_path):
    levels = [sc.Level(30, iterations=3, resampling=sc.Resampling(1, 4)), sc.Level(6)]
    values = rows().astype(np.float32) * np.float32(1.0 / 3.0)
    place = store(tmp_path / "e.zarr", values)
    for metric in ("l2", "cosine"):
        tree = sc.cluster(place, levels=levels, seed=9, client=workers(2), metric=metric)
        assert tree.digest == plain(levels, values, metric=metric)


@pytest.mark.slow
def test_centroids_in_tiles(workers, spread, handed, tmp_path, monkeypatch):
    levels = [sc.Level(20, init="random", iterations=3, resampling=sc.Resampling(1, 3)), sc.Level(4, init="random")]
    expected = plain(levels)
    monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
    monkeypatch.setattr(centroids, "SMALLEST_TILE", 7)
    monkeypatch.setattr(executor, "_SLICE_BYTES", 100)
    assert sc.cluster(store(tmp_path / "e.zarr"), levels=levels, seed=9, client=workers(2)).digest == expected
    wanted = {"PassTask labels, tile 3 of 4", "PassTask sums of a tile", "SliceTask sums of a tile"}
    assert {kind for kind, count in handed.counts.items() if count > 2} >= wanted


def test_a_masked_store(workers, spread, tmp_path):
    """Tasks in which few or no rows count."""
    chosen = np.concatenate([np.arange(100, 108), np.arange(600, 1400, 2)])
    levels = [sc.Level(9, splits=4, iterations=3), sc.Level(5, iterations=3)]
    place = store(tmp_path / "e.zarr")
    tree = sc.cluster(place, levels=levels, seed=9, client=workers(2), subset=chosen[::-1])
    assert tree.digest == plain(levels, subset=chosen)


def test_arrays_in_memory_are_laid_down(workers, spread, handed, tmp_path):
    levels = LEVELS["fit rows"]
    expected = plain(levels)
    dask = pytest.importorskip("dask.array")
    for source in (rows(), dask.from_array(rows(), chunks=(400, DIMS // 2))):
        run = tmp_path / type(source).__name__
        handed.counts.clear()
        assert sc.cluster(source, run, levels=levels, seed=9, client=workers(2)).digest == expected
        assert handed.counts["PassTask k-means pass"] > 2
        assert not (run / "scratch").exists()


def test_sums_added_in_few_and_in_many_slices(workers, spread, handed, tmp_path, monkeypatch):
    levels = [sc.Level(50, init="random", iterations=2)]
    expected, place = plain(levels), store(tmp_path / "e.zarr")
    counts = []
    for size in (1, 1500, 1 << 30):
        monkeypatch.setattr(executor, "_SLICE_BYTES", size)
        handed.counts.clear()
        assert sc.cluster(place, levels=levels, seed=9, client=workers(2)).digest == expected
        counts.append(handed.counts.get("SliceTask k-means pass", 0))
    assert counts[0] == 2 * 50
    assert 2 * 50 > counts[1] > 2
    assert counts[2] == 0


def test_small_passes_stay_at_home(workers, handed, tmp_path):
    levels = LEVELS["oversampled"]
    assert sc.cluster(store(tmp_path / "e.zarr"), levels=levels, seed=9, client=workers(2)).digest == plain(levels)
    assert handed.counts == {}


def test_another_number_of_workers_on_resume(workers, spread, handed, tmp_path):
    """From workers to none and back, each time stopped in the middle."""
    levels, run = LEVELS["resampled"], tmp_path / "run"
    expected, place = plain(levels), store(tmp_path / "e.zarr")

    def stop(kind: str, count: int) -> None:
        if kind == "PassTask labels" and count == 3:
            raise KeyboardInterrupt

    handed.hear = stop
    with pytest.raises(KeyboardInterrupt):
        sc.cluster(place, run, levels=levels, seed=9, client=workers(2))
    assert not list(run.glob(".session-*"))
    assert sc.cluster(place, run, levels=levels, seed=9).digest == expected
    assert not (run / "scratch").exists()
