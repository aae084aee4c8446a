"""New rows labelled with a frozen tree, against brute force."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from frozen_trees import store_of
from oracles import formula

import streamcurate as sc
from streamcurate import objects
from streamcurate.cli.main import main
from streamcurate.clustering import assign as module
from streamcurate.clustering import finished, new_rows
from streamcurate.clustering.unfinished import UnfinishedLabels
from streamcurate.embeddings.partial import Partial
from streamcurate.errors import DataError, InputError, RunError
from streamcurate.runs import Checkpoints, RunLock
from streamcurate.storage import create_group, list_arrays, open_array, open_group_attributes
from streamcurate.streaming import Silent

pytest_plugins = ["object_store"]


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


@pytest.fixture
def segments(monkeypatch):
    """Of 16 rows."""
    monkeypatch.setattr(new_rows, "_SEGMENT_ROWS", 16)


def labelled(monkeypatch) -> list[int]:
    """Numbers of the segments that are labelled from now on."""
    calls: list[int] = []
    label = new_rows._label
    monkeypatch.setattr(new_rows, "_label", lambda number, *rest: calls.append(number) or label(number, *rest))
    return calls


def stopping(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_stop_is_gone_on_with(tree, tmp_path, monkeypatch, segments):
    place, new = tmp_path / "labels.zarr", rows(50, 4)
    expected = tree.assign(new, tmp_path / "expected.zarr")
    calls = labelled(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_put_together", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(new, place)
    assert not place.exists()
    found = tree.assign(new, place)
    assert calls == [0, 1, 2, 3]
    for level in (1, 2):
        np.testing.assert_array_equal(found.labels(level)[:], expected.labels(level)[:])
        np.testing.assert_array_equal(found.distances(level)[:], expected.distances(level)[:])
    assert found.novelty.to_mapping() == expected.novelty.to_mapping()
    assert not (tmp_path / "labels.zarr.partial").exists()


def test_unfinished_labels_of_something_else_are_kept(tree, tmp_path, monkeypatch, segments):
    place, partial = tmp_path / "labels.zarr", tmp_path / "labels.zarr.partial"
    first = store_of(tmp_path / "first.zarr", rows(50, 4))
    second = store_of(tmp_path / "second.zarr", rows(50, 5))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_put_together", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(first, place)
    before = sorted(partial.rglob("*"))
    mend = f"the command that began them goes on with them; to begin anew, remove the folder {partial}"
    other = sc.cluster(rows(100, 7), tmp_path / "other", levels=[10, 2])
    for given, new, what in (
        (tree, second, f"of {first}, not of {second}"),
        (other, first, f"by {tree.path} of digest {tree.digest}, not by {other.path} of digest {other.digest}"),
    ):
        with pytest.raises(RunError) as caught:
            given.assign(new, place, scratch=tmp_path / "scratch")
        assert str(caught.value) == f"{partial}: holds unfinished labels {what}; {mend}"
        assert sorted(partial.rglob("*")) == before
    assert list((tmp_path / "scratch").iterdir()) == []
    calls = labelled(monkeypatch)
    tree.assign(first, place)
    assert not calls


def test_labels_of_which_nothing_is_finished_are_replaced(tree, tmp_path, monkeypatch):
    place, notes = tmp_path / "labels.zarr", Notes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "label_new_rows", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(store_of(tmp_path / "first.zarr", rows(50, 4)), place)
    other = store_of(tmp_path / "second.zarr", rows(50, 5))
    found = tree.assign(other, place, progress=notes)
    held = f"held labels of {tmp_path / 'first.zarr'}, not of {other}, none of them finished; begun anew"
    assert notes.texts == [f"{place}.partial: {held}"]
    np.testing.assert_array_equal(found.labels()[:], tree.assign(other, tmp_path / "o.zarr").labels()[:])


def test_what_has_just_begun_says_what_it_is(tree, tmp_path, monkeypatch, capsys):
    """As a kill leaves it while the rows are looked at first."""
    seen = []

    def look(*arguments):
        for name in ("labels.zarr", "labels.zarr.partial"):
            seen.append(main(["inspect", str(tmp_path / name)]))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_new", look)
    with pytest.raises(KeyboardInterrupt):
        tree.assign(rows(50, 4), tmp_path / "labels.zarr")
    told = capsys.readouterr().err
    assert seen == [2, 2]
    assert told.count("give the same assign command again") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_unfinished_labels_for_a_url_are_kept(tree, tmp_path, object_store, monkeypatch, segments):
    out, scratch = object_store.url("labels.zarr"), tmp_path / "scratch"
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedLabels, "finish", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(rows(50, 4), out, scratch=scratch)
    (working,) = scratch.iterdir()
    with pytest.raises(RunError, match=f"remove the folder {working}"):
        tree.assign(rows(50, 5), out, scratch=scratch)
    calls = labelled(monkeypatch)
    tree.assign(rows(50, 4), out, scratch=scratch)
    assert not calls


@pytest.mark.parametrize("at_url", [False, True])
@pytest.mark.parametrize("ids", [None, np.arange(50) + 7, np.array([f"row {number}" for number in range(50)])])
def test_the_same_labels_again(tree, tmp_path, monkeypatch, ids, at_url, request):
    out = request.getfixturevalue("object_store").url("labels.zarr") if at_url else str(tmp_path / "labels.zarr")
    values = rows(50, 4) + np.float32(3)
    new = store_of(tmp_path / "new.zarr", values, ids)
    expected = tree.assign(new, out)
    calls, read = labelled(monkeypatch), []
    fingerprint = finished.fingerprint_of
    monkeypatch.setattr(finished, "fingerprint_of", lambda *rest: read.append(1) or fingerprint(*rest))
    for given in (new, store_of(tmp_path / "copy.zarr", values, ids, chunk=20)):
        notes = Notes()
        found = tree.assign(given, out, progress=notes)
        assert notes.texts == [f"{out}: finished already, nothing to do"]
        np.testing.assert_array_equal(found.labels(2)[:], expected.labels(2)[:])
        assert found.novelty.to_mapping() == expected.novelty.to_mapping()
        assert found.warnings == expected.warnings != ()
    assert read == [1]  # of the copy alone
    other = values.copy()
    other[-1, 0] += 1
    stranger = np.append(ids[1:], ids[:1]) if ids is not None else np.arange(50)
    build = sc.cluster(rows(100, 7), tmp_path / "other", levels=[10, 2])
    for held, given in (
        (tree, store_of(tmp_path / "changed.zarr", other, ids)),
        (tree, store_of(tmp_path / "strange.zarr", values, stranger)),
        (tree, store_of(tmp_path / "fewer.zarr", values[:-1], None if ids is None else ids[:-1])),
        (build, new),
    ):
        with pytest.raises(InputError, match="already exists"):
            held.assign(given, out)
    assert not calls


def test_stored_labels_are_opened(tree, tmp_path):
    expected = tree.assign(rows(50, 4) + np.float32(3), tmp_path / "labels.zarr")
    found = sc.open_labels(tmp_path / "labels.zarr")
    assert repr(found) == repr(expected)
    assert (found.path, found.rows, found.levels) == (str(tmp_path / "labels.zarr"), 50, 2)
    assert found.warnings == expected.warnings
    assert repr(found.novelty) == repr(expected.novelty)
    assert found.novelty.to_mapping() == expected.novelty.to_mapping()
    for name in ("rows", "novel"):
        np.testing.assert_array_equal(getattr(found.novelty, name), getattr(expected.novelty, name))
    np.testing.assert_array_equal(found.distances(2)[:], expected.distances(2)[:])
    for level in (0, 3):
        with pytest.raises(InputError, match=rf"level {level}: .*labels.zarr holds levels 1 to 2"):
            found.labels(level)
    for given, said in ((tree.path, "holds no labels"), (tmp_path / "gone", "no such file or folder")):
        with pytest.raises(InputError, match=said):
            sc.open_labels(given)


def test_scratch_is_no_url(tree, tmp_path):
    url = "s3://bucket/scratch"
    for call in (
        lambda: tree.assign(rows(9, 1), tmp_path / "labels.zarr", scratch=url),
        lambda: tree.extend(rows(9, 1), tmp_path / "more", scratch=url),
        lambda: tree.sample(9, scratch=url),
        lambda: sc.cluster(rows(9, 1), tmp_path / "again", levels=[2], scratch=url),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match="s3://bucket/scratch: scratch cannot lie at a URL; give a folder"):
            call()
        assert sorted(tmp_path.rglob("*")) == before


class Notes(Silent):
    """What is worth a line."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_a_stop_between_segments(tree, tmp_path, monkeypatch, segments, capsys):
    new = rows(50, 4)
    save = Checkpoints.save

    def stop(self, name, *rest):
        save(self, name, *rest)
        if name == "new/segment-1":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(new, tmp_path / "labels.zarr", scratch=tmp_path / "scratch")
    assert main(["inspect", str(tmp_path / "labels.zarr.partial")]) == 2
    assert "an unfinished assign; give the same assign command again" in capsys.readouterr().err
    calls = labelled(monkeypatch)
    found = tree.assign(new, tmp_path / "labels.zarr", scratch=tmp_path / "scratch")
    assert calls == [2, 3]
    np.testing.assert_array_equal(found.labels()[:], tree.assign(new, tmp_path / "again.zarr").labels()[:])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_scratch_that_was_elsewhere_is_cleared_too(tree, tmp_path, monkeypatch, segments):
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedLabels, "finish", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(rows(50, 4), tmp_path / "labels.zarr", scratch=tmp_path / "one")
    assert list((tmp_path / "one").iterdir()) != []
    found = tree.assign(rows(50, 4), tmp_path / "labels.zarr", scratch=tmp_path / "two")
    assert [path for name in ("one", "two") for path in (tmp_path / name).iterdir()] == []
    np.testing.assert_array_equal(found.labels()[:], tree.assign(rows(50, 4), tmp_path / "again.zarr").labels()[:])


