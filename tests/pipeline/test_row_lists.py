"""Lists of rows, whatever their form, united, intersected and subtracted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamcurate as sc
from streamcurate.embeddings.subset import read_subset
from streamcurate.errors import ConfigError, DataError, InputError, MemoryLimitError
from streamcurate.pipeline.row_lists import combine_rows

ROWS = 40
IDS = [f"img {row:02}, é" for row in range(ROWS)]
HOW = st.sampled_from(["union", "intersection", "difference"])
FORMS = ["npy", "mask", "txt", "csv-row", "csv-id", "parquet-row", "parquet-id", "array", "object"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with ids."""
    folder = tmp_path_factory.mktemp("store")
    np.save(folder / "emb.npy", np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2))
    (folder / "ids.txt").write_text("\n".join(IDS) + "\n")
    sc.ingest(str(folder / "emb.npy"), folder / "emb.zarr", ids=str(folder / "ids.txt"))
    return folder / "emb.zarr"


def written(rows, form, folder, number):
    """The rows in one of the forms that lists come in."""
    rows, path = list(rows), folder / f"list-{number}"
    ids = [IDS[row] for row in rows]
    if form == "array":
        return np.array(rows, dtype=np.int64)
    if form == "object":
        return SimpleNamespace(unique_rows=np.array(rows, dtype=np.int64))
    if form == "mask":
        mask = np.zeros(ROWS, dtype=bool)
        mask[rows] = True
        np.save(path.with_suffix(".npy"), mask)
        return str(path.with_suffix(".npy"))
    if form == "npy":
        np.save(path.with_suffix(".npy"), np.array(rows, dtype=np.int64))
    elif form == "txt":
        path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in ids))
    else:
        kind, column = form.split("-")
        values = pa.array(rows, pa.int64()) if column == "row" else pa.array(ids, pa.string())
        table = pa.table({column: values, "other": pa.array(range(len(rows)))})
        (pyarrow.csv.write_csv if kind == "csv" else pyarrow.parquet.write_table)(table, path.with_suffix(f".{kind}"))
    return str(path.with_suffix(f".{form.split('-')[0]}"))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    HOW,
    st.lists(
        st.tuples(st.lists(st.integers(0, ROWS - 1), max_size=30), st.sampled_from(FORMS)), min_size=2, max_size=4
    ),
)
def test_any_lists_combine_as_sets(store, tmp_path, how, given_lists):
    lists = [written(rows, form, tmp_path, number) for number, (rows, form) in enumerate(given_lists)]
    found = combine_rows(how, lists, of=store)
    sets = [set(rows) for rows, _ in given_lists]
    expected = {"union": set.union, "intersection": set.intersection, "difference": set.difference}[how](*sets)
    assert found.rows.tolist() == sorted(expected)
    assert len(found) == found.count == len(expected)
    assert [rows for _, rows in found.lists] == [len(rows) for rows in sets]
    assert found.unique_rows is found.rows


def test_long_lists_go_through_files(store, tmp_path, monkeypatch):
    monkeypatch.setattr("streamcurate.streaming.shuffle._SMALLEST_RUN", 7)
    monkeypatch.setattr("streamcurate.streaming.shuffle._BYTES_IN_SORT", 1 << 40)
    monkeypatch.setattr("streamcurate.embeddings.rowsets._PIECE", 3)
    monkeypatch.setattr("streamcurate.embeddings.subset._PIECE", 5)
    random = np.random.default_rng(0)
    lists = [random.permutation(ROWS)[:count] for count in (35, 20, 3)]
    expected = sorted(set(lists[0].tolist()) - set(lists[1].tolist()) - set(lists[2].tolist()))
    assert combine_rows("difference", lists, scratch=tmp_path).rows.tolist() == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.csv", "out.txt", "mask.npy"])
@pytest.mark.parametrize("with_ids", [True, False])
def test_every_form_of_result_is_a_list_again(store, tmp_path, monkeypatch, name, with_ids):
    monkeypatch.setattr("streamcurate.neighbors.row_files._BATCH", 4)
    of = store if with_ids else np.zeros((ROWS, 2), dtype=np.float32)
    (tmp_path / name).write_text("what lay there")
    lists = [range(0, ROWS, 2), range(0, ROWS, 3)]
    found = combine_rows("union", lists, tmp_path / name, of, mask=name == "mask.npy")
    expected = sorted({*lists[0], *lists[1]})
    assert found.count == len(expected)
    assert found.out == str(tmp_path / name)
    with pytest.raises(InputError, match="were written there"):
        _ = found.unique_rows
    ids = sc.open_embeddings(store).ids if with_ids else None
    subset = read_subset(str(tmp_path / name), ROWS, tmp_path / "subset", 1 << 20, ids)
    assert np.flatnonzero(subset.mask.read(0, ROWS)).tolist() == expected
    table = None
    if name == "out.parquet":
        table = pyarrow.parquet.read_table(tmp_path / name).to_pydict()
    elif name == "out.csv":
        table = pyarrow.csv.read_csv(tmp_path / name).to_pydict()
    if table is not None:
        wanted = {"row": expected} | ({"id": [IDS[row] for row in expected]} if with_ids else {})
        assert table == wanted
    if name == "out.npy":
        assert np.load(tmp_path / name).dtype == np.int64


