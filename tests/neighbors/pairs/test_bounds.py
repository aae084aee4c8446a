"""Bounds hold for every pair of rows, at any scale and dtype, and are as tight as planes can be."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate import kernels
from streamcurate.neighbors.pairs.bounds import (
    Geometry,
    Planes,
    largest_products,
    own_products,
    point_norms,
    reaching,
    rounded_down,
)


def setup(seed, dims, scale, offset, metric, dtype, cells=5, rows=40):
    generator = np.random.default_rng(seed)
    centre = generator.standard_normal((cells, dims)) * 2
    which = np.sort(generator.integers(0, cells, rows))
    values = (centre[which] + generator.standard_normal((rows, dims)) + offset) * scale
    values = values.astype(dtype)
    exponent = math.frexp(float(np.abs(values).max(initial=0.0)))[1] if metric == "l2" else 0
    geometry = Geometry(metric, 1.0, np.full(dims, 0.25), exponent)
    points = geometry.points(values)
    edges = np.searchsorted(which, np.arange(cells + 1))
    kept = np.flatnonzero(np.diff(edges))
    edges = np.append(edges[kept], rows)
    centres = generator.standard_normal((len(kept), dims)).astype(np.float32)
    centres[:-1] = points[edges[1:-1]]  # any points serve as centres
    reach = np.array([point_norms(points[a:b]).max() for a, b in pairwise(edges)])
    return values, geometry, points, edges, centres, reach


def least(points, edges, centres, reach, geometry):
    own = own_products(points, edges, centres)
    return Planes.between(centres, centres, reach, geometry).least(largest_products(points, own, edges, centres))


def exact_distances(values, geometry):
    """In the geometry's units, by the formula."""
    grid = np.indices((len(values), len(values))).reshape(2, -1)
    squared = kernels.row_pair_distances(values, grid[0], values, grid[1], geometry.metric)
    return np.ldexp(np.sqrt(squared), -geometry.exponent).reshape(len(values), len(values))


@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 17, 130]),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e5, 1e20]),
    st.sampled_from([0.0, 50.0]),
    st.sampled_from(["l2", "cosine"]),
    st.sampled_from([np.float16, np.float32]),
)
def test_no_pair_is_nearer_than_its_bound(seed, dims, scale, offset, metric, dtype):
    if dtype == np.float16:
        scale = min(max(scale, 1e-3), 1e2)
    values, geometry, points, edges, centres, reach = setup(seed, dims, scale, offset, metric, dtype)
    bounds = least(points, edges, centres, reach, geometry).astype(np.float64)
    cell = np.repeat(np.arange(len(centres)), np.diff(edges))
    between = (bounds + bounds.T)[np.ix_(cell, cell)]
    different = cell[:, None] != cell[None]
    distances = exact_distances(values, geometry)
    assert (distances * (1 + 1e-12) >= between)[different].all()
    # Rows: nothing that is within the radius is passed over.
    own = own_products(points, edges, centres)
    for radius in np.quantile(distances[different], [0.0, 0.1, 0.5]) if different.any() else []:
        room = radius * (1 + 1e-12) - bounds.T
        reach_cell = reaching(
            points, own, edges, centres, Planes.between(centres, centres, reach, geometry).thresholds(room)
        )
        assert reach_cell[:, cell][different & (distances <= radius)].all()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_bounds_are_tight(metric):
    values, geometry, points, edges, centres, reach = setup(3, 6, 1.0, 0.0, metric, np.float32)
    found = least(points, edges, centres, reach, geometry).astype(np.float64)
    z = geometry.exact(values)
    g = centres.astype(np.float64)
    for one in range(len(g)):
        for other in range(len(g)):
            if one != other:
                away = g[other] - g[one]
                part = z[edges[one] : edges[one + 1]]
                exact = (g[other] @ g[other] - g[one] @ g[one] - 2 * part @ away) / (2 * np.linalg.norm(away))
                assert exact.min() - 1e-5 <= found[one, other] <= exact.min()


def test_coinciding_centres_and_overflow_bound_nothing():
    geometry = Geometry("l2", 1.0, np.zeros(3), 0)
    values = np.array([[1, 2, 3], [1, 2, 4], [3e38, 3e38, -3e38]], dtype=np.float32)
    points = geometry.points(values)
    edges = np.array([0, 1, 2, 3])
    centres = np.array([[1, 2, 3], [1, 2, 3], [0, 0, 0]], dtype=np.float32)
    reach = point_norms(points)
    found = least(points, edges, centres, reach, geometry)
    assert found[0, 1] <= 0 >= found[1, 0]
    assert found[2, 0] == -np.inf
    far = np.array([[3e38, 3e38, 3e38]], dtype=np.float32)
    assert reaching(
        points[2:], np.array([np.nan], np.float32), np.array([0, 1]), far, np.zeros((1, 1), np.float32)
    ).all()


@given(st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=20))
def test_rounded_down(values):
    exact = np.array(values)
    rounded = rounded_down(exact)
    assert rounded.dtype == np.float32
    assert (rounded.astype(np.float64) <= exact).all()
    with np.errstate(over="ignore"):
        assert (np.nextafter(rounded, np.float32(np.inf)).astype(np.float64) > exact)[np.isfinite(rounded)].all()


def test_radius_is_above_the_root_of_the_limit():
    for exponent in (-60, 0, 70):
        geometry = Geometry("l2", 0.3, np.zeros(100), exponent)
        assert (
            math.ldexp(math.sqrt(0.3), -exponent) < geometry.radius < math.ldexp(math.sqrt(0.3), -exponent) * 1.000001
        )
    assert 0 < Geometry("l2", 0.0, np.zeros(3), 0).radius < 1e-100
