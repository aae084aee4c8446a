"""Trees, stores and extended trees in object storage."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from frozen_trees import Centroids, build, store_of

from streamcurate import objects
from streamcurate.curated import extend, open_tree
from streamcurate.embeddings import open_embeddings
from streamcurate.errors import RunError

pytest_plugins = ["object_store"]


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> None:
    """Where working folders are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path / "temporary"))


def put(folder, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            objects.write(objects.join(url, path.relative_to(folder).as_posix()), path.read_bytes())


def test_everything_in_a_bucket(object_store, tmp_path, monkeypatch):
    levels = [Centroids(rows(12, 1)), Centroids(rows(4, 2))]
    first = store_of(tmp_path / "a.zarr", rows(200, 3), np.arange(200))
    second = store_of(tmp_path / "b.zarr", rows(90, 4), np.arange(90) + 1000)
    base = build(tmp_path / "run", first, levels)
    expected = base.extend(second, tmp_path / "more")
    for folder in (tmp_path / "run", second):
        put(folder, object_store.url(folder.name))
    out = object_store.url("more")
    with monkeypatch.context() as patch:
        patch.setattr("streamcurate.pipeline.extend.extend_clusters", stopping)
        with pytest.raises(KeyboardInterrupt):
            extend(object_store.url("run"), object_store.url("b.zarr"), out)
    # On another machine.
    shutil.rmtree(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    found = extend(object_store.url("run"), object_store.url("b.zarr"), out)
    assert found.digest == expected.digest
    assert list((tmp_path / "temporary").iterdir()) == []
    other = store_of(tmp_path / "c.zarr", rows(90, 5), np.arange(90) + 1000)
    with pytest.raises(RunError, match=rf"more: holds the rows of .*b.zarr, not of {other}; choose another"):
        extend(object_store.url("run"), other, out)
    assert list((tmp_path / "temporary").iterdir()) == []
    tree = open_tree(out)
    assert [store.path for store in tree.manifest.stores] == [str(first), object_store.url("b.zarr")]
    assert tree.manifest.extension.run == object_store.url("run")
    np.testing.assert_array_equal(tree.levels[0].labels[:], expected.levels[0].labels[:])
    joined = tree.embeddings()
    np.testing.assert_array_equal(joined.take_ids(np.array([0, 289])), [0, 1089])
    np.testing.assert_array_equal(joined.read(150, 250), expected.embeddings().read(150, 250))
    np.testing.assert_array_equal(tree.sample(60).ids, expected.sample(60).ids)
    assert extend(object_store.url("run"), open_embeddings(second), object_store.url("again")).digest == expected.digest


def stopping(*arguments: object) -> None:
    raise KeyboardInterrupt
