"""The draw a report is about, and those it is compared with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamcurate as sc
from streamcurate.errors import ConfigError, InputError
from streamcurate.reports import drawn
from streamcurate.reports.drawn import Drawn, random_draws, take_draw, uniform_places
from streamcurate.sampling import read_hierarchy


@given(st.integers(1, 300), st.data())
def test_places_are_distinct_and_ascending(total, data) -> None:
    wanted = data.draw(st.integers(0, total))
    found = uniform_places(total, wanted, 7, (0, 1))
    assert len(found) == wanted
    assert (np.diff(found) > 0).all()
    assert not wanted or 0 <= found[0] <= found[-1] < total


@pytest.mark.parametrize("wanted", [2, 5])
def test_all_sets_of_places_are_equally_likely(wanted) -> None:
    found = Counter(tuple(uniform_places(7, wanted, seed, (0, 0)).tolist()) for seed in range(4200))
    assert len(found) == 21  # 7 choose 2, or 5
    assert all(abs(count - 200) < 5 * 200**0.5 for count in found.values())


def check_counts(tree, draw: Drawn) -> None:
    """Counts by cluster are those of the rows."""
    labels = tree.levels[0].labels[:][draw.rows]
    for level in range(len(tree.levels)):
        counts = np.bincount(labels, weights=draw.copies, minlength=tree.levels[level].clusters)
        assert (counts == draw.counts[level]).all()
        if level + 1 < len(tree.levels):
            labels = tree.levels[level + 1].labels[:][labels]


@pytest.mark.parametrize("size", [1, 60, 400, 500, 1250])
def test_random_draws(made, size) -> None:
    tree = sc.open_tree(made / "run")
    found = random_draws(tree, read_hierarchy(tree), size, 0)
    assert len(found) == 5
    for draw in found:
        assert (np.diff(draw.rows) > 0).all()
        assert draw.size == size
        assert draw.copies.max() - draw.copies.min() <= 1
        check_counts(tree, draw)
    assert size == 500 or any((draw.rows != found[0].rows).any() or size > 500 for draw in found[1:])


def test_a_draw_from_a_file_an_array_and_a_selection(made, tmp_path) -> None:
    tree = sc.open_tree(made / "run")
    hierarchy = read_hierarchy(tree)
    selection = tree.sample(80, multiplier=2, seed=5)
    selection.save(tmp_path / "a.parquet")
    new = take_draw(tree, hierarchy, None, 80, {"multiplier": 2, "seed": 5})
    for form in (selection, tmp_path / "a.parquet", selection.rows):
        draw = take_draw(tree, hierarchy, form, None, {})
        assert (draw.rows == new.rows).all()
        assert (draw.copies == new.copies).all()
        check_counts(tree, draw)
    assert new.options == {"size": 80, "multiplier": 2, "seed": 5}
    assert take_draw(tree, hierarchy, None, None, {}).size == 50  # a tenth


def test_draws_of_other_trees_are_refused(made, tmp_path) -> None:
    tree = sc.open_tree(made / "run")
    other = sc.cluster(made / "emb.zarr", tmp_path / "other", levels=[12, 3], seed=8)
    selection = other.sample(40)
    hierarchy = read_hierarchy(tree)
    with pytest.raises(InputError, match=r"was drawn from .*other"):
        take_draw(tree, hierarchy, selection, None, {})
    for name, said in (("a.parquet", "a selection of another tree"), ("a.zarr", "a tree with the digest")):
        selection.save(tmp_path / name)
        with pytest.raises(InputError, match=said):
            take_draw(tree, hierarchy, tmp_path / name, None, {})
    with pytest.raises(InputError, match="row 500 is not in"):
        take_draw(tree, hierarchy, np.array([500]), None, {})
    with pytest.raises(InputError, match="holds no rows"):
        take_draw(tree, hierarchy, np.array([], dtype=np.int64), None, {})
    with pytest.raises(ConfigError, match="size: says how to draw"):
        take_draw(tree, hierarchy, np.array([1]), 5, {})
    with pytest.raises(ConfigError, match="strategy: says how to draw"):
        take_draw(tree, hierarchy, np.array([1]), None, {"strategy": "closest"})


def test_large_draws_are_compared_with_fewer(made, monkeypatch) -> None:
    monkeypatch.setattr(drawn, "_LARGE_DRAW", 10)
    tree = sc.open_tree(made / "run")
    assert len(random_draws(tree, read_hierarchy(tree), 11, 0)) == 3
