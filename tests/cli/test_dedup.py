"""``streamcurate dedup`` as it is typed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from streamcurate.cli.main import main
from streamcurate.neighbors.duplicates import open_duplicates
from streamcurate.storage import create_array, create_group

KILLS = 2


def store_of(place: Path, count: int, dims: int = 8) -> Path:
    generator = np.random.default_rng(count)
    values = generator.standard_normal((count, dims)).astype(np.float32)
    values[count // 2 : count // 2 + count // 10] = values[: count // 10] + np.float32(1e-4)
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, 512).write(0, values)
    create_array(place / "ids", (count,), np.int64, 512).write(0, np.arange(count) + 10**6)
    return place


@pytest.fixture
def store(tmp_path) -> Path:
    return store_of(tmp_path / "e.zarr", 400)


def test_tells_what_it_found(store, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["dedup", str(store), str(out), "--cosine", "0.999", "--quiet", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: 400 rows: 360 kept, 40 removed as duplicates of those (10.0 %)"
    assert lines[1] == f"{out}: 40 components: 40 of 2 rows"
    assert lines[2].startswith(f"{out}: no duplicate is missed: ")
    assert lines[3].startswith(f"{out}: keep.npy is a mask of the rows that are kept, removed.npy lists those removed")
    assert len(lines) == 4
    assert main(["dedup", str(store), str(out), "--cosine", "0.999"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == lines
    assert f"{out}: finished already, nothing to do" in told.err


def test_as_json(store, tmp_path, capsys):
    out = tmp_path / "out"
    subset = tmp_path / "half.npy"
    np.save(subset, np.arange(0, 400, 2))
    arguments = ["--l2", "0.01", "--keep", "random", "--seed", "3", "--subset", str(subset), "--clusters", "9"]
    assert main(["dedup", str(store), str(out), *arguments, "--json", "--quiet", "--search", "blas"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == str(out)
    assert {name: found[name] for name in ("kind", "rows", "kept", "removed", "components", "metric", "threshold")} == {
        "kind": "dedup", "rows": 200, "kept": 180, "removed": 20, "components": 20, "metric": "l2", "threshold": 0.01,
    }  # fmt: skip
    assert found["keep"] == "random"
    assert found["seed"] == 3
    assert found["sizes"] == [[2, 20]]
    assert [one["id"] - one["kept"] for one in found["largest"]] == [10**6] * 20
    assert found["pairs"]["possible"] == 200 * 199 // 2
    assert {name: value for name, value in found.items() if name != "out"} == open_duplicates(out).summary


def test_the_mask_goes_into_other_commands(store, tmp_path, capsys):
    out, run = tmp_path / "out", tmp_path / "run"
    assert main(["dedup", str(store), str(out), "--cosine", "0.999", "--quiet"]) == 0
    options = ["--levels", "10,3", "--subset", str(out / "keep.npy"), "--quiet"]
    assert main(["cluster", str(store), str(run), *options]) == 0
    pick = tmp_path / "pick.npy"
    assert main(["sample", str(run), "--size", "360", "--out", str(pick), "--quiet"]) == 0
    np.testing.assert_array_equal(np.load(pick), np.flatnonzero(np.load(out / "keep.npy")))
    # The same rows of a run: there are no duplicates left.
    assert main(["dedup", str(run), str(tmp_path / "again"), "--cosine", "0.999", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["removed"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give exactly one of them, the least cosine similarity (--cosine 0.95)"),
        (["--cosine", "0.9", "--l2", "1"], "give exactly one of them"),
        (["--cosine", "95"], "cosine: 95.0 is not allowed; it must be a number above 0, up to 1"),
        (["--cosine", "0.9", "--clusters", "401"], "clusters: 401 of 400 rows; choose at most 400"),
        (["--cosine", "0.9", "--most-neighbours", "0"], "most_neighbours: 0 is not allowed"),
        (["--cosine", "0.9", "--subset", "gone.npy"], "gone.npy: no such file"),
        (["--cosine", "0.9", "--memory-limit", "1MiB"], "the smallest supported is 512 MiB"),
        (["--cosine", "0.9", "--keep", "best"], "'best' is not one of"),
        (
            ["--cosine", "0.9", "--seed", "5"],
            "seed: 5 is of --keep random, and the row that is kept is 'closest'; give",
        ),
    ],
)
def test_what_cannot_be_ends_with_2_and_leaves_nothing(options, words, store, tmp_path, capsys):
    assert main(["dedup", str(store), str(tmp_path / "out"), *options, "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_other_places(store, tmp_path, capsys):
    assert main(["dedup", str(tmp_path / "gone"), str(tmp_path / "out"), "--l2", "1"]) == 2
    assert "no such file" in capsys.readouterr().err
    store.rename(tmp_path / "e")
    assert main(["dedup", str(tmp_path / "e"), str(tmp_path / "e"), "--l2", "1"]) == 2
    assert "already exists, and is no finished dedup" in capsys.readouterr().err
    store = (tmp_path / "e").rename(store)
    for name in ("keep.npy", "d.Parquet", "e.zarr/"):
        assert main(["dedup", str(store), str(tmp_path / name), "--l2", "1"]) == 2
        folder = tmp_path / name.rstrip("/").split(".")[0]
        told = capsys.readouterr().err
        assert "is called like a file (." in told
        assert f"give {folder}/, and keep.npy will lie in it" in told
    assert main(["dedup", str(store), "https://example.org/out", "--l2", "1"]) == 2
    assert "a web server cannot take a result" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["e.zarr"]


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streamcurate.cli.main", "dedup", str(folder / "e.zarr"), str(folder / out)]
    command += ["--cosine", "0.98", "--quiet", "--threads", "1", "--memory-limit", "600MiB"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()


def test_killed(tmp_path):
    """SIGKILL of a real process, at different stages; the same command again gives the same files."""
    store_of(tmp_path / "e.zarr", 3_000, 12)
    finish(start(tmp_path, "plain"))
    choose = random.Random(1)
    partial = tmp_path / "out.partial"
    kills = 0
    while kills < KILLS:
        before = len(list((partial / "checkpoints").glob("*.json")))
        process = start(tmp_path, "out")
        while process.poll() is None and len(list((partial / "checkpoints").glob("*.json"))) <= before:
            time.sleep(0.001)
        time.sleep(choose.uniform(0, 0.15))
        over = process.poll() is not None
        process.kill()
        process.communicate()
        if over:
            break
        kills += 1
    assert kills
    finish(start(tmp_path, "out"))
    names = ["dedup.json", "duplicates.parquet", "keep.npy", "removed.npy"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["e.zarr", "out", "plain"]
