"""Sources in object stores: files, patterns and folders at URLs are what they are on a disk."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import Stamp, open_sources
from streamcurate.errors import DataError, InputError, ObjectError
from streamcurate.objects import client

obstore = pytest.importorskip("obstore")

VALUES = np.random.default_rng(3).standard_normal((30, 6)).astype(np.float32)


@pytest.fixture
def store(monkeypatch):
    """A store in memory behind every URL."""
    made = obstore.store.MemoryStore()
    monkeypatch.setattr(client, "_bucket", lambda *settings: made)
    return made


def put(store, name: str, save, *arrays, **named) -> None:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    obstore.put(store, name, buffer.getvalue())


def names(source, **options) -> list[str]:
    return [reader.name.removeprefix("s3://bucket/") for reader in open_sources(source, **options)]


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_npz_and_ids_come_back_bit_by_bit(store, tmp_path, order):
    values = np.asarray(VALUES, order=order)
    put(store, "a/x.npy", np.save, values)
    put(store, "a/x.npz", np.savez, emb=values, n=np.arange(30))
    obstore.put(store, "a/x.txt", b"".join(b"n%d\n" % row for row in range(30)))
    for name, ids in (("x.npy", "s3://bucket/a/x.txt"), ("x.npz", "n")):
        made = ingest(f"s3://bucket/a/{name}", tmp_path / f"{name}.zarr", ids=ids, rows_per_chunk=7)
        assert made.read(0, 30).tobytes() == VALUES.tobytes()
        expected = [f"n{row}" for row in range(30)] if ids != "n" else list(range(30))
        assert made.take_ids(np.arange(30)).tolist() == expected
        # Done already, as the stamps tell.
        assert ingest(f"s3://bucket/a/{name}", tmp_path / f"{name}.zarr", ids=ids, rows_per_chunk=7).rows == 30
    obstore.put(store, "a/x.txt", b"".join(b"m%d\n" % row for row in range(30)))
    with pytest.raises(InputError, match=r"already exists, made from s3://bucket/a/x\.txt as it was before it changed"):
        ingest("s3://bucket/a/x.npy", tmp_path / "x.npy.zarr", ids="s3://bucket/a/x.txt", rows_per_chunk=7)


@pytest.mark.parametrize("kind", ["npy", "parquet", "csv"])
def test_other_files_of_ids(store, tmp_path, kind):
    put(store, "x.npy", np.save, VALUES)
    ids = [f"n{row}" for row in range(30)]
    if kind == "npy":
        put(store, "ids.npy", np.save, np.array(ids))
    elif kind == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"n": ids, "m": ids}), buffer)
        obstore.put(store, "ids.parquet", buffer.getvalue())
    else:
        obstore.put(store, "ids.csv", "\n".join(["name", *ids]).encode())
    column = ":n" if kind == "parquet" else ""
    made = ingest("s3://bucket/x.npy", tmp_path / "e.zarr", ids=f"s3://bucket/ids.{kind}{column}")
    assert made.take_ids(np.arange(30)).tolist() == ids


def test_patterns_and_folders(store):
    for name in ("p/10.npy", "p/9.npy", "p/1.npy", "p/more/2.npy", "q/x.npy", "r/11.npy", "r/2.npy", "r/ids.txt"):
        put(store, name, np.save, VALUES)
    assert names("s3://bucket/p/*.npy") == ["p/1.npy", "p/9.npy", "p/10.npy"]
    assert names("s3://bucket/p/**/*.npy") == ["p/1.npy", "p/9.npy", "p/10.npy", "p/more/2.npy"]
    assert names("s3://bucket/r/") == names("s3://bucket/r") == ["r/2.npy", "r/11.npy"]
    for source, message in {
        "s3://bucket/p/*.npz": r"no file matches this pattern; .* name stores \(\.zarr\) and other folders one by one",
        "s3://bucket/p": r"holds the folder more beside 1\.npy",
        "s3://bucket": r"no files of rows, but folders that may; give s3://bucket/p or",
        "s3://bucket/absent": "no such file or folder",
        "s3://bucket/r/ids.txt": "unknown format",
        "s3://bucket/r/3.npy": "no such",
        "ftp://host/x.npy": "ftp:// is not known",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            open_sources(source)
        assert source in str(error.value)
    with pytest.raises(InputError, match="given twice"):
        open_sources(["s3://bucket/q/x.npy", "s3://bucket/q/*"])


def test_one_file_of_ids_for_each_object(store, tmp_path):
    for number in (9, 10):
        put(store, f"p/{number}.npy", np.save, VALUES[:number])
        obstore.put(store, f"ids/{number}.txt", b"".join(b"%d-%d\n" % (number, row) for row in range(number)))
    for ids in ("s3://bucket/ids/", "s3://bucket/ids/*.txt"):
        readers = open_sources("s3://bucket/p/", ids=ids)
        got = [one for reader in readers for _, block in reader.blocks(0) for one in block.tolist()]
        assert got == [f"{number}-{row}" for number in (9, 10) for row in range(number)]


def test_metadata_beside_objects(store):
    for number in range(3):
        put(store, f"laion/img_emb/img_emb_{number}.npy", np.save, VALUES[: number + 1])
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image_path": [f"{number}-{row}" for row in range(number + 1)]}), buffer)
        obstore.put(store, f"laion/metadata/metadata_{number}.parquet", buffer.getvalue())
    readers = open_sources("s3://bucket/laion/img_emb", ids="image_path")
    got = [one for reader in readers for _, block in reader.blocks(0) for one in block.tolist()]
    assert got == ["0-0", "1-0", "1-1", "2-0", "2-1", "2-2"]


def test_web_servers_know_no_patterns(store):
    put(store, "y.npy", np.save, VALUES)
    put(store, "y", np.save, VALUES)
    assert open_sources("https://host/y.npy")[0].rows == 30
    with pytest.raises(InputError, match="a URL with a query"):
        open_sources("https://host/y.npy?token=a*b")
    with pytest.raises(InputError, match="a web server cannot list its files; name single files"):
        open_sources("https://host/*.npy")
    with pytest.raises(InputError, match="unknown format"):
        open_sources("https://host/y")


def test_safetensors(store):
    library = pytest.importorskip("safetensors.numpy")
    obstore.put(store, "x.safetensors", library.save({"emb": VALUES, "n": np.arange(30)}))
    (reader,) = open_sources("s3://bucket/x.safetensors", ids="n")
    blocks = list(reader.blocks(3))
    assert np.concatenate([values for values, _ in blocks]).tobytes() == VALUES[3:].tobytes()
    assert [one for _, ids in blocks for one in ids.tolist()] == list(range(3, 30))


def test_stamps(store):
    put(store, "x.npy", np.save, VALUES)
    before = Stamp.of("s3://bucket/x.npy")
    assert before == Stamp.of("s3://bucket/x.npy") == open_sources("s3://bucket/x.npy")[0].stamps()[0]
    put(store, "x.npy", np.save, -VALUES)
    after = Stamp.of("s3://bucket/x.npy")
    assert (before.path, before.bytes) == (after.path, after.bytes)
    assert before != after
    with pytest.raises(ObjectError, match="no such object"):
        Stamp.of("s3://bucket/absent")


def test_truncated_and_removed(store):
    put(store, "x.npy", np.save, VALUES)
    data = bytes(obstore.get(store, "x.npy").bytes())
    obstore.put(store, "x.npy", data[:-5])
    with pytest.raises(DataError, match="truncated"):
        open_sources("s3://bucket/x.npy")
    obstore.put(store, "x.npy", data)
    (reader,) = open_sources("s3://bucket/x.npy")
    obstore.delete(store, "x.npy")
    with pytest.raises(InputError, match="no such object"):
        list(reader.blocks(0))


def test_zarr(store, tmp_path):
    made = ingest(VALUES, tmp_path / "local.zarr", rows_per_chunk=7)
    for path in (tmp_path / "local.zarr").rglob("*"):
        if path.is_file():
            for folder in ("x.zarr", "plain"):
                obstore.put(store, f"{folder}/{path.relative_to(tmp_path / 'local.zarr')}", path.read_bytes())
    for name in ("x.zarr", "plain", "plain/embeddings"):
        (reader,) = open_sources(f"s3://bucket/{name}")
        assert np.concatenate([values for values, _ in reader.blocks(3)]).tobytes() == VALUES[3:].tobytes()
        assert reader.stamps() == open_sources(f"s3://bucket/{name}")[0].stamps()
    # Any chunk that is written anew shows, whatever its tag.
    for chunk in range(5):
        before = open_sources("s3://bucket/x.zarr")[0].stamps()
        data = bytes(obstore.get(store, f"x.zarr/embeddings/c/{chunk}/0").bytes())
        obstore.put(store, f"x.zarr/embeddings/c/{chunk}/0", data[::-1])
        assert open_sources("s3://bucket/x.zarr")[0].stamps() != before
    assert made.rows == 30
