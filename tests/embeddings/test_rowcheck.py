"""Which rows are bad, and how that is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.embeddings.rowcheck import NOT_FINITE, OVERFLOW, ZERO, BadRows, convert

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
INTERESTING = st.sampled_from(
    [0.0, -0.0, 1.5, np.nan, np.inf, -np.inf, 65504.0, 65519.9, 65520.0, -7e4, 1e-9, 3.5e38, -1e300, 1e-46]
)


@given(
    rows=st.lists(st.lists(INTERESTING, min_size=3, max_size=3), min_size=1, max_size=12),
    source=st.sampled_from([np.float16, np.float32, np.float64]),
    store=st.sampled_from([HALF, SINGLE]),
    cosine=st.booleans(),
)
def test_every_row_is_judged_by_itself(rows, source, store, cosine):
    with np.errstate(over="ignore"):
        values = np.array(rows, dtype=np.float64).astype(source)
    converted, bad = convert(values, store, cosine)
    assert converted.dtype == store
    expected = {}
    for number, row in enumerate(values):
        with np.errstate(over="ignore"):
            stored = [store.type(value) for value in row]
        if not all(map(np.isfinite, row)):
            expected.setdefault(NOT_FINITE, []).append(number)
        elif not all(map(np.isfinite, stored)):
            expected.setdefault(OVERFLOW, []).append(number)
        elif cosine and not any(stored):
            expected.setdefault(ZERO, []).append(number)
        else:
            np.testing.assert_array_equal(converted[number], stored)
    assert {kind: found.tolist() for kind, found in bad.items()} == expected


def test_the_message_names_counts_first_row_and_id():
    bad = BadRows(SINGLE)
    bad.add("a.npy", "NaN or Inf", 0, {}, None)
    ids = np.array(["x", "img_0081923", "y"], dtype=object)
    bad.add("shards/b.npy", "NaN or Inf", 81922, {NOT_FINITE: np.array([1, 2])}, ids)
    bad.add("shards/b.npy", "NaN or Inf", 90000, {NOT_FINITE: np.array([0])}, ids)
    assert bad.total == 3
    assert str(bad) == 'shards/b.npy: 3 rows hold NaN or Inf (first: row 81923, id "img_0081923")'
    assert bad.fix == "drop them with --on-bad-row drop"
    bad.add("c.npy", "NaN or Inf", 5, {ZERO: np.array([4])}, None)
    assert str(bad).endswith(", and 1 more bad row in 1 other source")


@pytest.mark.parametrize(
    ("kind", "dtype", "text"),
    [
        (NOT_FINITE, HALF, "1 row holds NaN, Inf or null (first: row 7, id 12)"),
        (OVERFLOW, HALF, "1 row holds values beyond float16 (largest 65504) (first: row 7, id 12)"),
        (ZERO, SINGLE, "1 row has norm 0, which cosine cannot use (first: row 7, id 12)"),
    ],
)
def test_kinds(kind, dtype, text):
    bad = BadRows(dtype)
    bad.add("x.parquet", "NaN, Inf or null", 5, {kind: np.array([2])}, np.array([10, 11, 12]))
    assert str(bad) == f"x.parquet: {text}"
    assert ("--dtype float32" in bad.fix) == (kind == OVERFLOW)


def test_the_first_row_is_the_lowest_of_all_kinds():
    bad = BadRows(HALF)
    bad.add("x", "NaN or Inf", 10, {NOT_FINITE: np.array([3]), OVERFLOW: np.array([1, 8])}, None)
    assert "(first: row 11)" in str(bad)
