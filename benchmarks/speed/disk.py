"""Out of core: the engine over a store on disk beside the same rows in memory, and beside reading the files at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.contestants import Problem, fit_source, stored_rows, write_rows
from speed.rows import clustered_rows
from streamcurate.streaming import MemoryRows

_BUFFER = 16 << 20
CAN_DROP = hasattr(os, "posix_fadvise")


@dataclass(frozen=True)
class Sizes:
    """How large the two cases are.

    Attributes
    ----------
    rows, clusters : int
        Where computing takes longer than reading.
    read_rows, read_clusters : int
        Where reading takes longer.
    dims, iterations, rounds : int
    """

    rows: int = 100_000
    clusters: int = 4000
    read_rows: int = 1_000_000
    read_clusters: int = 8
    dims: int = 384
    iterations: int = 3
    rounds: int = 3


def chunk_files(store: Path) -> list[Path]:
    """The files of the rows, in their order."""
    files = [path for path in (store / "embeddings").rglob("*") if path.is_file() and path.name != "zarr.json"]
    return sorted(files, key=lambda path: [int(part) for part in path.parts if part.isdigit()])


def drop_cache(files: list[Path]) -> None:
    """Have the system forget what it holds of these files in memory."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not yet written would stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def read_through(files: list[Path]) -> float:
    """Seconds that reading all bytes in order takes, into one buffer."""
    buffer = memoryview(bytearray(_BUFFER))
    began = time.perf_counter()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - began


def measure(folder: Path, sizes: Sizes, threads: int) -> dict[str, Any]:
    """Both cases, with the file cache dropped before every pass ("cold") and left alone ("warm")."""
    generator = np.random.default_rng(7)
    rows = clustered_rows(sizes.rows, sizes.dims, generator).astype(np.float16)
    return {
        "dims": sizes.dims,
        "dtype": "float16",
        "compute_bound": _compute_bound(folder / "compute.zarr", rows, sizes, threads),
        "read_bound": _read_bound(folder / "read.zarr", rows, sizes, threads),
    }


def _states(files: list[Path]) -> dict[str, Callable[[], None]]:
    states: dict[str, Callable[[], None]] = {"warm": lambda: None}
    return {"cold": lambda: drop_cache(files), **states} if CAN_DROP else states


def _compute_bound(store: Path, rows: NDArray[Any], sizes: Sizes, threads: int) -> dict[str, Any]:
    write_rows(store, rows)
    states = _states(chunk_files(store))
    problem = Problem(rows, rows[: sizes.clusters].astype(np.float32), sizes.iterations, threads)
    seconds: dict[str, list[float]] = {"memory": [], **{state: [] for state in states}}
    for _ in range(sizes.rounds):
        seconds["memory"].append(median(fit_source(MemoryRows(rows), problem, labels=False).iteration_seconds))
        for state, before in states.items():
            found = fit_source(stored_rows(store), problem, before, labels=False)
            seconds[state].append(median(found.iteration_seconds))
    return {
        "rows": len(rows),
        "clusters": sizes.clusters,
        "seconds_per_iteration": {name: median(each) for name, each in seconds.items()},
        "share_of_memory_speed": {
            state: median(a / b for a, b in zip(seconds["memory"], seconds[state], strict=True)) for state in states
        },
    }


def _read_bound(store: Path, rows: NDArray[Any], sizes: Sizes, threads: int) -> dict[str, Any]:
    # The same rows again and again: the values do not matter here.
    many = np.tile(rows, (-(-sizes.read_rows // len(rows)), 1))[: sizes.read_rows]
    write_rows(store, many)
    size, source = many.nbytes, stored_rows(store)
    del many
    files = chunk_files(store)
    states = _states(files)
    problem = Problem(rows, rows[: sizes.read_clusters].astype(np.float32), sizes.iterations, threads)
    plain: dict[str, list[float]] = {state: [] for state in states}
    ours: dict[str, list[float]] = {state: [] for state in states}
    for _ in range(sizes.rounds):
        for state, before in states.items():
            before()
            plain[state].append(read_through(files))
            ours[state].append(median(fit_source(source, problem, before, labels=False).iteration_seconds))
    return {
        "rows": sizes.read_rows,
        "clusters": sizes.read_clusters,
        "bytes": size,
        "readinto_gb_per_second": {state: size / median(each) / 1e9 for state, each in plain.items()},
        "gb_per_second": {state: size / median(each) / 1e9 for state, each in ours.items()},
        "share_of_readinto": {
            state: median(a / b for a, b in zip(plain[state], ours[state], strict=True)) for state in states
        },
    }
