"""Parquet columns of lists, as pyarrow writes them, come back bit by bit whatever the row groups and slices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings.sources import arrow, base
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
    data=st.data(),
)
def test_round_trip(tmp_path_factory, rows, dims, dtype, kind, group, block_bytes, ids, data):
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
            "no column holds lists of float16, float32 or float64; it has 'a' \\(string",
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


def test_blocks_stay_small_inside_a_large_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 4 * 8 * 4 * 10)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"emb": lists(values_of(500, 8, "float32"), "list")}), path)
    sizes = [len(block) for block, _ in ParquetReader(str(path)).blocks(0)]
    assert max(sizes) == 10
    assert sum(sizes) == 500
