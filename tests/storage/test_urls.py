"""Stored arrays at URLs: what they are on a disk, with every fault of a network in between."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from streamcurate import objects
from streamcurate.errors import InputError, ObjectError, StoreError
from streamcurate.objects import client, streams
from streamcurate.storage import (
    SequentialWriter,
    ShardWriter,
    array_metadata,
    create_array,
    create_group,
    group_metadata,
    list_arrays,
    local_path,
    node_kind,
    open_array,
    open_group_attributes,
    remove_leftovers,
    set_rows,
    sync_metadata,
    unannounced_array,
    update_group_attributes,
    with_rows,
)
from streamcurate.storage.urls import ObjectFiles, zarr_store

pytest_plugins = ["object_store"]


def _neighbour(name: str):
    place = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"storage_{name}", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


on_disk = _neighbour("test_arrays")
LAYOUTS, ROWS, DIMS = on_disk.LAYOUTS, on_disk.ROWS, on_disk.DIMS


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(streams, "PIECE_BYTES", 100)
    monkeypatch.setattr(ObjectFiles, "piece_bytes", 100)
    client._bucket.cache_clear()
    yield
    client._bucket.cache_clear()


def upload(bucket, folder: Path, name: str) -> str:
    """Put a folder into the bucket as another tool would."""
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return bucket.url(name)


def chunk_of(array, chunk: int) -> str:
    """Name in the bucket of the object that holds a chunk."""
    return f"{array.path.split('/', 3)[3]}/{array.chunk_name(chunk)}"


# One for each way of reading; the others differ on a disk no more than here.
READ_AT_URLS = [
    "v3", "v3 zstd", "v3 column chunks", "v3 sharded", "v3 sharded, index first", "v3 sharded gzip", "v2 slashes",
    "v2 compressed",
]  # fmt: skip


@pytest.mark.parametrize("name", READ_AT_URLS)
def test_every_way_of_reading(object_store, tmp_path, name):
    values = on_disk.values_of("float32")
    LAYOUTS[name][0](tmp_path / "a.zarr", values)
    url = upload(object_store, tmp_path / "a.zarr", "x/a.zarr")
    here, array = open_array(tmp_path / "a.zarr"), open_array(f"{url}/")
    assert array.path == url
    assert (array.shape, array.dtype, array.chunk_rows) == (here.shape, here.dtype, here.chunk_rows)
    assert array.read_overhead_bytes > here.read_overhead_bytes
    assert [size for size, _ in array.stamps()] == [size for size, _ in here.stamps()]
    last = len(here.stamps()) - 1
    assert array.stamps()[last] == array.stamp(last)
    assert array.stored_digest(last) == here.stored_digest(last)
    faults = object_store.faults(0.2, seed=4, slow=0.01)
    random = np.random.default_rng(1)
    for _ in range(2):
        start, stop = np.sort(random.integers(0, ROWS + 1, 2))
        np.testing.assert_array_equal(array.read(start, stop), values[start:stop])
        rows = np.sort(random.integers(0, ROWS, 9))
        np.testing.assert_array_equal(array.take(rows), values[rows])
    np.testing.assert_array_equal(array.read(0, ROWS), values)
    assert faults.counts


@pytest.mark.parametrize("name", ["v3", "v3 zstd", "v3 sharded", "v3 sharded gzip", "v2 slashes"])
def test_an_absent_or_truncated_chunk_is_an_error(object_store, tmp_path, name):
    LAYOUTS[name][0](tmp_path / "a.zarr", on_disk.values_of("float32"))
    upload(object_store, tmp_path / "a.zarr", "a.zarr")
    array = open_array(object_store.url("a.zarr"))
    place = chunk_of(array, 1)
    data = object_store.get(place)
    for length in (len(data) // 2, 0):
        object_store.put(place, data[:length])
        with pytest.raises(StoreError, match=r"chunk 1 \(rows"):
            open_array(array.path).read(0, ROWS)
    object_store.remove(place)
    assert array.stamps()[1] == array.stamp(1) == (-1, -1)
    with pytest.raises(StoreError, match=rf"chunk 1 \(rows.*is absent \(s3://.*{place} does not exist\)"):
        open_array(array.path).read(0, ROWS)
    with pytest.raises(StoreError, match="is absent"):
        array.take(np.array([ROWS - 1, ROWS - 1]) - ROWS + array.chunk_rows + 1)
    assert array.read(0, array.chunk_rows).shape == (array.chunk_rows, DIMS)


@pytest.mark.parametrize("shard_rows", [None, 6])
@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", str])
def test_what_is_written_comes_back_and_zarr_reads_it(object_store, tmp_path, dtype, shard_rows):
    values = np.array([f"id {row}" for row in range(ROWS)], dtype=object) if dtype is str else None
    values = np.arange(ROWS * DIMS).reshape(ROWS, DIMS).astype(dtype) if values is None else values
    url = object_store.url("g/x")
    object_store.faults(0.1, seed=2, slow=0.01)
    array = create_array(url, values.shape, dtype, 2, shard_rows=shard_rows)
    with SequentialWriter(array) as writer:
        for start in range(0, ROWS, 5):
            writer.append(values[start : start + 5])
    array.write(0, values[: array.chunk_rows])  # again
    np.testing.assert_array_equal(open_array(url).read(0, ROWS), values)
    for name in object_store.objects("g/x/"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(object_store.get(name))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "g" / "x", mode="r")[...], values)
    np.testing.assert_array_equal(open_array(url).zarr[...], values)
    with pytest.raises(InputError, match="already exists"):
        create_array(url, (3,), "int32", 2)
    again = create_array(url, (3,), "int32", 2, overwrite=True)
    assert list(object_store.objects("g/x/")) == ["g/x/zarr.json"]
    again.write(0, np.arange(3))
    cut = set_rows(url, 2)
    np.testing.assert_array_equal(cut.read(0, 2), [0, 1])


def test_a_write_that_fails_leaves_the_old_chunk(object_store, monkeypatch):
    monkeypatch.setenv("STREAMCURATE_STORE_PATIENCE", "0.3")
    array = create_array(object_store.url("x"), (8, 2), "float32", 4)
    array.write(0, np.ones((8, 2), dtype=np.float32))
    object_store.faults(when=lambda method, path: "reset" if method == "PUT" and "/c/1/" in path else None)
    with pytest.raises(ObjectError, match=r"x/c/1/0: the store does not answer"):
        array.write(0, np.zeros((8, 2), dtype=np.float32))
    object_store.reset()
    np.testing.assert_array_equal(array.read(0, 8)[:, 0], [0, 0, 0, 0, 1, 1, 1, 1])


def test_half_a_shard_is_nothing(object_store):
    array = create_array(object_store.url("x"), (8, 2), "float32", 2, shard_rows=8)
    writer = ShardWriter(array, 0)
    writer.append(np.ones((5, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="5 rows of the 8"):
        writer.close()
    assert list(object_store.objects()) == ["x/zarr.json"]
    with pytest.raises(StoreError, match="is absent"):
        array.read(0, 1)


def test_an_array_nobody_knows_of_yet(object_store):
    array = unannounced_array(object_store.url("x"), (100, 2), "float32", 4)
    ids = unannounced_array(object_store.url("ids"), (6,), str, 4)
    array.write(0, np.ones((4, 2), dtype=np.float32))
    ids.write(0, np.array(list("abcdef"), dtype=object))
    array = with_rows(array, 6)
    array.write(4, np.full((2, 2), 2, dtype=np.float32))
    np.testing.assert_array_equal(array.read(0, 6)[:, 0], [1, 1, 1, 1, 2, 2])
    assert sorted(object_store.objects()) == ["ids/c/0", "ids/c/1", "x/c/0/0", "x/c/1/0"]
    assert node_kind(array.path) is None
    with pytest.raises(StoreError, match=r"has no zarr\.json"):
        open_array(array.path)
    for one in (array, ids):
        objects.write(f"{one.path}/zarr.json", array_metadata(one))
    objects.write(object_store.url("zarr.json"), group_metadata({"format": 1}))
    assert list_arrays(object_store.url()) == {"ids": ((6,), ids.dtype), "x": ((6, 2), np.dtype("float32"))}
    assert open_array(ids.path).read(0, 6).tolist() == list("abcdef")
    assert open_group_attributes(object_store.url()) == {"format": 1}


def test_a_change_of_any_column_shows(object_store):
    url = object_store.url("a")
    array = zarr.create_array(
        zarr_store(url, writable=True), shape=(4, 12), chunks=(4, 1), dtype="float32", compressors=None
    )
    array[:] = np.arange(48).reshape(4, 12)
    for column in range(12):
        stored = open_array(url)
        before, one = stored.stamps(), stored.stamp(0)
        array[:, column] = 100 + column
        assert stored.stamps() != before
        assert [stored.stamp(0)] == stored.stamps() != [one]


def test_groups(object_store):
    url = object_store.url("g")
    object_store.faults(0.1, seed=3, slow=0.01)
    create_group(url, {"format": 1})
    with pytest.raises(InputError, match="already exists"):
        create_group(url)
    update_group_attributes(url, {"fingerprint": "abc"})
    assert open_group_attributes(url) == {"format": 1, "fingerprint": "abc"}
    create_array(f"{url}/b", (4, 2), "float16", 2)
    object_store.put("g/pictures/cat.png", b"1")
    object_store.put("g/README.txt", b"1")
    assert list_arrays(url) == {"b": ((4, 2), np.dtype("float16"))}
    assert [node_kind(place) for place in (url, f"{url}/", f"{url}/b", f"{url}/pictures", f"{url}/none")] == [
        "group", "group", "array", None, None,
    ]  # fmt: skip
    remove_leftovers(url)
    sync_metadata(url)
    assert local_path(open_array(f"{url}/b").zarr) == f"{url}/b"
    for text, said in ((b'{"zarr_format": 3', "not a readable Zarr"), (b'{"node_type": "x"}', "'x'"), (b"[]", "Type")):
        object_store.put("g/zarr.json", text)
        with pytest.raises(StoreError, match=said):
            node_kind(url)


def test_what_is_no_array(object_store):
    with pytest.raises(InputError, match=r"s3://.*/none: no such Zarr array or group; check the URL"):
        open_array(object_store.url("none"))
    object_store.put("some/file", b"1")
    with pytest.raises(StoreError, match=r"has no zarr\.json"):
        open_array(object_store.url("some"))
    with pytest.raises(InputError, match="no such bucket"):
        open_array("s3://no-such-bucket/x")


def test_a_pickle_is_the_url(object_store):
    array = create_array(object_store.url("x"), (8, 2), "float32", 4)
    array.write(0, np.arange(16, dtype=np.float32).reshape(8, 2))
    sent = pickle.dumps(array)
    assert len(sent) < 300
    again = pickle.loads(sent)
    assert pickle.loads(sent) is again
    np.testing.assert_array_equal(again.read(0, 8), array.read(0, 8))
    # In another process, by its own environment.
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).read(3, 5).tolist())"
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[[6.0, 7.0], [8.0, 9.0]]"
    # Another array at the same place.
    create_array(object_store.url("x"), (5,), "int64", 4, overwrite=True)
    assert pickle.loads(sent).shape == (5,)


def test_many_threads(object_store, tmp_path):
    """More readers than there are requests under way, through Zarr's loop and past it."""
    values = on_disk.values_of("float32")
    arrays = []
    for name in ("v3", "v3 zstd", "v3 sharded"):
        LAYOUTS[name][0](tmp_path / name, values)
        arrays.append(open_array(upload(object_store, tmp_path / name, name.replace(" ", "-"))))
    object_store.faults(0.05, seed=6, slow=0.01)
    rows = np.arange(0, ROWS, 3)
    with ThreadPoolExecutor(24) as pool:
        reads = [pool.submit(array.read, start, ROWS) for array in arrays for start in range(8)]
        # Ranges of more than one piece each, in threads that are themselves the ones that read pieces.
        takes = [pool.submit(array.take, rows) for array in arrays for _ in range(8)]
        for number, read in enumerate(reads):
            np.testing.assert_array_equal(read.result(timeout=60), values[number % 8 :])
        for take in takes:
            np.testing.assert_array_equal(take.result(timeout=60), values[rows])


