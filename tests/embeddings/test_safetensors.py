"""safetensors files, as the library writes them, come back bit by bit; damaged and foreign ones are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import base
from streamcurate.embeddings.sources.safetensors import SafetensorsReader
from streamcurate.errors import DataError, InputError

safetensors = pytest.importorskip("safetensors.numpy")

VALUES = np.random.default_rng(3).standard_normal((50, 6)).astype(np.float32)


def written(path, **tensors) -> str:
    safetensors.save_file(tensors, path, metadata={"made": "here"})
    return str(path)


@settings(max_examples=60)
@given(
    rows=st.integers(0, 70),
    dims=st.integers(1, 9),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    ids=st.sampled_from([None, "int8", "int32", "int64", "uint8", "uint64"]),
    block_bytes=st.integers(1, 400),
    data=st.data(),
)
def test_round_trip(tmp_path_factory, rows, dims, dtype, ids, block_bytes, data):
    size = rows * dims * np.dtype(dtype).itemsize
    raw = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    values = np.frombuffer(raw.tobytes(), dtype=dtype).reshape(rows, dims)
    tensors = {"emb": values, "odd": np.zeros(3, np.uint8)}
    if ids:
        tensors["n"] = np.arange(rows)[::-1].astype(ids)
    path = written(tmp_path_factory.mktemp("st") / "x.safetensors", **tensors)
    start = data.draw(st.integers(0, rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        reader = SafetensorsReader(path, None, "n" if ids else None)
        blocks = list(reader.blocks(start))
    assert (reader.rows, reader.dims, reader.dtype) == (rows, dims, np.dtype(dtype))
    assert reader.ids_dtype == (base.INTEGER if ids else None)
    read = np.concatenate([np.empty((0, dims), reader.dtype), *(block for block, _ in blocks)])
    assert read.tobytes() == values[start:].tobytes()
    if ids:
        assert [one for _, block in blocks for one in block.tolist()] == list(range(rows))[::-1][start:]


def test_bfloat16_is_widened(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = VALUES.astype(ml_dtypes.bfloat16)
    # Beyond float16, of which nothing may be made on the way.
    values[0, 0] = 1e38
    path = written(tmp_path / "x.safetensors", emb=values)
    store = ingest(path, tmp_path / "e.zarr", rows_per_chunk=7)
    assert store.dtype == np.float32
    assert store.read(0, 50).tobytes() == values.astype(np.float32).tobytes()


def test_ingest_with_ids(tmp_path):
    ids = np.arange(50) * 2**40
    path = written(tmp_path / "x.safetensors", a=VALUES, b=VALUES + 1, key=ids)
    store = ingest(path, tmp_path / "e.zarr", column="b", ids="key", rows_per_chunk=7)
    assert store.read(0, 50).tobytes() == (VALUES + 1).tobytes()
    assert store.take_ids(np.arange(50)).tolist() == ids.tolist()


def test_which_tensor(tmp_path):
    path = written(
        tmp_path / "x.safetensors",
        a=VALUES,
        b=VALUES,
        n=np.arange(50),
        few=np.arange(4),
        m=np.zeros((50, 2), np.int32),
        s=np.zeros((2, 2, 2)),
        big=np.full(50, 2**63, np.uint64),
        t=np.zeros((2, 2), bool),
    )
    cases = {
        (None, None): "several tensors may be embeddings; choose with --column one of 'a', 'b'",
        ("c", None): "no tensor 'c'; it has 'big', 'few', .*'a', 'b'",
        ("a", "c"): "no tensor 'c'",
        ("n", None): "tensor 'n': an array of 1 dimensions",
        ("m", None): "tensor 'm': holds I32, and embeddings are F16, BF16, F32 or F64",
        ("t", None): "tensor 't': holds BOOL",
        ("s", None): "tensor 's': an array of 3 dimensions",
        ("a", "few"): r"tensor 'few': shape \(4,\) of I64; ids in safetensors are 50 integers",
        ("a", "b"): r"tensor 'b': shape \(50, 6\) of F32",
    }
    for (column, ids), message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            SafetensorsReader(path, column, ids)
        assert str(error.value).startswith(path)
    with pytest.raises(DataError, match="tensor 'big': ids beyond 64-bit signed integers"):
        list(SafetensorsReader(path, "a", "big").blocks(0))
    path = written(tmp_path / "x.safetensors", n=np.arange(3))
    with pytest.raises(InputError, match=r"no two-dimensional tensor .* it has 'n' \(I64, shape \(3,\)\)"):
        SafetensorsReader(path)
    with pytest.raises(InputError, match="no such file"):
        SafetensorsReader(str(tmp_path / "absent.safetensors"))
    with pytest.raises(InputError, match="a folder"):
        SafetensorsReader(str(tmp_path))


def test_damage(tmp_path):
    path = tmp_path / "x.safetensors"
    written(path, a=VALUES)
    good = path.read_bytes()
    for data, message in (
        (b"", "not a safetensors file, or cut off"),
        (good[:5], "cut off"),
        (good[:30], "cut off"),
        (b"\xff" * 8 + good[8:], "cut off"),
        (good[:8] + b"x" + good[9:], "header"),
        (good.replace(b"data_offsets", b"data_offzets"), "header: 'data_offsets'"),
        (good[:-1], "truncated"),
        (good + b"x", "too long"),
        (good.replace(b"[50,6]", b"[49,6]"), r"1,200 bytes for shape \(49, 6\) of F32"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message) as error:
            SafetensorsReader(str(path))
        assert str(path) in str(error.value)
    twice = b'{"a":{"dtype":"F32","shape":[0,1],"data_offsets":[0,0]},"a":{}}'
    path.write_bytes(len(twice).to_bytes(8, "little") + twice)
    with pytest.raises(InputError, match="the same name twice"):
        SafetensorsReader(str(path))
    assert json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["a"]["shape"] == [50, 6]


def test_cut_short_while_being_read(tmp_path):
    path = tmp_path / "x.safetensors"
    reader = SafetensorsReader(written(path, a=VALUES))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cut short"):
        list(reader.blocks(0))
