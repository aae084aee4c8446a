"""Peak memory of `streamcurate cluster` under a limit, and whether it grows with the number of rows.

    python benchmarks/memory.py                          # 4,000,000 × 256 float16 (2 GB) and a quarter of it, 1 GiB
    python benchmarks/memory.py --rows 400000 --levels 500,50

Writes clustered synthetic rows chunk by chunk into a store, then runs the command as a process of its own and adds up
the resident memory of it and its children every 50 ms. Seeding is the one `auto` chooses; Lloyd passes are cut to
`--iterations`, which changes the time and not what is held. The stores are removed afterwards.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from reporting import conclude, parser, table

from streamcurate.storage import create_array
from streamcurate.streaming.budget import parse_bytes
from streamcurate.tree import open_tree

CHUNK_ROWS = 1 << 16
CENTRES = 5000
SAMPLE_SECONDS = 0.05


def write_store(path: Path, rows: int, dims: int) -> None:
    """Rows around `CENTRES` centres, of which some are far more often taken than others."""
    array = create_array(path, (rows, dims), np.float16, CHUNK_ROWS)
    centres = np.random.default_rng(0).standard_normal((CENTRES, dims), dtype=np.float32)
    for start in range(0, rows, CHUNK_ROWS):
        generator = np.random.default_rng([1, start])
        count = min(CHUNK_ROWS, rows - start)
        taken = (CENTRES * generator.random(count) ** 3).astype(np.int64)
        values = centres[taken] + 0.5 * generator.standard_normal((count, dims), dtype=np.float32)
        array.write(start, (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16))


def resident(process: psutil.Process) -> int:
    """Resident bytes of a process and all its descendants, 0 once it is gone."""
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total


def measure(store: Path, run: Path, config: Path, limit: str) -> tuple[int, float, NDArray[np.int64]]:
    """Peak resident bytes, seconds, and every sample."""
    line = [sys.executable, "-m", "streamcurate.cli.main", "cluster", store, run, "--config", config]
    began = time.perf_counter()
    process = subprocess.Popen([*map(str, line), "--memory-limit", limit])
    watched = psutil.Process(process.pid)
    samples = []
    try:
        while process.poll() is None:
            samples.append(resident(watched))
            time.sleep(SAMPLE_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        raise SystemExit(f"streamcurate cluster ended with {process.returncode}")
    return max(samples), time.perf_counter() - began, np.array(samples)


def main() -> None:
    options = arguments()
    limit = parse_bytes(options.memory_limit)
    folder = Path(tempfile.mkdtemp(prefix="streamcurate-memory-", dir=options.folder))
    found = {}
    try:
        config = folder / "levels.yaml"
        text = "".join(
            f"  - clusters: {clusters}\n    iterations: {options.iterations}\n"
            for clusters in options.levels.split(",")
        )
        config.write_text(f"seed: 0\nlevels:\n{text}")
        for rows in (options.rows // 4, options.rows):
            store, run = folder / f"{rows}.zarr", folder / f"run-{rows}"
            print(f"{rows:,} × {options.dims} float16: writing", flush=True)
            write_store(store, rows, options.dims)
            peak, seconds, _ = measure(store, run, config, options.memory_limit)
            found[rows] = (peak, seconds, open_tree(run).manifest.levels[0].seeding)
            shutil.rmtree(store)
            shutil.rmtree(run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    lines = [
        [
            f"{rows:,}",
            f"{rows * options.dims * 2 / 2**20:,.0f}",
            f"{peak / 2**20:,.0f}",
            f"{peak / limit:.0%}",
            seeding,
            f"{seconds:,.0f}",
        ]
        for rows, (peak, seconds, seeding) in found.items()
    ]
    print(f"\nlevels [{options.levels}], {options.iterations} Lloyd passes a level, limit {limit / 2**20:,.0f} MiB\n")
    print(table(["rows", "store MiB", "peak MiB", "of limit", "seeding", "s"], lines))
    small, large = (found[rows][0] for rows in (options.rows // 4, options.rows))
    print(f"\npeak of a quarter of the rows: {small / large:.2f} of the peak of all")
    conclude(
        "memory",
        {
            "dims": options.dims,
            "levels": options.levels,
            "iterations": options.iterations,
            "memory_limit": limit,
            "runs": {
                str(rows): {"peak_bytes": peak, "seconds": round(seconds, 1), "seeding": seeding}
                for rows, (peak, seconds, seeding) in found.items()
            },
            "ratio": small / large,
        },
        {
            "peak below the limit": max(small, large) < limit,
            "a quarter of the rows needs at least 0.8 of the peak": small / large >= 0.8,
        },
        options.json,
    )


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=4_000_000)
    made.add_argument("--dims", type=int, default=256)
    made.add_argument("--levels", default="2000,200")
    made.add_argument("--iterations", type=int, default=3, help="Lloyd passes of each level (default 3)")
    made.add_argument("--memory-limit", default="1GiB")
    made.add_argument(
        "--folder", type=Path, help="where the stores are written; the system's temporary folder by default"
    )
    return made.parse_args()


if __name__ == "__main__":
    main()
