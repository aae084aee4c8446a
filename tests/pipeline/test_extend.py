"""A tree with more rows in it is the tree that brute force makes of all rows with the same centroids."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from frozen_trees import Centroids, build, fill, snapshot_of, store_of, unit

import streamcurate as sc
from streamcurate.clustering import extend as clustering_extend
from streamcurate.clustering import new_rows
from streamcurate.clustering.frozen import FrozenLevel
from streamcurate.curated import Tree, assign, extend, open_tree, sample
from streamcurate.embeddings.snapshot import Snapshot
from streamcurate.errors import DataError, DegenerateTreeWarning, InputError, RunError, StoreError
from streamcurate.pipeline.folder import RunFolder
from streamcurate.runs import Manifest, differences
from streamcurate.sampling import STRATEGIES
from streamcurate.storage import open_array
from streamcurate.tree import TREE_NAME, level
from streamcurate.tree import open_tree as open_stored_tree

DIMS = 3
ARRAYS = ("labels", "distances", "members", "offsets", "centroids")


def rows(count: int, seed: int, scale: float = 1.0, dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, DIMS)) * scale).astype(dtype)


def centroids(metric: str = "l2", splits: bool = False) -> list[Centroids]:
    """Four levels. The upper half of the clusters lies where the first store has no rows and the second has."""
    near, far = rows(12, 1), rows(12, 2, 0.3) + np.float32(40)
    levels = [np.concatenate([near, far]), np.concatenate([near[:4], far[:4]]), np.stack([near[0], far[0]]), near[:1]]
    if metric == "cosine":
        levels = [unit(np.concatenate([rows(12, 1), -unit(np.ones((1, DIMS))) + rows(5, 9, 0.05)])), unit(rows(5, 3))]
    found = [Centroids(values) for values in levels]
    if splits:
        # The last coarse cluster has no leaves: what is nearest to it is in no cluster.
        coarse = np.concatenate([levels[0][::6], np.full((1, DIMS), -40, dtype=np.float32)])
        edges = np.linspace(0, len(levels[0]), len(coarse)).astype(np.int64)
        found[0] = Centroids(levels[0], coarse, np.append(edges, edges[-1]))
    return found


@pytest.fixture(autouse=True)
def segments(monkeypatch):
    """Three of them."""
    monkeypatch.setattr(new_rows, "_SEGMENT_ROWS", 96)


@pytest.fixture
def small_pieces(monkeypatch):
    """Chunks and blocks so small that there are many of each."""
    from streamcurate.streaming import budget

    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 64)
    monkeypatch.setattr(level, "_FEWEST", 64)
    monkeypatch.setattr(level, "_FEWEST_OF_LONG", 64)
    monkeypatch.setattr(level, "ALIGNED_CHUNK_ROWS", 128)
    monkeypatch.setattr(new_rows, "_BLOCK_ROWS", 40)


def old_rows(metric: str = "l2", dtype: type = np.float32) -> np.ndarray:
    values = rows(300, 10, dtype=dtype)
    if metric == "cosine":
        values[(values @ np.ones(DIMS, dtype=dtype)) < 0] *= -1
    return values


def further(dtype: type = np.float32) -> np.ndarray:
    values = rows(257, 11, 1.5, dtype)
    values[::3] += dtype(40)
    values[5] = -40
    values[10:40] = old_rows(dtype=dtype)[10:40]  # as far from their centroids as rows of the first store
    return values


def names(prefix: str, count: int) -> np.ndarray:
    return np.array([f"{prefix}-{number}" for number in range(count)], dtype=object)


def check_equal(found: Tree, expected: Tree) -> None:
    for one, other in zip(found.levels, expected.levels, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name)[:], getattr(other, name)[:], err_msg=f"{one} {name}")
    for one, other in zip(found.manifest.levels, expected.manifest.levels, strict=True):
        assert one.inertia == pytest.approx(other.inertia, rel=1e-12)
        plain = dataclasses.replace(one, inertia=other.inertia, warnings=other.warnings)
        assert plain == other
    assert found.digest == expected.digest


@pytest.mark.parametrize(
    ("metric", "splits", "dtypes", "subset"),
    [
        ("l2", False, (np.float32, np.float32), False),
        ("l2", False, (np.float16, np.float32), True),
        ("l2", True, (np.float32, np.float16), False),
        ("cosine", False, (np.float16, np.float16), True),
    ],
)
def test_the_tree_of_both_stores(small_pieces, tmp_path, metric, splits, dtypes, subset):
    levels = centroids(metric, splits)
    old, new = old_rows(metric, dtypes[0]), further(dtypes[1])
    outside = np.arange(0, len(old), 7) if subset else None
    ids = names("old", len(old)), names("new", len(new))
    first, second = store_of(tmp_path / "a.zarr", old, ids[0]), store_of(tmp_path / "b.zarr", new, ids[1], 50)
    wider = np.concatenate([old, new]).astype(max(dtypes, key=lambda dtype: np.dtype(dtype).itemsize))
    both = store_of(tmp_path / "both.zarr", wider, np.concatenate(ids))
    base = build(tmp_path / "run", first, levels, metric, outside)
    assert all((one.sizes() == 0).any() for one in base.levels[:-1])
    before = base.digest, sorted(path for path in (tmp_path / "run").rglob("*"))
    found = base.extend(second, tmp_path / "more")
    expected = build(tmp_path / "expected", both, levels, metric, outside)
    check_equal(found, expected)
    check_equal(open_tree(tmp_path / "more"), expected)
    # New clusters came to hold something, and so did clusters above them.
    filled = [
        int(((one.sizes() == 0) & (other.sizes() > 0)).sum())
        for one, other in zip(base.levels, found.levels, strict=True)
    ]
    assert filled[0] > 1
    if metric == "l2":
        assert filled[1] > 1
        assert filled[2] == 1
    assert (found.levels[0].labels[:] == -1).any() == (splits or subset)
    assert (open_tree(tmp_path / "run").digest, sorted(path for path in (tmp_path / "run").rglob("*"))) == before
    check_draws(found, expected)


def test_joined_rows_are_embeddings_like_any(base, new, tmp_path):
    found = base.extend(new, tmp_path / "more")
    joined = found.embeddings()
    labels = found.assign(joined, tmp_path / "labels.zarr")
    np.testing.assert_array_equal(labels.labels()[:], found.levels[0].labels[:])
    np.testing.assert_array_equal(labels.ids[:], np.concatenate([names("old", 300), names("new", 257)]))
    copy = store_of(tmp_path / "copy.zarr", np.concatenate([old_rows(), further()]))
    assert sc.cluster(joined, tmp_path / "anew", levels=[9]).digest == sc.cluster(copy, levels=[9]).digest


def check_draws(found: Tree, expected: Tree) -> None:
    for strategy in STRATEGIES:
        for multiplier, size in ((1, 20), (3, 333)):
            one, other = (sample(tree, size, strategy, multiplier, seed=4) for tree in (found, expected))
            np.testing.assert_array_equal(one.rows, other.rows)
            np.testing.assert_array_equal(one.ids, other.ids)
    earlier = np.array([3, 299, 300, 556])
    earlier = earlier[found.levels[0].stored_labels.take(earlier) >= 0]
    kept = [tree.sample(50, include=earlier) for tree in (found, expected)]
    np.testing.assert_array_equal(kept[0].rows, kept[1].rows)
    assert set(earlier) <= set(kept[0].rows)
    assert any(text.startswith("new-") for text in kept[0].ids)
    assert any(text.startswith("old-") for text in kept[0].ids)


def test_three_stores_and_any_order_of_work(small_pieces, tmp_path):
    levels = centroids()
    parts = [old_rows(), further(), rows(70, 12) + np.float32(40)]
    stores = [store_of(tmp_path / f"{number}.zarr", part, np.arange(len(part))) for number, part in enumerate(parts)]
    together = store_of(
        tmp_path / "all.zarr", np.concatenate(parts), np.concatenate([np.arange(len(part)) for part in parts])
    )
    base = build(tmp_path / "run", stores[0], levels)
    once = base.extend(stores[1], tmp_path / "once")
    twice = extend(tmp_path / "once", stores[2], tmp_path / "twice", threads=1)
    check_equal(twice, build(tmp_path / "expected", together, levels))
    rest = store_of(tmp_path / "rest.zarr", np.concatenate(parts[1:]), np.arange(327))
    assert base.extend(rest, tmp_path / "rest").digest == twice.digest
    assert [store.rows for store in twice.manifest.stores] == [300, 257, 70]
    assert twice.manifest.store.rows == twice.source["rows"] == 627
    assert twice.manifest.extension.run == str(tmp_path / "once")
    joined = twice.embeddings()
    np.testing.assert_array_equal(joined.read(0, 627), np.concatenate(parts))
    np.testing.assert_array_equal(joined.take_ids(np.array([300, 0, 626, 299])), [0, 0, 69, 299])
    assert sorted(path.name for path in (tmp_path / "twice").iterdir()) == [
        ".lock", "events.jsonl", "run.json", "store-2.json", "store-3.json", "store.json", "tree.zarr",
    ]  # fmt: skip
    # Novelty is measured by the rows that the centroids were fitted to.
    assert once.manifest.extension.novelty.threshold == twice.manifest.extension.novelty.threshold
    # What a cluster that was empty is given now has parents, too.
    labels = assign(twice, parts[1], tmp_path / "labels.zarr").labels(3)[:]
    np.testing.assert_array_equal(labels, parents(twice, 300, 557))
    assert (labels >= 0).all()
    assert (assign(base, parts[1], tmp_path / "base.zarr").labels(3)[:] == -1).any()


def parents(tree: Tree, start: int, stop: int) -> np.ndarray:
    """Level-3 clusters of rows, by following the labels."""
    labels = tree.levels[0].labels[start:stop]
    for one in tree.levels[1:3]:
        labels = np.where(labels >= 0, one.labels[:][labels], -1)
    return labels


@pytest.fixture
def base(tmp_path) -> Tree:
    return build(tmp_path / "run", store_of(tmp_path / "a.zarr", old_rows(), names("old", 300)), centroids())


@pytest.fixture
def new(tmp_path) -> Path:
    return store_of(tmp_path / "b.zarr", further(), names("new", 257))


STOPS = {
    "a segment": (FrozenLevel, "label", 2),
    "members of level 1": (clustering_extend, "write_members", 1),
    "members of level 2": (clustering_extend, "write_members", 2),
    "the first manifest": (Manifest, "write", 1),
    "a snapshot": (Snapshot, "write", 1),
    "level 1 in its place": (RunFolder, "place", 1),
    "the manifest with level 1": (RunFolder, "record", 2),
    "the last manifest": (RunFolder, "conclude", 1),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """Digest of what an extension gives that nobody stops."""
    place = tmp_path_factory.mktemp("undisturbed")
    store = store_of(place / "both.zarr", np.concatenate([old_rows(), further()]))
    digest = build(place / "expected", store, centroids()).digest
    assert digest is not None
    return digest


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_anywhere_and_the_same_call_again(base, new, tmp_path, monkeypatch, stop, undisturbed):
    owner, name, count = STOPS[stop]
    calls = []
    original = getattr(owner, name)

    def stopping(*arguments):
        calls.append(name)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        with pytest.raises(KeyboardInterrupt):
            base.extend(new, tmp_path / "more")
    labelled = []
    label = FrozenLevel.label
    with monkeypatch.context() as patch:
        patch.setattr(FrozenLevel, "label", lambda *arguments: labelled.append(1) or label(*arguments))
        found = base.extend(new, tmp_path / "more")
    # Three segments, and new clusters for levels 2, 3 and 4.
    assert len(labelled) == {"the first manifest": 6, "a snapshot": 6, "a segment": 5, "the last manifest": 0}.get(
        stop, 3
    )
    assert found.digest == undisturbed
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == [
        ".lock", "events.jsonl", "run.json", "store-2.json", "store.json", "tree.zarr",
    ]  # fmt: skip
    assert base.extend(new, tmp_path / "more").digest == undisturbed  # nothing to do


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import streamcurate.clustering.new_rows as new_rows
from streamcurate.clustering import extend as clustering_extend
from streamcurate.cli.main import main
new_rows._SEGMENT_ROWS = 96
places = {"segment": (new_rows, "_label", 2), "members": (clustering_extend, "write_members", 1)}
owner, name, count = places[sys.argv[2]]
original, calls = getattr(owner, name), []
def killing(*arguments):
    result = original(*arguments)
    calls.append(1)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, killing)
main(sys.argv[3:])
"""


