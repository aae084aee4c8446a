"""The GPU backend on this machine's device: its tests, its results against brute force, and its speed.

    python benchmarks/gpu_suite.py                  # all; writes benchmarks/results/gpu-<device>.json
    python benchmarks/gpu_suite.py --no-tests --dims 384 --clusters 4096

Needs CuPy, NumPy and numba, and nothing else of the package's dependencies; pytest, pytest-timeout and hypothesis for
the tests; PyTorch and flash-kmeans for the rates beside ours, on the same rows in the same run (gpu_peers.py). Rates
are effective: 2 n k d / time for all of them. The yardstick is an 8192^3 float16 product by cuBLAS in the same run.
What a missing package leaves out is said, not filled in. Exit status 1 where a result is wrong, 2 where there is no
device; a goal of speed that is missed is told, and no failure.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import gpu_peers
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
# The machine with the device may have the checkout and no installation.
sys.path.insert(0, str(ROOT))

from streamcurate import __version__, kernels  # noqa: E402
from streamcurate.errors import InputError  # noqa: E402
from streamcurate.kernels.gpu.backend import GpuBackend, gpu_backend  # noqa: E402

REPEATS = 3
CENTRES = 4096
# (rows, dims, clusters, metric, offset) whose results are compared
CHECKED = (
    (20_000, 64, 2000, "l2", 0.0),
    (20_000, 384, 4000, "cosine", 0.0),
    (20_000, 384, 1000, "l2", 50.0),
    (20_000, 1024, 1500, "l2", 0.0),
)
CHECKED_ROWS = 48  # against all centroids, by brute force
TILE = 2**15  # rows made at a time
STREAM_BLOCK = 2**14  # rows of a block that comes from the host
STREAM_THREADS = 4
RATED = ("nearest", "torch", "flash-kmeans")
TESTS_SECONDS = 170
LAST_START_SECONDS = 380  # no timing begins later: the suite ends within eight minutes


def make_rows(rows: int, dims: int, clusters: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Unit-length float16 rows around centres of unlike weight, the same for any number of either, and centroids."""
    centres = np.random.default_rng(dims).standard_normal((CENTRES, dims), dtype=np.float32)

    def draw(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
        made = np.empty((count, dims), dtype=np.float32)
        for start in range(0, count, TILE):
            part = made[start : start + TILE]
            own = (len(centres) * generator.random(len(part)) ** 2).astype(np.int64)
            part[:] = centres[own] + 0.7 * generator.standard_normal(part.shape, dtype=np.float32)
            part /= np.sqrt((part * part).sum(axis=1, keepdims=True))
        return made

    drawn = draw(rows, np.random.default_rng([dims, 1])).astype(np.float16)
    return drawn, draw(clusters, np.random.default_rng([dims, 2]))


def brute_force(rows: NDArray[Any], centroids: NDArray[np.float32], metric: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The formula for all pairs: NumPy's float64 operations, one coordinate after the other."""
    x, c = rows.astype(np.float64), centroids.astype(np.float64)
    if metric == "cosine":
        squared = np.zeros(len(x))
        for j in range(x.shape[1]):
            squared += x[:, j] * x[:, j]
        x = x / np.sqrt(squared)[:, None]
    values = np.zeros((len(x), len(c)))
    for j in range(x.shape[1]):
        difference = x[:, j, None] - c[:, j]
        values += difference * difference
    return values.argmin(axis=1), values.min(axis=1)


def run_tests() -> dict[str, Any]:
    """The tests that need a device, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, "tests/kernels/gpu"], cwd=ROOT, capture_output=True, text=True, timeout=TESTS_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"passed": False, "summary": f"not finished within {TESTS_SECONDS} s"}
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
    if done.returncode != 0:
        print("\n".join(lines[-60:]))
    return {"passed": done.returncode == 0 and " passed" in lines[-1], "summary": lines[-1]}


def by_route(backend: GpuBackend, route: str) -> GpuBackend:
    """The same device, its searches by one route."""
    return GpuBackend(backend._device, routes=(route,))


def check_results(backend: GpuBackend) -> list[dict[str, Any]]:
    """Labels and values against brute force, and everything else against the CPU's functions."""
    cpu = kernels.get_backend("cpu")
    results = []
    for count, dims, clusters, metric, offset in CHECKED:
        rows, centroids = make_rows(count, dims, clusters)
        rows, centroids = (rows + np.float16(offset)).astype(np.float16), centroids + np.float32(offset)
        centroids[clusters // 2 :: 7] = centroids[3]  # ties
        uploaded = backend.upload(rows)
        labels, values = backend.nearest(uploaded, backend.prepare_centroids(centroids, metric))
        brute = brute_force(rows[:CHECKED_ROWS], centroids, metric)
        expected = cpu.nearest(rows, cpu.prepare_centroids(centroids, metric))
        seen, wanted = backend.statistics(uploaded, metric), cpu.statistics(rows, metric)
        fixed = wanted.fixed_point(metric)
        sums, other = (b.cluster_sums(rows, labels, metric, fixed, clusters) for b in (backend, cpu))
        quantiser = kernels.Quantiser.for_statistics(wanted, metric)
        small, its = backend.quantise(rows, quantiser, metric), cpu.quantise(rows, quantiser, metric)
        same = {
            "brute force": np.array_equal(labels[:CHECKED_ROWS], brute[0])
            and np.array_equal(values[:CHECKED_ROWS], brute[1]),
            **{
                f"{route}, {dtype}": all(
                    np.array_equal(one, other)
                    for one, other in zip(
                        own.nearest(rows.astype(dtype), own.prepare_centroids(centroids, metric)), expected, strict=True
                    )
                )
                for route in backend.choice.routes
                for own in (by_route(backend, route),)
                for dtype in ("float16", "float32")
            },
            "labels": np.array_equal(labels, expected[0]),
            "values": np.array_equal(values, expected[1]),
            "sums": np.array_equal(sums.limbs, other.limbs) and np.array_equal(sums.ids, other.ids),
            "statistics": all(np.array_equal(getattr(seen, name), getattr(wanted, name)) for name in vars(wanted)),
            "integers": np.array_equal(small, its),
            "integer distances": np.array_equal(
                backend.quantised_distances(small, small[:100]), cpu.quantised_distances(its, its[:100])
            ),
        }
        results.append({"dims": dims, "clusters": clusters, "metric": metric, "offset": offset, **same})
        wrong = [what for what, equal in same.items() if not equal]
        print(f"d {dims:5}  k {clusters:6}  {metric:6}  {'same bits' if not wrong else 'WRONG: ' + ', '.join(wrong)}")
    return results


def seconds_of(call: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Median time of a call, once it is warm; ``wait`` ends when the device is idle."""
    call()
    wait()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def candidates_a_row(backend: GpuBackend, rows: Any, prepared: Any) -> float:
    """How many centroids a row is compared with by the formula after screening."""
    device, seen = backend._device, [0, 0]
    launch = device.launch

    def counting(kernel: str, count: int, *arguments: Any) -> None:
        if kernel.startswith("settle"):
            # Places of these arguments: cuda/settle.cu.
            lower, length, upper = (device.download(arguments[place]) for place in (7, 8, 9))
            highest = np.where(upper < 0, upper ^ 0x7FFFFFFFFFFFFFFF, upper).view(np.float64)
            taken = np.arange(len(lower))[:, None] < length
            seen[0] += int((taken & (lower <= highest)).sum())
            seen[1] += len(length)
        launch(kernel, count, *arguments)

    device.launch = counting
    try:
        backend.nearest(rows, prepared)
    finally:
        del device.launch
    return seen[0] / max(1, seen[1])


def stream(backend: GpuBackend, rows: NDArray[Any], prepared: Any) -> None:
    """Label rows that lie on the host, block by block, as an executor's threads do."""

    def label(start: int) -> None:
        backend.nearest(backend.upload(rows[start : start + STREAM_BLOCK]), prepared)

    with ThreadPoolExecutor(STREAM_THREADS) as pool:
        list(pool.map(label, range(0, len(rows), STREAM_BLOCK)))


def time_shape(
    backend: GpuBackend, rows: NDArray[Any], clusters: int, wait: Callable[[], Any], with_peers: bool
) -> dict[str, Any]:
    """One shape: our calls and the peers'."""
    count, dims = rows.shape
    _, centroids = make_rows(1, dims, clusters)
    uploaded = backend.upload(rows)
    prepared = backend.prepare_centroids(centroids, "l2")
    labels, _ = backend.nearest(uploaded, prepared)
    fixed = kernels.FixedPoint.for_data(-24, 1, count)
    times, candidates = {}, {}
    for route in backend.choice.routes:
        own = by_route(backend, route)
        times[f"nearest {route}"] = seconds_of(lambda own=own: own.nearest(uploaded, prepared), wait)
        candidates[route] = candidates_a_row(own, uploaded, prepared)
    times["nearest"] = seconds_of(lambda: backend.nearest(uploaded, prepared), wait)
    times["nearest from the host"] = seconds_of(lambda: stream(backend, rows, prepared), wait)
    times["prepare centroids and first block"] = seconds_of(
        lambda: backend.nearest(uploaded[:STREAM_BLOCK], backend.prepare_centroids(centroids, "l2")), wait
    )
    times["cluster sums"] = seconds_of(lambda: backend.cluster_sums(uploaded, labels, "l2", fixed, clusters), wait)
    failed = {}
    if with_peers:
        for make in (gpu_peers.torch_calls, gpu_peers.flash_calls):
            try:
                for name, call in make(rows, centroids).items():
                    times[name] = seconds_of(call, wait)
            except Exception as error:  # a peer that fails is told of, and no reason to lose the rest
                failed[make.__name__] = f"{type(error).__name__}: {error}"[:300]
            gpu_peers.release()
    work = 2.0 * count * clusters * dims
    return {
        "rows": count,
        "dims": dims,
        "clusters": clusters,
        "seconds": times,
        "tflops": {name: work / spent / 1e12 for name, spent in times.items() if name.split()[0] in RATED},
        "candidates_a_row": candidates,
        "chosen": backend.choice.settled(("float16", dims, "l2", clusters.bit_length())),
        "failed": failed,
    }


def described(backend: GpuBackend) -> dict[str, Any]:
    """The device and the software."""
    import cupy

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    names = ("cupy-cuda12x", "cupy-cuda13x", "numpy", "numba", "torch", "nvidia-cublas")
    return {
        "device": backend.device_name,
        "device_gib": round((backend.device_bytes or 0) / 2**30, 1),
        "capability": cupy.cuda.Device(0).compute_capability,
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "python": platform.python_version(),
        "libraries": {name: found for name in names if (found := version(name))},
        "streamcurate": __version__,
    }


def numbers(text: str) -> list[int]:
    """A list of integers with commas."""
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Run what is asked for; the exit status."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the result")
    parser.add_argument("--rows", type=int, default=2**17)
    parser.add_argument("--dims", type=numbers, default=[1024, 768, 384, 128])
    parser.add_argument("--clusters", type=numbers, default=[16384, 4096, 32768])
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    asked = parser.parse_args()
    began = time.perf_counter()
    try:
        backend = gpu_backend()
    except InputError as error:
        print(f"gpu_suite: {error}", file=sys.stderr)
        return 2
    import cupy

    wait = cupy.cuda.runtime.deviceSynchronize
    machine = described(backend)
    print(f"{machine['device']}, {machine['device_gib']} GiB, {machine['libraries']}\n")
    tests: dict[str, Any] = {"passed": None, "summary": "not run"}
    if not asked.no_tests:
        try:
            metadata.version("pytest")
        except metadata.PackageNotFoundError:
            tests["summary"] = "not run: no pytest"
        else:
            tests = run_tests()
    print(f"tests: {tests['summary']}\n")
    checks = check_results(backend)
    yardstick = gpu_peers.cublas_rate(lambda call: seconds_of(call, wait))
    gpu_peers.release()
    print(f"\ncuBLAS float16, 8192^3: {'no PyTorch' if yardstick is None else f'{yardstick:.0f} TFLOP/s'}")
    shapes: list[dict[str, Any]] = []
    left_out: list[str] = []
    for dims in asked.dims:
        rows, _ = make_rows(asked.rows, dims, 1)
        for clusters in asked.clusters:
            if time.perf_counter() - began > LAST_START_SECONDS:
                left_out.append(f"d {dims}, k {clusters}")
                continue
            shapes.append(time_shape(backend, rows, clusters, wait, not asked.no_peers))
    right = {
        "tests on the device": tests["passed"],
        "same bits as brute force and as the CPU": all(all(c[n] for n in c if type(c[n]) is bool) for c in checks),
        "every route passes its trial": backend.choice.routes == backend._device.routes,
    }
    goals = {**right, **speed_goals(shapes, yardstick)}
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine["device"]).lower()).strip("-")
    path = asked.json or ROOT / "benchmarks" / "results" / f"gpu-{slug}.json"
    content = {
        "benchmark": "gpu_suite",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine,
        "tests": tests,
        "checks": checks,
        "cublas_float16_tflops": yardstick,
        "routes": list(backend.choice.routes),
        "shapes": shapes,
        "left_out": left_out,
        "goals": goals,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, default=lambda value: value.item()) + "\n")
    show(shapes, left_out, yardstick)
    for goal, met in goals.items():
        print(f"{ {True: 'met   ', False: 'MISSED', None: 'not run'}[met] }  {goal}")
    print(f"{time.perf_counter() - began:.0f} s; {path}")
    return 1 if False in right.values() else 0


