"""NPY files, as NumPy writes them, come back bit by bit; damaged and foreign ones are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings.sources import base
from streamcurate.embeddings.sources.npy import NpyReader, open_reader
from streamcurate.errors import DataError, InputError


def written(path, values, version=None) -> str:
    with open(path, "wb") as file:
        np.lib.format.write_array(file, values, version=version, allow_pickle=True)
    return str(path)


@settings(max_examples=80)
@given(
    rows=st.integers(0, 70),
    dims=st.integers(1, 9),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]),
    fortran=st.booleans(),
    version=st.sampled_from([None, (1, 0), (2, 0), (3, 0)]),
    block_bytes=st.integers(1, 400),
    data=st.data(),
)
def test_round_trip(tmp_path_factory, rows, dims, dtype, fortran, version, block_bytes, data):
    size = rows * dims * np.dtype(dtype).itemsize
    raw = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    # Any bits at all: NaN payloads, infinities and subnormal numbers included.
    values = np.frombuffer(raw.tobytes(), dtype=dtype).reshape(rows, dims)
    path = written(tmp_path_factory.mktemp("npy") / "x.npy", np.asfortranarray(values) if fortran else values, version)
    start = data.draw(st.integers(0, rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        reader = NpyReader(path)
        blocks = [block for block, ids in reader.blocks(start) if ids is None]
    assert (reader.rows, reader.dims, reader.dtype) == (rows, dims, np.dtype(dtype).newbyteorder("="))
    assert all(block.dtype == reader.dtype and block.flags.c_contiguous for block in blocks)
    read = np.concatenate([np.empty((0, dims), reader.dtype), *blocks])
    expected = values[start:].astype(reader.dtype)
    assert read.tobytes() == expected.tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_bfloat16_as_ml_dtypes_saves_it(tmp_path, order):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    # Every pattern there is: float32 holds them all.
    values = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).reshape(-1, 8)
    path = written(tmp_path / "x.npy", np.asarray(values, order=order))
    reader = NpyReader(path)
    assert (reader.rows, reader.dims, reader.dtype) == (1 << 13, 8, np.float32)
    read = np.concatenate([block for block, _ in reader.blocks(5)])
    expected = values[5:].astype(np.float32)
    finite = np.isfinite(expected)
    assert read[finite].tobytes() == expected[finite].tobytes()
    np.testing.assert_array_equal(read, expected)


def test_blocks_that_are_kept_keep_their_values(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 64)
    values = np.arange(400, dtype=np.float32).reshape(100, 4)
    reader = NpyReader(written(tmp_path / "x.npy", values))
    kept = [block[1:] for block, _ in reader.blocks(0)]
    np.testing.assert_array_equal(np.concatenate(kept), np.delete(values, np.s_[::4], axis=0))


def test_blocks_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 64)
    values = np.zeros((100, 4), dtype=np.float32)
    for order in "CF":
        path = written(tmp_path / "x.npy", np.asarray(values, order=order))
        reader = NpyReader(path)
        assert {len(block) for block, _ in reader.blocks(0)} == {4}
        # Fortran order reads four blocks at a time, column by column.
        assert reader.read_overhead_bytes == (0 if order == "C" else 4 * 64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5, np.float32), "1 dimensions, shape \\(5,\\)"),
        (np.zeros((2, 2, 2), np.float32), "3 dimensions"),
        (np.zeros((5, 0), np.float32), "rows are empty"),
        (np.zeros((2, 2), np.int32), "holds int32"),
        (np.zeros((2, 2), bool), "holds bool"),
        (np.zeros((2, 2), complex), "holds complex128"),
        (np.zeros((2, 2), np.longdouble), "holds (float128|longdouble|float64)"),
        (np.zeros((2, 2), [("a", "f4")]), "structured"),
        (np.zeros((2, 2), "V2"), r"raw values of two bytes \(\|V2\), which may be anything; save bfloat16 as"),
        (np.zeros((2, 2), "V3"), "holds void24"),
        (np.array([["a", None]], dtype=object), "pickled"),
    ],
)
def test_what_are_no_embeddings(tmp_path, values, message):
    path = written(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=message) as error:
        NpyReader(path)
    assert str(error.value).startswith(path)


@pytest.mark.parametrize("change", [-1, -200, +1])
def test_a_file_of_another_length_is_refused(tmp_path, change):
    path = tmp_path / "x.npy"
    written(path, np.zeros((10, 8), np.float32))
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"x" * change)
    with pytest.raises(DataError, match="truncated" if change < 0 else "too long") as error:
        NpyReader(str(path))
    assert f"{len(data):,}" in str(error.value)


def test_damaged_headers(tmp_path):
    path = tmp_path / "x.npy"
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 3), np.float32))
    good = buffer.getvalue()
    for data in (
        b"",
        good[:5],
        good[:20],
        b"PK" + good[2:],
        good.replace(b"descr", b"dexcr"),
        good.replace(b"(3, 3)", b"(3, x)"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match="NPY"):
            NpyReader(str(path))


def test_a_header_is_data_not_code(tmp_path):
    path = tmp_path / "x.npy"
    text = b"__import__('os').system('true')".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(InputError, match="header cannot be read"):
        NpyReader(str(path))


def test_missing_folder_and_columns(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        NpyReader(str(tmp_path / "absent.npy"))
    with pytest.raises(InputError, match="a folder"):
        NpyReader(str(tmp_path))
    path = written(tmp_path / "x.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(InputError, match="no columns; leave out --column emb"):
        open_reader(path, "emb", None)
    with pytest.raises(
        InputError, match=r"no column 'name', and there is no metadata of it \(metadata\.parquet or x\.parquet"
    ):
        open_reader(path, None, "name")


def test_cut_short_while_being_read(tmp_path):
    path = tmp_path / "x.npy"
    reader = NpyReader(written(path, np.zeros((1000, 8), np.float32)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cut short"):
        list(reader.blocks(0))
