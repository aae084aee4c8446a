"""Refits started from the centroids before them, instead of seeded afresh: what that saves, and what it costs.

    python benchmarks/warm_starts.py                     # 2-D and digits, seeds 0 to 4, and the package summaries
    python benchmarks/warm_starts.py --seeds 0 1 --steps 3

Resampling keeps a few points around every centroid and fits them again. From fresh seeds the centroids leave the places
where most points were; from the old centroids they find the points kept around each of them, and stay. The 2-D pool is
that of paper_2d.py, levels [3000, 1000, 300] with 2 points a cluster: divergence from uniform of the last level. The
digits are those of digits.py: divergence of the classes in a draw. Inertia of the package summaries' three levels is
over all their points.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from package_summaries import DATA, LEVELS
from paper_2d import RESAMPLED, divergence_from_uniform, levels, points
from reporting import conclude, parser, table

import streamcurate as sc
from streamcurate.clustering import fit as fitting
from streamcurate.demo import digits, divergence


@contextmanager
def warm() -> Iterator[None]:
    """Within: a refit starts where the fit before it ended."""
    seed, lloyd = fitting.seed, fitting.lloyd
    last: dict[int, Any] = {}

    def start(measured: Any, clusters: int, method: str, around: Any) -> Any:
        if around.step and not around.part:
            return last[around.level], "warm"
        return seed(measured, clusters, method, around)

    def remember(measured: Any, centroids: Any, iterations: int, tolerance: float, around: Any, *more: Any) -> Any:
        found = lloyd(measured, centroids, iterations, tolerance, around, *more)
        if not around.part:
            last[around.level] = found.centroids
        return found

    fitting.seed, fitting.lloyd = start, remember
    try:
        yield
    finally:
        fitting.seed, fitting.lloyd = seed, lloyd


def plane(seed: int, steps: int) -> list[float]:
    """Divergence of the last level's centroids in the plane."""
    tree = sc.cluster(points(seed), levels=levels(RESAMPLED, steps), seed=seed)
    return [divergence_from_uniform(tree.levels[-1].centroids[:])]


def classes(seed: int) -> list[float]:
    """Divergence of the classes of 100 digits drawn."""
    pool = digits(seed)
    drawn = sc.cluster(pool.rows, config=pool.config).sample(pool.size, seed=seed)
    return [divergence(pool.counts(drawn.rows))]


def summaries(seed: int, steps: int) -> list[float]:
    """Inertia of every level of the package summaries."""
    rows = np.load(DATA / "embeddings.npy")
    asked = [sc.Level(clusters, resampling=sc.Resampling(steps, kept)) for clusters, kept in LEVELS]
    tree = sc.cluster(rows, levels=asked, seed=seed)
    return [level.inertia for level in tree.manifest.levels]


def measured(work: Any, *given: Any) -> tuple[list[float], float]:
    """What ``work`` gave, and its seconds of processor time."""
    began = time.process_time()
    return work(*given), time.process_time() - began


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    made.add_argument("--steps", type=int, default=9, help="refits of each level of the plane and the summaries")
    options = made.parse_args()
    jobs: list[tuple[str, Any, list[tuple[Any, ...]]]] = [
        ("plane, divergence", plane, [(seed, options.steps) for seed in options.seeds]),
        ("digits, divergence", classes, [(seed,) for seed in options.seeds]),
    ]
    if (DATA / "embeddings.npy").exists():
        jobs.append(("summaries, inertia", summaries, [(0, options.steps)]))
    lines: list[list[str]] = []
    result: dict[str, Any] = {}
    for name, work, given in jobs:
        for way in ("fresh", "warm"):
            if way == "warm":
                with warm():
                    found = [measured(work, *each) for each in given]
            else:
                found = [measured(work, *each) for each in given]
            values = np.array([each[0] for each in found])
            seconds = float(np.mean([each[1] for each in found]))
            mean = [float(value) for value in values.mean(axis=0)]
            spread = values.std(axis=0).max()
            lines.append([name, way, " ".join(f"{value:,.4g}" for value in mean), f"{spread:.3g}", f"{seconds:.2f}"])
            result[f"{name}, {way}"] = {"each": values.tolist(), "mean": mean, "processor_seconds": round(seconds, 2)}
            print(f"{name}, {way} refits: {seconds:.1f} s", flush=True)
    print()
    print(table(["", "refits", "mean", "std", "processor s"], lines))
    conclude("warm_starts", {"steps": options.steps, "seeds": options.seeds, **result}, {}, options.json)


if __name__ == "__main__":
    main()
