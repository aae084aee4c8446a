"""The exact percentile of stored distances, against a sort; counts of novel rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamcurate.clustering.novelty import NoveltyCount, percentile_of
from streamcurate.runs import NoveltyRecord
from streamcurate.storage import create_array
from streamcurate.streaming import MemoryBudget, SerialExecutor, budget

FLOATS = st.one_of(
    st.floats(0, width=32, allow_infinity=True, allow_subnormal=True),
    st.sampled_from([0.0, 1.0, float(np.nextafter(np.float32(1), np.float32(2))), 1.5, math.nan]),
)


def nearest_rank(values: np.ndarray, percent: int) -> float:
    ordered = np.sort(values[~np.isnan(values)])
    return float(ordered[math.ceil(len(ordered) * percent / 100) - 1]) if len(ordered) else float("nan")


@pytest.fixture(scope="module")
def executor():
    with SerialExecutor(MemoryBudget(1 << 30, 2)) as found:
        yield found


@given(
    hnp.arrays(np.float32, st.integers(1, 400), elements=FLOATS),
    st.sampled_from([1, 50, 99, 100]),
    st.floats(0, 1),
)
def test_is_what_a_sort_gives(executor, tmp_path_factory, values, percent, share):
    rows = max(int(len(values) * share), 1)
    array = create_array(tmp_path_factory.mktemp("distances") / "d", values.shape, np.float32, 64, durable=False)
    array.write(0, values)
    found = percentile_of(array, rows, executor, percent)
    np.testing.assert_equal(found, nearest_rank(values[:rows], percent))
    if not math.isnan(found):
        known = values[:rows][~np.isnan(values[:rows])]
        assert (known <= np.float32(found)).sum() * 100 >= percent * len(known)


def test_in_bounded_pieces(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 100)
    values = np.random.default_rng(0).standard_exponential(2345).astype(np.float32)
    values[::10] = np.nan
    array = create_array(tmp_path / "d", values.shape, np.float32, 300)
    array.write(0, values)
    assert percentile_of(array, 2345, executor) == nearest_rank(values, 99)
    assert percentile_of(array, 700, executor) == nearest_rank(values[:700], 99)


def test_counts():
    count = NoveltyCount(1.0, 5)
    count.add(np.array([0, 3, 3, -1], dtype=np.int32), np.array([1.0, 1.0000001, 7.0, np.nan], dtype=np.float32))
    count.add(np.array([4, 3], dtype=np.int32), np.array([0.5, 0.5], dtype=np.float32))
    found = count.result()
    np.testing.assert_array_equal(found.rows, [1, 0, 0, 3, 1])
    np.testing.assert_array_equal(found.novel, [0, 0, 0, 2, 0])
    assert (found.record.rows, found.record.novel, found.record.outside, found.share) == (6, 2, 1, 2 / 6)
    assert found.to_mapping()["clusters"] == {
        "most_rows": [
            {"cluster": 3, "rows": 3, "novel": 2},
            {"cluster": 0, "rows": 1, "novel": 0},
            {"cluster": 4, "rows": 1, "novel": 0},
        ],
        "most_novel": [{"cluster": 3, "rows": 3, "novel": 2}],
    }
    assert found.told() == (
        "novelty 33.33%: 2 of 6 new rows are farther from their centroid than 1, the 99th percentile of the rows the "
        "tree was built from; 1 are in no cluster"
    )


@pytest.mark.parametrize(
    ("rows", "novel", "told"), [(1000, 50, False), (1000, 51, True), (10, 4, False), (10, 5, True), (0, 0, False)]
)
def test_when_the_tree_is_to_be_built_anew(rows, novel, told):
    warning = NoveltyRecord(99, 1.0, rows, novel, 0).warning("b.zarr")
    assert (warning is not None) == told
    if told:
        share = "5%" if rows == 1000 else "50%"
        assert warning == (
            f"{share} of the rows of b.zarr lie farther out than 99 % of the rows the tree was built from; cluster anew"
        )
