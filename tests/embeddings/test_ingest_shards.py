"""Stores whose files hold several chunks: the same rows, fewer files, and never a shard in memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zarr

import streamcurate as sc
from streamcurate.embeddings import fingerprint
from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import base
from streamcurate.embeddings.unfinished import Progress
from streamcurate.embeddings.writer import ids_chunk_rows, make_layout
from streamcurate.errors import ConfigError, InputError

ROWS, DIMS, CHUNK_ROWS, SHARD_ROWS = 700, 8, 32, 96


@pytest.fixture
def sources(tmp_path) -> Path:
    values = np.random.default_rng(0).standard_normal((ROWS, DIMS)).astype(np.float32)
    values[::97] = np.nan
    np.save(tmp_path / "a.npy", values[:300])
    np.save(tmp_path / "b.npy", values[300:])
    (tmp_path / "ids.txt").write_text("".join(f"img_{row:06d}\n" for row in range(ROWS)))
    return tmp_path


def given(folder: Path, **changes: object) -> dict[str, object]:
    options = {"ids": folder / "ids.txt", "on_bad_row": "drop", "rows_per_chunk": CHUNK_ROWS}
    return {"sources": f"{folder}/?.npy", "rows_per_shard": SHARD_ROWS} | options | changes


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shard_rows", [32, 96, 672, 9600])
def test_the_same_rows_in_fewer_files(sources, shard_rows):
    plain = ingest(out=sources / "plain.zarr", **given(sources, rows_per_shard=None))
    store = ingest(out=sources / "e.zarr", **given(sources, rows_per_shard=shard_rows))
    assert store.fingerprint == plain.fingerprint
    assert store.read(0, store.rows).tobytes() == plain.read(0, plain.rows).tobytes()
    everything = np.arange(store.rows)
    assert store.take_ids(everything).tolist() == plain.take_ids(everything).tolist()
    files = [path for path in (sources / "e.zarr" / "embeddings" / "c").rglob("*") if path.is_file()]
    assert len(files) == -(-store.rows // shard_rows)
    # As Zarr itself sees it.
    array = zarr.open_array(sources / "e.zarr" / "embeddings", mode="r")
    assert array.chunks == (CHUNK_ROWS, DIMS)
    assert array.shards == (min(shard_rows, 704), DIMS)
    assert array[...].tobytes() == plain.read(0, plain.rows).tobytes()


def test_the_same_tree(sources):
    values = np.random.default_rng(1).standard_normal((500, DIMS)).astype(np.float32)
    digests = set()
    for shard_rows in (None, 64, 512):
        name = str(sources / f"{shard_rows}.zarr")
        store = ingest(values, name, rows_per_chunk=64, rows_per_shard=shard_rows)
        digests.add(sc.cluster(store, sources / f"run-{shard_rows}", levels=[8, 3], seed=0).digest)
    assert len(digests) == 1


@pytest.mark.parametrize("rows", [None, 1000])
@pytest.mark.parametrize("come", [10, 32, 50, 96, 97, 192, 300])
def test_fewer_rows_come_than_were_announced(tmp_path, rows, come):
    """The last shard ends before its time."""
    values = np.random.default_rng(come).standard_normal((come, DIMS)).astype(np.float32)
    padded = np.concatenate([values, np.full((0 if rows is None else rows - come, DIMS), np.nan, np.float32)])
    source = padded
    if rows is None:  # a stream does not tell its length
        source = tmp_path / "a.arrow"
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIMS)
        table = pa.table({"e": column})
        with pa.ipc.new_stream(source, table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
    options = {"rows_per_chunk": CHUNK_ROWS, "rows_per_shard": SHARD_ROWS, "on_bad_row": "drop"}
    store = ingest(source, tmp_path / "e.zarr", **options)
    assert store.read(0, store.rows).tobytes() == values.tobytes()
    array = zarr.open_array(tmp_path / "e.zarr" / "embeddings", mode="r")
    assert array[...].tobytes() == values.tobytes()
    assert store.fingerprint == ingest(values, tmp_path / "plain.zarr").fingerprint


def test_rows_of_a_shard_are_whole_chunks(sources):
    with pytest.raises(ConfigError, match=r"rows-per-shard 100: .* --rows-per-shard 96 or 128"):
        ingest(out=sources / "e.zarr", **given(sources, rows_per_shard=100))
    assert not list(sources.glob("e.zarr*"))
    ingest(out=sources / "e.zarr", **given(sources))
    with pytest.raises(InputError, match=r"other options \(rows-per-shard: 96 before, none now\)"):
        ingest(out=sources / "e.zarr", **given(sources, rows_per_shard=None))


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs."""


class Listener:
    """Ends the ingest after some blocks, if told to."""

    def __init__(self, blocks: int = -1) -> None:
        self.blocks, self.rows = blocks, 0
        self.notes: list[str] = []

    def started(self, name: str, rows: int) -> None: ...

    def advanced(self, rows: int, bytes: int) -> None:
        self.rows += rows
        self.blocks -= 1
        if self.blocks == 0:
            raise Killed

    def finished(self) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("blocks", [1, 4, 6, 12, 20, 35])
