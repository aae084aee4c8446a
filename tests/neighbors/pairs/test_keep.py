"""The row that is kept of each component."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.neighbors.pairs.edges import EdgeFile, write_pairs
from streamcurate.neighbors.pairs.keep import LARGEST, RULES, Component, Counts, keys_of, mark_rows
from streamcurate.storage import create_array


def records_of(groups: dict[int, int], folder: Path) -> EdgeFile:
    """A file of (row, component) from the component of each row."""
    return write_pairs(folder / "records.bin", [np.array(sorted(groups.items()), dtype=np.int64).reshape(-1, 2)])


@st.composite
def groupings(draw: st.DrawFn) -> tuple[int, dict[int, int]]:
    rows = draw(st.integers(2, 50))
    names = draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows))
    members = [[row for row in range(rows) if names[row] == name] for name in range(9)]  # those called 9 are alone
    return rows, {row: group[0] for group in members if len(group) > 1 for row in group}


@settings(max_examples=60, deadline=None)
@given(groupings(), st.integers(1, 60), st.lists(st.integers(0, 4), min_size=50, max_size=50))
def test_the_smallest_key_wins(grouping, span, keys):
    rows, groups = grouping
    key = np.array(keys, dtype=np.uint64) << np.uint64(62)  # beyond what is positive as int64
    counts = Counts()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        marked = list(
            mark_rows(records_of(groups, folder), rows, lambda own: key[own], folder / "s", 1 << 20, counts, span=span)
        )
        assert list((folder / "s").iterdir()) == []
    assert [part.first for part in marked] == [0, *(part.last for part in marked[:-1])]
    assert marked[-1].last == rows
    found = {
        row: (component, size, kept)
        for part in marked
        for row, component, size, kept in zip(part.rows, part.components, part.sizes, part.kept, strict=True)
    }
    assert list(found) == sorted(groups)
    wanted = {}
    for row, component in groups.items():
        mine = [other for other in groups if groups[other] == component]
        best = min(mine, key=lambda other: (keys[other] & 3, other))
        wanted[row] = (component, len(mine), row == best)
    assert found == wanted
    lengths = [sum(component == one for one in groups.values()) for component in set(groups.values())]
    assert counts.sizes == {size: lengths.count(size) for size in sorted(set(lengths))}
    components = {(component, size): row for row, (component, size, kept) in wanted.items() if kept}
    ordered = sorted(components, key=lambda one: (-one[1], one[0]))
    assert counts.largest == [Component(one[0], one[1], components[one]) for one in ordered]


def test_the_largest_are_a_hundred(tmp_path):
    size_of = [2 + number % 7 for number in range(300)]
    starts = np.cumsum([0, *size_of])
    groups = {row: start for start, end in pairwise(starts.tolist()) for row in range(start, end)}
    counts = Counts()
    list(
        mark_rows(
            records_of(groups, tmp_path),
            len(groups),
            keys_of("first", 0, None),
            tmp_path / "s",
            1 << 20,
            counts,
            span=101,
        )
    )
    ordered = sorted(range(300), key=lambda number: (-size_of[number], number))[:LARGEST]
    assert counts.largest == [Component(int(starts[at]), size_of[at], int(starts[at])) for at in ordered]


def test_rules(tmp_path):
    distances = np.array([0.5, 0.25, 0.25, -0.0, 0.0, 3e-45, np.nan], dtype=np.float32)
    stored = create_array(tmp_path / "distances", distances.shape, np.float32, 4)
    stored.write(0, distances)
    groups = {0: 0, 1: 0, 2: 0, 3: 3, 4: 3, 5: 3}

    def kept(rule: str, seed: int = 0) -> list[int]:
        keys = keys_of(rule, seed, stored)
        marked = mark_rows(records_of(groups, tmp_path), 7, keys, tmp_path / "s", 1 << 20, Counts(), span=2)
        return [row for part in marked for row in part.rows[part.kept].tolist()]

    assert kept("closest") == [1, 3]
    assert kept("first") == [0, 3]
    draws = [tuple(kept("random", seed)) for seed in range(60)]
    assert set(draws) == {(one, other) for one in (0, 1, 2) for other in (3, 4, 5)}
    assert draws[7] == tuple(kept("random", 7))
    assert RULES == ("closest", "first", "random")


@pytest.mark.parametrize("seed", [0, 5])
def test_random_is_a_function_of_seed_and_row(seed):
    keys = keys_of("random", seed, None)
    rows = np.array([3, 8, 2**40])
    np.testing.assert_array_equal(keys(rows)[1:], keys(rows[1:]))
    assert len({*keys(rows).tolist(), *keys_of("random", seed + 1, None)(rows).tolist()}) == 6
