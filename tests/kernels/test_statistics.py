"""Statistics, against brute force."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streamcurate import kernels
from streamcurate.kernels.cpu import statistics as statistics_module

ROWS = st.sampled_from([np.float16, np.float32]).flatmap(
    lambda dtype: arrays.arrays(
        dtype, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements={"allow_nan": True}
    )
)


def norm(row):
    total = 0.0
    for value in row.tolist():
        total += value * value
    return math.sqrt(total)


def exponents(values):
    """Exponents of the lowest and highest set bit of a float."""
    fraction = abs(Fraction(values))
    lowest = -(fraction.denominator.bit_length() - 1)
    if fraction.denominator == 1:
        lowest = (fraction.numerator & -fraction.numerator).bit_length() - 1
    return lowest, math.frexp(abs(values))[1] - 1


@settings(max_examples=150, deadline=None)
@given(x=ROWS, cut=st.integers(0, 9), first=st.integers(0, 10**12))
def test_every_field_in_any_order(x, cut, first):
    whole = kernels.statistics(x, "cosine", first_row=first)
    parts = kernels.statistics(x[cut:], "cosine", first_row=first + min(cut, len(x)))
    parts = parts.combine(kernels.statistics(x[:cut], "cosine", first_row=first))
    usable = np.isfinite(x).all(axis=1)
    good = x[usable]
    bad, zero = np.flatnonzero(~usable), np.flatnonzero(usable & (x == 0).all(axis=1))
    values = [exponents(value) for value in good.ravel().tolist() if value != 0]
    norms = [norm(row) for row in good]
    units = np.array([[v / (n or 1) for v in row.tolist()] for row, n in zip(good, norms, strict=True)]).reshape(
        good.shape
    )
    for found in (whole, parts):
        assert found.rows == len(x)
        assert (found.bad_rows, found.first_bad_row) == (len(bad), first + bad[0] if len(bad) else -1)
        assert (found.zero_rows, found.first_zero_row) == (len(zero), first + zero[0] if len(zero) else -1)
        assert found.lowest_exponent == min((low for low, _ in values), default=None)
        assert found.highest_exponent == max((high for _, high in values), default=None)
        assert found.smallest_norm == min(norms, default=math.inf)
        assert found.largest_norm == max(norms, default=0.0)
        np.testing.assert_array_equal(found.minimum, good.min(axis=0, initial=np.inf).astype(np.float32))
        np.testing.assert_array_equal(found.maximum, good.max(axis=0, initial=-np.inf).astype(np.float32))
        assert not np.signbit(found.minimum[found.minimum == 0]).any()
        np.testing.assert_array_equal(found.unit_minimum, units.min(axis=0, initial=np.inf))
        np.testing.assert_array_equal(found.unit_maximum, units.max(axis=0, initial=-np.inf))


def test_row_numbers_count_across_tiles(monkeypatch):
    monkeypatch.setattr(statistics_module, "_TILE_BYTES", 64)
    x = np.ones((100, 4), np.float16)
    x[70, 2], x[90], x[95, 0], x[99] = np.inf, 0, np.nan, 0
    found = kernels.statistics(x, first_row=1000)
    assert (found.bad_rows, found.first_bad_row) == (2, 1070)
    assert (found.zero_rows, found.first_zero_row) == (2, 1090)


@pytest.mark.parametrize("lowest", [3, 0, -24, -126, -127, -149])
def test_the_lowest_bit_is_found_wherever_it_is(lowest):
    # Rows of larger bits before and after it, subnormals among them, and numbers near the end of float32's range.
    rng = np.random.default_rng(0)
    x = np.ldexp(rng.integers(-9, 9, (300, 5)).astype(np.float64), lowest + 1).astype(np.float32)
    x[7, 3], x[250, 0] = 2.0**127, 0
    expected = min(exponents(value)[0] for value in x.ravel().tolist() if value)
    assert kernels.statistics(x).lowest_exponent == expected == lowest + 1
    x[211, 4] += np.float32(2.0**lowest)
    found = kernels.statistics(x)
    assert (found.lowest_exponent, found.highest_exponent) == (lowest, 127)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_distances_stay_below_the_bound(metric):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)).astype(np.float16)
    found = kernels.statistics(x, metric)
    labels = rng.integers(0, 5, 300).astype(np.int32)
    sums = kernels.cluster_sums(x, labels, metric, found.fixed_point(metric), 5)
    centroids = kernels.mean_centroids(sums, metric, np.zeros((5, 6), np.float32))
    corners = np.stack([found.minimum, found.maximum])
    for c in (centroids, corners) if metric == "l2" else (centroids,):
        _, values = kernels.nearest(x, kernels.prepare_centroids(c, metric))
        assert values.max() <= found.squared_distance_bound(metric)
    both = kernels.squared_distances_of_pairs(corners, np.array([0]), corners, np.array([1]), "l2")
    assert both[0] <= found.squared_distance_bound("l2") < 1.01 * both[0]


def test_rows_of_zeros_still_have_a_layout():
    found = kernels.statistics(np.zeros((3, 2), np.float32))
    assert found.lowest_exponent is None
    fixed = found.fixed_point("l2")
    sums = kernels.cluster_sums(np.zeros((3, 2), np.float32), np.zeros(3, np.int32), "l2", fixed, 1)
    assert kernels.mean_centroids(sums, "l2", np.ones((1, 2), np.float32)).tolist() == [[0.0, 0.0]]
