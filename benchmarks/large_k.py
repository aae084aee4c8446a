"""Very many clusters: splits in bundles, the tree of boxes at few dims, and labels by an approximate index.

    python benchmarks/large_k.py                 # all three parts, some minutes
    python benchmarks/large_k.py --parts boxes --quick

*splits*: coarse clusters of 100 to 1,000 rows, each fitted by a k-means of its own, once one by one (every fit with
its own passes) and once in bundles; both give the same bits, which is checked. *boxes*: the exact nearest of up to
100,000 centroids, by the search that the engine's passes use and by the tree of boxes, for Gaussian rows (the worst
case) and a mixture of 500 Gaussians. *index*: labels by FAISS beside exact ones, with the share that agrees.

Everything runs on one thread, A and B in turn, and what is compared is the thread's own processor time: medians.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reporting import conclude, parser, table
from synthetic import Mixture
from threadpoolctl import threadpool_limits

from streamcurate import kernels
from streamcurate.clustering import bundles, split
from streamcurate.clustering.approximate import Index
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.config import Level
from streamcurate.kernels.cpu import centroid_boxes
from streamcurate.kernels.cpu.prepare import prepare_centroids
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor

PARTS = ("splits", "boxes", "index")


def in_turn(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median processor seconds of each function, called in turn, the first round not counted."""
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 1):
        for function, taken in zip(functions, seconds, strict=True):
            began = time.thread_time()
            function()
            if number:
                taken.append(time.thread_time() - began)
    return [median(taken) for taken in seconds]


def one_split(clusters: int, size: int, dims: int, leaves: int, rounds: int) -> dict[str, Any]:
    """Rows a second of the fits of so many clusters of ``size`` rows, alone and in bundles."""
    rows = Mixture(dims).rows(0, clusters * size)
    level = Level(clusters, splits=leaves, iterations=20)
    starts = np.arange(clusters + 1, dtype=np.int64) * size
    with SerialExecutor(MemoryBudget(1 << 30, 1)) as executor, tempfile.TemporaryDirectory() as folder:
        measured = Measured.of(Points.all_of(MemoryRows(rows)), kernels.statistics(rows), "l2")
        around = Surroundings(executor, "l2", 0, Path(folder), None, ignore, 1)
        bytes_each = bundles.bundle_bytes(size, dims, level, measured, rows[:1].nbytes)

        def alone() -> list[Any]:
            each = (MemoryRows(rows[starts[c] : starts[c + 1]]) for c in range(clusters))
            return [split._fit_cluster(mine, c, measured, level, around) for c, mine in enumerate(each)]

        def together() -> list[Any]:
            found = []
            for first, last in bundles.bundles_of([bytes_each] * clusters, 1 << 40):
                edges = starts[first : last + 1] - starts[first]
                numbers = np.arange(first, last, dtype=np.int64)
                fitted = bundles.fit_bundle(rows[starts[first] : starts[last]], edges, numbers, measured, level, around)
                found += [leaf for _, leaf in split._bundled(fitted, edges, around)]
            return found

        for one, other in zip(alone(), together(), strict=True):
            assert np.array_equal(one.centroids, other.centroids)
            assert np.array_equal(one.labels, other.labels)
            assert one.inertia == other.inertia
        before, after = in_turn([alone, together], rounds)
    return {
        "clusters": clusters,
        "rows": size,
        "dims": dims,
        "leaves": leaves,
        "alone rows/s": round(clusters * size / before),
        "bundled rows/s": round(clusters * size / after),
        "ratio": round(before / after, 2),
    }