def test_a_mask_tells_how_many_rows_there_are(tmp_path):
    mask = np.arange(12) % 2 == 0
    np.save(tmp_path / "mask.npy", mask)
    found = combine_rows("difference", [mask, [4, 5]], tmp_path / "left.npy", mask=True)
    assert found.count == 5
    assert np.flatnonzero(np.load(tmp_path / "left.npy")).tolist() == [0, 2, 6, 8, 10]
    with pytest.raises(DataError, match=r"lists\[1\]: row 12 is not among the 12 rows"):
        combine_rows("union", [mask, [12]])
    with pytest.raises(InputError, match=r"lists\[1\]: a mask of 13 entries, and .*mask.npy has 12"):
        combine_rows("union", [str(tmp_path / "mask.npy"), np.ones(13, dtype=bool)])


def test_an_empty_result_is_written(tmp_path):
    for name in ("none.npy", "none.parquet", "none.csv", "none.txt"):
        assert combine_rows("intersection", [[1], [2]], tmp_path / name).count == 0
        assert combine_rows("union", [tmp_path / name, [7]]).rows.tolist() == [7]
    assert combine_rows("intersection", [[1], [2]]).rows.dtype == np.int64


def test_strings_need_a_store(tmp_path):
    (tmp_path / "ids.txt").write_text("img 01\n")
    with pytest.raises(InputError, match=r"line 1 is 'img 01', no row number.*name the store or the run with --of"):
        combine_rows("union", [str(tmp_path / "ids.txt"), [1]])
    with pytest.raises(InputError, match=r"lists\[0\]: holds strings.*--of"):
        combine_rows("union", [["img 01"], [1]])
    (tmp_path / "rows.txt").write_text("3\n1\n")  # of a store without ids
    assert combine_rows("union", [str(tmp_path / "rows.txt"), [7]]).rows.tolist() == [1, 3, 7]


def test_one_list_takes_another_form(store, tmp_path):
    (tmp_path / "ids.txt").write_text(f"{IDS[7]}\n{IDS[3]}\n")
    for how in ("union", "intersection", "difference"):
        assert combine_rows(how, [str(tmp_path / "ids.txt")], tmp_path / "out.npy", of=store).count == 2
        assert np.load(tmp_path / "out.npy").tolist() == [3, 7]


def test_a_store_stands_for_all_its_rows(store, tmp_path):
    """A run for those it was built on; ids are then looked up there."""
    (tmp_path / "ids.txt").write_text(f"{IDS[7]}\n{IDS[3]}\n")
    others = np.setdiff1d(np.arange(ROWS), [3, 7])
    for whole in (str(store), sc.open_embeddings(store)):
        found = combine_rows("difference", [whole, str(tmp_path / "ids.txt")])
        np.testing.assert_array_equal(found.rows, others)
        assert found.lists == ((str(store), ROWS), (str(tmp_path / "ids.txt"), 2))
    tree = sc.cluster(store, tmp_path / "run", levels=[3], subset=others)
    for run in (tmp_path / "run", tree):
        np.testing.assert_array_equal(combine_rows("union", [run]).rows, others)
    np.save(tmp_path / "more.npy", np.ones((ROWS + 1, 2), dtype=np.float32))
    sc.ingest(str(tmp_path / "more.npy"), tmp_path / "more.zarr")
    with pytest.raises(InputError, match=r"more.zarr: has 41 rows, .*emb.zarr has 40; row numbers of one mean nothing"):
        combine_rows("union", [store, tmp_path / "more.zarr"])


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ({"how": "xor"}, ConfigError, "how: 'xor' is not allowed; it must be union or intersection or difference"),
        ({"lists": []}, ConfigError, "of one list or more"),
        ({"lists": "ab"}, ConfigError, "of one list or more"),
        (
            {"out": "rows.json"},
            InputError,
            r"rows\.json: its suffix is '\.json'; a list of rows is written as \.parquet",
        ),
        ({"out": "http://host/rows.npy"}, InputError, "a web server cannot be written to"),
        ({"out": "no/such/rows.npy"}, InputError, "does not exist; create it first"),
        ({"mask": True}, ConfigError, "mask: a mask is written as .npy"),
        ({"mask": True, "out": "rows.csv"}, ConfigError, "rows.csv is no place for it"),
        ({"mask": True, "out": "rows.npy"}, ConfigError, "how many rows there are is not known.*--of"),
        ({"lists": ["absent.npy", [1]]}, InputError, "absent.npy: no such file"),
        ({"lists": [[-1], [1]]}, DataError, r"lists\[0\]: row -1"),
        ({"lists": [[0.5], [1]]}, InputError, r"lists\[0\]: holds float64"),
        ({"of": "absent.zarr"}, InputError, "absent.zarr: no such file"),
        ({"lists": [[1]] * 100, "memory_limit": "512MiB"}, MemoryLimitError, "100 lists of rows.*fewer at a time"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, call, error, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=told):
        combine_rows(**({"how": "union", "lists": [[1], [2]]} | call))
    assert not list(tmp_path.iterdir())
