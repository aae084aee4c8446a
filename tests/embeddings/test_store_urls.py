"""Embeddings opened at URLs: the same as on a disk, and what is no store there is told as such."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

from streamcurate.embeddings import fingerprint
from streamcurate.embeddings.fingerprint import FingerprintBuilder
from streamcurate.embeddings.snapshot import Snapshot, stamps_of
from streamcurate.embeddings.store import as_embeddings, open_embeddings
from streamcurate.errors import InputError, StoreError
from streamcurate.storage import create_array, create_group, open_array

pytest_plugins = ["object_store"]

VALUES = np.random.default_rng(3).standard_normal((50, 4)).astype(np.float32)
NAMES = [f"img_{row}" for row in range(50)]


def make(place: str, values: np.ndarray = VALUES, name: str = "embeddings", shard_rows: int | None = None) -> None:
    """A store, its root metadata last."""
    array = create_array(f"{place}/{name}", values.shape, values.dtype, 5, shard_rows=shard_rows)
    array.write(0, values)
    create_array(f"{place}/ids", (50,), str, 20).write(0, np.array(NAMES, dtype=object))
    create_group(place, {"ids": True, "fingerprint": "abc"})


@pytest.mark.parametrize("shard_rows", [None, 20])
def test_a_store_at_a_url(object_store, shard_rows):
    url = object_store.url("x/e.zarr")
    make(url, shard_rows=shard_rows)
    object_store.faults(0.1, seed=1, slow=0.01)
    embeddings = open_embeddings(f"{url}/")
    assert (embeddings.rows, embeddings.dims, embeddings.path, embeddings.name) == (50, 4, url, url)
    assert embeddings.description() == {"path": url, "rows": 50, "dims": 4, "dtype": "float32"}
    assert embeddings.fingerprint == "abc"
    np.testing.assert_array_equal(embeddings.read(3, 44), VALUES[3:44])
    np.testing.assert_array_equal(embeddings.take(np.array([0, 7, 49])), VALUES[[0, 7, 49]])
    assert embeddings.take_ids(np.array([49, 3, 3])).tolist() == ["img_49", "img_3", "img_3"]
    assert embeddings.travels
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(embeddings)).read(3, 5), VALUES[3:5])
    # The array alone, and handles of it.
    for given in (f"{url}/embeddings", embeddings.array, embeddings.array.zarr):
        again = as_embeddings(given)
        assert again.path == f"{url}/embeddings"
        assert again.take_ids(np.array([4])).tolist() == ["img_4"]


def test_an_array_in_the_root_of_a_bucket(object_store):
    create_array(object_store.url("a"), VALUES.shape, "f2", 5).write(0, VALUES.astype("f2"))
    assert open_embeddings(object_store.url("a")).ids is None


def test_a_store_of_a_web_server(web_server):
    make(str(web_server.folder / "e.zarr"))
    embeddings = open_embeddings(web_server.url("e.zarr"))
    np.testing.assert_array_equal(embeddings.read(0, 50), VALUES)
    assert embeddings.take_ids(np.array([4])).tolist() == ["img_4"]
    make(str(web_server.folder / "wide.zarr"), VALUES.astype("f8"))
    with pytest.raises(InputError, match=r"holds float64.*streamcurate ingest http://.*/wide\.zarr wide-float32\.zarr"):
        open_embeddings(web_server.url("wide.zarr"))
    with pytest.raises(InputError, match=r"no Zarr array or group there.*check the URL"):
        open_embeddings(web_server.url("none.zarr"))
    (web_server.folder / "e.npy").write_bytes(b"1")
    with pytest.raises(InputError, match=r"e\.npy: a file, not a store.*streamcurate ingest http://.*/e\.npy e\.zarr"):
        open_embeddings(web_server.url("e.npy"))


def test_what_is_no_store(object_store):
    def refused(name: str, said: str, kind: type[Exception] = InputError) -> None:
        with pytest.raises(kind, match=said) as caught:
            open_embeddings(object_store.url(name))
        assert object_store.url(name) in str(caught.value)

    refused("none.zarr", "no such object or folder; check the URL")
    object_store.put("a.npy", b"1")
    refused("a.npy", r"a file, not a store of embeddings; ingest it: streamcurate ingest s3://.*/a\.npy a\.zarr")
    # An upload, or an ingest, that has not come to its end.
    create_array(object_store.url("half.zarr/embeddings"), VALUES.shape, "f4", 20).write(0, VALUES)
    refused("half.zarr", r"nothing that says it is a Zarr array or group .*its ingest or upload is unfinished")
    object_store.put("half.zarr.partial/state.json", b"{}")
    refused(
        "half.zarr", r"its ingest is unfinished \(s3://.*/half\.zarr\.partial/\); give the same ingest command again"
    )
    make(object_store.url("wide.zarr"), VALUES.astype("f8"))
    refused("wide.zarr", r"streamcurate ingest s3://.*/wide\.zarr s3://.*/wide-float32\.zarr")
    create_group(object_store.url("two.zarr"))
    for name in ("a", "b"):
        create_array(object_store.url(f"two.zarr/{name}"), VALUES.shape, "f4", 20)
    refused("two.zarr", r"several arrays could be the embeddings.*name one, e\.g\. s3://.*/two\.zarr/a")
    make(object_store.url("lost.zarr"))
    object_store.remove("lost.zarr/ids/zarr.json")
    refused("lost.zarr", "its ids are absent", StoreError)
    make(object_store.url("hole.zarr"))
    object_store.remove("hole.zarr/embeddings/c/3/0")
    with pytest.raises(StoreError, match=r"chunk 3 \(rows 15 to 19\) is absent \(s3://.*embeddings/c/3/0"):
        open_embeddings(object_store.url("hole.zarr")).read(0, 50)


def test_a_zarr_array_elsewhere():
    with pytest.raises(InputError, match="give the URL where it lies"):
        as_embeddings(zarr.create_array({}, shape=(2, 2), dtype="f4"))


def test_snapshots(object_store, monkeypatch, tmp_path):
    """A change is told from objects put again, at the cost of one listing."""
    monkeypatch.setattr(fingerprint, "UNIT_BYTES", 8 * 16)
    url = object_store.url("e.zarr")
    make(url)
    embeddings = open_embeddings(url)
    builder = FingerprintBuilder(4, embeddings.dtype)
    builder.update(VALUES)
    snapshot = Snapshot.of(embeddings, builder.digests, stamps_of(embeddings))
    for place in (object_store.url("run/store.json"), tmp_path / "store.json"):
        assert Snapshot.read(place) is None
        snapshot.write(place)
        assert Snapshot.read(place) == snapshot
    object_store.faults()
    assert snapshot.check(embeddings) == snapshot
    assert [method for method, path, _ in object_store.requests] == ["GET"]
    chunk = "e.zarr/embeddings/c/2/0"
    before = object_store.get(chunk)
    object_store.put(chunk, before)
    assert snapshot.check(embeddings) == snapshot
    object_store.put(chunk, before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"changed since the run began: rows 10 to 14 \(chunk 2\)"):
        snapshot.check(embeddings)
    object_store.put(chunk, before)
    open_array(f"{url}/ids", writable=True).write(20, np.array([*NAMES[20:39], "other"], dtype=object))
    with pytest.raises(StoreError, match=r"its ids changed since the run began \(chunk 1\)"):
        snapshot.check_ids(embeddings)
