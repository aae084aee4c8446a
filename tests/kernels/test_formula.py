"""The formula, against the same steps taken one by one in Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels


def steps(row, centroid, metric):
    """The formula as its definition reads; Python's floats are float64 and never fused."""
    x = [float(value) for value in row]
    if metric == "cosine":
        squared = 0.0
        for value in x:
            squared += value * value
        norm = math.sqrt(squared)
        x = [value / norm for value in x] if norm else x
    total = 0.0
    for value, other in zip(x, centroid, strict=True):
        difference = value - float(other)
        total += difference * difference
    return total


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), dims=st.integers(1, 40), pairs=st.integers(0, 23), power=st.integers(-8, 4))
def test_values_are_those_of_the_steps_bit_for_bit(metric, dtype, seed, dims, pairs, power):
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((9, dims)) * 10.0**power).astype(dtype)
    centroids = (rng.standard_normal((5, dims)) * 10.0**power).astype(np.float32)
    row, cluster = rng.integers(9, size=pairs), rng.integers(5, size=pairs)
    values = kernels.squared_distances_of_pairs(rows, row, centroids, cluster, metric)
    assert values.tolist() == [steps(rows[i], centroids[j], metric) for i, j in zip(row, cluster, strict=True)]


def test_every_half_widens_to_its_value():
    # A centroid of zeros makes the formula's value the square of the half: all finite ones, subnormals included.
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)][:, None]
    index = np.arange(len(halves))
    zero = np.zeros((1, 1), dtype=np.float32)
    values = kernels.squared_distances_of_pairs(halves, index, zero, np.zeros_like(index), "l2")
    np.testing.assert_array_equal(values, halves[:, 0].astype(np.float64) ** 2)
    one = np.full((1, 1), 1.0, dtype=np.float32)
    values = kernels.squared_distances_of_pairs(halves, index, one, np.zeros_like(index), "l2")
    np.testing.assert_array_equal(values, (halves[:, 0].astype(np.float64) - 1) ** 2)


def test_many_pairs_of_long_rows_are_taken_in_tiles():
    rng = np.random.default_rng(1)
    rows, centroids = (
        rng.standard_normal((3, 5000)).astype(np.float16),
        rng.standard_normal((2, 5000), dtype=np.float32),
    )
    row, cluster = np.tile([2, 0, 1], 30), np.tile([1, 0], 45)
    values = kernels.squared_distances_of_pairs(rows, row, centroids, cluster, "cosine")
    assert values[:3].tolist() == [steps(rows[i], centroids[j], "cosine") for i, j in ((2, 1), (0, 0), (1, 1))]
    np.testing.assert_array_equal(values.reshape(-1, 6), np.broadcast_to(values[:6], (15, 6)))


def test_distance_is_rounded_once():
    values = np.array([0.0, 2.0, 1.0 + 2.0**-50])
    roots = kernels.distance_of(values, "l2")
    assert roots.dtype == np.float32
    assert roots.tolist() == [0.0, float(np.float32(math.sqrt(2.0))), 1.0]
    assert kernels.distance_of(values, "cosine").tolist() == [0.0, 1.0, 0.5]


@pytest.mark.parametrize(("row", "cluster"), [(-1, 0), (3, 0), (0, -1), (0, 2)])
def test_pairs_out_of_range_are_refused(row, cluster):
    rows, centroids = np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="pairs name"):
        kernels.squared_distances_of_pairs(rows, np.array([row]), centroids, np.array([cluster]), "l2")


@pytest.mark.parametrize(
    ("rows", "centroids", "metric", "message"),
    [
        (np.zeros((3, 4)), np.zeros((2, 4), np.float32), "l2", "float16 or float32"),
        (np.zeros(3, np.float32), np.zeros((2, 4), np.float32), "l2", "two-dimensional"),
        (np.zeros((3, 4), np.float32), np.zeros((2, 5), np.float32), "l2", "5 dims, the rows 4"),
        (np.zeros((3, 4), np.float32), np.zeros((2, 4)), "l2", "must be"),
        (np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32), "l1", "must be one of l2, cosine"),
    ],
)
def test_arrays_of_other_kinds_are_refused(rows, centroids, metric, message):
    zero = np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match=message):
        kernels.squared_distances_of_pairs(rows, zero, centroids, zero, metric)
