"""Arrow IPC files and streams, as pyarrow writes them, come back bit by bit whatever the batches, types and slices."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcurate as sc
from streamcurate.embeddings.sources import arrow, base, ipccolumns
from streamcurate.embeddings.sources.ipc import IpcReader
from streamcurate.errors import DataError, InputError

VALUE_TYPES = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}


def values_of(rows: int, dims: int, dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(rows).standard_normal((rows, dims)).astype(dtype)
    values.reshape(-1)[:: max(rows, 3)] = -0.0
    return values


def lists(values: np.ndarray, kind: str) -> pa.Array:
    """Rows of a matrix as an Arrow array of lists."""
    rows, dims = values.shape
    flat = pa.array(values.reshape(-1), type=VALUE_TYPES[values.dtype.name])
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, dims)
    if kind == "tensor":
        storage = pa.FixedSizeListArray.from_arrays(flat, dims)
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, [dims]), storage)
    offsets = np.arange(rows + 1) * dims
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def other_columns(rows: int) -> dict[str, pa.Array]:
    """A column of every layout, for the reader to find its way past."""
    texts = pa.array([None if row % 3 == 2 else "x" * (row % 30) for row in range(rows)], pa.string())
    numbers = pa.array(range(rows), pa.int32())
    return {
        "null": pa.nulls(rows),
        "flag": pc.equal(numbers, 1),
        "view": texts.cast(pa.string_view()),
        "bytes": texts.cast(pa.binary()),
        "fixed_bytes": pa.array([b"abc"] * rows, pa.binary(3)),
        "image": pa.array([{"bytes": b"x", "path": None}] * rows, pa.struct([("bytes", pa.binary()), ("path", "str")])),
        "map": pa.array([[("k", 1)]] * rows, pa.map_("str", pa.int8())),
        "nested": pa.array([[[1, 2], []]] * rows, pa.list_(pa.list_(pa.int8()))),
        "list_view": pa.array([[1, 2]] * rows, pa.list_view(pa.int8())),
        "category": texts.dictionary_encode(),
        "runs": pc.run_end_encode(pa.array([1] * rows, pa.int8())),
        "sparse": pa.UnionArray.from_sparse(pa.array([0] * rows, pa.int8()), [numbers, texts]),
        "dense": pa.UnionArray.from_dense(pa.array([1] * rows, pa.int8()), numbers, [numbers, texts]),
        "decimal": numbers.cast(pa.decimal128(12)),
        "time": numbers.cast(pa.int64()).cast(pa.timestamp("us")),
    }


def ids_of(rows: int) -> dict[str, pa.Array]:
    names = pa.array([f"n{row}é, the name of a row" if row % 2 else f"n{row}" for row in range(rows)], pa.string())
    return {
        "text": names,
        "large_text": names.cast(pa.large_string()),
        "view_text": names.cast(pa.string_view()),
        "category_text": names.dictionary_encode(),
        # As Polars keeps categories.
        "category_view_text": pa.DictionaryArray.from_arrays(
            pa.array(range(rows), pa.uint32()), names.cast(pa.string_view())
        ),
        "number": pa.array(range(rows), pa.int16()),
    }


def write(path: str, table: pa.Table, file: bool, batch_rows: int | None = None, **options) -> str:
    open_ = pa.ipc.new_file if file else pa.ipc.new_stream
    with open_(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


def read(reader: IpcReader, start: int = 0) -> tuple[np.ndarray, list]:
    blocks = list(reader.blocks(start))
    values = [np.empty((0, reader.dims), reader.dtype), *(values for values, _ in blocks)]
    return np.concatenate(values), [one for _, ids in blocks if ids is not None for one in ids.tolist()]


@settings(max_examples=80)
@given(
    rows=st.integers(0, 60),
    dims=st.integers(1, 6),
    dtype=st.sampled_from(sorted(VALUE_TYPES)),
    kind=st.sampled_from(["list", "large", "fixed", "tensor"]),
    file=st.booleans(),
    codec=st.sampled_from([None, "lz4", "zstd"]),
    streamed=st.booleans(),
    batch_rows=st.integers(1, 60),
    block_bytes=st.integers(1, 600),
    ids=st.sampled_from([None, *ids_of(0)]),
    first=st.integers(0, 9),
    data=st.data(),
)
def test_round_trip(
    tmp_path_factory, rows, dims, dtype, kind, file, codec, streamed, batch_rows, block_bytes, ids, first, data
):
    """Any start, any blocks; the column stands between others, and its batches are slices with offsets of their own."""
    values = values_of(rows, dims, dtype)
    names = ids_of(rows)
    table = pa.table({**other_columns(rows), "emb": lists(values, kind), **names}).slice(min(first, rows))
    path = str(tmp_path_factory.mktemp("ipc") / "x.arrow")
    write(path, table, file, batch_rows, compression=codec)
    start = data.draw(st.integers(0, table.num_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        if streamed:
            patch.setattr(ipccolumns, "WHOLE_BYTES", 8)
        reader = IpcReader(path, None, ids)
        read_values, read_ids = read(reader, start)
    assert reader.rows == table.num_rows
    assert reader.dtype == np.dtype(dtype)
    assert reader.dims == dims or (table.num_rows == 0 and kind in ("list", "large"))
    assert read_values.tobytes() == values[min(first, rows) + start :].tobytes()
    assert read_ids == ([] if ids is None else names[ids].to_pylist()[min(first, rows) + start :])


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40),
    kind=st.sampled_from(["list", "large", "fixed"]),
    dtype=st.sampled_from(sorted(VALUE_TYPES)),
    codec=st.sampled_from([None, "zstd"]),
    block_bytes=st.integers(1, 400),
    data=st.data(),
)
def test_nulls(tmp_path_factory, rows, kind, dtype, codec, block_bytes, data):
    """Nulls of rows and of values become NaN and shift nothing, wherever slices begin."""
    expected = values_of(rows, 3, dtype)
    plain: list = expected.tolist()
    for row, column in data.draw(st.sets(st.tuples(st.integers(0, rows - 1), st.integers(0, 2)))):
        plain[row][column] = None
        expected[row, column] = np.nan
    for row in data.draw(st.sets(st.integers(0, rows - 1), max_size=rows - 1)):
        plain[row] = None
        expected[row] = np.nan
    item = VALUE_TYPES[dtype]
    type_ = {"list": pa.list_(item), "large": pa.large_list(item), "fixed": pa.list_(item, 3)}[kind]
    table = pa.table({"emb": pa.array(plain, type=type_)})
    first, start = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, rows))
    if all(row is None for row in plain[first:]) and kind != "fixed":
        return
    path = str(tmp_path_factory.mktemp("ipc") / "x.arrow")
    write(path, table.slice(first), True, data.draw(st.integers(1, rows)), compression=codec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        patch.setattr(ipccolumns, "WHOLE_BYTES", 8)
        got, _ = read(IpcReader(path), start)
    np.testing.assert_array_equal(got, expected[first + start :])


@pytest.mark.parametrize("file", [True, False])
@pytest.mark.parametrize("version", [pa.ipc.MetadataVersion.V4, pa.ipc.MetadataVersion.V5])
def test_older_metadata(tmp_path, file, version):
    values = values_of(20, 3)
    table = pa.table({**other_columns(20), "emb": lists(values, "list")})
    legacy = version.name == "V4" and not file
    path = write(str(tmp_path / "x"), table, file, 7, metadata_version=version, use_legacy_format=legacy)
    assert read(IpcReader(path))[0].tobytes() == values.tobytes()


def test_feather(tmp_path):
    values = values_of(50, 4, "float16")
    path = str(tmp_path / "x.feather")
    feather.write_feather(pa.table({"emb": lists(values, "fixed"), **ids_of(50)}), path, chunksize=16)
    store = sc.ingest(path, tmp_path / "x.zarr", ids="text")
    assert store.array.read(0, 50).tobytes() == values.tobytes()
    (tmp_path / "old.feather").write_bytes(b"FEA1" + b"\0" * 40)
    with pytest.raises(DataError, match=r"old.feather: Feather version 1.*write it again"):
        IpcReader(str(tmp_path / "old.feather"))


@pytest.mark.parametrize("file", [True, False])
def test_ingest_binds_ids(tmp_path, monkeypatch, file):
    monkeypatch.setattr(base, "BLOCK_BYTES", 500)
    values = values_of(301, 8)
    table = pa.table({"emb": lists(values, "list"), **ids_of(301)})
    path = write(str(tmp_path / "x.arrow"), table, file, 47)
    store = sc.ingest(path, tmp_path / "x.zarr", ids="text", rows_per_chunk=64)
    assert store.array.read(0, 301).tobytes() == values.tobytes()
    assert store.ids.read(0, 301).tolist() == table["text"].to_pylist()


def test_a_dictionary_that_is_replaced_or_grows(tmp_path):
    """Batches of a stream may bring a dictionary of their own, or additions to the last."""
    schema = pa.schema([("emb", pa.list_(pa.float32())), ("id", pa.dictionary(pa.int8(), pa.string()))])
    names = ["a", "b"], ["a", "b", "c"], ["z", "y"]
    for deltas in (False, True):
        path = str(tmp_path / f"{deltas}.arrow")
        with pa.ipc.new_stream(path, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)) as writer:
            for used in names:
                ids = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(used))
                if used == names[1]:
                    ids = pa.DictionaryArray.from_arrays(pa.array([2, 0], pa.int8()), pa.array(used))
                writer.write_batch(pa.record_batch([pa.array([[1.0], [2.0]], schema.field(0).type), ids], schema))
        reader = IpcReader(path, None, "id")
        assert read(reader)[1] == ["a", "b", "c", "a", "z", "y"]
        assert read(reader, 3)[1] == ["a", "z", "y"]


def test_bfloat16_is_widened(tmp_path):
    """Under Lance's name, as it is kept where Lance is not loaded."""
    bits = np.arange(0x3F80, 0x3F80 + 24, dtype=np.uint16)
    item = pa.field("item", pa.binary(2), metadata={"ARROW:extension:name": "lance.bfloat16"})
    values = pa.Array.from_buffers(pa.binary(2), 24, [None, pa.py_buffer(bits)])
    for type_ in (pa.list_(item, 4), pa.list_(item)):
        buffers = [None] if pa.types.is_fixed_size_list(type_) else [None, pa.py_buffer(np.arange(7, dtype="i4") * 4)]
        array = pa.Array.from_buffers(type_, 6, buffers, children=[values])
        path = write(str(tmp_path / "x.arrow"), pa.table({"emb": array}), True, 4)
        reader = IpcReader(path)
        assert reader.dtype == np.float32
        expected = (bits.astype(np.uint32) << 16).view(np.float32).reshape(6, 4)
        np.testing.assert_array_equal(read(reader, 1)[0], expected[1:])


