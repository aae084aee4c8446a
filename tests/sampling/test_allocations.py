"""Quotas of whole trees under every allocation, and under its options together."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import CapacityError, ConfigError, InputError
from streamcurate.sampling import leaf_quotas, make_allocation, sample
from streamcurate.sampling.hierarchy import read_hierarchy
from streamcurate.sampling.nodes import make_nodes
from streamcurate.sampling.outliers import distance_limit, find_outliers
from streamcurate.sampling.prepare import prepared

CLUSTERS = [12, 5, 3]


@st.composite
def options(draw, hierarchy, limits=True):
    """Any options of an allocation that go together."""
    chosen = draw(
        st.sampled_from(
            [{}, {"allocation": "proportional"}, *({"allocation": "power", "alpha": a} for a in (0, 0.3, 0.5, 1))]
        )
    )
    if draw(st.booleans()):
        chosen |= {"least_rows": draw(st.integers(1, 6)), "least_rows_level": draw(st.integers(1, 3))}
    if draw(st.booleans()):
        chosen |= {"outlier_share": draw(st.sampled_from([0, 0.1, 0.5, 1])), "outlier_rows": draw(st.integers(1, 9))}
        chosen |= {"outlier_percentile": draw(st.sampled_from([0, 50, 90, 100]))}
    if draw(st.booleans()):
        places = [(level, j) for level in (1, 2, 3) for j in range(hierarchy.clusters(level))]
        entries = []
        for level, cluster in draw(st.lists(st.sampled_from(places), unique=True, min_size=1, max_size=6)):
            entry = {"level": level, "cluster": cluster, "weight": draw(st.sampled_from([None, 0.0, 0.5, 1.0, 3.0]))}
            if limits and draw(st.booleans()):
                entry["cap"] = draw(st.integers(0, 9))
            # A least of a leaf alone never meets a cap from above: that is an error, tested apart.
            if limits and level == 1 and entry["weight"] != 0 and "cap" not in entry and draw(st.booleans()):
                entry["least"] = draw(st.integers(0, 2))
            entries.append(entry)
        chosen["weights"] = entries
    return chosen


@st.composite
def planned(draw, random_tree, limits=True):
    """A tree's nodes under some options, with or without earlier rows, and what is between least and capacity."""
    tree = random_tree(draw(st.integers(0, 10**6)), 60, CLUSTERS)
    for level in tree.levels[1:]:
        level.stored_distances.values[:] = draw(
            st.lists(
                st.sampled_from([0.0, 0.5, 1.0]),
                min_size=level.stored_distances.rows,
                max_size=level.stored_distances.rows,
            )
        )
    hierarchy = read_hierarchy(tree)
    capacities = hierarchy.sizes * draw(st.integers(1, 3))
    lower = None
    if draw(st.booleans()):
        lower = np.array([draw(st.integers(0, min(int(c), 3))) for c in capacities])
    chosen = draw(options(hierarchy, limits))
    try:
        nodes = make_nodes(hierarchy, capacities, make_allocation(**chosen), seed=3, lower=lower, levels=tree.levels)
    except InputError as error:
        if "that the clusters under it give at least" not in str(error):
            raise
        chosen["weights"] = [entry for entry in chosen["weights"] if "least" not in entry] or None
        nodes = make_nodes(hierarchy, capacities, make_allocation(**chosen), seed=3, lower=lower, levels=tree.levels)
    return tree, nodes, capacities, lower, chosen


@settings(max_examples=40)
@given(st.data())
def test_quotas_add_up_within_their_bounds_whatever_the_options(random_tree, data):
    _, nodes, capacities, lower, chosen = data.draw(planned(random_tree))
    target = data.draw(st.integers(nodes.least, nodes.capacity))
    hierarchy = nodes.hierarchy
    kept = hierarchy.totals(np.zeros_like(capacities) if lower is None else lower)
    quotas = dict(nodes.quotas(target))
    assert quotas[3].sum() == target
    assert [total.tolist() for total in hierarchy.totals(quotas[1])] == [quotas[level].tolist() for level in (1, 2, 3)]
    assert (quotas[1] >= kept[0]).all()
    assert (quotas[1] <= capacities).all()
    sizes = hierarchy.totals(hierarchy.sizes)
    if "least_rows" in chosen:
        level = chosen["least_rows_level"]
        few = sizes[level - 1] < chosen["least_rows"]
        assert (quotas[level][few] == kept[level - 1][few]).all()
    for entry in chosen.get("weights") or []:
        level, cluster = entry["level"], entry["cluster"]
        quota, earlier = quotas[level][cluster], kept[level - 1][cluster]
        if entry["weight"] == 0:
            assert quota == earlier
        if "cap" in entry:
            assert quota <= max(entry["cap"], earlier)
        if "least" in entry:
            assert quota >= min(entry["least"], nodes.capacities[level - 1][cluster])


