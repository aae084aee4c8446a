"""The pools are what the documents say they are."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from streamcurate.config import Config
from streamcurate.demo.curation import levels_file
from streamcurate.demo.measures import divergence, shares
from streamcurate.demo.pools import digits, load_digits, rings


def test_the_digits_of_the_package_are_those_of_scikit_learn() -> None:
    images, labels = load_digits()
    published = sklearn_digits()
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, published.data)
    np.testing.assert_array_equal(labels, published.target)


def test_the_long_tail_has_444_rows_and_a_divergence_of_0_589() -> None:
    pool = digits()
    assert pool.counts().tolist() == [170, 105, 65, 40, 25, 15, 9, 5, 5, 5]
    assert pool.rows.shape == (444, 64)
    assert round(divergence(pool.counts()), 3) == 0.589


def test_digits_keep_their_images_labels_and_ids_together() -> None:
    pool = digits()
    images, labels = load_digits()
    numbers = [int(name.split()[1].rstrip(",")) for name in pool.ids]
    assert numbers == sorted(set(numbers))
    np.testing.assert_array_equal(pool.rows, images[numbers])
    np.testing.assert_array_equal(pool.groups, labels[numbers])
    assert [int(name[-1]) for name in pool.ids] == pool.groups.tolist()


def test_rings_are_five_and_apart() -> None:
    pool = rings()
    assert pool.counts().tolist() == [20_000, 200, 1_000, 500, 8_000]
    centres = []
    for group in range(5):
        points = pool.rows[pool.groups == group].astype(np.float64)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        radius = np.linalg.norm(points - middle, axis=1)
        assert 0.95 < radius.mean() < 1.05
        assert radius.std() < 0.1
        centres.append(middle)
    apart = np.linalg.norm(np.array(centres)[:, None] - np.array(centres), axis=2)
    assert apart[~np.eye(5, dtype=bool)].min() > 2.5


@pytest.mark.parametrize("make", [rings, digits])
def test_a_pool_is_the_same_every_time(make) -> None:
    first, again = make(), make(seed=3)
    np.testing.assert_array_equal(first.rows, again.rows)
    assert (first.config.seed, again.config.seed) == (0, 3)


@pytest.mark.parametrize("make", [rings, digits])
def test_the_levels_file_says_what_the_pool_is_curated_with(make, tmp_path) -> None:
    pool = make(seed=7)
    (tmp_path / "levels.yaml").write_text(levels_file(pool))
    assert Config.from_file(tmp_path / "levels.yaml") == pool.config


class TestDivergence:
    def test_against_scipy_style_definition(self) -> None:
        counts = np.array([7, 0, 2, 1])
        expected = 0.7 * np.log(0.7 / 0.25) + 0.2 * np.log(0.2 / 0.25) + 0.1 * np.log(0.1 / 0.25)
        assert divergence(counts) == pytest.approx(expected, rel=1e-12)

    def test_bounds(self) -> None:
        assert divergence([3, 3, 3]) == pytest.approx(0, abs=1e-15)
        assert divergence([9, 0, 0]) == pytest.approx(np.log(3))

    def test_shares_sum_to_one(self) -> None:
        assert shares([1, 2, 5]).tolist() == [0.125, 0.25, 0.625]
