from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.errors import ConfigError
from streamcurate.sampling.draw import NOTHING, STRATEGIES, Included, _Smallest, draw_rows
from streamcurate.sampling.quotas import row_keys

# Few distinct keys make ties.
KEYS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))


def ordered(members, strategy, seed):
    """A leaf's members, those that come first first; members are stored by distance."""
    if strategy == "random":
        keys = row_keys(seed, np.array(members, dtype=np.int64)).tolist()
        return [row for _, _, row in sorted(zip(keys, range(len(members)), members, strict=True))]
    return members if strategy == "closest" else members[::-1]


def one_copy_at_a_time(members, quota, strategy, seed, before):
    """Oracle: every copy goes to the row that has the fewest, the first in the strategy's order."""
    copies = {row: before.get(row, 0) for row in members}
    order = ordered(members, strategy, seed)
    for _ in range(quota - sum(copies.values())):
        copies[min(order, key=lambda row: (copies[row], order.index(row)))] += 1
    return {row: count for row, count in copies.items() if count}


@st.composite
def leaves(draw):
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    rows = draw(st.permutations(range(sum(sizes))))
    offsets = np.cumsum([0, *sizes])
    cases = []
    for start, stop in pairwise(offsets):
        members = list(rows[start:stop])
        before = {row: copies for row in members if (copies := draw(st.sampled_from([0, 0, 0, 1, 2, 4])))}
        least = sum(before.values())
        quota = draw(st.integers(least, least + 2 * len(members))) if members else 0
        cases.append((members, quota, before))
    return cases


def draw_cases(make_array, cases, with_before, **options):
    members = make_array(np.array([row for rows, _, _ in cases for row in rows], dtype=np.int64))
    offsets = np.cumsum([0] + [len(rows) for rows, _, _ in cases]).astype(np.int64)
    quotas = np.array([quota for _, quota, _ in cases], dtype=np.int64)
    included = NOTHING
    if with_before:
        earlier = sorted((row, copies, leaf) for leaf, (_, _, b) in enumerate(cases) for row, copies in b.items())
        included = Included(*np.array(earlier, dtype=np.int64).reshape(-1, 3).T)
    rows, copies = draw_rows(members, offsets, quotas, included=included, **options)
    assert rows.dtype == copies.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    return members, dict(zip(rows.tolist(), copies.tolist(), strict=True))


@pytest.fixture(scope="module")
def make_array(make_tree):
    return type(make_tree([0]).levels[0].stored_members)


@given(leaves(), st.sampled_from(STRATEGIES), st.integers(0, 5), st.integers(1, 12), st.booleans())
def test_a_draw_is_that_of_giving_one_copy_at_a_time(make_array, cases, strategy, seed, range_rows, with_before):
    if not with_before:
        cases = [(rows, quota, {}) for rows, quota, _ in cases]
    expected = {}
    for rows, quota, before in cases:
        expected |= one_copy_at_a_time(rows, quota, strategy, seed, before)
    _, drawn = draw_cases(make_array, cases, with_before, strategy=strategy, seed=seed, range_rows=range_rows)
    assert drawn == expected


def test_members_are_read_in_bounded_ranges(make_array):
    rows = np.random.default_rng(0).permutation(10_000).tolist()
    cases = [(rows[:9000], 40, {}), (rows[9000:9001], 1, {}), (rows[9001:], 999, {})]
    members, drawn = draw_cases(make_array, cases, False, range_rows=64)
    assert members.largest_read <= 64
    assert members.total_read == 10_000
    assert len(drawn) == 1040


def test_a_remainder_larger_than_a_range_widens_none(make_array):
    members, drawn = draw_cases(make_array, [(list(range(5000)), 1000, {})], False, range_rows=64)
    assert members.largest_read <= 64
    assert sorted(drawn) == sorted(ordered(list(range(5000)), "random", 0)[:1000])


@given(st.lists(st.lists(KEYS, max_size=9), max_size=9), st.integers(0, 20), st.integers(0, 4))
def test_the_smallest_of_a_stream_are_those_of_its_sort(pieces, wanted, slack):
    smallest, position = _Smallest(wanted, slack), 0
    for piece in pieces:
        smallest.add(np.arange(position, position + len(piece)), np.array(piece, dtype=np.uint64))
        position += len(piece)
        assert smallest._count <= wanted + wanted // 2 + slack
    keys = [key for piece in pieces for key in piece]
    expected = sorted(range(len(keys)), key=lambda i: (keys[i], i))[:wanted]
    assert smallest.rows().tolist() == sorted(expected) if pieces else not expected


@pytest.mark.parametrize("strategy", ["closest", "furthest"])
def test_closest_and_furthest_read_no_more_than_they_draw(make_array, strategy):
    cases = [(list(range(start, start + 1000)), 7, {}) for start in range(0, 10_000, 1000)]
    members, _ = draw_cases(make_array, cases, False, strategy=strategy)
    assert members.total_read == 70


def test_leaves_that_give_nothing_are_not_read(make_array):
    cases = [(list(range(500)), 0, {}), (list(range(500, 510)), 5, {})]
    members, _ = draw_cases(make_array, cases, False)
    assert members.total_read == 10


def test_random_rows_are_drawn_equally_often(make_array):
    counts = np.zeros(12, dtype=np.int64)
    for seed in range(300):
        _, drawn = draw_cases(make_array, [(list(range(12)), 3, {})], False, seed=seed)
        counts[list(drawn)] += 1
    # 300 × 3 / 12 = 75 each; five standard deviations (√(300 · 1/4 · 3/4) = 7.5) either way.
    assert (np.abs(counts - 75) < 5 * 7.5).all()


def test_an_unknown_strategy_is_refused(make_array):
    with pytest.raises(ConfigError, match="'nearest' is unknown; choose one of random, closest, furthest"):
        draw_cases(make_array, [([0], 1, {})], False, strategy="nearest")
