from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from streamcurate.errors import InputError
from streamcurate.sampling import sample
from streamcurate.sampling.include import read_included
from streamcurate.storage import create_group

IDS = np.array([f'id "{row}", or so' for row in range(60)], dtype=np.dtypes.StringDType())


@pytest.fixture
def tree(random_tree):
    return random_tree(4, 60, [8, 3], ids=IDS)


def read(include, tree):
    return read_included(include, tree.levels[0].stored_labels, tree.path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npy", ".arrow", ".zarr"])
def test_a_written_draw_is_read_back(tree, tmp_path, suffix):
    earlier = sample(tree, 70, multiplier=3)
    earlier.save(tmp_path / f"earlier{suffix}")
    for include in (tmp_path / f"earlier{suffix}", str(tmp_path / f"earlier{suffix}"), earlier, earlier.rows[::-1]):
        included = read(include, tree)
        assert included.rows.tolist() == earlier.unique_rows.tolist()
        assert included.copies.tolist() == earlier.copies.tolist()
        assert included.leaves.tolist() == earlier.labels[0].tolist()
        assert included.size == 70


def test_a_table_of_rows_alone_counts_them_once_each(tree, tmp_path):
    rows = np.flatnonzero(tree.levels[0].stored_labels.values >= 0)[[3, 1, 1]]
    table = pa.table({"row": pa.array(rows, pa.int32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        included = read(tmp_path / name, tree)
        assert included.rows.tolist() == sorted({int(row) for row in rows})
        assert included.copies.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"id": ["a"]}, r"no column 'row'.*it has \['id'\]"),
        ({"row": [1.5]}, "double|row numbers are needed|not a readable CSV"),
        ({"row": [1, None], "copies": [1, 1]}, "1 values of column 'row' are missing"),
        ({"row": [1, 2], "copies": [1, 0]}, "row 2 has 0 copies"),
        ({"row": [1, 2], "copies": [2**62, 2**62]}, "add up to more than"),
    ],
)
def test_tables_that_are_no_draw_are_refused(tree, tmp_path, table, said):
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    pyarrow.csv.write_csv(pa.table(table), tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(InputError, match=rf"{name}.*({said})"):
            read(tmp_path / name, tree)


@pytest.mark.parametrize("values", [np.array([1.0]), np.array([[1]]), np.array([True])])
def test_arrays_that_are_no_rows_are_refused(tree, tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=r"a\.npy: holds .*; row numbers are needed"):
        read(tmp_path / "a.npy", tree)


def test_other_arrow_files_and_stores_are_refused(tree, tmp_path):
    with pa.ipc.new_stream(tmp_path / "a.arrow", pa.schema([("rows", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"rows": [1]}))
    create_group(tmp_path / "a.zarr")
    for name, said in [
        ("a.arrow", r"one column, 'indices', and this has \['rows'\]"),
        ("a.zarr", "no arrays, and no 'rows'"),
    ]:
        with pytest.raises(InputError, match=rf"{name}: .*{said}"):
            read(tmp_path / name, tree)


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".csv", ".arrow"])
def test_damaged_files_are_refused(tree, tmp_path, suffix):
    for content in (b"", b"\x93NUMPY\x01", b"PAR1\xff\xfe\x00"):
        (tmp_path / f"a{suffix}").write_bytes(content)
        with pytest.raises(InputError, match=rf"a{suffix}: (not a readable|no column 'row')"):
            read(tmp_path / f"a{suffix}", tree)


def test_headers_may_claim_any_length(tree, tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    with pytest.raises(InputError, match=r"a\.npy: not a readable \.npy file .*; draw it again"):
        read(tmp_path / "a.npy", tree)


def test_pickled_arrays_are_never_loaded(tree, tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"row": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: not a readable \.npy file"):
        read(tmp_path / "a.npy", tree)


def test_other_files_are_refused_by_name(tree, tmp_path):
    with pytest.raises(InputError, match=r"absent\.npy: no such file"):
        read(tmp_path / "absent.npy", tree)
    (tmp_path / "a.txt").write_text("1\n")
    with pytest.raises(
        InputError, match=r"a\.txt: .* from \.parquet, \.npy, \.csv, \.arrow or \.zarr; a \.txt file holds ids"
    ):
        read(tmp_path / "a.txt", tree)


def test_labels_are_looked_up_in_bounded_batches(tree, monkeypatch):
    monkeypatch.setattr("streamcurate.sampling.include._BATCH", 7)
    inside = np.flatnonzero(tree.levels[0].stored_labels.values >= 0)
    included = read(inside, tree)
    assert tree.levels[0].stored_labels.largest_read <= 7
    assert included.leaves.tolist() == tree.levels[0].stored_labels.values[inside].tolist()
