"""What `plan` predicts against what `cluster` takes: for each configuration one command of each, one after the other.

    python benchmarks/plan.py --json benchmarks/results/plan.json
    python benchmarks/plan.py --only text-flat,mixture-8 --share 0.2        # fewer rows
    python benchmarks/plan.py --data FOLDER                                 # FOLDER/embeddings.npy: text embeddings

Synthetic rows (synthetic.py) at few and many dims and real text embeddings; one level, three levels, resampling,
splits, fits on a sample. The factor is the larger of predicted / taken and taken / predicted; wall times of whole
commands, start-up included. Others' work on the machine makes both differ: the load average is printed with them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from process_memory import read_timeline, run_measured, working_folder
from reporting import conclude, parser, table
from synthetic import write_store

from streamcurate.config import Config, Level, Resampling
from streamcurate.embeddings.ingest import ingest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "package_summaries"
GOAL = 1.5


@dataclass(frozen=True)
class Case:
    """A configuration. ``rows`` and ``dims`` of synthetic rows; 0 rows are the text embeddings."""

    name: str
    rows: int
    dims: int
    levels: tuple[Level, ...]


CASES = (
    Case("text-flat", 0, 384, (Level(1000),)),
    Case(
        "text-three-levels",
        0,
        384,
        (
            Level(2000, resampling=Resampling(5, 5)),
            Level(400, resampling=Resampling(5, 3)),
            Level(80, resampling=Resampling(5, 2)),
        ),
    ),
    Case("mixture-64", 1_000_000, 64, (Level(2000, init="random"), Level(100))),
    Case("mixture-64-fit-rows", 2_000_000, 64, (Level(2000, fit_rows=200_000),)),
    Case("mixture-64-splits", 1_000_000, 64, (Level(200, splits=20), Level(200))),
    Case("mixture-8", 200_000, 8, (Level(500), Level(50))),
    Case("mixture-768-resampled", 100_000, 768, (Level(1000, resampling=Resampling(3, 20)), Level(100), Level(20))),
)


def main() -> None:
    options = arguments()
    names = options.only.split(",") if options.only else [case.name for case in CASES]
    cases = [case for case in CASES if case.name in names and (case.rows or (options.data / "embeddings.npy").exists())]
    left_out = sorted(set(names) - {case.name for case in cases})
    needed = int(max((case.rows for case in cases), default=0) * options.share) * 600 + (1 << 30)
    found = {}
    with working_folder("plan", options.folder, needed) as folder:
        for case in cases:
            found[case.name] = measure(case, folder, options)
            print(f"{case.name}: {found[case.name]['factor']:.2f}", flush=True)
    lines = [
        [
            name,
            f"{one['predicted_seconds']:.1f}",
            f"{one['most_seconds']:.1f}",
            f"{one['taken_seconds']:.1f}",
            f"{one['factor']:.2f}",
            one["bound_by"],
            f"{one['planning_seconds']:.1f}",
        ]
        for name, one in found.items()
    ]
    print()
    print(table(["configuration", "predicted s", "at most s", "taken s", "factor", "bound by", "planning s"], lines))
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    conclude(
        "plan",
        {"share": options.share, "left_out": left_out, "cases": found},
        {f"{name}: within a factor of {GOAL}": one["factor"] <= GOAL for name, one in found.items()},
        options.json,
    )


def measure(case: Case, folder: Path, options: Any) -> dict[str, Any]:
    """Predicted and taken."""
    store, run, config = folder / f"{case.name}.zarr", folder / "run", folder / f"{case.name}.json"
    if case.rows:
        write_store(store, max(int(case.rows * options.share), case.levels[0].clusters * 10), case.dims)
    else:
        rows = np.load(options.data / "embeddings.npy")
        ingest(rows[: int(len(rows) * options.share)], store)
    config.write_text(json.dumps(Config(case.levels).to_mapping()))
    limit = ["--memory-limit", options.memory_limit]
    warm_up(folder, case)
    began = time.perf_counter()
    line = [sys.executable, "-m", "streamcurate.cli.main", "plan", store, "--config", config, "--scratch", folder]
    done = subprocess.run([*map(str, line), "--json", *limit], capture_output=True, text=True, check=True)
    planning = time.perf_counter() - began
    plan = json.loads(done.stdout)
    taken = run_measured(["cluster", store, run, "--config", config, "--quiet", *limit])
    stages = read_timeline(run, taken.began).stages
    shutil.rmtree(run)
    shutil.rmtree(store)
    predicted = plan["seconds"]["expected"]
    return {
        "predicted_seconds": predicted,
        "most_seconds": plan["seconds"]["most"],
        "taken_seconds": taken.seconds,
        "factor": max(predicted / taken.seconds, taken.seconds / predicted),
        "bound_by": plan["bound_by"],
        "planning_seconds": planning,
        "taken_stages": stages,
        "planned_stages": {
            f"{stage['name']} {level['level']}": stage["seconds"]["expected"]
            for level in plan["levels"]
            for stage in level["stages"]
        },
    }


def warm_up(folder: Path, case: Case) -> None:
    """Have every kernel compiled: who compiles takes longer."""
    store, run = folder / "warm-up.zarr", folder / "warm-up"
    write_store(store, 2000, case.dims)
    splits = ["--levels", "20,5"]
    run_measured(["cluster", store, run, "--quiet", *splits])
    shutil.rmtree(store)
    shutil.rmtree(run)


def arguments() -> Any:
    made = parser(__doc__)
    made.add_argument("--only", metavar="NAME,..", help=f"of {', '.join(case.name for case in CASES)}")
    made.add_argument("--share", type=float, default=1.0, help="of the rows of each configuration (default 1)")
    made.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="holds embeddings.npy")
    made.add_argument("--memory-limit", default="2GiB")
    made.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    return made.parse_args()


if __name__ == "__main__":
    main()
