from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.errors import CapacityError, InputError
from streamcurate.sampling import quotas as module
from streamcurate.sampling.hierarchy import read_hierarchy
from streamcurate.sampling.nodes import leaf_quotas
from streamcurate.sampling.quotas import (
    node_keys,
    row_keys,
    segmented_water_fill,
    smallest_in_segments,
    water_fill,
)


def one_unit_at_a_time(target, capacities, keys, lower):
    """Oracle: every unit goes to a child that has the least and can hold more, ties by (key, position)."""
    quotas = list(lower)
    for _ in range(target - sum(lower)):
        open_children = [i for i in range(len(quotas)) if quotas[i] < capacities[i]]
        quotas[min(open_children, key=lambda i: (quotas[i], keys[i], i))] += 1
    return quotas


# Few distinct keys make ties; keys that differ in one end only show whether every bit counts.
KEYS = st.one_of(st.integers(0, 3), st.integers(2**64 - 4, 2**64 - 1), st.integers(0, 2**64 - 1))


@st.composite
def parents(draw, bounded=False):
    children = st.lists(st.tuples(st.integers(0, 12), KEYS, st.integers(0, 12)), max_size=7)
    cases = []
    for family in draw(st.lists(children, max_size=6)):
        capacities = [max(c, low) if bounded else c for c, _, low in family]
        lower = [low if bounded else 0 for _, _, low in family]
        target = draw(st.integers(sum(lower), sum(capacities)))
        cases.append((target, capacities, [key for _, key, _ in family], lower))
    return cases


def flat(cases):
    offsets = np.cumsum([0] + [len(capacities) for _, capacities, _, _ in cases])
    return (
        np.array([target for target, *_ in cases], dtype=np.int64),
        np.array([c for _, capacities, _, _ in cases for c in capacities], dtype=np.int64),
        offsets.astype(np.int64),
        np.array([key for _, _, keys, _ in cases for key in keys], dtype=np.uint64),
        np.array([low for _, _, _, lower in cases for low in lower], dtype=np.int64),
    )


@given(parents())
def test_quotas_are_those_of_handing_out_one_unit_at_a_time(cases):
    targets, capacities, offsets, keys, _ = flat(cases)
    expected = [quota for case in cases for quota in one_unit_at_a_time(*case)]
    assert segmented_water_fill(targets, capacities, offsets, keys).tolist() == expected


@given(parents(bounded=True))
def test_lower_bounds_are_units_given_beforehand(cases):
    targets, capacities, offsets, keys, lower = flat(cases)
    expected = [quota for case in cases for quota in one_unit_at_a_time(*case)]
    assert segmented_water_fill(targets, capacities, offsets, keys, lower).tolist() == expected


@given(parents(bounded=True), st.integers(1, 9))
def test_the_pieces_filled_together_do_not_matter(cases, piece):
    arguments = flat(cases)
    whole = segmented_water_fill(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", piece)
        assert segmented_water_fill(*arguments).tolist() == whole.tolist()


@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=8), st.fractions(min_value=0, max_value=1), st.integers(0, 9)
)
def test_large_numbers_stay_exact(capacities, share, seed):
    # Odd and far above 2**53, where float64 cannot tell neighbours apart.
    capacities = [c * 2**19 + 1 for c in capacities]
    target = int(sum(capacities) * share)
    quotas = water_fill(np.array(capacities), target, node_keys(seed, 1, np.arange(len(capacities)))).tolist()
    assert sum(quotas) == target
    below = [quota for quota, capacity in zip(quotas, capacities, strict=True) if quota < capacity]
    if below:
        assert max(quotas) - min(below) <= 1


def test_equal_sizes_share_evenly_and_the_remainder_is_random():
    chosen = np.zeros(7, dtype=np.int64)
    for seed in range(300):
        quotas = water_fill(np.full(7, 5), 16, node_keys(seed, 1, np.arange(7)))
        assert sorted(quotas.tolist()) == [2, 2, 2, 2, 2, 3, 3]
        chosen += quotas - 2
    # 300 × 2 / 7 ≈ 86 each; five standard deviations (√(300 · 2/7 · 5/7) ≈ 7.8) either way.
    assert (np.abs(chosen - 600 / 7) < 5 * 7.8).all()


