"""What two published pools would take on 8, 64 and 512 GPUs: bytes moved, operations, hours of each level.

    python benchmarks/projection.py --json benchmarks/results/projection.json

Nothing of this size has been run here. The script adds up what the stages of `cluster` read, write and compute, as
`streamcurate plan` does, and divides by rates. Each rate says where it comes from:

measured   by this script on this machine; for a GPU's search for nearest centroids, by gpu_suite.py, if there is a
           benchmarks/results/gpu-*.json
published  by others, the source beside it
assumed    by us, because there is neither

Computing and storage overlap, so that a stage takes the longer of the two; what the driver does by itself is added.
Seeding, gathering of resampled rows and splits are counted; seeking, stragglers, failures and start-up are not. Every
fit is taken to use all its iterations, as the authors' does; with a tolerance ours stops earlier.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reporting import conclude, parser
from synthetic import Mixture
from threadpoolctl import threadpool_limits

from streamcurate import kernels
from streamcurate.config import Level, Resampling
from streamcurate.planning.hardware import GPUS_A_NODE, common_rates, gpu_rates
from streamcurate.planning.pricing import price_once
from streamcurate.planning.rates import Rate
from streamcurate.planning.stages import DeviceLayout, Problem, Stage, level_stages
from streamcurate.streaming.shuffle import SortedRecords

RESULTS = Path(__file__).parent / "results"
GPUS = (8, 64, 512)
# As the authors' configuration has it.
ITERATIONS = 50


@dataclass(frozen=True)
class Pool:
    """Rows of float16 and the levels over them. ``note``: which of it is published."""

    name: str
    rows: int
    dims: int
    levels: tuple[Level, ...]
    note: str


POOLS = (
    Pool(
        "743 M web images",
        743_000_000,
        1024,
        (
            Level(100_000, splits=100, iterations=ITERATIONS),
            Level(500_000, iterations=ITERATIONS, resampling=Resampling(9, 10)),
            Level(50_000, iterations=ITERATIONS, resampling=Resampling(9, 5)),
            Level(10_000, iterations=ITERATIONS, resampling=Resampling(9, 3)),
        ),
        "all published (arXiv:2405.15613 and its configuration file, whose ten steps count the first fit). The authors "
        "report 8 h on 128 A100 for level 1 and 15 h on 16 for level 2",
    ),
    Pool(
        "17 B web images",
        17_000_000_000,
        1024,
        (
            Level(2_000_000, splits=100, iterations=ITERATIONS),
            Level(8_000_000, iterations=ITERATIONS, resampling=Resampling(9, 12)),
            Level(800_000, iterations=ITERATIONS, resampling=Resampling(9, 5)),
            Level(100_000, iterations=ITERATIONS, resampling=Resampling(9, 4)),
            Level(25_000, iterations=ITERATIONS, resampling=Resampling(9, 2)),
        ),
        "rows and clusters published (DINOv3, arXiv:2508.10104); assumed after the pool above: 1024 dims, "
        "50 iterations, 100 splits at level 1, ten fits a level above it, half an average cluster kept",
    ),
    Pool(
        "17 B, level 1 as 100,000 × 2,000",
        17_000_000_000,
        1024,
        (Level(100_000, splits=2000, iterations=ITERATIONS),),
        "the same clusters at level 1 from fewer coarse ones: assumed, to show what that choice is worth",
    ),
)


def price(stage: Stage, gpus: int, rates: dict[str, Rate]) -> dict[str, float]:
    """Seconds of a stage, all its repetitions together, and what bounds it."""
    seconds, parts = price_once(stage, gpus, max(gpus // GPUS_A_NODE, 1), rates)
    storage = parts["reading"] + parts["writing"] + parts["sums"]
    found = {"seconds": seconds, "compute": parts["compute"], "storage": storage, "driver": parts["driver"]}
    found["sums_bytes"] = parts["sums"] * max(gpus // GPUS_A_NODE, 1) * rates["storage"].value
    return {name: value * stage.times for name, value in found.items()}


def project(pool: Pool, rates: dict[str, Rate]) -> list[dict[str, Any]]:
    """The levels of a pool, priced."""
    found = []
    layout = DeviceLayout(pool.dims, rates["memory"].value)
    problem = Problem(pool.rows, pool.rows, pool.dims, 2)
    for number, level in enumerate(pool.levels, start=1):
        costs = level_stages(problem, level, layout)
        one: dict[str, Any] = {
            "level": number,
            "points": problem.rows,
            "clusters": level.most_clusters,
            "read_bytes": sum(stage.read * stage.times for stage in costs),
            "written_bytes": sum(stage.written * stage.times for stage in costs),
            "flop": sum(stage.flop * stage.times for stage in costs),
            "gpus": {},
        }
        for gpus in GPUS:
            priced = [price(stage, gpus, rates) for stage in costs]
            total = {name: sum(each[name] for each in priced) for name in priced[0]}
            one["gpus"][gpus] = {
                "hours": total["seconds"] / 3600,
                "sums_bytes": total["sums_bytes"],
                "bottleneck": max(("compute", "storage", "driver"), key=lambda name: total[name]),
                "stage_hours": {_name(stage): 0.0 for stage in costs},
            }
            for stage, each in zip(costs, priced, strict=True):
                one["gpus"][gpus]["stage_hours"][_name(stage)] += each["seconds"] / 3600
        found.append(one)
        problem = problem.above(level)
    return found


def _name(stage: Stage) -> str:
    return f"{stage.name}, resampled" if stage.resampled else stage.name


def markdown(pools: list[tuple[Pool, list[dict[str, Any]]]], rates: dict[str, Rate]) -> str:
    """The table for the README: everything in it is projected."""
    per = " / ".join(str(gpus) for gpus in GPUS)
    lines = [
        f"| level | clusters | EFLOP | read, TB | written, TB | sums, TB, on {per} GPUs | hours on {per} GPUs "
        "| bound by |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for pool, levels in pools:
        lines.append(f"| **{pool.name}** × {pool.dims} | | | | | | | |")
        for one in levels:
            of = list(one["gpus"].values())
            lines.append(
                f"| {one['level']} | {one['clusters']:,} | {_short(one['flop'] / 1e18)} | "
                f"{_short(one['read_bytes'] / 1e12)} | {_short(one['written_bytes'] / 1e12)} | "
                f"{' / '.join(_short(each['sums_bytes'] / 1e12) for each in of)} | "
                f"{' / '.join(_short(each['hours']) for each in of)} | "
                f"{' / '.join(each['bottleneck'] for each in of)} |"
            )
        totals = [sum(one["gpus"][gpus]["hours"] for one in levels) for gpus in GPUS]
        if len(levels) > 1:
            lines.append(f"| all | | | | | | {' / '.join(_short(hours) for hours in totals)} | |")
    notes = [f"- {pool.name}: {pool.note}." for pool, _ in pools]
    notes += [f"- {rate.origin}: {name}, {rate.value:.3g} {rate.unit} ({rate.source})." for name, rate in rates.items()]
    return "\n".join(["All figures of the table are projected, from:", "", *notes, "", *lines])


def _short(value: float) -> str:
    """Two digits, or whole numbers."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


