"""A tree at rest: opening, the handles, and what its digest covers."""

from __future__ import annotations

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.errors import InputError, RunError
from streamcurate.runs import combine_digests
from streamcurate.storage import create_array, create_group, open_array
from streamcurate.tree import LevelWriter, level_digest, open_tree, rows_under


@pytest.fixture
def tree(tmp_path):
    values = np.random.default_rng(0).standard_normal((90, 3)).astype(np.float32)
    create_group(tmp_path / "e.zarr")
    create_array(tmp_path / "e.zarr" / "embeddings", values.shape, np.float32, 30).write(0, values)
    return sc.cluster(tmp_path / "e.zarr", tmp_path / "run", levels=[sc.Level(8, splits=2), sc.Level(3)])


def test_what_is_opened_is_what_was_built(tree):
    again = open_tree(tree.path)
    assert again.manifest == tree.manifest
    assert repr(again).endswith("90 rows, levels [" + ", ".join(str(level.clusters) for level in tree.levels) + "])")
    for one, other in zip(tree.levels, again.levels, strict=True):
        assert repr(one) == repr(other)
        for name in ("centroids", "labels", "distances", "members", "offsets"):
            np.testing.assert_array_equal(getattr(one, name)[:], getattr(other, name)[:])
    assert (again.metric, again.seed, again.complete, again.digest) == ("l2", 0, True, tree.digest)
    assert again.levels[1].stored_coarse_offsets is None
    assert again.levels[0].stored_coarse_centroids.shape == (8, 3)


def test_user_arrays_cannot_be_written(tree):
    with pytest.raises(ValueError, match="read-only"):
        tree.levels[0].labels[0] = 3


def test_rows_under(tree):
    first, second = tree.levels
    under = tree.rows_under()
    np.testing.assert_array_equal(under[0], np.bincount(first.labels[:], minlength=first.clusters))
    own = second.labels[:][first.labels[:]]
    np.testing.assert_array_equal(under[1], np.bincount(own, minlength=second.clusters))
    np.testing.assert_array_equal(rows_under(second, under[0]), under[1])
    np.testing.assert_array_equal(second.sizes(), np.diff(second.offsets[:]))


@pytest.mark.parametrize("name", ["centroids", "labels", "members", "offsets"])
def test_the_digest_covers_every_array(tree, name):
    level = tree.levels[0]
    before = level_digest(level)
    assert before == tree.manifest.levels[0].digest
    assert tree.digest == combine_digests(record.digest for record in tree.manifest.levels)
    array = open_array(f"{tree.path}/tree.zarr/level-1/{name}", writable=True)
    values = array.read(0, array.rows)
    values[1] += 1
    array.write(0, values)
    assert level_digest(open_tree(tree.path).levels[0]) != before


def test_no_tree_or_an_unfinished_one(tree, tmp_path):
    import dataclasses

    with pytest.raises(RunError, match="no run directory"):
        open_tree(tmp_path)
    manifest = tree.manifest
    dataclasses.replace(manifest, complete=False, digest=None, levels=manifest.levels[:1]).write(tree.path)
    with pytest.raises(RunError, match="1 of 2 levels"):
        open_tree(tree.path)


def test_the_store_may_be_gone_but_not_another(tree, tmp_path):
    assert tree.embeddings().rows == 90
    (tmp_path / "e.zarr").rename(tmp_path / "moved.zarr")
    assert tree.embeddings() is None
    create_group(tmp_path / "e.zarr")
    create_array(tmp_path / "e.zarr" / "embeddings", (5, 3), np.float32, 5).write(0, np.ones((5, 3), np.float32))
    with pytest.raises(InputError, match="has 5 rows"):
        tree.embeddings()


def test_a_level_is_written_once_and_may_be_written_again(tmp_path):
    for _ in range(2):
        writer = LevelWriter(tmp_path / "building" / "level-1", 5, 2)
        writer.labels().write(0, np.arange(5, dtype=np.int32))
        writer.write_offsets(np.array([2, 0, 3]))
    np.testing.assert_array_equal(writer.stored("offsets").read(0, 4), [0, 2, 2, 5])
    np.testing.assert_array_equal(writer.stored("labels").read(0, 5), np.arange(5))
