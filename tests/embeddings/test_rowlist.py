"""Lists of rows in every form: what kind each is taken for, and what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings import rowlist
from streamcurate.embeddings.rowlist import open_list
from streamcurate.errors import DataError, InputError


def write(folder, form, values):
    path = folder / f"list{form}"
    if form == ".npy":
        np.save(path, values)
    elif form == ".txt":
        path.write_text("".join(f"{value}\n" for value in values), encoding="utf-8")
    elif form == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["id"], *([value] for value in values)])
    else:
        pq.write_table(pa.table({"id": values}), path)
    return path


def entries(found):
    return [value for piece in found.pieces() for value in piece.tolist()]


TEXTS = st.lists(st.text("ab é,\"'1", min_size=1, max_size=4), min_size=1, max_size=30)


@settings(max_examples=60)
@given(values=TEXTS, form=st.sampled_from([".npy", ".txt", ".csv", ".parquet", "array", "objects", "list"]))
def test_ids_come_back_as_they_were_written(tmp_path_factory, values, form):
    folder = tmp_path_factory.mktemp("lists")
    array = np.array(values)
    given_ = {"array": array, "objects": array.astype(object), "list": values}.get(form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowlist, "_PIECE", 4)
        patch.setattr(rowlist, "_LINES", 4)
        found = open_list(write(folder, form, array) if given_ is None else given_, has_ids=True)
        assert found.kind == "ids"
        assert entries(found) == values
        assert found.length in (None, len(values))


@pytest.mark.parametrize(
    ("values", "has_ids", "kind"),
    [
        (np.array([3, 1]), True, "rows"),
        (np.array([3, 1], dtype=np.uint8), False, "rows"),
        (np.array([True, False]), True, "mask"),
        ([4, 2], True, "rows"),
        ([], True, "rows"),
        ([True, False], False, "mask"),
        (("a", "b"), True, "ids"),
    ],
)
def test_what_an_array_is(tmp_path, values, has_ids, kind):
    assert open_list(values, has_ids).kind == kind
    if isinstance(values, np.ndarray):
        np.save(tmp_path / "x.npy", values)
        found = open_list(tmp_path / "x.npy", has_ids)
        assert (found.kind, entries(found)) == (kind, values.tolist())


@pytest.mark.parametrize(
    ("table", "has_ids", "kind", "held"),
    [
        ({"row": [5, 2]}, True, "rows", [5, 2]),
        ({"row": [5, 2], "id": ["a", "b"], "copies": [1, 2]}, True, "rows", [5, 2]),
        ({"id": [5, 2]}, True, "ids", [5, 2]),
        ({"id": [5, 2]}, False, "rows", [5, 2]),
        ({"name": ["a", "b"]}, True, "ids", ["a", "b"]),
        ({"name": ["a", "b"], "id": ["c", "d"]}, True, "ids", ["c", "d"]),
        ({"name": pa.array(["a", "b", "a"]).dictionary_encode()}, True, "ids", ["a", "b", "a"]),
        ({"keep": [True, False]}, True, "mask", [True, False]),
    ],
)
def test_what_a_parquet_file_is(tmp_path, table, has_ids, kind, held):
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    found = open_list(tmp_path / "x.parquet", has_ids)
    assert (found.kind, entries(found)) == (kind, held)


@pytest.mark.parametrize(
    ("text", "has_ids", "kind", "held"),
    [
        ("row,id\n5,a\n2,b\n", True, "rows", [5, 2]),
        ("id\n5\n2\n", True, "ids", ["5", "2"]),
        ("id\n5\n2\n", False, "rows", [5, 2]),
        ("name\r\nb\r\nnull\r\n", True, "ids", ["b", "null"]),
        ("﻿id,other\na,1\n", True, "ids", ["a"]),
    ],
)
def test_what_a_csv_file_is(tmp_path, text, has_ids, kind, held):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8", newline="")
    found = open_list(tmp_path / "x.csv", has_ids)
    assert (found.kind, entries(found)) == (kind, held)


def test_lines_are_row_numbers_where_there_are_no_ids(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"7\r\n0\n12")
    assert open_list(tmp_path / "x.txt", has_ids=False).kind == "rows"
    assert entries(open_list(tmp_path / "x.txt", has_ids=False)) == [7, 0, 12]
    assert entries(open_list(tmp_path / "x.txt", has_ids=True)) == ["7", "0", "12"]


@pytest.mark.parametrize(
    ("name", "content", "has_ids", "said"),
    [
        ("x.txt", b"1\n\n2\n", True, "line 2 is empty"),
        ("x.txt", b"1\nb\n", False, "line 2 is 'b', no row number; the store has no ids"),
        ("x.txt", b"1\n99999999999999999999\n", False, "line 2 is '9+', no row number"),
        ("x.txt", b"1_0\n", False, "line 1 is '1_0', no row number"),
        ("x.csv", b"row,row\n1,2\n", True, "2 columns have the name 'row'"),
        ("x.txt", b"a\n\xff\n", True, "line 2 is not UTF-8"),
        ("x.csv", b"name,other\na,b\n", True, "which column names the rows is not clear.*'name', 'other'"),
        ("x.csv", b"", True, "which column names the rows is not clear"),
        ("x.csv", b"row\n1\nb\n", True, "column 'row' cannot be read"),
        ("x.csv", b"12\n13\n", False, "its first line is '12', a row number"),
        ("x.npy", b"1\n", True, "not a readable .npy"),
        ("x.parquet", b"PAR1", True, "not a Parquet file"),
        ("x.json", b"[]", True, "its suffix is '.json'; a list of rows is read from .npy, .txt, .csv, .parquet"),
        ("x", b"", True, "it has no suffix"),
    ],
)
def test_files_that_are_no_list(tmp_path, name, content, has_ids, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, DataError), match=said):
        entries(open_list(tmp_path / name, has_ids))


@pytest.mark.parametrize(
    ("dtype", "data", "said"),
    [
        ("<i8", bytes(8), "truncated: 2 entries are announced, 8 bytes are there and not 16"),
        ("<i8", bytes(24), "too long: 2 entries"),
        # Nothing so long is asked for.
        ("<U500000000", b"abc", "truncated: 2 entries are announced, 3 bytes are there and not 4,000,000,000"),
    ],
)
def test_arrays_of_another_length_than_they_say(tmp_path, dtype, data, said):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": (2,)})
        file.write(data)
    with pytest.raises(InputError, match=said):
        open_list(tmp_path / "x.npy", has_ids=True)


def test_long_ids_come_in_small_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(rowlist, "_PIECE_BYTES", 8000)
    values = np.array([str(number).rjust(1000) for number in range(7)])
    np.save(tmp_path / "x.npy", values)
    for chosen in (tmp_path / "x.npy", values):
        found = open_list(chosen, has_ids=True)
        assert [len(piece) for piece in found.pieces()] == [2, 2, 2, 1]
        assert entries(found) == values.tolist()


@pytest.mark.parametrize(
    ("values", "has_ids", "said"),
    [
        (np.array(["a"]), False, "holds strings, and the store has no ids"),
        (np.array([0.5]), True, "holds float64"),
        (np.array([["a"]]), True, r"of shape \(1, 1\)"),
        (["a", None], True, "holds objects other than strings"),
    ],
)
def test_arrays_that_are_no_list(values, has_ids, said):
    with pytest.raises(InputError, match=said):
        open_list(values, has_ids)


@pytest.mark.parametrize(
    ("table", "has_ids", "said"),
    [
        ({"row": [0.5]}, True, "column 'row' holds double; give row numbers"),
        ({"name": ["a"]}, False, "column 'name' holds string, and the store has no ids"),
        ({"id": [0.5]}, True, "column 'id': holds double, and ids are strings or integers"),
        ({"row": [1, None]}, True, "1 values of column 'row' are missing"),
        ({"id": ["a", None]}, True, "1 values of column 'id' are missing"),
    ],
)
def test_columns_that_are_no_list(tmp_path, table, has_ids, said):
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises((InputError, DataError), match=said):
        entries(open_list(tmp_path / "x.parquet", has_ids))


def test_pickled_objects_are_never_read(tmp_path):
    np.save(tmp_path / "x.npy", np.array(["a", "b"], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds Python objects, which are never read"):
        open_list(tmp_path / "x.npy", has_ids=True)