@pytest.mark.parametrize("where", ["segment", "members"])
def test_a_killed_process_is_gone_on_with(base, new, tmp_path, where, monkeypatch, undisturbed):
    command = [str(base.path), str(new), str(tmp_path / "more")]
    script = [sys.executable, "-c", KILLED, os.pathsep.join(sys.path), where]
    assert subprocess.run([*script, "extend", *command], capture_output=True).returncode == -signal.SIGKILL
    labelled = []
    label = new_rows._label
    monkeypatch.setattr(new_rows, "_label", lambda *arguments: labelled.append(1) or label(*arguments))
    found = extend(*command)
    assert len(labelled) == (1 if where == "segment" else 0)
    assert found.digest == undisturbed


def test_a_killed_assign_is_gone_on_with(base, new, tmp_path, monkeypatch):
    script = [sys.executable, "-c", KILLED, os.pathsep.join(sys.path), "segment", "assign"]
    command = [base.path, str(new), "--out", str(tmp_path / "labels.zarr")]
    assert subprocess.run([*script, *command], capture_output=True).returncode == -signal.SIGKILL
    labelled = []
    label = new_rows._label
    monkeypatch.setattr(new_rows, "_label", lambda *arguments: labelled.append(1) or label(*arguments))
    found = base.assign(new, tmp_path / "labels.zarr")
    assert len(labelled) == 1  # two of three were kept
    expected = base.assign(new, tmp_path / "undisturbed.zarr")
    for number in (1, 2, 3, 4):
        np.testing.assert_array_equal(found.labels(number)[:], expected.labels(number)[:])
        np.testing.assert_array_equal(found.distances(number)[:], expected.distances(number)[:])
    assert not (tmp_path / "labels.zarr.partial").exists()


