"""Lance datasets, as pylance writes them: one version of them, in order, bit by bit."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest

import streamcurate as sc
from streamcurate.embeddings.sources import base
from streamcurate.embeddings.sources.lance import LanceReader
from streamcurate.errors import DataError, InputError

VALUE_TYPES = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}


@pytest.fixture
def lance():
    return pytest.importorskip("lance")


def values_of(rows: int, dims: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, dims)).astype(dtype)


def table_of(values: np.ndarray, kind: str = "fixed") -> pa.Table:
    rows, dims = values.shape
    flat = pa.array(values.reshape(-1), type=VALUE_TYPES[values.dtype.name])
    if kind == "fixed":
        vectors = pa.FixedSizeListArray.from_arrays(flat, dims)
    else:
        vectors = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * dims, pa.int32()), flat)
    return pa.table({"id": [f"n{row}" for row in range(rows)], "emb": vectors, "number": range(rows)})


def read(reader: LanceReader, start: int = 0) -> tuple[np.ndarray, list]:
    blocks = list(reader.blocks(start))
    values = [np.empty((0, reader.dims), reader.dtype), *(values for values, _ in blocks)]
    return np.concatenate(values), [one for _, ids in blocks if ids is not None for one in ids.tolist()]


@pytest.mark.parametrize("dtype", sorted(VALUE_TYPES))
@pytest.mark.parametrize("kind", ["fixed", "list"])
@pytest.mark.parametrize("ids", [None, "id", "number"])
def test_round_trip(lance, tmp_path, monkeypatch, dtype, kind, ids):
    """Several fragments, blocks of seven rows, from any start."""
    values = values_of(100, 5, dtype)
    monkeypatch.setattr(base, "BLOCK_BYTES", 7 * values[0].nbytes)
    path = str(tmp_path / "x.lance")
    lance.write_dataset(table_of(values, kind), path, max_rows_per_file=30)
    reader = LanceReader(path, None, ids)
    assert (reader.rows, reader.dims, reader.dtype) == (100, 5, np.dtype(dtype))
    for start in (0, 1, 29, 30, 64, 100):
        read_values, read_ids = read(reader, start)
        assert read_values.tobytes() == values[start:].tobytes()
        names = {None: [], "id": [f"n{row}" for row in range(start, 100)], "number": list(range(start, 100))}
        assert read_ids == names[ids]
    assert max(len(block) for block, _ in reader.blocks(0)) <= 7


def test_ingest_of_what_is_left_after_deletions(lance, tmp_path):
    values = values_of(60, 4)
    path = str(tmp_path / "x.lance")
    lance.write_dataset(table_of(values), path, max_rows_per_file=25).delete("number % 7 = 3")
    kept = np.flatnonzero(np.arange(60) % 7 != 3)
    store = sc.ingest(path, tmp_path / "x.zarr", ids="id", rows_per_chunk=16)
    assert store.array.read(0, store.rows).tobytes() == values[kept].tobytes()
    assert store.ids.read(0, store.rows).tolist() == [f"n{row}" for row in kept]
    reader = LanceReader(path)
    np.testing.assert_array_equal(read(reader, 30)[0], values[kept[30:]])


def test_a_version_written_meanwhile_is_another_source(lance, tmp_path):
    path = str(tmp_path / "x.lance")
    lance.write_dataset(table_of(values_of(20, 4)), path)
    reader = LanceReader(path)
    before = reader.stamps()
    lance.write_dataset(table_of(values_of(30, 4)), path, mode="append")
    assert reader.stamps() == before
    assert len(read(reader)[0]) == 20
    later = LanceReader(path)
    assert (later.rows, later.version) == (50, 2)
    assert later.stamps() != before


def test_nulls_become_nan(lance, tmp_path):
    rows = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]
    path = str(tmp_path / "x.lance")
    for type_ in (pa.list_(pa.float32(), 2), pa.list_(pa.float32())):
        lance.write_dataset(pa.table({"emb": pa.array(rows, type_)}), path, mode="overwrite")
        expected = np.array([[1, 2], [np.nan, np.nan], [3, 4], [5, 6]], np.float32)
        np.testing.assert_array_equal(read(LanceReader(path))[0], expected)


def test_bfloat16_is_widened(lance, tmp_path):
    from lance.arrow import bfloat16_array

    values = np.array([[1.0, -2.5, 3.0], [0.15625, 1e30, -0.0]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    array = pa.FixedSizeListArray.from_arrays(bfloat16_array(values.reshape(-1).tolist()), 3)
    path = str(tmp_path / "x.lance")
    lance.write_dataset(pa.table({"emb": array}), path)
    reader = LanceReader(path)
    assert reader.dtype == np.float32
    got = read(reader)[0]
    # The library rounds where it narrows; what it stored is what is read.
    assert (got.view(np.uint32) & 0xFFFF == 0).all()
    np.testing.assert_allclose(got, values, rtol=2**-8)
    exact = [0, 1, 2, 3, 5]
    assert (got.reshape(-1)[exact].view(np.uint32) >> 16).tolist() == bits.reshape(-1)[exact].tolist()


def test_what_cannot_be_read(lance, tmp_path):
    path = tmp_path / "x.lance"
    with pytest.raises(InputError, match=r"x.lance: no such dataset"):
        LanceReader(str(path))
    path.mkdir()
    with pytest.raises(DataError, match=r"x.lance: Lance cannot read it .*not found") as error:
        LanceReader(str(path))
    assert ".rs" not in str(error.value)
    lance.write_dataset(table_of(values_of(500, 64)), str(path))
    with pytest.raises(InputError, match="no column 'b'; it has 'id', 'emb', 'number'"):
        LanceReader(str(path), "b")
    with pytest.raises(
        InputError, match=r"column 'number' holds int64, not lists .* choose with --column one of 'emb'"
    ):
        LanceReader(str(path), "number")
    with pytest.raises(InputError, match="ids are strings or integers"):
        LanceReader(str(path), None, "emb")
    (file,) = (path / "data").iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"x.lance: Lance cannot read it"):
        list(LanceReader(str(path)).blocks(0))


def test_lists_of_another_length_are_refused_with_their_row(lance, tmp_path):
    rows = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0]], pa.list_(pa.float32()))
    path = str(tmp_path / "x.lance")
    lance.write_dataset(pa.table({"emb": rows}), path)
    with pytest.raises(DataError, match="column 'emb': row 2 has 1 values, and the rows before it have 2"):
        list(LanceReader(path).blocks(1))


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    (tmp_path / "x.lance").mkdir()
    with pytest.raises(InputError, match=r"x.lance: Lance datasets need pylance; pip install 'streamcurate\[lance\]'"):
        LanceReader(str(tmp_path / "x.lance"))
