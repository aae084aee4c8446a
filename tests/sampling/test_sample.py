from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.errors import CapacityError, ConfigError, InputError, MemoryLimitError, RunError, StoreError
from streamcurate.sampling import STRATEGIES, sample

SHAPES = st.sampled_from([(1,), (6,), (9, 3), (12, 6, 2)])


def drawn(selection):
    return dict(zip(selection.unique_rows.tolist(), selection.copies.tolist(), strict=True))


def rows_inside(tree):
    return len(tree.levels[0].stored_members.values)


@given(st.integers(0, 10**6), SHAPES, st.sampled_from(STRATEGIES), st.integers(1, 3), st.data())
def test_a_draw_has_the_size_asked_for_and_the_rows_of_the_tree(random_tree, seed, shape, strategy, multiplier, data):
    tree = random_tree(seed, 50, shape)
    size = data.draw(st.integers(1, rows_inside(tree) * multiplier))
    selection = sample(tree, size, strategy, multiplier, seed)
    assert len(selection) == len(selection.rows) == size
    assert (np.diff(selection.unique_rows) > 0).all()
    assert selection.copies.min() >= 1
    assert selection.copies.max() <= multiplier
    assert (tree.levels[0].stored_labels.values[selection.unique_rows] >= 0).all()


@given(st.integers(0, 10**6), SHAPES, st.sampled_from(STRATEGIES), st.integers(1, 3), st.data())
def test_a_smaller_draw_is_part_of_a_larger_one_and_can_be_topped_up_to_it(
    random_tree, seed, shape, strategy, multiplier, data
):
    tree = random_tree(seed, 50, shape)
    larger_size = data.draw(st.integers(1, rows_inside(tree) * multiplier))
    smaller_size = data.draw(st.integers(1, larger_size))
    larger = sample(tree, larger_size, strategy, multiplier, seed)
    smaller = sample(tree, smaller_size, strategy, multiplier, seed)
    assert all(copies <= drawn(larger).get(row, 0) for row, copies in drawn(smaller).items())
    assert drawn(sample(tree, larger_size, strategy, multiplier, seed, include=smaller)) == drawn(larger)


@given(st.integers(0, 10**6), SHAPES, st.sampled_from(STRATEGIES), st.integers(1, 2), st.data())
def test_any_earlier_draw_is_kept_and_topped_up(random_tree, seed, shape, strategy, multiplier, data):
    tree = random_tree(seed, 40, shape)
    inside = np.flatnonzero(tree.levels[0].stored_labels.values >= 0)
    earlier = np.array(data.draw(st.lists(st.sampled_from(inside.tolist()), min_size=1, max_size=30)))
    rows, copies = np.unique(earlier, return_counts=True)
    # Rows drawn more often before than the multiplier now allows add to what can be drawn.
    capacity = len(inside) * multiplier + int(np.maximum(copies - multiplier, 0).sum())
    size = data.draw(st.integers(len(earlier), capacity))
    topped = drawn(sample(tree, size, strategy, multiplier, seed, include=earlier))
    assert sum(topped.values()) == size
    before = dict(zip(rows.tolist(), copies.tolist(), strict=True))
    for row, count in before.items():
        assert topped[row] >= count
    assert all(count <= max(multiplier, before.get(row, 0)) for row, count in topped.items())
    with pytest.raises(CapacityError, match=f"at most {capacity} "):
        sample(tree, capacity + 1, strategy, multiplier, seed, include=earlier)


def test_the_topping_up_goes_to_the_clusters_that_gave_least(make_tree):
    tree = make_tree([0] * 10 + [1] * 10 + [2] * 10)
    topped = sample(tree, 12, include=np.arange(7))
    assert np.bincount(topped.labels[0]).tolist() in ([7, 2, 3], [7, 3, 2])


def test_the_draw_is_balanced_at_the_top_first(make_tree):
    # One top cluster holds two of the three leaves.
    tree = make_tree([0] * 100 + [1] * 100 + [2] * 100, [0, 0, 1])
    selection = sample(tree, 60)
    assert np.bincount(selection.labels[0]).tolist() == [15, 15, 30]
    assert np.bincount(selection.labels[1]).tolist() == [30, 30]


def test_the_same_seed_gives_the_same_draw_and_another_seed_another(random_tree):
    tree = random_tree(3, 400, [20, 4])
    assert drawn(sample(tree, 50, seed=5)) == drawn(sample(tree, 50, seed=5))
    assert drawn(sample(tree, 50, seed=5)) != drawn(sample(tree, 50, seed=6))


def test_a_size_above_capacity_names_the_largest_possible(make_tree):
    tree = make_tree([0, 0, 1, -1])
    with pytest.raises(CapacityError, match=r"run: 7 rows are asked for, at most 6 can be drawn .* up to 2 times"):
        sample(tree, 7, multiplier=2)
    assert len(sample(tree, 6, multiplier=2)) == 6


