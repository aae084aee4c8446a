"""What an ingest is asked to do: options that make two of them the same, shards, and the memory they take."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.embeddings.job import Job, is_finished, make_job, make_options
from streamcurate.errors import ConfigError, InputError, MemoryLimitError
from streamcurate.storage import create_group

VALUES = np.ones((100, 4), np.float32)


def job(shard: int | None, chunk: int | None = 10, memory_limit: str | None = None, source=VALUES) -> Job:
    options = make_options(None, None, None, chunk, "error", None, rows_per_shard=shard)
    return make_job(source, None, "out.zarr", options, memory_limit)


def test_options_without_shards_are_those_of_before_there_were_any():
    options = make_options(None, "name", np.float16, 10, "error", "l2")
    assert options == {
        "column": None,
        "ids": "name",
        "dtype": "float16",
        "rows_per_chunk": 10,
        "on_bad_row": "error",
        "metric": None,
    }
    assert make_options(None, "name", np.float16, 10, "error", "l2", 20) == options | {"rows_per_shard": 20}


def test_shards_are_whole_chunks():
    assert job(None).shard_rows is None
    assert (job(30).shard_rows, job(30).chunk_rows) == (30, 10)
    assert job(10).shard_rows == 10
    for rows, message in {
        35: r"rows-per-shard 35: a shard holds whole chunks, of 10 rows here; give --rows-per-shard 30 or 40, or",
        5: r"give --rows-per-shard 10, or --rows-per-chunk a divisor",
        0: "rows-per-shard 0: at least 1",
        -3: "rows-per-shard -3: at least 1",
        True: "rows-per-shard True: at least 1",
    }.items():
        with pytest.raises(ConfigError, match=message):
            job(rows)
    # Chunks by default are found out from the sources.
    default = job(None, None).chunk_rows
    assert job(3 * default, None).shard_rows == 3 * default
    with pytest.raises(ConfigError, match=f"of {default} rows here"):
        job(3 * default + 1, None)


def test_a_store_of_other_shards_is_another_store(tmp_path):
    target = str(tmp_path / "e.zarr")
    for made, asked, message in (
        (30, None, r"with other options \(rows-per-shard: 30 before, none now\)"),
        (None, 30, r"with other options \(rows-per-shard: none before, 30 now\)"),
        (20, 30, r"\(rows-per-shard: 20 before, 30 now\)"),
    ):
        create_group(target, job(made).attributes(0))
        assert is_finished(target, job(made))
        with pytest.raises(InputError, match=message):
            is_finished(target, job(asked))
        (tmp_path / "e.zarr" / "zarr.json").unlink()
        (tmp_path / "e.zarr").rmdir()


def test_a_chunk_counts_as_memory_and_a_shard_does_not(tmp_path):
    # A file of holes.
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (200_000, 2048))
    source = tmp_path / "x.npy"
    assert job(None, 1000, "1GiB", source).shard_rows is None
    assert job(200_000, 1000, "600MiB", source).shard_rows == 200_000
    with pytest.raises(MemoryLimitError, match=r"smaller chunks \(--rows-per-chunk\)"):
        job(None, 200_000, "600MiB", source)
