"""Measuring: what comes out is usable whatever the rows, and nothing is left. No times are looked at."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.embeddings.store import as_embeddings
from streamcurate.errors import DataError, InputError
from streamcurate.pipeline.plan import plan
from streamcurate.planning.bench import Stopwatch, TimeUpError
from streamcurate.planning.calibration import take_sample
from streamcurate.planning.rates import load_rates
from streamcurate.streaming import MemoryBudget

SECONDS = 0.5


@pytest.fixture
def rows() -> np.ndarray:
    random = np.random.default_rng(1)
    return (random.normal(size=(30, 20))[random.integers(0, 30, 4000)] + 0.2 * random.normal(size=(4000, 20))).astype(
        np.float16
    )


def numbers(value: Any) -> list[float]:
    if is_dataclass(value):
        return [number for field in fields(value) for number in numbers(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize(
    ("levels", "metric"),
    [
        ([sc.Level(40, resampling=sc.Resampling(3, 5)), sc.Level(8)], "l2"),
        ([sc.Level(30, fit_rows=500, init="k-means||")], "cosine"),
        ([sc.Level(20, splits=6), sc.Level(10)], "l2"),
        ([sc.Level(2, splits=700)], "l2"),  # too many for a bundle
        ([sc.Level(3000, init="random", iterations=2), sc.Level(1)], "l2"),
        ([sc.Level(4000, algorithm="minibatch", iterations=1)], "l2"),
        ([sc.Level(1)], "cosine"),
    ],
)
def test_a_sample_gives_usable_rates(rows, tmp_path, levels, metric):
    sc.ingest(rows, tmp_path / "rows.zarr")
    place = tmp_path / "scratch"
    place.mkdir()
    kept = tmp_path / "rates.json"
    options = {"levels": levels, "metric": metric, "memory_limit": "512MiB", "scratch": place}
    found = plan(tmp_path / "rows.zarr", seconds=SECONDS, calibrate_to=kept, **options)
    rates = load_rates(kept, len(levels))
    assert all(0 <= number < math.inf for number in numbers(rates))
    assert rates.origin == "measured"
    for level, own in zip(levels, rates.levels, strict=True):
        assert 1 <= own.first.iterations <= level.iterations
        assert 0 <= own.first.again <= 1
        assert (own.resampled is None) == (level.resampling is None)
        assert (own.splits is None) == (level.splits == 1)
    assert 0 < found.expected <= found.most < math.inf
    assert list(place.iterdir()) == []
    again = plan(tmp_path / "rows.zarr", rates=kept, **options)
    assert again.levels == found.levels


def test_small_fits_are_made_whole(rows, tmp_path):
    """The expected iterations are then those of a fit on the same rows in another order."""
    found = plan(rows, levels=[sc.Level(25)], scratch=tmp_path, seconds=60.0, memory_limit="1GiB")
    steps = [sc.cluster(rows[np.random.default_rng(seed).permutation(4000)], levels=[25]) for seed in range(3)]
    made = [tree.manifest.levels[0].iterations for tree in steps]
    assert 0.4 * min(made) <= found.levels[0].iterations <= 2.5 * max(made)


def test_bad_rows_are_not_measured(rows, tmp_path):
    rows[::2] = np.nan
    found = plan(rows, levels=[9], scratch=tmp_path, seconds=SECONDS, memory_limit="1GiB")
    assert found.expected > 0
    rows[:] = np.inf
    with pytest.raises(DataError, match="none of 4,000 rows read to measure by has a distance"):
        plan(rows, levels=[9], scratch=tmp_path, seconds=SECONDS, memory_limit="1GiB")
    rows[:] = 0
    with pytest.raises(DataError, match="or are zero"):
        plan(rows, levels=[9], metric="cosine", scratch=tmp_path, seconds=SECONDS, memory_limit="1GiB")
    assert list(tmp_path.iterdir()) == []


def test_a_sample_is_small_and_the_same_every_time():
    values = np.arange(3_000_000, dtype=np.float32).reshape(-1, 30)
    store = as_embeddings(values)
    budget = MemoryBudget(512 << 20, 1, held=200 << 20)
    one, two = (take_sample(store, budget, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.rows, two.rows)
    assert one.rows.nbytes <= budget.usable / 8 + values[:64].nbytes
    assert len(np.unique(one.rows[:, 0])) == len(one.rows)
    few = take_sample(as_embeddings(values[:7]), budget, seed=3)
    np.testing.assert_array_equal(np.sort(few.rows[:, 0]), values[:7, 0])
    whole = take_sample(as_embeddings(values[:901]), budget, seed=3)
    np.testing.assert_array_equal(np.sort(whole.rows[:, 0]), values[:901, 0])


def test_time_is_up_only_where_somebody_is_prepared():
    watch = Stopwatch(deadline=0.0)
    watch.advanced(1, 1)
    with watch.until(math.inf), pytest.raises(TimeUpError):
        watch.advanced(1, 1)
    watch.advanced(1, 1)
    assert watch.left == 0


def test_what_cannot_be_is_said(rows, tmp_path):
    with pytest.raises(InputError, match="give exactly one of them"):
        plan(rows)
    with pytest.raises(InputError, match="rates that are given are not measured"):
        plan(rows, levels=[5], rates=tmp_path / "a", calibrate_to=tmp_path / "b")
    with pytest.raises(InputError, match="scratch cannot lie at a URL"):
        plan(rows, levels=[5], scratch="s3://bucket/scratch")