# -- rates -------------------------------------------------------------------------------------------------------------


def gather_rates() -> dict[str, Rate]:
    """Measured where there is a measurement, else published or assumed."""
    rates = gpu_rates("H100") | common_rates()
    rates["merge"] = Rate(_measure_merge(), "records/s", "measured", "one core of this machine, SortedRecords.blocks")
    return rates


def _measure_merge(records: int = 8_000_000) -> float:
    """Records a second that one process merges from sorted runs."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        sorting = SortedRecords(Path(folder) / "runs", 64 << 20)
        for start in range(0, records, 1 << 20):
            count = min(1 << 20, records - start)
            rows = np.arange(start, start + count)
            sorting.add(generator.integers(0, 1 << 44, count).astype(np.uint64), rows)
        began = time.perf_counter()
        merged = sum(len(block) for block in sorting.blocks())
        seconds = time.perf_counter() - began
        sorting.close()
    return merged / seconds


def measure_core(dims: int, clusters: int = 2000, seconds: float = 3.0) -> float:
    """FLOP/s of the search for nearest centroids on one core: 2 n k d over time."""
    rows = Mixture(dims).rows(0, 4096)
    prepared = kernels.prepare_centroids(Mixture(dims, seed=1).rows(0, clusters).astype(np.float32), "l2")
    with threadpool_limits(1, user_api="blas"):
        kernels.nearest(rows, prepared)
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            kernels.nearest(rows, prepared)
            calls += 1
        return 2.0 * calls * len(rows) * clusters * dims / (time.perf_counter() - began)


def check_against(core: float, path: Path) -> dict[str, float] | None:
    """The same arithmetic held against the labels pass of scale.json, where that has been run here."""
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    rows = max(int(size) for size in result["sizes"])
    cores = result["workers"] or result["machine"]["cores"]
    projected = 2.0 * rows * result["clusters"] * result["dims"] / (core * cores)
    return {"rows": rows, "projected": projected, "measured": result["sizes"][str(rows)]["labels_seconds"]}


def on_cores(pools: list[tuple[Pool, list[dict[str, Any]]]], rate: float, cores: int = 1024) -> str:
    """The arithmetic of each pool on CPU cores, at the rate measured on one of them."""
    hours = [
        f"{pool.name} {sum(level['flop'] for level in levels) / (rate * cores) / 3600:,.0f} h" for pool, levels in pools
    ]
    return (
        f"On CPU cores: {rate / 1e9:,.0f} GFLOP/s measured on one (2,000 centroids, 1024 dims); projected from that, "
        f"the arithmetic of all levels on {cores:,} such cores takes: {'; '.join(hours)}."
    )


def main() -> None:
    options = arguments()
    rates = gather_rates()
    pools = [(pool, project(pool, rates)) for pool in POOLS]
    print("<!-- projection: python benchmarks/projection.py -->")
    print(markdown(pools, rates))
    cores = {dims: measure_core(dims) for dims in (64, 1024)}
    print("\n" + on_cores(pools, cores[1024]))
    print("<!-- end of projection -->")
    print(
        "\nmeasured: nearest of 2,000 centroids on one core of this machine: "
        + ", ".join(f"{value / 1e9:,.0f} GFLOP/s at {dims} dims" for dims, value in cores.items())
    )
    check = check_against(cores[64], RESULTS / "scale.json")
    if check:
        print(
            f"labels pass of {check['rows']:,} rows: {check['projected']:,.0f} s by this arithmetic, "
            f"{check['measured']:,.0f} s measured (scale.json)"
        )
    conclude(
        "projection",
        {
            "rates": {name: asdict(rate) for name, rate in rates.items()},
            "core_flop_per_second": cores,
            "check": check,
            "pools": [{**asdict(pool), "projected": levels} for pool, levels in pools],
        },
        {},
        options.json,
    )


def arguments() -> argparse.Namespace:
    return parser(__doc__).parse_args()


if __name__ == "__main__":
    main()
