"""Potentials lowered by candidates: the same integers as all distances one by one, whatever was left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels
from streamcurate.kernels.cpu import columns as columns_module
from streamcurate.kernels.cpu import product_trials, products, row_boxes
from streamcurate.kernels.cpu.potentials import running_sums, shares
from streamcurate.kernels.seeding import SeedingSpace
from streamcurate.kernels.trials import Means

NONE = np.empty(0, dtype=np.int64)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1)), max_size=20))
def test_shares_are_upper_halves_of_products(pairs):
    bits, wholes = np.array([b for b, _ in pairs], np.uint64), np.array([w for _, w in pairs], np.int64)
    assert shares(bits, wholes).tolist() == [(b * w) >> 64 for b, w in pairs]


def test_running_sums():
    potentials, weights = np.array([5, 0, 7, 2]), np.array([1, 4, 2, 3])
    places = np.array([2, 0, 3, 1], np.int32)
    nowhere = np.empty(0, np.int32)
    assert running_sums(potentials, nowhere, NONE).tolist() == [5, 5, 12, 14]
    assert running_sums(potentials, nowhere, weights).tolist() == [5, 5, 19, 25]
    assert running_sums(potentials, places, weights).tolist() == [7, 27, 31, 31]


def spectrum(rng: np.random.Generator, rows: int, dims: int) -> np.ndarray:
    """Rows that a few axes tell apart, some of them twice."""
    x = rng.standard_normal((rows, dims)) * np.arange(1, dims + 1) ** -0.8
    x[rows // 2 : rows // 2 + rows // 8] = x[: rows // 8]
    return x.astype(np.float32)


def space_of(x: np.ndarray) -> SeedingSpace:
    return kernels.seeding_space(kernels.statistics(x), len(x), x.shape[1], "l2")


def by_hand(space, encoded, weights, first, batches, tries):
    """Every distance, every sum, in Python's integers."""
    mass = weights if weights.size else np.ones(len(encoded), np.int64)
    potentials = space.potentials(encoded, encoded[[first]])[:, 0]
    chosen = []
    for candidates, limits in batches:
        distances = space.potentials(encoded, encoded[candidates])
        tried = []
        for number, candidate in enumerate(candidates.tolist()):
            if potentials[candidate] > limits[number]:
                tried.append(number)
            if len(tried) == tries:
                totals = [int((mass * np.minimum(potentials, distances[:, b])).sum()) for b in tried]
                best = tried[int(np.argmin(totals))]
                potentials = np.minimum(potentials, distances[:, best])
                chosen.append(int(candidates[best]))
                tried = []
    return chosen, potentials


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3, 8, 16, 17, 64, 96, 1100])
def test_trials_choose_as_all_distances_would(dims, weighted, monkeypatch):
    if dims < 1000:
        monkeypatch.setattr(product_trials, "_WORTH_AXES", 0)
    monkeypatch.setattr(product_trials, "_NEXT_CHOICE", 2)
    monkeypatch.setattr(product_trials, "_WORTH_A_THREAD", 0)
    monkeypatch.setattr(product_trials, "_SMALLEST_TILE", 64)
    monkeypatch.setattr(product_trials, "_TILE_VALUES", 4096)
    widths = []

    def more_each_time(most, *_):
        widths.append(16 * (1 + len(widths) % 2))
        return columns_module.Columns(most.offset, most.axes, widths[-1])

    monkeypatch.setattr(product_trials, "choose_columns", more_each_time)
    rng = np.random.default_rng(dims)
    rows = 900
    x = spectrum(rng, rows, dims)
    if dims == 3:
        x = np.round(2 * x)  # many equal distances
    space = space_of(x)
    encoded = space.encode(x)
    weights = rng.integers(1, 50, rows) if weighted else NONE
    batches = []
    for size in (12, 40, 60, 100, 200):
        candidates = rng.integers(0, rows, size)
        # Some limits above what is left by then, some below.
        limits = (space.potentials(encoded[candidates], encoded[:20]).min(axis=1) * rng.random(size)).astype(np.int64)
        batches.append((candidates, limits))
    expected, left = by_hand(space, encoded, weights, 5, batches, 4)
    order = []

    def backwards(function, count):
        order.append(count)
        for number in reversed(range(count)):
            function(number)

    for spare in (0, 1 << 30):
        found = space.trials(encoded, weights, Means(100, 4, spare, 2, backwards))
        found.begin(5)
        chosen = [row for batch in batches for row in found.choose(*batch, 4, 1000).tolist()]
        assert chosen == expected
        assert len(chosen) > 20
        np.testing.assert_array_equal(found.potentials_of(np.arange(rows)), left)
        np.testing.assert_array_equal(found.running_sums(), np.cumsum(left * (weights if weighted else 1)))
        if dims in (64, 96):
            assert (found._columns.leading > 0) is (found._laid is not None) is (spare > 0)
    assert order or dims <= 16
    assert len(widths) >= 2 or dims not in (64, 96)