def test_requests_wait_for_their_answers_side_by_side(object_store, monkeypatch):
    """Chunks, rows far apart and pieces of a long chunk: none waits until another has come."""
    values = np.arange(80, dtype=np.float32).reshape(40, 2)
    small = create_array(object_store.url("small"), (40, 2), "f4", 10)
    long = create_array(object_store.url("long"), (40, 2), "f4", 40)
    for array in (small, long):
        array.write(0, values)
    two = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(
        streams, "tried", lambda url, attempt, before=streams.tried: (two.wait(), before(url, attempt))[1]
    )
    np.testing.assert_array_equal(small.read(0, 40), values)
    np.testing.assert_array_equal(small.take(np.array([1, 11, 21, 31])), values[1::10])
    np.testing.assert_array_equal(long.read(0, 25), values[:25])  # two pieces


def test_a_web_server(web_server):
    store = web_server.folder / "e.zarr"
    values = on_disk.values_of("float32")
    create_group(store, {"fingerprint": "abc"})
    for name, layout in (("embeddings", "v3"), ("other", "v3 zstd")):
        LAYOUTS[layout][0](store / name, values)
    create_array(store / "ids", (ROWS,), str, 4).write(0, np.array([f"id {row}" for row in range(ROWS)], dtype=object))
    url = web_server.url("e.zarr")
    # A web server cannot list: the arrays we know of, then those that the metadata tells of.
    assert list(list_arrays(url)) == ["embeddings", "ids"]
    web_server.faults(0.1, seed=3, slow=0.01)
    np.testing.assert_array_equal(open_array(f"{url}/embeddings").read(3, 20), values[3:20])
    np.testing.assert_array_equal(open_array(f"{url}/other").read(3, 20), values[3:20])
    assert open_array(f"{url}/ids").read(4, 6).tolist() == ["id 4", "id 5"]
    assert open_array(f"{url}/embeddings").stamps() == [open_array(f"{url}/embeddings").stamp(one) for one in range(5)]
    assert open_group_attributes(url) == {"fingerprint": "abc"}
    with pytest.warns(zarr.errors.ZarrUserWarning, match="Consolidated"):
        zarr.consolidate_metadata(store)
    assert json.loads((store / "zarr.json").read_text())["consolidated_metadata"]
    assert list(list_arrays(url)) == ["embeddings", "ids", "other"]
    assert open_group_attributes(url) == {"fingerprint": "abc"}
    with pytest.raises(ObjectError, match="a web server cannot be written to"):
        create_array(web_server.url("new"), (3,), "int32", 2)
