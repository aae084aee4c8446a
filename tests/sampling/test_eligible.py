"""Draws among eligible rows: those of a tree whose members were filtered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import CapacityError, DataError, InputError, StoreError
from streamcurate.sampling import STRATEGIES, eligible, sample
from streamcurate.sampling.draw import Included
from streamcurate.sampling.eligible import eligible_rows
from streamcurate.sampling.hierarchy import read_hierarchy
from streamcurate.streaming.progress import Silent

SHAPES = st.sampled_from([(1,), (6,), (9, 3), (12, 6, 2)])
IDS = np.array([f"image {row}" for row in range(50)], dtype=np.dtypes.StringDType())


def drawn(selection):
    return dict(zip(selection.unique_rows.tolist(), selection.copies.tolist(), strict=True))


def filtered(make_tree, tree, mask):
    """The tree of the same labels and distances that never had the other rows."""
    labels = [level.stored_labels.values.copy() for level in tree.levels]
    labels[0][~mask] = -1
    clusters = [level.clusters for level in tree.levels]
    return make_tree(*labels, clusters=clusters, distances=tree.levels[0].stored_distances.values)


def masks(tree, data):
    """A mask of some rows, one of them in the tree."""
    rows = tree.levels[0].stored_labels.rows
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    mask[0] = True
    return mask


@pytest.fixture(params=["memory", "scratch"], autouse=True, scope="module")
def held(request):
    """All in memory, or members on scratch, and looked up in small pieces."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "scratch":
            patch.setattr(eligible, "_HELD_MEMBERS", 0)
            patch.setattr(eligible, "_MEMBERS_CHUNK_ROWS", 5)
            patch.setattr(eligible, "_BATCH", 7)
            patch.setattr("streamcurate.embeddings.subset._PIECE", 11)
        yield request.param


@settings(max_examples=40)
@given(st.integers(0, 10**6), SHAPES, st.sampled_from(STRATEGIES), st.integers(1, 3), st.data())
def test_it_is_the_draw_from_a_tree_of_the_eligible_rows(
    random_tree, make_tree, seed, shape, strategy, multiplier, data
):
    tree = random_tree(seed, 50, shape)
    mask = masks(tree, data)
    oracle = filtered(make_tree, tree, mask)
    inside = int(oracle.levels[0].stored_members.rows)
    size = data.draw(st.integers(1, inside * multiplier))
    picked = sample(tree, size, strategy, multiplier, seed, eligible=mask)
    assert drawn(picked) == drawn(sample(oracle, size, strategy, multiplier, seed))
    assert picked.eligible == inside
    with pytest.raises(CapacityError, match=f"at most {inside * multiplier} can be drawn .{inside} rows of eligible,"):
        sample(tree, inside * multiplier + 1, strategy, multiplier, seed, eligible=mask)


@settings(max_examples=40)
@given(st.integers(0, 10**6), SHAPES, st.sampled_from(STRATEGIES), st.integers(1, 3), st.data())
def test_a_smaller_draw_is_part_of_a_larger_one_and_can_be_topped_up_to_it(
    random_tree, seed, shape, strategy, multiplier, data
):
    tree = random_tree(seed, 50, shape)
    mask = masks(tree, data)
    inside = int(np.count_nonzero(mask & (tree.levels[0].stored_labels.values >= 0)))
    larger_size = data.draw(st.integers(1, inside * multiplier))
    smaller_size = data.draw(st.integers(1, larger_size))
    options = {"strategy": strategy, "multiplier": multiplier, "seed": seed, "eligible": mask}
    larger, smaller = sample(tree, larger_size, **options), sample(tree, smaller_size, **options)
    assert all(copies <= drawn(larger).get(row, 0) for row, copies in drawn(smaller).items())
    assert drawn(sample(tree, larger_size, include=smaller, **options)) == drawn(larger)


@settings(max_examples=40)
@given(st.integers(0, 10**6), SHAPES, st.sampled_from(STRATEGIES), st.integers(1, 2), st.data())
def test_an_earlier_draw_is_kept_whatever_is_eligible(random_tree, make_tree, seed, shape, strategy, multiplier, data):
    tree = random_tree(seed, 40, shape)
    mask = masks(tree, data)
    labels = tree.levels[0].stored_labels.values
    inside = np.flatnonzero(labels >= 0)
    earlier = np.array(data.draw(st.lists(st.sampled_from(inside.tolist()), min_size=1, max_size=30)))
    rows, copies = np.unique(earlier, return_counts=True)
    before = dict(zip(rows.tolist(), copies.tolist(), strict=True))
    open_rows = np.flatnonzero(mask & (labels >= 0))
    capacity = sum(max(multiplier, before.get(row, 0)) for row in open_rows.tolist())
    capacity += sum(count for row, count in before.items() if not mask[row])
    size = data.draw(st.integers(len(earlier), capacity))
    options = {"strategy": strategy, "multiplier": multiplier, "seed": seed, "include": earlier}
    topped = drawn(sample(tree, size, eligible=mask, **options))
    assert sum(topped.values()) == size
    for row, count in before.items():
        assert topped[row] >= count
        assert mask[row] or topped[row] == count
    assert all(mask[row] or row in before for row in topped)
    assert all(count <= max(multiplier, before.get(row, 0)) for row, count in topped.items())
    if mask[rows].all():
        assert topped == drawn(sample(filtered(make_tree, tree, mask), size, **options))
    with pytest.raises(CapacityError, match=f"at most {capacity} "):
        sample(tree, capacity + 1, eligible=mask, **options)