def test_damaged_scratch_is_made_again(base, new, tmp_path, monkeypatch, undisturbed):
    with monkeypatch.context() as patch:
        patch.setattr(clustering_extend, "write_members", stopped)
        with pytest.raises(KeyboardInterrupt):
            base.extend(new, tmp_path / "more")
    segment = tmp_path / "more" / "scratch" / "new" / "segment-1"
    array = open_array(segment / "labels", writable=True)
    fill(array, array.read(0, array.rows)[::-1])
    assert base.extend(new, tmp_path / "more").digest == undisturbed


def stopped(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_what_changed_meanwhile_is_refused(base, new, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(clustering_extend, "write_members", stopped)
        with pytest.raises(KeyboardInterrupt):
            base.extend(new, tmp_path / "more")
    with pytest.raises(RunError, match=r"unfinished .0 of 4 levels.; give its streamcurate extend command again"):
        open_tree(tmp_path / "more")
    other = build(tmp_path / "other", tmp_path / "a.zarr", centroids()[:3])
    with pytest.raises(RunError, match=f"extends {tmp_path}/run of digest .*not {tmp_path}/other"):
        other.extend(new, tmp_path / "more")
    shutil.copytree(new, tmp_path / "kept.zarr")
    changed = further()
    changed[100] += 1
    fill(open_array(new / "embeddings", writable=True), changed)
    with pytest.raises(
        StoreError, match=r"b.zarr: changed since the run began: rows 0 to 31 .chunk 0. hold other values"
    ):
        base.extend(new, tmp_path / "more")
    shutil.rmtree(new)
    shutil.copytree(tmp_path / "kept.zarr", new)
    fill(open_array(new / "ids", writable=True), names("other", 257).astype("T"))
    with pytest.raises(StoreError, match="its ids changed"):
        base.extend(new, tmp_path / "more")
    fill(open_array(tmp_path / "a.zarr" / "embeddings", writable=True), old_rows()[::-1])
    with pytest.raises(StoreError, match=r"a.zarr: changed since the run began"):
        base.extend(new, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_other_rows_leave_a_finished_run_as_it_is(base, new, tmp_path):
    found = base.extend(new, tmp_path / "more")
    before = sorted((tmp_path / "more").rglob("*"))
    changed = further()
    changed[256] += 1
    other = store_of(tmp_path / "other.zarr", changed, names("new", 257))
    fewer = store_of(tmp_path / "fewer.zarr", changed[:9], names("new", 9))
    for given in (other, fewer):
        with pytest.raises(RunError) as caught:
            base.extend(given, tmp_path / "more", scratch=tmp_path / "scratch")
        assert str(caught.value) == (
            f"{tmp_path}/more: holds the rows of {new}, not of {given}; choose another run directory"
        )
        assert sorted((tmp_path / "more").rglob("*")) == before
    fill(open_array(new / "embeddings", writable=True), changed)
    with pytest.raises(StoreError, match=r"b.zarr: changed since the run began"):
        base.extend(new, tmp_path / "more")
    assert sorted((tmp_path / "more").rglob("*")) == before
    assert open_tree(tmp_path / "more").digest == found.digest


def test_stores_that_were_moved(base, new, tmp_path):
    """The same rows at new places are noted there, by ``cluster`` for a plain run, by ``extend`` for one like this."""
    expected = base.extend(new, tmp_path / "more")
    for name in ("a.zarr", "b.zarr"):
        shutil.copytree(tmp_path / name, tmp_path / f"moved-{name}")
        shutil.rmtree(tmp_path / name)
    first, second = tmp_path / "moved-a.zarr", tmp_path / "moved-b.zarr"
    assert expected.embeddings() is None
    moved = dataclasses.replace(base.manifest, store=dataclasses.replace(base.manifest.store, path=str(first)))
    snapshot_of(first).write(tmp_path / "run" / "store.json")
    moved.write(tmp_path / "run")
    found = extend(tmp_path / "run", second, tmp_path / "more")
    assert (found.digest, found.novelty) == (expected.digest, expected.novelty)
    tree = open_tree(tmp_path / "more")
    assert [store.path for store in tree.manifest.stores] == [str(first), str(second)]
    assert tree.source["path"] == str(first)
    np.testing.assert_array_equal(tree.embeddings().read(290, 310), np.concatenate([old_rows()[290:], further()[:10]]))
    assert len(tree.sample(30).ids) == 30
    assert snapshot_of(second) == Snapshot.read(tmp_path / "more" / "store-2.json")


def test_refusals_leave_nothing(base, new, tmp_path):
    def refused(error: type[Exception], match: str, given: object, out: str = "more", tree: Tree = base) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(error, match=match):
            tree.extend(given, tmp_path / out)
        assert sorted(tmp_path.rglob("*")) == before

    bad = further()
    bad[44, 1] = np.nan
    spoilt = store_of(tmp_path / "bad.zarr", bad, names("new", 257))
    refused(DataError, 'bad.zarr: 1 rows hold NaN or Inf .first: row 44, id "new-44".; drop them', spoilt)
    refused(InputError, "has 5 dims, the tree in", np.ones((9, 5), np.float32))
    refused(InputError, "has no ids, .*a.zarr has ids that are strings", further())
    numbered = store_of(tmp_path / "numbered.zarr", further(), np.arange(257))
    refused(InputError, "has ids that are integers, .*a.zarr has ids that are strings; .*--ids", numbered)
    refused(RunError, "run: is a run that cluster made; choose another", new, "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    refused(RunError, "full: is no run directory and not empty", new, "full")
    refused(InputError, "no such file or folder", tmp_path / "gone.zarr")
    labels = open_array(Path(base.path) / TREE_NAME / "level-1" / "labels", writable=True)
    fill(labels, labels.read(0, 300)[::-1])
    refused(RunError, "level 1 is damaged", new)


def test_cluster_leaves_an_extended_run_alone(base, new, tmp_path):
    found = base.extend(new, tmp_path / "more")
    with pytest.raises(RunError, match=f"is the run {tmp_path}/run extended by more rows.*another run directory"):
        sc.cluster(new, tmp_path / "more", levels=[5])
    for store in (new, tmp_path / "a.zarr"):
        with pytest.raises(InputError, match=r"changed since the run began|shares no level with this run"):
            sc.cluster(store, tmp_path / "again", levels=[24], reuse=tmp_path / "more")
    assert not (tmp_path / "again").exists()
    content = json.loads((tmp_path / "more" / "run.json").read_text())
    assert content["format_version"] == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["format_version"] == 1
    assert Manifest.read(tmp_path / "more") == found.manifest
    assert differences(base.manifest, found.manifest)[0] == "store.rows: 300 → 557"


def test_rows_in_memory_and_a_store_that_is_gone(tmp_path):
    tree = sc.cluster(old_rows(), tmp_path / "run", levels=[sc.Level(9, splits=3), 4], seed=2)
    store = store_of(tmp_path / "b.zarr", further())
    found = extend(tree, store, tmp_path / "more")
    assert found.digest == tree.extend(further(), tmp_path / "memory").digest
    assert found.embeddings() is None
    assert [one.path for one in found.manifest.stores] == ["", str(store)]
    assert found.sample(30).ids is None
    with pytest.raises(InputError, match=r"has ids, the rows of .*run have no ids"):
        tree.extend(store_of(tmp_path / "ids.zarr", further(), np.arange(257)), tmp_path / "refused")
    two = sc.cluster(store, tmp_path / "two", levels=[9])
    three = two.extend(store_of(tmp_path / "c.zarr", rows(50, 5)), tmp_path / "three")
    assert three.embeddings().rows == 307
    shutil.rmtree(store)
    assert open_stored_tree(tmp_path / "three").embeddings() is None
    four = extend(tmp_path / "three", rows(20, 6), tmp_path / "four")
    assert four.manifest.store.rows == 327


def test_what_there_is_to_know_is_told(base, new, tmp_path):
    with pytest.warns(DegenerateTreeWarning, match=r"a.zarr holds the very rows of .*a.zarr"):
        again = base.extend(tmp_path / "a.zarr", tmp_path / "again")
    assert again.manifest.extension.novelty.share <= 0.01
    split = build(tmp_path / "split", tmp_path / "a.zarr", centroids(splits=True))
    with pytest.warns(DegenerateTreeWarning, match=r"1 rows of .*b.zarr are in no cluster and cannot be drawn"):
        found = split.extend(new, tmp_path / "outside")
    novelty = found.novelty
    assert base.novelty is None
    assert novelty == found.manifest.extension.novelty
    far = f"level 1: {novelty.share:.0%} of the rows of {new} lie farther out than 99 % of the rows the tree was built"
    assert sum(text.startswith(far) for text in found.warnings) == 1
    assert not any("lie farther out" in text for text in again.warnings)
    assert (novelty.rows, novelty.outside) == (257, 1)
    distances = split.levels[0].distances[:]
    ordered = np.sort(distances)
    assert novelty.threshold == ordered[296]  # the 297th of 300
    assert novelty.novel == (found.levels[0].distances[300:] > ordered[296]).sum() > 20
    # What was said of empty clusters is said anew.
    assert any("level 1: 12 of 24 clusters are empty" in text for text in again.warnings)
    fewer = int((base.extend(new, tmp_path / "more").levels[0].sizes() == 0).sum())
    assert 0 < fewer < 12
    assert (
        sum("clusters are empty" in text and "level 1:" in text for text in open_tree(tmp_path / "more").warnings) == 1
    )
    assert any(f"level 1: {fewer} of 24 clusters are empty" in text for text in open_tree(tmp_path / "more").warnings)


def test_an_approximate_level_stays_one(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    tree = sc.cluster(old_rows(), tmp_path / "run", levels=[sc.Level(20, search="faiss"), 4])
    with pytest.warns(DegenerateTreeWarning, match=r"FAISS are approximate: .* of 257 rows"):
        found = tree.extend(further(), tmp_path / "more")
    assert sum("FAISS" in text for text in found.manifest.levels[0].warnings) == 2
    labels = assign(tree, further(), tmp_path / "labels.zarr").labels()[:]
    np.testing.assert_array_equal(found.levels[0].labels[300:], labels)
