"""The command against a run and a store on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import streamcurate
from streamcurate.cli.main import main
from streamcurate.config import Config
from streamcurate.embeddings.ingest import ingest
from streamcurate.runs import LevelRecord, Manifest, Sizes, StoreRecord
from streamcurate.storage import create_group
from streamcurate.tree import TREE_NAME, LevelWriter, level_name

LABELS = [np.array([0] * 30 + [1] * 5 + [-1] * 3 + [2] * 12), np.array([0, 0, 1])]
IDS = [f"img_{row:03}" for row in range(50)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``emb.zarr`` and a finished ``run`` of two levels; distances grow with the row."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "emb.npy", np.ones((50, 2), dtype=np.float32))
    (folder / "ids.txt").write_text("\n".join(IDS) + "\n")
    ingest(str(folder / "emb.npy"), folder / "emb.zarr", ids=str(folder / "ids.txt"))
    run = folder / "run"
    run.mkdir()
    create_group(run / TREE_NAME)
    levels = [{"clusters": 3}, {"clusters": 2}]
    store = StoreRecord(str(folder / "emb.zarr"), 50, 2, "float32", "f" * 32, ids=True)
    manifest = Manifest.begin(Config.from_mapping({"levels": levels}), store)
    for number, labels in enumerate(LABELS, start=1):
        clusters = int(labels.max()) + 1
        sizes = np.bincount(labels[labels >= 0], minlength=clusters)
        members = np.argsort(np.where(labels < 0, clusters, labels), kind="stable")[: sizes.sum()]
        writer = LevelWriter(run / TREE_NAME / level_name(number), len(labels), 2)
        writer.labels().write(0, labels.astype(np.int32))
        writer.distances().write(0, np.where(labels >= 0, np.arange(len(labels)) / 8, np.nan).astype(np.float32))
        writer.members(len(members)).write(0, members)
        writer.centroids(clusters).write(0, np.zeros((clusters, 2), dtype=np.float32))
        writer.write_offsets(sizes)
        record = LevelRecord(clusters, len(members), 1.0, 0, Sizes(1, 1.0, 30), "k-means++", 1, "0" * 32)
        manifest = manifest.with_level(record)
    manifest.finished("0" * 32).write(run)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run of its own for a test to damage."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def call(*arguments: object) -> int:
    return main(["sample", *map(str, arguments)])


def test_json_is_one_object_and_nothing_else(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "curated.npy"
    assert call(run, "--size", 12, "--out", out, "--strategy", "closest", "--json") == 0
    said = capfd.readouterr()
    assert json.loads(said.out) == {
        "rows": 12,
        "unique": 12,
        "strategy": "closest",
        "multiplier": 1,
        "out": str(out),
    }
    assert said.err == ""
    # 6 for each top cluster; 3 for each leaf of the first; distances grow with the row.
    assert np.load(out).tolist() == [0, 1, 2, 30, 31, 32, 38, 39, 40, 41, 42, 43]


def test_the_sentence_counts_distinct_rows(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "curated.csv"
    assert call(run, "--size", 94, "--multiplier", 2, "--seed", 3, "--out", out) == 0
    assert capfd.readouterr().out == f"{out}: 94 rows (47 distinct), random, seed 3\n"
    assert len(out.read_text().splitlines()) == 48


def test_ids_labels_and_distances_come_along(run: Path, tmp_path: Path) -> None:
    assert call(run, "--size", 12, "--out", tmp_path / "a.parquet", "--strategy", "furthest") == 0
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["row"] == [27, 28, 29, 32, 33, 34, 44, 45, 46, 47, 48, 49]
    assert table["id"] == [IDS[row] for row in table["row"]]
    assert table["label_1"] == LABELS[0][table["row"]].tolist()
    assert table["label_2"] == LABELS[1][table["label_1"]].tolist()
    assert table["distance"] == [row / 8 for row in table["row"]]
    assert call(run, "--size", 12, "--out", tmp_path / "a.txt", "--strategy", "furthest") == 0
    assert (tmp_path / "a.txt").read_text().split() == table["id"]


def test_an_earlier_draw_is_topped_up(run: Path, tmp_path: Path) -> None:
    for name in ("earlier.parquet", "earlier.npy"):
        assert call(run, "--size", 5, "--seed", 1, "--out", tmp_path / name) == 0
    include = ["--include", tmp_path / "earlier.parquet"]
    assert call(run, "--size", 20, "--seed", 2, "--out", tmp_path / "topped.npy", *include) == 0
    assert set(np.load(tmp_path / "earlier.npy")) < set(np.load(tmp_path / "topped.npy"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", 48], "48 rows are asked for, at most 47 can be drawn"),
        (["--size", 0], "size: 0"),
        (["--size", 5, "--multiplier", 0], "multiplier: 0"),
        (["--size", 5, "--seed", -1], "seed: -1"),
        (["--size", 5, "--include", "absent.npy"], "absent.npy: no such file"),
        (["--size", 5, "--strategy", "nearest"], "'nearest' is not one of"),
        (["--size", "many"], "'many' is not a valid integer"),
        ([], "Missing option '--size'"),
    ],
)
def test_errors_are_one_message_and_no_file(
    run: Path, tmp_path: Path, arguments: list[object], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(run, "--out", tmp_path / "curated.npy", *arguments) == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert not (tmp_path / "curated.npy").exists()


def test_a_bad_destination_is_refused_before_the_run_is_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / "no-run", "--size", 5, "--out", tmp_path / "curated.xlsx") == 2
    assert "a selection is written as .parquet, .npy, .csv, .txt, .jsonl, .arrow, .zarr" in capfd.readouterr().err


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    replace(Manifest.read(run), complete=False, digest=None).write(run)
    assert call(run, "--size", 5, "--out", tmp_path / "a.npy") == 2
    assert "unfinished" in capfd.readouterr().err


def test_without_its_store_a_run_still_gives_row_numbers(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = Manifest.read(run)
    replace(manifest, store=replace(manifest.store, path=str(tmp_path / "gone.zarr"))).write(run)
    assert call(run, "--size", 5, "--out", tmp_path / "a.npy") == 0
    assert len(np.load(tmp_path / "a.npy")) == 5
    assert call(run, "--size", 5, "--out", tmp_path / "a.parquet") == 2
    assert "gone.zarr: is gone, and the ids of the drawn rows with it" in capfd.readouterr().err
    assert not (tmp_path / "a.parquet").exists()


def test_a_truncated_chunk_is_named(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chunk = next(path for path in (run / TREE_NAME / "level-1" / "members").rglob("0") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-8])
    assert call(run, "--size", 5, "--out", tmp_path / "a.npy") == 2
    assert "truncated" in capfd.readouterr().err


def test_help_needs_no_heavy_import() -> None:
    heavy = "{'numpy', 'zarr', 'numba', 'pyarrow'}"
    code = f"import sys, streamcurate.cli.sample; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_eligible_rows_are_drawn(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = [3, 4, 20, 31, 40, 45, 37]  # 37 is not in the tree
    (tmp_path / "wanted.txt").write_text("".join(f"{IDS[row]}\n" for row in wanted))
    out = tmp_path / "a.parquet"
    assert call(run, "--size", 5, "--out", out, "--strategy", "closest", "--eligible", tmp_path / "wanted.txt") == 0
    assert capfd.readouterr().out == f"{out}: 5 rows of 6 eligible, closest, seed 0\n"
    drawn = pyarrow.parquet.read_table(out)["row"].to_pylist()
    assert drawn in ([3, 4, 31, 40, 45], [3, 4, 20, 31, 40])
    same = streamcurate.open_tree(run).sample(5, "closest", eligible=[IDS[row] for row in wanted])
    assert same.rows.tolist() == drawn
    assert call(run, "--size", 6, "--out", out, "--eligible", out, "--include", out, "--json") == 2
    assert "at most 5 can be drawn" in capfd.readouterr().err
    assert call(run, "--size", 5, "--out", out, "--eligible", out, "--json") == 0
    assert json.loads(capfd.readouterr().out)["eligible"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "run", "wanted.txt"]


def test_source_metadata_comes_along(run: Path, tmp_path: Path) -> None:
    for part in range(2):
        rows = list(range(25 * part, 25 * part + 25))
        table = pyarrow.table(
            {"name": [IDS[row] for row in rows], "url": [f"http://{row}" for row in rows], "row": rows}
        )
        pyarrow.parquet.write_table(table, tmp_path / f"meta-{part}.parquet")
    options = ["--size", 12, "--metadata", tmp_path / "meta-*.parquet", "--columns", "url"]
    for more in ([], ["--metadata-key", "name"]):
        assert call(run, *options, *more, "--out", tmp_path / "a.parquet") == 0
        found = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pydict()
        assert found["url"] == [f"http://{row}" for row in found["row"]]
    assert call(run, *options, "--out", tmp_path / "a.jsonl") == 0
    shards = [json.loads(line)["shard"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert shards == ["meta-0", "meta-1"]


def test_a_curated_store_is_taken_by_other_commands(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curated.zarr"
    assert call(run, "--size", 60, "--multiplier", 2, "--out", out) == 0
    assert call(run, "--size", 60, "--multiplier", 2, "--out", out) == 2
    assert "already exists, and a store is never replaced" in capfd.readouterr().err
    assert main(["inspect", str(out), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["kind"], said["dims"], said["ids"]) == ("embeddings", 2, True)
    noted = streamcurate.open_embeddings(out).attributes["selection"]
    assert (noted["run"], noted["digest"], noted["rows"], noted["unique"]) == (str(run), "0" * 32, 60, said["rows"])
    assert main(["cluster", str(out), str(tmp_path / "again"), "--levels", "1", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--eligible", "absent.npy"], "absent.npy: no such file"),
        (["--eligible", "EMPTY"], "names no row; leave --eligible out"),
        (["--memory-limit", "1MiB"], "the smallest supported is 512 MiB"),
        (["--columns", "url"], "columns: 'url' is of the metadata"),
        (["--metadata", "absent-*.parquet"], "no file matches"),
        (["--shard-digits", "5"], "shard-digits 5"),
    ],
)
def test_new_options_fail_in_one_message_and_leave_no_file(
    run: Path, tmp_path: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text("")
    arguments = [str(tmp_path / "empty.txt") if argument == "EMPTY" else argument for argument in arguments]
    assert call(run, "--size", 5, "--out", tmp_path / "a.csv", *arguments) == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "run"]


def test_another_allocation_is_named_in_what_is_said(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, weights = tmp_path / "a.npy", tmp_path / "w.csv"
    assert call(run, "--size", 20, "--out", out, "--allocation", "power", "--alpha", 0.5, "--least-rows", 6) == 0
    said = "power (alpha 0.5), clusters of level 1 with fewer than 6 rows give nothing"
    assert capfd.readouterr().out == f"{out}: 20 rows, random, seed 0, {said}\n"
    assert not set(range(30, 35)) & set(np.load(out))
    assert call(run, "--size", 1, "--out", out, "--quiet") == 0
    assert capfd.readouterr().out == f"{out}: 1 row, random, seed 0\n"
    weights.write_text("level,cluster,least\n1,2,1999\n")
    assert call(run, "--size", 40, "--out", out, "--weights", weights, "--json") == 0
    shown = capfd.readouterr()
    note = f"{weights}: 1 cluster can give less than its least, and gives all it can; explain shows how much"
    assert json.loads(shown.out)["notes"] == [note]
    assert note in shown.err
    weights.write_text("level,cluster,weight,cap\n2,1,3,\n1,0,,2\n")
    assert call(run, "--size", 12, "--out", out, "--weights", weights, "--outlier-share", 0.1, "--json") == 0
    assert json.loads(capfd.readouterr().out)["allocation"] == {
        "weights": str(weights),
        "outlier_share": 0.1,
        "outlier_rows": 1,
        "outlier_percentile": 90.0,
    }
    assert np.bincount(LABELS[0][np.load(out)])[[0, 2]].tolist() in ([1, 9], [2, 9])
    same = streamcurate.open_tree(run).sample(12, weights={(2, 1): 3.0})
    assert np.bincount(LABELS[1][LABELS[0][same.rows]]).tolist() == [3, 9]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--allocation", "fair"], "'fair' is not one of 'balanced', 'proportional', 'power'"),
        (["--allocation", "power"], "'power' needs alpha"),
        (["--alpha", "0.5"], "alpha: 0.5 says nothing to the allocation 'balanced'"),
        (["--least-rows", "40"], "at most 0 can be drawn"),
        (["--weights", "absent.csv"], "absent.csv: no such file"),
        (["--weights", "WEIGHTS"], "line 2: level 1 has no cluster 9; its clusters are 0 to 2"),
        (["--outlier-rows", "2"], "outlier_rows: 2 says nothing without outlier_share"),
    ],
)
def test_options_of_the_allocation_fail_in_one_message(
    run: Path, tmp_path: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.csv").write_text("level,cluster,weight\n1,9,1\n")
    arguments = [str(tmp_path / "w.csv") if argument == "WEIGHTS" else argument for argument in arguments]
    assert call(run, "--size", 5, "--out", tmp_path / "a.npy", *arguments) == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "w.csv"]
