"""Cost against the number of rows: rows/s of the labels pass, peak memory of each process, bytes on disk.

    python benchmarks/scale.py --json benchmarks/results/scale.json       # 1 M, 10 M, 100 M × 64 float16; 16 GB of disk
    python benchmarks/scale.py --rows 200000,1000000 --clusters 500
    python benchmarks/scale.py --workers 0                                # the serial executor

For each size a store of synthetic.py is written, and `streamcurate cluster` runs on it as a process of its own with
one level. The fit takes a fixed sample (`--fit-rows`) and few passes, so that what grows is the statistics pass, the
labels pass and the sort of the members. Sizes below 5 M rows run twice at the beginning and twice at the end, and the
median of each time counts: what the machine does meanwhile falls on all sizes. Everything written is removed again.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from process_memory import (
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

_REPEATED_BELOW, _REPEATS = 5_000_000, 2


def main() -> None:
    options = arguments()
    sizes = sorted(int(size) for size in options.rows.split(","))
    limit = parse_bytes(options.memory_limit)
    # Labels, distances, members, and the members' records while they are sorted: 4 + 4 + 8 + 16, and as much to spare.
    needed = sizes[-1] * (2 * options.dims + 48) + (1 << 30)
    with working_folder("scale", options.folder, needed) as folder:
        warm_up(folder, options.dims, options.clusters, executor_options(options))
        runs: dict[int, list[dict[str, Any]]] = {rows: [] for rows in sizes}
        for rows in [*sizes, *(rows for rows in sizes if rows < _REPEATED_BELOW)]:
            runs[rows] += measure(folder, rows, options)
    report({rows: summed_up(rows, runs[rows], options) for rows in sizes}, limit, options)


def measure(folder: Path, rows: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs of one size."""
    store = folder / f"{rows}.zarr"
    print(f"{rows:,} × {options.dims} float16: writing", end="", flush=True)
    began = time.perf_counter()
    write_store(store, rows, options.dims)
    print(f" took {time.perf_counter() - began:,.0f} s", flush=True)
    config = folder / "levels.yaml"
    write_levels(config, (options.clusters,), options.iterations, options.fit_rows)
    runs = [one_run(store, folder / "run", config, options) for _ in range(_REPEATS if rows < _REPEATED_BELOW else 1)]
    for one in runs:
        one["store_bytes"] = bytes_in(store)
    shutil.rmtree(store)
    return runs