def speed_goals(shapes: list[dict[str, Any]], yardstick: float | None) -> dict[str, bool | None]:
    """What was aimed at, over the shapes it was aimed at; None where nothing was measured."""

    def over(some: list[dict[str, Any]], ratio: Callable[[dict[str, Any]], float | None], least: float) -> bool | None:
        found = [value for value in map(ratio, some) if value is not None]
        return min(found) >= least if found else None

    def beside(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda shape: shape["seconds"][name] / shape["seconds"]["nearest"] if name in shape["seconds"] else None

    large = [shape for shape in shapes if shape["dims"] >= 768 and shape["clusters"] >= 16000]
    compute_bound = [shape for shape in shapes if shape["clusters"] >= 32000]
    return {
        "0.6 of cuBLAS float16 for d >= 768, k >= 16k": over(
            large, lambda shape: shape["tflops"]["nearest"] / yardstick if yardstick else None, 0.6
        ),
        "3 times torch float32 product and argmin": over(shapes, beside("torch product and argmin float32"), 3.0),
        "2 times flash-kmeans": over(shapes, beside("flash-kmeans float16"), 2.0),
        "from the host within a tenth of resident for k >= 32k": over(
            compute_bound, lambda shape: shape["seconds"]["nearest"] / shape["seconds"]["nearest from the host"], 0.9
        ),
    }


def show(shapes: list[dict[str, Any]], left_out: list[str], yardstick: float | None) -> None:
    """The table: effective TFLOP/s beside the peers', the share of cuBLAS's rate, and candidates a row."""
    columns = {
        "ours": "nearest", "of peak": "", "chosen": "", "fused": "nearest fused", "half": "nearest half",
        "single": "nearest single", "host": "nearest from the host", "fp16": "torch product float16",
        "fp16+min": "torch product and argmin float16", "tf32+min": "torch product and argmin TF32",
        "fp32+min": "torch product and argmin float32", "flash": "flash-kmeans float16",
    }  # fmt: skip
    print("\nTFLOP/s, effective (2 n k d / time); fp16: PyTorch's product alone, +min: with argmin")
    print("  ".join(f"{cell:>8}" for cell in ("d", "k", *columns, "cand/row", "sums ms")))
    for shape in shapes:
        cells = [str(shape["dims"]), str(shape["clusters"])]
        for name, key in columns.items():
            rate = shape["tflops"].get(key)
            cells.append("-" if rate is None else f"{rate:.0f}")
            if name == "of peak":
                cells[-1] = f"{shape['tflops']['nearest'] / yardstick:.0%}" if yardstick else "-"
            elif name == "chosen":
                cells[-1] = str(shape["chosen"])
        cells.append("/".join(f"{value:.2f}" for value in shape["candidates_a_row"].values()))
        cells.append(f"{shape['seconds']['cluster sums'] * 1e3:.1f}")
        print("  ".join(f"{cell:>8}" for cell in cells))
        for what, why in shape["failed"].items():
            print(f"    {what}: {why}")
    for what in left_out:
        print(f"{what}: left out, no time")


if __name__ == "__main__":
    sys.exit(main())
