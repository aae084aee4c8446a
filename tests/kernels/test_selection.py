"""Nearest-r selection and farthest rows, against sorting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels


def combined(parts, order):
    while len(parts) > 1:
        one = parts.pop(order.integers(len(parts)))
        parts.append(one.combine(parts.pop(order.integers(len(parts)))))
    return parts[0]


def cut_up(rows, cuts):
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    return [slice(a, b) for a, b in itertools.pairwise(edges)] or [slice(0, 0)]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 120), clusters=st.integers(1, 6), r=st.integers(1, 12),
    keys=st.sampled_from([2, 10, 2**64 - 1]), cuts=st.lists(st.integers(1, 119), max_size=5),
)  # fmt: skip
def test_selection_is_that_of_a_full_sort(seed, rows, clusters, r, keys, cuts):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, clusters, rows).astype(np.int32)
    key = rng.integers(0, keys, rows, dtype=np.uint64, endpoint=True)
    row = rng.permutation(rows * 3)[:rows]
    parts = [
        kernels.smallest_per_cluster(labels[part], key[part], row[part], r, clusters) for part in cut_up(rows, cuts)
    ]
    found, counts = combined(parts, rng).finalize()
    expected = []
    for cluster in range(clusters):
        own = sorted((int(k), int(n)) for k, n, label in zip(key, row, labels, strict=True) if label == cluster)
        expected.append([n for _, n in own[:r]])
    assert counts.tolist() == [len(own) for own in expected]
    assert found.tolist() == [n for own in expected for n in own]


def test_selection_merges_in_place_and_counts_its_bytes():
    one = kernels.smallest_per_cluster(np.array([0, 2], np.int32), np.array([5, 6], np.uint64), np.array([1, 2]), 2, 3)
    total = one.combine(one)
    assert total.ids is None
    assert total.nbytes == 3 * (16 * 2 + 16)
    assert total.combine(one) is total
    assert one.combine(total) is total


def test_keys_order_as_distances():
    distances = np.array([0.0, 1e-45, 1e-38, 0.1, 1.0, 3e38, np.inf], np.float32)
    keys = kernels.keys_of_distances(distances)
    assert keys.dtype == np.uint64
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    assert kernels.keys_of_distances(np.array([-0.0], np.float32))[0] == 0


def test_selection_refuses_what_cannot_be():
    one = np.zeros(1, np.int32), np.zeros(1, np.uint64), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="r is 0"):
        kernels.smallest_per_cluster(*one, 0, 1)
    with pytest.raises(ValueError, match="shapes"):
        kernels.smallest_per_cluster(one[0], one[1], np.zeros(2, np.int64), 1, 1)
    with pytest.raises(ValueError, match="labels run"):
        kernels.smallest_per_cluster(one[0] + 1, one[1], one[2], 1, 1)
    with pytest.raises(ValueError, match="cannot be combined"):
        kernels.smallest_per_cluster(*one, 1, 1).combine(kernels.smallest_per_cluster(*one, 2, 1))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 90), count=st.integers(0, 20), kinds=st.sampled_from([1, 3, 1000]),
    cuts=st.lists(st.integers(1, 89), max_size=4),
)  # fmt: skip
def test_farthest_is_that_of_a_full_sort(seed, rows, count, kinds, cuts):
    rng = np.random.default_rng(seed)
    values, row = rng.integers(kinds, size=rows).astype(np.float64), rng.permutation(rows * 2)[:rows]
    parts = [kernels.farthest(values[part], row[part], count) for part in cut_up(rows, cuts)]
    found = combined(parts, rng)
    expected = sorted((-v, int(n)) for v, n in zip(values.tolist(), row, strict=True))[:count]
    assert list(zip((-found.values).tolist(), found.rows.tolist(), strict=True)) == expected
    assert found.nbytes == 16 * len(expected)


def test_farthest_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="count is -1"):
        kernels.farthest(np.zeros(2), np.zeros(2, np.int64), -1)
    with pytest.raises(ValueError, match="cannot be combined"):
        kernels.farthest(np.zeros(1), np.zeros(1, np.int64), 1).combine(
            kernels.farthest(np.zeros(1), np.zeros(1, np.int64), 2)
        )
