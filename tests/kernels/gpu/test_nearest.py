"""Nearest centroids on a device, against the CPU's."""

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
from streamcurate.errors import InputError
from streamcurate.kernels.gpu import nearest as nearest_module
from streamcurate.kernels.gpu import prepare

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])
WORKSPACES = st.sampled_from([2**12, 2**16, 2**29])


def _far_rows(rng, rows, clusters, dims):
    # Beyond what scores can hold: these rows take the formula with every centroid.
    x = rng.standard_normal((rows, dims))
    x[::2] *= 1e25
    return x, rng.standard_normal((clusters, dims)) * 1e-10


def _one_point(rng, rows, clusters, dims):
    return rng.standard_normal((rows, dims)), np.tile(rng.standard_normal(dims), (clusters, 1))


SCENES = [gaussian, repeated, lattice, neighbours, offset, huge, tiny, mixed, _far_rows, _one_point]


def make(scene, seed, rows, clusters, dims, dtype):
    x, c = scene(np.random.default_rng(seed), rows, clusters, dims)
    limit = float(np.finfo(dtype).max)
    return np.clip(x, -limit, limit).astype(dtype), np.clip(c, -3.4e38, 3.4e38).astype(np.float32)


@contextmanager
def screening(always):
    with pytest.MonkeyPatch.context() as context:
        if always:
            context.setattr(prepare, "DIRECT_WORK", 0)
            context.setattr(prepare, "DIRECT_DIMS", 0)
            context.setattr(nearest_module, "LARGEST_COLUMNS", 64)
        yield


def same(found, expected):
    assert found[0].dtype == np.int32
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 90), clusters=st.integers(1, 300), dims=st.integers(1, 40),
    dtype=DTYPES, metric=METRICS, workspace=WORKSPACES, screened=st.booleans(), rough=st.booleans(),
    backwards=st.booleans(), uploaded=st.booleans(),
)  # fmt: skip
@example(
    seed=0, rows=90, clusters=299, dims=9, dtype=np.float16, metric="l2", workspace=2**16, screened=True, rough=True,
    backwards=True, uploaded=True,
)  # fmt: skip
def test_labels_and_values_are_the_cpus(
    make_backend, scene, seed, rows, clusters, dims, dtype, metric, workspace, screened, rough, backwards, uploaded
):
    x, c = make(scene, seed, rows, clusters, dims, dtype)
    expected = kernels.nearest(x, kernels.prepare_centroids(c, metric))
    backend = make_backend(workspace=workspace, rough=rough, backwards=backwards)
    with screening(screened):
        prepared = backend.prepare_centroids(c, metric)
        same(backend.nearest(backend.upload(x) if uploaded else x, prepared), expected)


@pytest.mark.parametrize("scene", [gaussian, repeated, neighbours, lattice, _far_rows])
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32), clusters=st.integers(2, 120), dims=st.sampled_from([2, 9, 33]), metric=METRICS,
    screened=st.booleans(), rough=st.booleans(), cuts=st.lists(st.integers(1, 119), max_size=4),
)  # fmt: skip
def test_slices_of_centroids_in_any_order_give_the_same_answer(
    make_backend, scene, seed, clusters, dims, metric, screened, rough, cuts
):
    x, c = make(scene, seed, 50, clusters, dims, np.float32)
    edges = sorted({0, clusters, *(cut for cut in cuts if cut < clusters)})
    slices = list(itertools.pairwise(edges))
    np.random.default_rng(seed).shuffle(slices)
    backend = make_backend(workspace=2**16, rough=rough)
    rows = backend.upload(x)
    answer = None
    for first, last in slices:
        with screening(screened):
            prepared = backend.prepare_centroids(c[first:last], metric)
            answer = backend.nearest(rows, prepared, previous=answer, first_cluster=first)
    same(answer, kernels.nearest(x, kernels.prepare_centroids(c, metric)))


