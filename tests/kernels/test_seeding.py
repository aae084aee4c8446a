"""Seeding distances: exact integers, the same for any tiling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 30), others=st.integers(0, 9),
    dims=st.sampled_from([1, 17, 1039, 1040, 1041, 2500]), extreme=st.booleans(),
)  # fmt: skip
def test_integer_distances_are_exact(seed, rows, others, dims, extreme):
    rng = np.random.default_rng(seed)
    low, high = (127, 128) if extreme else (-127, 128)
    a = rng.integers(low, high, (rows, dims)).astype(np.int8)
    b = (rng.integers(low, high, (others, dims)) * (-1 if extreme else 1)).astype(np.int8)
    wide = a.astype(np.int64)[:, None, :] - b.astype(np.int64)[None, :, :]
    found = kernels.quantised_distances(a, b)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, (wide**2).sum(axis=2))


def unit(x):
    x = x.astype(np.float64)
    squared = np.zeros(len(x))
    for j in range(x.shape[1]):
        squared += x[:, j] ** 2
    return x / np.sqrt(squared)[:, None]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_quantised_rows_are_rounded_to_the_global_step(metric, dtype):
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((700, 20)) * rng.uniform(0.1, 3, 20) + 5).astype(dtype)
    quantiser = kernels.Quantiser.for_statistics(kernels.statistics(x, metric), metric)
    q = kernels.quantise(x, quantiser, metric)
    assert q.dtype == np.int8
    assert (q.min(), q.max()) == (-127, 127)
    exact = x.astype(np.float64) if metric == "l2" else unit(x)
    np.testing.assert_array_equal(q, np.rint((exact - quantiser.offset) / quantiser.step))
    error = np.abs(q * quantiser.step + quantiser.offset - exact).max()
    assert error <= quantiser.step * 0.5001
    np.testing.assert_array_equal(kernels.quantise(x[333:], quantiser, metric), q[333:])


def test_values_beyond_the_ranges_are_clipped():
    quantiser = kernels.Quantiser(np.zeros(2), 1.0)
    x = np.array([[1e30, -1e30], [500.0, 0.4]], np.float32)
    assert kernels.quantise(x, quantiser, "l2").tolist() == [[127, -127], [127, 0]]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("dims", [1, 2, 16, 17, 100])
def test_space_keeps_order_and_tiling_does_not_matter(metric, dtype, dims):
    rng = np.random.default_rng(dims)
    x = (rng.standard_normal((600, dims)) + 2).astype(dtype)
    space = kernels.seeding_space(kernels.statistics(x, metric), 10**7, dims, metric)
    encoded = space.encode(x)
    assert encoded.nbytes <= space.bytes_per_row * len(x)
    assert encoded.dtype == (np.int8 if dims > 16 else np.float32 if metric == "cosine" else dtype)
    centres = encoded[[5, 99, 5, 400]]
    found = space.potentials(encoded, centres)
    assert found.dtype == np.int64
    assert (found[[5, 99, 5, 400], [0, 1, 2, 3]] == 0).all()
    assert (found >= 0).all()
    assert found.max() * 10**7 < 2**62
    tiles = [
        space.potentials(space.encode(x[s : s + 77]), centres[t : t + 1]) for s in range(0, 600, 77) for t in (0, 3)
    ]
    np.testing.assert_array_equal(np.concatenate(tiles[::2]), found[:, :1])
    np.testing.assert_array_equal(np.concatenate(tiles[1::2]), found[:, 3:])
    labels, smallest = space.nearest(encoded, centres)
    np.testing.assert_array_equal(labels, found.argmin(axis=1))
    np.testing.assert_array_equal(smallest, found.min(axis=1))
    exact = x.astype(np.float64) if metric == "l2" else unit(x)
    squares = ((exact[:, None] - exact[[5, 99, 5, 400]]) ** 2).sum(axis=2)
    if dims > 16:
        # Each coordinate is off by half a step at most on either side.
        scale = space.quantiser.step**2
        assert np.abs(np.sqrt(found * scale) - np.sqrt(squares)).max() <= 1.001 * space.quantiser.step * np.sqrt(dims)
    else:
        # 2^-22: unit rows are rounded to float32.
        np.testing.assert_allclose(found * 2.0**-space.exponent, squares, rtol=1e-5, atol=squares.max() * 2.0**-22)


def test_potentials_of_few_dims_are_the_rounded_formula():
    x = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.25]], np.float32)
    space = kernels.SeedingSpace("l2", 2, None, 3)
    assert space.potentials(x, x[:1]).tolist() == [[0], [200], [8]]  # 8.5 rounds to even


def test_many_centres_are_taken_in_tiles():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 3)).astype(np.float32)
    space = kernels.seeding_space(kernels.statistics(x), 1500, 3, "l2")
    labels, smallest = space.nearest(x, np.concatenate([x, x]))
    np.testing.assert_array_equal(labels, np.arange(1500))
    assert not smallest.any()


def test_equal_rows_have_a_space():
    x = np.ones((4, 30), np.float16)
    space = kernels.seeding_space(kernels.statistics(x), 4, 30, "l2")
    assert not space.potentials(space.encode(x), space.encode(x)).any()
    x = np.ones((4, 3), np.float16)
    space = kernels.seeding_space(kernels.statistics(x), 4, 3, "l2")
    assert not space.potentials(space.encode(x), space.encode(x)).any()


def test_refused():
    x = np.ones((4, 30), np.float16)
    with pytest.raises(ValueError, match="cosine"):
        kernels.seeding_space(kernels.statistics(x), 4, 30, "cosine")
    with pytest.raises(ValueError, match="no usable row"):
        kernels.seeding_space(kernels.statistics(x * np.float16(np.nan)), 4, 30, "l2")
    with pytest.raises(ValueError, match="not 31"):
        kernels.seeding_space(kernels.statistics(x), 4, 31, "l2")
    with pytest.raises(ValueError, match="2\\^62"):
        kernels.seeding_space(kernels.statistics(x), 10**13, 30, "l2")
