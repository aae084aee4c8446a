"""Sets of rows merged from streams, and kept in files."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings import rowsets
from streamcurate.embeddings.rowsets import MergedRows, NumberFile, ordered, write_mask, write_numbers
from streamcurate.errors import DataError, InputError, StoreError

SETS = st.sets(st.integers(0, 60))


@st.composite
def streams(draw):
    """Sets, and each as ascending pieces, some of them empty."""
    found = []
    for rows in draw(st.lists(SETS, min_size=1, max_size=4)):
        numbers = np.array(sorted(rows), dtype=np.int64)
        edges = draw(st.lists(st.integers(0, len(numbers)), max_size=4))
        found.append((rows, np.split(numbers, sorted(edges))))
    return found


@given(st.sampled_from(rowsets.OPERATIONS), streams())
def test_merged_streams_are_the_sets(how, found):
    merged = MergedRows(how, [pieces for _, pieces in found])
    rows = np.concatenate([np.empty(0, dtype=np.int64), *merged.pieces()])
    sets = [rows for rows, _ in found]
    expected = {"union": set().union(*sets), "intersection": set.intersection(*sets), "difference": sets[0]}[how]
    if how == "difference":
        expected = expected.difference(*sets[1:])
    assert rows.tolist() == sorted(expected)
    assert merged.counts == [len(rows) for rows in sets]


def test_merging_holds_no_stream_whole():
    def endless(start):
        while True:
            yield np.arange(start, start + 10, dtype=np.int64)
            start += 10

    pieces = MergedRows("difference", [endless(0), endless(25)]).pieces()
    assert np.concatenate([next(pieces) for _ in range(3)]).tolist() == list(range(25))


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="xor"):
        MergedRows("xor", [])


@settings(max_examples=30)
@given(SETS, st.integers(1, 5), st.integers(0, 62))
def test_numbers_come_back_from_their_file(tmp_path_factory, rows, step, number):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    numbers = np.array(sorted(rows), dtype=np.int64)
    file = write_numbers(path, np.split(numbers, [len(numbers) // 2]))
    assert np.load(path).tolist() == numbers.tolist()
    assert len(file) == len(numbers)
    assert np.concatenate([np.empty(0, np.int64), *file.pieces(step=step)]).tolist() == numbers.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowsets, "_PIECE", step)  # so that the position is searched for
        assert file.position(number) == int(np.searchsorted(numbers, number))
        low = np.concatenate([np.empty(0, np.int64), *file.between(number, number + 9)])
    assert low.tolist() == [row for row in numbers.tolist() if number <= row < number + 9]
    if len(numbers):
        assert file.take(np.array([len(numbers) - 1, 0])).tolist() == [numbers[-1], numbers[0]]
    assert NumberFile.from_values(file.to_values(), path.parent).intact()


@pytest.mark.parametrize("damage", ["absent", "cut", "changed"])
def test_damage_to_a_file_shows(tmp_path, damage):
    file = write_numbers(tmp_path / "rows.npy", [np.arange(9)])
    if damage == "absent":
        os.unlink(file.path)
    else:
        data = bytearray((tmp_path / "rows.npy").read_bytes())
        if damage == "changed":
            data[-1] ^= 1
        (tmp_path / "rows.npy").write_bytes(data if damage == "changed" else data[:-1])
    assert not file.intact()
    if damage != "changed":
        with pytest.raises(StoreError, match=r"rows\.npy: is gone or was cut short"):
            list(file.pieces())


def test_a_file_is_there_complete_or_not_at_all(tmp_path):
    def failing():
        yield np.arange(3)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_numbers(tmp_path / "rows.npy", failing())
    assert not list(tmp_path.iterdir())


@settings(max_examples=30)
@given(SETS, st.integers(61, 70), st.integers(1, 9))
def test_a_mask_marks_the_rows(tmp_path_factory, rows, total, step):
    path = tmp_path_factory.mktemp("mask") / "mask.npy"
    numbers = np.array(sorted(rows), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowsets, "_PIECE", step)
        assert write_mask(path, total, np.split(numbers, [len(numbers) // 3])) == len(numbers)
    mask = np.load(path)
    assert mask.dtype == bool
    assert len(mask) == total
    assert np.flatnonzero(mask).tolist() == numbers.tolist()


@pytest.mark.parametrize("name", ["none.npy", "none.txt", "none.csv", "none.parquet", "mask.npy"])
def test_a_list_of_nothing_is_an_empty_set(tmp_path, name):
    path = tmp_path / name
    if name == "none.parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.table({"row": pa.array([], pa.int64())}), path)
    elif path.suffix == ".npy":
        np.save(path, np.zeros(9, dtype=bool) if name == "mask.npy" else np.empty(0, dtype=np.int64))
    else:
        path.write_text("row\n" if path.suffix == ".csv" else "")
    with ordered(str(path), 9, tmp_path / "sort", 1 << 20) as pieces:
        assert list(pieces) == []


def test_an_empty_mask_of_another_store_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match="a mask of 9 entries for 10 rows"),
        ordered(np.zeros(9, dtype=bool), 10, tmp_path, 1 << 20),
    ):
        pass


def test_rows_come_in_order_and_once(tmp_path):
    with ordered([5, 1, 5, 3], 9, tmp_path / "sort", 1 << 20) as pieces:
        assert np.concatenate(list(pieces)).tolist() == [1, 3, 5]
    with pytest.raises(DataError, match="row 9 is not among the 9 rows"), ordered([9], 9, tmp_path / "sort", 1 << 20):
        pass
