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
from streamcurate.kernels.gpu import screen as screen_module
from streamcurate.kernels.gpu.backend import GpuBackend
from streamcurate.kernels.gpu.choice import RouteChoice
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])
WORKSPACES = st.sampled_from([2**14, 2**17, 2**29])
ROUTES = st.sampled_from([FUSED, HALF, SINGLE])


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
            context.setattr(screen_module, "LARGEST_COLUMNS", 64)
        yield


def same(found, expected):
    assert found[0].dtype == np.int32
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=16, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 90), clusters=st.integers(1, 300), dims=st.integers(1, 40),
    dtype=DTYPES, metric=METRICS, workspace=WORKSPACES, screened=st.booleans(), rough=st.booleans(),
    backwards=st.booleans(), uploaded=st.booleans(), route=ROUTES,
)  # fmt: skip
@example(
    seed=0, rows=90, clusters=299, dims=9, dtype=np.float16, metric="l2", workspace=2**16, screened=True, rough=True,
    backwards=True, uploaded=True, route=HALF,
)  # fmt: skip
def test_labels_and_values_are_the_cpus(
    make_backend, scene, seed, rows, clusters, dims, dtype, metric, workspace, screened, rough, backwards, uploaded,
    route,
):  # fmt: skip
    x, c = make(scene, seed, rows, clusters, dims, dtype)
    expected = kernels.nearest(x, kernels.prepare_centroids(c, metric))
    backend = make_backend(workspace=workspace, rough=rough, backwards=backwards, route=route)
    with screening(screened):
        prepared = backend.prepare_centroids(c, metric)
        same(backend.nearest(backend.upload(x) if uploaded else x, prepared), expected)


@pytest.mark.parametrize("scene", [gaussian, repeated, neighbours, lattice, _far_rows])
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32), clusters=st.integers(2, 120), dims=st.sampled_from([2, 9, 33]), metric=METRICS,
    screened=st.booleans(), rough=st.booleans(), route=ROUTES, cuts=st.lists(st.integers(1, 119), max_size=4),
)  # fmt: skip
def test_slices_of_centroids_in_any_order_give_the_same_answer(
    make_backend, scene, seed, clusters, dims, metric, screened, rough, route, cuts
):
    x, c = make(scene, seed, 50, clusters, dims, np.float32)
    edges = sorted({0, clusters, *(cut for cut in cuts if cut < clusters)})
    slices = list(itertools.pairwise(edges))
    np.random.default_rng(seed).shuffle(slices)
    backend = make_backend(workspace=2**16, rough=rough, route=route)
    rows = backend.upload(x)
    answer = None
    for first, last in slices:
        with screening(screened):
            prepared = backend.prepare_centroids(c[first:last], metric)
            answer = backend.nearest(rows, prepared, previous=answer, first_cluster=first)
    same(answer, kernels.nearest(x, kernels.prepare_centroids(c, metric)))


def test_relabelled_rows_are_searched_for_anew(make_backend):
    x, c = make(gaussian, 0, 60, 90, 12, np.float16)
    backend = make_backend()
    labels, values, floors = backend.relabel(x, backend.prepare_centroids(c + 1, "l2"))
    prepared = backend.prepare_centroids(c, "l2", c + 1, 0.5)
    labels, values, floors = backend.relabel(x, prepared, labels, floors, 1.0)
    same((labels, values), kernels.nearest(x, kernels.prepare_centroids(c, "l2")))
    assert floors.dtype == np.float32
    assert not floors.any()


def test_previous_without_a_label_is_no_answer(make_backend):
    x, c = make(gaussian, 0, 10, 30, 12, np.float32)
    backend = make_backend()
    with screening(True):
        prepared = backend.prepare_centroids(c, "l2")
        none_yet = np.full(10, -1, np.int32), np.zeros(10)
        same(backend.nearest(x, prepared, previous=none_yet), backend.nearest(x, prepared))


@pytest.mark.parametrize("route", [FUSED, HALF, SINGLE])
def test_few_pairs_are_rescored(make_host_device, route):
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
    for shift, metric in ((1000, "l2"), (0, "l2"), (0, "cosine")):
        centroids = c + np.float32(shift)
        rows = (x + np.float16(shift)).astype(np.float16)
        prepared = prepare.prepare_centroids(device, centroids, metric)
        same(
            nearest_module.nearest(device, 2**29, rows, prepared, choice=RouteChoice((route,))),
            kernels.nearest(rows, kernels.prepare_centroids(centroids, metric)),
        )
    # Offset rows are rounded to float16 twice: once as they are, once without the offset.
    assert sum(seen) < (1.02 if route == SINGLE else 1.15) * 1200


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("route", [FUSED, HALF])
def test_rows_screened_in_vain_go_on_to_float32_and_no_further(make_host_device, route, dtype):
    # Two crowds of centroids that a float16 search cannot tell from one another, and a float32 one can.
    rng = np.random.default_rng(0)
    c = np.where(np.arange(140) % 2, 1.0, -1.0)[:, None] + 1e-3 * rng.standard_normal((140, 40))
    x = (np.where(np.arange(90) % 2, 1.0, -1.0)[:, None] + 0.5 * rng.standard_normal((90, 40))).astype(dtype)
    c = c.astype(np.float32)
    device = make_host_device()
    prepared = prepare.prepare_centroids(device, c, "l2")
    found = nearest_module.nearest(device, 2**29, x, prepared, choice=RouteChoice((route,)))
    same(found, kernels.nearest(x, kernels.prepare_centroids(c, "l2")))
    assert f"gather_{np.dtype(dtype)}" in device.launched
    assert not any(kernel.startswith("direct") for kernel in device.launched)