def test_trials_stop_at_the_number_wanted():
    x = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    for rows in (x, np.repeat(x, 20, axis=1)):
        space = space_of(rows)
        found = space.trials(space.encode(rows), NONE, Means(4, 1))
        found.begin(0)
        assert len(found.choose(np.arange(1, 50), np.zeros(49, np.int64), 1, 3)) == 3


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 128, 129, 1025, 3000])
@pytest.mark.parametrize("kind", ["normal", "equal", "line", "heavy", "float16"])
def test_trees_hold_every_row_once_in_its_box(rows, kind):
    rng = np.random.default_rng(rows)
    x = {
        "normal": rng.standard_normal((rows, 3)),
        "equal": np.ones((rows, 3)),
        "line": np.arange(3 * rows).reshape(rows, 3)[::-1],
        "heavy": rng.standard_cauchy((rows, 3)),
        "float16": rng.standard_normal((rows, 3)),
    }[kind].astype(np.float16 if kind == "float16" else np.float32)
    tree = row_boxes.BoxTree.of(x)
    assert sorted(tree.order.tolist()) == list(range(rows))
    for level in range(len(tree.edges) - 1):
        size = 16 * 8**level
        for node in range(tree.edges[level], tree.edges[level + 1]):
            inside = x[tree.order[(node - tree.edges[level]) * size :][:size]]
            np.testing.assert_array_equal(tree.low[node], inside.min(axis=0))
            np.testing.assert_array_equal(tree.high[node], inside.max(axis=0))
    assert len(tree.low) == tree.edges[-1]


@pytest.mark.parametrize("dims", [1, 2, 16, 17, 100, 1100])
def test_searches_lower_as_all_distances_would(dims, monkeypatch):
    monkeypatch.setattr(product_trials, "_WORTH_AXES_OF_A_BLOCK", 0)
    monkeypatch.setattr(product_trials, "_TILE_CANDIDATES", 100)
    rng = np.random.default_rng(dims)
    x = spectrum(rng, 1200, dims)
    space = space_of(x)
    encoded = space.encode(x)
    numbers = rng.permutation(1200)
    candidates = encoded[np.concatenate([numbers[:500], numbers[:40]])]  # some of them twice
    distances = space.potentials(encoded, candidates)
    search = space.search(candidates[:300])
    potentials, nearest = np.full(1200, np.iinfo(np.int64).max), np.zeros(1200, np.int32)
    for part in (slice(0, 700), slice(700, 1200)):
        search.lower(encoded[part], potentials[part], nearest[part], 0)
    np.testing.assert_array_equal(nearest, distances[:, :300].argmin(axis=1))
    np.testing.assert_array_equal(potentials, distances[:, :300].min(axis=1))
    if dims == 100:
        assert search._laid[1].leading > 0
    space.search(candidates[300:]).lower(encoded, potentials, nearest, 300)
    np.testing.assert_array_equal(nearest, distances.argmin(axis=1))
    np.testing.assert_array_equal(potentials, distances.min(axis=1))


