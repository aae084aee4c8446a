"""A billion rows on one small machine: the whole job, and what each process of it held.

    python benchmarks/billion.py --json benchmarks/results/billion.json   # 1,000,000,000 × 16 float16; 75 GB of disk
    python benchmarks/billion.py --rows 2000000 --sample 20000

Writes a store of synthetic.py (32 GB), runs `streamcurate cluster` with two levels, the first fitted on a sample, and
`streamcurate sample`, each as a process of its own. Where the disk is short, half as many rows are used, and the result
says so. Everything written is removed again.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from process_memory import (
    Measured,
    bytes_in,
    mebibytes,
    read_timeline,
    run_measured,
    warm_up,
    working_folder,
    write_levels,
)
from reporting import conclude, parser, table
from synthetic import write_store

from streamcurate.streaming.budget import available_threads, parse_bytes
from streamcurate.tree import open_tree

LARGEST_PEAK = 3 << 30


def main() -> None:
    options = arguments()
    wanted = options.rows
    free = shutil.disk_usage(options.folder or tempfile.gettempdir()).free
    if free < bytes_needed(wanted, options.dims):
        options.rows = wanted // 2
        print(f"{free / 1e9:,.0f} GB are free, too few for {wanted:,} rows: {options.rows:,} instead")
    levels = [int(count) for count in options.levels.split(",")]
    executor = ["--workers", options.workers] if options.workers else []
    executor += ["--memory-limit", options.memory_limit]
    with working_folder("billion", options.folder, bytes_needed(options.rows, options.dims)) as folder:
        warm_up(folder, options.dims, levels[0], executor)
        store, run, draw = folder / "rows.zarr", folder / "run", folder / "draw" / "draw.parquet"
        print(f"{options.rows:,} × {options.dims} float16: writing", flush=True)
        began = time.perf_counter()
        write_store(store, options.rows, options.dims)
        stages = {"writing the store": time.perf_counter() - began}
        write_levels(folder / "levels.yaml", levels, options.iterations, options.fit_rows)
        built = run_measured(["cluster", store, run, "--config", folder / "levels.yaml", *executor], run)
        timeline = read_timeline(run, built.began)
        draw.parent.mkdir()
        drawn = run_measured(["sample", run, "--size", options.sample, "--out", draw], draw.parent)
        stages |= timeline.stages | {f"sample of {options.sample:,}": drawn.seconds}
        result = {
            "rows": options.rows,
            "rows_wanted": wanted,
            "dims": options.dims,
            "workers": options.workers,
            "memory_limit": parse_bytes(options.memory_limit),
            "iterations": options.iterations,
            "fit_rows": options.fit_rows,
            "stages_seconds": {name: round(seconds, 1) for name, seconds in stages.items()},
            "passes": timeline.passes,
            "cluster": built.described(),
            "sample": drawn.described(),
            "levels": [asdict(level) for level in open_tree(run).manifest.levels],
            "digest": timeline.digest,
            "store_bytes": bytes_in(store),
            "tree_bytes": bytes_in(run / "tree.zarr"),
            "draw_bytes": bytes_in(draw.parent),
        }
    result["scratch_peak_bytes"] = max(built.disk - result["tree_bytes"], 0)
    report(result, stages, built, drawn, options)


def report(
    result: dict[str, Any], stages: dict[str, float], built: Measured, drawn: Measured, options: argparse.Namespace
) -> None:
    """Stages, processes, bytes, goals."""
    rows = result["rows"]
    print(f"\n{rows:,} × {options.dims} float16, levels [{options.levels}]\n")
    per_row = ("writing", "start", "labels 1", "members and digest 1")
    lines = [
        [name, f"{seconds:,.1f}", f"{rows / seconds:,.0f}" if name.startswith(per_row) else ""]
        for name, seconds in stages.items()
    ]
    print(table(["stage", "s", "rows/s"], lines))
    names = ["cluster: driver", *(f"cluster: worker {number + 1}" for number in range(len(built.workers))), "sample"]
    peaks = [built.driver, *built.workers, max(drawn.driver, *drawn.workers, 0)]
    print("\n" + table(["process", "peak MiB"], [[name, mebibytes(p)] for name, p in zip(names, peaks, strict=True)]))
    disk = [[what, mebibytes(result[f"{what}_bytes"])] for what in ("store", "tree", "scratch_peak", "draw")]
    print("\n" + table(["on disk", "MiB"], disk))
    for number, level in enumerate(result["levels"], start=1):
        sizes = level["sizes"]
        print(
            f"\nlevel {number}: {level['clusters']:,} clusters, sizes {sizes['min']:,} to {sizes['max']:,} "
            f"(median {sizes['median']:,.0f}), {level['empty']} empty"
        )
    goals = {
        f"{result['rows_wanted']:,} rows": rows == result["rows_wanted"],
        f"each process below {mebibytes(LARGEST_PEAK)} MiB": max(peaks) < LARGEST_PEAK,
        "each process of cluster below its limit": max(peaks[:-1]) < result["memory_limit"],
        "every worker seen": len(built.workers) >= options.workers,
    }
    conclude("billion", result, goals, options.json)


def bytes_needed(rows: int, dims: int) -> int:
    """The store; labels 4, distances 4, members 8, and 16 a row while the members are sorted; a tenth to spare."""
    return int(1.1 * rows * (2 * dims + 32)) + (2 << 30)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000_000)
    made.add_argument("--dims", type=int, default=16)
    made.add_argument("--levels", default="2000,200")
    made.add_argument("--iterations", type=int, default=10, help="Lloyd passes of each level (default 10)")
    made.add_argument("--fit-rows", type=int, default=1_000_000)
    made.add_argument("--sample", type=int, default=10_000_000, help="rows to draw at the end")
    made.add_argument("--workers", type=int, default=available_threads(), help="Dask workers; 0: the serial executor")
    made.add_argument("--memory-limit", default="2GiB", help="of each process (default 2GiB)")
    made.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    return made.parse_args()


if __name__ == "__main__":
    main()
