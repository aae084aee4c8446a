"""Stored arrays against NumPy, in every layout Zarr knows, and with every kind of damage."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from streamcurate.errors import DiskFullError, InputError, StoreError
from streamcurate.storage import create_array, create_group, local_path, open_array, set_rows

ROWS, DIMS = 23, 6


def values_of(dtype: str, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, DIMS)).astype(dtype)


def v3(path: Path, values: np.ndarray, chunks=(5, DIMS), **options) -> None:
    options = {"compressors": None, "config": {"write_empty_chunks": True}} | options
    array = zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=chunks, **options)
    array[:] = values


def v2(path: Path, values: np.ndarray, chunks=(5, DIMS), **options) -> None:
    v3(path, values, chunks, zarr_format=2, **options)


BIG = BytesCodec(endian="big")
# Name → (writer of the layout, whether files hold the rows' own bytes).
LAYOUTS = {
    "v3": (v3, True),
    "v3 odd chunks": (lambda path, values: v3(path, values, (7, DIMS)), True),
    "v3 one chunk": (lambda path, values: v3(path, values, (ROWS, DIMS)), True),
    "v3 zstd": (lambda path, values: v3(path, values, compressors=ZstdCodec()), False),
    "v3 big-endian": (lambda path, values: v3(path, values, serializer=BIG), False),
    "v3 transposed": (lambda path, values: v3(path, values, filters=[TransposeCodec(order=(1, 0))]), False),
    "v3 column chunks": (lambda path, values: v3(path, values, (5, 4)), False),
    "v3 wide chunks": (lambda path, values: v3(path, values, (5, DIMS + 3)), False),
    "v3 sharded": (lambda path, values: v3(path, values, (2, DIMS), shards=(6, DIMS)), True),
    "v3 one shard": (lambda path, values: v3(path, values, (3, DIMS), shards=(24, DIMS)), True),
    "v3 sharded, index first": (
        lambda p, v: v3(p, v, (2, DIMS), shards={"shape": (8, DIMS), "index_location": "start"}),
        True,
    ),
    "v3 sharded, no checksum": (
        lambda p, v: v3(p, v, (6, DIMS), serializer=ShardingCodec(chunk_shape=(2, DIMS), index_codecs=[BytesCodec()])),
        True,
    ),
    "v3 sharded big-endian": (lambda p, v: v3(p, v, (2, DIMS), shards=(6, DIMS), serializer=BIG), False),
    "v3 sharded columns": (lambda path, values: v3(path, values, (2, 2), shards=(6, 4)), False),
    "v3 sharded gzip": (lambda p, v: v3(p, v, (2, 3), shards=(8, DIMS), compressors=GzipCodec()), False),
    "v2": (v2, True),
    "v2 slashes": (lambda p, v: v2(p, v, chunk_key_encoding={"name": "v2", "separator": "/"}), True),
    "v2 compressed": (lambda path, values: v2(path, values, compressors="auto"), False),
    "v2 Fortran order": (lambda path, values: v2(path, values, order="F"), False),
    "v2 big-endian": (lambda path, values: v2(path, values.astype(values.dtype.newbyteorder(">"))), False),
}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Every layout, written once: (values, handle)."""
    made = {}
    for name, (write, _) in LAYOUTS.items():
        values = values_of("float16" if "zstd" in name else "float32")
        path = tmp_path_factory.mktemp("layout") / "a.zarr"
        write(path, values)
        made[name] = values, open_array(path)
    return made


@pytest.mark.parametrize("name", LAYOUTS)
def test_opens_every_layout(arrays, name):
    values, array = arrays[name]
    assert array.shape == values.shape
    assert array.dtype == values.dtype.newbyteorder("=")
    assert array.dtype.isnative
    assert array.nbytes == values.nbytes
    # Rows that are the files' own bytes are read without Zarr's codecs and without memory beside the result.
    assert (array.read_overhead_bytes == 0) == LAYOUTS[name][1]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(LAYOUTS)))
def test_any_range_and_any_rows(arrays, data, name):
    values, array = arrays[name]
    start = data.draw(st.integers(0, ROWS))
    stop = data.draw(st.integers(start, ROWS))
    read = array.read(start, stop)
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, values[start:stop])
    out = np.full((stop - start, DIMS), 9, dtype=array.dtype)
    assert array.read(start, stop, out=out) is out
    np.testing.assert_array_equal(out, values[start:stop])
    rows = np.array(sorted(data.draw(st.lists(st.integers(0, ROWS - 1), max_size=30))), dtype=np.int64)
    np.testing.assert_array_equal(array.take(rows), values[rows])


