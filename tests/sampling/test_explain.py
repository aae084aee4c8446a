"""What is said of a draw is what the draw does."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import ConfigError, InputError
from streamcurate.sampling import STRATEGIES, explain, sample

OPTIONS = [
    {},
    {"allocation": "proportional"},
    {"allocation": "power", "alpha": 0.4, "least_rows": 2},
    {"outlier_share": 0.05, "outlier_rows": 3, "outlier_percentile": 0},
    {"allocation": "power", "alpha": 0.5, "outlier_share": 0.1, "outlier_rows": 4, "weights": {(2, 0): 3, (1, 1): 0}},
    {"weights": [{"level": 1, "cluster": j, "least": 2} for j in (0, 1, 2)] + [{"level": 3, "cluster": 0, "cap": 9}]},
]


def quotas_of(selection, level):
    tree = selection.tree
    return np.bincount(
        selection.labels[level - 1], weights=selection.copies, minlength=tree.levels[level - 1].clusters
    ).astype(int)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from(OPTIONS), st.sampled_from(STRATEGIES), st.integers(1, 2), st.data())
def test_what_is_explained_is_what_is_drawn(random_tree, seed, options, strategy, multiplier, data):
    tree = random_tree(seed, 60, [9, 4, 2])
    inside = np.flatnonzero(tree.levels[0].stored_labels.values >= 0)
    given_ = {"include": inside[:3], "eligible": np.delete(inside, [1, 5])} if data.draw(st.booleans()) else {}
    arguments = (data.draw(st.integers(8, 20)), strategy, multiplier, seed)
    try:
        selection = sample(tree, *arguments, **given_, **options)
    except InputError as error:
        # A tree may be too lopsided for its leasts.
        if "can be drawn" not in str(error) and "give at least" not in str(error) and "come to" not in str(error):
            raise
        return
    quotas = {level: quotas_of(selection, level) for level in (1, 2, 3)}
    for level in (1, 2, 3):
        for cluster in range(tree.levels[level - 1].clusters):
            if level < 3 and tree.levels[level].stored_labels.values[cluster] < 0:
                continue
            found = explain(tree, *arguments, cluster=(level, cluster), **given_, **options)
            assert [step["child"]["quota"] for step in found.branch if "child" in step][-1] == quotas[level][cluster]
            for step, below in pairwise(found.branch):
                assert below["quota"] == step["child"]["quota"]
            if level > 1:
                table = found.table["children"]
                assert found.table["count"] == len(table) == found.branch[-1]["children"]
                assert [line["quota"] for line in table] == [quotas[level - 1][line["cluster"]] for line in table]
            else:
                assert found.leaf["quota"] == quotas[1][cluster]
            check_arithmetic(found)
    drawn = dict(zip(selection.unique_rows.tolist(), selection.copies.tolist(), strict=True))
    for row in data.draw(st.lists(st.sampled_from(inside.tolist()), min_size=1, max_size=5)):
        found = explain(tree, *arguments, row=row, **given_, **options)
        assert found.row["copies"] == drawn.get(row, 0)
        assert found.row["eligible"] == (row in given_.get("eligible", inside))


def check_arithmetic(found):
    """What is said of the child on the branch leads to its quota."""
    for step in found.branch:
        child, water = step.get("child"), step["water"]
        if child is None:
            continue
        outliers = step.get("outliers")
        remainder = step["remainder"]
        if child["outlier"] and outliers["held_down"]:
            water, remainder = outliers["water"], outliers["remainder"]
        given_ = int(water * child["weight"]) if step["weighted"] else water
        assert child["quota"] == max(min(given_, child["capacity"]), child["least"]) + child["one_more"]
        assert remainder or not child["one_more"]
        assert (child["least_from"] is None) == (child["least"] == 0)
    json.dumps(found.to_dict())
    assert str(found) == repr(found)


@pytest.fixture
def tree(make_tree):
    """Two top clusters: leaves of 30 and 4 rows, and one of 3 rows; a row outside."""
    return make_tree(
        [0] * 30 + [1] * 4 + [2] * 3 + [-1], [0, 0, 1], ids=np.array([f"img_{row:02}" for row in range(38)])
    )


def test_a_branch_reads_from_the_root_to_the_row(tree):
    assert str(explain(tree, 21, "closest", id="img_07")) == (
        "run: 21 of at most 37 rows; balanced; closest, multiplier 1, seed 0\n"
        "the root gives 21 rows, from 2 clusters of level 2\n"
        "  each cluster gives 18 rows, or all it can (1 does)\n"
        "  → cluster 0: 34 rows, can give 34 (what the clusters under it can give): gives 18\n"
        "cluster 0 of level 2 gives 18 rows, from 2 clusters of level 1\n"
        "  each cluster gives 14 rows, or all it can (1 does)\n"
        "  → cluster 0: 30 rows, can give 30 (its rows): gives 14\n"
        "cluster 0 of level 1 gives 14 rows, from 30 rows\n"
        "  14 of 30 rows: those closest to the centroid\n"
        "  row 7 (img_07) is number 8 by distance from the centroid: drawn once\n"
        "How to read it: a cluster shares what it gives evenly among those under it (by their weights, if they have "
        "any);\n"
        "where one can give less than that, the others give the rest; what is left over then is one row each for some."
    )


def test_without_a_branch_the_top_clusters_are_listed(make_tree):
    tree = make_tree([j for j in range(13) for _ in range(j + 1)])
    lines = str(explain(tree, 60)).splitlines()
    assert lines[1] == "the root gives 60 rows, from 13 clusters of level 1"
    assert lines[2] == "  each cluster gives 5 rows, or all it can (5 do)"
    assert lines[3] == "  5 rows left over: one each to 5 of 8 clusters, chosen by the seed"
    assert lines[4].split() == ["cluster", "rows", "can", "give", "gives"]
    assert [line.split()[-1] for line in lines[5:10]] == ["6"] * 5
    assert lines[10].split() == ["...", "(3", "more)"]
    assert [line.split() for line in lines[-4:-2]] == [["1", "2", "2", "2"], ["0", "1", "1", "1"]]


def test_bounds_say_where_they_come_from(tree, tmp_path):
    (tmp_path / "w.csv").write_text("level,cluster,weight,cap,least\n1,0,,5,\n2,1,0,,\n2,0,2,,\n1,1,,,4\n")
    path = tmp_path / "w.csv"
    found = explain(tree, 9, cluster=(1, 0), weights=path, include=[0])
    top, leaf = (step["child"] for step in found.branch)
    assert (leaf["capacity"], leaf["capacity_from"]) == (5, f"cap 5 ({path}: line 2)")
    assert (leaf["least"], leaf["least_from"]) == (1, "earlier rows")
    assert (top["weight"], top["least"], top["least_from"]) == (2, 5, "the leasts of the clusters under it")
    found = explain(tree, 9, cluster=(1, 2), weights=path)
    assert found.branch[0]["child"]["capacity_from"] == f"weight 0 ({path}: line 3)"
    assert found.branch[1]["child"]["capacity_from"] == "it lies under a cluster that gives nothing"
    assert (
        explain(tree, 9, cluster=(1, 1), weights=path).branch[1]["child"]["least_from"] == f"least 4 ({path}: line 5)"
    )
    small = explain(tree, 9, cluster=(1, 2), least_rows=4)
    assert small.branch[1]["child"]["capacity_from"] == "fewer than 4 rows (least_rows)"
    assert small.draw["taken"] == [{"option": "least_rows 4", "rows": 3}]
    assert "  3 rows fewer can be drawn because of least_rows 4" in str(small)
    assert small.branch[1]["nothing"] == 1


def test_outliers_held_down_are_told(make_tree):
    tree = make_tree([0] * 100 + [1] * 100 + list(range(2, 10)))
    text = str(explain(tree, 40, cluster=(1, 3), outlier_share=0.1))
    assert (
        "  8 outliers would give 8 together and may give 4; held down to 4: each gives 0 rows; 4 rows left over: one "
        "each to 4 of 8\n"
    ) in text
    assert "each cluster gives 18 rows, or all it can (outliers apart)\n" in text
    assert "an outlier: gives 1 (0 and one left over)" in text
    assert "outliers (at most 1 row, farther out than clusters with 90 % of the rows) give at most 10 % of" in text
    free = str(explain(tree, 40, outlier_share=0.3))
    assert "  8 outliers: together 8 rows, of the 12 they may give\n" in free
    weighted = str(explain(tree, 40, cluster=(1, 3), weights={(1, 0): 2}))
    assert "each cluster gives just below 11 x its weight, rounded down, or all it can (8 do)" in weighted
    assert "fewer can be drawn" not in weighted


def test_chances_are_told(tree):
    found = explain(tree, 20, cluster=(1, 0))
    quota = found.leaf["quota"]
    assert found.leaf["chance"] == quota / 30
    chance = f"chosen by the seed, each with a chance of {100 * quota / 30:.3g} %"
    assert f"  {quota} of 30 rows: {chance}\n" in str(found)
    assert "centroid: with this seed it is " in str(explain(tree, 20, row=3))
    quota = explain(tree, 20, cluster=(1, 0), include=[1, 2]).leaf["once_more"]
    assert f"  {quota} of the other 28 rows: chosen" in str(explain(tree, 20, cluster=(1, 0), include=[1, 2]))
    once = explain(tree, 60, cluster=(1, 0), multiplier=2)
    quota = once.leaf["once_more"]
    assert f"  each row once, {quota} of 30 rows once more: chosen by the seed" in str(once)
    assert "  no row is drawn\n" in str(explain(tree, 1, cluster=(1, 0)))
    twice = explain(tree, 74, multiplier=2, row=3)
    assert (twice.leaf["base"], twice.leaf["once_more"], twice.row["copies"]) == (2, 0, 2)
    assert (
        "each row 2 times, and nothing is left over\n  row 3 is number 4 by distance from the centroid: drawn 2 times\n"
    ) in str(twice)


def test_one_cluster_takes_no_more_than_its_members(random_tree):
    tree = random_tree(0, 400, [20, 4])
    tree.levels[0].stored_members.total_read = 0
    row = int(tree.levels[0].stored_members.values[0])
    sizes = np.diff(tree.levels[0].stored_offsets.values)
    explain(tree, 50, row=row)
    assert 0 < tree.levels[0].stored_members.total_read <= 2 * sizes.max()


def test_ids_are_read_up_to_the_one_asked_for(make_tree, monkeypatch):
    monkeypatch.setattr("streamcurate.embeddings.idlookup._SMALLEST_PIECE", 4)
    tree = make_tree([0] * 40, ids=np.array([f"img_{row % 30:02}" for row in range(40)]))
    assert explain(tree, 5, id="img_05").row["row"] == 5
    assert tree.store.ids.total_read == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"row": 38}, "row: 38 is not in run, whose rows are 0 to 37"),
        ({"row": -1}, "row: -1 is not in run"),
        ({"row": True}, "row: True is not in run"),
        ({"row": 37}, "row: 37 lies outside the subset that run was built on"),
        ({"id": "img_99"}, "id: 'img_99' is not among the ids of emb.zarr/ids"),
        ({"cluster": (3, 0)}, "level 3 does not exist; the levels are 1 to 2"),
        ({"cluster": (2, 2)}, "level 2 has no cluster 2; its clusters are 0 to 1"),
        ({"cluster": 4}, "cluster: 4 is no cluster"),
        ({"cluster": (1, 0.7)}, "cluster: (1, 0.7) is no cluster"),
        ({"row": 1, "id": "img_01"}, "give one of them"),
        ({"row": 1, "size": 99}, "at most 37 can be drawn"),
    ],
)
def test_what_cannot_be_explained_is_refused(tree, options, said):
    options = {"size": 5, **options}
    with pytest.raises(InputError) as caught:
        explain(tree, **options)
    assert said in str(caught.value)


def test_empty_clusters_and_absent_ids_are_refused(make_tree):
    tree = make_tree([0, 0, 2], [0, 0, 1], clusters=[3, 2])
    with pytest.raises(InputError, match="cluster 1 of level 1 is empty"):
        explain(tree, 2, cluster=(1, 1))
    with pytest.raises(InputError, match="has no ids, or is gone; give a row"):
        explain(tree, 2, id="img_00")
    with pytest.raises(ConfigError, match="size: 0"):
        explain(tree, 0)