def test_what_was_drawn_before_counts_as_given_by_its_cluster(make_tree):
    tree = make_tree([0] * 10 + [1] * 10 + [2] * 10)
    topped = sample(tree, 12, include=np.arange(7), eligible=np.arange(10, 30))
    assert np.bincount(topped.labels[0]).tolist() in ([7, 2, 3], [7, 3, 2])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_way_of_naming_the_rows_gives_one_draw(random_tree, tmp_path, strategy):
    tree = random_tree(3, 50, [8, 3], ids=IDS)
    rows = np.arange(1, 50, 2)
    mask = np.zeros(50, dtype=bool)
    mask[rows] = True
    np.save(tmp_path / "rows.npy", np.concatenate([rows[::-1], rows]))
    np.save(tmp_path / "mask.npy", mask)
    (tmp_path / "ids.txt").write_text("".join(f"{IDS[row]}\n" for row in rows))
    every = sample(tree, int(np.count_nonzero(tree.levels[0].stored_labels.values[rows] >= 0)), eligible=mask)
    every.save(tmp_path / "table.parquet")
    every.save(tmp_path / "table.csv")
    every.save(tmp_path / "written.txt")
    forms = [rows, rows.tolist(), IDS[rows], IDS[rows].tolist(), every]
    forms += [
        tmp_path / name for name in ("rows.npy", "mask.npy", "ids.txt", "table.parquet", "table.csv", "written.txt")
    ]
    expected = drawn(sample(tree, 9, strategy, seed=4, eligible=mask))
    for form in forms:
        assert drawn(sample(tree, 9, strategy, seed=4, eligible=form)) == expected


def test_scratch_is_gone_afterwards(random_tree, tmp_path, held):
    tree = random_tree(3, 50, [8, 3])
    hierarchy = read_hierarchy(tree)
    nothing = Included(*(np.empty(0, dtype=np.int64) for _ in range(3)))
    with eligible_rows(np.arange(50), tree, hierarchy, nothing, 1 << 20, tmp_path, Silent()) as found:
        assert bool([path for path in tmp_path.rglob("*") if path.is_file()]) == (held == "scratch")
        assert found.members.read(0, found.members.rows).tolist() == tree.levels[0].stored_members.values.tolist()
        assert found.hierarchy.leaf_offsets.tolist() == hierarchy.leaf_offsets.tolist()
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="row 50 is not among"):
        sample(tree, 1, eligible=[50], scratch=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"absent: no folder for scratch can be made \(No such file"):
        sample(tree, 1, eligible=[0], scratch=tmp_path / "absent")


def test_only_the_labels_of_eligible_rows_are_looked_up(random_tree):
    tree = random_tree(3, 5000, [8, 3])
    sample(tree, 3, eligible=np.arange(0, 5000, 100))
    assert tree.levels[0].stored_labels.total_read == 50
    assert tree.levels[0].stored_distances.total_read == 50
    assert tree.levels[0].stored_members.total_read == 0


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([2, 4], "eligible: none of its 2 rows is in run: they all lie outside the subset it was built on"),
        ([], "eligible: names no row; leave --eligible out to take all rows"),
        (["a"], "eligible: holds strings, and the store has no ids"),
        ([True, False], "a mask of 2 entries for 5 rows"),
    ],
)
def test_lists_that_name_nothing_to_draw(make_tree, chosen, said):
    with pytest.raises(InputError, match=said):
        sample(make_tree([0, 0, -1, 0, -1]), 1, eligible=chosen)


def test_ids_need_the_store_and_row_numbers_do_not(random_tree):
    tree = random_tree(3, 50, [8, 3], ids=IDS)
    tree.store = None
    with pytest.raises(StoreError, match=r"emb\.zarr: is gone, and its ids with it; .* by number"):
        sample(tree, 2, eligible=["image 3"])
    assert len(sample(tree, 2, eligible=np.arange(20))) == 2
