"""Tables of row numbers whose other columns say that they are of another store."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from streamcurate.embeddings import agreement, rowlist
from streamcurate.embeddings.subset import OrderedRows
from streamcurate.errors import DataError, InputError, StoreError
from streamcurate.storage import create_array

ROWS = 50


@pytest.fixture(params=["text", "numbers"])
def ids(request, tmp_path):
    """Stored ids, and what each is as text."""
    dtype = str if request.param == "text" else np.int64
    values = np.array([f"id {row}" for row in range(ROWS)]) if dtype is str else 1000 + np.arange(ROWS)
    array = create_array(tmp_path / "ids", (ROWS,), dtype, ROWS)
    array.write(0, values)
    return array, [str(value) for value in values]


def written(folder, form, columns):
    path = folder / f"list.{form}"
    table = pa.table(columns)
    if form == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=7)
    return path


def resolved(path, folder, ids):
    with OrderedRows(str(path), ROWS, folder / "sort", 1 << 24, ids=ids) as ordered:
        return np.concatenate(list(ordered.pieces())).tolist()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_ids_beside_rows_must_be_theirs(tmp_path, ids, form, monkeypatch):
    monkeypatch.setattr(rowlist, "_LINES", 4)
    stored, texts = ids
    rows = np.random.default_rng(0).permutation(ROWS)[:20]
    names = [texts[row] for row in rows]
    path = written(tmp_path, form, {"row": rows, "id": names})
    assert resolved(path, tmp_path, stored) == sorted(rows.tolist())
    assert resolved(path, tmp_path, lambda: stored) == sorted(rows.tolist())
    names[13] = "other"
    path = written(tmp_path, form, {"row": rows, "id": names})
    line = 13 + (2 if form == "csv" else 1)
    told = rf'line {line} names row {rows[13]} and id "other", and the id of that row is "{texts[rows[13]]}"'
    with pytest.raises(DataError, match=told):
        resolved(path, tmp_path, stored)
    assert resolved(path, tmp_path, None) == sorted(rows.tolist())

    def gone():
        raise StoreError("gone")

    assert resolved(path, tmp_path, gone) == sorted(rows.tolist())


def test_long_lists_out_of_order_are_compared_here_and_there(tmp_path, ids, monkeypatch):
    monkeypatch.setattr(rowlist, "_LINES", 10)
    monkeypatch.setattr(agreement, "_COMPARED_ANYWAY", 10)
    monkeypatch.setattr(agreement, "_FEW", 3)
    stored, texts = ids
    rows = np.arange(ROWS)[::-1]
    for wrong, said in ((5, True), (29, False), (32, True)):
        names = [texts[row] for row in rows]
        names[wrong] = "other"
        path = written(tmp_path, "parquet", {"row": rows, "id": names})
        if said:
            with pytest.raises(DataError, match=f"line {wrong + 1} names row"):
                resolved(path, tmp_path, stored)
        else:
            assert len(resolved(path, tmp_path, stored)) == ROWS


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_mixture_of_several_stores_is_no_list(tmp_path, form):
    columns = {"part": ["a"] * 4, "source": ["x.zarr"] * 4, "row": [4, 1, 2, 3], "id": [""] * 4}
    assert resolved(written(tmp_path, form, columns), tmp_path, None) == [1, 2, 3, 4]
    columns["source"] = ["x.zarr", "x.zarr", "y.zarr", "x.zarr"]
    with pytest.raises(DataError, match=r"several stores \('x.zarr' and 'y.zarr' in column 'source'\).*one source"):
        resolved(written(tmp_path, form, columns), tmp_path, None)
    del columns["part"]  # some other column of this name
    assert resolved(written(tmp_path, form, columns), tmp_path, None) == [1, 2, 3, 4]


def test_the_table_of_duplicates_is_no_list(tmp_path):
    path = written(tmp_path, "parquet", {"row": [1, 2], "component": [0, 0], "kept": [True, False]})
    with pytest.raises(InputError, match=r"lists all rows that have duplicates.*keep\.npy.*removed\.npy"):
        resolved(path, tmp_path, None)


@pytest.mark.parametrize(
    ("name", "text", "has_ids", "told"),
    [
        ("a.csv", "row\nx1\n", True, "if it holds ids, call the column 'id'"),
        ("a.csv", "name\nx1\n", False, "there is no column 'row' or 'id'.*the store has no ids"),
        ("a.txt", "x1\n", None, "'x1', no row number; it is not said of which store, so rows"),
        ("a.txt", "x1\n", False, "'x1', no row number; the store has no ids, so rows"),
    ],
)
def test_what_is_no_number_says_why(tmp_path, name, text, has_ids, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told):
        list(rowlist.open_list(tmp_path / name, has_ids).pieces())


def test_other_columns_say_what_they_were_taken_for(tmp_path, ids):
    (tmp_path / "a.csv").write_text("name\nnobody\n")
    with pytest.raises(DataError, match="there is no column 'row' or 'id', so that the only one, 'name', is read as"):
        resolved(tmp_path / "a.csv", tmp_path, ids[0])
    path = written(tmp_path, "parquet", {"row": ["x1"]})
    with pytest.raises(InputError, match="if these are ids, call the column 'id'"):
        resolved(path, tmp_path, ids[0])
