"""Ids beside the rows: one file for each source, and the metadata of clip-retrieval, img2dataset, embedding-reader."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import open_sources
from streamcurate.embeddings.sources.companions import IdsOption, metadata_names
from streamcurate.errors import DataError, InputError


def rows(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first * 3, (first + count) * 3, dtype=np.float32).reshape(count, 3)


def all_ids(store) -> list:
    return store.take_ids(np.arange(store.rows)).tolist()


def shards(folder, sizes=(4, 0, 3, 5), name="emb-{}.npy") -> list[list[str]]:
    """Shards 8, 9, 10, 11, and the ids their rows are to have."""
    folder.mkdir(exist_ok=True)
    expected = []
    for number, size in enumerate(sizes, 8):
        np.save(folder / name.format(number), rows(size, number * 100))
        expected.append([f"{number}-{row}" for row in range(size)])
    return expected


def test_what_ids_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").write_text("a\n")
    (tmp_path / "a:b.parquet").write_text("a\n")
    (tmp_path / "ids").mkdir()
    cases = {
        "name": ("column", "name", None),
        "ids": ("column", "ids", None),
        "weird[0]": ("column", "weird[0]", None),
        "a:b": ("column", "a:b", None),
        "odd": ("file", "odd", None),
        "names.txt": ("file", "names.txt", None),
        "a:b.parquet": ("file", "a:b.parquet", None),
        "x/m.parquet:image_path": ("file", "x/m.parquet", "image_path"),
        "s3://b/ids.npy": ("file", "s3://b/ids.npy", None),
        "ids/": ("files", "ids/", None),
        "./ids": ("files", "./ids", None),
        "absent/": ("files", "absent/", None),
        "*.txt": ("files", "*.txt", None),
        "ids/*": ("files", "ids/*", None),
        "m/*.parquet:key": ("files", "m/*.parquet", "key"),
        "s3://b/ids/": ("files", "s3://b/ids/", None),
        "s3://b/ids/*.txt": ("files", "s3://b/ids/*.txt", None),
    }
    assert {ids: tuple(IdsOption.of(ids)) for ids in cases} == cases
    assert IdsOption.of("name").identity == "name"
    assert IdsOption.of("m/*.parquet:key").identity == f"{tmp_path}/m/*.parquet:key"
    assert IdsOption.of("s3://b/ids/").identity == "s3://b/ids/"


@pytest.mark.parametrize("kind", ["txt", "csv", "npy", "parquet"])
@pytest.mark.parametrize("form", ["pattern", "folder"])
def test_one_file_for_each_source(tmp_path, kind, form):
    expected = shards(tmp_path / "emb")
    folder = tmp_path / "ids"
    folder.mkdir()
    # Padded otherwise than the shards.
    for number, ids in enumerate(expected, 8):
        path = folder / f"names_{number:04}.{kind}"
        if kind == "npy":
            np.save(path, np.array(ids, dtype="U9"))
        elif kind == "parquet":
            pq.write_table(pa.table({"key": pa.array(ids, pa.string()), "other": [0] * len(ids)}), path)
        else:
            path.write_text("".join(f"{one}\n" for one in (["key"] if kind == "csv" else []) + ids))
    column = ":key" if kind == "parquet" else ""
    ids = f"{folder}/*.{kind}{column}" if form == "pattern" or column else f"{folder}/"
    store = ingest(tmp_path / "emb", tmp_path / "e.zarr", ids=ids, rows_per_chunk=5)
    assert all_ids(store) == [one for ids in expected for one in ids]
    np.testing.assert_array_equal(store.read(0, 4), rows(4, 800))
    # As the shell expands a pattern: rows in that order, each with its own ids all the same.
    given = [tmp_path / "emb" / f"emb-{number}.npy" for number in (10, 11, 8, 9)]
    store = ingest(given, tmp_path / "f.zarr", ids=ids)
    assert all_ids(store) == expected[2] + expected[3] + expected[0]
    np.testing.assert_array_equal(store.read(0, 3), rows(3, 1000))


def test_going_on_in_the_middle(tmp_path):
    expected = shards(tmp_path / "emb")
    (tmp_path / "ids").mkdir()
    for number, ids in enumerate(expected, 8):
        (tmp_path / "ids" / f"{number}.txt").write_text("\n".join(ids))
    readers = open_sources(tmp_path / "emb", ids=f"{tmp_path}/ids/*.txt")
    for reader, ids in zip(readers, expected, strict=True):
        for start in range(len(ids) + 1):
            assert [one for _, block in reader.blocks(start) for one in block.tolist()] == ids[start:]
    before = [reader.stamps() for reader in readers]
    (tmp_path / "ids" / "8.txt").write_text("\n".join(expected[0][::-1]) + "\n")
    after = [reader.stamps() for reader in open_sources(tmp_path / "emb", ids=f"{tmp_path}/ids/*.txt")]
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, False, False, False]


def test_files_that_do_not_pair(tmp_path):
    expected = shards(tmp_path / "emb")
    folder = tmp_path / "ids"

    def refused(message, ids=f"{folder}/", sources=tmp_path / "emb"):
        with pytest.raises(InputError, match=message) as error:
            ingest(sources, tmp_path / "e.zarr", ids=ids)
        assert not list(tmp_path.glob("e.zarr*"))
        return str(error.value)

    refused("ids/: no such folder of ids")
    folder.mkdir()
    refused("ids/: a folder without files")
    refused("no file matches this pattern", f"{folder}/*.txt")
    for number, ids in enumerate(expected, 8):
        (folder / f"{number}.txt").write_text("\n".join(ids))
    (folder / "12.txt").write_text("x\n")
    refused("5 files of ids, and 4 sources; one file is needed for each, or one for all")
    (folder / "12.txt").unlink()
    (folder / "10.txt").rename(folder / "7.txt")
    message = refused("the numbers in their names differ; name sources and files of ids alike, or give one file")
    assert f"{folder}/7.txt would be the ids of {tmp_path}/emb/emb-8.npy" in message
    (folder / "7.txt").rename(folder / "10.txt")
    (folder / "10.txt").write_text("x\n")
    refused(rf"{folder}/10\.txt: holds 1 ids, and {tmp_path}/emb/emb-10\.npy holds 3 rows")
    (folder / "10.txt").rename(folder / "10.csv")
    refused(r"holds \.csv and \.txt; files of ids are all of one kind")
    refused("column .*: an array in memory", f"{folder}/*.txt", [rows(2)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("img_emb_0.npy", ["metadata_0.parquet", "img_emb_0.parquet"]),
        ("img_emb_0012.npy", ["metadata_0012.parquet", "img_emb_0012.parquet"]),
        ("00012.npy", ["metadata_00012.parquet", "00012.parquet"]),
        ("emb.npy", ["metadata.parquet", "emb.parquet"]),
    ],
)
def test_names_of_metadata(name, expected):
    assert metadata_names(name) == expected


def clip_retrieval(root, count=12, width=2, fewest=0) -> list[str]:
    """img_emb, text_emb and metadata, as ``clip-retrieval inference`` lays them out; the image paths in order."""
    for folder in ("img_emb", "text_emb", "metadata"):
        (root / folder).mkdir(parents=True)
    paths = []
    for number in range(count):
        size, name = fewest + number % 4, str(number).zfill(width)
        for kind in ("img", "text"):
            np.save(root / f"{kind}_emb" / f"{kind}_emb_{name}.npy", rows(size, number * 10).astype(np.float16))
        mine = [f"00000{number:03}{row:04}.jpg" for row in range(size)]
        columns = {"image_path": pa.array(mine, pa.string()), "caption": pa.array([None] * size, pa.string())}
        pq.write_table(pa.table(columns), root / "metadata" / f"metadata_{name}.parquet")
        paths += mine
    return paths


@pytest.mark.parametrize("width", [1, 2, 4])
def test_clip_retrieval(tmp_path, width):
    paths = clip_retrieval(tmp_path / "laion", width=width)
    forms = ("image_path", f"{tmp_path}/laion/metadata/metadata_*.parquet:image_path")
    for number, ids in enumerate(forms):
        store = ingest(tmp_path / "laion" / "img_emb", tmp_path / f"{number}.zarr", ids=ids, rows_per_chunk=5)
        assert store.dtype == np.float16
        assert all_ids(store) == paths
        expected = np.concatenate([rows(number % 4, number * 10) for number in range(12)])
        np.testing.assert_array_equal(store.read(0, store.rows), expected.astype(np.float16))
    with pytest.raises(
        InputError,
        match=rf"laion: holds no files of rows, .* give {tmp_path}/laion/img_emb or {tmp_path}/laion/text_emb,",
    ):
        open_sources(tmp_path / "laion")


def test_the_same_rows_as_embedding_reader(tmp_path):
    """Its format parquet_npy: files in the order of their names."""
    embedding_reader = pytest.importorskip("embedding_reader")
    # Of shards without rows it makes an error.
    clip_retrieval(tmp_path, width=4, fewest=1)
    reader = embedding_reader.EmbeddingReader(
        str(tmp_path / "img_emb"),
        file_format="parquet_npy",
        metadata_folder=str(tmp_path / "metadata"),
        meta_columns=["image_path"],
    )
    batches = list(reader(batch_size=4, show_progress=False))
    store = ingest(tmp_path / "img_emb", tmp_path / "e.zarr", ids="image_path")
    np.testing.assert_array_equal(store.read(0, store.rows), np.concatenate([values for values, _ in batches]))
    assert all_ids(store) == [path for _, meta in batches for path in meta["image_path"]]


@pytest.mark.parametrize("names", ["metadata_{}.parquet", "img_emb_{}.parquet"])
def test_metadata_in_the_same_folder(tmp_path, names):
    paths = clip_retrieval(tmp_path, count=5)
    for number in range(5):
        old = tmp_path / "metadata" / f"metadata_{number:02}.parquet"
        old.rename(tmp_path / "img_emb" / names.format(f"{number:02}"))
    # In the way of nothing where no ids are asked for.
    assert sum(reader.rows for reader in open_sources(tmp_path / "img_emb")) == len(paths)
    assert all_ids(ingest(tmp_path / "img_emb", tmp_path / "e.zarr", ids="image_path")) == paths
    # One that belongs to no shard may hold anything.
    (tmp_path / "img_emb" / "more.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="several formats"):
        open_sources(tmp_path / "img_emb")


def test_metadata_that_does_not_belong(tmp_path):
    clip_retrieval(tmp_path, count=3)

    def refused(error, message, column="image_path"):
        with pytest.raises(error, match=message):
            ingest(tmp_path / "img_emb", tmp_path / "e.zarr", ids=column)
        assert not list(tmp_path.glob("e.zarr*"))

    refused(InputError, r"metadata_00\.parquet: no column 'url'; it has 'image_path', 'caption'", "url")
    path = tmp_path / "metadata" / "metadata_02.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    refused(DataError, r"metadata_02\.parquet: 1 rows of metadata, and .*img_emb_02\.npy holds 2 embeddings")
    path.unlink()
    refused(InputError, r"img_emb_02\.npy: an NPY file has no column 'image_path', and there is no metadata of it")
    pq.write_table(pa.table({"image_path": ["a", None]}), path)
    refused(DataError, r"metadata_02\.parquet.*row 1 has no id")
    pq.write_table(pa.table({"image_path": [0.5, 1.5]}), path)
    refused(InputError, r"metadata_02\.parquet: column 'image_path': holds double, and ids are strings or integers")
