"""Parquet columns of lists, as pyarrow writes them, come back bit by bit whatever the row groups and slices."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcurate as sc
from streamcurate.embeddings.sources import arrow, base, parquet
from streamcurate.embeddings.sources.parquet import ParquetReader
from streamcurate.errors import DataError, InputError

VALUE_TYPES = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}


def lists(values: np.ndarray, kind: str) -> pa.Array:
    """Rows of a matrix as an Arrow array of lists."""
    rows, dims = values.shape
    flat = pa.array(values.reshape(-1), type=VALUE_TYPES[values.dtype.name])
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, dims)
    offsets = np.arange(rows + 1) * dims
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def values_of(rows: int, dims: int, dtype: str) -> np.ndarray:
    values = np.random.default_rng(rows).standard_normal((rows, dims)).astype(dtype)
    values.reshape(-1)[:: max(rows, 3)] = -0.0
    return values


@settings(max_examples=60)
@given(
    rows=st.integers(0, 60),
    dims=st.integers(1, 6),
    dtype=st.sampled_from(sorted(VALUE_TYPES)),
    kind=st.sampled_from(["list", "large", "fixed"]),
    group=st.integers(1, 60),
    block_bytes=st.integers(1, 300),
    ids=st.sampled_from([None, "text", "number", "dictionary"]),
    threads=st.integers(1, 4),
    ahead_bytes=st.integers(0, 500),
    data=st.data(),
)
def test_round_trip(tmp_path_factory, rows, dims, dtype, kind, group, block_bytes, ids, threads, ahead_bytes, data):
    values = values_of(rows, dims, dtype)
    names = [f"n{i}é" for i in range(rows)]
    columns = {
        "emb": lists(values, kind),
        "text": pa.array(names, pa.string()),
        "number": pa.array(range(rows), pa.int32()),
        "dictionary": pa.array(names, pa.string()).dictionary_encode(),
    }
    path = str(tmp_path_factory.mktemp("pq") / "x.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=group)
    start = data.draw(st.integers(0, rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        # From room for nothing to room for all, and more threads than this machine may have.
        patch.setattr(parquet, "_AHEAD_BYTES", ahead_bytes)
        patch.setattr(parquet, "available_threads", lambda: threads)
        reader = ParquetReader(path, None, ids)
        blocks = list(reader.blocks(start))
    assert reader.rows == rows
    assert reader.dtype == np.dtype(dtype)
    assert reader.dims == dims or (rows == 0 and kind != "fixed")
    read = np.concatenate([np.empty((0, dims), dtype), *(block for block, _ in blocks)])
    assert read.tobytes() == values[start:].tobytes()
    read_ids = [one for _, block in blocks if block is not None for one in block.tolist()]
    assert read_ids == ([] if ids is None else list(range(rows)) if ids == "number" else names)[start:]


@settings(max_examples=60)
@given(
    rows=st.integers(1, 12),
    kind=st.sampled_from(["list", "large", "fixed"]),
    dtype=st.sampled_from(sorted(VALUE_TYPES)),
    data=st.data(),
)
def test_slices_and_nulls(rows, kind, dtype, data):
    """A slice shares its parent's buffers; nulls of rows and of values become NaN and shift nothing."""
    values = values_of(rows, 3, dtype)
    expected = values.copy()
    null_rows = data.draw(st.sets(st.integers(0, rows - 1)))
    null_values = data.draw(st.sets(st.tuples(st.integers(0, rows - 1), st.integers(0, 2))))
    plain: list = expected.tolist()
    for row, column in null_values:
        plain[row][column] = None
        expected[row, column] = np.nan
    for row in null_rows:
        plain[row] = None
        expected[row] = np.nan
    item = VALUE_TYPES[dtype]
    type_ = {"list": pa.list_(item), "large": pa.large_list(item), "fixed": pa.list_(item, 3)}[kind]
    array = pa.array(plain, type=type_)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    got = arrow.matrix(array.slice(start, stop - start), 3, "x", start)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, expected[start:stop])


def test_lists_of_another_length_are_refused_with_their_row(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 8)
    rows = [[1.0, 2.0], None, [3.0, 4.0], [5.0], [6.0, 7.0]]
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"emb": pa.array(rows, pa.list_(pa.float32()))}), path)
    with pytest.raises(DataError, match=r"x.parquet: column 'emb': row 3 has 1 values, and the rows before it have 2"):
        list(ParquetReader(path).blocks(0))


def table(**columns) -> pa.Table:
    kinds = {
        "f": pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
        "g": pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)),
        "i": pa.array([[1, 2]], pa.list_(pa.int32())),
        "s": pa.array(["a"]),
        "n": pa.array([None], pa.string()),
        "x": pa.array([1.5]),
        "u": pa.array([2**63], pa.uint64()),
        "z": pa.array([None], pa.list_(pa.float32())),
    }
    return pa.table({name: kinds[kind] for name, kind in columns.items()})