def test_routes_are_measured_and_the_fastest_is_taken(make_host_device, monkeypatch):
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((900, 20)).astype(np.float16), rng.standard_normal((400, 20)).astype(np.float32)
    expected = kernels.nearest(x, kernels.prepare_centroids(c, "l2"))
    monkeypatch.setattr(nearest_module, "TRIAL_ROWS", 100)
    device = make_host_device()
    # By this clock the matrix library's float16 products are the fastest, once they have been used.
    now = [0.0]
    spent = {"fused_screen": 3.0, "screen": 1.0, "fill_columns": 5.0}
    monkeypatch.setattr(nearest_module.time, "perf_counter", lambda: now[0])
    first = [True]

    def pay(kernel):
        now[0] += spent.get(kernel, 0.0) + (50.0 if first[0] and kernel == "screen" else 0.0)
        first[0] = first[0] and kernel != "screen"

    def launch(kernel, count, *arguments):
        pay(kernel)
        type(device).launch(device, kernel, count, *arguments)

    def fused(*arguments):
        pay("fused_screen")
        type(device).fused_screen(device, *arguments)

    device.launch, device.fused_screen = launch, fused
    backend = GpuBackend(device)
    prepared = backend.prepare_centroids(c, "l2")
    same(backend.nearest(x, prepared), expected)
    (measured,) = backend.choice.measured().values()
    assert set(measured) == {FUSED, HALF, SINGLE}
    assert measured[HALF] == min(measured.values())
    device.launched.clear()
    same(backend.nearest(x, prepared), expected)
    assert "fused_screen" not in device.launched
    assert "fill_columns" not in device.launched
    # Fewer rows than a measurement takes measure nothing, and another kind of search is measured by itself.
    other = backend.prepare_centroids(c, "cosine")
    same(backend.nearest(x[:99], other), kernels.nearest(x[:99], kernels.prepare_centroids(c, "cosine")))
    assert len(backend.choice.measured()) == 1
    backend.nearest(x, other)
    assert len(backend.choice.measured()) == 2


def test_a_fused_kernel_that_gives_up_is_not_asked_again(make_host_device):
    x, c = make(gaussian, 0, 300, 200, 24, np.float16)
    device = make_host_device()
    calls = []

    def broken(blocks, shared_bytes, *arguments):
        calls.append(blocks)
        arguments[-1]._array[0] = 1

    device.fused_screen = broken
    backend = GpuBackend(device)
    prepared = backend.prepare_centroids(c, "l2")
    for _ in range(2):
        same(backend.nearest(x, prepared), kernels.nearest(x, kernels.prepare_centroids(c, "l2")))
    assert len(calls) == 1
    assert backend.choice.routes == (HALF, SINGLE)


@pytest.mark.parametrize("workspace", [2**17, 2**20])
@pytest.mark.parametrize(("rows", "dims", "clusters"), [(1500, 48, 300), (1000, 2, 900), (40, 1000, 200)])
@pytest.mark.parametrize("route", [FUSED, HALF, SINGLE])
def test_device_memory_is_bounded_whatever_the_rows(make_host_device, rows, dims, clusters, workspace, route):
    x, c = make(lattice, 1, rows, clusters, dims, np.float16)
    device = make_host_device()
    prepared = prepare.prepare_centroids(device, c, "cosine")
    most = prepare.prepared_device_bytes(clusters, dims)
    assert prepared.nbytes == device.used == device.most_used < most
    if not prepared.direct:
        with device.session():
            # Whatever was asked for before, and from rows of another kind: one set of float16 columns is kept.
            for other, dtype in ((HALF, np.float32), (FUSED, np.float16), (SINGLE, np.float32), (route, np.float16)):
                prepare.layout_of(device, prepared, other, np.dtype(dtype))
    held = device.used
    assert prepared.nbytes <= held <= device.most_used <= most
    device.most_used = 0
    nearest_module.nearest(device, workspace, x, prepared, choice=RouteChoice((route,)))
    bound = nearest_module.nearest_device_bytes(rows, dims, clusters, workspace, (route, SINGLE))
    assert device.most_used - held <= bound <= workspace + 2**20 + 2**17
    assert device.used == held


def test_what_does_not_fit_is_refused_and_leaves_nothing_behind(make_host_device):
    x, c = make(gaussian, 1, 500, 3500, 40, np.float16)
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
