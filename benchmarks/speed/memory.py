"""Peak memory of each contestant, in a process of its own.

python -m speed.memory NAME FOLDER CLUSTERS THREADS      # as `measure` calls it, from the folder `benchmarks`
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.contestants import Ours, Problem, fit_source, stored_rows, write_rows
from speed.others import contestants

FROM_DISK = "streamcurate, from disk"
_ITERATIONS = 2
_SMALL = 2000


def prepare(folder: Path, rows: NDArray[Any]) -> None:
    """Lay the rows down for the processes to come."""
    np.save(folder / "rows.npy", rows)
    write_rows(folder / "rows.zarr", rows)


def measure(name: str, folder: Path, clusters: int, threads: int) -> dict[str, int] | None:
    """Peak bytes of a process that solves the problem: resident in all, and beyond what it was with the rows loaded.

    None where the process fails; what it wrote about that is on standard error.
    """
    line = [sys.executable, "-m", "speed.memory", name, folder, clusters, threads]
    done = subprocess.run(
        [str(part) for part in line], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return None
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _solve(name: str, folder: Path, clusters: int, threads: int) -> dict[str, int]:
    """What the process itself does: load, warm up, note what is resident, solve, note the peak."""
    if name == FROM_DISK:
        source = stored_rows(folder / "rows.zarr")
        start = source.read(0, clusters).astype(np.float32)
        problem = Problem(np.empty((0, source.dims), dtype=source.dtype), start, _ITERATIONS, threads)
        warm = Problem(problem.rows, start[:20].copy(), _ITERATIONS, threads)
        fit_source(stored_rows(_small(folder)), warm)
        before = _resident("VmRSS")
        _reset_peak()
        fit_source(source, problem)
    else:
        contestant = next(one for one in contestants() if one.name == name)
        rows = np.load(folder / "rows.npy")
        if not isinstance(contestant, Ours):
            rows = rows.astype(np.float32)
        contestant.solve(Problem(rows[:_SMALL].copy(), rows[:20].astype(np.float32), _ITERATIONS, threads))
        problem = Problem(rows, rows[:clusters].astype(np.float32), _ITERATIONS, threads)
        before = _resident("VmRSS")
        _reset_peak()
        contestant.solve(problem)
    peak = _resident("VmHWM")
    return {"peak_bytes": peak, "beyond_rows_bytes": max(peak - before, 0)}


def _small(folder: Path) -> Path:
    path = folder / "small.zarr"
    if not path.exists():
        write_rows(path, np.load(folder / "rows.npy", mmap_mode="r")[:_SMALL])
    return path


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _reset_peak() -> None:
    with suppress(OSError):  # where it cannot be reset, what loading took counts too
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    print(json.dumps(_solve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
