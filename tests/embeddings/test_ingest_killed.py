"""SIGKILL of a real ingest, at any instant; the same command again gives the same store, byte for byte."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from streamcurate.embeddings.store import open_embeddings

# A fast machine may finish before all kills are spent; less than two fifths of them would show little.
KILLS = [8, pytest.param(20, marks=pytest.mark.slow)]
CHUNKS, CHUNK_ROWS, DIMS = 400, 64, 16


@pytest.fixture
def folder(tmp_path) -> Path:
    rows = CHUNKS * CHUNK_ROWS
    values = np.random.default_rng(0).standard_normal((rows, DIMS)).astype(np.float32)
    values[::97] = np.nan
    np.save(tmp_path / "a.npy", values[: rows // 3])
    np.save(tmp_path / "b.npy", np.asfortranarray(values[rows // 3 :]))
    (tmp_path / "ids.txt").write_text("".join(f"img_{row:06d}\n" for row in range(rows)))
    return tmp_path


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    paths = [str(folder / name) for name in ("a.npy", "b.npy", out, "ids.txt")]
    options = ["--rows-per-chunk", str(CHUNK_ROWS), "--on-bad-row", "drop", "--quiet", "--ids"]
    command = [sys.executable, "-m", "streamcurate.cli.main", "ingest", *paths[:3], *options, paths[3]]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=60)


def stored(folder: Path) -> int:
    """Rows that the journal says are safe."""
    try:
        return int(json.loads((folder / "e.zarr.partial" / "progress.json").read_text())["stored"])
    except FileNotFoundError:
        return 0


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("most", KILLS)
def test_killed_at_random_instants(folder, most):
    choose = random.Random(20)
    kills = 0
    seen = []
    while kills < most:
        process = start(folder, "e.zarr")
        # Some while it starts and looks at what the last one left, the rest a few chunks later, anywhere inside one.
        if kills % 4 == 0:
            time.sleep(choose.uniform(0.05, 0.35))
        else:
            aim = stored(folder) + choose.randint(1, 5) * CHUNK_ROWS
            while process.poll() is None and stored(folder) < aim:
                time.sleep(0.0005)
            time.sleep(choose.uniform(0, 0.01))
        kill(process)
        if (folder / "e.zarr").exists():
            break
        kills += 1
        seen.append(stored(folder))
    assert kills >= 0.4 * most
    # What was safe stayed safe: no run began anew.
    assert seen == sorted(seen)
    assert seen[-1] > kills * CHUNK_ROWS
    finish(start(folder, "e.zarr"))
    finish(start(folder, "undisturbed.zarr"))
    assert content(folder / "e.zarr") == content(folder / "undisturbed.zarr")
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "b.npy", "e.zarr", "ids.txt", "undisturbed.zarr"]
    store = open_embeddings(folder / "e.zarr")
    names = [f"img_{row:06d}" for row in range(CHUNKS * CHUNK_ROWS) if row % 97]
    assert store.take_ids(np.arange(store.rows)).tolist() == names


def test_killed_at_the_end(folder):
    """Around the renaming: from the last chunk on until nothing is left to do."""
    choose = random.Random(5)
    last = (CHUNKS * CHUNK_ROWS * 96 // 97) // CHUNK_ROWS * CHUNK_ROWS
    finish(start(folder, "undisturbed.zarr"))
    for _ in range(2):
        process = start(folder, "e.zarr")
        while process.poll() is None and stored(folder) < last and not (folder / "e.zarr").exists():
            time.sleep(0.0005)
        time.sleep(choose.uniform(0, 0.02))
        kill(process)
        if (folder / "e.zarr").exists():
            assert content(folder / "e.zarr") == content(folder / "undisturbed.zarr")
    finish(start(folder, "e.zarr"))
    assert content(folder / "e.zarr") == content(folder / "undisturbed.zarr")
    assert not (folder / "e.zarr.partial").exists()
