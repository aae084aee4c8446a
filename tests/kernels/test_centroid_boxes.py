"""The tree of boxes, against the formula over all pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nearest_cases import brute_force, gaussian, huge, lattice, mixed, neighbours, offset, repeated, tiny

from streamcurate import kernels
from streamcurate.kernels.cpu import centroid_boxes

METRICS = st.sampled_from(["l2", "cosine"])
DTYPES = st.sampled_from([np.float16, np.float32])
SCENES = [gaussian, repeated, lattice, neighbours, offset, huge, tiny, mixed]


def make(scene, seed, rows, clusters, dims, dtype):
    x, c = scene(np.random.default_rng(seed), rows, clusters, dims)
    limit = float(np.finfo(dtype).max)
    return np.clip(x, -limit, limit).astype(dtype), np.clip(c, -3.4e38, 3.4e38).astype(np.float32)


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 60), clusters=st.integers(1, 300), dims=st.integers(1, 9),
    dtype=DTYPES, metric=METRICS, leaf=st.sampled_from([1, 3, 48]), hinted=st.booleans(),
)  # fmt: skip
def test_labels_and_values_are_those_of_the_formula(scene, seed, rows, clusters, dims, dtype, metric, leaf, hinted):
    x, c = make(scene, seed, rows, clusters, dims, dtype)
    hints = np.random.default_rng(seed).integers(-1, clusters, rows).astype(np.int32) if hinted else None
    with pytest.MonkeyPatch.context() as context:
        context.setattr(centroid_boxes, "_LEAF", leaf)
        labels, values = centroid_boxes.nearest(x, centroid_boxes.prepare(c, metric), hints=hints)
    expected_labels, expected_values = brute_force(x, c, metric)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("scene", [gaussian, repeated, lattice])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), clusters=st.integers(2, 120), dims=st.sampled_from([1, 2, 5]),
    metric=METRICS, cuts=st.lists(st.integers(1, 119), max_size=4),
)  # fmt: skip
def test_slices_of_centroids_in_any_order_give_the_same_answer(scene, seed, clusters, dims, metric, cuts):
    x, c = make(scene, seed, 50, clusters, dims, np.float32)
    slices = list(itertools.pairwise(sorted({0, clusters, *(cut for cut in cuts if cut < clusters)})))
    np.random.default_rng(seed).shuffle(slices)
    answer = None
    for first, last in slices:
        answer = centroid_boxes.nearest(
            x, centroid_boxes.prepare(c[first:last], metric), previous=answer, first_cluster=first
        )
    expected_labels, expected_values = brute_force(x, c, metric)
    np.testing.assert_array_equal(answer[0], expected_labels)
    np.testing.assert_array_equal(answer[1], expected_values)


@pytest.mark.parametrize("dims", [2, 8])
def test_it_answers_like_the_dense_search_over_many_clusters(dims):
    generator = np.random.default_rng(0)
    c = generator.standard_normal((20_000, dims)).astype(np.float32)
    x = generator.standard_normal((300, dims)).astype(np.float32)
    found = centroid_boxes.nearest(x, centroid_boxes.prepare(c, "l2"))
    expected = kernels.nearest(x, kernels.prepare_centroids(c, "l2"))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("clusters", [1, 48, 49, 385, 5000])
def test_what_it_holds_is_what_the_plan_counts(clusters):
    c = np.random.default_rng(1).standard_normal((clusters, 3)).astype(np.float32)
    prepared = centroid_boxes.prepare(c, "l2")
    assert prepared.nbytes <= centroid_boxes.grouped_bytes(clusters, 3)
    assert sorted(prepared.numbers[prepared.numbers >= 0]) == list(range(clusters))


def test_boxes_leave_nearly_all_centroids_out():
    """Without a single useful bound every leaf would be visited; a poisoned far leaf shows that it is not."""
    generator = np.random.default_rng(2)
    c = generator.uniform(0, 1, (4096, 2)).astype(np.float32)
    prepared = centroid_boxes.prepare(c, "l2")
    far = np.flatnonzero((prepared.members[:, 0, :] > 0.5).all(axis=1))
    assert len(far) > 100
    prepared.members[far] = 0.25  # a visitor of these leaves would find a centroid on the row
    x = np.full((1, 2), 0.25, dtype=np.float32)
    labels, values = centroid_boxes.nearest(x, prepared)
    expected_labels, expected_values = brute_force(x, c, "l2")
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(values, expected_values)


def test_where_it_is_worth_its_while():
    assert centroid_boxes.worthwhile(300, 2)
    assert centroid_boxes.worthwhile(3000, 6)
    assert centroid_boxes.worthwhile(100_000, 8)
    assert not centroid_boxes.worthwhile(100, 2)
    assert not centroid_boxes.worthwhile(3000, 8)
    assert not centroid_boxes.worthwhile(10_000_000, 64)


def test_arrays_that_do_not_belong_together_are_refused():
    c = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="3 dims, the centroids 2"):
        centroid_boxes.nearest(np.zeros((1, 3), dtype=np.float32), centroid_boxes.prepare(c, "l2"))
    with pytest.raises(ValueError, match="at least one centroid"):
        centroid_boxes.prepare(c[:0], "l2")
    with pytest.raises(ValueError, match="metric"):
        centroid_boxes.prepare(c, "l1")
