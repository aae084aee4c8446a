"""Distances to the nearest drawn row against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import formula

from streamcurate.embeddings.store import as_embeddings
from streamcurate.reports import coverage
from streamcurate.reports.coverage import drawn_rows_looked_at, measure_coverage, pool_rows_measured
from streamcurate.reports.drawn import Drawn
from streamcurate.streaming import MemoryBudget, SerialExecutor


def drawn(rows: np.ndarray) -> Drawn:
    return Drawn(rows, np.ones_like(rows), [], "a draw", None)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dims", [2, 40])
@pytest.mark.parametrize("tile", [2000, 64])
def test_nearest_of_all_tiles(metric, dims, tile, monkeypatch) -> None:
    monkeypatch.setattr(coverage, "_tile", lambda *_: tile)
    values = np.random.default_rng(dims).standard_normal((900, dims)).astype(np.float16)
    values[700] = values[100]  # a twin of a drawn row
    picked = np.sort(np.random.default_rng(1).permutation(900)[:300])
    picked = np.union1d(picked, [100])
    pool_rows = np.union1d(np.arange(0, 900, 2), [700])
    store = as_embeddings(values)
    with SerialExecutor(MemoryBudget.of(1 << 30, 2)) as executor:
        found = measure_coverage(store, values[pool_rows], pool_rows, drawn(picked), metric, executor, 0)
    rows = values.astype(np.float64)
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # Drawn rows take the part of centroids: float32, for cosine of unit length.
    expected = formula(values[pool_rows], rows[picked].astype(np.float32), metric).min(axis=1)
    expected[np.isin(pool_rows, picked)] = 0
    expected = np.sort(np.sqrt(expected) if metric == "l2" else expected / 2).astype(np.float32)
    assert (found.distances == expected).all()
    assert (found.looked_at, found.drawn) == (len(picked), len(picked))
    figures = found.figures
    assert figures["max"] == expected[-1]
    assert figures["mean"] == pytest.approx(expected.astype(np.float64).mean())
    assert figures["p95"] == pytest.approx(np.quantile(expected.astype(np.float64), 0.95))


def test_some_of_too_many_drawn_rows_give_upper_bounds(monkeypatch) -> None:
    values = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
    picked, pool_rows = np.arange(0, 400, 2), np.arange(400)
    with SerialExecutor(MemoryBudget.of(1 << 30, 1)) as executor:
        whole = measure_coverage(as_embeddings(values), values, pool_rows, drawn(picked), "l2", executor, 0)
        monkeypatch.setattr(coverage, "_MOST_OPERATIONS", 2.0 * 400 * 3 * 25)
        some = measure_coverage(as_embeddings(values), values, pool_rows, drawn(picked), "l2", executor, 0)
    assert (some.looked_at, some.drawn) == (25, 200)
    assert (some.distances >= whole.distances).all()
    assert some.distances.sum() > whole.distances.sum()


def test_how_much_is_measured() -> None:
    assert pool_rows_measured(1000, 64, 15_000, 128) == 15_000  # all of a small pool
    assert pool_rows_measured(1000, 64, 10**9, 128) == 20_000
    assert pool_rows_measured(10**7, 64, 10**9, 128) == 2_000
    assert pool_rows_measured(1000, 4096, 10**9, 16384) * 16384 <= 24 << 20
    assert drawn_rows_looked_at(10**5, 64, 2_000) == 10**5
    assert drawn_rows_looked_at(10**9, 1024, 2_000) == 976_562


def test_a_tight_memory_limit_makes_tiles(monkeypatch) -> None:
    values = np.random.default_rng(0).standard_normal((3000, 600)).astype(np.float32)
    picked = np.arange(3000)
    seen = []
    wrapped = coverage.centre_vectors
    monkeypatch.setattr(
        coverage, "centre_vectors", lambda rows, metric: seen.append(len(rows)) or wrapped(rows, metric)
    )
    monkeypatch.setattr(coverage, "_TILE_BYTES", 600 * 4 * 1100)
    with SerialExecutor(MemoryBudget.of(512 << 20, 1)) as executor:
        found = measure_coverage(as_embeddings(values), values[:50], np.arange(50), drawn(picked), "l2", executor, 0)
    assert seen == [1100, 1100, 800]
    assert not found.distances.any()
