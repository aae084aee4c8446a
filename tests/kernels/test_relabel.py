"""Labels that follow their centroids from pass to pass, against the formula over all pairs."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nearest_cases import all_pairs, gaussian, huge, lattice, neighbours, offset, repeated, tiny

from streamcurate import kernels
from streamcurate.kernels.cpu import choice, prepare
from streamcurate.kernels.cpu import nearest as nearest_module

SCENES = [gaussian, repeated, lattice, neighbours, offset, huge, tiny]


@contextmanager
def small(leading, dims):
    """Small tiles, everything screened, so many leading coordinates (0: all of them) whatever they cost."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(prepare, "LARGEST_TILE", 64)
        context.setattr(prepare, "DIRECT_WORK", 0)
        context.setattr(nearest_module, "row_tile", lambda dims, clusters: 32)
        context.setattr("streamcurate.kernels.cpu.relabel.row_tile", lambda dims, clusters: 32)
        context.setattr(choice, "candidates", lambda clusters, dims: (leading,) if leading else ())
        context.setattr(choice, "axes_count", lambda dims: dims)
        context.setattr(choice, "STEP", 4)
        experience = choice.Experience()
        for bits in range(20):
            for known in (False, True):
                experience.chosen[dims, bits, known] = (leading, 1)
        yield experience


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 90), clusters=st.integers(1, 150), dims=st.integers(2, 40),
    leading=st.integers(0, 30), metric=st.sampled_from(["l2", "cosine"]), margin=st.sampled_from([0.0, 0.05, 1.0]),
    share=st.sampled_from([0.0, 0.05, 0.4, 1.0]), moves=st.lists(st.floats(1e-6, 0.3), min_size=1, max_size=4),
    left=st.floats(0, 1),
)  # fmt: skip
def test_labels_values_and_floors_from_pass_to_pass(
    scene, seed, rows, clusters, dims, leading, metric, margin, share, moves, left
):
    rng = np.random.default_rng(seed)
    x, c = scene(rng, rows, clusters, dims)
    x, c = np.clip(x, -3e38, 3e38).astype(np.float32), np.clip(c, -3e38, 3e38).astype(np.float32)
    spread = float(np.sqrt(np.mean(all_pairs(x, c, metric).min(axis=1))))
    labels = floors = before = None
    with small(min(leading, dims - 1), dims) as experience:
        for move in [0.0, *moves]:
            drift = 0.0
            if before is not None:
                # Some centroids move far, others less, most not at all.
                far = rng.random((clusters, 1)) < share
                step = rng.standard_normal((clusters, dims)) * move * spread / dims**0.5
                c = np.clip(c + np.where(far, step, 0) * rng.random((clusters, 1)), -3e38, 3e38).astype(np.float32)
                drift = left * float(kernels.centroid_shifts(before, c).max())
            prepared = prepare.prepare_centroids(c, metric, experience, before, drift)
            labels, values, floors = kernels.relabel(x, prepared, labels, floors, margin * spread)
            pairs = all_pairs(x, c, metric)
            np.testing.assert_array_equal(values, pairs.min(axis=1))
            np.testing.assert_array_equal(labels, pairs.argmin(axis=1))
            pairs[np.arange(rows), labels] = np.inf
            assert (floors.astype(np.float64) <= np.sqrt(pairs.min(axis=1)) * (1 + 1e-12)).all()
            assert floors.dtype == np.float32
            before = c


def _bunches(seed, rows=600, clusters=150, dims=40):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((clusters, dims)).astype(np.float32)
    return (c[rng.integers(clusters, size=rows)] + 0.3 * rng.standard_normal((rows, dims))).astype(np.float32), c


@pytest.mark.parametrize("leading", [0, 8])
def test_only_rows_that_a_move_can_concern_are_searched(monkeypatch, leading):
    x, c = _bunches(0)
    columns = []
    for name in ("sift", "sift_leading"):
        original = getattr(nearest_module, name)
        monkeypatch.setattr(
            nearest_module, name, lambda *a, original=original: (columns.append(a[0].size), original(*a))[1]
        )
    with small(leading, 40) as experience:
        labels, _, floors = kernels.relabel(x, kernels.prepare_centroids(c, "l2", experience), margin=1.0)
        assert sum(columns) >= 600 * 150
        columns.clear()
        # Nothing moved: nothing is searched.
        same = kernels.prepare_centroids(c, "l2", experience, c)
        labels, _, floors = kernels.relabel(x, same, labels, floors, 1.0)
        assert not columns
        # A few moved far, the others by little: all rows against those few (padded to 32), hardly any against all.
        moved = c + 1e-3
        moved[:5] += 0.2
        prepared = kernels.prepare_centroids(moved, "l2", experience, c, 0.1)
        labels, values, _ = kernels.relabel(x, prepared, labels, floors, 1.0)
        assert 0 < sum(columns) < 0.35 * 600 * 150
    pairs = all_pairs(x, moved, "l2")
    np.testing.assert_array_equal(labels, pairs.argmin(axis=1))
    np.testing.assert_array_equal(values, pairs.min(axis=1))


def test_floors_reach_as_far_as_the_margin():
    x, c = _bunches(1)
    pairs = all_pairs(x, c, "l2")
    nearest = np.sqrt(pairs.min(axis=1))
    pairs[np.arange(len(x)), pairs.argmin(axis=1)] = np.inf
    second = np.sqrt(pairs.min(axis=1))
    for leading in (0, 8):
        with small(leading, 40) as experience:
            _, _, floors = kernels.relabel(x, kernels.prepare_centroids(c, "l2", experience), margin=0.5)
        assert (floors > np.minimum(second, nearest + 0.5) - 1e-3).all()


def test_few_pairs_need_no_floors():
    x, c = _bunches(2, clusters=4, dims=3)
    labels, _, floors = kernels.relabel(x, kernels.prepare_centroids(c, "l2"))
    np.testing.assert_array_equal(labels, all_pairs(x, c, "l2").argmin(axis=1))
    assert not floors.any()


def test_prepared_bytes_cover_the_moved():
    for share in (0.1, 0.5, 1.0):
        c = np.random.default_rng(0).standard_normal((400, 60)).astype(np.float32)
        later = c.copy()
        later[: int(share * 400)] += 1
        prepared = kernels.prepare_centroids(later, "l2", None, c)
        assert (prepared.moved is None) == (share > 0.5)
        if prepared.moved is not None:
            assert len(prepared.moved.clusters) == share * 400
            held = prepared.moved.prepared.nbytes + prepared.moved.clusters.nbytes + prepared.moved.places.nbytes
            assert held <= kernels.moved_centroids_bytes(400, 60)
