"""Where lists end, against a sort of everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamcurate import kernels
from streamcurate.neighbors.examples.cuts import Cuts, Grouped, cut_of_nearest, cuts_of_groups, group_bytes


class Distances:
    """Of rows in memory, some at a time."""

    def __init__(self, seeds: np.ndarray, values: np.ndarray, step: int) -> None:
        self.rows, self.seeds, self.values, self._step = len(seeds), seeds, values, step

    def blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for start in range(0, self.rows, self._step):
            yield start, self.seeds[start : start + self._step], self.values[start : start + self._step]


class Labels:
    def __init__(self, values: np.ndarray) -> None:
        self.rows, self._values = len(values), values

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._values[start:stop]


# Equal values, and such as differ in the last bits alone.
VALUES = st.one_of(
    st.integers(0, 3).map(float),
    st.floats(0, 4, allow_subnormal=True),
    st.integers(0, 5).map(lambda steps: float(1 + steps * 2.0**-52)),
)
ROWS = st.lists(st.tuples(st.integers(-1, 4), VALUES), min_size=1, max_size=60)


def distances_of(rows: list[tuple[int, float]], step: int) -> Any:
    seeds = np.array([seed for seed, _ in rows], dtype=np.int32)
    values = np.array([value for _, value in rows])
    values[seeds < 0] = np.inf
    return Distances(seeds, values, step)


def inside(cuts: Cuts, groups: np.ndarray, distances: Any) -> np.ndarray:
    keys = kernels.keys_of_values(distances.values)
    return np.flatnonzero(cuts.inside(groups, keys, np.arange(distances.rows)) & (distances.seeds >= 0))


@given(ROWS, st.integers(1, 70), st.integers(1, 70))
def test_of_all_rows(rows, count, step):
    found = distances_of(rows, step)
    cut = cut_of_nearest(found, count)
    near = np.flatnonzero(found.seeds >= 0)
    expected = np.sort(near[np.lexsort((near, found.values[near]))][:count])
    got = inside(cut, np.zeros(len(rows), dtype=np.int32), found)
    np.testing.assert_array_equal(got, expected)


@given(ROWS, st.integers(1, 9), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**32))
def test_of_groups(rows, keep, step, at_once, seed):
    found = distances_of(rows, step)
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, 8, len(rows)).astype(np.int32)
    of_cluster = np.array([0, -1, 1, 2, -1, 2, 3, 4], dtype=np.int32)
    grouped = Grouped(Labels(labels), of_cluster, 5)  # type: ignore[arg-type]
    groups = grouped.read(0, len(rows))
    np.testing.assert_array_equal(groups, [of_cluster[label] if label >= 0 else -1 for label in labels])
    cuts = cuts_of_groups(found, grouped, keep, at_once * group_bytes(keep))
    expected = []
    for group in range(5):
        mine = np.flatnonzero((groups == group) & (found.seeds >= 0))
        expected.append(mine[np.lexsort((mine, found.values[mine]))][:keep])
    np.testing.assert_array_equal(inside(cuts, groups, found), np.sort(np.concatenate(expected)))
