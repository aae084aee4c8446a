from __future__ import annotations

import csv
import errno
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamcurate.errors import DataError, DiskFullError, InputError, StoreError
from streamcurate.sampling import check_destination, formats, lines, sample, selection

FORMATS = [".parquet", ".csv", ".npy", ".txt"]

STRING_IDS = np.array([f"image {row}, “ü” {'x' * (row % 3)}" for row in range(60)], dtype=np.dtypes.StringDType())
INTEGER_IDS = np.arange(60, dtype=np.int64) * 10**15 + 7


@pytest.fixture(params=["strings", "integers", "none"])
def ids(request):
    return {"strings": STRING_IDS, "integers": INTEGER_IDS, "none": None}[request.param]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several batches even of a small draw, and rows whose copies are spread over two."""
    for module in (formats, lines, selection):
        monkeypatch.setattr(module, "BATCH", 4)


@pytest.fixture
def picked(random_tree, ids):
    return sample(random_tree(2, 60, [8, 5, 3], ids=ids), 100, multiplier=5, seed=1)


def expected_columns(picked, ids):
    tree, rows = picked.tree, picked.unique_rows
    columns = {"row": rows.tolist()}
    if ids is not None:
        columns["id"] = ids[rows].tolist()
    labels, distances = rows, {}
    for number, level in enumerate(tree.levels, start=1):
        distances["distance" if number == 1 else f"distance_{number}"] = level.stored_distances.values[labels].tolist()
        labels = level.stored_labels.values[labels]
        columns[f"label_{number}"] = labels.tolist()
    columns |= distances
    columns["copies"] = picked.copies.tolist()
    return columns


def test_a_selection_knows_its_rows(picked, ids):
    columns = expected_columns(picked, ids)
    assert picked.copies.max() > 1
    assert picked.rows.tolist() == [
        row for row, count in zip(columns["row"], columns["copies"], strict=True) for _ in range(count)
    ]
    assert [labels.tolist() for labels in picked.labels] == [columns[f"label_{number}"] for number in (1, 2, 3)]
    assert picked.distances.tolist() == columns["distance"]
    if ids is None:
        assert picked.ids is None
        assert picked.unique_ids is None
    else:
        assert picked.ids.tolist() == ids[picked.rows].tolist()
        assert picked.unique_ids.tolist() == ids[picked.unique_rows].tolist()


def test_parquet_holds_a_line_per_distinct_row(picked, ids, tmp_path):
    picked.save(tmp_path / "curated.parquet")
    table = pq.read_table(tmp_path / "curated.parquet")
    assert table.to_pydict() == expected_columns(picked, ids)
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    expected = {"row": "int64", "distance": "float", "distance_2": "float", "distance_3": "float", "copies": "int64"}
    expected |= {f"label_{number}": "int32" for number in (1, 2, 3)}
    if ids is not None:
        expected["id"] = "int64" if ids is INTEGER_IDS else "string"
    assert types == expected


def test_csv_holds_the_same_as_parquet(picked, ids, tmp_path):
    picked.save(tmp_path / "curated.csv")
    with open(tmp_path / "curated.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    columns = expected_columns(picked, ids)
    assert list(lines[0]) == list(columns)
    for name, values in columns.items():
        floats = name.startswith("distance")
        read = [np.float32(line[name]) if floats else line[name] for line in lines]
        assert read == ([np.float32(value) for value in values] if floats else [str(v) for v in values])


def test_csv_writes_distances_as_short_as_float32_allows(make_tree, tmp_path):
    sample(make_tree([0], distances=[0.1]), 1).save(tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_text() == "row,label_1,distance,copies\n0,0,0.1,1\n"


def test_npy_repeats_rows_per_copy(picked, tmp_path):
    picked.save(tmp_path / "curated.npy")
    rows = np.load(tmp_path / "curated.npy", allow_pickle=False)
    assert rows.dtype == np.int64
    assert rows.tolist() == picked.rows.tolist()
    assert len(rows) == 100


def test_txt_repeats_ids_or_rows_per_copy(picked, ids, tmp_path):
    picked.save(tmp_path / "curated.txt")
    names = picked.rows if ids is None else ids[picked.rows]
    assert (tmp_path / "curated.txt").read_text(encoding="utf-8") == "".join(f"{name}\n" for name in names)


def test_a_suffix_is_read_whatever_its_case(picked, tmp_path):
    picked.save(tmp_path / "CURATED.NPY")
    assert np.load(tmp_path / "CURATED.NPY").tolist() == picked.rows.tolist()


@pytest.mark.parametrize(("name", "said"), [("curated.json", "its suffix is '.json'"), ("curated", "it has no suffix")])
def test_an_unknown_suffix_names_the_others(picked, tmp_path, name, said):
    with pytest.raises(
        InputError, match=rf"{said}; a selection is written as \.parquet, \.npy, \.csv, \.txt, \.jsonl, \.arrow, \.zarr"
    ):
        picked.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_named_format_is_written_under_its_suffix_or_none(picked, tmp_path, suffix):
    write = getattr(picked, f"to_{suffix[1:]}")
    with pytest.raises(InputError, match=r"q\.foo: its suffix is '\.foo'; a selection is written as \.parquet, \.npy,"):
        write(tmp_path / "q.foo")
    for other in set(FORMATS) - {suffix}:
        with pytest.raises(
            InputError, match=rf"its suffix is '\{other}', to_{suffix[1:]} writes \{suffix}; .* use save"
        ):
            write(tmp_path / f"q{other}")
    assert not list(tmp_path.iterdir())
    picked.save(tmp_path / f"saved{suffix}")
    for name in (f"q{suffix}", f"Q2{suffix.upper()}", "q"):
        write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == (tmp_path / f"saved{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_existing_file_is_replaced(picked, tmp_path, suffix):
    target = tmp_path / f"curated{suffix}"
    target.write_bytes(b"old")
    picked.save(target)
    picked.save(tmp_path / f"again{suffix}")
    assert target.read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(picked, tmp_path, suffix, monkeypatch):
    target = tmp_path / f"curated{suffix}"
    target.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=f"curated{suffix}: no space left"):
        picked.save(target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_error_half_way_leaves_nothing(picked, tmp_path, suffix, monkeypatch):
    batches = []

    def failing(rows):
        batches.append(len(rows))
        if len(batches) == 3:
            raise StoreError("chunk 3 is truncated")
        return np.zeros(len(rows), dtype=np.int64)

    if suffix == ".npy":  # asks for nothing but the rows
        monkeypatch.setattr(np, "repeat", lambda rows, copies: failing(rows))
    else:
        monkeypatch.setattr(type(picked), "id_reader", lambda self: failing)
    with pytest.raises(StoreError, match="chunk 3"):
        picked.save(tmp_path / f"curated{suffix}")
    assert len(batches) == 3
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused(picked, tmp_path):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path, said in [
        (tmp_path / "absent" / "a.npy", "does not exist; create it first"),
        (tmp_path / "folder.npy", "a folder lies there"),
        (tmp_path / "a.pickle", "its suffix is"),
    ]:
        with pytest.raises(InputError, match=said):
            check_destination(path)
    for path, said in [
        (tmp_path / "absent" / "a.npy", "cannot be written there"),
        (tmp_path / "file" / "a.npy", "cannot be written there"),
        (tmp_path / "folder.npy", "a folder lies there"),
    ]:
        with pytest.raises(InputError, match=said):
            picked.save(path)
    check_destination(tmp_path / "new.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npy"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".txt"])
def test_a_store_that_is_gone_takes_its_ids_along(random_tree, tmp_path, suffix):
    picked = sample(random_tree(2, 60, [8, 3], ids=STRING_IDS), 20)
    picked.tree.store = None
    with pytest.raises(StoreError, match=r"emb\.zarr: is gone, .* write \.npy"):
        picked.save(tmp_path / f"curated{suffix}")
    with pytest.raises(StoreError, match="is gone"):
        _ = picked.ids
    assert not list(tmp_path.iterdir())
    picked.save(tmp_path / "curated.npy")
    assert np.load(tmp_path / "curated.npy").tolist() == picked.rows.tolist()


def test_a_store_without_ids_is_not_missed(random_tree, tmp_path):
    picked = sample(random_tree(2, 60, [8, 3]), 20)
    picked.tree.store = None
    picked.save(tmp_path / "curated.txt")
    assert (tmp_path / "curated.txt").read_text().split() == [str(row) for row in picked.rows]
    picked.save(tmp_path / "curated.parquet")
    assert "id" not in pq.read_table(tmp_path / "curated.parquet").column_names


def test_an_id_with_a_line_break_is_no_line_of_text(make_tree, tmp_path):
    ids = np.array(["a", "b\nc"], dtype=np.dtypes.StringDType())
    picked = sample(make_tree([0, 0], ids=ids), 2)
    with pytest.raises(DataError, match="the id of row 1 contains a line break"):
        picked.save(tmp_path / "curated.txt")
    assert not list(tmp_path.iterdir())
    picked.save(tmp_path / "curated.csv")
    assert sample(picked.tree, 2, include=tmp_path / "curated.csv").rows.tolist() == [0, 1]


def test_repr_says_how_much_and_of_what(make_tree):
    assert repr(sample(make_tree([0, 0]), 3, multiplier=2)) == "Selection(3 rows, 2 distinct, of run)"
