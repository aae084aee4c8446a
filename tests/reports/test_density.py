"""Principal axes and hexagons against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.reports.density import frame_of, principal_axes
from streamcurate.reports.hexagons import shades


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dims", [2, 9, 120])
def test_axes_against_eigenvectors(metric, dims) -> None:
    generator = np.random.default_rng(dims)
    scales = np.concatenate([[9.0, 5.0], np.ones(dims)])[:dims]
    rows = (generator.standard_normal((3000, dims)) * scales + 3).astype(np.float32)
    axes = principal_axes(rows, metric)
    plain = rows.astype(np.float64)
    if metric == "cosine":
        plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    plain -= plain.mean(axis=0)
    values, vectors = np.linalg.eigh(plain.T @ plain)
    assert axes.explained == pytest.approx((values[-1] / values.sum(), values[-2] / values.sum()), rel=1e-6)
    for axis in range(2):
        assert abs(axes.vectors[axis] @ vectors[:, -1 - axis]) == pytest.approx(1, abs=1e-6)
        assert axes.vectors[axis][np.argmax(np.abs(axes.vectors[axis]))] > 0
    np.testing.assert_allclose(axes.places(rows[:7]), plain[:7] @ axes.vectors.T, atol=1e-6)


@pytest.mark.parametrize("rows", [np.ones((4, 3)), np.ones((1, 2)), np.arange(6.0).reshape(6, 1)])
def test_rows_that_hardly_vary(rows) -> None:
    rows = rows.astype(np.float32)
    axes = principal_axes(rows, "l2")
    places = axes.places(rows)
    counts, outside = frame_of(places).counts(places)
    assert np.isfinite(axes.vectors).all()
    assert counts.sum() == len(rows)
    assert not outside


@given(st.integers(1, 400), st.integers(0, 20))
def test_every_row_lies_in_the_hexagon_of_the_nearest_centre(count, seed) -> None:
    places = np.random.default_rng(seed).standard_normal((count, 2)) * [3, 1]
    frame = frame_of(places)
    line, column = frame.hexagons(places)
    inside = line >= 0
    x, y = places[:, 0] - frame.left, places[:, 1] - frame.bottom
    expected = (x >= 0) & (x <= frame.width) & (y >= 0) & (y <= frame.height)
    assert (inside == expected).all()
    across = math.sqrt(3) * frame.radius
    lines, columns = np.meshgrid(np.arange(frame.lines + 1), np.arange(-1, frame.columns + 2), indexing="ij")
    centre_x = (columns + 0.5 - 0.5 * (lines % 2)) * across
    centre_y = lines * 1.5 * frame.radius
    for row in np.flatnonzero(inside):
        distances = (centre_x - x[row]) ** 2 + (centre_y - y[row]) ** 2
        own = (line[row] * 1.5 * frame.radius - y[row]) ** 2
        own += ((column[row] + 0.5 - 0.5 * (line[row] % 2)) * across - x[row]) ** 2
        assert own <= distances.min() + 1e-9
    weights = np.arange(1, count + 1)
    counts, outside = frame.counts(places, weights)
    assert counts.sum() + outside == weights.sum()
    assert outside == weights[~inside].sum()


def test_few_rows_may_lie_outside_the_frame() -> None:
    places = np.random.default_rng(0).standard_normal((10_000, 2))
    places[0] = [1e6, 1e6]
    _, outside = frame_of(places).counts(places)
    assert 1 <= outside <= 80


def test_shades_are_equal_factors() -> None:
    edges = shades([np.array([0, 0.001, 0.5]), np.array([0.128, 0])])
    assert edges[0] == 0.001
    np.testing.assert_allclose(np.array(edges[1:]) / edges[:-1], 500 ** (1 / 7))
    assert shades([np.array([0.25])]) == [0.25] * 7
