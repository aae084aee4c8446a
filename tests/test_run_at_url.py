"""Runs whose directory is a URL: built in a working folder, published level by level, read where they lie."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from spreading import LIMIT, ended, plain, rows, store, wait_for

import streamcurate as sc
from streamcurate import objects
from streamcurate.errors import ObjectError, RunError
from streamcurate.objects.client import PATIENCE_VARIABLE
from streamcurate.pipeline import mirror
from streamcurate.runs import Manifest

pytest_plugins = ["object_store"]

LEVELS = [
    sc.Level(30, iterations=5, tolerance=0, splits=2, resampling=sc.Resampling(1, 4)),
    sc.Level(7, iterations=3, resampling=sc.Resampling(1, 3, "random")),
    sc.Level(3, iterations=3),
]
NAMES = {"run.json", "events.jsonl", "store.json", "tree.zarr/zarr.json"}


@pytest.fixture(scope="module")
def digest() -> str:
    return plain(LEVELS)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """Where working folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", os.fspath(folder))
    return folder


def build(url: str, levels=LEVELS, **options):
    return sc.cluster(rows(), url, levels=levels, seed=9, threads=1, **options)


def level_objects(bucket, run: str = "run") -> dict[str, int]:
    found = bucket.objects(f"{run}/")
    return {name.removeprefix(f"{run}/"): size for name, size in found.items()}


def test_is_the_local_tree(object_store, digest, temporary, tmp_path):
    tree = build(object_store.url("run"))
    assert tree.digest == digest
    assert tree.path == object_store.url("run")
    assert not list(temporary.iterdir())  # the working folder is gone
    found = level_objects(object_store)
    assert {name for name in found if not name.startswith("tree.zarr/level-")} == NAMES
    local = sc.cluster(rows(), tmp_path / "run", levels=LEVELS, seed=9, threads=1)
    for here, there in zip(local.levels, tree.levels, strict=True):
        for name in ("centroids", "labels", "distances", "members", "offsets"):
            np.testing.assert_array_equal(getattr(here, name)[:], getattr(there, name)[:])
    pick, same = tree.sample(300, seed=4), local.sample(300, seed=4)
    np.testing.assert_array_equal(pick.rows, same.rows)
    again = sc.open_tree(object_store.url("run"))
    assert again.digest == digest
    assert again.sample(10).rows.tolist() == local.sample(10).rows.tolist()


def test_finished_run_is_left_alone(object_store, digest, temporary):
    build(object_store.url("run"))
    before = level_objects(object_store)
    object_store.faults()
    tree = build(object_store.url("run"))
    assert tree.digest == digest
    assert level_objects(object_store) == before
    assert not [request for request in object_store.requests if request[0] in ("PUT", "POST", "DELETE")]
    assert not list(temporary.iterdir())


def test_faulty_store(object_store, digest):
    faults = object_store.faults(0.05, seed=3)
    tree = build(object_store.url("run"))
    assert tree.digest == digest
    np.testing.assert_array_equal(np.sort(tree.levels[0].members[:]), np.arange(len(rows())))
    assert sum(faults.counts.values()) > 3


def stop_after_level(monkeypatch, number: int) -> None:
    """End the run, as a kill would, when a level has been published."""
    publish = mirror.Mirror.publish

    def stop(self, manifest):
        publish(self, manifest)
        if len(manifest.levels) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(mirror.Mirror, "publish", stop)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_goes_on(object_store, digest, temporary, monkeypatch, number, elsewhere):
    """On the same machine behind the last step, on another behind the last published level."""
    with monkeypatch.context() as patch:
        stop_after_level(patch, number)
        with pytest.raises(KeyboardInterrupt):
            build(object_store.url("run"))
    published = Manifest.read(object_store.url("run"))
    assert (len(published.levels), published.complete) == (number, False)
    with pytest.raises(RunError, match=f"unfinished \\({number} of 3 levels\\)"):
        sc.open_tree(object_store.url("run"))
    if elsewhere:
        shutil.rmtree(temporary)
        temporary.mkdir()
    assert build(object_store.url("run")).digest == digest
    assert not list(temporary.iterdir())
    events = [json.loads(line)["event"] for line in object_store.get("run/events.jsonl").splitlines()]
    assert events.count("level-finished") == 3
    assert events.count("run-finished") == 1


