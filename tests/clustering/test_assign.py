"""New rows labelled with a frozen tree, against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles import formula

import streamcurate as sc
from streamcurate.clustering import assign as module
from streamcurate.errors import DataError, InputError, MemoryLimitError
from streamcurate.storage import list_arrays, open_array


def rows(count: int, seed: int, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("splits", [1, 5])
def test_labels_of_new_rows(tmp_path, metric, dtype, splits, monkeypatch):
    from streamcurate.streaming import budget

    tree = sc.cluster(rows(400, 0), tmp_path / "run", levels=[sc.Level(20, splits=splits), sc.Level(4)], metric=metric)
    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 100)
    new = rows(333, 1).astype(dtype)
    found = tree.assign(new, tmp_path / "labels.zarr")
    first, second = tree.levels
    values = formula(new, first.centroids[:], metric)
    if splits > 1:
        coarse = first.stored_coarse_centroids.read(0, 20)
        owner = np.repeat(np.arange(20), np.diff(first.stored_coarse_offsets.read(0, 21)))
        values[formula(new, coarse, metric).argmin(axis=1)[:, None] != owner[None]] = np.inf
    labels, best = values.argmin(axis=1), values.min(axis=1)
    np.testing.assert_array_equal(found.labels()[:], labels)
    expected = np.sqrt(best) if metric == "l2" else best / 2
    np.testing.assert_array_equal(found.distances()[:], expected.astype(np.float32))
    np.testing.assert_array_equal(found.labels(2)[:], second.labels[:][labels])
    np.testing.assert_array_equal(found.distances(2)[:], second.distances[:][labels])
    assert (found.rows, found.levels, Path(found.path)) == (333, 2, tmp_path / "labels.zarr")
    assert set(list_arrays(tmp_path / "labels.zarr" / "level-1")) == {"labels", "distances"}
    assert not (tmp_path / "labels.zarr.partial").exists()


def test_the_trees_own_rows_get_the_trees_labels(tmp_path):
    values = rows(300, 0)
    tree = sc.cluster(values, tmp_path / "run", levels=[sc.Level(9, splits=4), sc.Level(5), sc.Level(2)])
    found = sc.assign(tmp_path / "run", values, tmp_path / "labels.zarr", threads=1)
    level, own = tree.levels[0].labels[:], tree.levels[0].distances[:]
    np.testing.assert_array_equal(found.labels()[:], level)
    np.testing.assert_array_equal(found.distances()[:], own)
    for number in (2, 3):
        level = tree.levels[number - 1].labels[:][level]
        np.testing.assert_array_equal(found.labels(number)[:], level)


@pytest.mark.parametrize("splits", [1, 2])
def test_under_a_cluster_that_holds_nothing_there_is_nothing(tmp_path, splits):
    """A cluster without members is no point of the level above, a coarse one has no leaves: label -1 there."""
    levels = [sc.Level(6, splits=splits), sc.Level(2)]
    tree = sc.cluster(np.repeat(rows(3, 0), 5, axis=0), tmp_path / "run", levels=levels)
    level = tree.levels[0]
    name = "offsets" if splits == 1 else "coarse_offsets"
    folder = tmp_path / "run" / "tree.zarr" / "level-1"
    empty = int(np.flatnonzero(np.diff(open_array(folder / name).read(0, 7)) == 0)[0])
    # Where it is a copy of another centroid no row goes to it; put it where new rows are.
    stored = open_array(folder / ("centroids" if splits == 1 else "coarse_centroids"), writable=True)
    centroids = stored.read(0, 6)
    centroids[empty] = 50
    stored.write(0, centroids)
    new = rows(40, 5)
    new[::2] += 50
    found = tree.assign(new, tmp_path / "labels.zarr")
    assert (found.labels()[:][::2] == (empty if splits == 1 else -1)).all()
    assert np.isnan(found.distances()[:][::2]).all() == (splits > 1)
    assert (found.labels(2)[:][::2] == -1).all()
    assert np.isnan(found.distances(2)[:][::2]).all()
    inside = found.labels()[:][1::2]
    assert (inside >= 0).all()
    np.testing.assert_array_equal(found.labels(2)[:][1::2], tree.levels[1].labels[:][inside])
    assert level.clusters == (6 if splits == 1 else 3)


@pytest.fixture
def tree(tmp_path):
    return sc.cluster(rows(100, 0), tmp_path / "run", levels=[10, 2])


def test_refusals_leave_nothing(tree, tmp_path):
    place = tmp_path / "labels.zarr"
    with pytest.raises(InputError, match=r"has 5 dims, the tree in .* was built from 4"):
        tree.assign(rows(10, 0, 5), place)
    bad = rows(10, 0)
    bad[4] = np.nan
    with pytest.raises(DataError, match="first: row 4"):
        tree.assign(bad, place)
    with pytest.raises(InputError, match="no such folder"):
        tree.assign(rows(10, 0), tmp_path / "gone" / "labels.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    place.mkdir()
    with pytest.raises(InputError, match="already exists"):
        tree.assign(rows(10, 0), place)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryLimitError])
def test_a_stop_leaves_nothing_and_a_kill_is_begun_anew(tree, tmp_path, monkeypatch, error):
    place = tmp_path / "labels.zarr"

    def stop(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, "move_folder", stop)
        with pytest.raises(error):
            tree.assign(rows(10, 0), place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    (tmp_path / "labels.zarr.partial").mkdir()
    (tmp_path / "labels.zarr.partial" / "rubbish").write_text("left by a kill")
    tree.assign(rows(10, 0), place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.zarr", "run"]
    assert not (place / "rubbish").exists()
