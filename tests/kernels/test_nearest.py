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
from nearest_cases import brute_force, gaussian, huge, lattice, mixed, neighbours, offset, repeated, tiny

from streamcurate import kernels
from streamcurate.kernels import workspace
from streamcurate.kernels.cpu import choice, prepare
from streamcurate.kernels.cpu import nearest as nearest_module

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])


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
        context.setattr(nearest_module, "row_tile", lambda dims, clusters: rows)
        yield


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=80, deadline=None)  # for each of the scenes
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 90), clusters=st.integers(1, 300), dims=st.integers(1, 40),
    dtype=DTYPES, metric=METRICS, columns=st.sampled_from([32, 96, 512]), screened=st.booleans(),
)  # fmt: skip
@example(seed=0, rows=70, clusters=1, dims=1, dtype=np.float32, metric="l2", columns=512, screened=True)
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
@settings(max_examples=40, deadline=None)
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


def _spectrum(rng, rows, clusters, dims):
    # What leading coordinates are for: most of the spread along a few directions, which are not those of the axes.
    scales = 1.0 / np.arange(1, dims + 1)
    turn = np.linalg.qr(rng.standard_normal((dims, dims)))[0]
    centres = rng.standard_normal((clusters, dims)) * scales @ turn
    return centres[rng.integers(clusters, size=rows)] + 0.1 * rng.standard_normal((rows, dims)) / dims**0.5, centres


def _plane(rng, rows, clusters, dims):
    # No tail at all: everything lies in two dimensions of many.
    turn = rng.standard_normal((2, dims))
    return rng.standard_normal((rows, 2)) @ turn, rng.integers(-2, 3, (clusters, 2)) @ turn


@contextmanager
def forced(leading, dims, clusters):
    """The search with so many leading coordinates, whatever it costs; gives what remembers that."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(choice, "candidates", lambda clusters, dims: (leading,))
        context.setattr(choice, "axes_count", lambda dims: dims)
        context.setattr(choice, "STEP", 4)
        experience = choice.Experience()
        for known in (False, True):
            experience.chosen[dims, clusters.bit_length(), known] = (leading, 1)
        yield experience


@pytest.mark.parametrize("scene", [*SCENES, _spectrum, _plane])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 90), clusters=st.integers(1, 300), dims=st.integers(2, 70),
    leading=st.integers(1, 60), dtype=DTYPES, metric=METRICS, columns=st.sampled_from([32, 96, 512]),
    guessed=st.sampled_from(["nothing", "anything", "nearly all", "the answer"]),
)  # fmt: skip
def test_leading_coordinates_and_guesses_change_no_answer(
    scene, seed, rows, clusters, dims, leading, dtype, metric, columns, guessed
):
    leading = min(leading, dims - 1)
    x, c = make(scene, seed, rows, clusters, dims, dtype)
    expected_labels, expected_values = brute_force(x, c, metric)
    rng = np.random.default_rng(seed)
    guesses = None
    if guessed == "anything":
        guesses = rng.integers(-1, clusters + 2, rows).astype(np.int32)
    elif guessed == "nearly all":
        guesses = np.where(rng.random(rows) < 0.1, -1, rng.integers(clusters, size=rows)).astype(np.int32)
    elif guessed == "the answer":
        guesses = expected_labels.astype(np.int32)
    with small_tiles(columns, 32, True), forced(leading, dims, clusters) as experience:
        prepared = kernels.prepare_centroids(c, metric, experience)
        labels, values = kernels.nearest(x, prepared, guesses=guesses)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(labels, expected_labels)


def test_leading_coordinates_rule_out_most_pairs(monkeypatch):
    x, c = make(_spectrum, 0, 500, 400, 96, np.float32)
    survived = []
    original = nearest_module.sift_leading
    monkeypatch.setattr(nearest_module, "sift_leading", lambda *arguments: survived.append(original(*arguments)))
    expected = brute_force(x, c, "l2")
    for guesses, most in ((None, 0.1), (expected[0].astype(np.int32), 0.02)):
        with forced(16, 96, 400) as experience:
            labels, _ = kernels.nearest(x, kernels.prepare_centroids(c, "l2", experience), guesses=guesses)
        np.testing.assert_array_equal(labels, expected[0])
        assert 0 < sum(survived) < most * 500 * 400
        survived.clear()


@pytest.mark.parametrize("fastest", [choice.PLAIN, 24, 32])
def test_the_search_is_chosen_by_what_its_first_tiles_took(monkeypatch, fastest):
    x, c = make(_spectrum, 0, 8000, 500, 128, np.float32)
    used = []
    report = choice.Choice.report

    def reported(self, known, leading, rows, seconds):
        used.append(leading)
        report(self, known, leading, rows, rows * (1.0 + abs(leading - fastest)))

    monkeypatch.setattr(choice.Choice, "report", reported)
    experience = choice.Experience()
    with small_tiles(512, 16, True):
        expected = kernels.nearest(x, kernels.prepare_centroids(c, "l2", experience))
        assert used[0] == choice.PLAIN
        assert used[-1] == fastest
        # Settled before long: every choice away from the fastest costs.
        assert sum(leading != fastest for leading in used[len(used) // 2 :]) == 0
        used.clear()
        # The next pass knows.
        again = kernels.nearest(x, kernels.prepare_centroids(c, "l2", experience))
    assert set(used) == {fastest}
    np.testing.assert_array_equal(again[0], expected[0])
