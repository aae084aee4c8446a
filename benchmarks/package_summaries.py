"""Real text embeddings: 20,000 summaries of packages, 384 dimensions, float16, unit norm.

    python benchmarks/package_summaries.py --data FOLDER       # FOLDER/embeddings.npy

Levels [2000, 400, 80], each refitted on the 5, 3, 2 nearest rows of every cluster. Prints inertia beside that of the
authors' code (seed 0, measured on the CPU), seconds, and the run's warnings: the top level of so small and
high-dimensional a pool degenerates, and the run must say so. `--steps` counts the refits after the first fit; 9 is what
the authors call 10 resampling steps.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from reporting import conclude, parser, table

import streamcurate as sc

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "package_summaries"
LEVELS = ((2000, 5), (400, 3), (80, 2))
AUTHORS = (11_433, 803, 243)
AUTHORS_SECONDS = 383
WITHIN = (0.03, 0.15, 0.15)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="holds embeddings.npy")
    made.add_argument("--steps", type=int, default=10, help="refits of each level after the first fit (default 10)")
    made.add_argument("--seed", type=int, default=0)
    options = made.parse_args()
    file = options.data / "embeddings.npy"
    if not file.exists():
        raise SystemExit(f"{file}: not there; give the folder of the embeddings with --data")
    rows = np.load(file)
    # Compiled before the clock starts.
    sc.cluster(rows[:600], levels=[sc.Level(30, resampling=sc.Resampling(1, 2)), sc.Level(5)], seed=0)

    began, worked = time.perf_counter(), time.process_time()
    levels = [sc.Level(clusters, resampling=sc.Resampling(options.steps, kept)) for clusters, kept in LEVELS]
    tree = sc.cluster(rows, levels=levels, seed=options.seed)
    seconds, processor_seconds = time.perf_counter() - began, time.process_time() - worked

    lines, difference = [], []
    for (clusters, kept), level, theirs in zip(LEVELS, tree.manifest.levels, AUTHORS, strict=True):
        difference.append(level.inertia / theirs - 1)
        lines.append(
            [f"{clusters:,}", kept, f"{level.inertia:,.1f}", f"{theirs:,}", f"{difference[-1]:+.1%}", level.empty]
        )
    print(f"{len(rows):,} rows of {rows.shape[1]} dimensions, {options.steps} refits a level, seed {options.seed}\n")
    print(table(["clusters", "kept", "inertia", "authors", "difference", "empty"], lines))
    print(f"\n{seconds:.1f} s, {processor_seconds:.1f} s of processor time; the authors' code: {AUTHORS_SECONDS} s")
    for text in tree.warnings:
        print(f"warning: {text}")
    conclude(
        "package_summaries",
        {
            "steps": options.steps,
            "seed": options.seed,
            "inertia": [level.inertia for level in tree.manifest.levels],
            "authors": list(AUTHORS),
            "seconds": round(seconds, 2),
            "processor_seconds": round(processor_seconds, 2),
            "warnings": tree.warnings,
            "digest": tree.digest,
        },
        {
            **{
                f"inertia of level {number} within {within:.0%}": abs(off) <= within
                for number, (off, within) in enumerate(zip(difference, WITHIN, strict=True), start=1)
            },
            "the degenerate top level is reported": any("level 3 is degenerate" in text for text in tree.warnings),
            "at most 15 s": seconds <= 15,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
