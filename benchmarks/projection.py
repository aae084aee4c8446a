"""What two published pools would take on 8, 64 and 512 GPUs: bytes moved, operations, hours of each level.

    python benchmarks/projection.py --json benchmarks/results/projection.json

Nothing of this size has been run here. The script adds up what the stages of `cluster` read, write and compute, and
divides by rates. Each rate says where it comes from:

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
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reporting import conclude, parser
from synthetic import Mixture
from threadpoolctl import threadpool_limits

from streamcurate import kernels
from streamcurate.clustering import oversampling, plus_plus
from streamcurate.clustering.seeding import choose_method
from streamcurate.streaming.ranges import Ranges
from streamcurate.streaming.shuffle import SortedRecords
from streamcurate.tree.level import aligned_chunk_rows

RESULTS = Path(__file__).parent / "results"
GPUS = (8, 64, 512)
GPUS_A_NODE = 8
# A task is so many blocks; where it writes labels, so many of their chunks.
_BLOCK_ROWS, _BLOCK_BYTES = 1 << 16, 16 << 20
# Of a GPU's memory, for centroids as given and as laid out for the search, float32 each, and sums of two int64 limbs.
_DEVICE_BYTES = 64e9
_SEARCH_BYTES, _FIT_BYTES = 8, 24
_WRITE_LABELS = ("labels", "split labels", "members")


@dataclass(frozen=True)
class Rate:
    """A number and where it comes from."""

    value: float
    unit: str
    origin: str
    source: str


@dataclass(frozen=True)
class LevelPlan:
    """One level: clusters, leaves of each where there are splits, resampling steps after the first fit, points kept."""

    clusters: int
    splits: int = 1
    steps: int = 0
    keep: int = 0


@dataclass(frozen=True)
class Pool:
    """Rows of float16 and the levels over them. ``note``: which of it is published."""

    name: str
    rows: int
    dims: int
    iterations: int
    levels: tuple[LevelPlan, ...]
    note: str


POOLS = (
    Pool(
        "743 M web images",
        743_000_000,
        1024,
        50,
        (
            LevelPlan(100_000, splits=100),
            LevelPlan(500_000, steps=9, keep=10),
            LevelPlan(50_000, steps=9, keep=5),
            LevelPlan(10_000, steps=9, keep=3),
        ),
        "all published (arXiv:2405.15613 and its configuration file, whose ten steps count the first fit). The authors "
        "report 8 h on 128 A100 for level 1 and 15 h on 16 for level 2",
    ),
    Pool(
        "17 B web images",
        17_000_000_000,
        1024,
        50,
        (
            LevelPlan(2_000_000, splits=100),
            LevelPlan(8_000_000, steps=9, keep=12),
            LevelPlan(800_000, steps=9, keep=5),
            LevelPlan(100_000, steps=9, keep=4),
            LevelPlan(25_000, steps=9, keep=2),
        ),
        "rows and clusters published (DINOv3, arXiv:2508.10104); assumed after the pool above: 1024 dims, "
        "50 iterations, 100 splits at level 1, ten fits a level above it, half an average cluster kept",
    ),
    Pool(
        "17 B, level 1 as 100,000 × 2,000",
        17_000_000_000,
        1024,
        50,
        (LevelPlan(100_000, splits=2000),),
        "the same clusters at level 1 from fewer coarse ones: assumed, to show what that choice is worth",
    ),
)


@dataclass(frozen=True)
class Stage:
    """What one kind of pass costs, `times` over.

    `sums_bytes`: of one task's partial sums over all clusters, which go through files; a task with fewer points than
    `sums_clusters` touches, and writes, that many fewer. `driver_records`: what the driver merges alone.
    """

    name: str
    rows: int
    row_bytes: int
    flop: float
    read: float
    written: float
    times: int = 1
    sums_bytes: int = 0
    sums_clusters: int = 1
    driver_records: int = 0


def stages(pool: Pool, level: LevelPlan, points: int, value_bytes: int) -> Iterator[Stage]:
    """The stages of a level over so many points."""
    dims, clusters = pool.dims, level.clusters
    row_bytes = dims * value_bytes
    yield Stage("statistics", points, row_bytes, 8.0 * points * dims, points * row_bytes, 0)
    yield from _fit(pool, points, clusters, value_bytes)
    search = 2.0 * points * clusters * dims
    tiles = math.ceil(clusters * dims * _SEARCH_BYTES / _DEVICE_BYTES)
    if level.steps:
        kept = min(clusters * level.keep, points)
        yield Stage("resampling", points, row_bytes, search, tiles * points * row_bytes, 0, level.steps)
        yield Stage("gather", kept, row_bytes, 0, kept * row_bytes, kept * row_bytes, level.steps)
        for stage in _fit(pool, kept, clusters, value_bytes):
            yield Stage(**(asdict(stage) | {"times": stage.times * level.steps}))
    # Tiles read the points again, and the label and value that the tiles before found.
    beside = 24 * points * (tiles - 1)
    yield Stage("labels", points, row_bytes, search, tiles * points * row_bytes + beside, 8 * points + beside)
    if level.splits > 1:
        moved = points * (row_bytes + 16)
        yield Stage("regroup", points, row_bytes, 0, points * row_bytes, moved)
        tries = _trials(points // clusters, level.splits, dims)
        flop = 2.0 * points * level.splits * dims * (pool.iterations + 1 + tries)
        yield Stage("split fits", points, row_bytes, flop, moved, 16 * points)
        yield Stage("split labels", points, 0, 0, 32 * points, 24 * points, driver_records=points)
    yield Stage("members", points, 0, 0, 24 * points, 24 * points, driver_records=points)


def _fit(pool: Pool, points: int, clusters: int, value_bytes: int) -> Iterator[Stage]:
    """Seeding and Lloyd passes over so many points."""
    dims, row_bytes = pool.dims, pool.dims * value_bytes
    method = choose_method(points, clusters, dims)
    if method == "k-means++":
        flop = 2.0 * points * clusters * dims * plus_plus.trials(clusters)
        yield Stage("seeding", points, row_bytes, flop, points * row_bytes, 0)
    elif method == "k-means||":
        candidates = oversampling.most_candidates(clusters)
        flop = 2.0 * candidates * dims * (points + clusters * plus_plus.trials(clusters))
        yield Stage("seeding", points, row_bytes, flop, 6 * points * row_bytes, 0)
    tiles = math.ceil(clusters * dims * _FIT_BYTES / _DEVICE_BYTES)
    own = -(-clusters // tiles)
    sums_bytes = 8 * own * (dims * (1 if value_bytes == 2 else 2) + 1)
    search = 2.0 * points * clusters * dims
    if tiles == 1:
        yield Stage("fit", points, row_bytes, search, points * row_bytes, 0, pool.iterations, sums_bytes, own)
        return
    # Labels tile by tile, beside the label and value that the tiles before found; then sums tile by tile.
    read, times = points * (row_bytes + 12.0), tiles * pool.iterations
    yield Stage("fit", points, row_bytes, search / tiles, read, 12.0 * points, times)
    yield Stage("sums", points, row_bytes, 2.0 * points * dims, read, 0, times, sums_bytes, own * tiles)


def _trials(rows: int, clusters: int, dims: int) -> int:
    return plus_plus.trials(clusters) if choose_method(rows, clusters, dims) == "k-means++" else 10


def price(stage: Stage, gpus: int, rates: dict[str, Rate]) -> dict[str, float]:
    """Seconds of a stage, all its repetitions together, and what bounds it."""
    nodes = max(gpus // GPUS_A_NODE, 1)
    tasks = _tasks(stage, gpus, rates)
    # A source of few blocks does not occupy all.
    compute = stage.flop / (min(gpus, tasks) * rates["nearest"].value)
    # Every task's sums are written by the worker that made them and read by the one that adds them.
    touched = min(stage.rows / tasks / stage.sums_clusters, 1.0)
    sums = 2.0 * tasks * stage.sums_bytes * touched
    storage = (stage.read + stage.written + sums) / (nodes * rates["storage"].value)
    driver = stage.driver_records / rates["merge"].value + tasks * rates["task"].value
    seconds = max(compute, storage) + driver
    found = {"seconds": seconds, "compute": compute, "storage": storage, "driver": driver, "sums_bytes": sums}
    return {name: value * stage.times for name, value in found.items()}


def _tasks(stage: Stage, gpus: int, rates: dict[str, Rate]) -> int:
    """Tasks of one pass, as the engine cuts them."""
    block = min(_BLOCK_ROWS, _BLOCK_BYTES // (2 * stage.row_bytes + 1))
    operations = int(stage.flop / stage.rows)
    granule = aligned_chunk_rows(stage.rows, operations) if stage.name in _WRITE_LABELS else block
    ranges = Ranges(stage.rows, granule, stage.row_bytes, operations, stage.sums_bytes)
    share = rates["storage"].value * max(gpus // GPUS_A_NODE, 1) / gpus
    row_seconds = max(stage.flop / stage.rows / rates["nearest"].value, stage.read / stage.rows / share)
    count = 0
    while (piece := ranges.next(gpus)) is not None:
        ranges.took(piece[1] - piece[0], (piece[1] - piece[0]) * row_seconds)
        count += 1
    return count


def project(pool: Pool, rates: dict[str, Rate]) -> list[dict[str, Any]]:
    """The levels of a pool, priced."""
    found = []
    points, value_bytes = pool.rows, 2
    for number, level in enumerate(pool.levels, start=1):
        costs = list(stages(pool, level, points, value_bytes))
        one: dict[str, Any] = {
            "level": number,
            "points": points,
            "clusters": level.clusters * level.splits,
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
                "stage_hours": {s.name: 0.0 for s in costs},
            }
            for stage, each in zip(costs, priced, strict=True):
                one["gpus"][gpus]["stage_hours"][stage.name] += each["seconds"] / 3600
        found.append(one)
        points, value_bytes = level.clusters * level.splits, 4
    return found


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
    return {
        "nearest": _nearest_rate(),
        "storage": Rate(
            25e9,
            "bytes/s a node of 8 GPUs",
            "assumed",
            "storage that all nodes see, for the store, scratch and sums alike",
        ),
        "memory": Rate(
            _DEVICE_BYTES, "bytes a GPU", "assumed", "four fifths of 80 GB; more centroids are held in tiles"
        ),
        "merge": Rate(_measure_merge(), "records/s", "measured", "one core of this machine, SortedRecords.blocks"),
        "task": Rate(1e-3, "s a task", "published", "Dask's documentation: up to 1 ms a task"),
    }


def _nearest_rate() -> Rate:
    for path in sorted(RESULTS.glob("gpu-*.json")):
        content = json.loads(path.read_text())
        if shapes := content.get("shapes"):
            # The shape nearest to the pools', the way of the rows to the device included.
            shape = max(shapes, key=lambda one: (one["dims"], one["clusters"]))
            source = f"{content['machine']['device']}, {shape['dims']} d, k = {shape['clusters']:,}, {path.name}"
            return Rate(shape["tflops"]["nearest, rows on the host"] * 1e12, "FLOP/s a GPU", "measured", source)
    return Rate(
        0.5 * 67e12,
        "FLOP/s a GPU",
        "assumed",
        "half of the 67 TFLOP/s that NVIDIA publishes for float32 on an H100 SXM, which is what this version's matrix "
        "product uses; no GPU was measured",
    )


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
