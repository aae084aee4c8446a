"""What the benchmarks share: the machine they ran on, tables, and results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

import streamcurate
from streamcurate.runs.machine import processor

_LIBRARIES = ("numpy", "numba", "zarr")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    return made


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, versions."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "streamcurate": streamcurate.__version__,
        # Others' work on the machine makes every time longer.
        "load_average": round(os.getloadavg()[0], 2),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Text columns: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        first, *others = (
            f"{cell:<{width}}" if not column else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def conclude(name: str, result: dict[str, Any], goals: dict[str, bool], path: Path | None) -> None:
    """Print the machine and the goals, and write everything as JSON if asked to."""
    described = machine()
    print(
        f"\n{described['processor']}, {described['cores']} cores, {described['memory_gib']} GiB, "
        f"streamcurate {described['streamcurate']}, load average {described['load_average']}"
    )
    for goal, met in goals.items():
        print(f"{'met   ' if met else 'MISSED'}  {goal}")
    if path is not None:
        content = {
            "benchmark": name,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": described,
            **result,
            "goals": goals,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