def test_blocks_stay_small_inside_a_large_batch(tmp_path, monkeypatch):
    """A file of one batch takes no more memory than one of many; rows before the start are not even read."""
    monkeypatch.setattr(base, "BLOCK_BYTES", 4 * 8 * 10)
    path = write(str(tmp_path / "x.arrow"), pa.table({"emb": lists(values_of(500, 8), "list")}), True)
    asked: list[int] = []
    plain = ipccolumns._Plain.read

    def noting(self, start, stop):
        asked.append(stop - start)
        return plain(self, start, stop)

    monkeypatch.setattr(ipccolumns._Plain, "read", noting)
    reader = IpcReader(path)
    asked.clear()
    sizes = [len(block) for block, _ in reader.blocks(455)]
    assert sizes == [10, 10, 10, 10, 5]
    assert max(asked) == 4 * 8 * 10
    assert sum(asked) == 45 * 8 * 4 + (45 + 5) * 4


def test_lists_of_another_length_are_refused_with_their_row(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 8)
    rows = [[1.0, 2.0], None, [3.0, 4.0], [5.0], [6.0, 7.0]]
    path = write(str(tmp_path / "x.arrow"), pa.table({"emb": pa.array(rows, pa.list_(pa.float32()))}), True, 3)
    reader = IpcReader(path)
    for start in (0, 2, 3):
        with pytest.raises(
            DataError, match=r"x.arrow: column 'emb': row 3 has 1 values, and the rows before it have 2"
        ):
            list(reader.blocks(start))


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
            {"a": "s"},
            None,
            None,
            r"no column holds lists of float16, bfloat16, float32 or float64; it has 'a' \(string\)",
        ),
        ({"a": "m"}, None, None, "one vector a row is needed: flatten or pool them first"),
        ({"a": "t"}, "a", None, "one vector a row is needed: flatten or pool them first"),
        ({"a": "f"}, "b", None, "no column 'b'; it has 'a'"),
        ({"a": "f", "b": "i"}, "b", None, "column 'b' holds list<.*int32>.*choose with --column one of 'a'"),
        ({"a": "f", "b": "x"}, None, "b", "column 'b': holds double, and ids are strings or integers"),
        ({"a": "f"}, None, "b", "no column 'b'; it has 'a'"),
        ({"a": "f", "b": "n"}, None, "b", "column 'b': row 0 has no id"),
        ({"a": "f", "b": "d"}, None, "b", "column 'b': row 0 has no id"),
        ({"a": "f", "b": "u"}, None, "b", "beyond 64-bit"),
        ({"a": "z"}, None, None, "column 'a': every row is null"),
    ],
)
def test_columns_that_cannot_be_used(tmp_path, columns, column, ids, message):
    kinds = {
        "f": pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
        "g": pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)),
        "i": pa.array([[1, 2]], pa.list_(pa.int32())),
        "m": pa.array([[[1.0, 2.0]]], pa.list_(pa.list_(pa.float32()))),
        "t": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [1, 2]), pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
        ),
        "s": pa.array(["a"]),
        "n": pa.array([None], pa.string()),
        "d": pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([None, "a"])),
        "x": pa.array([1.5]),
        "u": pa.array([2**63], pa.uint64()),
        "z": pa.array([None], pa.list_(pa.float32())),
    }
    table = pa.table({name: kinds[kind] for name, kind in columns.items()})
    path = write(str(tmp_path / "x.arrow"), table, True)
    with pytest.raises(InputError, match=message) as error:
        list(IpcReader(path, column, ids).blocks(0))
    assert "x.arrow" in str(error.value)