def splits(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Splits of several shapes."""
    shapes = [(200, 100, 64, 10), (200, 100, 64, 50), (200, 100, 384, 10), (200, 100, 384, 50), (200, 100, 8, 10)]
    shapes += [] if quick else [(100, 100, 768, 10), (20, 1000, 64, 10), (20, 1000, 64, 50)]
    return [one_split(*shape, rounds) for shape in shapes]


def data(kind: str, count: int, dims: int) -> NDArray[np.float32]:
    """Gaussian rows, or rows around 500 Gaussian centres."""
    generator = np.random.default_rng(dims)
    rows = generator.standard_normal((count, dims))
    if kind == "mixture":
        rows = 0.3 * rows + generator.standard_normal((500, dims))[generator.integers(500, size=count)]
    return rows.astype(np.float32)


def one_search(kind: str, clusters: int, dims: int, rounds: int) -> dict[str, Any]:
    """Nanoseconds a row of the search the engine uses and of the tree; milliseconds of preparing each."""
    rows = data(kind, clusters + 4000, dims)
    centroids, rows = rows[:clusters], rows[clusters:]
    prepared, tree = prepare_centroids(centroids, "l2", boxes=False), centroid_boxes.prepare(centroids, "l2")
    found, boxed = kernels.nearest(rows, prepared), centroid_boxes.nearest(rows, tree)
    assert np.array_equal(found[0], boxed[0])
    assert np.array_equal(found[1], boxed[1])
    seconds = in_turn(
        [
            lambda: kernels.nearest(rows, prepared),
            lambda: centroid_boxes.nearest(rows, tree),
            lambda: prepare_centroids(centroids, "l2", boxes=False),
            lambda: centroid_boxes.prepare(centroids, "l2"),
        ],
        rounds,
    )
    return {
        "data": kind,
        "dims": dims,
        "clusters": clusters,
        "engine ns": round(seconds[0] / len(rows) * 1e9),
        "boxes ns": round(seconds[1] / len(rows) * 1e9),
        "ratio": round(seconds[0] / seconds[1], 2),
        "prepare ms": round(seconds[2] * 1e3, 2),
        "boxes' ms": round(seconds[3] * 1e3, 2),
        "chosen": centroid_boxes.worthwhile(clusters, dims),
    }


def boxes(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Searches at several dims and numbers of clusters."""
    return [
        one_search(kind, clusters, dims, rounds)
        for dims in ((2, 8) if quick else (1, 2, 3, 4, 6, 8, 10, 12))
        for clusters in ((300, 3000) if quick else (300, 1000, 3000, 30_000, 100_000))
        for kind in ("gaussian", "mixture")
    ]


def one_index(clusters: int, dims: int, rounds: int) -> dict[str, Any]:
    """Microseconds a row of exact and of approximate labels, and the share that agrees."""
    rows = Mixture(dims).rows(0, clusters + 2000).astype(np.float32)
    centroids, rows = rows[:clusters], rows[clusters:]
    prepared = kernels.prepare_centroids(centroids, "l2")
    began = time.thread_time()
    index = Index(centroids, "l2")
    built = time.thread_time() - began
    exact, values = kernels.nearest(rows, prepared)
    labels, near = index.nearest(rows)
    seconds = in_turn([lambda: kernels.nearest(rows, prepared), lambda: index.nearest(rows)], rounds)
    return {
        "clusters": clusters,
        "dims": dims,
        "recall": round(float(np.mean(exact == labels)), 4),
        "excess inertia": round(float(near.sum() / values.sum() - 1), 6),
        "built s": round(built, 2),
        "exact us": round(seconds[0] / len(rows) * 1e6),
        "index us": round(seconds[1] / len(rows) * 1e6),
        "ratio": round(seconds[0] / seconds[1], 2),
    }


def indexes(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Indexes over more and more centroids."""
    return [one_index(clusters, 384, rounds) for clusters in ((20_000,) if quick else (20_000, 100_000))]


def main() -> None:
    options = arguments()
    result, goals = {}, {}
    with threadpool_limits(1):
        for part in options.parts:
            lines = {"splits": splits, "boxes": boxes, "index": indexes}[part](options.quick, options.rounds)
            result[part] = lines
            print(f"\n{part}\n" + table(list(lines[0]), [[str(value) for value in line.values()] for line in lines]))
            if part == "splits":
                goals["every bundle faster than its fits alone"] = all(line["ratio"] > 1 for line in lines)
            if part == "boxes":
                goals["boxes faster wherever they are chosen"] = all(
                    line["ratio"] > 1 for line in lines if line["chosen"]
                )
    conclude("large_k", result, goals, options.json)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    made.add_argument("--quick", action="store_true", help="fewer shapes")
    made.add_argument("--rounds", type=int, default=3, help="rounds after the first (default 3)")
    return made.parse_args()


if __name__ == "__main__":
    main()