@settings(max_examples=40)
@given(st.data())
def test_a_larger_draw_takes_nothing_from_a_cluster(random_tree, data):
    _, nodes, *_ = data.draw(planned(random_tree))
    target = data.draw(st.integers(nodes.least, max(nodes.least, nodes.capacity - 1)))
    before = dict(nodes.quotas(target))
    after = dict(nodes.quotas(min(target + 1, nodes.capacity)))
    assert all((after[level] >= before[level]).all() for level in before)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.data())
def test_the_ends_of_power_are_balanced_and_proportional_and_weights_of_one_are_none(random_tree, seed, data):
    tree = random_tree(seed, 60, CLUSTERS)
    hierarchy = read_hierarchy(tree)
    target = data.draw(st.integers(1, hierarchy.rows))

    def quotas(*arguments, **chosen):
        allocation = make_allocation(*arguments, **chosen)
        found = leaf_quotas(hierarchy, target, hierarchy.sizes, seed=seed, allocation=allocation, levels=tree.levels)
        return found.tolist()

    ones = {(level, j): 1 for level in (1, 2, 3) for j in range(hierarchy.clusters(level))}
    balanced = leaf_quotas(hierarchy, target, hierarchy.sizes, seed=seed).tolist()
    assert quotas("power", 0) == balanced
    assert quotas(weights=ones) == balanced
    assert quotas(weights=dict.fromkeys(ones, 2.5)) == balanced
    assert quotas(outlier_share=1.0) == balanced
    proportional = quotas("proportional")
    assert quotas("power", 1) == proportional
    assert quotas("proportional", weights=ones) == proportional


def test_proportional_quotas_are_in_proportion_at_every_level(make_tree):
    tree = make_tree([0] * 600 + [1] * 300 + [2] * 100, [0, 0, 1])
    selection = sample(tree, 100, allocation="proportional")
    assert np.bincount(selection.labels[0]).tolist() == [60, 30, 10]
    # √600 : √300 under the first top cluster, √900 : √100 at the top.
    selection = sample(tree, 100, allocation="power", alpha=0.5)
    assert np.bincount(selection.labels[1]).tolist() == [75, 25]
    assert np.bincount(selection.labels[0]).tolist() in ([44, 31, 25], [43, 32, 25])


def test_what_a_full_child_cannot_hold_is_shared_again_by_weight(make_tree):
    tree = make_tree([0] * 10 + [1] * 100 + [2] * 100)
    selection = sample(tree, 100, weights={(0 + 1, 0): 8, (1, 1): 2})
    assert np.bincount(selection.labels[0]).tolist() == [10, 60, 30]


def test_small_clusters_give_nothing_and_what_they_hold_does_not_count(make_tree):
    # Top cluster 0: 40 rows of which 20 lie in leaves of 2; top cluster 1: 20 rows.
    labels = [0] * 20 + [leaf for leaf in range(1, 11) for _ in range(2)] + [11] * 20
    tree = make_tree(labels, [0] * 11 + [1])
    selection = sample(tree, 20, allocation="proportional", least_rows=3)
    assert np.bincount(selection.labels[0], minlength=12).tolist() == [10] + [0] * 10 + [10]
    assert np.bincount(sample(tree, 20, least_rows=30, least_rows_level=2).labels[1]).tolist() == [20]
    earlier = np.array([20, 21])
    kept = sample(tree, 10, least_rows=3, include=earlier)
    assert np.bincount(kept.labels[0], minlength=12).tolist()[1:11] == [2] + [0] * 9


def test_too_little_left_says_which_option_took_how_much(make_tree):
    tree = make_tree([0] * 20 + [1] * 2 + [2] * 30 + [3] * 40, [0, 0, 1, 1])
    weights = [{"level": 1, "cluster": 2, "weight": 0.0}, {"level": 1, "cluster": 3, "cap": 15}]
    with pytest.raises(CapacityError) as caught:
        sample(tree, 80, least_rows=3, weights=weights)
    assert "80 rows are asked for, at most 35 can be drawn (92 rows, each up to once" in str(caught.value)
    assert "least_rows 3 takes 2 away; weights takes 55 away" in str(caught.value)
    assert "ask for 35 or less, loosen least_rows 3 or weights" in str(caught.value)
    assert len(sample(tree, 35, least_rows=3, weights=weights)) == 35
    with pytest.raises(CapacityError, match=r"least_rows 50 takes 92 away\); loosen least_rows 50$"):
        sample(tree, 80, least_rows=50)