def test_two_columns_of_one_name(tmp_path):
    one = lists(values_of(3, 2), "list")
    path = write(str(tmp_path / "x.arrow"), pa.Table.from_arrays([one, one], ["a", "a"]), True)
    with pytest.raises(InputError, match="2 columns have the name 'a'"):
        IpcReader(path, "a")


@pytest.mark.parametrize("file", [True, False])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_cut_off_anywhere(tmp_path, file, codec):
    """No part of a file or stream is taken for the whole, wherever it ends: one message, never fewer rows."""
    table = pa.table({"emb": lists(values_of(60, 3), "list"), "id": ids_of(60)["category_text"]})
    whole = write(str(tmp_path / "x.arrow"), table, file, 20, compression=codec)
    data = (tmp_path / "x.arrow").read_bytes()
    assert read(IpcReader(whole, None, "id"))[0].shape == (60, 3)
    cut = tmp_path / "cut.arrow"
    for length in [*range(0, len(data), 37), *range(len(data) - 12, len(data))]:
        cut.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut.arrow: .*(damaged|cut off|neither)"):
            list(IpcReader(str(cut), None, "id").blocks(0))
    if not file:
        cut.write_bytes(data + b"more")
        with pytest.raises(DataError, match="4 bytes behind its end mark"):
            IpcReader(str(cut))


