"""The machine a run is led from, in words."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import psutil


@functools.cache
def this_machine() -> str:
    """Processor, processors and memory, such as ``AMD EPYC, 2 processors, 24 GiB``."""
    count = psutil.cpu_count() or 1
    memory = round(psutil.virtual_memory().total / (1 << 30))
    return f"{processor()}, {count} processor{'s' * (count != 1)}, {memory} GiB"


def processor() -> str:
    """The processor's name as the kernel gives it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
