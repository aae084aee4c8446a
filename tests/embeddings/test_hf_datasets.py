"""Folders that the library datasets saved or prepared: its rows, in its order, bit by bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import streamcurate as sc
from streamcurate.embeddings.sources.ipc import FolderReader, open_reader
from streamcurate.errors import DataError, InputError


@pytest.fixture
def datasets(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    return library


def values_of(rows: int, dims: int = 6, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, dims)).astype(dtype)


def write_stream(path: Path, values: np.ndarray) -> None:
    """As the library writes its files, where the library itself is not what is tested."""
    table = pa.table({"emb": pa.array(list(values), pa.list_(pa.from_numpy_dtype(values.dtype)))})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def saved(folder: Path, *shards: np.ndarray) -> Path:
    folder.mkdir()
    names = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for name, values in zip(names, shards, strict=True):
        write_stream(folder / name, values)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def read(reader: FolderReader, start: int = 0) -> np.ndarray:
    return np.concatenate([np.empty((0, reader.dims), reader.dtype), *(values for values, _ in reader.blocks(start))])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["List", "LargeList", "fixed"])
def test_saved_by_the_library(datasets, tmp_path, dtype, kind):
    values = values_of(53, 6, dtype)
    value = datasets.Value(dtype)
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "emb": datasets.LargeList(value)
            if kind == "LargeList"
            else datasets.List(value, length=6 if kind == "fixed" else -1),
        }
    )
    rows = {
        "id": [f"n{row}" for row in range(53)],
        "label": [row % 2 for row in range(53)],
        "image": [{"bytes": b"x", "path": None}] * 53,
        "emb": list(values),
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    order = np.random.default_rng(0).permutation(53)
    # Rows in an order of their own are saved in that order.
    made.select(order).save_to_disk(tmp_path / "data", num_shards=3)
    reader = open_reader(f"{tmp_path}/data/", None, "id")
    assert (reader.rows, reader.dims, reader.dtype) == (53, 6, np.dtype(dtype))
    for start in (0, 17, 18, 19, 52, 53):
        blocks = list(reader.blocks(start))
        got = np.concatenate([np.empty((0, 6), dtype), *(values for values, _ in blocks)])
        assert got.tobytes() == values[order[start:]].tobytes()
        assert [one for _, ids in blocks for one in ids.tolist()] == [f"n{row}" for row in order[start:]]
    if kind == "List" and dtype == "float16":
        store = sc.ingest(str(tmp_path / "data"), tmp_path / "x.zarr", ids="id", rows_per_chunk=10)
        assert store.array.read(0, 53).tobytes() == values[order].tobytes()
        assert store.ids.read(0, 53).tolist() == [f"n{row}" for row in order]


def test_matrices_are_refused(datasets, tmp_path):
    features = datasets.Features({"emb": datasets.Array2D((2, 3), "float32")})
    datasets.Dataset.from_dict({"emb": values_of(4).reshape(4, 2, 3)}, features=features).save_to_disk(tmp_path / "d")
    for column in (None, "emb"):
        with pytest.raises(InputError, match="one vector a row is needed: flatten or pool them first"):
            open_reader(str(tmp_path / "d"), column, None)


def test_the_librarys_cache(datasets, tmp_path):
    """Prepared from Parquet: one split in the folder is read, whatever the results of map beside it."""
    values = values_of(20)
    datasets.Dataset.from_dict({"emb": list(values)}).to_parquet(tmp_path / "x.parquet")
    prepared = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"), split="train"
    )
    folder = Path(prepared.cache_files[0]["filename"]).parent
    prepared.map(lambda row: {"more": 1.0}, load_from_cache_file=False)
    assert read(open_reader(str(folder), None, None)).tobytes() == prepared.with_format("numpy")["emb"][:].tobytes()


def test_files_come_as_listed(tmp_path):
    parts = values_of(9), values_of(5), np.empty((0, 6), np.float32), values_of(11)
    folder = saved(tmp_path / "d", *parts)
    everything = np.concatenate(parts)
    reader = open_reader(str(folder), None, None)
    assert (reader.rows, reader.dims) == (25, 6)
    for start in range(26):
        assert read(reader, start).tobytes() == everything[start:].tobytes()
    before = reader.stamps()
    assert len(before) == 5
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00001-of-00004.arrow"}]}))
    assert reader.stamps() != before
    assert read(open_reader(str(folder), None, None)).tobytes() == parts[1].tobytes()


def test_folders_that_cannot_be_read(tmp_path):
    folder = saved(tmp_path / "d", values_of(4), values_of(5))

    def refuses(message: str, error: type[InputError] = InputError) -> None:
        with pytest.raises(error, match=message) as raised:
            open_reader(str(folder), None, None)
        assert str(folder) in str(raised.value)

    state = folder / "state.json"
    listed = json.loads(state.read_text())
    state.write_text(json.dumps({**listed, "_indices_data_files": [{"filename": "indices.arrow"}]}))
    refuses(r"dataset = dataset.flatten_indices\(\)")
    state.write_text('{"_data_files": ')
    refuses("state.json: damaged", DataError)
    state.write_text("[]")
    refuses("state.json: holds no JSON object", DataError)
    state.write_text("{}")
    refuses("state.json: names no files", DataError)
    state.write_text(json.dumps({"_data_files": []}))
    refuses("without files", DataError)
    state.write_text(json.dumps(listed))
    shutil.move(folder / "data-00001-of-00002.arrow", tmp_path / "away")
    refuses(r"data-00001-of-00002.arrow: no such file")
    state.unlink()
    refuses("1 of 2 files are there", DataError)
    write_stream(folder / "data-00001-of-00002.arrow", values_of(5, 7))
    refuses("data-00001-of-00002.arrow: dims 7, and .*data-00000-of-00002.arrow has 6", DataError)
    write_stream(folder / "other-test.arrow", values_of(3))
    refuses("holds several splits; give one of them: '.*data.*', '.*other-test.*'")
    for file in folder.iterdir():
        file.unlink()
    refuses("without .arrow files")
