"""Sums, statistics, pairs and integers on a device, against the CPU's."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streamcurate import kernels
from streamcurate.kernels.gpu.backend import GpuBackend
from streamcurate.kernels.gpu.device_sums import DeviceSums

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])
SCALES = st.sampled_from(["unit", "mixed", "tiny", "huge"])
WORKSPACES = st.sampled_from([2**9, 2**13, 2**29])
ROWS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(
        dtype, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements={"allow_nan": True}
    )
)


def make_rows(seed, rows, dims, dtype, scale):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dims))
    if scale == "mixed":
        x *= 10.0 ** rng.integers(-42, 37, x.shape)
    elif scale == "tiny":
        x = rng.integers(-5, 6, x.shape) * 2.0**-149
    elif scale == "huge":
        x = rng.uniform(-3.4e38, 3.4e38, x.shape)
    limit = float(np.finfo(dtype).max)
    x = np.clip(x, -limit, limit).astype(dtype)
    x[~x.any(axis=1), 0] = 1  # a row of zeros has no direction
    return x


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 70), dims=st.integers(1, 9),
    clusters=st.sampled_from([1, 5, 10**6]), dtype=DTYPES, metric=METRICS, scale=SCALES,
    planned=st.sampled_from([0, 10**6, 2**50]), workspace=WORKSPACES, backwards=st.booleans(), uploaded=st.booleans(),
)  # fmt: skip
def test_sums(make_backend, seed, rows, dims, clusters, dtype, metric, scale, planned, workspace, backwards, uploaded):
    x = make_rows(seed, rows, dims, dtype, scale)
    labels = np.random.default_rng(seed).integers(-1, clusters, rows).astype(np.int32)
    seen = kernels.statistics(x, metric)
    fixed = dataclasses.replace(seen, rows=rows + planned).fixed_point(metric)
    expected = kernels.cluster_sums(x, labels, metric, fixed, clusters)
    backend = make_backend(workspace=workspace, backwards=backwards)
    found = backend.cluster_sums(backend.upload(x) if uploaded else x, labels, metric, fixed, clusters)
    # Each limb is a sum of the same pieces, so even the limbs are the same.
    for name in ("ids", "counts", "limbs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == np.int64
    assert (found.fixed_point, found.clusters) == (fixed, clusters)


def test_many_rows_in_one_cluster(make_backend):
    rng = np.random.default_rng(0)
    x = (rng.uniform(0.5, 1, (5000, 3)) * 2.0 ** rng.integers(-24, 1, (5000, 3))).astype(np.float32)
    labels = np.zeros(5000, np.int32)
    for metric in ("l2", "cosine"):
        fixed = kernels.statistics(x).fixed_point(metric)
        expected = kernels.cluster_sums(x, labels, metric, fixed, 1)
        sums = make_backend().cluster_sums(x, labels, metric, fixed, 1)
        np.testing.assert_array_equal(sums.limbs, expected.limbs)
        previous = np.zeros((1, 3), np.float32)
        np.testing.assert_array_equal(
            make_backend().mean_centroids(sums, metric, previous), kernels.mean_centroids(expected, metric, previous)
        )


@pytest.mark.parametrize("dense_fits", [True, False])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_sums_of_blocks_are_added_on_the_device(make_host_device, dense_fits, metric):
    rng = np.random.default_rng(0)
    device = make_host_device(memory=2**24 if dense_fits else 2**20)
    clusters = 2000
    blocks = [rng.standard_normal((count, 9)).astype(np.float32) for count in (50, 300, 7)]
    labels = [rng.integers(-1, clusters, len(block)).astype(np.int32) for block in blocks]
    fixed = dataclasses.replace(kernels.statistics(np.concatenate(blocks), metric), rows=2**40).fixed_point(metric)
    expected = kernels.ClusterSums.empty(clusters, 9, fixed)
    backend = GpuBackend(device)
    parts = []
    for block, own in zip(blocks, labels, strict=True):
        expected = expected.combine(kernels.cluster_sums(block, own, metric, fixed, clusters))
        parts.append(backend.cluster_sums(block, own, metric, fixed, clusters))
    assert all(isinstance(part, DeviceSums) for part in parts)
    total = parts[0].combine(parts[1])
    assert isinstance(total, DeviceSums) == dense_fits
    # In either order, and with sums that are not on the device.
    total = parts[2].combine(total)
    for found in (total, total.dense(), pickle.loads(pickle.dumps(total))):
        assert found.ids is None
        np.testing.assert_array_equal(found.limbs, expected.limbs)
        np.testing.assert_array_equal(found.counts, expected.counts)
    assert type(total.dense()) is type(pickle.loads(pickle.dumps(parts[0]))) is kernels.ClusterSums
    plain = kernels.cluster_sums(blocks[0], labels[0], metric, fixed, clusters)
    for found in (plain.combine(parts[1]), parts[1].combine(plain)):
        np.testing.assert_array_equal(found.limbs, parts[0].dense().combine(parts[1]).limbs)
    for one, less in itertools.product((plain, parts[0]), (parts[1], parts[1].plain())):
        found = one.minus(less)
        np.testing.assert_array_equal(found.combine(less).limbs, parts[0].dense().limbs)
    other = backend.cluster_sums(blocks[0], np.zeros(50, np.int32), metric, fixed, 1)
    with pytest.raises(ValueError, match="cannot be combined"):
        other.combine(parts[0])
    del total, found, other, parts, one, less
    gc.collect()
    assert device.used == 0


def test_sums_refused(make_backend):
    backend = make_backend()
    x = np.ones((3, 2), np.float32)
    fixed = kernels.FixedPoint.for_data(0, 0, 3)
    for clusters in (4, 10**6):
        with pytest.raises(ValueError, match="labels run from 0 to 10000000"):
            backend.cluster_sums(x, np.array([0, 10**7, 1], np.int32), "l2", fixed, clusters)
    with pytest.raises(ValueError, match="there are 3 rows"):
        backend.cluster_sums(x, np.array([0], np.int32), "l2", fixed, 4)
    with pytest.raises(ValueError, match="for_unit_rows"):
        backend.cluster_sums(x, np.zeros(3, np.int32), "cosine", fixed, 4)
    with pytest.raises(ValueError, match="laid out for 2"):
        backend.cluster_sums(x, np.zeros(3, np.int32), "l2", kernels.FixedPoint.for_data(0, 0, 2), 4)


def same_statistics(found, expected):
    for field in dataclasses.fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one.view(f"u{one.itemsize}"), other.view(f"u{one.itemsize}"))
        else:
            assert (type(one), one) == (type(other), other), field.name


@settings(max_examples=100, deadline=None)
@given(
    x=ROWS, metric=METRICS, first=st.integers(0, 10**12), workspace=WORKSPACES, backwards=st.booleans(),
    uploaded=st.booleans(),
)  # fmt: skip
def test_statistics(make_backend, x, metric, first, workspace, backwards, uploaded):
    backend = make_backend(workspace=workspace, backwards=backwards)
    found = backend.statistics(backend.upload(x) if uploaded else x, metric, first_row=first)
    same_statistics(found, kernels.statistics(x, metric, first_row=first))


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_statistics_of_a_large_block(make_backend, metric):
    x = make_rows(3, 2000, 21, np.float16, "mixed")
    x[700, 3], x[900], x[5, 1] = np.inf, 0, -0.0
    same_statistics(make_backend(workspace=2**15).statistics(x, metric), kernels.statistics(x, metric))


def test_statistics_of_no_rows(make_backend):
    x = np.empty((0, 3), np.float32)
    same_statistics(make_backend().statistics(x, "cosine"), kernels.statistics(x, "cosine"))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 40), dims=st.integers(1, 40), pairs=st.integers(0, 60),
    dtype=DTYPES, metric=METRICS, scale=SCALES, workspace=WORKSPACES, uploaded=st.booleans(),
)  # fmt: skip
def test_pairs(make_backend, seed, rows, dims, pairs, dtype, metric, scale, workspace, uploaded):
    x = make_rows(seed, rows, dims, dtype, scale)
    c = make_rows(seed + 1, 7, dims, np.float32, scale)
    rng = np.random.default_rng(seed)
    which, opposite = rng.integers(0, rows, pairs), rng.integers(0, 7, pairs)
    backend = make_backend(workspace=workspace)
    found = backend.squared_distances_of_pairs(backend.upload(x) if uploaded else x, which, c, opposite, metric)
    expected = kernels.squared_distances_of_pairs(x, which, c, opposite, metric)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_pairs_refused(make_backend):
    backend, x = make_backend(), np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match="pairs name rows 0 to 3; there are 3"):
        backend.squared_distances_of_pairs(x, np.array([0, 3]), x, np.array([0, 0]), "l2")
    with pytest.raises(ValueError, match="do not make pairs"):
        backend.squared_distances_of_pairs(x, np.array([0, 1]), x, np.array([0]), "l2")


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 60), dims=st.integers(1, 40), dtype=DTYPES, metric=METRICS,
    spread=st.sampled_from([1.0, 1e-3, 100.0]), workspace=WORKSPACES, uploaded=st.booleans(),
)  # fmt: skip
def test_quantise(make_backend, seed, rows, dims, dtype, metric, spread, workspace, uploaded):
    x = make_rows(seed, rows, dims, dtype, "unit")
    # Beyond the quantiser's ranges, too: clipped.
    quantiser = kernels.Quantiser.for_statistics(kernels.statistics(x[: rows // 2 + 1], metric), metric)
    quantiser = dataclasses.replace(quantiser, step=quantiser.step * spread)
    backend = make_backend(workspace=workspace)
    found = backend.quantise(backend.upload(x) if uploaded else x, quantiser, metric)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, kernels.quantise(x, quantiser, metric))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 30), others=st.integers(0, 9),
    dims=st.sampled_from([1, 17, 1039, 1040, 1041, 2500]), extreme=st.booleans(), workspace=WORKSPACES,
)  # fmt: skip
def test_integer_distances(make_backend, seed, rows, others, dims, extreme, workspace):
    rng = np.random.default_rng(seed)
    low, high = (127, 128) if extreme else (-127, 128)
    a = rng.integers(low, high, (rows, dims)).astype(np.int8)
    b = (rng.integers(low, high, (others, dims)) * (-1 if extreme else 1)).astype(np.int8)
    found = make_backend(workspace=workspace).quantised_distances(a, b)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, kernels.quantised_distances(a, b))


def test_integers_of_other_shapes_are_refused(make_backend):
    backend = make_backend()
    with pytest.raises(ValueError, match="both must be int8 with equal dims"):
        backend.quantised_distances(np.zeros((2, 3), np.int8), np.zeros((2, 4), np.int8))


def test_memory_is_bounded_whatever_the_rows(make_host_device):
    from streamcurate.kernels.gpu import integers, sums
    from streamcurate.kernels.gpu import statistics as statistics_module

    workspace = 2**18
    x = make_rows(0, 6000, 30, np.float32, "unit")
    seen = kernels.statistics(x, "cosine")
    labels = np.random.default_rng(0).integers(0, 3000, 6000).astype(np.int32)
    fixed = kernels.FixedPoint.for_data(-149, 127, 6000)
    quantiser = kernels.Quantiser.for_statistics(seen, "cosine")
    small = kernels.quantise(x, quantiser, "cosine")
    for call in (
        # Sums that are not kept on the device.
        lambda device: sums.cluster_sums(device, workspace, x, labels, "l2", fixed, 3000).limbs,
        lambda device: statistics_module.statistics(device, workspace, x, "cosine"),
        lambda device: integers.quantise(device, workspace, x, quantiser, "cosine"),
        lambda device: integers.quantised_distances(device, workspace, small, small[:2000]),
    ):
        device = make_host_device(memory=2**23)
        call(device)
        assert workspace / 8 < device.most_used <= 1.05 * workspace
        assert device.used == 0
