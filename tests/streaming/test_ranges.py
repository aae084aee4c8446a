"""How a pass is cut into tasks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamcurate.streaming import ranges
from streamcurate.streaming.ranges import Ranges


def cut(made: Ranges, workers: int, row_seconds: float) -> list[tuple[int, int]]:
    """All ranges, each taking as long as its rows take."""
    found = []
    while (bounds := made.next(workers)) is not None:
        found.append(bounds)
        made.took(bounds[1] - bounds[0], (bounds[1] - bounds[0]) * row_seconds)
    return found


@given(
    rows=st.integers(1, 10**6),
    granule=st.integers(0, 10**5).map(lambda value: max(value, 0)),
    row_bytes=st.integers(0, 8192),
    operations=st.integers(1, 10**9),
    sums=st.sampled_from([0, 0, 1, 10**6, 10**11]),
    workers=st.integers(0, 600),
    row_seconds=st.sampled_from([0.0, 1e-9, 1e-5, 1e-2, 10.0]),
)
def test_every_row_once_in_whole_granules(rows, granule, row_bytes, operations, sums, workers, row_seconds):
    granule = max(granule, -(-rows // 500))  # at most five hundred of them, for speed
    made = cut(Ranges(rows, granule, row_bytes, operations, sums), workers, row_seconds)
    assert made[0][0] == 0
    assert made[-1][1] == rows
    assert all(stop == start for (_, stop), (start, _) in pairwise(made))
    assert all(start < stop for start, stop in made)
    assert all(start % max(granule, 1) == 0 for start, _ in made)


def test_no_granule_means_single_rows():
    made = Ranges(3, 0, 0, int(1e12))
    assert [made.next(1) for _ in range(4)] == [(0, 1), (1, 2), (2, 3), None]


def test_tasks_grow_towards_the_time_they_should_take():
    rows, row_seconds = 10**9, 1e-6
    # Guessed to take a hundred times as long as they do.
    found = cut(Ranges(rows, 100, 0, int(1e-4 * ranges._GUESSED_OPERATIONS_A_SECOND)), 4, row_seconds)
    seconds = [(stop - start) * row_seconds for start, stop in found]
    assert seconds[0] < 0.01
    growth = [later / earlier for earlier, later in pairwise(seconds)]
    assert max(growth) <= ranges._GROWTH * 1.01
    assert sum(ranges.TASK_SECONDS * 0.99 <= second <= ranges.TASK_SECONDS * 1.01 for second in seconds) > 400
    # Shorter towards the end, so that all are done at about the same time.
    assert seconds[-1] < ranges.TASK_SECONDS / 100


def test_one_slow_task_makes_the_next_ones_shorter():
    made = Ranges(10**9, 1, 0, int(1e-6 * ranges._GUESSED_OPERATIONS_A_SECOND))
    for _ in range(4):
        start, stop = made.next(2) or (0, 0)
        made.took(stop - start, (stop - start) * 1e-6)
    made.took(10**6, 100.0)
    start, stop = made.next(2) or (0, 0)
    assert stop - start == int(ranges.TASK_SECONDS * 10**6 / 100)


def test_sums_through_files_make_few_tasks():
    """Each writes and reads all its sums: as few tasks as keep the workers busy."""
    operations = int(1e-4 * ranges._GUESSED_OPERATIONS_A_SECOND)
    small, large = (len(cut(Ranges(10**6, 1000, 0, operations, sums), 8, 1e-4)) for sums in (0, 10**10))
    assert large <= ranges._TASKS_A_WORKER * 8
    assert large < small / 2
