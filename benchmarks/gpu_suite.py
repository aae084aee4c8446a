"""The GPU backend on this machine's device: its tests, its results against brute force, and its speed.

    python benchmarks/gpu_suite.py                  # all; writes benchmarks/results/gpu-<device>.json
    python benchmarks/gpu_suite.py --no-tests --dims 384 --clusters 2000

Needs CuPy, NumPy and numba, and nothing else of the package's dependencies; pytest for the tests; PyTorch for the
rates beside ours: its matrix product alone in float32 and float16, and product and argmin together, on the same rows in
the same run. Effective TFLOP/s are 2 n k d / time for all of them. What a missing package leaves out is said, not
filled in. Exit status 1 where a result is wrong, 2 where there is no device.
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
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
# The machine with the device may have the checkout and no installation.
sys.path.insert(0, str(ROOT))

from streamcurate import __version__, kernels  # noqa: E402
from streamcurate.errors import InputError  # noqa: E402
from streamcurate.kernels.gpu.backend import GpuBackend, gpu_backend  # noqa: E402

REPEATS = 3
CHECKED_ROWS = 48  # against all centroids, by brute force
TILE = 2**15  # rows of one product of the peers, so that theirs fits as well
TESTS_SECONDS = 150
LAST_START_SECONDS = 380  # no timing begins later: the suite ends within eight minutes


def make_rows(rows: int, dims: int, clusters: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Unit-length float16 rows around centres of unlike weight, and centroids drawn from the same."""
    generator = np.random.default_rng([rows, dims, clusters])
    centres = generator.standard_normal((max(2, clusters // 2), dims), dtype=np.float32)

    def draw(count: int) -> NDArray[np.float32]:
        made = np.empty((count, dims), dtype=np.float32)
        for start in range(0, count, TILE):
            part = made[start : start + TILE]
            own = (len(centres) * generator.random(len(part)) ** 2).astype(np.int64)
            part[:] = centres[own] + 0.7 * generator.standard_normal(part.shape, dtype=np.float32)
            part /= np.sqrt((part * part).sum(axis=1, keepdims=True))
        return made

    return draw(rows).astype(np.float16), draw(clusters)


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


def check_results(backend: GpuBackend) -> list[dict[str, Any]]:
    """Labels and values against brute force, and everything else against the CPU's functions."""
    cpu = kernels.get_backend("cpu")
    results = []
    for dims, clusters, metric, offset in ((64, 2000, "l2", 0.0), (384, 4000, "cosine", 0.0), (384, 1000, "l2", 50.0)):
        rows, centroids = make_rows(20_000, dims, clusters)
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


def time_by_call(backend: GpuBackend, call: Callable[[], Any], wait: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each kernel, product and copy of one call, waiting after each: their sum exceeds the call's own."""
    device, spent = backend._device, {}
    originals = {name: getattr(device, name) for name in ("launch", "product", "upload", "download")}

    def timed(name: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            wait()
            start = time.perf_counter()
            result = originals[name](*arguments)
            wait()
            label = arguments[0] if name == "launch" else name
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - start
            return result

        return run

    for name in originals:
        setattr(device, name, timed(name))
    try:
        call()
    finally:
        for name in originals:
            delattr(device, name)
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def peers(rows: NDArray[np.float16], centroids: NDArray[np.float32]) -> dict[str, float]:
    """Seconds of PyTorch on the same rows; empty without it."""
    try:
        import torch
    except ImportError:
        return {}
    torch.backends.cuda.matmul.allow_tf32 = False
    found = {}
    for name, kind in (("float32", torch.float32), ("float16", torch.float16)):
        x = torch.from_numpy(rows).cuda().to(kind)
        c = torch.from_numpy(centroids).cuda().to(kind)
        norms = (c.float() ** 2).sum(dim=1).to(kind)
        out = torch.empty((min(TILE, len(x)), len(c)), dtype=kind, device="cuda")

        def product(x: Any = x, c: Any = c, out: Any = out) -> None:
            for start in range(0, len(x), TILE):
                part = x[start : start + TILE]
                torch.mm(part, c.T, out=out[: len(part)])

        def assign(x: Any = x, c: Any = c, norms: Any = norms, out: Any = out) -> None:
            for start in range(0, len(x), TILE):
                part = x[start : start + TILE]
                torch.addmm(norms, part, c.T, alpha=-2, out=out[: len(part)]).argmin(dim=1)

        found[f"product {name}"] = seconds_of(product, torch.cuda.synchronize)
        found[f"product and argmin {name}"] = seconds_of(assign, torch.cuda.synchronize)
        del x, c, norms, out
        torch.cuda.empty_cache()
    return found


def time_shape(backend: GpuBackend, count: int, dims: int, clusters: int, wait: Callable[[], Any]) -> dict[str, Any]:
    """One shape: our calls and the peers'."""
    rows, centroids = make_rows(count, dims, clusters)
    uploaded = backend.upload(rows)
    prepared = backend.prepare_centroids(centroids, "l2")
    labels, _ = backend.nearest(uploaded, prepared)
    fixed = kernels.FixedPoint.for_data(-24, 1, count)
    times = {
        "nearest": seconds_of(lambda: backend.nearest(uploaded, prepared), wait),
        "nearest, rows on the host": seconds_of(lambda: backend.nearest(rows, prepared), wait),
        "prepare centroids": seconds_of(lambda: backend.prepare_centroids(centroids, "l2"), wait),
        "cluster sums": seconds_of(lambda: backend.cluster_sums(uploaded, labels, "l2", fixed, clusters), wait),
    }
    parts = time_by_call(backend, lambda: backend.nearest(uploaded, prepared), wait)
    times.update(peers(rows, centroids))
    work = 2.0 * count * clusters * dims
    return {
        "rows": count,
        "dims": dims,
        "clusters": clusters,
        "seconds": times,
        "tflops": {name: work / spent / 1e12 for name, spent in times.items() if "near" in name or "product" in name},
        "seconds_by_launch": parts,
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
    parser.add_argument("--rows", type=int, default=2**18)
    parser.add_argument("--dims", type=numbers, default=[64, 384, 1024])
    parser.add_argument("--clusters", type=numbers, default=[2000, 16000])
    parser.add_argument("--no-tests", action="store_true")
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
    shapes: list[dict[str, Any]] = []
    left_out: list[str] = []
    for clusters in asked.clusters:
        for dims in asked.dims:
            if time.perf_counter() - began > LAST_START_SECONDS:
                left_out.append(f"d {dims}, k {clusters}")
                continue
            shapes.append(time_shape(backend, asked.rows, dims, clusters, wait))
    goals = {
        "tests on the device": tests["passed"],
        "same bits as brute force and as the CPU": all(all(c[n] for n in c if type(c[n]) is bool) for c in checks),
    }
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine["device"]).lower()).strip("-")
    path = asked.json or ROOT / "benchmarks" / "results" / f"gpu-{slug}.json"
    content = {
        "benchmark": "gpu_suite",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine,
        "tests": tests,
        "checks": checks,
        "shapes": shapes,
        "left_out": left_out,
        "goals": goals,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, default=lambda value: value.item()) + "\n")
    show(shapes, left_out)
    for goal, met in goals.items():
        print(f"{ {True: 'met   ', False: 'MISSED', None: 'not run'}[met] }  {goal}")
    print(f"{time.perf_counter() - began:.0f} s; {path}")
    return 1 if False in goals.values() else 0


def show(shapes: list[dict[str, Any]], left_out: list[str]) -> None:
    """The table: rows a second, effective TFLOP/s beside the peers', and where the time goes."""
    names = ("nearest", "nearest, rows on the host", "product float32", "product float16")
    both = ("product and argmin float32", "product and argmin float16")
    head = ("   d      k", "Mrows/s", "ours", "+upload", "fp32", "fp16", "fp32+min", "fp16+min")
    print("\nTFLOP/s, effective (2 n k d / time); fp32, fp16: PyTorch's product alone, +min: with argmin")
    print("  ".join(f"{cell:>8}" for cell in head))
    for shape in shapes:
        rates = [shape["tflops"].get(name) for name in (*names, *both)]
        cells = [f"{shape['rows'] / shape['seconds']['nearest'] / 1e6:.2f}"]
        cells += ["-" if rate is None else f"{rate:.1f}" for rate in rates]
        print("  ".join([f"{shape['dims']:4} {shape['clusters']:6}"[:11].rjust(10), *(f"{cell:>8}" for cell in cells)]))
    for shape in shapes:
        whole = sum(shape["seconds_by_launch"].values())
        largest = list(shape["seconds_by_launch"].items())[:5]
        shares = ", ".join(f"{name.removesuffix('_float16')} {spent / whole:.0%}" for name, spent in largest)
        sums = shape["seconds"]["cluster sums"]
        print(f"d {shape['dims']} k {shape['clusters']}: {shares}; cluster sums {sums * 1e3:.1f} ms")
    for what in left_out:
        print(f"{what}: left out, no time")


if __name__ == "__main__":
    sys.exit(main())