def test_caps_and_leasts_bound_a_draw(make_tree):
    tree = make_tree([0] * 100 + [1] * 100 + [2] * 4, [0, 1, 1])
    entries = [
        {"level": 2, "cluster": 0, "cap": 5},
        {"level": 1, "cluster": 1, "least": 30},
        {"level": 1, "cluster": 2, "least": 9},
    ]
    drawn = np.bincount(sample(tree, 40, weights=entries).labels[0])
    assert drawn.tolist() == [5, 31, 4]
    with pytest.raises(InputError, match="30 rows are asked for, and the leasts of weights come to 34, earlier"):
        sample(tree, 30, weights=entries)
    # Earlier rows stay, above a cap too.
    assert np.bincount(sample(tree, 50, weights=entries, include=np.arange(12)).labels[0])[0] == 12


def test_a_cap_below_the_leasts_under_it_is_refused(make_tree):
    tree = make_tree([0] * 9 + [1] * 9, [0, 0])
    entries = [{"level": 2, "cluster": 0, "cap": 5}, {"level": 1, "cluster": 1, "least": 6}]
    with pytest.raises(InputError, match="entry 1: cap 5 of cluster 0 of level 2 is below the 6 that the clusters"):
        sample(tree, 5, weights=entries)


def test_outliers_are_small_and_far_out_or_at_the_top(make_tree):
    tree = make_tree([0] * 50 + [1] + [2] + [3] * 9 + [4], [0, 0, 0, 1, 2], clusters=[5, 3])
    tree.levels[1].stored_distances.values[:] = [0.1, 0.9, 0.1, 0.2, 0.0]
    marks = find_outliers(read_hierarchy(tree), tree.levels, 1, 90)
    assert [mark.tolist() for mark in marks] == [[False, True, False, False, False], [False, False, True]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=8), st.integers(0, 100))
def test_the_limit_of_distances_holds_its_part_of_the_rows(clusters, percentile):
    rows = np.array([count for count, _ in clusters] + [1])
    distances = np.array([distance / 4 for _, distance in clusters] + [0.0], dtype=np.float32)
    limit = distance_limit(distances, rows, percentile)
    assert 100 * rows[distances <= limit].sum() >= percentile * rows.sum()
    assert 100 * rows[distances < limit].sum() < max(percentile * rows.sum(), 1)


def test_outliers_together_give_no_more_than_their_share(make_tree):
    # Eight top clusters of one row each beside two of a hundred.
    tree = make_tree([0] * 100 + [1] * 100 + list(range(2, 10)), range(10))
    assert np.bincount(sample(tree, 40).labels[1]).tolist() == [16] * 2 + [1] * 8
    held = np.bincount(sample(tree, 40, outlier_share=0.05).labels[1], minlength=10)
    assert held[:2].tolist() == [19, 19]
    assert held[2:].sum() == 2
    # Where the others are full, outliers give the rest.
    assert len(sample(tree, 208, outlier_share=0.0)) == 208
    nothing = np.bincount(sample(tree, 40, outlier_share=0).labels[1], minlength=10)
    assert nothing.tolist() == [20, 20] + [0] * 8


def test_eligible_rows_are_what_counts(make_tree):
    tree = make_tree([0] * 90 + [1] * 30)
    chosen = np.r_[0:20, 90:120]
    selection = sample(tree, 10, allocation="proportional", eligible=chosen)
    assert np.bincount(selection.labels[0]).tolist() == [4, 6]
    assert np.bincount(sample(tree, 10, least_rows=25, eligible=chosen).labels[0], minlength=2).tolist() == [0, 10]


def test_a_large_cluster_with_one_eligible_row_is_no_outlier(make_tree):
    tree = make_tree([0] * 50 + [1] * 50 + [2])
    drawn = sample(tree, 2, eligible=[0, 1, 2, 50, 100], outlier_share=0)
    assert np.bincount(drawn.labels[0], minlength=3).tolist() == [1, 1, 0]