@settings(max_examples=100)
@given(file=st.booleans(), codec=st.sampled_from([None, "lz4"]), place=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_wrong_byte_never_breaks_more_than_values(tmp_path_factory, file, codec, place, byte):
    """Whatever byte is changed: rows of the right shape, or one of our errors; nothing else."""
    table = pa.table({"emb": lists(values_of(30, 3), "list"), **ids_of(30)})
    path = tmp_path_factory.mktemp("ipc") / "x.arrow"
    write(str(path), table, file, 10, compression=codec)
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] = byte
    path.write_bytes(data)
    for ids in ("text", "view_text", "category_text"):
        with contextlib.suppress(InputError):
            values, names = read(IpcReader(str(path), "emb", ids))
            assert values.ndim == 2
            assert len(values) == len(names)


def test_what_is_no_arrow(tmp_path):
    path = tmp_path / "x.arrow"
    with pytest.raises(InputError, match="no such file"):
        IpcReader(str(path))
    for content in (b"", b"abc", b"hello world, this is no Arrow file", b"\x93NUMPY" + b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match="neither an Arrow IPC file nor a stream"):
            IpcReader(str(path))


def test_memory_beside_blocks(tmp_path):
    """What is read whole is told to the memory check: decompressed buffers, dictionaries, views."""
    values = lists(values_of(100, 3), "list")

    def overhead(ids: str | None, codec: str | None) -> int:
        table = pa.table({"emb": values, **ids_of(100)})
        return IpcReader(write(str(tmp_path / "x"), table, True, compression=codec), None, ids).read_overhead_bytes

    assert overhead(None, None) == overhead("text", None) == 0
    assert overhead("view_text", None) >= ids_of(100)["view_text"].nbytes
    assert overhead("category_text", None) >= ids_of(100)["text"].nbytes
    assert overhead(None, "zstd") >= 2 * ipccolumns.WHOLE_BYTES


def test_matrix_of_a_tensor_column():
    values = values_of(7, 3)
    np.testing.assert_array_equal(arrow.matrix(lists(values, "tensor").slice(2), 3, "x", 2), values[2:])


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_long_ids_make_short_blocks(tmp_path, codec):
    ids = [f"{row:04}" * 3000 for row in range(2500)]
    table = pa.table({"vector": [[float(row)] for row in range(2500)], "id": ids})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    held = []
    for values, texts in IpcReader(str(tmp_path / "x.arrow"), None, "id").blocks(0):
        assert len(values) * 12_000 < base.BLOCK_BYTES * 1.1
        held += zip(values[:, 0].tolist(), texts.tolist(), strict=True)
    assert held == list(zip(range(2500), ids, strict=True))