@pytest.mark.parametrize(
    ("earlier", "capacity", "said"),
    [
        ([0, 1, 2], 6, r"\(3 rows, each up to 2 times\); ask for 6"),
        ([0, 0, 0], 7, r"\(3 rows, each up to 2 times, and 1 copy above that in the earlier draw\); ask for 7"),
        ([0] * 4 + [2] * 5, 11, r"\(3 rows, each up to 2 times, and 5 copies above that in the earlier draw\);"),
    ],
)
def test_the_largest_possible_size_adds_up_with_an_earlier_draw(make_tree, earlier, capacity, said):
    tree = make_tree([0, 0, 1, -1])
    with pytest.raises(CapacityError, match=rf"at most {capacity} can be drawn {said}"):
        sample(tree, capacity + 1, multiplier=2, include=np.array(earlier))
    assert len(sample(tree, capacity, multiplier=2, include=np.array(earlier))) == capacity


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("size", -4), ("size", 2.0), ("size", True), ("multiplier", 0), ("seed", -1), ("seed", 2**64)],
)
def test_arguments_out_of_range_are_refused_by_name(make_tree, name, value):
    with pytest.raises(ConfigError, match=f"{name}: {value}"):
        sample(make_tree([0, 0]), **{"size": 1, name: value})


def test_a_multiplier_whose_capacity_is_no_int64_is_refused(make_tree):
    with pytest.raises(ConfigError, match=f"too large for 4 rows; at most {2**60}"):
        sample(make_tree([0, 0, 1, 1]), 1, multiplier=2**61)
    assert len(sample(make_tree([0, 0, 1, 1]), 1, multiplier=2**60)) == 1


def test_an_unfinished_tree_is_refused(make_tree):
    tree = make_tree([0, 0])
    tree.complete = False
    with pytest.raises(RunError, match="run: not finished yet; give the same cluster command again"):
        sample(tree, 1)


def test_offsets_that_do_not_fit_the_members_are_refused(make_tree):
    tree = make_tree([0, 0, 1], [0, 0])
    tree.levels[1].stored_offsets.values[-1] = 5
    with pytest.raises(StoreError, match="offsets of level 2 do not fit"):
        sample(tree, 1)


def test_an_earlier_draw_larger_than_the_size_is_refused(make_tree):
    with pytest.raises(InputError, match="holds 3 rows, copies counted, more than the 2 asked for"):
        sample(make_tree([0] * 5), 2, include=np.array([1, 1, 2]))


@pytest.mark.parametrize(("rows", "named"), [([0, 5, 7], "row 5"), ([-3, 1], "row -3"), ([1, 5], "row 5")])
def test_an_earlier_row_the_tree_does_not_have_is_named(make_tree, rows, named):
    with pytest.raises(InputError, match=f"the earlier draw: {named} is not in run, whose rows are 0 to 4"):
        sample(make_tree([0] * 5), 4, include=np.array(rows))


def test_an_earlier_row_outside_the_subset_is_named(make_tree):
    with pytest.raises(InputError, match="row 2 lies outside the subset"):
        sample(make_tree([0, 0, -1, 0, -1]), 4, include=np.array([1, 2, 4]))


def test_an_empty_earlier_draw_changes_nothing(random_tree):
    tree = random_tree(1, 50, [6, 2])
    assert drawn(sample(tree, 9, include=np.array([], dtype=np.int64))) == drawn(sample(tree, 9))


def test_a_draw_that_does_not_fit_is_refused_with_the_numbers(make_tree):
    tree = make_tree([0, 0, 1, 1])
    tree.levels[0].stored_offsets.values[1:] = 10**7
    tree.levels[0].stored_members.rows = 10**7
    with pytest.raises(MemoryLimitError, match=r"run: drawing 10,000,000 rows needs .* or draw fewer rows"):
        sample(tree, 10**7, memory_limit="512MiB")
    with pytest.raises(ConfigError, match=r"memory limit 1\.0 MiB: the smallest supported"):
        sample(make_tree([0, 0]), 1, memory_limit="1MiB")


def test_a_listener_is_told_of_every_member_looked_at(make_tree):
    class Listener:
        def __init__(self):
            self.told = []

        def started(self, name, rows):
            self.told.append([name, rows, 0])

        def advanced(self, rows, bytes):
            self.told[-1][2] += rows

        def finished(self):
            pass

    listener = Listener()
    sample(make_tree([0] * 10 + [1] * 5), 4, eligible=np.arange(3, 15), progress=listener)
    assert listener.told == [["eligible rows", 12, 12], ["draw", 12, 12]]
