"""``streamcurate inspect``: stores of any origin, runs, and what is neither."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.config import Config
from streamcurate.embeddings.ingest import ingest
from streamcurate.runs import LevelRecord, Manifest, RunLock, Sizes, StoreRecord, SubsetRecord
from streamcurate.storage import create_array, create_group

pytest_plugins = ["object_store"]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(capsys, *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def values(rows: int = 300) -> np.ndarray:
    rows_of_norm = np.zeros((rows, 4), np.float16)
    rows_of_norm[:, 1] = 3
    return rows_of_norm


def test_a_store_as_json(capsys):
    Path("ids.txt").write_text("".join(f"n{i}\n" for i in range(300)))
    ingest(values(), "a.zarr", ids="ids.txt", rows_per_chunk=128)
    store = {"kind": "embeddings", "rows": 300, "dims": 4, "dtype": "float16", "ids": True}
    store["fingerprint"] = sc.open_embeddings("a.zarr").fingerprint
    assert store["fingerprint"]
    assert json.loads(shown(capsys, "a.zarr", "--json")) == store | {"bytes": 2400, "chunk_rows": 128}


def test_a_store_in_text(capsys):
    np.save("a.npy", values())
    store = ingest("a.npy", "a.zarr")
    text = shown(capsys, "a.zarr")
    for part in (
        "rows         300\n",
        "float16",
        "none\n",
        "3 to 3, median 3 (of 300 rows)",
        store.fingerprint,
        "a.npy",
    ):
        assert part in text


def test_dropped_rows_and_many_sources(capsys):
    for number in range(8):
        part = values()
        part[number] = np.nan
        np.save(f"{number}.npy", part)
    ingest("?.npy", "a.zarr", on_bad_row="drop")
    text = shown(capsys, "a.zarr")
    assert "8 bad rows" in text
    assert "and 3 more" in text


def test_an_array_made_by_others(capsys):
    array = values()
    array[:, 0] = np.nan
    layout = {"zarr_format": 2, "chunks": (7, 2), "config": {"write_empty_chunks": True}}
    zarr.create_array("b", shape=array.shape, dtype="f2", **layout)[...] = array
    assert json.loads(shown(capsys, "b", "--json"))["chunk_rows"] == 7
    text = shown(capsys, "b")
    assert "all hold NaN or Inf" in text
    assert "not made by ingest" in text
    array[5:, 0] = 4
    zarr.create_array("b", shape=array.shape, dtype="f2", overwrite=True, **layout)[...] = array
    assert "5 to 5, median 5 (of 300 rows; 5 of them hold NaN or Inf)" in shown(capsys, "b")


def level(clusters: int, rows: int, *warnings: str) -> LevelRecord:
    return LevelRecord(clusters, rows, 12.5, 1, Sizes(0, 2.5, 9), "k-means++", 7, "d" * 32, warnings)


def run(complete: bool) -> None:
    Path("run").mkdir(exist_ok=True)
    config = Config.from_mapping({"seed": 3, "metric": "cosine", "levels": [{"clusters": 40}, {"clusters": 5}]})
    manifest = Manifest.begin(config, StoreRecord("/data/a.zarr", 300, 4, "float16", "f" * 32))
    manifest = manifest.with_level(level(40, 300))
    if complete:
        manifest = manifest.with_level(level(5, 39, "level 2: one cluster holds 62 % of the rows")).finished("e" * 32)
    manifest.write("run")


def test_a_run_as_json(capsys):
    run(complete=True)
    sizes = {"min": 0, "median": 2.5, "max": 9}
    assert json.loads(shown(capsys, "run", "--json")) == {
        "kind": "run",
        "complete": True,
        "digest": "e" * 32,
        "seed": 3,
        "metric": "cosine",
        "levels": [
            {"clusters": 40, "rows": 300, "inertia": 12.5, "empty": 1, "sizes": sizes},
            {"clusters": 5, "rows": 39, "inertia": 12.5, "empty": 1, "sizes": sizes},
        ],
        "warnings": ["level 2: one cluster holds 62 % of the rows"],
        "stores": [{"path": "/data/a.zarr", "rows": 300}],
        "subset": None,
    }


def test_a_run_in_text(capsys):
    run(complete=False)
    text = shown(capsys, "run")
    assert "no; give the same cluster command again" in text
    assert "40 clusters of 300 rows, inertia 12.5, 1 empty, sizes 0 to 9, median 2.5" in text
    assert "level 2" not in text
    run(complete=True)
    text = shown(capsys, "run/")
    assert "5 clusters of 39 points, inertia 12.5" in text
    assert "warning   level 2: one cluster holds 62 % of the rows" in text
    assert "e" * 32 in text


def test_a_run_that_is_being_written_names_its_writer(capsys):
    run(complete=False)
    with RunLock("run"):
        signed = Path("run/.lock").read_bytes()
        text = shown(capsys, "run")
        assert f"no; it is being written by process {os.getpid()} on " in text
        assert "again" not in text
        assert Path("run/.lock").read_bytes() == signed
        Path("run/.lock").write_text("")
        assert "no; it is being written by another process" in shown(capsys, "run")
    assert "no; give the same cluster command again" in shown(capsys, "run")
    with RunLock("run"):  # who looks keeps no lock
        pass


def test_a_run_without_a_first_result(capsys):
    for name in ("run/scratch", "run/checkpoints"):
        Path(name).mkdir(parents=True)
    with RunLock("run"):
        assert main(["inspect", "run"]) == 2
        assert f"run: a run that is being written by process {os.getpid()} on " in capsys.readouterr().err
    for arguments in (["run"], ["run/", "--json"]):
        assert main(["inspect", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "stopped before its first result; nothing is finished yet; give the same command again" in (
            captured.err.replace("\n", " ")
        )


def test_a_bucket(capsys, object_store):
    url = object_store.url("a.zarr").removesuffix("/a.zarr")
    if "/" in url.partition("://")[2]:
        url = url[: url.index("/", url.index("://") + 3)]
    for place in (url, f"{url}/"):
        assert main(["inspect", place]) == 2
        assert f"{place}: a whole bucket; name the store" in capsys.readouterr().err


def test_the_rows_a_run_used(capsys):
    run(complete=True)
    manifest = replace(Manifest.read("run"), subset=SubsetRecord("some.npy", 250, "9" * 32))
    manifest.write("run")
    assert json.loads(shown(capsys, "run", "--json"))["subset"] == {"path": "some.npy", "rows": 250}


TREE = {"digest": "e" * 32, "path": "/data/run"}


def labels(path: str, levels: int) -> None:
    create_group(path, {"format": 1, "kind": "labels", "tree": TREE})
    for number in range(1, levels + 1):
        create_group(f"{path}/level-{number}")
        for name, dtype in (("labels", np.int32), ("distances", np.float32)):
            create_array(f"{path}/level-{number}/{name}", (1234,), dtype, 1024)


def test_labels_of_new_rows(capsys):
    labels("new.zarr", 2)
    assert json.loads(shown(capsys, "new.zarr", "--json")) == {
        "kind": "labels", "rows": 1234, "levels": 2, "tree": TREE,
    }  # fmt: skip
    assert shown(capsys, "new.zarr/") == (
        f"new.zarr/: labels\n  rows    1,234\n  levels  2\n  tree    /data/run, digest {'e' * 32}\n"
    )


def test_near_duplicates(capsys):
    rows = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    rows[200:220] = rows[:20]
    ingest(rows, "a.zarr")
    assert main(["dedup", "a.zarr", "dups", "--l2", "0", "--keep", "random", "--seed", "3", "--quiet"]) == 0
    told = capsys.readouterr().out.splitlines()
    found = json.loads(shown(capsys, "dups/", "--json"))
    assert found == {
        "kind": "dedup", "complete": True, "rows": 300, "kept": 280, "removed": 20, "components": 20,
        "sizes": [[2, 20]], "metric": "l2", "threshold": 0.0, "keep": "random", "seed": 3, "keep_list": "dups/keep.npy",
        "removed_list": "dups/removed.npy", "warnings": [],
    }  # fmt: skip
    lines = shown(capsys, "dups").splitlines()
    assert lines[0] == "dups: dedup"
    assert lines[1].endswith("a.zarr")
    assert lines[2].split(None, 1)[1] == "Euclidean distance 0 or less; of each component is kept: random, seed 3"
    assert [line.split(None, 1)[1] for line in lines[3:]] == [line.removeprefix("dups: ") for line in told]


@pytest.mark.parametrize(
    ("path", "levels", "message"),
    [("a.zarr", 0, "without the labels of level 1; assign them"), ("a.zarr.partial", 2, "an unfinished assign; give")],
)
def test_labels_that_are_not_whole(capsys, path, levels, message):
    labels(path, levels)
    assert main(["inspect", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent: no such file or folder"),
        ("folder", "folder: a folder, but neither a Zarr array nor a Zarr group"),
        ("x.npy", "ingest it: streamcurate ingest x.npy x.zarr"),
        ("broken", "broken/run.json: is no JSON"),
        ("a.zarr.partial", "a.zarr.partial: an unfinished ingest"),
        ("a.zarr", "a.zarr: its ingest is unfinished (a.zarr.partial); give the same ingest command again"),
        ("drawn.zarr", "drawn.zarr: its sample is unfinished (drawn.zarr.partial); give the same sample command"),
        ("new.zarr", "new.zarr: its assign is unfinished (new.zarr.partial); give the same assign command again"),
        ("dups", "dups: its dedup is unfinished (dups.partial); give the same dedup command again, then inspect"),
        ("dups.partial", "dups.partial: an unfinished dedup; give the same dedup command again"),
        ("new.zarr.partial", "new.zarr.partial: an unfinished assign; give the same assign command again"),
        ("drawn.zarr.partial", "drawn.zarr.partial: an unfinished sample; give the same sample command again"),
    ],
)
def test_what_is_neither(capsys, name, message):
    for folder in ("folder", "broken", "a.zarr.partial", "drawn.zarr.partial", "new.zarr.partial", "dups.partial"):
        Path(folder).mkdir()
    Path("broken/run.json").write_text("{")
    Path("a.zarr.partial/job.json").write_text("{}")
    Path("drawn.zarr.partial/job.json").write_text('{"identity": {"selection": "0"}}')
    Path("new.zarr.partial/job.json").write_text('{"kind": "labels"}')
    Path("dups.partial/job.json").write_text('{"kind": "dedup"}')
    np.save("x.npy", values())
    for arguments in ([name], [name, "--json"]):
        assert main(["inspect", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
