"""Fits side by side in a bundle, against the same fits alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels
from streamcurate.clustering import bundles, split
from streamcurate.clustering.bundles import _Fits, bundles_of, fit_bundle, fits_bundle
from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.config import Level
from streamcurate.kernels.cpu.bundle_seeds import _high_product, _random_bits, words_of_streams
from streamcurate.kernels.cpu.bundles import nearest_within
from streamcurate.kernels.cpu.random import _stream_words
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor


@pytest.fixture(scope="module")
def around(tmp_path_factory):
    """``around(metric, seed)``: the surroundings of fits in this process, on one thread."""
    with SerialExecutor(MemoryBudget(1 << 30, 1)) as executor:
        folder = tmp_path_factory.mktemp("scratch")
        yield lambda metric, seed=0: Surroundings(executor, metric, seed, folder, None, ignore, 2)


def clusters_of(seed: int, sizes: list[int], dims: int, dtype: Any, *, copies: bool) -> list[np.ndarray]:
    """Rows of a few blobs for each cluster; with ``copies`` many of them equal."""
    generator = np.random.default_rng(seed)
    found = []
    for size in sizes:
        centres = generator.standard_normal((4, dims)) * 3
        rows = centres[generator.integers(4, size=size)] + generator.standard_normal((size, dims))
        if copies:
            rows = rows[generator.integers(max(size // 3, 1), size=size)]
        found.append((rows + 0.01).astype(dtype))
    return found


def measured_of(parts: list[np.ndarray], metric: Any) -> tuple[np.ndarray, np.ndarray, Measured]:
    rows = np.concatenate(parts)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return rows, starts, Measured.of(Points.all_of(MemoryRows(rows)), kernels.statistics(rows, metric), metric)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    dims=st.sampled_from([1, 2, 7, 16, 17, 40]),
    dtype=st.sampled_from([np.float16, np.float32]),
    metric=st.sampled_from(["l2", "cosine"]),
    splits=st.integers(2, 30),
    iterations=st.sampled_from([1, 2, 3, 50]),
    tolerance=st.sampled_from([0.0, 1e-4, 0.05]),
    copies=st.booleans(),
)
def test_each_fit_is_what_it_is_alone(around, seed, sizes, dims, dtype, metric, splits, iterations, tolerance, copies):
    parts = clusters_of(seed, sizes, dims, dtype, copies=copies)
    rows, starts, measured = measured_of(parts, metric)
    level = Level(1000, splits=splits, iterations=iterations, tolerance=tolerance)
    at = around(metric, seed)
    numbers = np.arange(len(parts), dtype=np.int64) * 7 + 3
    fitted = fit_bundle(rows, starts, numbers, measured, level, at)
    leaves = dict(split._bundled(fitted, starts, at))
    for cluster, part in enumerate(parts):
        distinct = len(np.unique(part, axis=0))
        if cluster not in leaves:  # k-means++ ran out of rows apart from those chosen
            assert copies or dims > 16 or metric == "cosine"
            continue
        assert len(leaves[cluster].sizes) <= distinct
        alone = split._fit_cluster(MemoryRows(part), int(numbers[cluster]), measured, level, at)
        for name in ("centroids", "sizes", "labels", "distances"):
            np.testing.assert_array_equal(getattr(leaves[cluster], name), getattr(alone, name), err_msg=name)
            assert getattr(leaves[cluster], name).dtype == getattr(alone, name).dtype
        assert leaves[cluster].inertia == alone.inertia


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dims=st.sampled_from([1, 2, 6]),
    metric=st.sampled_from(["l2", "cosine"]),
    far=st.integers(0, 6),
    iterations=st.integers(1, 6),
    copies=st.booleans(),
)
def test_empty_clusters_are_refilled_as_in_a_fit_alone(around, seed, dims, metric, far, iterations, copies):
    """Centroids that begin far from all rows, or one on the other, lose them all."""
    parts = clusters_of(seed, [40, 25, 9], dims, np.float32, copies=copies)
    rows, starts, measured = measured_of(parts, metric)
    generator = np.random.default_rng(seed)
    edges = np.array([0, 8, 14, 18], dtype=np.int64)
    centroids = kernels.formula_rows(rows[generator.integers(len(rows), size=18)], metric).astype(np.float32)
    centroids[generator.integers(18, size=far)] *= np.float32(-90)
    at = around(metric)
    fits = _Fits(rows, starts, edges, centroids.copy(), measured, at)
    fits.run(np.arange(3), iterations, 1e-4)
    for cluster, part in enumerate(parts):
        own, mine = slice(edges[cluster], edges[cluster + 1]), slice(starts[cluster], starts[cluster + 1])
        chosen = measured.part(Points.all_of(MemoryRows(part)))
        alone = lloyd(chosen, in_memory(centroids[own].copy()), iterations, 1e-4, at).centroids.read(0, edges[1])
        np.testing.assert_array_equal(fits.centroids[own], alone[: own.stop - own.start])
        labels, values = kernels.nearest(part, kernels.prepare_centroids(fits.centroids[own], metric))
        np.testing.assert_array_equal(fits.labels[mine] - own.start, labels)
        np.testing.assert_array_equal(fits.values[mine], values)


def test_some_bundle_is_refilled(around):
    """The case above does happen: two centroids on one point, and a row far out for the one that stays empty."""
    part = np.array([[0.0], [0.5], [10.0]], dtype=np.float32)
    rows, starts, measured = measured_of([part], "l2")
    fits = _Fits(rows, starts, np.array([0, 2]), np.zeros((2, 1), dtype=np.float32), measured, around("l2"))
    fits.run(np.arange(1), 9, 0.0)
    np.testing.assert_array_equal(fits.centroids, [[0.25], [10.0]])


def test_what_a_bundle_takes(around):
    _, _, measured = measured_of(clusters_of(0, [60], 4, np.float32, copies=False), "l2")
    assert fits_bundle(100, 4, Level(9, splits=10), measured)
    assert fits_bundle(10, 4, Level(9, splits=10, init="random"), measured)
    assert not fits_bundle(100, 4, Level(9, splits=10, init="random"), measured)
    assert not fits_bundle(100, 4, Level(9, splits=10, algorithm="minibatch"), measured)
    assert not fits_bundle(0, 4, Level(9, splits=10), measured)
    assert not fits_bundle(1 << 14, 4, Level(9, splits=2), measured)
    assert not fits_bundle(8000, 384, Level(9, splits=100), measured)


def test_bundles_stay_below_their_limit():
    assert bundles_of([], 100) == []
    assert bundles_of([50, 40, 20, 500, 1], 100) == [(0, 2), (2, 3), (3, 4), (4, 5)]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    prefix=st.lists(st.integers(0, 2**64 - 1), max_size=4),
    last=st.lists(st.integers(0, 2**62), min_size=1, max_size=5),
)
def test_streams_of_a_bundle_are_those_of_its_clusters(seed, prefix, last):
    words = words_of_streams(seed, tuple(prefix), np.array(last, dtype=np.int64))
    for number, (word2, word3) in zip(last, words, strict=True):
        assert (int(word2), int(word3)) == _stream_words(seed, (*prefix, number))
        bits = kernels.random_bits(seed, (*prefix, number), np.array([0, 1, 2**40]))
        key = (np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32))
        assert [int(_random_bits(counter, word2, word3, *key)) for counter in (0, 1, 2**40)] == bits.tolist()


@settings(max_examples=200, deadline=None)
@given(a=st.integers(0, 2**64 - 1), b=st.integers(0, 2**64 - 1))
def test_high_half_of_a_product(a, b):
    assert int(_high_product(np.uint64(a), np.uint64(b))) == (a * b) >> 64


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(0, 300),
    segments=st.integers(1, 12),
    dims=st.sampled_from([1, 3, 4, 9]),
    dtype=st.sampled_from([np.float16, np.float32]),
    metric=st.sampled_from(["l2", "cosine"]),
)
def test_nearest_within_a_segment(seed, rows, segments, dims, dtype, metric):
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(generator.choice([0, 1, 3, 5, 90], segments))]).astype(np.int64)
    values = (generator.integers(-2, 3, (rows, dims)) + 0.5).astype(dtype)
    centroids = generator.integers(-2, 3, (offsets[-1], dims)).astype(np.float32)
    own = generator.choice(generator.integers(0, segments, 4), rows)
    labels, found = nearest_within(values, own, offsets, centroids, metric)
    for row in range(rows):
        first, last = offsets[own[row]], offsets[own[row] + 1]
        if first == last:
            assert labels[row] == -1
            assert found[row] == np.inf
            continue
        each = kernels.squared_distances_of_pairs(
            values, np.full(last - first, row), centroids, np.arange(first, last), metric
        )
        assert labels[row] == first + each.argmin()
        assert found[row] == each.min()


def test_a_level_is_split_through_bundles(tmp_path, monkeypatch):
    """The whole of a run gives the same tree whether its small clusters are fitted in bundles or alone."""
    import streamcurate as sc

    rows = np.concatenate(clusters_of(5, [300, 200, 5], 6, np.float32, copies=False))
    levels = [sc.Level(30, splits=6)]
    bundled = sc.cluster(rows, tmp_path / "bundled", levels=levels)
    calls = []
    monkeypatch.setattr(split, "fit_bundle", lambda *arguments: calls.append(arguments) or fit_bundle(*arguments))
    assert sc.cluster(rows, tmp_path / "counted", levels=levels).digest == bundled.digest
    assert calls
    monkeypatch.setattr(split, "fits_bundle", lambda *_: False)
    assert sc.cluster(rows, tmp_path / "alone", levels=levels).digest == bundled.digest
    assert bundles._MOST_ROWS  # both ways exist
