"""Subsets: row numbers in any order, or a mask, in memory or in a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcurate
from streamcurate.embeddings import idlookup, subset
from streamcurate.embeddings.subset import OrderedRows, read_subset
from streamcurate.errors import DataError, InputError, MemoryLimitError
from streamcurate.storage import SequentialWriter, create_array

MEMORY = 1 << 20


@settings(max_examples=40)
@given(
    rows=st.integers(1, 60),
    data=st.data(),
    form=st.sampled_from(["int64", "int32", "uint8", "uint64", ">i8", "bool"]),
    from_file=st.booleans(),
    piece=st.integers(1, 20),
    chunk=st.integers(1, 20),
)
def test_any_form_of_the_same_subset(tmp_path_factory, rows, data, form, from_file, piece, chunk):
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, unique=True))
    mask = np.zeros(rows, dtype=bool)
    mask[chosen] = True
    value = mask if form == "bool" else np.array(chosen, dtype=form)
    folder = tmp_path_factory.mktemp("subset")
    if from_file:
        np.save(folder / "rows.npy", value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset, "_PIECE", piece)
        patch.setattr(subset, "_MASK_CHUNK_ROWS", chunk)
        made = read_subset(folder / "rows.npy" if from_file else value, rows, folder / "scratch", MEMORY)
        assert made.mask.read(0, rows).tolist() == mask.astype(int).tolist()
    assert made.rows == len(chosen)
    same = read_subset(np.flatnonzero(mask), rows, folder / "scratch", MEMORY)
    assert made.digest == same.digest


def test_other_subsets_have_other_digests(tmp_path):
    first, second = (read_subset(np.array(rows), 9, tmp_path, MEMORY).digest for rows in ([1, 5], [1, 6]))
    assert first != second


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([3, 9], "row 9 is not among the 9 rows"),
        ([-1, 3], "row -1 is not among"),
        ([3, 5, 3], "names row 3 more than once"),
        ([], "names no row"),
        ([False] * 9, "names no row"),
        ([True] * 8, "a mask of 8 entries for 9 rows"),
        ([0.5], "holds float64"),
        ([[1], [2]], r"of shape \(2, 1\)"),
    ],
)
def test_what_is_no_subset(tmp_path, value, message):
    array = np.array(value, dtype=np.int64 if value == [] else None)
    np.save(tmp_path / "rows.npy", array)
    for chosen in (array, tmp_path / "rows.npy"):
        with pytest.raises((InputError, DataError), match=message):
            read_subset(chosen, 9, tmp_path / "scratch", MEMORY)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"absent\.npy: no such file; give .* or leave --subset out"):
        read_subset(tmp_path / "absent.npy", 9, tmp_path, MEMORY)
    for suffix in (".npy", ".txt", ".csv", ".parquet"):
        (tmp_path / f"folder{suffix}").mkdir()
        with pytest.raises(InputError, match=rf"folder{suffix}: not a readable {suffix} file"):
            read_subset(tmp_path / f"folder{suffix}", 9, tmp_path, MEMORY)
    (tmp_path / "x.npy").write_bytes(b"1\n2\n")
    with pytest.raises(InputError, match=r"not a readable \.npy file"):
        read_subset(tmp_path / "x.npy", 9, tmp_path, MEMORY)
    np.save(tmp_path / "y.npy", np.arange(9))
    data = (tmp_path / "y.npy").read_bytes()
    (tmp_path / "y.npy").write_bytes(data[:-8])
    with pytest.raises(InputError, match="truncated"):
        read_subset(tmp_path / "y.npy", 9, tmp_path, MEMORY)


@pytest.fixture
def stored_ids(tmp_path):
    """``stored_ids(ids, chunk)``: ids at rest, strings or integers."""

    def make(ids, chunk=7, name="ids"):
        values = np.array(ids) if isinstance(ids[0], int) else np.array(ids, dtype=np.dtypes.StringDType())
        array = create_array(tmp_path / name, values.shape, np.int64 if isinstance(ids[0], int) else str, chunk)
        with SequentialWriter(array) as writer:
            writer.append(values)
        return array

    return make


@pytest.mark.parametrize("kind", ["strings", "integers"])
@pytest.mark.parametrize("form", ["list", "txt", "npy"])
def test_ids_name_the_rows_that_have_them(tmp_path, stored_ids, kind, form, monkeypatch):
    monkeypatch.setattr(idlookup, "_SMALLEST_PIECE", 4)
    rows = np.random.default_rng(0).permutation(50)
    ids = [int(row) * 10**12 - 3 for row in rows] if kind == "integers" else [f"é {row}" for row in rows]
    wanted = [3, 48, 17, 4, 0]
    named = [str(ids[row]) for row in wanted]
    if form == "txt":
        (tmp_path / "x.txt").write_text("".join(f"{name}\n" for name in named), encoding="utf-8")
    elif form == "npy":
        np.save(tmp_path / "x.npy", np.array(named))
    chosen = named if form == "list" else tmp_path / f"x.{form}"
    made = read_subset(chosen, 50, tmp_path / "scratch", MEMORY, stored_ids(ids))
    assert np.flatnonzero(made.mask.read(0, 50)).tolist() == sorted(wanted)
    # The identity of a run is that of the rows, however they were named.
    assert made.digest == read_subset(np.array(wanted), 50, tmp_path / "scratch", MEMORY).digest


def test_an_id_of_several_rows_means_them_all(tmp_path, stored_ids):
    made = read_subset(["b"], 5, tmp_path / "scratch", MEMORY, stored_ids(["a", "b", "c", "b", "d"]))
    assert made.mask.read(0, 5).tolist() == [0, 1, 0, 1, 0]
    assert made.rows == 2


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["b", "x", "a", "y"], 'id "x" and 1 more are not among the ids of .*ids; take what is not in the store out'),
        (["b", "y"], 'id "y" is not among'),
        (["01"], 'id "01" is not among'),
        (["b", "a", "b"], 'names id "b" more than once; list each id once'),
        ([], "names no row"),
    ],
)
def test_ids_that_name_no_subset(tmp_path, stored_ids, chosen, said):
    with pytest.raises(DataError, match=said):
        read_subset(chosen, 4, tmp_path / "scratch", MEMORY, stored_ids(["a", "b", "1", "d"]))


def test_a_csv_file_without_a_header_loses_no_id(tmp_path, stored_ids):
    ids = stored_ids(["a", "b", "c"], chunk=1)
    (tmp_path / "x.csv").write_text("b\nc\n")
    with pytest.raises(DataError, match=r'x.csv: its first line, "b", is an id, and should name the column'):
        read_subset(tmp_path / "x.csv", 3, tmp_path / "scratch", MEMORY, ids)
    (tmp_path / "x.csv").write_text("name\nb\nc\n")
    assert read_subset(tmp_path / "x.csv", 3, tmp_path / "scratch", MEMORY, ids).rows == 2


def test_an_id_that_is_written_otherwise_is_another(tmp_path, stored_ids):
    ids = stored_ids([1, 20, 300])
    assert read_subset(["20"], 3, tmp_path / "scratch", MEMORY, ids).mask.read(0, 3).tolist() == [0, 1, 0]
    for other in ("020", "+20", "20.0", " 20"):
        with pytest.raises(DataError, match="is not among"):
            read_subset([other], 3, tmp_path / "scratch", MEMORY, ids)


def test_a_list_of_ids_that_does_not_fit_is_refused(tmp_path, stored_ids):
    with pytest.raises(MemoryLimitError, match=r"its first 1,000 ids need .* or give row numbers"):
        read_subset([f"{row}" for row in range(1000)], 3, tmp_path / "scratch", 1 << 16, stored_ids(["1", "2", "3"]))
    assert not (tmp_path / "scratch" / "subset-mask").exists()


@settings(max_examples=30)
@given(named=st.lists(st.integers(0, 59), min_size=1, max_size=200), piece=st.integers(1, 20), memory=st.integers(1, 9))
def test_rows_named_again_count_once(tmp_path_factory, named, piece, memory):
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset, "_PIECE", piece)
        patch.setattr("streamcurate.streaming.shuffle._SMALLEST_RUN", 16 * memory)
        with OrderedRows(np.array(named), 60, folder / "sort", 0, repeats=True) as ordered:
            assert ordered.named == len(named)
            assert [row for rows in ordered.pieces() for row in rows.tolist()] == sorted(set(named))
    assert not list(folder.iterdir())


def test_a_run_is_the_same_however_its_rows_are_named(tmp_path):
    rows = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "ids.txt").write_text("".join(f"row {row}\n" for row in range(60)))
    store = streamcurate.ingest(tmp_path / "rows.npy", tmp_path / "emb.zarr", ids=tmp_path / "ids.txt")
    chosen = np.arange(1, 60, 2)
    np.save(tmp_path / "chosen.npy", chosen)
    (tmp_path / "chosen.txt").write_text("".join(f"row {row}\n" for row in chosen[::-1]))
    trees = [
        streamcurate.cluster(store, tmp_path / "run", levels=[4], subset=tmp_path / name)
        for name in ("chosen.npy", "chosen.txt")  # the second finds the run finished
    ]
    assert trees[0].digest == trees[1].digest
    assert np.flatnonzero(trees[1].levels[0].labels[:] >= 0).tolist() == chosen.tolist()
