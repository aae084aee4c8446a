"""Union-find over edges."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.kernels import settle_groups, unite_edges


@settings(max_examples=100)
@given(st.integers(1, 30), st.integers(0, 50), st.data())
def test_every_position_points_to_the_lowest_of_its_group(count, first, data):
    end = st.integers(max(first - 3, 0), first + count - 1)
    edges = data.draw(st.lists(st.tuples(end, end), max_size=40))
    parents = np.arange(count)
    for start in range(0, len(edges), 7):
        unite_edges(parents, np.array(edges[start : start + 7], dtype=np.int64).reshape(-1, 2), first)
    settle_groups(parents)
    wanted = list(range(count))
    for _ in range(count):
        for one, other in edges:
            if min(one, other) >= first:
                lowest = min(wanted[one - first], wanted[other - first])
                wanted = [
                    lowest if group in (wanted[one - first], wanted[other - first]) else group for group in wanted
                ]
    assert parents.tolist() == wanted


def test_a_long_path_in_the_worst_order():
    count = 200_000
    edges = np.stack([np.arange(1, count), np.arange(count - 1)], axis=1)[::-1].copy()
    parents = np.arange(count)
    unite_edges(parents, edges)
    settle_groups(parents)
    assert not parents.any()