def test_no_capacity_gives_nothing():
    assert water_fill(np.zeros(4, dtype=np.int64), 0).tolist() == [0, 0, 0, 0]
    assert water_fill(np.empty(0, dtype=np.int64), 0).tolist() == []


def test_the_whole_capacity_can_be_asked_for():
    assert water_fill(np.array([3, 0, 7]), 10).tolist() == [3, 0, 7]


def test_a_target_above_capacity_names_the_parent_and_the_largest_possible():
    offsets = np.array([0, 2, 4])
    with pytest.raises(CapacityError, match=r"parent 1: 12 are asked for, its children can give 11 at most"):
        segmented_water_fill(np.array([1, 12]), np.array([5, 5, 5, 6]), offsets, np.zeros(4, dtype=np.uint64))


def test_a_target_below_the_lower_bounds_is_refused():
    with pytest.raises(InputError, match="must give 6 at least"):
        water_fill(np.array([5, 5]), 5, lower=np.array([5, 1]))


@given(st.lists(st.tuples(st.lists(KEYS, max_size=6), st.integers(0, 6)), max_size=6))
def test_smallest_in_segments_is_a_sort_of_each_segment(cases):
    wanted = np.array([min(count, len(keys)) for keys, count in cases], dtype=np.int64)
    segments = np.repeat(np.arange(len(cases)), [len(keys) for keys, _ in cases])
    expected = []
    for (keys, _), count in zip(cases, wanted, strict=True):
        smallest = sorted(range(len(keys)), key=lambda i: (keys[i], i))[:count]
        expected += [i in smallest for i in range(len(keys))]
    keys = np.array([key for keys, _ in cases for key in keys], dtype=np.uint64)
    assert smallest_in_segments(keys, segments, wanted).tolist() == expected


def test_wanting_more_than_a_segment_holds_is_an_error():
    with pytest.raises(ValueError, match="more elements"):
        smallest_in_segments(np.zeros(2, dtype=np.uint64), np.zeros(2, dtype=np.int64), np.array([3]))


def test_levels_and_rows_have_their_own_random_orders():
    numbers = np.arange(50)
    orders = [node_keys(0, 1, numbers), node_keys(0, 2, numbers), node_keys(1, 1, numbers), row_keys(0, numbers)]
    for i, one in enumerate(orders):
        assert all((one != other).all() for other in orders[:i])


@given(st.integers(0, 10**6), st.data())
def test_quotas_down_a_tree_are_the_water_fill_of_every_parent(random_tree, seed, data):
    tree = random_tree(seed, 60, [12, 5, 3])
    hierarchy = read_hierarchy(tree)
    multiplier = data.draw(st.integers(1, 3))
    capacities = hierarchy.sizes * multiplier
    target = data.draw(st.integers(1, int(capacities.sum())))
    quotas = leaf_quotas(hierarchy, target, capacities, seed=seed)
    assert quotas.sum() == target
    assert (quotas <= capacities).all()
    assert (quotas >= 0).all()
    given_of = hierarchy.totals(quotas)
    capacity_of = hierarchy.totals(capacities)
    parent_quotas = [target]
    for level in (3, 2, 1):
        children, offsets = hierarchy.children(level)
        keys = node_keys(seed, level, children).tolist()
        for parent, quota in enumerate(parent_quotas):
            start, stop = offsets[parent], offsets[parent + 1]
            of_parent = children[start:stop]
            expected = one_unit_at_a_time(
                quota, capacity_of[level - 1][of_parent].tolist(), keys[start:stop], [0] * len(of_parent)
            )
            assert given_of[level - 1][of_parent].tolist() == expected
        parent_quotas = given_of[level - 1].tolist()


def test_totals_count_rows_under_every_node(make_tree):
    tree = make_tree([0, 0, 1, 3, 3, 3, -1], [1, 1, 0, 0], [0, 0, 0], clusters=[4, 3, 1])
    totals = read_hierarchy(tree).totals(read_hierarchy(tree).sizes)
    assert [total.tolist() for total in totals] == [[2, 1, 0, 3], [3, 3, 0], [6]]
