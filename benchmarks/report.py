"""Time and memory of `streamcurate report` on a large tree, and the size of its page.

    python benchmarks/report.py                       # 1,000,000 × 64 float16, levels 2000, 200, 20
    python benchmarks/report.py --rows 100000 --dims 256

Writes a store of synthetic rows (benchmarks/synthetic.py), builds a tree over it in a few passes, then runs the command
as a process of its own, compiled kernels being there, and takes its peak resident memory every 20 ms. Everything is
removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from memory import resident
from reporting import conclude, parser, table
from synthetic import write_store

import streamcurate as sc

SAMPLE_SECONDS = 0.02
MOST_SECONDS, MOST_BYTES, LARGEST_PAGE = 30.0, 500 * 10**6, 5 * 10**6


def measure(run: Path, out: Path, size: int | None) -> dict[str, Any]:
    """Run the command and watch it."""
    line = [sys.executable, "-m", "streamcurate.cli.main", "report", run, "--out", out, "--quiet", "--json"]
    if size is not None:
        line += ["--size", size]
    began = time.perf_counter()
    process = subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(process.pid)
    peak, processor = 0, 0.0
    while process.poll() is None:
        peak = max(peak, resident(watched))
        try:
            times = watched.cpu_times()
            processor = times.user + times.system
        except psutil.NoSuchProcess:
            break
        time.sleep(SAMPLE_SECONDS)
    said, _ = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"streamcurate report ended with {process.returncode}")
    figures = json.loads(said)
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "peak_bytes": peak,
        "page_bytes": figures["bytes"],
        "drawn": figures["drawn"],
        "coverage": figures["coverage"],
    }


def main() -> None:
    options = arguments()
    folder = Path(tempfile.mkdtemp(prefix="streamcurate-report-", dir=options.folder))
    try:
        print(f"{options.rows:,} × {options.dims} float16: writing and clustering", flush=True)
        write_store(folder / "emb.zarr", options.rows, options.dims)
        sample = min(options.rows, 50_000)
        first, *others = (int(clusters) for clusters in options.levels.split(","))
        levels = [sc.Level(first, iterations=3, fit_rows=sample, init="random"), *map(sc.Level, others)]
        sc.cluster(folder / "emb.zarr", folder / "run", levels=levels)
        found = measure(folder / "run", folder / "report.html", options.size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    coverage = found["coverage"]
    print(f"\nlevels [{options.levels}], {found['drawn']:,} rows drawn, coverage of {coverage['pool_rows']:,} rows\n")
    head = ["rows", "dims", "s", "processor s", "peak MB", "page MB"]
    line = [f"{options.rows:,}", options.dims, found["seconds"], found["processor_seconds"]]
    line += [f"{found['peak_bytes'] / 1e6:,.0f}", f"{found['page_bytes'] / 1e6:.2f}"]
    print(table(head, [line]))
    conclude(
        "report",
        {"rows": options.rows, "dims": options.dims, "levels": options.levels, **found},
        {
            f"at most {MOST_SECONDS:.0f} s": found["seconds"] <= MOST_SECONDS,
            f"at most {MOST_BYTES / 1e6:.0f} MB": found["peak_bytes"] <= MOST_BYTES,
            f"a page below {LARGEST_PAGE / 1e6:.0f} MB": found["page_bytes"] < LARGEST_PAGE,
        },
        options.json,
    )


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000)
    made.add_argument("--dims", type=int, default=64)
    made.add_argument("--levels", default="2000,200,20")
    made.add_argument("--size", type=int, help="rows to draw; the command's own default by default")
    made.add_argument(
        "--folder", type=Path, help="where the store is written; the system's temporary folder by default"
    )
    return made.parse_args()


if __name__ == "__main__":
    main()
