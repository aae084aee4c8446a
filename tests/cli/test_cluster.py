"""``streamcurate cluster`` as it is typed: what it prints, its exit status, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.runs import Manifest
from streamcurate.storage import create_array, create_group


def store_of(place: Path, values: np.ndarray, chunk_rows: int = 32) -> Path:
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, chunk_rows).write(0, values)
    return place


def rows(count: int = 100, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, dims)).astype(np.float32)


@pytest.fixture
def store(tmp_path) -> Path:
    return store_of(tmp_path / "emb.zarr", rows())


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[Any]) -> str:
    """The message of a command that must be refused, and that must leave nothing that was not there."""
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("streamcurate: error: ")
    assert sorted(tmp_path.rglob("*")) == before
    return lines[0]


def test_clusters_and_says_so(store, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["cluster", str(store), str(run), "--levels", "10,3", "--seed", "7"]) == 0
    out, err = capsys.readouterr()
    digest = sc.open_tree(run).digest
    assert out == f"{run}: 10, 3 clusters, digest {digest}\n"
    assert "level 1: 100 points in 10 clusters" in err
    assert digest == sc.cluster(rows(), tmp_path / "library", levels="10,3", seed=7).digest


def test_the_same_line_again_does_nothing(store, tmp_path, capsys):
    run = tmp_path / "run"
    line = ["cluster", str(store), str(run), "--levels", "10,3"]
    assert main(line) == 0
    first = capsys.readouterr().out
    before = (run / "events.jsonl").read_bytes()
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert out == first
    assert "nothing to do" in err
    assert (run / "events.jsonl").read_bytes() == before


def test_options_override_the_file(store, tmp_path):
    file = tmp_path / "levels.yaml"
    file.write_text("metric: l2\nseed: 3\nlevels:\n  - clusters: 10\n    iterations: 4\n  - {clusters: 2}\n")
    run = tmp_path / "run"
    options = ["--metric", "cosine", "--seed", "5", "--quiet"]
    assert main(["cluster", str(store), str(run), "--config", str(file), *options]) == 0
    manifest = Manifest.read(run)
    assert (manifest.metric, manifest.seed) == ("cosine", 5)
    assert manifest.config["levels"][0]["iterations"] == 4


def test_the_authors_file_is_taken_and_what_is_ignored_is_named(store, tmp_path, capsys):
    file = tmp_path / "authors.yaml"
    file.write_text(
        "n_levels: 2\nn_clusters: [12, 3]\nn_splits: 1\nn_iters: 5\nn_resampling_steps: [3, 1]\nsample_size: [4, 2]\n"
        "sampling_strategy: c\nsubset_indices_path: null\nnnodes: 16\n"
    )
    assert main(["cluster", str(store), str(tmp_path / "run"), "--config", str(file)]) == 0
    assert "nnodes" in capsys.readouterr().err
    level = Manifest.read(tmp_path / "run").config["levels"][0]
    assert level["resampling"] == {"steps": 2, "rows_per_cluster": 4, "strategy": "closest"}


def test_a_subset_from_a_file(store, tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(0, 100, 2))
    run = tmp_path / "run"
    line = ["cluster", str(store), str(run), "--levels", "5", "--quiet", "--subset", str(tmp_path / "rows.npy")]
    assert main(line) == 0
    labels = sc.open_tree(run).levels[0].labels[:]
    assert (labels[1::2] == -1).all()
    assert (labels[::2] >= 0).all()


def test_scratch_elsewhere_is_left_as_it_was(store, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "mine").write_text("kept")
    line = ["cluster", str(store), str(tmp_path / "run"), "--levels", "5", "--quiet", "--scratch", str(scratch)]
    assert main(line) == 0
    assert [path.name for path in scratch.iterdir()] == ["mine"]


def test_reuse_from_the_command_line(store, tmp_path, capsys):
    assert main(["cluster", str(store), str(tmp_path / "a"), "--levels", "10,3", "--quiet"]) == 0
    line = ["cluster", str(store), str(tmp_path / "b"), "--levels", "10,4", "--reuse", str(tmp_path / "a")]
    assert main(line) == 0
    assert "1 of 2 levels taken over" in capsys.readouterr().err


# -- refusals ------------------------------------------------------------------


def spoil_nan(tmp_path: Path) -> Path:
    values = rows()
    values[41, 2] = np.nan
    values[90, 0] = np.inf
    return store_of(tmp_path / "bad.zarr", values)


def spoil_zero(tmp_path: Path) -> Path:
    values = rows()
    values[7] = 0
    return store_of(tmp_path / "bad.zarr", values)


def spoil_dims(tmp_path: Path) -> Path:
    zarr.create_array(str(tmp_path / "bad.zarr"), data=np.zeros((4, 3, 2), np.float32))
    return tmp_path / "bad.zarr"


def spoil_flat(tmp_path: Path) -> Path:
    zarr.create_array(str(tmp_path / "bad.zarr"), data=np.zeros(40, np.float32))
    return tmp_path / "bad.zarr"


def spoil_empty(tmp_path: Path) -> Path:
    zarr.create_array(str(tmp_path / "bad.zarr"), shape=(0, 3), chunks=(1, 3), dtype="f4")
    return tmp_path / "bad.zarr"


def spoil_dtype(tmp_path: Path) -> Path:
    zarr.create_array(str(tmp_path / "bad.zarr"), data=np.zeros((40, 3), np.int32))
    return tmp_path / "bad.zarr"


def spoil_truncated(tmp_path: Path) -> Path:
    place = store_of(tmp_path / "bad.zarr", rows())
    chunk = place / "embeddings" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    return place


def spoil_absent(tmp_path: Path) -> Path:
    place = store_of(tmp_path / "bad.zarr", rows())
    (place / "embeddings" / "c" / "1" / "0").unlink()
    return place


def spoil_folder(tmp_path: Path) -> Path:
    (tmp_path / "bad.zarr").mkdir()
    return tmp_path / "bad.zarr"


def spoil_npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "bad.npy", rows())
    return tmp_path / "bad.npy"


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (lambda path: path / "gone.zarr", [], ["gone.zarr: no such file or folder", "check the path"]),
        (spoil_nan, [], ["bad.zarr: 2 rows hold NaN or Inf", "first: row 41", "--on-bad-row drop"]),
        (spoil_zero, ["--metric", "cosine"], ["bad.zarr: 1 rows are zero", "first: row 7", "use metric l2"]),
        (spoil_dims, [], ["bad.zarr", "3 dimensions"]),
        (spoil_flat, [], ["bad.zarr", "(40,)"]),
        (spoil_empty, [], ["bad.zarr", "no rows"]),
        (spoil_dtype, [], ["bad.zarr", "int32"]),
        (spoil_truncated, [], ["chunk 2 (rows 64 to 95) is truncated", "512", "restore it or ingest again"]),
        (spoil_absent, [], ["chunk 1 (rows 32 to 63) is absent", "restore it or ingest again"]),
        (spoil_folder, [], ["bad.zarr: a folder, but neither", "check the path"]),
        (spoil_npy, [], ["bad.npy: a file, not a store", "streamcurate ingest"]),
    ],
    ids=["missing", "nan", "zero", "3-d", "1-d", "empty", "integers", "truncated", "absent", "folder", "npy"],
)
def test_stores_that_cannot_be_used(tmp_path, capsys, spoil, options, said):
    bad = spoil(tmp_path)
    message = refusal(tmp_path, capsys, ["cluster", bad, tmp_path / "run", "--levels", "10,3", *options])
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--levels", "101"], ["101 clusters from the 100 rows of ", "emb.zarr", "choose at most 100"]),
        (["--levels", "10,20"], ["levels[1].clusters: 20 clusters over the 10 clusters of levels[0]"]),
        (["--levels", "10,10"], ["fewer clusters than the one below"]),
        (["--levels", "ten"], ["ten"]),
        (["--levels", "0"], ["0"]),
        (["--levels", "5", "--config", "x.yaml"], ["--levels", "--config", "exactly one"]),
        ([], ["--levels", "--config", "exactly one"]),
        (["--config", "gone.yaml"], ["gone.yaml: no such file"]),
        (["--levels", "5", "--memory-limit", "100MiB"], ["memory limit 100 MiB", "smallest supported is 512 MiB"]),
        (["--levels", "5", "--memory-limit", "lots"], ["'lots'", "4GiB"]),
        (["--levels", "5", "--seed", "-1"], ["seed", "-1"]),
        (["--levels", "5", "--device", "gpu"], ["device gpu", "CuPy"]),
        (["--levels", "5", "--device", "tpu"], ["tpu"]),
        (["--levels", "5", "--workers", "0"], ["workers"]),
        (["--levels", "5", "--workers", "4", "--scheduler", "x"], ["--workers and --scheduler: give one of them"]),
        (["--levels", "5", "--scheduler-file", "gone.json"], ["gone.json: no scheduler's file", "dask scheduler"]),
        (["--levels", "5", "--scheduler", "tcp://127.0.0.1:1"], ["tcp://127.0.0.1:1: no Dask scheduler answers"]),
        (["--levels", "5", "--threads", "0"], ["threads"]),
        (["--levels", "5", "--metric", "dot"], ["dot"]),
        (["--levels", "5", "--subset", "gone.npy"], ["gone.npy: no such file", "leave --subset out"]),
        (["--levels", "5", "--reuse", "gone"], ["gone: is no run directory"]),
        (["--levels", "5", "--level", "3"], ["--level"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) and value and value[0][:1] == "-" else "",
)
def test_options_that_cannot_be(store, tmp_path, capsys, options, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("streamcurate.streaming.dask.connection._CONNECT_SECONDS", 1)
    message = refusal(tmp_path, capsys, ["cluster", store, tmp_path / "run", *options])
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("levels:\n  - {clusters: 10, iteration: 5}\n", ["levels[0].", "iteration", "iterations"]),
        ("level: [{clusters: 10}]\n", ["level", "levels"]),
        ("levels: [{clusters: 10, resampling: {steps: 1, rows_per_clusters: 2}}]\n", ["rows_per_cluster"]),
        ("levels: [{clusters: 10}]\nmetrik: l2\n", ["metrik", "metric"]),
        ("levels: [{clusters: 10.5}]\n", ["levels[0].clusters", "10.5"]),
        ("levels: [", ["line"]),
        ("", ["levels"]),
        ("n_clusters: [10]\nn_iter: 3\n", ["n_iter", "n_iters"]),
        ("levels: [{clusters: 10, splits: 0}]\n", ["splits", "0"]),
    ],
)
def test_files_that_cannot_be(store, tmp_path, capsys, text, said):
    file = tmp_path / "levels.yaml"
    file.write_text(text)
    message = refusal(tmp_path, capsys, ["cluster", store, tmp_path / "run", "--config", file])
    assert "levels.yaml" in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        (np.array([1.5]), "float64"),
        (np.array([[1, 2]]), "(1, 2)"),
        (np.array([0, 100]), "row 100 is not among the 100 rows"),
        (np.array([-1, 5]), "row -1"),
        (np.array([4, 4]), "row 4 more than once"),
        (np.array([], dtype=np.int64), "names no row"),
        (np.ones(99, dtype=bool), "99 entries for 100 rows"),
        (np.array([1, 2, 3]), "5 clusters from the 3 rows"),
        (None, "not a readable .npy file"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'", "not a readable .npy file"),
        ("folder", "not a readable .npy file"),
        ("cut", "truncated"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_subsets_that_cannot_be(store, tmp_path, capsys, subset, said, in_file):
    file = tmp_path / "rows.npy"
    if isinstance(subset, np.ndarray):
        np.save(file, subset)
    elif subset == "folder":
        file.mkdir()
    elif subset == "cut":
        np.save(file, np.arange(50))
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.write_bytes(subset or b"not numpy")
    if in_file:
        config = tmp_path / "levels.yaml"
        config.write_text(json.dumps({"levels": [{"clusters": 5}], "subset": str(file)}))
        options = ["--config", config]
    else:
        options = ["--levels", "5", "--subset", file]
    message = refusal(tmp_path, capsys, ["cluster", store, tmp_path / "run", *options])
    assert "rows.npy" in message
    assert said in message


def test_run_directories_that_cannot_be(store, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    assert "file: " in refusal(tmp_path, capsys, ["cluster", store, file, "--levels", "5"])
    assert "cannot be made" in refusal(tmp_path, capsys, ["cluster", store, file / "below", "--levels", "5"])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    message = refusal(tmp_path, capsys, ["cluster", store, foreign, "--levels", "5"])
    assert "no run directory and not empty (it holds thesis.tex)" in message
    message = refusal(tmp_path, capsys, ["cluster", store, store, "--levels", "5"])
    assert "no run directory and not empty" in message


def test_scratch_that_cannot_be(store, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for scratch in (file, file / "below"):
        message = refusal(tmp_path, capsys, ["cluster", store, tmp_path / "run", "--levels", "5", "--scratch", scratch])
        assert "file" in message
        assert "scratch" in message


def test_a_manifest_that_is_no_manifest(store, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["cluster", str(store), str(run), "--levels", "5", "--quiet"]) == 0
    for text in ("{", "[]", '{"format_version": 99}'):
        (run / "run.json").write_text(text)
        assert "run.json" in refusal(tmp_path, capsys, ["cluster", store, run, "--levels", "5"])


def test_more_clusters_than_the_level_below_holds_points(tmp_path, capsys):
    """Known only when level 1 is there, which stays for another command to take over."""
    place = store_of(tmp_path / "emb.zarr", np.repeat(rows(4), 25, axis=0))
    line = ["cluster", str(place), str(tmp_path / "run"), "--levels", "20,8", "--quiet"]
    assert main(line) == 2
    message = capsys.readouterr().err
    assert "levels[1].clusters: 8 clusters from the 4 clusters of level 1 that hold points; choose at most 4" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ({"clusters": 60_000, "init": "k-means++"}, ["k-means++", "choose init: k-means||"]),
        ({"clusters": 60_000, "resampling": {"steps": 1, "rows_per_cluster": 400}}, ["60,000 clusters"]),
    ],
    ids=["seeding", "resampling"],
)
def test_what_cannot_fit_is_refused_with_numbers_before_anything_is_read(tmp_path, capsys, level, said):
    place = tmp_path / "emb.zarr"
    create_group(place)
    create_array(place / "embeddings", (3_000_000, 512), np.float16, 1 << 15)  # its chunks are absent: never read
    config = tmp_path / "levels.yaml"
    config.write_text(json.dumps({"levels": [level]}))
    line = ["cluster", place, tmp_path / "run", "--config", config, "--memory-limit", "512MiB"]
    message = refusal(tmp_path, capsys, line)
    assert "needs " in message
    assert "the memory limit of 512 MiB leaves " in message
    assert "--memory-limit " in message.split("leaves")[1]
    for part in said:
        assert part in message


def test_a_refusal_of_the_real_program(store, tmp_path):
    """In a process of its own: nothing but the message on stderr."""
    command = [sys.executable, "-m", "streamcurate.cli.main", "cluster", str(store), str(tmp_path / "run")]
    done = subprocess.run([*command, "--levels", "1000"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("streamcurate: error: levels[0].clusters: 1,000 clusters")
    assert not (tmp_path / "run").exists()


# -- memory --------------------------------------------------------------------


def peak_of_tree(process: subprocess.Popen[str]) -> int:
    """Largest resident memory of a process and its children, sampled until it ends."""
    import psutil

    peak, root = 0, psutil.Process(process.pid)

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                members = [root, *root.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in members))
            except psutil.Error:
                continue
            time.sleep(0.005)

    thread = threading.Thread(target=sample)
    thread.start()
    _, errors = process.communicate(timeout=280)
    thread.join()
    assert process.returncode == 0, errors
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    "levels",
    [
        [{"clusters": 1500, "iterations": 3, "resampling": {"steps": 1, "rows_per_cluster": 20}}, {"clusters": 100}],
        [{"clusters": 60, "iterations": 2, "splits": 20}, {"clusters": 50}],
        [{"clusters": 30_000, "iterations": 1, "init": "random"}, {"clusters": 100, "init": "k-means||"}],
    ],
    ids=["resampling", "splits", "many clusters"],
)
def test_memory_stays_below_the_limit(tmp_path, levels):
    count, dims = 400_000, 64
    place = tmp_path / "emb.zarr"
    create_group(place)
    array = create_array(place / "embeddings", (count, dims), np.float16, 100_000)
    generator = np.random.default_rng(0)
    for start in range(0, count, 100_000):
        array.write(start, generator.standard_normal((100_000, dims), dtype=np.float32).astype(np.float16))
    config = tmp_path / "levels.yaml"
    config.write_text(json.dumps({"levels": levels}))
    command = [sys.executable, "-m", "streamcurate.cli.main", "cluster", str(place), str(tmp_path / "run")]
    command += ["--config", str(config), "--memory-limit", "512MiB", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = peak_of_tree(process)
    print(f"peak {peak / 2**20:.0f} MiB")
    assert peak < 512 << 20
    # A sampler that saw nothing would pass: importing alone takes a hundred MiB.
    assert peak > 100 << 20
