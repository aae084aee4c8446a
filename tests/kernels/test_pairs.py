"""Pairs of rows within a distance: the groups that all pairs by the formula make, however they are found."""

from __future__ import annotations

import builtins
import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.cpu import pairs_faiss, pairs_search

METRICS = ["l2", "cosine"]


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1, "blas"):
        yield


def steps(x, y, metric):
    """The formula as its definition reads, a row in the centroid's place; Python's floats are never fused."""

    def seen(row):
        values = [float(value) for value in row]
        if metric == "l2":
            return values
        squared = 0.0
        for value in values:
            squared += value * value
        norm = math.sqrt(squared)
        return [value / norm for value in values] if norm else values

    total = 0.0
    for one, other in zip(seen(x), seen(y), strict=True):
        total += (one - other) * (one - other)
    return total


def all_values(rows, metric):
    i, j = (index.ravel() for index in np.indices((len(rows), len(rows))))
    return kernels.row_pair_distances(rows, i, rows, j, metric).reshape(len(rows), len(rows))


def brute_groups(values, limit, parents=None, crossing=0):
    """Lowest position of each row's group, given the formula's values of all pairs.

    With ``crossing`` only pairs of the first so many rows with the others unite.
    """
    near = values <= limit
    if crossing:
        near[:crossing, :crossing] = near[crossing:, crossing:] = False
    reached = near | near.T | np.eye(len(values), dtype=bool)
    if parents is not None:
        reached[np.arange(len(values)), parents] = reached[parents, np.arange(len(values))] = True
    while True:
        further = (reached.astype(np.float32) @ reached.astype(np.float32)) > 0
        if (further == reached).all():
            return further.argmax(axis=1) if len(values) else np.empty(0, dtype=np.int64)
        reached = further


def united(rows, limit, metric, *, axes="own", left=None, parents=None, search="auto"):
    """Groups as the kernel makes them, after checks of what else it returns."""
    axes = kernels.pair_axes(rows, metric) if axes == "own" else axes
    groups = np.arange(len(rows)) if parents is None else parents.copy()
    before = len(np.unique(kernels.group_roots(groups.copy())))
    if left is None:
        one, other = kernels.prepare_pair_rows(rows, metric, axes), None
        possible = len(rows) * (len(rows) - 1) // 2
    else:
        one, other = (kernels.prepare_pair_rows(part, metric, axes) for part in (rows[:left], rows[left:]))
        possible = left * (len(rows) - left)
    i, j, counts = kernels.unite_pairs(one, other, limit, groups, search)
    roots = kernels.group_roots(groups)
    # Each pair returned unites two groups and is within the limit.
    assert len(i) == len(j) == before - len(np.unique(roots))
    assert (kernels.row_pair_distances(rows, i, rows, j, metric) <= limit).all()
    assert (i < j).all()
    assert counts.covered == possible
    assert len(i) <= counts.rescored <= possible
    return roots