def test_previous_without_a_label_is_no_answer(make_backend):
    x, c = make(gaussian, 0, 10, 30, 12, np.float32)
    backend = make_backend()
    with screening(True):
        prepared = backend.prepare_centroids(c, "l2")
        none_yet = np.full(10, -1, np.int32), np.zeros(10)
        same(backend.nearest(x, prepared, previous=none_yet), backend.nearest(x, prepared))


def test_few_pairs_are_rescored(make_host_device):
    # The certificate must rule out nearly every pair of ordinary data, or screening would gain nothing.
    x, c = make(gaussian, 0, 400, 300, 64, np.float16)
    device = make_host_device()
    seen = []

    def launch(kernel, count, *arguments):
        if kernel.startswith("settle"):
            length, upper, lower = (arguments[place]._array for place in (8, 9, 7))
            keys = np.where(upper < 0, upper ^ 0x7FFFFFFFFFFFFFFF, upper).view(np.float64)
            seen.append(sum(int((lower[:n, i] <= keys[i]).sum()) for i, n in enumerate(length)))
            assert length.max() <= len(lower)
        type(device).launch(device, kernel, count, *arguments)

    device.launch = launch
    for centroids, metric in ((c + np.float32(1000), "l2"), (c, "cosine")):
        prepared = prepare.prepare_centroids(device, centroids, metric)
        nearest_module.nearest(device, 2**29, x, prepared)
    assert sum(seen) < 1.05 * 800


@pytest.mark.parametrize("workspace", [2**17, 2**20])
@pytest.mark.parametrize(("rows", "dims", "clusters"), [(3000, 48, 700), (2000, 2, 900), (40, 2000, 300)])
def test_device_memory_is_bounded_whatever_the_rows(make_host_device, rows, dims, clusters, workspace):
    x, c = make(repeated, 1, rows, clusters, dims, np.float16)
    device = make_host_device()
    prepared = prepare.prepare_centroids(device, c, "cosine")
    held = device.used
    assert prepared.nbytes <= held <= device.most_used <= prepare.prepared_device_bytes(clusters, dims)
    device.most_used = 0
    nearest_module.nearest(device, workspace, x, prepared)
    bound = nearest_module.nearest_device_bytes(rows, dims, clusters, workspace)
    assert device.most_used - held <= bound <= workspace + 2**20
    assert device.used == held


def test_what_does_not_fit_is_refused_and_leaves_nothing_behind(make_host_device):
    x, c = make(gaussian, 1, 500, 3000, 40, np.float16)
    device = make_host_device(memory=2**19)
    with pytest.raises(InputError, match="do not fit"):
        prepare.prepare_centroids(device, c, "l2")
    prepared = prepare.prepare_centroids(device, c[:1000], "l2")
    expected = kernels.nearest(x, kernels.prepare_centroids(c[:1000], "l2"))
    same(nearest_module.nearest(device, device.free_bytes() // 2, x, prepared), expected)


def test_what_is_not_prepared_here_is_refused(make_backend):
    backend = make_backend()
    c = np.zeros((3, 4), np.float32)
    with pytest.raises(TypeError, match="prepared for another device"):
        backend.nearest(np.zeros((2, 4), np.float32), kernels.prepare_centroids(c, "l2"))
    with pytest.raises(ValueError, match="5 dims, the centroids 4"):
        backend.nearest(np.zeros((2, 5), np.float32), backend.prepare_centroids(c, "l2"))
    with pytest.raises(ValueError, match="at least one centroid"):
        backend.prepare_centroids(np.zeros((0, 4), np.float32), "l2")
    with pytest.raises(ValueError, match="a block holds"):
        backend.nearest(np.zeros((2, 4)), backend.prepare_centroids(c, "l2"))


def test_threads_take_turns(make_backend):
    x, c = make(gaussian, 5, 400, 200, 24, np.float16)
    expected = kernels.nearest(x, kernels.prepare_centroids(c, "l2"))
    backend = make_backend(workspace=2**16)
    prepared = backend.prepare_centroids(c, "l2")
    barrier = threading.Barrier(3)

    def work(_):
        barrier.wait()
        return backend.nearest(backend.upload(x), prepared)

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(work, range(3)):
            same(found, expected)
