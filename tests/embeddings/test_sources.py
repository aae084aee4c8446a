"""Which reader reads what, and in which order."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec

from streamcurate.embeddings.sources import open_sources
from streamcurate.embeddings.store import as_embeddings
from streamcurate.errors import InputError

VALUES = np.random.default_rng(5).standard_normal((12, 3)).astype(np.float32)


def names(sources, folder) -> list[str]:
    return [reader.name.removeprefix(f"{folder}/") for reader in open_sources(sources)]


def rows_of(reader, start=0) -> np.ndarray:
    return np.concatenate([block for block, _ in reader.blocks(start)])


def test_patterns_come_in_natural_order_and_lists_as_given(tmp_path):
    for name in ("p-10.npy", "p-9.npy", "p-1.npy", "q.npy"):
        np.save(tmp_path / name, VALUES)
    assert names(f"{tmp_path}/p-*.npy", tmp_path) == ["p-1.npy", "p-9.npy", "p-10.npy"]
    given = [f"{tmp_path}/q.npy", tmp_path / "p-9.npy", f"{tmp_path}/p-1*.npy"]
    assert names(given, tmp_path) == ["q.npy", "p-9.npy", "p-1.npy", "p-10.npy"]


def test_a_name_that_looks_like_a_pattern_stands_for_itself(tmp_path):
    np.save(tmp_path / "x[1].npy", VALUES)
    np.save(tmp_path / "x1.npy", VALUES)
    assert names(f"{tmp_path}/x[1].npy", tmp_path) == ["x[1].npy"]


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "x.docx").write_text("x")
    (tmp_path / "plain").write_text("x")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "x.npy", VALUES)
    cases = {
        "absent.npy": "no such file",
        "absent": "no such file",
        "absent.zarr": "no such file",
        "x.docx": r"unknown format; known are \.npy, \.npz, \.parquet, .*\.safetensors, .*\.zarr",
        "plain": "unknown format",
        "folder": "a folder without files of a known format",
        "*.parquet": "no file matches",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            open_sources(str(tmp_path / name))
        assert name in str(error.value)
    with pytest.raises(InputError, match="folder: a folder among single files; give it by itself"):
        open_sources(str(tmp_path / "f*r"))
    with pytest.raises(InputError, match="given twice"):
        open_sources([tmp_path / "x.npy", f"{tmp_path}/*.npy"])
    with pytest.raises(InputError, match="no sources given"):
        open_sources([])
    with pytest.raises(InputError, match="an array in memory has no named columns"):
        open_sources(VALUES, column="emb")


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"zarr_format": 2},
        {"chunks": (5, 2)},
        {"shards": (6, 3), "chunks": (2, 3)},
        {"serializer": BytesCodec(endian="big")},
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_zarr_of_any_layout(tmp_path, layout, dtype):
    values = VALUES.astype(dtype)
    # No .zarr in the name: what lies there decides.
    array = zarr.create_array(
        tmp_path / "store", shape=values.shape, dtype=dtype, config={"write_empty_chunks": True}, **layout
    )
    array[...] = values
    (reader,) = open_sources(tmp_path / "store")
    assert (reader.rows, reader.dims, reader.dtype, reader.ids_dtype) == (12, 3, np.dtype(dtype), None)
    assert rows_of(reader, 5).tobytes() == values[5:].tobytes()
    (same,) = open_sources(array)
    assert same.stamps() == reader.stamps()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_groups_carry_ids(tmp_path, zarr_format):
    group = zarr.create_group(tmp_path / "g.zarr", zarr_format=zarr_format)
    group.create_array("embeddings", shape=(12, 3), dtype="f4", chunks=(5, 3))[...] = VALUES
    for name, dtype, ids in (("ids", str, [f"n{i}" for i in range(12)]), ("keys", "i4", list(range(12)))):
        group.create_array(name, shape=(12,), dtype=dtype, chunks=(5,))[...] = np.array(ids)
        (reader,) = open_sources(tmp_path / "g.zarr", ids=None if name == "ids" else name)
        assert [one for _, block in reader.blocks(4) for one in block.tolist()] == ids[4:]
    with pytest.raises(InputError, match="ids are 12 strings or integers"):
        open_sources(tmp_path / "g.zarr", ids="embeddings")
    with pytest.raises(InputError, match="no such file"):
        open_sources(tmp_path / "g.zarr", ids="absent")


def test_arrays_in_memory():
    double = VALUES.astype(np.float64)
    readers = open_sources([double, da.from_array(VALUES, chunks=(5, 3)), as_embeddings(VALUES)])
    assert [reader.dtype.name for reader in readers] == ["float64", "float32", "float32"]
    for reader in readers:
        np.testing.assert_array_equal(rows_of(reader, 3), VALUES[3:])


def test_stamps_tell_sources_apart(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    before = open_sources(tmp_path / "x.npy")[0].stamps()
    assert before == open_sources(tmp_path / "x.npy")[0].stamps()
    np.save(tmp_path / "x.npy", VALUES[:5])
    assert before != open_sources(tmp_path / "x.npy")[0].stamps()
    changed = VALUES.copy()
    changed[11, 2] += 1
    stamps = [open_sources(array)[0].stamps() for array in (VALUES, VALUES.copy(), changed)]
    assert stamps[0] == stamps[1] != stamps[2]
    dask_stamps = [open_sources(da.from_array(array))[0].stamps() for array in (VALUES, VALUES.copy(), changed)]
    assert dask_stamps[0] == dask_stamps[1] != dask_stamps[2]