def test_take_of_few_rows_reads_only_those(tmp_path):
    values = np.arange(20_000, dtype=np.float32).reshape(-1, 2)
    v3(tmp_path / "a", values, (4000, 2))
    rows = np.array([0, 3999, 4000, 9999])
    np.testing.assert_array_equal(open_array(tmp_path / "a").take(rows), values[rows])


def test_out_of_range_is_refused(arrays):
    _, array = arrays["v3"]
    for start, stop in ((-1, 3), (3, 2), (0, ROWS + 1)):
        with pytest.raises(IndexError, match="rows"):
            array.read(start, stop)
    with pytest.raises(IndexError, match="rows"):
        array.take(np.array([0, ROWS]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["v3", "v3 zstd"]))
def test_rows_by_index(arrays, data, name):
    values, array = arrays[name]
    bound = st.none() | st.integers(-ROWS - 3, ROWS + 3)
    key = slice(data.draw(bound), data.draw(bound), data.draw(st.sampled_from([None, 1])))
    np.testing.assert_array_equal(array[key], values[key])
    row = data.draw(st.integers(-ROWS, ROWS - 1))
    for number in (row, np.int64(row)):
        np.testing.assert_array_equal(array[number], values[row])


def test_as_a_sequence_and_as_an_array(arrays):
    values, array = arrays["v3"]
    assert len(array) == ROWS
    np.testing.assert_array_equal(list(array), values)
    np.testing.assert_array_equal(np.asarray(array), values)
    assert np.asarray(array, dtype="f8").dtype == np.float64
    with pytest.raises(ValueError, match="always a copy"):
        np.asarray(array, copy=False)
    for row in (ROWS, -ROWS - 1):
        with pytest.raises(IndexError, match=f"row {row} of {ROWS}"):
            array[row]
    for key in (slice(None, None, 2), slice(None, None, -1), (0, 1), [0, 1], np.array([1]), True, 1.0, "a", None):
        with pytest.raises(TypeError, match=r"use take\(\)"):
            array[key]


def test_strings_by_index(tmp_path):
    strings = ["a", "", "ü", "long enough to lie elsewhere", "e"]
    ours = create_array(tmp_path / "ours", (5,), str, 2)
    ours.write(0, np.array(strings, dtype=object))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's own, of a dtype without a specification
        fixed = zarr.create_array(tmp_path / "fixed", shape=(5,), dtype="<U30", chunks=(2,))
    fixed[...] = np.array(strings, dtype="<U30")
    for name in ("ours", "fixed"):
        array = open_array(tmp_path / name)
        assert array[1:4].dtype == object
        assert array[1:4].tolist() == strings[1:4]
        assert array[-2] == strings[-2]
        assert {type(one) for one in [*array[:], array[0], *array, *np.asarray(array)]} == {str}


