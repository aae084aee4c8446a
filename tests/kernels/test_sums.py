"""Exact sums and their means, against fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])
SCALES = st.sampled_from(["unit", "mixed", "tiny", "huge", "cancelling"])


def make_rows(seed, rows, dims, dtype, scale):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dims))
    if scale == "mixed":
        x *= 10.0 ** rng.integers(-42, 37, x.shape)
    elif scale == "tiny":
        x = rng.integers(-5, 6, x.shape) * 2.0**-149
    elif scale == "huge":
        x = rng.uniform(-3.4e38, 3.4e38, x.shape)
    elif scale == "cancelling":
        # Large values and their opposites: only the small remainders are left of the sums.
        x = x * 1e4
        x[1::2] = -x[: rows - rows % 2 : 2]
        x[:, ::2] += rng.standard_normal(x[:, ::2].shape) * 1e-4
    limit = float(np.finfo(dtype).max)
    x = np.clip(x, -limit, limit).astype(dtype)
    x[~x.any(axis=1), 0] = 1  # a row of zeros has no direction
    return x


def unit(row):
    """The formula's unit row, step by step."""
    squared = np.float64(0)
    for value in row.astype(np.float64):
        squared += value * value
    return row.astype(np.float64) / np.sqrt(squared)


def exact_sums(x, labels, metric, clusters):
    """Sums as fractions; unit rows rounded to multiples of 2^-60, ties to even."""
    sums = [[Fraction(0)] * x.shape[1] for _ in range(clusters)]
    for row, label in zip(x, labels, strict=True):
        if label < 0:
            continue
        values = [Fraction(float(v)) for v in (row if metric == "l2" else unit(row))]
        if metric == "cosine":
            values = [Fraction(round(v * 2**60), 2**60) for v in values]
        sums[label] = [total + value for total, value in zip(sums[label], values, strict=True)]
    return sums


def read(sums):
    """The sums a partial stands for, as fractions."""
    fixed = sums.fixed_point
    ids = range(sums.clusters) if sums.ids is None else sums.ids.tolist()
    dims = sums.limbs.shape[2]
    totals = [[Fraction(0)] * dims for _ in range(sums.clusters)]
    for t, cluster in enumerate(ids):
        for j in range(dims):
            units = sum(int(sums.limbs[limb, t, j]) << (limb * fixed.limb_bits) for limb in range(fixed.limbs))
            totals[cluster][j] = units * Fraction(2) ** fixed.lowest
    return totals


def in_blocks(x, labels, metric, fixed, clusters, cuts, order):
    """Sums of the blocks between ``cuts``, combined two at a time in a random order."""
    edges = sorted({0, len(x), *(cut for cut in cuts if cut < len(x))})
    parts = [kernels.cluster_sums(x[a:b], labels[a:b], metric, fixed, clusters) for a, b in itertools.pairwise(edges)]
    while len(parts) > 1:
        one = parts.pop(order.integers(len(parts)))
        other = parts.pop(order.integers(len(parts)))
        parts.append(one.combine(other))
    return parts[0]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 60), dims=st.integers(1, 9), clusters=st.integers(1, 5),
    dtype=DTYPES, metric=METRICS, scale=SCALES, planned=st.sampled_from([0, 10**3, 10**6, 10**10, 2**50]),
    cuts=st.lists(st.integers(1, 59), max_size=5),
)  # fmt: skip
def test_sums_are_exact_in_any_order(seed, rows, dims, clusters, dtype, metric, scale, planned, cuts):
    x = make_rows(seed, rows, dims, dtype, scale)
    rng = np.random.default_rng(seed + 1)
    labels = rng.integers(-1, clusters, rows).astype(np.int32)
    seen = kernels.statistics(x, metric)
    if metric == "cosine":
        fixed = kernels.FixedPoint.for_unit_rows(rows + planned)
    else:
        fixed = kernels.FixedPoint.for_data(seen.lowest_exponent, seen.highest_exponent, rows + planned)
    previous = rng.standard_normal((clusters, dims)).astype(np.float32)
    sums = in_blocks(x, labels, metric, fixed, clusters, cuts, rng)
    expected = exact_sums(x, labels, metric, clusters)
    assert read(sums) == expected
    assert sums.dense().counts.tolist() == [int((labels == k).sum()) for k in range(clusters)]
    whole = kernels.cluster_sums(x, labels, metric, fixed, clusters)
    means = kernels.mean_centroids(sums, metric, previous)
    np.testing.assert_array_equal(kernels.mean_centroids(whole, metric, previous), means)
    for k in range(clusters):
        count = int((labels == k).sum())
        if count == 0 or (metric == "cosine" and not any(expected[k])):
            np.testing.assert_array_equal(means[k], previous[k])
        elif metric == "l2":
            for value, total in zip(means[k], expected[k], strict=True):
                unit_in_last_place = Fraction(float(np.spacing(np.abs(value))))
                assert abs(Fraction(float(value)) - total / count) <= unit_in_last_place
        else:
            exact = np.array([float(total) for total in expected[k]])
            np.testing.assert_allclose(means[k], exact / np.linalg.norm(exact), rtol=2**-23, atol=0)