def scattered(rng, count, dims, dtype, scale=1.0, spread=(0.0, 1e-3, 0.1)):
    """Rows about some centres, copies among them."""
    centres = rng.standard_normal((max(1, count // 8), dims))
    noise = rng.standard_normal((count, dims)) * rng.choice(spread, size=(count, 1))
    return ((centres[rng.integers(len(centres), size=count)] + noise) * scale).astype(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("one", "other"), [*itertools.product([np.float16, np.float32], repeat=2)])
def test_values_are_those_of_the_steps_bit_for_bit(metric, one, other):
    rng = np.random.default_rng(3)
    for dims, power in ((1, 0), (7, -3), (40, 3)):
        left, right = (
            (rng.standard_normal((5, dims)) * 10.0**power).astype(dtype) for dtype in (one, other)
        )  # fmt: skip
        left[3] = 0
        i, j = np.array([0, 3, 2, 1, 4, 4, 0]), np.array([4, 1, 0, 3, 2, 2, 0])
        values = kernels.row_pair_distances(left, i, right, j, metric)
        assert values.tolist() == [steps(left[p], right[q], metric) for p, q in zip(i, j, strict=True)]
    assert len(kernels.row_pair_distances(left, i[:0], right, j[:0], metric)) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), dims=st.sampled_from([1, 2, 3, 8, 32, 33, 70]))
def test_groups_are_those_of_all_pairs_at_limits_that_pairs_meet_exactly(metric, dtype, data, seed, dims):
    rng = np.random.default_rng(seed)
    rows = scattered(rng, data.draw(st.integers(2, 60)), dims, dtype)
    i, j = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows) - 1))
    exact = kernels.row_pair_distances(rows, np.array([i]), rows, np.array([j]), metric)[0]
    values = all_values(rows, metric)
    for limit in (exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf)):
        expected = brute_groups(values, limit)
        np.testing.assert_array_equal(united(rows, limit, metric), expected)
        np.testing.assert_array_equal(united(rows, limit, metric, axes=None), expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dims", [1, 5, 32, 64, 96, 97, 384, 1100])
@pytest.mark.parametrize("search", ["auto", "faiss"])
def test_pairs_next_to_the_limit_fall_on_the_right_side(metric, dims, search):
    if search == "faiss":
        pytest.importorskip("faiss")
    # Couples whose distances differ by a few units of the last place of float32, or of float64, around the limit.
    rng = np.random.default_rng(dims)
    count = 60
    base = rng.standard_normal((count, dims)) * 3.0
    turn = rng.standard_normal((count, dims))
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    length = 0.3 * (1 + rng.choice([0, 1e-3, 1e-5, 1e-6, 1e-7, 1e-8], count) * rng.choice([-1, 1], count))
    if metric == "cosine":  # the same angle about: a step at right angles, in proportion to the row
        norms = np.linalg.norm(base, axis=1)
        turn -= base * ((turn * base).sum(axis=1) / norms**2)[:, None]
        turn /= np.linalg.norm(turn, axis=1, keepdims=True) + (dims == 1)
        length *= norms
    rows = np.concatenate([base, base + turn * length[:, None]]).astype(np.float32)
    values = all_values(rows, metric)
    couples = np.diag(values[:count, count:])
    middle = np.sort(couples)[count // 2]
    for limit in (middle, np.nextafter(middle, 0), middle * (1 + 1e-7), np.sort(couples)[count // 4]):
        expected = brute_groups(values, limit, crossing=count)
        assert dims < 32 or len(np.unique(expected)) == 2 * count - (couples <= limit).sum()
        np.testing.assert_array_equal(united(rows, limit, metric, left=count, search=search), expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e12, 1e20, 1e30])
def test_any_scale_and_offset(metric, offset, scale):
    rng = np.random.default_rng(5)
    rows = scattered(rng, 80, 40, np.float64, spread=(0.0, 1e-3, 1e-2, 0.3))
    rows = ((rows + offset) * scale).astype(np.float32)
    values = all_values(rows, metric)
    for limit in np.quantile(values, [0.02, 0.08, 0.12]):
        expected = brute_groups(values, limit)
        assert 1 < len(np.unique(expected)) < len(rows)
        np.testing.assert_array_equal(united(rows, limit, metric), expected)
        np.testing.assert_array_equal(united(rows, limit, metric, axes=None), expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("search", ["auto", "faiss"])
def test_rows_of_very_different_lengths_in_one_join(metric, search):
    if search == "faiss":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(6)
    rows = scattered(rng, 90, 40, np.float64) * 10.0 ** rng.choice([-30, -3, 0, 0, 0, 0, 3, 30], size=(90, 1))
    rows[:10] = rows[80:]
    rows = rows.astype(np.float32)
    values = all_values(rows, metric)
    for limit in (0.0, *np.quantile(values, [0.05, 0.15]), 1e50):
        np.testing.assert_array_equal(united(rows, limit, metric, search=search), brute_groups(values, limit))


@pytest.mark.parametrize("search", ["auto", "faiss"])
@pytest.mark.parametrize(("bulk", "first", "limit"), [(1.0, 56, 2.0**92), (2.0**-90, 44, 2.0**64)])
def test_rows_that_float32_cannot_hold_are_left_to_the_formula(search, bulk, first, limit):
    if search == "faiss":
        pytest.importorskip("faiss")
    # Couples to either side of a power of two: one of them is where the screening gives up, or overflows.
    rng = np.random.default_rng(15)
    small = (rng.standard_normal((50, 40)) * bulk).astype(np.float32)
    rows = np.zeros((24, 40), dtype=np.float32)
    powers = 2.0 ** np.arange(first, first + 12)
    rows[:12, 5], rows[12:, 5] = np.nextafter(np.float32(powers), np.float32(0)), powers
    rows[:, 6] = np.tile(np.where(np.arange(12) % 3, 0, powers / 4), 2)
    axes = kernels.pair_axes(small, "l2")
    expected = brute_groups(all_values(rows, "l2"), limit)
    assert len(np.unique(expected)) == 12
    np.testing.assert_array_equal(united(rows, limit, "l2", axes=axes, search=search), expected)
    np.testing.assert_array_equal(united(np.concatenate([small, rows]), limit, "l2", axes=axes)[50:], 50 + expected)


@pytest.mark.parametrize("dims", [3, 32, 40])
def test_cosine_of_the_longest_rows_next_to_the_limit(dims):
    rng = np.random.default_rng(dims)
    count = 200
    base = rng.standard_normal((count, dims))
    rows = np.concatenate([base, base + rng.standard_normal((count, dims)) * 0.05])
    rows *= 10.0 ** rng.uniform(-4, 0, size=(2 * count, 1)) / np.abs(rows).max(axis=1, keepdims=True)
    rows = (rows * 3.3e38).astype(np.float32)
    axes = kernels.pair_axes(base.astype(np.float32), "cosine")
    values = all_values(rows, "cosine")
    couples = np.sort(np.diag(values[:count, count:]))
    for limit in couples[::20]:
        expected = brute_groups(values, limit, crossing=count)
        np.testing.assert_array_equal(united(rows, limit, "cosine", left=count, axes=axes), expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_axes_that_know_nothing_of_the_rows_change_nothing(metric, dtype):
    rng = np.random.default_rng(7)
    rows = scattered(rng, 150, 50, dtype)
    values = all_values(rows, metric)
    limit = np.quantile(values, 0.05)
    expected = brute_groups(values, limit)
    constant = np.repeat(rows[:1], 20, axis=0)
    wild = (rng.standard_normal((30, 50)) * 1e4 - 3e4).astype(dtype)
    for sample in (rows[:0], rows[:1], constant, np.zeros_like(rows), wild, rows[:, ::-1] * dtype(8)):
        np.testing.assert_array_equal(united(rows, limit, metric, axes=kernels.pair_axes(sample, metric)), expected)


@pytest.mark.parametrize("search", ["auto", "faiss"])
def test_columns_without_variance_and_copies(search):
    if search == "faiss":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(8)
    rows = np.zeros((200, 60), dtype=np.float32)
    rows[:, 7] = 5.0
    rows[:, 3] = rng.integers(12, size=200)
    for limit in (0.0, 1.0, 0.99):
        expected = brute_groups(all_values(rows, "l2"), limit)
        np.testing.assert_array_equal(united(rows, limit, "l2", search=search), expected)


@pytest.mark.parametrize("search", ["auto", "faiss"])
@pytest.mark.parametrize("left", [None, 700])
def test_many_tiles(left, search):
    if search == "faiss":
        pytest.importorskip("faiss")
    # Pairs of rows far from each other in their order, so that every tile holds some.
    rng = np.random.default_rng(9)
    count, dims = 4700, 48
    rows = rng.standard_normal((count, dims)).astype(np.float32)
    place = rng.permutation(count)
    rows[place[:1000]] = rows[place[1000:2000]] + rng.choice([0, 1e-4], (1000, 1))
    rows[place[:200]] = rows[place[2000:2200]]
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    values = squares[:, None] + squares - 2 * (rows.astype(np.float64) @ rows.T.astype(np.float64))
    # All others are apart by far more than float64's rounding of these products.
    i, j = np.nonzero(np.triu(values <= 0.01, 1))
    assert not ((values > 0.01) & (values < 1)).any()
    if left is not None:
        i, j = i[(i < left) & (j >= left)], j[(i < left) & (j >= left)]
    expected = np.arange(count)
    for p, q in zip(i, j, strict=True):
        expected[expected == expected[q]] = expected[p]
    lowest = np.array([np.flatnonzero(expected == root)[0] for root in np.unique(expected)])
    expected = lowest[np.searchsorted(np.unique(expected), expected)]
    assert len(i) > 100
    np.testing.assert_array_equal(united(rows, 0.01, "l2", left=left, search=search), expected)


def test_every_number_of_leading_coordinates_gives_the_same_groups(monkeypatch):
    rng = np.random.default_rng(10)
    rows = scattered(rng, 300, 120, np.float16, spread=(0.0, 0.05, 0.2, 0.4))
    values = all_values(rows, "cosine")
    limit = np.quantile(values, 0.1)
    expected = brute_groups(values, limit)
    for leading in (1, 8, 33, 96):
        monkeypatch.setattr(pairs_search, "choose_leading", lambda join, leading=leading: leading)
        np.testing.assert_array_equal(united(rows, limit, "cosine"), expected)


def test_leading_coordinates_are_chosen_by_what_they_leave():
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((1200, 128)).astype(np.float32) * np.linspace(2, 0.1, 128, dtype=np.float32)
    prepared = kernels.prepare_pair_rows(rows, "l2", kernels.pair_axes(rows, "l2"))

    def chosen(limit):
        nothing = np.empty(0, dtype=np.int64)
        return pairs_search.choose_leading(pairs_search.Join(prepared, prepared, True, limit, 0, *[nothing] * 3, 1))

    typical = 2 * (rows.astype(np.float64) ** 2).sum() / len(rows)
    assert chosen(typical / 100) < chosen(typical / 3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 40), left=st.one_of(st.none(), st.integers(0, 40)))
def test_groups_given_on_entry_are_kept_and_sides_are_joined_with_each_other_only(seed, count, left):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 3)).astype(np.float16)
    left = None if left is None else min(left, count)
    # Any forest: each position's parent is an earlier one in some order, or itself.
    order = rng.permutation(count)
    parents = np.arange(count)
    for place in range(count):
        if rng.random() < 0.3:
            parents[order[place]] = order[rng.integers(place + 1)]
    values = all_values(rows, "l2")
    limit = float(np.quantile(values, 0.1)) if count else 1.0
    if left in (0, count):
        expected = brute_groups(values, -1.0, parents)
    else:
        expected = brute_groups(values, limit, parents, crossing=left or 0)
    np.testing.assert_array_equal(united(rows, limit, "l2", left=left, parents=parents), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_few_rows_and_limits_without_pairs(metric):
    rows = np.ones((3, 4), dtype=np.float32)
    for count in (0, 1):
        assert united(rows[:count], 1.0, metric).tolist() == list(range(count))
    assert united(rows, 0.0, metric).tolist() == [0, 0, 0]
    axes = kernels.pair_axes(rows, metric)
    prepared = kernels.prepare_pair_rows(rows, metric, axes)
    i, j, counts = kernels.unite_pairs(prepared, None, -1e-300, np.arange(3))
    assert (len(i), len(j), counts.rescored) == (0, 0, 0)
    assert united(np.diag([1.0, 2.0, 3.0]).astype(np.float32), math.inf, metric).tolist() == [0, 0, 0]


def test_copies_cost_one_value_each():
    rng = np.random.default_rng(12)
    rows = np.repeat(rng.standard_normal((3, 100)).astype(np.float16), 400, axis=0)
    prepared = kernels.prepare_pair_rows(rows, "cosine", kernels.pair_axes(rows, "cosine"))
    groups = np.arange(1200)
    i, _, counts = kernels.unite_pairs(prepared, None, 0.01, groups)
    assert (len(i), counts.covered) == (1197, 1200 * 1199 // 2)
    assert counts.rescored < 2 * 1200
    assert kernels.unite_pairs(prepared, None, 0.01, groups)[2].rescored == 0


@pytest.mark.parametrize("search", ["blas", "faiss"])
@pytest.mark.parametrize("joined", [False, True])
def test_rows_that_are_all_united_are_not_looked_at_any_more(joined, search, monkeypatch):
    rows = np.ones((3000, 6), dtype=np.float32)
    looks = []
    name = "scan_list" if search == "faiss" else "scan_tile"
    module = pairs_faiss if search == "faiss" else pairs_search
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: looks.append(1) or original(*arguments))
    prepared = kernels.prepare_pair_rows(rows, "l2")
    groups = np.zeros(3000, dtype=np.int64) if joined else np.arange(3000)
    i, _, counts = kernels.unite_pairs(prepared, None, 0.5, groups, search)
    assert len(i) == (0 if joined else 2999)
    assert counts.covered == 3000 * 2999 // 2
    assert len(looks) <= (0 if joined else 12)
    assert (kernels.group_roots(groups) == 0).all()


def test_parts_of_prepared_rows():
    rng = np.random.default_rng(13)
    rows = scattered(rng, 100, 40, np.float16)
    axes = kernels.pair_axes(rows, "cosine")
    whole = kernels.prepare_pair_rows(rows, "cosine", axes)
    odd, even = whole.take(slice(1, None, 2)), whole.take(np.arange(100) % 2 == 0)
    assert (whole.count, odd.count, even.count, even.dims) == (100, 50, 50, 40)
    assert whole.nbytes <= 100 * kernels.pair_row_bytes(40, 2, axes)
    assert odd.nbytes == whole.nbytes / 2
    groups = np.arange(100)
    kernels.unite_pairs(even, odd, 0.05, groups)
    sides = all_values(np.concatenate([rows[::2], rows[1::2]]), "cosine")
    np.testing.assert_array_equal(kernels.group_roots(groups), brute_groups(sides, 0.05, crossing=50))
    groups = np.arange(30)
    kernels.unite_pairs(whole.take(np.arange(20, 50)), None, 0.05, groups)
    np.testing.assert_array_equal(kernels.group_roots(groups), brute_groups(all_values(rows[20:50], "cosine"), 0.05))


def test_axes_put_together_from_their_parts_are_the_same():
    rows = np.random.default_rng(14).standard_normal((60, 40)).astype(np.float32)
    axes = kernels.pair_axes(rows, "l2")
    again = kernels.PairAxes(axes.origin.copy(), axes.scale, axes.vectors.copy(), axes.skew)
    sides = [kernels.prepare_pair_rows(part, "l2", with_) for part, with_ in ((rows[:30], axes), (rows[30:], again))]
    kernels.unite_pairs(*sides, 1.0, np.arange(60))
    other = kernels.prepare_pair_rows(rows, "l2", kernels.pair_axes(rows[:30], "l2"))
    with pytest.raises(ValueError, match="same metric and axes"):
        kernels.unite_pairs(sides[0], other, 1.0, np.arange(90))


def test_work_space_does_not_grow_with_the_rows_but_for_some_numbers_each():
    few, many = (kernels.pair_workspace_bytes(count, count, 384) for count in (4_000, 40_000))
    assert few < 12 * 2**20
    assert (many - few) / 72_000 < 200


def test_faiss_that_is_missing_is_named(monkeypatch):
    found = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError("No module named 'faiss'")
        return found(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(builtins, "__import__", missing)
    prepared = kernels.prepare_pair_rows(np.ones((2, 3), dtype=np.float32), "l2")
    with pytest.raises(InputError, match=r"pip install -e '\.\[faiss\]'"):
        kernels.unite_pairs(prepared, None, 1.0, np.arange(2), "faiss")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"groups": np.arange(3)}, "groups are"),
        ({"groups": np.arange(4, dtype=np.int32)}, "groups are"),
        ({"groups": np.array([0, 1, 2, 4])}, "groups name"),
        ({"limit": math.nan}, "NaN"),
        ({"search": "fais"}, "search is 'fais'"),
    ],
)
def test_calls_that_make_no_sense_are_refused(change, match):
    prepared = kernels.prepare_pair_rows(np.ones((4, 3), dtype=np.float32), "l2")
    call = {"left": prepared, "right": None, "limit": 1.0, "groups": np.arange(4)} | change
    with pytest.raises(ValueError, match=match):
        kernels.unite_pairs(**call)


@pytest.mark.parametrize(("i", "j"), [([-1], [0]), ([0], [3]), ([0, 1], [0])])
def test_pairs_out_of_range_are_refused(i, j):
    rows = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="rows"):
        kernels.row_pair_distances(rows, np.array(i), rows, np.array(j), "l2")


def test_axes_of_other_dims_are_refused():
    axes = kernels.pair_axes(np.ones((3, 5), dtype=np.float32), "l2")
    with pytest.raises(ValueError, match="do not fit"):
        kernels.prepare_pair_rows(np.ones((3, 4), dtype=np.float32), "l2", axes)