@pytest.mark.parametrize("name", ["tree.zarr/zarr.json", "store.json", "events.jsonl"])
def test_killed_while_it_is_announced(object_store, digest, temporary, monkeypatch, name):
    """Another machine finds the manifest, and not all that lies beside it."""
    write = objects.write

    def stop(url, data):
        if url.endswith(name):
            raise KeyboardInterrupt
        write(url, data)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            build(object_store.url("run"))
    assert "run.json" in level_objects(object_store)
    assert name not in level_objects(object_store)
    shutil.rmtree(temporary)
    temporary.mkdir()
    assert build(object_store.url("run")).digest == digest
    assert {found for found in level_objects(object_store) if not found.startswith("tree.zarr/level-")} == NAMES


def test_killed_before_and_after_it_is_announced(object_store, digest, temporary, monkeypatch):
    """What begins a run at its URL names no level that is not there, however many are finished."""
    with monkeypatch.context() as patch:
        patch.setattr(objects, "create", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(object_store.url("run"))
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "send_folder", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(object_store.url("run"))
    assert Manifest.read(object_store.url("run")).levels == ()
    shutil.rmtree(temporary)
    temporary.mkdir()
    assert build(object_store.url("run")).digest == digest


def stopped(*arguments) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("during", [False, True])
def test_who_is_behind_replaces_nothing(object_store, digest, monkeypatch, tmp_path, during):
    """Another process finishes the run before or while this one publishes its first level, and is stopped then."""
    publish, send, begun = mirror.Mirror.publish, mirror.send_folder, []

    def overtake():
        monkeypatch.setattr(mirror, "send_folder", send)
        build(object_store.url("run"), scratch=tmp_path / "other")

    def overtaken(self, manifest):
        if begun or not manifest.levels:
            return publish(self, manifest)
        begun.append(True)
        if during:
            monkeypatch.setattr(mirror, "send_folder", lambda *arguments: (send(*arguments), overtake()))
        else:
            overtake()
        publish(self, manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr(mirror.Mirror, "publish", overtaken)
    with pytest.raises(KeyboardInterrupt):
        build(object_store.url("run"))
    assert sc.open_tree(object_store.url("run")).digest == digest
    assert build(object_store.url("run")).digest == digest


def test_what_consoles_leave_for_a_folder_is_nothing(object_store, digest):
    object_store.put("run/", b"")
    assert build(object_store.url("run")).digest == digest


def test_breaks_off_while_publishing(object_store, digest, monkeypatch):
    """What was put in place of a level is no level until run.json says so."""
    monkeypatch.setenv(PATIENCE_VARIABLE, "1")
    object_store.faults(when=lambda method, path: "error" if method == "PUT" and "/level-2/members" in path else None)
    with pytest.raises(ObjectError, match="level-2/members"):
        build(object_store.url("run"))
    assert len(Manifest.read(object_store.url("run")).levels) == 1
    assert any("level-2" in name for name in level_objects(object_store))
    object_store.reset()
    assert build(object_store.url("run")).digest == digest


def test_upload_that_was_not_taken_whole(object_store, monkeypatch):
    write = objects.write

    def shorten(url, data):
        write(url, data[: len(data) // 2] if "labels/c" in url else data)

    monkeypatch.setattr(objects, "write", shorten)
    with pytest.raises(ObjectError, match=r"labels/c/0: holds [\d,]+ bytes instead of"):
        build(object_store.url("run"))
    assert not Manifest.read(object_store.url("run")).levels


def test_other_settings(object_store, temporary):
    build(object_store.url("run"))
    with pytest.raises(RunError, match="begun with other settings"):
        build(object_store.url("run"), levels=[sc.Level(12)])
    assert not list(temporary.iterdir())


def test_unfinished_work_of_another_run(object_store, temporary, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after_level(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            build(object_store.url("run"))
    objects.delete_all(object_store.url("run"))
    kept, aside = next(temporary.iterdir()), temporary.parent / "aside"
    kept.rename(aside)
    build(object_store.url("run"), levels=[sc.Level(12)])
    aside.rename(kept)
    with pytest.raises(RunError, match=r"holds an unfinished run with other settings than s3://.*; remove it"):
        build(object_store.url("run"), levels=[sc.Level(12)])


def test_two_runs_cannot_begin_at_one_url(object_store, monkeypatch, tmp_path):
    begin = mirror.Mirror.restore

    def meanwhile(self):
        begin(self)
        monkeypatch.setattr(mirror.Mirror, "restore", begin)
        build(self.url, levels=[sc.Level(12)], scratch=tmp_path / "other")

    monkeypatch.setattr(mirror.Mirror, "restore", meanwhile)
    with pytest.raises(RunError, match="another run was begun there"):
        build(object_store.url("run"))
    assert Manifest.read(object_store.url("run")).complete


def test_place_that_holds_something_else(object_store, temporary):
    object_store.put("run/notes.txt", b"mine")
    with pytest.raises(RunError, match=r"no run directory and not empty \(it holds s3://.*/run/notes.txt\)"):
        build(object_store.url("run"))
    assert level_objects(object_store) == {"notes.txt": 4}
    assert not list(temporary.iterdir())


def test_refused_before_it_began_leaves_nothing(object_store, temporary):
    with pytest.raises(sc.errors.InputError):
        sc.cluster(np.full((50, 3), np.nan, np.float32), object_store.url("run"), levels=[5])
    assert not level_objects(object_store)
    assert not list(temporary.iterdir())


def test_reuse(object_store, tmp_path, digest):
    build(object_store.url("first"), levels=LEVELS[:2])
    notes = []

    class Listener:
        def started(self, name, rows): ...
        def advanced(self, rows, bytes): ...
        def finished(self): ...
        def note(self, text):
            notes.append(text)

    tree = sc.cluster(
        rows(), tmp_path / "run", levels=LEVELS, seed=9, reuse=object_store.url("first"), progress=Listener()
    )
    assert tree.digest == digest
    assert any(text.startswith("2 of 3 levels taken over") for text in notes)
    assert build(object_store.url("second"), reuse=tmp_path / "run").digest == digest


def test_damaged_run(object_store):
    build(object_store.url("run"))
    object_store.remove("run/tree.zarr/level-2/members/zarr.json")
    with pytest.raises(sc.errors.StoreError, match="members: is missing"):
        sc.open_tree(object_store.url("run"))


def test_no_bucket(temporary, object_store):
    with pytest.raises(ObjectError, match="s3://no-such-bucket"):
        build("s3://no-such-bucket/run")
    assert not list(temporary.iterdir())


def test_killed(object_store, digest, tmp_path):
    """The command, killed at the second level, goes on and leaves no working folder."""
    store(tmp_path / "e.zarr")
    (tmp_path / "levels.yaml").write_text(json.dumps(sc.Config(tuple(LEVELS), seed=9).to_mapping()))
    url = object_store.url("run")
    folder = mirror.Mirror(url, tmp_path, sc.streaming.Silent()).folder
    process = start(tmp_path, url)
    wait_for(folder / "events.jsonl", '"level-finished"', 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(tmp_path, url)
    errors = ended(process)
    assert process.returncode == 0, errors
    assert sc.open_tree(url).digest == digest
    assert not folder.exists()


def start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, os.fspath(Path(__file__).with_name("spreading.py")), "cluster"]
    command += [os.fspath(folder / "e.zarr"), url, "--config", os.fspath(folder / "levels.yaml"), "--quiet"]
    command += ["--memory-limit", str(LIMIT), "--scratch", os.fspath(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
