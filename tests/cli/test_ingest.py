"""``streamcurate ingest`` as typed: exit status, what is printed, what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from streamcurate.cli.main import main
from streamcurate.embeddings.store import open_embeddings

pytest_plugins = ["object_store"]

VALUES = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)


@pytest.fixture
def shards(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for number, part in enumerate(np.split(VALUES, 4)):
        np.save(f"shards/s{number}.npy", part)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_into_a_store(shards, capsys):
    command = ["ingest", *(f"shards/s{i}.npy" for i in range(4)), "emb.zarr"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out == "emb.zarr: 40 rows of 6 dimensions, float32, 960 B\n"
    np.testing.assert_array_equal(open_embeddings("emb.zarr").read(0, 40), VALUES)
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == out
    assert "nothing to do" in again.err
    assert names(shards) == ["emb.zarr", "shards"]


def test_all_options(shards, capsys):
    (shards / "ids.txt").write_text("".join(f"n{i}\n" for i in range(40)))
    options = ["--ids", "ids.txt", "--dtype", "float16", "--rows-per-chunk", "16", "--on-bad-row", "drop", "--quiet"]
    assert main(["ingest", "shards/*.npy", "emb.zarr", *options]) == 0
    assert capsys.readouterr().err == ""
    store = open_embeddings("emb.zarr")
    assert (store.dtype, store.chunk_rows, store.rows) == (np.float16, 16, 40)
    assert store.take_ids(np.array([39])).tolist() == ["n39"]


def test_shards(shards, capsys):
    options = ["--rows-per-chunk", "4", "--rows-per-shard", "12", "--quiet"]
    assert main(["ingest", "shards/*.npy", "emb.zarr", *options]) == 0
    np.testing.assert_array_equal(open_embeddings("emb.zarr").read(0, 40), VALUES)
    capsys.readouterr()
    assert main(["inspect", "emb.zarr", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["chunk_rows"], told["shard_rows"], told["rows"]) == (4, 12, 40)
    assert main(["inspect", "emb.zarr"]) == 0
    out = capsys.readouterr().out
    assert "chunks       4 rows (96 B)\n" in out
    assert "shards       4 files of 12 rows (288 B), 3 chunks each\n" in out
    options[3] = "10"
    assert main(["ingest", "shards/*.npy", "other.zarr", *options]) == 2
    assert "rows-per-shard 10: a shard holds whole chunks, of 4 rows here" in capsys.readouterr().err
    assert names(shards) == ["emb.zarr", "shards"]


def test_at_a_url(shards, capsys, object_store):
    url = object_store.url("emb.zarr")
    command = ["ingest", "shards/*.npy", url, "--rows-per-chunk", "16"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{url}: 40 rows of 6 dimensions, float32, 960 B\n"
    assert main(["inspect", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 40
    assert main(["ingest", "shards/s0.npy", url]) == 2
    assert f"{url}: already exists" in capsys.readouterr().err
    assert main(["ingest", "shards/*.npy", "http://127.0.0.1:1/emb.zarr"]) == 2
    assert "web servers take no stores" in capsys.readouterr().err


BAD = {
    "missing file": (["absent.npy"], "absent.npy: no such file; check the path"),
    "missing store": (["absent.zarr"], "absent.zarr: no such file or folder"),
    "no match": (["x/*.npy"], "x/*.npy: no file matches this pattern"),
    "one dimension": (["flat.npy"], "flat.npy: an array of 1 dimensions, shape (6,)"),
    "integers": (["whole.npy"], "whole.npy: holds int64, and embeddings are float16, float32 or float64"),
    "no rows": (["empty.npy"], "empty.npy: no rows; nothing to ingest"),
    "NaN": (["nan.npy"], "nan.npy: 2 rows hold NaN or Inf (first: row 3); drop them with --on-bad-row drop"),
    "other dims": (["shards/s0.npy", "wide.npy"], "wide.npy: rows of 7 dimensions, and shards/s0.npy has 6"),
    "truncated": (["short.npy"], "short.npy: truncated: "),
    "no ids": (["shards/s0.npy", "--ids", "few.txt"], "few.txt: holds 1 ids, and the sources hold 10 rows"),
    "unknown format": (["few.txt"], "few.txt: unknown format; known are .npy"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_explained_and_leaves_nothing(shards, capsys, case):
    np.save("flat.npy", VALUES[0])
    np.save("whole.npy", VALUES.astype(int))
    np.save("empty.npy", VALUES[:0])
    broken = VALUES.copy()
    broken[[3, 5], 0] = np.nan
    np.save("nan.npy", broken)
    np.save("wide.npy", np.zeros((3, 7), np.float32))
    np.save("short.npy", VALUES)
    Path("short.npy").write_bytes(Path("short.npy").read_bytes()[:300])
    Path("few.txt").write_text("a\n")
    before = names(shards)
    arguments, message = BAD[case]
    options = arguments[arguments.index("--ids") :] if "--ids" in arguments else []
    sources = arguments[: len(arguments) - len(options)]
    assert main(["ingest", *sources, "emb.zarr", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"streamcurate: error: {message}")
    assert captured.err.count("\n") == 1
    assert names(shards) == before


def test_rows_of_zeros_are_bad_under_cosine_only(shards, capsys):
    values = VALUES.copy()
    values[[4, 7]] = 0
    np.save("zeros.npy", values)
    assert main(["ingest", "zeros.npy", "l2.zarr", "--metric", "l2"]) == 0
    assert open_embeddings("l2.zarr").rows == 40
    capsys.readouterr()
    assert main(["ingest", "zeros.npy", "emb.zarr", "--metric", "cosine"]) == 2
    assert "zeros.npy: 2 rows" in capsys.readouterr().err
    assert main(["ingest", "zeros.npy", "emb.zarr", "--metric", "cosine", "--on-bad-row", "drop"]) == 0
    assert open_embeddings("emb.zarr").rows == 38
    assert main(["ingest", "zeros.npy", "x.zarr", "--metric", "L2"]) == 2


def test_a_forgotten_destination(shards, capsys):
    assert main(["ingest", "shards/s0.npy", "shards/s1.npy"]) == 2
    assert "shards/s1.npy: already exists" in capsys.readouterr().err
    np.testing.assert_array_equal(np.load("shards/s1.npy"), VALUES[10:20])
    assert main(["ingest", "shards/s0.npy"]) == 2
    assert "Missing argument" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_finished_and_says_how_to_go_on(tmp_path, number, status):
    np.save(tmp_path / "a.npy", np.ones((3_000, 16), np.float32))
    source, out = str(tmp_path / "a.npy"), str(tmp_path / "emb.zarr")
    command = [sys.executable, "-m", "streamcurate.cli.main", "ingest", source, out, "--rows-per-chunk", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "emb.zarr.partial" / "progress.json").exists():
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"finished chunks are kept in {out}.partial; give the same command again to go on" in errors
    assert "Traceback" not in errors
    assert names(tmp_path) == ["a.npy", "emb.zarr.partial"]
    assert main(command[3:]) == 0
    assert open_embeddings(out).rows == 3_000
    assert names(tmp_path) == ["a.npy", "emb.zarr"]


def test_a_signal_at_a_url(tmp_path, object_store):
    np.save(tmp_path / "a.npy", np.ones((3_000, 16), np.float32))
    url = object_store.url("emb.zarr")
    source, state = str(tmp_path / "a.npy"), "emb.zarr.partial/state.json"
    command = [sys.executable, "-m", "streamcurate.cli.main", "ingest", source, url, "--rows-per-chunk", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and "emb.zarr/embeddings/c/1/0" not in object_store.objects():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"finished chunks are kept at {url}; give the same command again to go on" in errors
    assert "Traceback" not in errors
    told = json.loads(object_store.get(state))
    assert told["owner"] is None
    assert told["progress"]["stored"] >= 20
    assert main(["inspect", f"{url}.partial"]) == 2
    assert main(["inspect", url]) == 2
    assert main([*command[3:], "--rows-per-chunk", "1000"]) == 2  # of other options: not thrown away
    assert main(command[3:]) == 0
    assert len(object_store.objects()) == 150 + 2
    assert open_embeddings(url).rows == 3_000
