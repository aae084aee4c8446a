"""NPZ files, as NumPy writes them, come back bit by bit, stored or deflated; damage does not go unnoticed."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import base, npz
from streamcurate.embeddings.sources.npz import NpzReader
from streamcurate.errors import DataError, InputError

VALUES = np.random.default_rng(3).standard_normal((50, 6)).astype(np.float32)
NAMES = np.array([f"n{number}" for number in range(50)])


@settings(max_examples=60)
@given(
    rows=st.integers(0, 70),
    dims=st.integers(1, 9),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8"]),
    compressed=st.booleans(),
    fortran=st.booleans(),
    ids=st.sampled_from([None, "U", "S", "i8", "u2"]),
    block_bytes=st.integers(1, 400),
    data=st.data(),
)
def test_round_trip(tmp_path_factory, rows, dims, dtype, compressed, fortran, ids, block_bytes, data):
    size = rows * dims * np.dtype(dtype).itemsize
    raw = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    values = np.frombuffer(raw.tobytes(), dtype=dtype).reshape(rows, dims)
    names = np.arange(rows)[::-1].astype(ids) if ids else None
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    fortran = fortran and not compressed
    arrays = {"emb": np.asfortranarray(values) if fortran else values, "more": np.zeros(3)}
    (np.savez_compressed if compressed else np.savez)(path, **arrays, **({} if names is None else {"ids": names}))
    start = data.draw(st.integers(0, rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        patch.setattr(npz, "_PIECE_BYTES", 1 + block_bytes // 3)
        reader = NpzReader(str(path), None, "ids" if ids else None)
        blocks = list(reader.blocks(start))
    assert (reader.rows, reader.dims, reader.dtype) == (rows, dims, np.dtype(dtype).newbyteorder("="))
    read = np.concatenate([np.empty((0, dims), reader.dtype), *(block for block, _ in blocks)])
    assert read.tobytes() == values[start:].astype(reader.dtype).tobytes()
    if ids is not None:
        assert reader.ids_dtype == (base.INTEGER if ids[0] in "iu" else base.TEXT)
        expected = range(rows)[::-1] if ids[0] in "iu" else [str(number) for number in range(rows)[::-1]]
        assert [one for _, block in blocks for one in block.tolist()] == list(expected)[start:]


def test_ingest_with_ids(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=VALUES, b=VALUES + 1, name=NAMES)
    store = ingest(tmp_path / "x.npz", tmp_path / "e.zarr", column="b", ids="name", rows_per_chunk=7)
    assert store.read(0, 50).tobytes() == (VALUES + 1).tobytes()
    assert store.take_ids(np.arange(50)).tolist() == NAMES.tolist()


def test_which_array(tmp_path):
    path = str(tmp_path / "x.npz")
    np.savez(path, a=VALUES, b=VALUES, n=np.arange(50), few=NAMES[:4], m=np.zeros((50, 2), int), s=np.zeros((2, 2, 2)))
    cases = {
        (None, None): "several arrays may be embeddings; choose with --column one of 'a', 'b'",
        ("c", None): "no array 'c'; it has 'a', 'b', 'n'",
        ("a", "c"): "no array 'c'",
        ("n", None): r"array 'n': an array of 1 dimensions",
        ("m", None): "array 'm': holds int64",
        ("s", None): "array 's': an array of 3 dimensions",
        ("a", "few"): "array 'few': 4 ids, and 'a' has 50 rows",
        ("a", "b"): r"array 'b': shape \(50, 6\) of float32; ids are strings or integers",
    }
    for (column, ids), message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            NpzReader(path, column, ids)
        assert str(error.value).startswith(path)
    np.savez(path, n=np.arange(3))
    with pytest.raises(InputError, match=r"no two-dimensional array .* it has 'n' \(int64, shape \(3,\)\)"):
        NpzReader(path)
    np.savez(path)
    with pytest.raises(InputError, match="it has no arrays"):
        NpzReader(path)
    with pytest.raises(InputError, match="no such file"):
        NpzReader(str(tmp_path / "absent.npz"))
    with pytest.raises(InputError, match="a folder"):
        NpzReader(str(tmp_path))


def test_fortran_order_cannot_be_streamed_from_compressed_bytes(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.asfortranarray(VALUES))
    with pytest.raises(InputError, match=r"array 'a': compressed in Fortran order.*ascontiguousarray"):
        NpzReader(str(tmp_path / "x.npz"))


def test_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "x.npz", a=VALUES, o=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="array 'o': holds pickled Python objects"):
        NpzReader(str(tmp_path / "x.npz"))


def consume(path) -> list[object]:
    return [(values.tobytes(), ids.tolist()) for values, ids in NpzReader(str(path), "a", "n").blocks(0)]


def consume_or_refuse(path) -> object:
    try:
        return consume(path)
    except InputError as error:
        return "refused" if str(path) in str(error) else error


@pytest.mark.parametrize(("save", "order"), [(np.savez, "C"), (np.savez, "F"), (np.savez_compressed, "C")])
def test_no_flipped_bit_of_the_arrays_goes_unnoticed(tmp_path, save, order):
    path = tmp_path / "x.npz"
    save(path, a=np.asarray(VALUES, order=order), n=NAMES)
    good = path.read_bytes()
    expected = consume(path)
    outcomes: list[object] = []
    with zipfile.ZipFile(path) as archive:
        members = [(info.header_offset, info.compress_size) for info in archive.infolist()]
    for offset, size in members:
        lengths = np.frombuffer(good, "<u2", 2, offset + 26)
        begin = offset + 30 + int(lengths.sum())
        for place in range(begin, begin + size, max(size // 23, 1)):
            path.write_bytes(good[:place] + bytes([good[place] ^ 64]) + good[place + 1 :])
            # The last bits of a deflated stream may mean nothing.
            outcomes.append(consume_or_refuse(path))
            assert outcomes[-1] in (expected, "refused")
    assert outcomes.count("refused") >= len(outcomes) - 4


def test_cut_off_and_other_files(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=VALUES, n=NAMES)
    good = path.read_bytes()
    for data in (b"", b"PK", good[:100], good[: len(good) // 2], good[:-10], b"x" * 100):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not an NPZ file, or cut off"):
            consume(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"no array")
    with pytest.raises(InputError, match="array 'a': not an NPY file"):
        NpzReader(str(path))
    buffer = io.BytesIO()
    np.save(buffer, VALUES)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(InputError, match="array 'a': compressed as NumPy never does"):
        NpzReader(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
        archive.writestr("a", buffer.getvalue())
    with pytest.raises(InputError, match="several arrays of the same name"):
        NpzReader(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue()[:-8])
    with pytest.raises(DataError, match="array 'a': truncated"):
        NpzReader(str(path))
