"""``plan``: what a run would take, from the same configuration, limits and rows that ``cluster`` would have."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamcurate.config import Config, Level
from streamcurate.embeddings.store import Embeddings, as_embeddings
from streamcurate.embeddings.subset import OrderedRows
from streamcurate.errors import ConfigError, DataError, InputError, MemoryLimitError
from streamcurate.files import check_scratch
from streamcurate.pipeline.request import resolve_config
from streamcurate.planning.calibration import SECONDS, calibrate
from streamcurate.planning.hardware import parse_hardware
from streamcurate.planning.model import check_levels
from streamcurate.planning.plan import Plan, Store
from streamcurate.planning.planner import make_plan, problems_of
from streamcurate.planning.rates import Rates, load_rates
from streamcurate.streaming import MemoryBudget, parse_bytes
from streamcurate.streaming.budget import SMALLEST_LIMIT, available_bytes, available_threads

_SUBSET_BYTES = 64 << 20
# Of a process on named hardware, where nothing else is said.
_USUAL_LIMIT = 64 << 30


def plan(
    embeddings: Any,
    *,
    levels: Sequence[Level | int] | int | str | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    metric: str | None = None,
    seed: int | None = None,
    subset: Any = None,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    on: str = "this",
    rates: Rates | str | os.PathLike[str] | None = None,
    calibrate_to: str | os.PathLike[str] | None = None,
    seconds: float = SECONDS,
    start_seconds: float = 0.0,
) -> Plan:
    """What :func:`cluster` would take with the same arguments: passes, bytes, operations, memory, disk and time.

    From the shape of the embeddings and the configuration. To say how long, and how many iterations a fit may need, a
    few seconds are spent on a sample of the rows: fits with fewer rows and clusters by the same code.

    Parameters
    ----------
    embeddings, levels, config, metric, seed, subset, memory_limit, threads
        As for :func:`cluster`.
    workers : int, optional
        Plan for so many worker processes of this machine.
    scratch : path, optional
        Where the run would write; it is measured, and its free space counts. By default the working directory.
    on : str
        ``this`` machine; or named hardware, ``8xH100``, ``8xA100``, ``8xH200``, or CPU nodes by their speed,
        ``16x500GFLOPS``. Its rates are assumed unless a device was measured; each says which. The memory limit of a
        process there is 64 GiB unless it is given.
    rates : Rates or path, optional
        Measured before, instead of measuring.
    calibrate_to : path, optional
        Where to keep what is measured, for ``rates``.
    seconds : float
        To measure for, about.
    start_seconds : float
        What starting the process took, to be counted in.

    Returns
    -------
    Plan
        ``print`` it, or take ``to_mapping()``. Where memory does not suffice, ``refusal`` says what ``cluster`` would.

    Raises
    ------
    InputError
        Anything ``cluster`` would refuse before it reads, memory excepted; hardware or a file of rates not understood.
    """
    resolved = resolve_config(levels, config, metric, seed, subset)
    hardware = parse_hardware(on)
    check_scratch(scratch)
    if rates is not None and calibrate_to is not None:
        raise ConfigError("rates and calibrate: rates that are given are not measured; give one of them")
    store = as_embeddings(embeddings)
    if hardware is not None and memory_limit is None:
        memory_limit = _USUAL_LIMIT
    budget, each = _budget(memory_limit, workers, threads)
    chosen = subset if subset is not None else resolved.subset
    shape = _shape(store, chosen, resolved.levels[0].clusters)
    with suppress(MemoryLimitError):  # the plan tells
        check_levels(resolved, store.rows, store.dims, store.dtype, budget, store.name)
    place = _place(scratch)
    if rates is None:
        here = min(budget.limit, max(available_bytes() // 2, SMALLEST_LIMIT))
        measuring = MemoryBudget(here, each * max(workers or 1, 1))
        found = calibrate(store, resolved, problems_of(shape, resolved), measuring, place, seconds, start_seconds)
        if calibrate_to is not None:
            found.save(calibrate_to)
    else:
        found = rates if isinstance(rates, Rates) else load_rates(rates, len(resolved.levels))
    return make_plan(
        shape, resolved, budget, found,
        hardware=hardware, workers=workers or 0, cached_bytes=available_bytes() - budget.limit, place=place,
    )  # fmt: skip


def _budget(memory_limit: int | str | None, workers: int | None, threads: int | None) -> tuple[MemoryBudget, int]:
    """The budget of each process, and its threads."""
    limit = parse_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit
    if workers is None:
        budget = MemoryBudget.of(limit, threads)
        return budget, budget.threads
    each = threads or max(available_threads() // workers, 1)
    if limit is None:
        limit = max(available_bytes() // 2 // (workers + 1), SMALLEST_LIMIT)
    return MemoryBudget.of(limit, each), each


def _place(scratch: str | os.PathLike[str] | None) -> Path:
    """The folder whose disk the run would write to: the one named, or the lowest above it that is there."""
    place = Path(scratch if scratch is not None else ".").absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place}: is a file; give a folder for scratch")
    return place


def _shape(store: Embeddings, chosen: Any, clusters: int) -> Store:
    count = store.rows
    if chosen is not None:
        with tempfile.TemporaryDirectory(prefix="streamcurate-plan-") as folder:
            rows = OrderedRows(chosen, store.rows, Path(folder) / "subset", _SUBSET_BYTES, ids=store.ids)
            with rows:
                count, name = rows.named, rows.name
        if count < clusters:
            raise DataError(
                f"levels[0].clusters: {clusters:,} clusters from the {count:,} rows of {name}; choose at most {count:,}"
            )
    return Store(
        store.name, store.rows, store.dims, store.dtype.name, store.chunk_rows, store.read_overhead_bytes, count,
        store.path is not None,
    )  # fmt: skip
