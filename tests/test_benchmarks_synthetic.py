"""The rows that the benchmarks of scale are made of."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import streamcurate as sc

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def synthetic(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not BENCHMARKS.is_dir():
        pytest.skip("the source distribution holds no benchmarks")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("synthetic")


@pytest.mark.parametrize("dims", [3, 64])
def test_any_block_is_the_same_on_its_own(synthetic, dims: int) -> None:
    whole = synthetic.Mixture(dims).rows(0, 9000)
    for start, stop in [(0, 1), (17, 4001), (8999, 9000)]:
        np.testing.assert_array_equal(synthetic.Mixture(dims).rows(start, stop), whole[start:stop])
    assert not np.array_equal(synthetic.Mixture(dims, seed=1).rows(0, 9000), whole)
    assert np.abs(whole).max() <= 1
    assert len(np.unique(whole, axis=0)) == len(whole)


def test_components_follow_the_power_law(synthetic) -> None:
    rows = 1_000_000
    counts = np.bincount(synthetic.Mixture(2).components(0, rows), minlength=synthetic.COMPONENTS)
    expected = synthetic.shares() * rows
    # Shares are rounded to multiples of 2^-20: a row each, beside chance.
    assert np.all(np.abs(counts - expected) <= 6 * np.sqrt(expected) + 1)


def test_rows_lie_around_the_centre_of_their_component(synthetic) -> None:
    mixture = synthetic.Mixture(32)
    rows, own = mixture.rows(0, 200_000).astype(np.float64), mixture.components(0, 200_000) == 0
    spread = rows[own].std(axis=0)
    np.testing.assert_allclose(spread, synthetic.ROW_SPREAD, rtol=0.05)
    # Components and groups differ by more than rows of one component do.
    assert rows.std() > 2 * synthetic.ROW_SPREAD


def test_the_store_holds_the_rows(synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 70_000
    monkeypatch.setattr(synthetic, "CHUNK_BYTES", 1 << 20)
    synthetic.write_store(tmp_path / "rows.zarr", rows, 16)
    found = sc.open_embeddings(tmp_path / "rows.zarr")
    assert (found.rows, found.dims, found.dtype, found.chunk_rows) == (rows, 16, np.float16, 32768)
    np.testing.assert_array_equal(found.read(0, rows), synthetic.Mixture(16).rows(0, rows))
