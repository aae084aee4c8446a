"""Cells hold every row once, are of the wanted size, and neighbours lie together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.neighbors.pairs.cells import cell_rows_for, form_cells, means, near_order


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 20), st.integers(0, 10**6))
def test_cells_partition_the_points(sizes, wanted, seed):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    points = np.random.default_rng(seed).standard_normal((len(clusters), 3)).astype(np.float32)
    points[: len(points) // 2] = 1.0  # copies
    largest = 2 * wanted
    order, edges = form_cells(points, clusters, wanted, largest)
    assert sorted(order.tolist()) == list(range(len(points)))
    assert edges[0] == 0
    assert edges[-1] == len(points)
    rows = np.diff(edges)
    assert (rows > 0).all()
    assert (rows <= largest).all()
    # Clusters keep together: a cut one shares no cell, and the order of clusters stays.
    assert (np.diff(clusters[order]) >= 0).all()


def test_small_clusters_share_cells_and_large_ones_are_cut():
    points = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    clusters = np.repeat(np.arange(31), [10] * 30 + [300])
    _, edges = form_cells(points, clusters, 50, 200)
    assert len(edges) - 1 < 30
    assert (np.diff(edges) <= 200).all()
    assert np.count_nonzero(edges >= 300) > 4


def test_a_cut_cluster_falls_into_its_clumps():
    generator = np.random.default_rng(5)
    which = generator.integers(0, 4, 400)
    points = (which[:, None] * 100 + generator.standard_normal((400, 2))).astype(np.float32)
    order, edges = form_cells(points, np.zeros(400, np.int64), 50, 400)
    for start, stop in pairwise(edges):
        assert len(np.unique(which[order[start:stop]])) == 1


def test_points_beyond_float32_are_still_placed():
    points = np.full((50, 2), np.inf, dtype=np.float32)
    points[::2] = 3e38
    order, edges = form_cells(points, np.zeros(50, np.int64), 10, 20)
    assert sorted(order.tolist()) == list(range(50))
    assert (np.diff(edges) <= 20).all()


@pytest.mark.parametrize("count", [0, 1, 2, 9, 1000])
def test_near_order_puts_neighbours_together(count):
    points = np.random.default_rng(count).random((count, 2))
    order = near_order(points)
    assert sorted(order.tolist()) == list(range(count))
    if count == 1000:
        ordered = np.linalg.norm(np.diff(points[order], axis=0), axis=1).mean()
        assert ordered < 0.3 * np.linalg.norm(np.diff(points, axis=0), axis=1).mean()


def test_near_order_of_copies():
    assert sorted(near_order(np.ones((40, 3), np.float32)).tolist()) == list(range(40))


def test_means_and_sizes():
    points = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(means(points, np.array([0, 2, 6])), [[1, 2], [7, 8]])
    assert means(points, np.array([0])).shape == (0, 2)
    assert cell_rows_for(10) == cell_rows_for(60_000) == 128
    assert cell_rows_for(10**8) == 5000
