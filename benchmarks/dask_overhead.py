"""What Dask costs: the labels pass by worker processes against the serial executor on as many threads.

    python benchmarks/dask_overhead.py --json benchmarks/results/dask_overhead.json   # 16 M × 64 float16 (2 GB)
    python benchmarks/dask_overhead.py --rows 1000000 --rounds 1

Both run `streamcurate cluster` on one store in turn, so that whatever else the machine does falls on both alike; only
the labels pass counts, as the run's events time it. The ratio of each round is taken by itself, and the median of those
is the result. That both build the same tree is checked.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from process_memory import read_timeline, run_measured, warm_up, working_folder, write_levels
from reporting import conclude, parser, table
from synthetic import write_store

from streamcurate.streaming.budget import available_threads

LARGEST_RATIO = 1.10


def main() -> None:
    options = arguments()
    needed = options.rows * (2 * options.dims + 48) + (1 << 30)
    executors = {"serial": ["--threads", options.workers], "dask": ["--workers", options.workers]}
    rounds: list[dict[str, Any]] = []
    digests = set()
    with working_folder("dask-overhead", options.folder, needed) as folder:
        for line in executors.values():
            warm_up(folder, options.dims, options.clusters, line)
        store, config = folder / "rows.zarr", folder / "levels.yaml"
        print(f"{options.rows:,} × {options.dims} float16: writing", flush=True)
        write_store(store, options.rows, options.dims)
        write_levels(config, (options.clusters,), iterations=2, fit_rows=50 * options.clusters)
        for number in range(options.rounds):
            # Whoever comes second may find more of the store in the system's cache.
            order = list(executors) if number % 2 == 0 else list(reversed(executors))
            one: dict[str, Any] = {}
            for name in order:
                seconds, passes, digest = labels_pass(store, folder / name, config, executors[name], options)
                one[f"{name}_seconds"] = seconds
                if passes:
                    one[f"{name}_passes"] = passes
                digests.add(digest)
            one["ratio"] = one["dask_seconds"] / one["serial_seconds"]
            rounds.append(one)
    ratio = median(one["ratio"] for one in rounds)
    rates = {name: options.rows / median(one[f"{name}_seconds"] for one in rounds) for name in executors}
    lines = [
        [number + 1, f"{one['serial_seconds']:.2f}", f"{one['dask_seconds']:.2f}", f"{one['ratio']:.3f}"]
        for number, one in enumerate(rounds)
    ]
    print(f"\nlabels pass, {options.rows:,} × {options.dims} float16, {options.clusters} clusters\n")
    print(table(["round", f"serial, {options.workers} threads, s", f"{options.workers} workers, s", "ratio"], lines))
    print(f"\nmedian ratio {ratio:.3f}; rows/s: serial {rates['serial']:,.0f}, workers {rates['dask']:,.0f}")
    conclude(
        "dask_overhead",
        {
            "rows": options.rows,
            "dims": options.dims,
            "clusters": options.clusters,
            "workers": options.workers,
            "memory_limit": options.memory_limit,
            "rounds": rounds,
            "rows_per_second": rates,
            "ratio": ratio,
        },
        {
            f"workers take at most {LARGEST_RATIO:.2f} of the serial time": ratio <= LARGEST_RATIO,
            "both build the same tree": len(digests) == 1,
        },
        options.json,
    )


def labels_pass(
    store: Path, run: Path, config: Path, executor: list[object], options: argparse.Namespace
) -> tuple[float, list[dict[str, Any]], str]:
    """Seconds of the labels stage, its passes as the events tell of them, and the tree's digest."""
    line = ["cluster", store, run, "--config", config, "--memory-limit", options.memory_limit, "--quiet", *executor]
    measured = run_measured(line)
    timeline = read_timeline(run, measured.began)
    shutil.rmtree(run)
    return timeline.stages["labels 1"], timeline.passes_of("labels"), timeline.digest


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=16_000_000)
    made.add_argument("--dims", type=int, default=64)
    made.add_argument("--clusters", type=int, default=2000)
    made.add_argument("--workers", type=int, default=available_threads(), help="worker processes, and serial threads")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--memory-limit", default="1GiB", help="of each process (default 1GiB)")
    made.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    return made.parse_args()


if __name__ == "__main__":
    main()
