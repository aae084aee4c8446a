"""Records dealt out to ranges of rows."""

from __future__ import annotations

import os

import numpy as np
import pytest

from streamcurate.errors import StoreError
from streamcurate.neighbors.pairs.scatter import RangeRecords


@pytest.mark.parametrize("memory", [0, 500, 1 << 20])
def test_every_range_keeps_the_order(memory, tmp_path):
    random = np.random.default_rng(0)
    records = RangeRecords(tmp_path / "s", 10, 3, memory)
    rows = random.integers(0, 95, 400)
    for start in range(0, 400, 37):
        part = rows[start : start + 37]
        records.add(part, np.stack([part, np.arange(start, start + len(part)), -part], axis=1))
    for number in range(11):
        mine = np.flatnonzero(rows // 10 == number)
        assert records.holds(number) == bool(len(mine))
        blocks = list(records.blocks(number, 7))
        assert all(len(block) == 7 for block in blocks[:-1])
        found = np.concatenate([np.empty((0, 3), np.int64), *blocks])
        np.testing.assert_array_equal(found, np.stack([rows[mine], mine, -rows[mine]], axis=1))
    records.remove(3)
    assert not records.holds(3)
    assert list(records.blocks(3)) == []
    assert not (tmp_path / "s" / "range-3.bin").exists()
    records.close()
    assert os.listdir(tmp_path) == []


def test_a_range_may_grow_after_it_was_read(tmp_path):
    records = RangeRecords(tmp_path / "s", 10, 1, 0)
    for value in (4, 5):
        records.add(np.array([value]), np.array([[value]]))
        assert np.concatenate(list(records.blocks(0)))[-1, 0] == value


def test_what_was_cut_short_is_told(tmp_path):
    records = RangeRecords(tmp_path / "s", 10, 2, 0)
    records.add(np.arange(5), np.zeros((5, 2), np.int64))
    path = tmp_path / "s" / "range-0.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StoreError, match=r"range-0\.bin: scratch was cut short"):
        list(records.blocks(0))


def test_an_earlier_process_leaves_nothing(tmp_path):
    RangeRecords(tmp_path / "s", 10, 2, 0).add(np.arange(5), np.zeros((5, 2), np.int64))
    assert not RangeRecords(tmp_path / "s", 10, 2, 0).holds(0)
    assert os.listdir(tmp_path / "s") == []
