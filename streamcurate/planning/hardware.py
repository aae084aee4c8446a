"""Machines that are named rather than measured: GPUs by their name, CPU nodes by their FLOP/s.

A rate is ``measured`` only where ``benchmarks/gpu_suite.py`` has left a result for that device; else it follows from
what its maker publishes, or from nothing better than experience, and is called ``assumed``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from streamcurate.errors import ConfigError
from streamcurate.planning.rates import Rate

GPUS_A_NODE = 8
_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
# TFLOP/s in float32 without tensor cores, as NVIDIA publishes them, and bytes of memory.
_GPUS = {
    "H100": (67.0, 80e9),
    "H200": (67.0, 141e9),
    "A100": (19.5, 80e9),
}
# Of the memory, for centroids; more are held in tiles.
_MEMORY_SHARE = 0.8
_FLOP_SHARE = 0.5
_GPU_STORAGE, _CPU_STORAGE = 25e9, 2e9


@dataclass(frozen=True)
class Hardware:
    """So many GPUs or CPU nodes, and the rates they are taken to have.

    Attributes
    ----------
    name : str
        As the user wrote it.
    workers : int
        GPUs, or nodes.
    nodes : int
        That share storage bandwidth.
    gpu : bool
    rates : dict of Rate
        ``nearest`` FLOP/s a worker, ``storage`` bytes/s a node, ``memory`` bytes a GPU, ``merge`` records/s and
        ``digest`` bytes/s of the driver, ``task`` seconds a task.
    """

    name: str
    workers: int
    nodes: int
    gpu: bool
    rates: dict[str, Rate]


def parse_hardware(text: str, results: Path = _RESULTS) -> Hardware | None:
    """What ``8xH100`` or ``16x500GFLOPS`` stands for; None for ``this``.

    Parameters
    ----------
    text : str
    results : Path
        Where results of ``gpu_suite.py`` are looked for.

    Raises
    ------
    ConfigError
        It is none of these.
    """
    if text == "this":
        return None
    found = re.fullmatch(r"([1-9][0-9]*)\s*x\s*([A-Za-z0-9./]+)", text.strip())
    if found:
        count, kind = int(found[1]), found[2]
        if kind.upper() in _GPUS:
            return _gpus(text, count, kind.upper(), results)
        speed = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([GT])FLOP(?:S|/s)?", kind, re.IGNORECASE)
        if speed and float(speed[1]) > 0:
            return _nodes(text, count, float(speed[1]) * (1e9 if speed[2].upper() == "G" else 1e12))
    raise ConfigError(
        f"on {text!r}: no hardware known by that name; give this, a number of GPUs such as 8x"
        f"{', 8x'.join(sorted(_GPUS))}, or of CPU nodes by their speed, such as 16x500GFLOPS"
    )


def common_rates() -> dict[str, Rate]:
    """Of the driver and the scheduler, whatever the workers."""
    return {
        "merge": Rate(2.5e7, "records/s", "assumed", "one core, as benchmarks/projection.py measures it"),
        "digest": Rate(2e9, "bytes/s", "assumed", "one core reading and hashing what the system holds in memory"),
        "task": Rate(1e-3, "s a task", "published", "Dask's documentation: up to 1 ms a task"),
    }  # fmt: skip


def gpu_rates(kind: str, results: Path = _RESULTS) -> dict[str, Rate]:
    """Of one kind of GPU, and the storage and memory they are taken to have."""
    _, memory = _GPUS[kind]
    return {
        "nearest": _nearest(kind, results),
        "storage": Rate(
            _GPU_STORAGE, f"bytes/s a node of {GPUS_A_NODE} GPUs", "assumed",
            "storage that all nodes see, for the store, scratch and sums alike",
        ),
        "memory": Rate(
            _MEMORY_SHARE * memory, "bytes a GPU", "assumed",
            f"four fifths of {memory / 1e9:.0f} GB; more centroids are held in tiles",
        ),
    }  # fmt: skip


def _gpus(text: str, count: int, kind: str, results: Path) -> Hardware:
    return Hardware(text, count, -(-count // GPUS_A_NODE), True, gpu_rates(kind, results) | common_rates())


def _nodes(text: str, count: int, speed: float) -> Hardware:
    rates = {
        "nearest": Rate(speed, "FLOP/s a node", "assumed", f"as given: {text}"),
        "storage": Rate(_CPU_STORAGE, "bytes/s a node", "assumed", "storage that all nodes see"),
    }
    return Hardware(text, count, count, False, rates | common_rates())


def _nearest(kind: str, results: Path) -> Rate:
    for path in sorted(results.glob("gpu-*.json")):
        content = json.loads(path.read_text())
        shapes = content.get("shapes")
        if shapes and kind in content["machine"]["device"]:
            # The largest shape, the way of the rows to the device included.
            shape = max(shapes, key=lambda one: (one["dims"], one["clusters"]))
            source = f"{content['machine']['device']}, {shape['dims']} d, k = {shape['clusters']:,}, {path.name}"
            return Rate(shape["tflops"]["nearest, rows on the host"] * 1e12, "FLOP/s a GPU", "measured", source)
    published, _ = _GPUS[kind]
    return Rate(
        _FLOP_SHARE * published * 1e12, "FLOP/s a GPU", "assumed",
        f"half of the {published:g} TFLOP/s that NVIDIA publishes for float32 on an {kind}, which is what this "
        "version's matrix product uses; no GPU was measured",
    )  # fmt: skip
