"""Into which parts a search cuts its rows."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamcurate.neighbors.examples import ranges, seed_lists
from streamcurate.neighbors.examples.ranges import most_seeds, parts_of


@given(st.integers(1, 10**10), st.integers(1, 10**7), st.integers(1, 1 << 45))
def test_parts_are_bounded_in_rows_and_in_work(rows, chunk_rows, row_operations):
    parts = list(parts_of(rows, chunk_rows, row_operations))
    assert (parts[0][0], parts[-1][1]) == (0, rows)
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    assert len(parts) <= 2 * ranges._PARTS + 1
    largest = parts[0][1]
    share = -(-rows // ranges._PARTS)
    assert largest <= max(share, ranges._MOST_ROWS)
    assert largest <= max(share, ranges._FEWEST_ROWS) or largest * row_operations <= ranges._PART_OPERATIONS


@given(st.integers(1, 16384))
def test_the_smallest_part_of_a_tile_of_seeds_is_bounded(dims):
    assert most_seeds(dims) * 2 * dims * ranges._FEWEST_ROWS <= ranges._PART_OPERATIONS


def test_many_seeds_begin_with_few_rows():
    """As many seeds as rows: 200,000 of 64 dims."""
    operations = 2 * 64 * 200_000
    lists = list(seed_lists._ranges(0, 200_000, 10**6, operations))
    assert lists[0][1] * operations <= seed_lists._FIRST_OPERATIONS
    assert max(stop - start for start, stop in lists) * operations <= ranges._PART_OPERATIONS
    assert [start for start, _ in lists] + [200_000] == [0] + [stop for _, stop in lists]
    assert next(seed_lists._ranges(0, 200_000, 10**6, 64)) == (0, seed_lists._FIRST_ROWS)
