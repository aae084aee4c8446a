"""Speed of reading: passes over a store beside plain reads of the same files, and a fit from disk beside one in memory.

    python benchmarks/reading.py                              # 500,000 × 768 float16 (0.8 GB), 4,000 clusters
    python benchmarks/reading.py --rows 2000000 --folder /scratch --json reading.json

Plain reading is `readinto` of one chunk file after the other into one buffer. A pass that looks at one value of each
block shows what the executor costs, the statistics pass is the one every run begins with, and a pass of Lloyd's
algorithm is what a run does most. Warm: the files are in the page cache; cold: the kernel was asked to drop them before
each run (posix_fadvise; what a disk or hypervisor keeps for itself stays). All are run in turn, `--rounds` times; the
ratios given are medians of each round's ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reporting import conclude, parser, table
from synthetic import write_store

from streamcurate import kernels
from streamcurate.clustering.passes import AssignPass, StatisticsPass
from streamcurate.kernels.cpu.rows import float32_rows
from streamcurate.kernels.exact_total import ExactTotal
from streamcurate.storage import open_array
from streamcurate.streaming import Block, Cost, MemoryBudget, MemoryRows, Points, RowSource, SerialExecutor, StoredRows

LIMIT = 1 << 30
READING_GOAL, FIT_GOAL = 0.85, 0.9


@dataclass(frozen=True)
class LookPass:
    """Looks at the first value of each block."""

    name: str = "looking"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost()

    def prepare(self, state: Any, backend: Any) -> None:
        return None

    def chunk(self, block: Block, columns: Any, ready: None) -> tuple[int, tuple[()]]:
        return int(np.isfinite(block.values[0, 0])), ()

    def combine(self, total: int, part: int) -> int:
        return total + part

    def finalize(self, total: int | None) -> int:
        return total or 0


def options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=500_000)
    made.add_argument("--dims", type=int, default=768)
    made.add_argument("--fit-rows", type=int, default=50_000, help="rows of the fit, from disk and in memory")
    made.add_argument("--clusters", type=int, default=4_000)
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--folder", type=Path, help="where the store is written, and removed afterwards")
    made.add_argument("--peak", metavar="STORE", help=argparse.SUPPRESS)
    return made.parse_args()


def files_of(array: Path) -> list[Path]:
    return sorted(
        (path for path in array.rglob("*") if path.parent.parent.name == "c"), key=lambda path: int(path.parent.name)
    )


def drop(files: list[Path]) -> None:
    """Have the page cache forget them."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(
    ways: dict[str, Callable[[], object]], before: Callable[[], object], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every way, taken in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            before()
            found[name].append(seconds(work))
    return found


def rates(found: dict[str, list[float]], size: int) -> dict[str, dict[str, float]]:
    """GB/s of each way, and the ratio to the first one in the same round."""
    plain = next(iter(found.values()))
    return {
        name: {
            "gb_per_second": round(size / statistics.median(taken) / 1e9, 2),
            "of_plain": round(statistics.median(one / other for one, other in zip(plain, taken, strict=True)), 3),
        }
        for name, taken in found.items()
    }


def widening(dims: int) -> dict[str, float]:
    """Nanoseconds a value from float16 to float32, within the cache and beyond it, beside a copy of as many bytes."""
    found = {}
    for place, rows in (("in_cache", 128), ("in_memory", 1 << 15)):
        halves = np.random.default_rng(0).standard_normal((rows, dims), dtype=np.float32).astype(np.float16)
        # Six bytes a value go through a core either way: two in and four out, or three in and three out.
        source = np.zeros(halves.size * 3, dtype=np.uint8)
        target = np.empty_like(source)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda halves=halves: float32_rows(halves),
            "numpy": lambda halves=halves: halves.astype(np.float32),
            "copy": lambda source=source, target=target: np.copyto(target, source),
        }
        for name, work in ways.items():
            times = []
            for _ in range(20):
                began = time.thread_time()
                work()
                times.append((time.thread_time() - began) / halves.size * 1e9)
            found[f"{name}_{place}"] = round(statistics.median(times), 3)
    return found


