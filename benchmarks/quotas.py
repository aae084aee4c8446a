"""Quotas of a large tree: how long water-filling takes, and in how much memory.

    python benchmarks/quotas.py                          # 10 M leaves under 1000 parents
    python benchmarks/quotas.py --leaves 1000000 --parents 500000

Leaf sizes follow a Pareto law, so that a few leaves are far larger than most. Figures are checked before they are
printed: the quotas of every parent add up to its own.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from streamcurate.sampling import leaf_quotas
from streamcurate.sampling.hierarchy import Hierarchy, segment_sums
from streamcurate.sampling.quotas import node_keys, segmented_water_fill


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

    start = time.perf_counter()
    quotas = leaf_quotas(hierarchy, target, sizes, seed=options.seed)
    whole = time.perf_counter() - start
    if quotas.sum() != target or (quotas > sizes).any() or (quotas < 0).any():
        raise SystemExit("the quotas are wrong")

    targets = segment_sums(quotas[filled], offsets)
    keys = node_keys(options.seed, 1, filled)
    start = time.perf_counter()
    shares = segmented_water_fill(targets, sizes[filled], offsets, keys)
    fill = time.perf_counter() - start
    if (segment_sums(shares, offsets) != targets).any():
        raise SystemExit("the shares are wrong")

    print(f"{options.leaves:,} leaves under {options.parents:,} parents, {hierarchy.rows:,} rows, target {target:,}")
    print(f"quotas of the whole tree    {whole:6.2f} s")
    print(f"one segmented water-fill    {fill:6.2f} s")
    print(f"peak memory                 {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:6.2f} GiB")


if __name__ == "__main__":
    main()
