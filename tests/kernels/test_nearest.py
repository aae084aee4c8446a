"""Nearest centroids, against the formula over all pairs."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nearest_cases import gaussian, huge, lattice, mixed, neighbours, offset, repeated, tiny

from streamcurate import kernels
from streamcurate.kernels import workspace
from streamcurate.kernels.cpu import nearest as nearest_module
from streamcurate.kernels.cpu import prepare

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])


def brute_force(rows, centroids, metric):
    """The formula for all pairs at once: NumPy's float64 operations, one coordinate after the other."""
    x = rows.astype(np.float64)
    if metric == "cosine":
        squared = np.zeros(len(x))
        for j in range(x.shape[1]):
            squared += x[:, j] * x[:, j]
        norms = np.sqrt(squared)
        x = x / np.where(norms == 0, 1, norms)[:, None]
    values = np.zeros((len(x), len(centroids)))
    for j in range(x.shape[1]):
        values += (x[:, j, None] - centroids[:, j].astype(np.float64)) ** 2
    return values.argmin(axis=1), values.min(axis=1)


def _unlike_norms(rng, rows, clusters, dims):
    powers = 10.0 ** rng.integers(-3, 4, (clusters, 1))
    return rng.standard_normal((rows, dims)), rng.standard_normal((clusters, dims)) * powers


def _far_rows(rng, rows, clusters, dims):
    # Beyond what scores can hold: these rows take the formula with every centroid.
    x = rng.standard_normal((rows, dims))
    x[::2] *= 1e25
    return x, rng.standard_normal((clusters, dims)) * 1e-10


def _one_point(rng, rows, clusters, dims):
    return rng.standard_normal((rows, dims)), np.tile(rng.standard_normal(dims), (clusters, 1))


SCENES = [
    gaussian, repeated, lattice, neighbours, offset, huge, tiny, mixed, _unlike_norms, _far_rows, _one_point,
]  # fmt: skip


def make(scene, seed, rows, clusters, dims, dtype):
    x, c = scene(np.random.default_rng(seed), rows, clusters, dims)
    limit = float(np.finfo(dtype).max)
    return np.clip(x, -limit, limit).astype(dtype), np.clip(c, -3.4e38, 3.4e38).astype(np.float32)


