"""Seeds as centroids, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from frozen_trees import store_of
from oracles import formula

from streamcurate.clustering.centroids import centre_vectors
from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings
from streamcurate.errors import DataError, InputError
from streamcurate.neighbors.examples.seeds import CentreRows, RowFaults, check_seeds, faults_of, seed_tiles
from streamcurate.streaming import Cost, MemoryBudget, MemoryRows

BUDGET = MemoryBudget.of(1 << 30, 1)


def values(count: int, dims: int = 3) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, dims)).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_seeds_are_centroids(metric, monkeypatch):
    """However they are held: read at once, or made centres each time they are read."""
    from streamcurate.neighbors.examples import seeds as module

    rows = as_embeddings(values(50))
    given = values(2500).astype(np.float16)
    held = check_seeds(as_embeddings(given), rows, metric, BUDGET, "seed")
    assert isinstance(held.centres, MemoryRows)
    monkeypatch.setattr(module, "_HELD_SHARE", 0)
    read = check_seeds(as_embeddings(given), rows, metric, BUDGET, "seed")
    assert isinstance(read.centres, CentreRows)
    assert read.digest == held.digest
    for centres in (held.centres, read.centres):
        np.testing.assert_array_equal(centres.read(3, 2400), centre_vectors(given[3:2400], metric))
        np.testing.assert_array_equal(centres.take(np.array([7, 1200])), centre_vectors(given[[7, 1200]], metric))
    # A seed's own row is where the seed is, up to the rounding of its length.
    own = np.diag(formula(given[:5], held.centres.read(0, 5), metric))
    assert (own <= (0 if metric == "l2" else 1e-13)).all()
    given[1, 1] += 1
    assert check_seeds(as_embeddings(given), rows, metric, BUDGET, "seed").digest != held.digest


def test_what_is_no_seed(tmp_path):
    rows = as_embeddings(values(50))
    bad = values(40)
    bad[[7, 30], 1] = np.nan, np.inf
    bad[[3, 9]] = 0

    def refused(given: Embeddings, metric: str, text: str) -> None:
        with pytest.raises(DataError, match=text):
            check_seeds(given, rows, metric, BUDGET, "seed")  # type: ignore[arg-type]

    refused(
        as_embeddings(bad),
        "l2",
        r"array in memory: 2 rows hold NaN or Inf \(first: row 7\); take them out of the seeds",
    )
    named = store_of(tmp_path / "seeds.zarr", bad, np.array([f"s{row}" for row in range(40)]))
    refused(open_embeddings(named), "cosine", r'seeds.zarr: 2 rows hold NaN or Inf \(first: row 7, id "s7"\)')
    bad[[7, 30]] = 1
    refused(as_embeddings(bad), "cosine", r"2 rows hold only zeros, .* \(first: row 3\); .* or choose l2")
    assert check_seeds(as_embeddings(bad), rows, "l2", BUDGET, "seed").rows == 40
    with pytest.raises(InputError, match=r"has 4 dims, .* has 3; give embeddings of the same model"):
        check_seeds(as_embeddings(values(5, 4)), rows, "l2", BUDGET, "seed")


def test_faults_combine_in_any_order():
    rows = np.ones((6, 2), np.float32)
    rows[1], rows[4], rows[2] = np.nan, np.inf, 0
    whole = faults_of(rows, np.arange(6) * 10, "cosine")
    assert whole == RowFaults(2, 10, 1, 20)
    parts = [faults_of(rows[row : row + 1], np.array([row * 10]), "cosine") for row in (4, 2, 0, 1, 3, 5)]
    total = RowFaults()
    for part in parts:
        total = total.combine(part)
    assert total == whole
    assert not RowFaults()


def test_tiles_fit_the_memory():
    source = MemoryRows(values(10))

    def cost(tile: int) -> Cost:
        return Cost(fixed_bytes=tile << 20)

    assert seed_tiles(100, source, BUDGET, cost) == [0, 100]
    edges = seed_tiles(5000, source, BUDGET, cost)
    assert edges[0] == 0
    assert edges[-1] == 5000
    assert max(np.diff(edges)) << 20 <= BUDGET.usable
    assert seed_tiles(1000, source, BUDGET, cost, 300) == [0, 300, 600, 900, 1000]