def chunk_file(array, chunk: int) -> Path:
    return Path(array.path, array.zarr.metadata.encode_chunk_key((chunk, 0)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_absent_chunk_is_an_error_not_zeros(tmp_path, name):
    LAYOUTS[name][0](tmp_path / "a.zarr", values_of("float32"))
    array = open_array(tmp_path / "a.zarr")
    chunk = (ROWS - 1) // array.chunk_rows
    file = chunk_file(array, chunk)
    file.unlink()
    assert array.stamps()[chunk] == (-1, -1)
    first = chunk * array.chunk_rows
    with pytest.raises(StoreError, match=rf"chunk {chunk} \(rows {first} to {ROWS - 1}\) is absent"):
        array.read(0, ROWS)
    with pytest.raises(StoreError, match=str(file)):
        array.take(np.array([ROWS - 1]))
    if chunk:
        assert array.read(0, first).shape == (first, DIMS)


@pytest.mark.parametrize("name", ["v3", "v2", "v3 zstd", "v2 compressed", "v3 sharded"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_chunk_is_an_error(tmp_path, name, keep):
    LAYOUTS[name][0](tmp_path / "a.zarr", values_of("float32"))
    array = open_array(tmp_path / "a.zarr")
    file = chunk_file(array, 1)
    os.truncate(file, int(file.stat().st_size * keep))
    with pytest.raises(StoreError, match=r"chunk 1 \(rows"):
        array.read(0, ROWS)


def test_a_longer_chunk_is_an_error(tmp_path):
    v3(tmp_path / "a", values_of("float32"))
    array = open_array(tmp_path / "a")
    with open(chunk_file(array, 0), "ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match="too long"):
        array.read(0, 1)


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_hole_in_a_shard_is_an_error(tmp_path, where):
    """Zarr leaves all-zero chunks out of a shard by default and reads what is lost the same way."""
    values = values_of("float32")
    values[2:4] = 0
    shards = {"shape": (6, DIMS), "index_location": where}
    v3(tmp_path / "a", values, (2, DIMS), shards=shards, config={"write_empty_chunks": False})
    with pytest.raises(StoreError, match="lacks some of its chunks"):
        open_array(tmp_path / "a").read(0, 1)
    # The last shard's chunks beyond the array's end are rightly absent.
    np.testing.assert_array_equal(open_array(tmp_path / "a").read(6, ROWS), values[6:])


def test_shards_inside_other_codecs_are_refused(tmp_path):
    """Their index is out of reach, and zarr would read a hole as zeros."""
    codec = ShardingCodec(chunk_shape=(2, DIMS))
    for name, options in (
        ("outer", {"serializer": codec, "compressors": ZstdCodec()}),
        ("nested", {"serializer": ShardingCodec(chunk_shape=(4, DIMS), codecs=[codec])}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr advises against it too
            v3(tmp_path / name, values_of("float32", 24), (8, DIMS), **options)
            with pytest.raises(StoreError, match="has shards inside other codecs"):
                open_array(tmp_path / name).read(0, 1)


def test_what_is_no_array(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_array(tmp_path / "absent")
    create_group(tmp_path / "g")
    with pytest.raises(InputError, match="group, not an array"):
        open_array(tmp_path / "g")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not a readable Zarr"):
        open_array(tmp_path / "empty")
    zarr.create_array(tmp_path / "cube", shape=(2, 2, 2), dtype="f4")
    with pytest.raises(InputError, match="3 dimensions"):
        open_array(tmp_path / "cube")


@settings(max_examples=40)
@given(
    rows=st.integers(1, 40),
    chunk_rows=st.integers(1, 50),
    dims=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from(["float16", "float32", "int32", "int64", "bool", "uint8"]),
    data=st.data(),
)
def test_written_chunks_come_back_and_zarr_reads_them(tmp_path_factory, rows, chunk_rows, dims, dtype, data):
    shape = (rows,) if dims is None else (rows, dims)
    values = np.random.default_rng(rows).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    path = tmp_path_factory.mktemp("w") / "x.zarr"
    array = create_array(path, shape, dtype, chunk_rows)
    chunks = -(-rows // array.chunk_rows)
    order = data.draw(st.permutations(range(chunks)))
    for chunk in order:
        start = chunk * array.chunk_rows
        array.write(start, values[start : start + array.chunk_rows])
    np.testing.assert_array_equal(array.read(0, rows), values)
    assert open_array(path).dtype == values.dtype
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[...], values)
    assert not list(path.rglob("*.writing"))


def test_writes_are_whole_chunks(tmp_path):
    array = create_array(tmp_path / "x", (10, 2), "float32", 4)
    for start, rows in ((1, 4), (0, 3), (8, 4), (4, 5)):
        with pytest.raises(ValueError, match="not whole chunks"):
            array.write(start, np.zeros((rows, 2), dtype=np.float32))
    array.write(4, np.ones((6, 2), dtype=np.float32))
    assert array.stamps()[0] == (-1, -1)
    assert array.read(4, 10).all()


def test_all_zero_chunks_are_written(tmp_path):
    array = create_array(tmp_path / "x", (8, 2), "float32", 4)
    array.write(0, np.zeros((8, 2), dtype=np.float32))
    assert not array.read(0, 8).any()


def test_a_full_disk_leaves_no_torn_chunk(tmp_path, monkeypatch):
    array = create_array(tmp_path / "x", (4, 2), "float32", 4)
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DiskFullError, match="no space left"):
        array.write(0, np.ones((4, 2), dtype=np.float32))
    assert [file.name for file in (tmp_path / "x").rglob("*") if file.is_file()] == ["zarr.json"]


def test_create_refuses_what_exists(tmp_path):
    create_array(tmp_path / "x", (4,), "int32", 4)
    with pytest.raises(InputError, match="already exists"):
        create_array(tmp_path / "x", (5,), "int32", 4)
    assert create_array(tmp_path / "x", (5,), "int32", 4, overwrite=True).rows == 5


@settings(max_examples=20)
@given(
    strings=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20),
    chunk_rows=st.integers(1, 8),
)
def test_strings(tmp_path_factory, strings, chunk_rows):
    path = tmp_path_factory.mktemp("s") / "ids"
    array = create_array(path, (len(strings),), str, chunk_rows)
    array.write(0, np.array(strings, dtype=object))
    again = open_array(path)
    assert again.read(0, len(strings)).tolist() == strings
    rows = np.arange(0, len(strings), 2)
    assert again.take(rows).tolist() == strings[::2]


def test_an_absent_chunk_of_strings_is_an_error(tmp_path):
    array = create_array(tmp_path / "ids", (4,), str, 2)
    array.write(2, np.array(["c", "d"], dtype=object))
    with pytest.raises(StoreError, match=r"chunk 0 \(rows 0 to 1\) is absent"):
        array.read(0, 4)


@pytest.mark.parametrize("dtype", ["float32", str])
def test_set_rows_cuts_the_length_and_keeps_the_chunks(tmp_path, dtype):
    array = create_array(tmp_path / "x", (1 << 40,), dtype, 4)
    array.write(0, np.arange(8).astype(array.dtype))
    cut = set_rows(tmp_path / "x", 10)
    cut.write(8, np.arange(8, 10).astype(array.dtype))
    expected = np.arange(10).astype(array.dtype)
    np.testing.assert_array_equal(open_array(tmp_path / "x").read(0, 10), expected)
    assert json.loads((tmp_path / "x" / "zarr.json").read_text())["shape"] == [10]


def test_stamps_tell_a_changed_chunk(tmp_path):
    array = create_array(tmp_path / "x", (8, 2), "float32", 4)
    array.write(0, np.ones((8, 2), dtype=np.float32))
    before = array.stamps()
    assert [size for size, _ in before] == [32, 32]
    os.utime(chunk_file(array, 1), ns=(1, 1))
    assert [old == new for old, new in zip(before, array.stamps(), strict=True)] == [True, False]


def test_pickles_as_its_path(arrays):
    values, array = arrays["v3 zstd"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)).read(3, 9), values[3:9])


def test_local_path(tmp_path):
    group = zarr.create_group(tmp_path / "g")
    array = group.create_array("a", shape=(2, 2), dtype="f4")
    assert local_path(array) == str(tmp_path / "g" / "a")
    assert local_path(group) == str(tmp_path / "g")
    assert local_path(group.create_group("inner")) == str(tmp_path / "g" / "inner")
    assert local_path(zarr.open(tmp_path / "g" / "a", mode="r")) == str(tmp_path / "g" / "a")
    assert local_path(zarr.create_group({})) is None
    assert local_path(np.zeros((2, 2))) is None
    assert local_path(zarr.create_array({}, shape=(2, 2), dtype="f4")) is None


@pytest.mark.parametrize("layout", ["plain", "shards"])
def test_a_chunk_that_may_not_be_read(tmp_path, monkeypatch, layout):
    made = create_array(tmp_path / "a", (8, 2), np.float32, 4, shard_rows=8 if layout == "shards" else None)
    made.write(0, np.ones((8, 2), np.float32))
    array, real = open_array(tmp_path / "a"), (os.open, os.stat)

    def refusing(function):
        def call(path, *arguments, **options):
            if "/c/" in os.fspath(path):
                raise PermissionError(13, "Permission denied", path)
            return function(path, *arguments, **options)

        return call

    monkeypatch.setattr(os, "open", refusing(real[0]))
    monkeypatch.setattr(os, "stat", refusing(real[1]))
    for read in (lambda: array.read(0, 8), lambda: array.stamp(0)):
        with pytest.raises(StoreError, match=r"a/c/0/0: cannot be read \(Permission denied\); check its permissions"):
            read()
