"""Rates that are given, not measured, and plans from them."""

from __future__ import annotations

from typing import Any

from streamcurate.config import Config
from streamcurate.planning.hardware import parse_hardware
from streamcurate.planning.plan import Plan, Store
from streamcurate.planning.planner import make_plan
from streamcurate.planning.rates import FitRates, LevelRates, Rates
from streamcurate.streaming import MemoryBudget

FIT = FitRates(search=1e11, label=2e11, again=0.5, label_again=0.25, seeding=1e10, iterations=10.0, pass_seconds=0.001)
LEVEL = LevelRates(first=FIT, resampled=FIT, splits=1e5, statistics=1e9)


def fixed_rates(levels: int) -> Rates:
    """The same for every level."""
    return Rates(
        "measured", "a machine of tests", read=1e9, read_again=2e9, write=1e9, take=1e6, members=1e7, digest=1e9,
        level_seconds=0.25, start_seconds=0.5, levels=(LEVEL,) * levels,
    )  # fmt: skip


def planned(
    levels: list[Any],
    rows: int,
    dims: int,
    dtype: str = "float16",
    limit: int = 4 << 30,
    on: str = "this",
    **options: Any,
) -> Plan:
    """A plan for rows that are nowhere."""
    chunk, overhead, count = (
        options.pop(name, default) for name, default in (("chunk", 1 << 16), ("overhead", 0), ("count", rows))
    )
    config = Config(tuple(levels), **options)
    store = Store("rows.zarr", rows, dims, dtype, chunk, overhead, count)
    budget = MemoryBudget(limit, 2)
    return make_plan(store, config, budget, fixed_rates(len(levels)), hardware=parse_hardware(on), cached_bytes=1 << 40)