@pytest.mark.parametrize(
    ("columns", "column", "ids", "message"),
    [
        (
            {"a": "f", "b": "g"},
            None,
            None,
            "several columns hold lists of floats; choose with --column one of 'a', 'b'",
        ),
        (
            {"a": "s", "b": "i"},
            None,
            None,
            "no column holds lists of float16, bfloat16, float32 or float64; it has 'a' \\(string",
        ),
        ({"a": "f"}, "b", None, "no column 'b'; it has 'a'"),
        ({"a": "f", "b": "i"}, "b", None, "column 'b' holds list<.*int32>.*choose with --column one of 'a'"),
        ({"a": "f", "b": "x"}, None, "b", "column 'b': holds double, and ids are strings or integers"),
        ({"a": "f"}, None, "b", "no column 'b'"),
        ({"a": "f", "b": "n"}, None, "b", "column 'b': row 0 has no id"),
        ({"a": "f", "b": "u"}, None, "b", "beyond 64-bit"),
        ({"a": "z"}, None, None, "every row is null"),
    ],
)
def test_columns_that_cannot_be_used(tmp_path, columns, column, ids, message):
    path = str(tmp_path / "x.parquet")
    pq.write_table(table(**columns), path)
    with pytest.raises(InputError, match=message):
        list(ParquetReader(path, column, ids).blocks(0))


def test_two_columns_of_one_name(tmp_path):
    one = lists(values_of(3, 2, "float32"), "list")
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.Table.from_arrays([one, one], ["a", "a"]), path)
    for column in (None, "a"):
        with pytest.raises(InputError, match=r"choose with --column one of 'a', 'a'|2 columns have the name 'a'"):
            ParquetReader(path, column)


def test_ingest_binds_ids_over_row_groups(tmp_path):
    values = values_of(1000, 5, "float16")
    names = [f"n{row}é" for row in range(1000)]
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"emb": lists(values, "list"), "id": names}), path, row_group_size=37)
    store = sc.ingest(path, tmp_path / "x.zarr", ids="id", rows_per_chunk=128)
    assert store.array.read(0, 1000).tobytes() == values.tobytes()
    assert store.ids.read(0, 1000).tolist() == names


def test_damage_in_a_later_row_group(tmp_path, monkeypatch):
    """Rows before it come first, the message names the file, and no thread is left."""
    monkeypatch.setattr(parquet, "available_threads", lambda: 3)
    values = values_of(400, 8, "float32")
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"emb": lists(values, "list")}), path, row_group_size=50, compression="zstd")
    place = pq.ParquetFile(path).metadata.row_group(5).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 64] = b"\xff" * 64
    path.write_bytes(data)
    got: list[np.ndarray] = []
    with pytest.raises(DataError, match=r"x.parquet: damaged .*copy or write it again"):
        got.extend(block for block, _ in ParquetReader(str(path)).blocks(0))
    assert np.concatenate(got).tobytes() == values[:250].tobytes()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading-ahead")]


def test_the_column_asked_for_is_read(tmp_path):
    path = str(tmp_path / "x.parquet")
    pq.write_table(table(a="f", b="g", c="s"), path)
    assert ParquetReader(path, "b").dtype == np.float64
    assert ParquetReader(path, "a").dtype == np.float32


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(InputError, match="no such file"):
        ParquetReader(str(path))
    with pytest.raises(InputError, match="a folder"):
        ParquetReader(str(tmp_path))
    pq.write_table(pa.table({"emb": lists(values_of(500, 8, "float32"), "fixed")}), path, compression="none")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not a Parquet file, or damaged"):
        ParquetReader(str(path))


def test_checksums_of_pages_are_verified(tmp_path):
    """Where the writer gave pages checksums, a wrong value is no value."""
    path = tmp_path / "x.parquet"
    values = values_of(50, 8, "float32")
    table = pa.table({"emb": lists(values, "list")})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(values[30].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x.parquet: damaged .*checksum"):
        list(ParquetReader(str(path)).blocks(0))


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_large_pages_are_told_to_the_memory_check(tmp_path, monkeypatch, compression, version):
    """pyarrow decodes whole pages; DuckDB, for one, writes pages of 100 MB."""
    monkeypatch.setattr(parquet, "available_threads", lambda: 3)
    values = values_of(1 << 15, 64, "float32")
    table = pa.table({"id": range(len(values)), "emb": lists(values, "list"), "embed": lists(values[:, :1], "list")})

    def reader(**options) -> ParquetReader:
        path = str(tmp_path / "x.parquet")
        options |= {"compression": compression, "data_page_version": version, "use_dictionary": False}
        pq.write_table(table, path, row_group_size=1 << 14, **options)
        return ParquetReader(path, "emb")

    small, large = reader(), reader(data_page_size=64 << 20)
    # Two threads decode small pages, one decodes large ones.
    assert small._threads == 2
    assert large._threads == 1
    assert large._thread_bytes - small._thread_bytes >= 2 * (values.nbytes // 2 - parquet._PAGE_BYTES)
    assert large.read_overhead_bytes >= values.nbytes
    assert np.concatenate([block for block, _ in large.blocks(0)]).tobytes() == values.tobytes()


def test_long_ids_make_short_blocks(tmp_path):
    ids = [f"{row:04}" * 3000 for row in range(2500)]
    table = pa.table({"vector": [[float(row)] for row in range(2500)], "id": ids})
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False)
    held = []
    for values, texts in ParquetReader(str(tmp_path / "x.parquet"), None, "id").blocks(0):
        assert len(values) * 12_000 < base.BLOCK_BYTES // 4
        held += zip(values[:, 0].tolist(), texts.tolist(), strict=True)
    assert held == list(zip(range(2500), ids, strict=True))


def test_blocks_stay_small_inside_a_large_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 8 * 8 * 4 * 10)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"emb": lists(values_of(500, 8, "float32"), "list")}), path)
    sizes = [len(block) for block, _ in ParquetReader(str(path)).blocks(0)]
    assert max(sizes) == 10
    assert sum(sizes) == 500
