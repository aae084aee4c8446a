"""How even a draw is among the classes of a long-tailed labelled pool: scikit-learn's digits, 444 of them.

    python benchmarks/digits.py                          # seeds 0 to 4

The pool is that of `streamcurate demo` (170 zeros, 105 ones, ... 5 nines), levels [100, 40, 20], 9 refits of each on
the 3, 2, 2 nearest rows of every cluster, 100 rows drawn. The seed is that of the tree and of the draw.
Measure: Kullback-Leibler divergence of the classes' shares from even ones, in nats.
"""

from __future__ import annotations

import time

import numpy as np
from reporting import conclude, parser, table

import streamcurate as sc
from streamcurate.demo import digits, divergence

AUTHORS_MEAN = 0.22


def one_seed(seed: int) -> tuple[float, float, float]:
    """Divergence of the balanced draw and of one at random, and seconds."""
    pool = digits(seed)
    began = time.perf_counter()
    rows = sc.cluster(pool.rows, config=pool.config).sample(pool.size, seed=seed).rows
    seconds = time.perf_counter() - began
    at_random = np.random.default_rng(seed).permutation(len(pool.rows))[: pool.size]
    return divergence(pool.counts(rows)), divergence(pool.counts(at_random)), seconds


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = made.parse_args()
    before = divergence(digits().counts())
    found = {seed: one_seed(seed) for seed in options.seeds}
    mean = [float(np.mean([each[column] for each in found.values()])) for column in range(3)]
    lines = [
        [f"seed {seed}", *(f"{value:.3f}" for value in each[:2]), f"{each[2]:.1f}"] for seed, each in found.items()
    ]
    lines.append(["mean", f"{mean[0]:.3f}", f"{mean[1]:.3f}", f"{mean[2]:.1f}"])
    print(f"all {len(digits().rows)} rows: {before:.3f}; authors' code, mean of five draws: {AUTHORS_MEAN}\n")
    print(table(["100 rows drawn", "balanced", "at random", "s"], lines))
    conclude(
        "digits",
        {
            "before": before,
            "seeds": {
                str(seed): {"balanced": each[0], "random": each[1], "seconds": round(each[2], 3)}
                for seed, each in found.items()
            },
            "mean": {"balanced": mean[0], "random": mean[1]},
        },
        {"mean divergence at most 0.25": mean[0] <= 0.25},
        options.json,
    )


if __name__ == "__main__":
    main()
