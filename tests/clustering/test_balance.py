from __future__ import annotations

import numpy as np

from streamcurate.clustering.balance import warnings_of


def test_even_level_has_no_warning():
    rows = np.full(100, 50)
    assert warnings_of(1, rows, rows) == ()


def test_dominant_cluster_is_named_with_its_share():
    rows = np.array([12_491] + [95] * 79)
    (text,) = warnings_of(3, rows, np.full(80, 5))
    assert "level 3 is degenerate" in text
    assert "12,491 of 19,996 rows (62%)" in text


def test_large_cluster_of_a_small_level_is_not_dominant():
    assert warnings_of(2, np.array([60, 20, 20]), np.array([6, 2, 2])) == ()


def test_singletons_are_counted():
    rows = np.array([1] * 50 + [600] * 30)
    (text,) = warnings_of(3, rows, np.full(80, 5))
    assert "50 of 80 clusters hold a single row" in text


def test_empty_clusters_are_reported():
    (text,) = warnings_of(1, np.array([10, 0, 12]), np.array([10, 0, 12]))
    assert "1 of 3 clusters are empty" in text