def test_a_selection_names_its_allocation(make_tree):
    tree = make_tree([0] * 9 + [1] * 3)
    assert sample(tree, 5).allocation == {}
    assert "alpha" not in repr(sample(tree, 5))
    selection = sample(tree, 5, allocation="power", alpha=0.5, least_rows=2)
    assert selection.allocation == {"allocation": "power", "alpha": 0.5, "least_rows": 2, "least_rows_level": 1}
    assert repr(sample(tree, 1, weights={(1, 0): 0})) == "Selection(1 row, 1 distinct, of run, weights)"
    assert repr(selection).endswith("of run, allocation power, alpha 0.5, least_rows 2, least_rows_level 1)")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"allocation": "fair"}, "allocation: 'fair' is unknown; known: balanced, proportional, power"),
        ({"allocation": "power"}, "'power' needs alpha"),
        ({"alpha": 0.5}, "says nothing to the allocation 'balanced'"),
        ({"allocation": "proportional", "alpha": 0.5}, "says nothing to the allocation 'proportional'"),
        ({"allocation": "power", "alpha": 1.5}, "alpha: 1.5 cannot be; give a number from 0 to 1"),
        ({"allocation": "power", "alpha": float("nan")}, "alpha: nan cannot be"),
        ({"least_rows": 0}, "least_rows: 0 cannot be"),
        ({"least_rows_level": 2}, "least_rows_level: 2 says nothing without least_rows"),
        ({"least_rows": 2, "least_rows_level": 4}, "least_rows_level: 4 cannot be; the levels are 1 to 1"),
        ({"outlier_rows": 2}, "outlier_rows: 2 says nothing without outlier_share"),
        ({"outlier_percentile": 2}, "outlier_percentile: 2 says nothing without outlier_share"),
        ({"outlier_share": 1.1}, "outlier_share: 1.1 cannot be"),
        ({"outlier_share": True}, "outlier_share: True cannot be"),
        ({"outlier_share": 0.1, "outlier_rows": 0}, "outlier_rows: 0 cannot be"),
        ({"outlier_share": 0.1, "outlier_percentile": 101}, "outlier_percentile: 101 cannot be"),
    ],
)
def test_options_that_cannot_be_are_refused(make_tree, chosen, said):
    with pytest.raises(ConfigError) as caught:
        sample(make_tree([0] * 9 + [1] * 3), 5, **chosen)
    assert said in str(caught.value)


def test_more_than_weights_can_share_is_refused(make_tree):
    with pytest.raises(ConfigError, match=r"size: .* cannot be shared by weights"):
        sample(make_tree([0] * 9), 2**49, multiplier=2**50, allocation="proportional")


@pytest.mark.parametrize(
    "options",
    [{}, {"allocation": "power", "alpha": 0.4, "least_rows": 2, "outlier_share": 0.01, "weights": {(1, 3): 2}}],
)
def test_quotas_take_no_more_memory_than_is_asked_for(make_tree, options):
    tree = make_tree(np.arange(400_000) // 2)  # one parent: nothing is shared out piece by piece
    allocation = make_allocation(**options)
    for traced in (False, True):  # what is compiled and imported on first use does not count
        if traced:
            tracemalloc.start()
        with prepared(tree, 1000, memory_limit="2GiB", allocation=allocation) as draw:
            assert sum(int(quotas.sum()) for _, quotas in draw.quotas()) == 1000
        if traced:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert 0.5 * draw.held < peak <= draw.held


def test_leasts_that_cannot_be_given_are_noted(make_tree):
    tree = make_tree([0] * 9 + [1] * 3 + [2] * 2, [0, 0, 1])
    leasts = [{"level": 1, "cluster": 0, "least": 10}, {"level": 1, "cluster": 1, "least": 3}]
    more = "can give less than their least, and give all they can; explain shows how much"
    assert sample(tree, 13, weights=leasts).notes == (
        "weights: 1 cluster can give less than its least, and gives all it can; explain shows how much",
    )
    assert sample(tree, 14, weights=[*leasts, {"level": 2, "cluster": 1, "least": 3}]).notes == (
        f"weights: 2 clusters {more}",
    )
    assert sample(tree, 13, weights=leasts[1:]).notes == sample(tree, 13).notes == ()
    assert sample(tree, 13, multiplier=2, weights=leasts).notes == ()
    with pytest.raises(CapacityError) as caught:
        sample(tree, 15, weights=leasts)
    assert "weights" not in str(caught.value)  # they take no row away
    # A cluster that is made to give nothing is no surprise.
    assert sample(tree, 9, least_rows=3, weights=[{"level": 1, "cluster": 2, "least": 3}]).notes == ()