def summed_up(rows: int, runs: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a size's runs: medians of times, peaks of memory."""
    described = {key: median([one[key] for one in runs]) for key in ("seconds", "statistics_seconds", "labels_seconds")}
    overheads = [one["overhead_seconds"] for one in runs if one["overhead_seconds"] is not None]
    row_bytes = 2 * options.dims
    return {
        **described,
        "labels_rows_per_second": rows / described["labels_seconds"],
        "labels_gb_per_second": rows * row_bytes / described["labels_seconds"] / 1e9,
        "statistics_rows_per_second": rows / described["statistics_seconds"],
        "statistics_gb_per_second": rows * row_bytes / described["statistics_seconds"] / 1e9,
        "overhead_seconds": median(overheads) if overheads else None,
        "driver_peak_bytes": max(one["driver_peak_bytes"] for one in runs),
        "worker_peak_bytes": max((peak for one in runs for peak in one["worker_peak_bytes"]), default=0),
        "store_bytes": runs[0]["store_bytes"],
        "tree_bytes": max(one["tree_bytes"] for one in runs),
        "scratch_peak_bytes": max(0, *(one["disk_peak_bytes"] - one["tree_bytes"] for one in runs)),
        "runs": runs,
    }


def one_run(store: Path, run: Path, config: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One command and what its events say."""
    line = ["cluster", store, run, "--config", config, "--quiet", *executor_options(options)]
    measured = run_measured(line, run)
    timeline = read_timeline(run, measured.began)
    if options.workers and len(measured.workers) < options.workers:
        raise SystemExit(f"{len(measured.workers)} worker processes were seen, not {options.workers}")
    labels = timeline.passes_of("labels")
    shared = [one for one in labels if one.get("tasks")]
    statistics = timeline.passes_of("statistics")
    tree_bytes = bytes_in(run / "tree.zarr")
    shutil.rmtree(run)
    return {
        **measured.described(),
        "statistics_seconds": sum(one["seconds"] for one in statistics) or timeline.stages["start and statistics"],
        "labels_seconds": sum(one["seconds"] for one in labels) or timeline.stages["labels 1"],
        # What a pass took beyond the time its workers computed, were that spread evenly.
        "overhead_seconds": sum(one["seconds"] - one["busy_seconds"] / options.workers for one in shared)
        if shared
        else None,
        "tasks": sum(one["tasks"] for one in shared),
        "tree_bytes": tree_bytes,
        "stages": {name: round(seconds, 2) for name, seconds in timeline.stages.items()},
    }


def executor_options(options: argparse.Namespace) -> list[object]:
    """Who computes, and within what."""
    workers = ["--workers", options.workers] if options.workers else []
    return [*workers, "--memory-limit", options.memory_limit]


def report(found: dict[int, dict[str, Any]], limit: int, options: argparse.Namespace) -> None:
    """Tables, the fit of cost against rows, goals."""
    lines = [
        [
            f"{rows:,}",
            f"{one['labels_rows_per_second']:,.0f}",
            f"{one['labels_gb_per_second']:.3f}",
            f"{one['statistics_rows_per_second']:,.0f}",
            f"{one['seconds']:,.0f}",
            "" if one["overhead_seconds"] is None else f"{one['overhead_seconds'] / one['labels_seconds']:.1%}",
            mebibytes(one["driver_peak_bytes"]),
            mebibytes(one["worker_peak_bytes"]),
            *(mebibytes(one[f"{what}_bytes"]) for what in ("store", "tree", "scratch_peak")),
        ]
        for rows, one in found.items()
    ]
    head = ["rows", "labels rows/s", "GB/s", "statistics rows/s", "whole s", "overhead"]
    head += ["driver MiB", "worker MiB", "store MiB", "tree MiB", "scratch MiB"]
    workers = f"{options.workers} workers" if options.workers else "serial"
    print(f"\n{options.clusters} clusters of {options.dims} dims, {workers}, limit {mebibytes(limit)} MiB a process\n")
    print(table(head, lines))
    sizes = list(found)
    smallest, largest = found[sizes[0]], found[sizes[-1]]
    goals, result = {}, {}
    if len(sizes) > 1:
        logs = np.log(sizes)
        slopes = {
            what: float(np.polyfit(logs, np.log([one[f"{what}_seconds"] for one in found.values()]), 1)[0])
            for what in ("labels", "statistics")
        }
        slopes["whole"] = float(np.polyfit(logs, np.log([one["seconds"] for one in found.values()]), 1)[0])
        ratio = largest["labels_rows_per_second"] / smallest["labels_rows_per_second"]
        print("\ncost ~ rows^a:  " + ", ".join(f"a = {slope:.3f} ({what})" for what, slope in slopes.items()))
        print(f"rows/s of the labels pass, largest against smallest: {ratio:.3f}")
        result = {"slopes": slopes, "rows_per_second_ratio": ratio}
        goals["rows/s of the labels pass within 15 % of the smallest size"] = abs(ratio - 1) <= 0.15
    for kind in ("driver", "worker"):
        peaks = [one[f"{kind}_peak_bytes"] for one in found.values()]
        if not max(peaks):
            continue
        goals[f"peak of the {kind} below the limit"] = max(peaks) < limit
        if len(peaks) > 1:
            result[f"{kind}_peak_ratios"] = [peak / peaks[0] for peak in peaks]
            goals[f"peak of the {kind} within 10 % of the smallest size"] = all(
                abs(ratio - 1) <= 0.1 for ratio in result[f"{kind}_peak_ratios"]
            )
    conclude(
        "scale",
        {
            "dims": options.dims,
            "clusters": options.clusters,
            "iterations": options.iterations,
            "fit_rows": options.fit_rows,
            "workers": options.workers,
            "memory_limit": limit,
            **result,
            "sizes": {str(rows): one for rows, one in found.items()},
        },
        goals,
        options.json,
    )


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", default="1000000,10000000,100000000", metavar="N1,N2,..")
    made.add_argument("--dims", type=int, default=64)
    made.add_argument("--clusters", type=int, default=2000)
    made.add_argument("--iterations", type=int, default=3, help="Lloyd passes over the sample (default 3)")
    made.add_argument("--fit-rows", type=int, default=200_000)
    made.add_argument("--workers", type=int, default=available_threads(), help="Dask workers; 0: the serial executor")
    made.add_argument("--memory-limit", default="1GiB", help="of each process (default 1GiB)")
    made.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    return made.parse_args()


if __name__ == "__main__":
    main()