@contextmanager
def small_tiles(columns, rows, screened):
    """Tiles so small that a few hundred rows and centroids make many of them; screening for the smallest, too."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(prepare, "LARGEST_TILE", columns)
        if screened:
            context.setattr(prepare, "DIRECT_WORK", 0)
        context.setattr(nearest_module, "_row_tile", lambda dims, clusters: rows)
        yield


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 90), clusters=st.integers(1, 300), dims=st.integers(1, 40),
    dtype=DTYPES, metric=METRICS, columns=st.sampled_from([32, 96, 2048]), screened=st.booleans(),
)  # fmt: skip
@example(seed=0, rows=70, clusters=1, dims=1, dtype=np.float32, metric="l2", columns=2048, screened=True)
@example(seed=0, rows=90, clusters=299, dims=9, dtype=np.float16, metric="l2", columns=32, screened=True)
def test_labels_and_values_are_those_of_the_formula(
    scene, seed, rows, clusters, dims, dtype, metric, columns, screened
):
    x, c = make(scene, seed, rows, clusters, dims, dtype)
    with small_tiles(columns, 32, screened):
        labels, values = kernels.nearest(x, kernels.prepare_centroids(c, metric))
    expected_labels, expected_values = brute_force(x, c, metric)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("scene", [gaussian, repeated, neighbours, lattice, _far_rows])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), clusters=st.integers(2, 120), dims=st.sampled_from([2, 9, 33]),
    metric=METRICS, screened=st.booleans(), cuts=st.lists(st.integers(1, 119), max_size=4),
)  # fmt: skip
def test_slices_of_centroids_in_any_order_give_the_same_answer(scene, seed, clusters, dims, metric, screened, cuts):
    x, c = make(scene, seed, 50, clusters, dims, np.float32)
    edges = sorted({0, clusters, *(cut for cut in cuts if cut < clusters)})
    slices = list(itertools.pairwise(edges))
    np.random.default_rng(seed).shuffle(slices)
    answer = None
    for first, last in slices:
        with small_tiles(64, 32, screened):
            prepared = kernels.prepare_centroids(c[first:last], metric)
            answer = kernels.nearest(x, prepared, previous=answer, first_cluster=first)
    expected_labels, expected_values = brute_force(x, c, metric)
    np.testing.assert_array_equal(answer[0], expected_labels)
    np.testing.assert_array_equal(answer[1], expected_values)


def test_rows_that_are_the_centroids_find_themselves():
    x = np.random.default_rng(3).standard_normal((200, 24)).astype(np.float32)
    labels, values = kernels.nearest(x, kernels.prepare_centroids(x, "l2"))
    np.testing.assert_array_equal(labels, np.arange(200))
    np.testing.assert_array_equal(values, 0)


def test_previous_without_a_label_is_no_answer():
    x, c = make(gaussian, 0, 10, 30, 12, np.float32)
    prepared = kernels.prepare_centroids(c, "l2")
    none_yet = np.full(10, -1, np.int32), np.zeros(10)
    np.testing.assert_array_equal(kernels.nearest(x, prepared, previous=none_yet)[0], kernels.nearest(x, prepared)[0])


def test_few_pairs_are_rescored(monkeypatch):
    # The certificate must rule out nearly every pair of ordinary data, or screening would gain nothing.
    x, c = make(gaussian, 0, 400, 300, 64, np.float16)
    seen = []
    original = nearest_module._pair_values
    monkeypatch.setattr(
        nearest_module, "_pair_values", lambda *arguments: (seen.append(len(arguments[1])), original(*arguments))
    )
    kernels.nearest(x, kernels.prepare_centroids(c + np.float32(1000), "l2"))
    kernels.nearest(x, kernels.prepare_centroids(c, "cosine"))
    assert sum(seen) < 1.05 * 800


@pytest.mark.parametrize(
    ("rows", "dims", "clusters", "metric"),
    [
        (3000, 48, 700, "cosine"),
        (5000, 2, 3000, "l2"),
        (5000, 300, 12, "l2"),
        (400, 2000, 30, "cosine"),
        (9, 5, 3, "l2"),
    ],
)
def test_threads_keep_their_work_apart_and_within_the_bytes_said(rows, dims, clusters, metric):
    x, c = make(gaussian, 1, rows, clusters, dims, np.float16)
    prepared = kernels.prepare_centroids(c, metric)
    expected = kernels.nearest(x, prepared)
    barrier = threading.Barrier(3)

    def work(_):
        barrier.wait()
        answer = kernels.nearest(x, prepared)
        return answer, sum(buffer.base.nbytes for buffer in workspace._buffers.by_name.values())

    with ThreadPoolExecutor(3) as pool:
        for answer, nbytes in pool.map(work, range(3)):
            np.testing.assert_array_equal(answer[0], expected[0])
            np.testing.assert_array_equal(answer[1], expected[1])
            assert 0 < nbytes <= kernels.nearest_workspace_bytes(rows, dims, clusters)


def test_arrays_that_cannot_be_written_are_read():
    x, c = make(gaussian, 2, 300, 200, 12, np.float16)
    expected = kernels.nearest(x, kernels.prepare_centroids(c, "cosine"))
    x.setflags(write=False)
    c.setflags(write=False)
    labels, values = kernels.nearest(x, kernels.prepare_centroids(c, "cosine"))
    np.testing.assert_array_equal(labels, expected[0])
    labels.setflags(write=False)
    seen = kernels.statistics(x, "cosine")
    kernels.cluster_sums(x, labels, "cosine", seen.fixed_point("cosine"), 200)
    kernels.quantise(x, kernels.Quantiser.for_statistics(seen, "cosine"), "cosine")
    values.setflags(write=False)
    kernels.ExactTotal.scale(4.0, 300).add(values)


@pytest.mark.parametrize(("rows", "dims", "clusters"), [(10**6, 384, 10**6), (10**6, 2, 5000), (10**6, 4096, 100)])
def test_workspace_does_not_grow_with_rows_or_clusters(rows, dims, clusters):
    assert kernels.nearest_workspace_bytes(rows, dims, clusters) < 32 * 2**20


def test_prepared_bytes_are_within_those_said():
    for clusters, dims in ((10, 4), (77, 12), (3000, 40)):
        c = np.random.default_rng(0).standard_normal((clusters, dims)).astype(np.float32)
        prepared = kernels.prepare_centroids(c, "l2")
        assert prepared.nbytes <= kernels.prepared_centroids_bytes(clusters, dims)
        assert (prepared.clusters, prepared.dims) == (clusters, dims)


def test_other_dims_are_refused():
    prepared = kernels.prepare_centroids(np.zeros((3, 4), np.float32), "l2")
    with pytest.raises(ValueError, match="5 dims, the centroids 4"):
        kernels.nearest(np.zeros((2, 5), np.float32), prepared)
    with pytest.raises(ValueError, match="at least one centroid"):
        kernels.prepare_centroids(np.zeros((0, 4), np.float32), "l2")
    with pytest.raises(ValueError, match="holds up to 1048576"):
        kernels.prepare_centroids(np.zeros((1, 2**20 + 1), np.float32), "l2")
