"""Shards as output: Zarr reads them, parts of them are read by range, and half of one is nothing."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import StoreError
from streamcurate.storage import SequentialWriter, ShardWriter, create_array, open_array
from streamcurate.storage.chunkfiles import LocalFiles
from streamcurate.storage.shards import index_bytes


@settings(max_examples=60)
@given(
    rows=st.integers(1, 60),
    chunk_rows=st.integers(1, 9),
    chunks=st.integers(1, 5),
    dims=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from(["float16", "float32", "int64", "bool"]),
    data=st.data(),
)
def test_zarr_reads_what_we_write_and_we_what_zarr_writes(
    tmp_path_factory, rows, chunk_rows, chunks, dims, dtype, data
):
    shape = (rows,) if dims is None else (rows, dims)
    values = np.random.default_rng(rows).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    folder = tmp_path_factory.mktemp("shards")
    array = create_array(folder / "ours", shape, dtype, chunk_rows, shard_rows=chunk_rows * chunks)
    assert array.unit_rows == min(chunk_rows, rows)
    assert array.chunk_rows % array.unit_rows == 0
    for shard in data.draw(st.permutations(range(-(-rows // array.chunk_rows)))):
        start = shard * array.chunk_rows
        array.write(start, values[start : start + array.chunk_rows])
    np.testing.assert_array_equal(zarr.open_array(folder / "ours", mode="r")[...], values)
    theirs = create_array(folder / "theirs", shape, dtype, chunk_rows, shard_rows=chunk_rows * chunks).zarr
    theirs[...] = values
    for name in ("ours", "theirs"):
        again = open_array(folder / name)
        start = data.draw(st.integers(0, rows))
        stop = data.draw(st.integers(start, rows))
        np.testing.assert_array_equal(again.read(start, stop), values[start:stop])
        wanted = np.array(sorted(data.draw(st.lists(st.integers(0, rows - 1), max_size=9))), dtype=np.int64)
        np.testing.assert_array_equal(again.take(wanted), values[wanted])
    # To the byte: chunks in the order of their rows, the index behind them.
    files = [[file.read_bytes() for file in sorted((folder / name).rglob("c/**/*")) if file.is_file()] for name in
             ("ours", "theirs")]  # fmt: skip
    assert files[0] == files[1]


@settings(max_examples=40)
@given(pieces=st.lists(st.integers(0, 17), min_size=1, max_size=8).filter(sum), chunk_rows=st.integers(1, 7))
def test_any_pieces(tmp_path_factory, pieces, chunk_rows):
    values = np.arange(2 * sum(pieces), dtype=np.float32).reshape(-1, 2)
    array = create_array(tmp_path_factory.mktemp("x") / "x", values.shape, "f4", chunk_rows, shard_rows=3 * chunk_rows)
    with SequentialWriter(array) as writer:
        for piece in np.split(values, np.cumsum(pieces)[:-1]):
            writer.append(piece)
    np.testing.assert_array_equal(array.read(0, len(values)), values)


def test_shards_of_strings(tmp_path):
    strings = np.array([f"id {row}" for row in range(23)], dtype=object)
    array = create_array(tmp_path / "ids", (23,), str, 2, shard_rows=8)
    with SequentialWriter(array) as writer:
        writer.append(strings)
    again = open_array(tmp_path / "ids")
    assert (again.chunk_rows, again.unit_rows) == (8, 2)
    assert again.read(1, 20).tolist() == strings[1:20].tolist()
    assert again.take(np.array([0, 9, 22])).tolist() == ["id 0", "id 9", "id 22"]
    with pytest.raises(ValueError, match="not an array of plain rows in shards"):
        ShardWriter(again, 0)


def test_a_part_is_read_without_the_rest(tmp_path, monkeypatch):
    """One row of a shard costs its own bytes and, the first time, the index."""
    values = np.arange(64_000, dtype=np.float32).reshape(-1, 4)
    array = create_array(tmp_path / "x", values.shape, "f4", 100, shard_rows=4000)
    array.write(0, values)
    array = open_array(tmp_path / "x")
    read: list[int] = []
    before = LocalFiles.read

    def noting(self, name, pieces, length=None):
        read.append(sum(len(view) for _, view in pieces))
        return before(self, name, pieces, length)

    monkeypatch.setattr(LocalFiles, "read", noting)
    np.testing.assert_array_equal(array.read(5555, 5556), values[5555:5556])
    np.testing.assert_array_equal(array.take(np.array([7998, 7999])), values[7998:8000])
    assert read == [40 * 16 + 4, 16, 32]
    assert array.read_overhead_bytes == 0


def test_a_shard_is_not_held_in_memory(tmp_path):
    array = create_array(tmp_path / "x", (1 << 20, 16), "f4", 1 << 12, shard_rows=1 << 20, durable=False)
    block = np.ones((1 << 14, 16), dtype=np.float32)
    tracemalloc.start()
    try:
        with SequentialWriter(array) as writer:
            for _ in range(64):
                writer.append(block)
        array.read(5000, 6000)
        assert tracemalloc.get_traced_memory()[1] < 2 * block.nbytes
    finally:
        tracemalloc.stop()
    assert array.read(1 << 19, (1 << 19) + 3).tolist() == np.ones((3, 16)).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "checksum is wrong"),
        (lambda data: data[:100], "checksum is wrong"),
        (lambda data: data[:30], "is truncated: it holds 30 bytes"),
        (lambda data: b"", "is truncated: it holds 0 bytes"),
        (lambda data: data[8:], "is truncated: it holds"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], "checksum is wrong"),
    ],
)
def test_a_damaged_shard_is_an_error(tmp_path, change, said):
    values = np.arange(46, dtype=np.float32).reshape(23, 2)
    create_array(tmp_path / "x", (23, 2), "f4", 2, shard_rows=8).write(0, values)
    file = tmp_path / "x" / "c" / "1" / "0"
    file.write_bytes(change(file.read_bytes()))
    array = open_array(tmp_path / "x")
    with pytest.raises(StoreError, match=rf"chunk 1 \(rows 8 to 15\): {file} .*{said}"):
        array.read(0, 23)
    np.testing.assert_array_equal(array.read(0, 8), values[:8])


def test_a_shard_that_was_written_anew_is_read_anew(tmp_path):
    """Its chunks may lie elsewhere now; what is remembered of the old one must not be believed."""
    array = create_array(tmp_path / "x", (8, 2), "f4", 2, shard_rows=8)
    array.write(0, np.zeros((8, 2), dtype=np.float32))
    reader = open_array(tmp_path / "x")
    assert not reader.read(0, 8).any()
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    # Other places in a file of the same form: all chunks moved by one.
    data = bytes(16) + values.tobytes()
    offsets = np.arange(4, dtype=np.uint64) * np.uint64(16) + np.uint64(16)
    (tmp_path / "x" / "c" / "0" / "0").write_bytes(data + index_bytes(offsets, np.full(4, 16, dtype=np.uint64)))
    np.testing.assert_array_equal(reader.read(0, 8), values)
    np.testing.assert_array_equal(reader.take(np.array([0, 7])), values[[0, 7]])


def _append(writer, *pieces):
    for piece in pieces:
        writer.append(piece)


def test_half_a_shard_is_nothing(tmp_path):
    array = create_array(tmp_path / "x", (20, 2), "f4", 2, shard_rows=8)
    block = np.ones((5, 2), dtype=np.float32)

    def files() -> list[Path]:
        return [file for file in (tmp_path / "x").rglob("*") if file.is_file() and file.name != "zarr.json"]

    with pytest.raises(TypeError), ShardWriter(array, 0) as writer:
        _append(writer, block, None)
    with pytest.raises(ValueError, match="5 rows of the 8 of a shard"), ShardWriter(array, 1) as writer:
        writer.append(block)
    writer = ShardWriter(array, 2)
    with pytest.raises(ValueError, match="more rows than the 4 of a shard"):
        writer.append(block)
    with pytest.raises(ValueError, match="written up to row 5 of 20"), SequentialWriter(array) as sequential:
        sequential.append(block)
    with pytest.raises(ValueError, match="shard 3 of 3"):
        ShardWriter(array, 3)
    assert files() == []
    with ShardWriter(array, 2) as writer:
        writer.append(block[:3])
        writer.close(short=True)
    assert len(files()) == 1


def test_shards_hold_whole_chunks(tmp_path):
    for shard_rows in (3, 1, 5):
        with pytest.raises(ValueError, match="do not hold whole chunks of 2"):
            create_array(tmp_path / "x", (20, 2), "f4", 2, shard_rows=shard_rows)
    with pytest.raises(ValueError, match="not whole chunks"):
        create_array(tmp_path / "x", (20, 2), "f4", 2, shard_rows=8).write(2, np.ones((2, 2), dtype=np.float32))