def test_many_rows_in_one_cluster_leave_no_room_for_float64_rounding():
    # 48-bit limbs fill float64 after 16 rows: the running sums must have been moved on by then.
    rng = np.random.default_rng(0)
    x = (rng.uniform(0.5, 1, (5000, 2)) * 2.0 ** rng.integers(-24, 1, (5000, 2))).astype(np.float32)
    labels = np.zeros(5000, np.int32)
    fixed = kernels.statistics(x).fixed_point("l2")
    assert fixed.limb_bits == 48
    assert read(kernels.cluster_sums(x, labels, "l2", fixed, 1)) == exact_sums(x, labels, "l2", 1)


def test_largest_sums_do_not_overflow():
    rows = 2**12 - 1
    x = np.full((rows, 1), 1.0, np.float16)
    x[::2] = -1.0
    for sign in (1, -1):
        fixed = kernels.FixedPoint.for_data(-24, 23, rows)
        block = (np.abs(x) * sign).astype(np.float16)
        total = kernels.ClusterSums.empty(1, 1, fixed)
        total.combine(kernels.cluster_sums(block, np.zeros(rows, np.int32), "l2", fixed, 1))
        assert read(total) == [[Fraction(sign * rows)]]


@pytest.mark.parametrize(("rows", "limb_bits"), [(1, 48), (20_000, 47), (10**9, 32), (2**31, 30)])
def test_limbs_hold_all_rows_below_62_bits(rows, limb_bits):
    fixed = kernels.FixedPoint.for_data(-149, 127, rows)
    assert fixed.limb_bits == limb_bits
    assert rows << fixed.limb_bits < 2**62
    assert fixed.limbs * fixed.limb_bits >= 277 > (fixed.limbs - 1) * fixed.limb_bits


def test_first_combination_makes_the_accumulator_that_later_ones_add_to():
    fixed = kernels.FixedPoint.for_data(0, 3, 100)
    x = np.ones((4, 2), np.float32)
    one = kernels.cluster_sums(x, np.array([0, 0, 3, -1], np.int32), "l2", fixed, 5)
    assert one.ids.tolist() == [0, 3]
    assert one.nbytes == 2 * (8 * 2 + 8 + 8)
    total = one.combine(one)
    assert total.ids is None
    assert total.nbytes == 5 * 8 * (fixed.limbs * 2 + 1)
    assert total.combine(one) is total
    assert one.combine(total) is total
    assert total.counts.tolist() == [8, 0, 0, 4, 0]


def test_opposite_unit_rows_keep_the_previous_centroid():
    x = np.array([[3.0, 4.0], [-3.0, -4.0]], np.float32)
    sums = kernels.cluster_sums(x, np.zeros(2, np.int32), "cosine", kernels.FixedPoint.for_unit_rows(2), 1)
    previous = np.array([[0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(kernels.mean_centroids(sums, "cosine", previous), previous)


def test_refused():
    x = np.ones((3, 2), np.float32)
    fixed = kernels.FixedPoint.for_data(0, 0, 3)
    with pytest.raises(ValueError, match="labels run from 0 to 4"):
        kernels.cluster_sums(x, np.array([0, 4, 1], np.int32), "l2", fixed, 4)
    with pytest.raises(ValueError, match="there are 3 rows"):
        kernels.cluster_sums(x, np.array([0], np.int32), "l2", fixed, 4)
    with pytest.raises(ValueError, match="for_unit_rows"):
        kernels.cluster_sums(x, np.zeros(3, np.int32), "cosine", fixed, 4)
    with pytest.raises(ValueError, match="laid out for 2"):
        kernels.cluster_sums(x, np.zeros(3, np.int32), "l2", kernels.FixedPoint.for_data(0, 0, 2), 4)
    one = kernels.cluster_sums(x, np.zeros(3, np.int32), "l2", fixed, 4)
    with pytest.raises(ValueError, match="cannot be combined"):
        one.combine(kernels.cluster_sums(x, np.zeros(3, np.int32), "l2", fixed, 5))
    with pytest.raises(ValueError, match="previous centroids"):
        kernels.mean_centroids(one, "l2", np.zeros((3, 2), np.float32))