def test_scratch_that_cannot_be_made(tree, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be made"):
        tree.assign(rows(50, 4), tmp_path / "labels.zarr", scratch=tmp_path / "file")
    assert not (tmp_path / "labels.zarr.partial").exists()


def test_what_lies_in_the_way(tree, tmp_path):
    partial = tmp_path / "labels.zarr.partial"
    partial.mkdir()
    (partial / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"partial: in the way, and not an unfinished assign .it holds 'letter.txt'"):
        tree.assign(rows(10, 0), tmp_path / "labels.zarr")
    assert [path.name for path in partial.iterdir() if path.name != ".lock"] == ["letter.txt"]
    # What an earlier version left has no journal.
    shutil.rmtree(partial)
    create_group(partial, {"format": 1, "kind": "labels", "tree": {"digest": "d", "path": "run"}})
    tree.assign(rows(10, 0), tmp_path / "labels.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.zarr", "run"]
    # Killed when all was done but to clean up.
    partial.mkdir()
    (partial / "job.json").write_text("{}")
    tree.assign(rows(10, 0), tmp_path / "labels.zarr")  # which are there
    assert not partial.exists()


def test_two_at_a_time(tree, tmp_path):
    with (
        UnfinishedLabels(tmp_path / "labels.zarr"),
        pytest.raises(RunError, match=f"{tmp_path}/labels.zarr.partial: is being written by process"),
    ):
        tree.assign(rows(10, 0), tmp_path / "labels.zarr")


@pytest.mark.parametrize("make", [UnfinishedLabels, Partial])
def test_a_folder_that_its_last_writer_removes(tmp_path, monkeypatch, make):
    """It is made again, whether it goes before the lock is taken or behind that."""
    acquire, left = RunLock.acquire, [True, False]

    def meanwhile(self):
        early = left.pop() if left else None
        if early:
            self.run.rmdir()
        acquire(self)
        if early is False:
            shutil.rmtree(self.run)

    monkeypatch.setattr(RunLock, "acquire", meanwhile)
    with make(str(tmp_path / "labels.zarr")):
        assert not left
        with pytest.raises(RunError, match="is being written by process"):
            make(str(tmp_path / "labels.zarr")).__enter__()


@pytest.mark.parametrize("ids", [np.arange(70) * 3, np.array([f"row {number}" for number in range(70)], dtype=object)])
def test_ids_stay_with_the_labels(tree, tmp_path, ids):
    place = store_of(tmp_path / "new.zarr", rows(70, 3), ids)
    found = tree.assign(place, tmp_path / "labels.zarr")
    np.testing.assert_array_equal(found.ids[:], ids)
    assert tree.assign(rows(70, 3), tmp_path / "none.zarr").ids is None
    bad = rows(70, 3)
    bad[5, 1] = np.inf
    with pytest.raises(DataError, match=f'first: row 5, id "{ids[5]}"'):
        tree.assign(store_of(tmp_path / "bad.zarr", bad, ids), tmp_path / "refused.zarr")


@pytest.mark.parametrize("splits", [1, 4])
def test_novelty(tmp_path, splits):
    tree = sc.cluster(rows(1000, 0), tmp_path / "run", levels=[sc.Level(10, splits=splits)])
    new = rows(400, 1)
    new[:30] += 9
    found = tree.assign(new, tmp_path / "labels.zarr")
    threshold = np.sort(tree.levels[0].distances[:])[989]
    far = found.distances()[:] > threshold
    assert 30 <= far.sum() < 60
    record = found.novelty.record
    assert (record.threshold, record.rows, record.novel, record.outside) == (threshold, 400, far.sum(), 0)
    assert found.novelty.share == far.mean()
    np.testing.assert_array_equal(
        found.novelty.novel, np.bincount(found.labels()[:][far], minlength=len(found.novelty.rows))
    )
    stated = open_group_attributes(tmp_path / "labels.zarr")["novelty"]
    assert stated == found.novelty.to_mapping()
    most = stated["clusters"]["most_novel"][0]
    assert most["novel"] == found.novelty.novel.max()
    assert found.novelty.novel[most["cluster"]] == most["novel"]
    assert repr(found).endswith(f"400 rows at 1 level, {far.mean():.2%} of them novel)")


def test_centroids_larger_than_memory(tree, tmp_path, monkeypatch, segments):
    """They are taken tile by tile, as when the tree was built."""
    expected = tree.assign(rows(50, 4), tmp_path / "expected.zarr")
    monkeypatch.setattr("streamcurate.clustering.labelling.tile_edges", lambda *arguments: [0, 3, 6, 9, 10])
    found = tree.assign(rows(50, 4), tmp_path / "labels.zarr")
    np.testing.assert_array_equal(found.labels()[:], expected.labels()[:])
    np.testing.assert_array_equal(found.distances()[:], expected.distances()[:])


def test_far_rows_of_a_small_spread(tmp_path):
    """Sums are scaled for what the new rows' distances can be, not for their own spread."""
    pytest.importorskip("faiss")
    tree = sc.cluster(rows(300, 0), tmp_path / "run", levels=[sc.Level(20, search="faiss")])
    found = tree.assign(np.full((40, 4), 1000, np.float32) + rows(40, 1, 4) / 1000, tmp_path / "labels.zarr")
    assert found.novelty.share == 1


def test_labels_at_a_url(tree, tmp_path, object_store, monkeypatch):
    new = store_of(tmp_path / "new.zarr", rows(70, 3), np.arange(70))
    expected = tree.assign(new, tmp_path / "labels.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedLabels, "finish", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(new, object_store.url("labels.zarr"), scratch=tmp_path / "scratch")
    assert not object_store.objects("labels.zarr/")
    # Half sent by a process that was killed, and one chunk of other rows.
    objects.write(object_store.url("labels.zarr/level-1/labels/c/7"), b"other")
    calls = labelled(monkeypatch)
    found = tree.assign(new, object_store.url("labels.zarr"), scratch=tmp_path / "scratch")
    assert not calls
    for level in (1, 2):
        np.testing.assert_array_equal(found.labels(level)[:], expected.labels(level)[:])
    np.testing.assert_array_equal(found.ids[:], np.arange(70))
    assert set(object_store.objects("labels.zarr/")) == {
        f"labels.zarr/{path.relative_to(tmp_path / 'labels.zarr')}"
        for path in (tmp_path / "labels.zarr").rglob("*")
        if path.is_file()
    }
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(InputError, match=r"labels.zarr: already exists"):
        tree.assign(rows(70, 3), object_store.url("labels.zarr"))
    objects.write(object_store.url("other/letter.txt"), b"mine")
    with pytest.raises(InputError, match="other: already exists"):
        tree.assign(new, object_store.url("other"))


def test_two_at_one_url(tree, tmp_path, object_store, monkeypatch):
    """Neither replaces what the other puts there, whichever comes first."""
    out, first, second = object_store.url("labels.zarr"), rows(70, 3), rows(70, 5)
    send = UnfinishedLabels._send_claimed

    def meanwhile(self, claim):
        monkeypatch.setattr(UnfinishedLabels, "_send_claimed", send)
        with pytest.raises(RunError, match=r"labels.zarr: is being written by process"):
            tree.assign(second, out, scratch=tmp_path / "second")
        send(self, claim)

    monkeypatch.setattr(UnfinishedLabels, "_send_claimed", meanwhile)
    found = tree.assign(first, out, scratch=tmp_path / "first")
    np.testing.assert_array_equal(found.labels()[:], tree.assign(first, tmp_path / "labels.zarr").labels()[:])
    assert {name.partition("/")[0] for name in object_store.objects()} == {"labels.zarr"}


def test_labels_that_came_to_a_url_meanwhile(tree, tmp_path, object_store, monkeypatch):
    out, first, second = object_store.url("labels.zarr"), rows(70, 3), rows(70, 5)
    finish = UnfinishedLabels.finish

    def meanwhile(self):
        monkeypatch.setattr(UnfinishedLabels, "finish", finish)
        tree.assign(second, out, scratch=tmp_path / "second")
        finish(self)

    monkeypatch.setattr(UnfinishedLabels, "finish", meanwhile)
    with pytest.raises(InputError, match=r"labels.zarr: already exists"):
        tree.assign(first, out, scratch=tmp_path / "first")
    labels = open_array(f"{out}/level-1/labels").read(0, 70)
    np.testing.assert_array_equal(labels, tree.assign(second, tmp_path / "labels.zarr").labels()[:])


def test_killed_when_the_labels_had_come_to_a_url(tree, tmp_path, object_store, monkeypatch):
    """The next sees that they are there, and removes what was left beside them."""
    new, out = rows(70, 3), object_store.url("labels.zarr")
    with monkeypatch.context() as patch:
        patch.setattr("streamcurate.embeddings.claim.Claim.release", stopping)
        with pytest.raises(KeyboardInterrupt):
            tree.assign(new, out, scratch=tmp_path / "scratch")
    assert {name.partition("/")[0] for name in object_store.objects()} == {"labels.zarr", "labels.zarr.partial"}
    tree.assign(new, out, scratch=tmp_path / "scratch")
    assert {name.partition("/")[0] for name in object_store.objects()} == {"labels.zarr"}
    assert list((tmp_path / "scratch").iterdir()) == []