def fits(source: StoredRows, count: int, clusters: int, rounds: int, files: list[Path]) -> dict[str, Any]:
    """Seconds of one pass of Lloyd's algorithm over the first rows: in memory, from the page cache, from disk."""
    values = source.read(0, count)
    learned = kernels.statistics(values)
    total = ExactTotal.scale(learned.squared_distance_bound("l2"), count)
    work = AssignPass("l2", learned.fixed_point("l2"), total, clusters)
    chosen = np.sort(np.random.default_rng(1).choice(count, clusters, replace=False))
    state = {"centroids": values[chosen].astype(np.float32)}
    taken: dict[str, list[float]] = {"memory": [], "warm": [], "cold": []}
    with SerialExecutor(MemoryBudget.of(LIMIT)) as executor:

        def one(rows: RowSource) -> float:
            plan = executor.plan(work, Points.all_of(rows))
            ready = work.prepare(state, executor.backend)
            return seconds(lambda: executor.part(work, Points.all_of(rows), ready, plan, (0, count)))

        one(MemoryRows(values))
        for _ in range(rounds):
            taken["memory"].append(one(MemoryRows(values)))
            taken["warm"].append(one(source))
            drop(files)
            taken["cold"].append(one(source))
    result: dict[str, Any] = {"rows": count, "clusters": clusters}
    for name, times in taken.items():
        speed = statistics.median(one / other for one, other in zip(taken["memory"], times, strict=True))
        result[name] = {"seconds": round(statistics.median(times), 3), "of_memory": round(speed, 3)}
    return result


def peak(store: str) -> None:
    """In a process of its own: the passes that read, under the smallest limit."""
    from streamcurate.streaming.budget import SMALLEST_LIMIT

    with SerialExecutor(MemoryBudget.of(SMALLEST_LIMIT)) as executor:
        points = Points.all_of(StoredRows(open_array(store)))
        executor.run(LookPass(), points, {})
        executor.run(StatisticsPass("cosine"), points, {})
    # Not getrusage: its peak is inherited from the process that started this one.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024, SMALLEST_LIMIT)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    path = folder / "store.zarr"
    write_store(path, arguments.rows, arguments.dims)
    source = StoredRows(open_array(path / "embeddings"))
    files = files_of(Path(source.array.path))
    size = sum(file.stat().st_size for file in files)
    buffer = bytearray(max(file.stat().st_size for file in files))

    def plainly() -> None:
        for file in files:
            with open(file, "rb", buffering=0) as opened:
                view = memoryview(buffer)
                while view and (count := opened.readinto(view)):
                    view = view[count:]

    points = Points.all_of(source)
    result: dict[str, Any] = {"rows": arguments.rows, "dims": arguments.dims, "bytes": size}
    with SerialExecutor(MemoryBudget.of(LIMIT)) as executor:
        ways: dict[str, Callable[[], object]] = {
            "plain readinto": plainly,
            "looking pass": lambda: executor.run(LookPass(), points, {}),
            "statistics pass": lambda: executor.run(StatisticsPass("l2"), points, {}),
        }
        for work in ways.values():  # compiled, and the files in the cache
            work()
        result["warm"] = rates(interleaved(ways, lambda: None, arguments.rounds), size)
        result["cold"] = rates(interleaved(ways, lambda: drop(files), arguments.rounds), size)
    head = ["", *(f"{kind} {what}" for kind in ("warm", "cold") for what in ("GB/s", "of plain"))]
    print(
        table(
            head,
            [[name, *(value for kind in ("warm", "cold") for value in result[kind][name].values())] for name in ways],
        )
    )
    result["widening_ns"] = widening(arguments.dims)
    print(f"\nfloat16 to float32, ns a value: {result['widening_ns']}")
    count = min(arguments.fit_rows, arguments.rows)
    result["fit"] = fits(source, count, min(arguments.clusters, count), arguments.rounds, files)
    print(f"Lloyd pass: {result['fit']}")
    child = [sys.executable, __file__, "--peak", source.array.path]
    most, limit = map(int, subprocess.run(child, check=True, capture_output=True, text=True).stdout.split())
    result["peak_bytes"], result["limit_bytes"] = most, limit
    print(f"peak memory of the passes under a limit of {limit >> 20} MiB: {most >> 20} MiB")
    goals = {
        f"{name}, {kind}: at least {READING_GOAL} of plain readinto": result[kind][name]["of_plain"] >= READING_GOAL
        for name, kind in (("looking pass", "warm"), ("looking pass", "cold"), ("statistics pass", "cold"))
    }
    for kind in ("warm", "cold"):
        goals[f"Lloyd pass, {kind}: at least {FIT_GOAL} of its speed in memory"] = (
            result["fit"][kind]["of_memory"] >= FIT_GOAL
        )
    goals["peak memory below the limit"] = most < limit
    conclude("reading", result, goals, arguments.json)


def main() -> None:
    arguments = options()
    if arguments.peak:
        peak(arguments.peak)
        return
    folder = Path(tempfile.mkdtemp(prefix="reading-", dir=arguments.folder))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        measure(arguments, folder)


if __name__ == "__main__":
    main()
