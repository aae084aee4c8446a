"""Quotas of a large tree: how long each allocation takes, and in how much memory.

    python benchmarks/quotas.py                          # 10 M leaves under 1000 parents
    python benchmarks/quotas.py --leaves 1000000 --parents 500000

Leaf sizes follow a Pareto law, so that a few leaves are far larger than most. Figures are checked before they are
printed: the quotas of every parent add up to its own, and none is above what a leaf holds.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from streamcurate.sampling import leaf_quotas, make_allocation
from streamcurate.sampling.hierarchy import Hierarchy, segment_sums
from streamcurate.sampling.quotas import node_keys, segmented_water_fill
from streamcurate.sampling.weights import ClusterWeights, LevelWeights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=10_000_000)
    parser.add_argument("--parents", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.1, help="of all rows that is drawn")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    generator = np.random.default_rng(options.seed)
    sizes = (generator.pareto(1.2, options.leaves) * 100).astype(np.int64)
    leaf_offsets = np.append(0, np.cumsum(sizes))
    filled = generator.permutation(np.flatnonzero(sizes))
    cuts = np.sort(generator.integers(0, len(filled) + 1, options.parents - 1))
    offsets = np.concatenate([[0], cuts, [len(filled)]])
    hierarchy = Hierarchy(leaf_offsets, ((filled, offsets),))
    target = int(hierarchy.rows * options.share)
    node_keys(0, 1, np.arange(2))  # compiled before the clock starts

    levels = [StoredLevel(np.zeros(0)), StoredLevel(generator.random(options.leaves, dtype=np.float32))]
    allocations = {
        "balanced": make_allocation(),
        "proportional": make_allocation("proportional"),
        "power 0.5": make_allocation("power", 0.5),
        "power 0.3": make_allocation("power", 0.3),
        "least_rows 50": make_allocation(least_rows=50),
        "weights, caps, leasts": make_allocation(weights=some_weights(generator, options.leaves)),
        "outlier_share 0.01": make_allocation(outlier_share=0.01, outlier_rows=20),
    }
    print(f"{options.leaves:,} leaves under {options.parents:,} parents, {hierarchy.rows:,} rows, target {target:,}")
    for name, allocation in allocations.items():
        start = time.perf_counter()
        quotas = leaf_quotas(hierarchy, target, sizes, seed=options.seed, allocation=allocation, levels=levels)
        whole = time.perf_counter() - start
        if quotas.sum() != target or (quotas > sizes).any() or (quotas < 0).any():
            raise SystemExit(f"{name}: the quotas are wrong")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:<24}    {whole:6.2f} s    peak memory so far {peak:5.2f} GiB")

    quotas = leaf_quotas(hierarchy, target, sizes, seed=options.seed)
    targets = segment_sums(quotas[filled], offsets)
    keys = node_keys(options.seed, 1, filled)
    start = time.perf_counter()
    shares = segmented_water_fill(targets, sizes[filled], offsets, keys)
    fill = time.perf_counter() - start
    if (segment_sums(shares, offsets) != targets).any():
        raise SystemExit("the shares are wrong")

    print(f"one segmented water-fill    {fill:6.2f} s")


class StoredLevel:
    """What finding outliers reads of a level: the distances of the clusters below."""

    def __init__(self, distances: np.ndarray) -> None:
        self.stored_distances = self
        self._distances = distances
        self.rows = len(distances)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._distances[start:stop]


def some_weights(generator: np.random.Generator, leaves: int) -> ClusterWeights:
    """Weights of all leaves, caps and leasts of every tenth."""
    caps, leasts = np.full(leaves, -1), np.full(leaves, -1)
    caps[::10], leasts[5::10] = 200, 3
    numbers = np.arange(leaves, dtype=np.int64)
    weights = LevelWeights(numbers + 2, numbers, generator.random(leaves) + 0.1, caps, leasts)
    return ClusterWeights("weights", {1: weights}, in_file=True)


if __name__ == "__main__":
    main()
