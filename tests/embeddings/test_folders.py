"""Folders of shards: which files are rows, in which order, and what is in the way."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import open_sources
from streamcurate.errors import InputError


def rows(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first * 3, (first + count) * 3, dtype=np.float32).reshape(count, 3)


def names(folder) -> list[str]:
    return [reader.name.removeprefix(f"{folder}/") for reader in open_sources(folder)]


def test_all_files_in_natural_order(tmp_path):
    order = ["extra.npy", "part-2.npy", "part-10.npy", "x.npy"]
    sizes, first = [4, 0, 3, 5], 0
    for name, size in zip(order, sizes, strict=True):
        np.save(tmp_path / name, rows(size, first))
        first += size
    for name in ("README.md", "stats.json", "_SUCCESS", ".hidden.npy", "ids.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "_temporary").mkdir()
    assert names(tmp_path) == order
    store = ingest(f"{tmp_path}/", tmp_path.parent / f"{tmp_path.name}.zarr", rows_per_chunk=5)
    np.testing.assert_array_equal(store.read(0, 12), rows(12))


def test_parquet_shards_with_a_column_of_ids(tmp_path):
    for number, size in enumerate((3, 0, 4)):
        values = pa.FixedSizeListArray.from_arrays(pa.array(rows(size, number * 10).reshape(-1)), 3)
        keys = pa.array([f"{number}-{row}" for row in range(size)], pa.string())
        pq.write_table(pa.table({"e": values, "key": keys}), tmp_path / f"{number}.{'pq' if number else 'parquet'}")
    store = ingest(tmp_path, tmp_path.parent / f"{tmp_path.name}.zarr", ids="key")
    assert store.take_ids(np.arange(7)).tolist() == ["0-0", "0-1", "0-2", "2-0", "2-1", "2-2", "2-3"]
    np.testing.assert_array_equal(store.read(0, 7), np.concatenate([rows(3), rows(4, 20)]))


def test_zarr_shards(tmp_path):
    for number in (10, 9):
        zarr.create_array(tmp_path / f"p{number}.zarr", shape=(4, 3), dtype="f4", config={"write_empty_chunks": True})[
            ...
        ] = rows(4, number)
    assert names(tmp_path) == ["p9.zarr", "p10.zarr"]
    # The folder of a store itself is one source.
    assert names(tmp_path / "p9.zarr") == [""] or open_sources(tmp_path / "p9.zarr")[0].rows == 4


def test_what_is_in_the_way(tmp_path):
    np.save(tmp_path / "a.npy", rows(2))
    cases = {
        "b.npz": r"files of several formats \(a\.npy, b\.npz\); say by a pattern which are meant, e\.g\. '.*/\*\.npy'",
        "b.npy.part": r"holds b\.npy\.part beside a\.npy; say by a pattern",
        "b": r"holds b beside a\.npy",
        "folder/b.npy": r"holds the folder folder beside a\.npy; .*/\*\.npy' or '.*/\*\*/\*\.npy'",
    }
    for name, message in cases.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=message) as error:
            open_sources(tmp_path)
        assert str(error.value).startswith(str(tmp_path))
        (tmp_path / name).unlink()
    # What the message says does help.
    np.save(tmp_path / "folder" / "b.npy", rows(2))
    assert [reader.name for reader in open_sources(f"{tmp_path}/**/*.npy")] == [
        f"{tmp_path}/a.npy",
        f"{tmp_path}/folder/b.npy",
    ]


def test_folders_without_rows(tmp_path):
    with pytest.raises(InputError, match=r"without files of a known format \(\.npy, "):
        open_sources(tmp_path)
    for name in ("img_emb", "text_emb", "logs"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", rows(2))
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", rows(2))
    message = rf"no files of rows, but folders that may; give {tmp_path}/img_emb or {tmp_path}/text_emb, or"
    with pytest.raises(InputError, match=message):
        open_sources(tmp_path)


def test_folders_of_the_library_datasets(tmp_path):
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(InputError, match=rf"several splits; give one of them: {tmp_path}/train or {tmp_path}/test"):
        open_sources(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(InputError, match=r"several splits; give one of them$"):
        open_sources(tmp_path)
    (tmp_path / "dataset_dict.json").unlink()


def test_a_data_set_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("streamcurate.embeddings.sources.ipc")
    folder = tmp_path / "saved"
    table = {"e": rows(20).tolist(), "key": [f"k{row}" for row in range(20)]}
    datasets.Dataset.from_dict(table).save_to_disk(folder, num_shards=3)
    store = ingest(folder, tmp_path / "e.zarr", column="e", ids="key")
    np.testing.assert_array_equal(store.read(0, 20), rows(20))
    assert store.take_ids(np.arange(20)).tolist() == table["key"]
    both = datasets.DatasetDict({"train": datasets.Dataset.from_dict(table)})
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(InputError, match=r"both/train$"):
        open_sources(tmp_path / "both")
