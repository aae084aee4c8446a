"""Measures of balance against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.reports.measures import balance, histograms, lorenz

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=30).filter(
    lambda found: any(size for _, size in found)
)


def split(found: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts and sizes; nothing is drawn from a cluster without rows."""
    sizes = np.array([size for _, size in found], dtype=np.int64)
    counts = np.array([count if size else 0 for count, size in found], dtype=np.int64)
    return counts, sizes


@given(pairs)
def test_balance(found) -> None:
    counts, sizes = split(found)
    measured = balance(counts, sizes)
    held = [int(count) for count, size in zip(counts, sizes, strict=True) if size]
    total, k = sum(held), len(held)
    assert (measured.clusters, measured.rows) == (k, total)
    if not total:
        assert measured.effective == measured.reached == 0
        return
    shares = [count / total for count in held if count]
    entropy = -sum(share * math.log(share) for share in shares)
    assert measured.entropy == pytest.approx(entropy, abs=1e-12)
    assert measured.divergence == pytest.approx(sum(p * math.log(p * k) for p in shares), abs=1e-9)
    assert measured.effective == pytest.approx(math.exp(entropy))
    differences = sum(abs(a - b) for a, b in itertools.product(held, held))
    assert measured.gini == pytest.approx(differences / (2 * k * total), abs=1e-12)
    assert measured.largest == max(held) / total
    assert measured.reached == len(shares) / k
    alone = sum(int(count) for count, size in zip(counts, sizes, strict=True) if size == 1)
    assert measured.singletons == alone / total


@given(pairs)
def test_lorenz(found) -> None:
    counts, sizes = split(found)
    held = np.sort(counts[sizes > 0])
    curve = lorenz(counts, sizes, points=len(held) + 1)
    if held.sum():
        expected = [held[:taken].sum() / held.sum() for taken in range(len(held) + 1)]
        np.testing.assert_allclose(curve, expected, atol=1e-12)
    assert (np.diff(lorenz(counts, sizes)) >= -1e-12).all()


@given(pairs)
def test_histograms_count_every_cluster_once(found) -> None:
    counts, sizes = split(found)
    for each, values in zip(histograms([counts, sizes], sizes), (counts, sizes), strict=True):
        held = values[sizes > 0]
        assert each.none == pytest.approx(np.count_nonzero(held == 0) / len(held))
        assert each.shares.sum() + each.none == pytest.approx(1)
        if not held.any():
            continue
        relative = held[held > 0] / held.mean()
        for share, low, high in zip(each.shares, each.edges, each.edges[1:], strict=False):
            # A value on an edge may be counted on either side.
            inside = np.count_nonzero((relative > low * (1 + 1e-9)) & (relative < high * (1 - 1e-9)))
            near = np.count_nonzero((relative >= low * (1 - 1e-9)) & (relative <= high * (1 + 1e-9)))
            assert inside <= round(share * len(held)) <= near


def test_even_shares_and_one_heap() -> None:
    sizes = np.array([10, 10, 10, 10, 0])
    even, heap = balance(np.array([3, 3, 3, 3, 0]), sizes), balance(np.array([9, 0, 0, 0, 0]), sizes)
    assert (even.effective, even.gini, even.divergence) == (pytest.approx(4), 0, pytest.approx(0, abs=1e-12))
    assert (heap.effective, heap.gini, heap.reached) == (1, 0.75, 0.25)