def test_the_device_lowers_alike():
    class Device(kernels.get_backend("cpu").__class__):
        name = "device"

    rng = np.random.default_rng(1)
    x = spectrum(rng, 300, 40)
    space = space_of(x)
    encoded = space.encode(x)
    results = []
    for backend in (None, Device()):
        potentials, nearest = np.full(300, np.iinfo(np.int64).max), np.zeros(300, np.int32)
        for first in (0, 30):
            space.search(encoded[first : first + 30], backend).lower(encoded, potentials, nearest, first)
        results.append((potentials.tolist(), nearest.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("dims", [48, 384, 1041])
@pytest.mark.parametrize("leading", [0, 1, 16])
@pytest.mark.parametrize("kind", ["any", "largest", "one", "near"])
def test_bounds_leave_out_no_pair_that_is_nearer(dims, leading, kind):
    """Potentials a hair above and exactly at the distances: the first must all be found, the second never."""
    rng = np.random.default_rng(dims + leading)
    a = rng.integers(-127, 128, (70, dims))
    b = rng.integers(-127, 128, (9, dims))
    if kind == "largest":
        a, b = np.where(a > 0, 127, -127), np.where(b > 0, -127, 127)
    elif kind == "one":
        a[:, 1:], b[:, 1:] = 0, 0
    elif kind == "near":
        b = np.clip(a[:9] + rng.integers(-1, 2, (9, dims)), -127, 127)
    a, b = a.astype(np.int8), b.astype(np.int8)
    columns = columns_module.plain_columns(dims)
    if leading:
        axes = columns_module.principal_axes(rng.standard_normal((200, dims)).astype(np.float32), 16)
        columns = columns_module.Columns(rng.integers(-60, 61, dims), axes, leading)
    rows, others = products.Integers(a), products.Integers(b)
    laid = []
    for one in (rows, others):
        one.shift(columns.offset)
        wide = one.rows.astype(np.int64)
        np.testing.assert_array_equal(one.squared, (wide**2).sum(axis=1))
        np.testing.assert_array_equal(one.shifted, ((wide - columns.offset) ** 2).sum(axis=1))
        laid.append(np.empty((len(wide), columns.width), np.float32))
        columns.lay(one.rows, one.shifted, laid[-1])
    distances = ((a.astype(np.int64)[:, None] - b.astype(np.int64)[None]) ** 2).sum(axis=2)
    for other in range(9):
        for above in (0, 1):
            potentials = distances[:, other] + above
            hits, values = np.empty(9 * 70, np.int32), np.empty(9 * 70, np.int32)
            ends = np.empty(9, np.int64)
            products.collect(laid[1] @ laid[0].T, columns.heights(others.shifted), rows, slice(0, 70), potentials,
                             columns.keep, others, hits, values, ends)  # fmt: skip
            starts = np.concatenate([[0], ends])
            for candidate in range(9):
                part = slice(starts[candidate], starts[candidate + 1])
                nearer = np.flatnonzero(distances[:, candidate] < potentials)
                np.testing.assert_array_equal(hits[part], nearer)
                np.testing.assert_array_equal(values[part], distances[nearer, candidate])


def test_columns_are_chosen_by_what_they_leave():
    rng = np.random.default_rng(4)
    for told_apart in (True, False):
        x = rng.standard_normal((2000, 128)) * (np.arange(1, 129) ** -1.0 if told_apart else 1.0)
        integers = np.clip(np.rint(40 * x), -127, 127).astype(np.int8)
        most = columns_module.principal_columns(integers)
        assert most is not None
        potentials = kernels.quantised_distances(integers[:300], integers[300:]).min(axis=1)
        found = columns_module.choose_columns(most, integers[:300], integers[300:400], potentials, 0.01)
        assert (0 < found.leading < 64) if told_apart else found.leading == 0
    assert columns_module.principal_columns(integers[:, :20]) is None
    assert columns_module.principal_columns(integers[:10]) is None