def test_an_interrupted_shard_is_begun_again(sources, monkeypatch, blocks):
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    monkeypatch.setattr(fingerprint, "UNIT_BYTES", (64, 2048)[blocks % 2])
    with pytest.raises(Killed):
        ingest(out=sources / "e.zarr", progress=Listener(blocks), **given(sources))
    partial = sources / "e.zarr.partial"
    noted = partial / "progress.json"
    safe = Progress(**json.loads(noted.read_text())).stored if noted.exists() else 0
    assert safe % SHARD_ROWS == 0
    assert safe >= 20 * blocks - SHARD_ROWS - 27
    listener = Listener()
    store = ingest(out=sources / "e.zarr", progress=listener, **given(sources))
    assert listener.rows <= ROWS - safe
    assert not list((sources / "e.zarr").rglob("*.writing"))
    undisturbed = ingest(out=sources / "undisturbed.zarr", **given(sources))
    assert store.fingerprint == undisturbed.fingerprint
    assert content(sources / "e.zarr") == content(sources / "undisturbed.zarr")


def test_a_damaged_shard_is_found_on_going_on(sources, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    with pytest.raises(Killed):
        ingest(out=sources / "e.zarr", progress=Listener(20), **given(sources))
    shard = sources / "e.zarr.partial" / "store" / "embeddings" / "c" / "1" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    store = ingest(out=sources / "e.zarr", **given(sources))
    assert store.fingerprint == ingest(out=sources / "plain.zarr", **given(sources, rows_per_shard=None)).fingerprint


def a_shard_is_being_written(partial: Path) -> bool:
    try:
        return any(partial.glob("store/embeddings/c/*/*.writing"))
    except FileNotFoundError:  # A run that goes on cleared a folder away while it was being listed.
        return False


def test_killed_at_random_instants(sources):
    choose = random.Random(3)
    options = ["--rows-per-chunk", str(CHUNK_ROWS), "--rows-per-shard", str(SHARD_ROWS), "--on-bad-row", "drop"]
    lines = (
        f"import sys; from streamcurate.embeddings.sources import base; base.BLOCK_BYTES = {8 * DIMS * 4}; "
        "from streamcurate.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", lines, "ingest", f"{sources}/?.npy", str(sources / "e.zarr"), *options, "--quiet"]
    command += ["--ids", f"{sources}/ids.txt"]
    partial, kills = sources / "e.zarr.partial", 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and not a_shard_is_being_written(partial):
            time.sleep(0.0005)
        time.sleep(choose.uniform(0, 0.01))
        process.kill()
        process.communicate(timeout=60)
        kills += not (sources / "e.zarr").exists()
    assert kills >= 2
    subprocess.run(command, check=True, timeout=60)
    ingest(out=sources / "undisturbed.zarr", **given(sources))
    assert content(sources / "e.zarr") == content(sources / "undisturbed.zarr")
    assert not partial.exists()


def test_a_shard_is_not_held_in_memory(tmp_path, monkeypatch):
    """What is written at once is a chunk: 64 times as many rows a shard take no more memory."""
    dims, chunk_rows = 256, 64
    monkeypatch.setattr(base, "BLOCK_BYTES", 16 * dims * 4)
    values = np.random.default_rng(0).standard_normal((64 * chunk_rows, dims)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    peaks = []
    for shards in (1, 64):
        options = {"rows_per_chunk": chunk_rows, "rows_per_shard": shards * chunk_rows}
        ingest(tmp_path / "a.npy", tmp_path / f"warm-{shards}.zarr", **options)
        tracemalloc.start()
        ingest(tmp_path / "a.npy", tmp_path / f"{shards}.zarr", **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < values.nbytes / 4
    assert peaks[1] < peaks[0] + 2 * chunk_rows * dims * 4


def test_ids_of_shards_lie_in_larger_chunks():
    text = np.dtype(object)
    layout = make_layout(10**9, 768, np.dtype("float16"), text, 40_960, 40_960 * 100)
    assert 4_096_000 % layout.ids_chunk_rows == 0
    assert 2**17 < layout.ids_chunk_rows <= 2**18
    assert layout.file_rows == 4_096_000
    # No divisor near it: that of a chunk.
    prime = 262_147
    layout = make_layout(10**9, 768, np.dtype("float16"), text, 2, 2 * prime)
    assert layout.ids_chunk_rows == ids_chunk_rows(2) == 2
    # More rows a shard than there are: as many chunks as it takes.
    layout = make_layout(100, 8, np.dtype("float32"), None, 32, 960)
    assert layout.shard_rows == 128
    assert make_layout(100, 8, np.dtype("float32"), None, 320, 960).shard_rows == 100
