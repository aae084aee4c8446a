"""The rates of this machine, measured in a few seconds on the store itself, in memory and on the run's disk.

What is read is a sample in ranges of rows, kept in memory: its size does not depend on the store's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.bundles import fit_bundle, fits_bundle
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.clustering.hierarchy import measure
from streamcurate.clustering.members import write_members
from streamcurate.clustering.passes import StatisticsPass
from streamcurate.clustering.surroundings import Measured
from streamcurate.config import Config, Level
from streamcurate.embeddings.fingerprint import unit_rows
from streamcurate.errors import DataError
from streamcurate.files import disk_errors
from streamcurate.planning.bench import Bench, Stopwatch, Working
from streamcurate.planning.likeness import Seen, fit_rates, look
from streamcurate.planning.model import metric_of
from streamcurate.planning.rates import FitRates, LevelRates, Rates
from streamcurate.planning.stages import Problem, fitted_points, kept_points, resampling_steps
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, RowSource, SerialExecutor
from streamcurate.tree import Level as StoredLevel
from streamcurate.tree import level_digest
from streamcurate.tree.level import LevelWriter

SECONDS = 9.0
_SAMPLE_BYTES = 40 << 20
_SAMPLE_RANGES = 64
_SAMPLE_SHARE = 1 / 8
_WRITTEN_BYTES = 16 << 20
_SORTED_ROWS = 1 << 18
_TAKEN_ROWS = 1024
# Of the seconds: each level has so much at least, the first ones share the rest by what they take.
_LEAST_SECONDS, _FOR_LEVELS, _FOR_SPLITS = 0.3, 0.7, 0.15
_BUSY = 0.75
_SPLIT_GROUPS, _SPLIT_ROWS = 32, 1 << 15


@dataclass(frozen=True)
class Sample:
    """Rows of the store, in random order, and how fast they came.

    Attributes
    ----------
    rows : ndarray, shape (m, dims)
    read, read_again : float
        Bytes/s.
    take : float
        Scattered rows/s.
    """

    rows: NDArray[Any]
    read: float
    read_again: float
    take: float


def calibrate(
    source: RowSource,
    config: Config,
    problems: Sequence[Problem],
    budget: MemoryBudget,
    scratch: Path,
    seconds: float = SECONDS,
    start_seconds: float = 0.0,
) -> Rates:
    """Measure the rates of a configuration's levels.

    Parameters
    ----------
    source : RowSource
        The rows of level 1.
    config : Config
    problems : sequence of Problem
        The points of each level.
    budget : MemoryBudget
    scratch : Path
        Where the run would write: a folder that is there; one is made in it and removed.
    seconds : float
        To spend at most, about.
    start_seconds : float
        What starting the process took; what loading the kernels takes is added.

    Raises
    ------
    DataError
        No row of the sample has a distance.
    """
    deadline = time.monotonic() + seconds
    others = _others(budget.threads)
    watch = Stopwatch(deadline)
    with disk_errors(scratch):
        folder = Path(tempfile.mkdtemp(prefix="streamcurate-plan-", dir=scratch))
    try:
        with SerialExecutor(budget, watch) as executor:
            bench = Bench(executor, watch, folder, metric_of(config), config.seed)
            sample = take_sample(source, budget, config.seed)
            rows = _usable(sample.rows, config.metric, source.name)
            start_seconds += _warm_up(rows, bench)
            write = _write_rate(folder)
            level_seconds, members, digest = _arrays_rates(folder, source.dims, executor, problems[0])
            statistics = _statistics_rate(rows, bench)
            levels = _levels(rows, config, problems, bench, statistics)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Rates(
        "measured",
        f"this machine, {budget.threads} threads, {len(rows):,} rows of {source.name}{others}",
        sample.read,
        sample.read_again,
        write,
        sample.take,
        members,
        digest,
        level_seconds,
        start_seconds,
        tuple(levels),
    )


def _others(threads: int) -> str:
    """That the machine was busy with other work when it was measured, where it was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f", while others used it (load average {load:.1f})" if load > _BUSY * threads else ""


def take_sample(source: RowSource, budget: MemoryBudget, seed: int) -> Sample:
    """Rows in ranges spread over the store by chance."""
    row_bytes = source.dims * source.dtype.itemsize
    most = max(min(_SAMPLE_BYTES, int(budget.usable * _SAMPLE_SHARE)) // row_bytes, 64)
    count = min(most, source.rows)
    random = np.random.default_rng(seed)
    each = max(count // _SAMPLE_RANGES, 1)
    slots = source.rows // each
    chosen = np.sort(random.choice(slots, min(count // each, slots), replace=False)) * each
    if count == source.rows:  # all of them
        chosen = np.arange(0, source.rows, each)
    began = time.perf_counter()
    parts = [np.array(source.read(start, min(start + each, source.rows))) for start in chosen.tolist()]
    first = time.perf_counter() - began
    began = time.perf_counter()
    again = 0
    for start in chosen[: max(len(chosen) // 4, 1)].tolist():
        again += source.read(start, min(start + each, source.rows)).nbytes
    second = time.perf_counter() - began
    rows = np.concatenate(parts)
    scattered = np.unique(random.integers(0, source.rows, min(_TAKEN_ROWS, source.rows)))
    began = time.perf_counter()
    source.take(scattered)
    take = len(scattered) / max(time.perf_counter() - began, 1e-6)
    rows = rows[random.permutation(len(rows))]
    return Sample(rows, rows.nbytes / max(first, 1e-6), again / max(second, 1e-6), take)


def _usable(rows: NDArray[Any], metric: str, name: str) -> NDArray[Any]:
    """Rows that have a distance; others are told, not measured."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    usable = np.isfinite(norms) & (norms > 0 if metric == "cosine" else True)
    if not usable.any():
        raise DataError(
            f"{name}: none of {len(rows):,} rows read to measure by has a distance: they hold NaN or Inf, or are zero; "
            "drop bad rows when ingesting (--on-bad-row drop)"
        )
    return rows if usable.all() else rows[usable]


def _warm_up(rows: NDArray[Any], bench: Bench) -> float:
    """Seconds that compiled kernels take to load, which a process pays once."""
    few = Level(min(8, len(rows)), iterations=3)
    spent = []
    for _ in range(2):
        began = time.monotonic()
        look(rows[:512], few, bench)
        spent.append(time.monotonic() - began)
    return max(spent[0] - spent[1], 0.0)


def _write_rate(folder: Path) -> float:
    from streamcurate.files import write_file

    data = np.zeros(_WRITTEN_BYTES, dtype=np.uint8)
    began = time.perf_counter()
    write_file(folder / "written", data.data)
    found = _WRITTEN_BYTES / max(time.perf_counter() - began, 1e-6)
    (folder / "written").unlink()
    return found


def _arrays_rates(folder: Path, dims: int, executor: SerialExecutor, problem: Problem) -> tuple[float, float, float]:
    """Seconds that the arrays of a tiny level take; rows/s of sorting members; bytes/s of a digest."""
    began = time.perf_counter()
    _write_level(folder / "tiny", 64, 8, dims, executor)
    level_seconds = time.perf_counter() - began
    rows = min(problem.rows, _SORTED_ROWS)
    budget = executor.budget
    if problem.count > budget.usable // 16 // 64:  # then members are sorted in runs on disk: so here
        small = replace(budget, held=max(budget.usable - 16 * 64 * (rows // 3), 0) + budget.held)
    else:
        small = budget
    with SerialExecutor(small) as sorter:
        members = rows / _write_level(folder / "level", rows, max(rows // 64, 1), dims, sorter)
    level = StoredLevel(folder / "level", 1)
    began = time.perf_counter()
    level_digest(level)
    size = 12 * rows + level.clusters * (4 * dims + 8)
    return level_seconds, members, size / max(time.perf_counter() - began, 1e-6)


def _write_level(folder: Path, rows: int, clusters: int, dims: int, executor: SerialExecutor) -> float:
    """Write a level of made-up labels; the seconds that its members took."""
    generator = np.random.default_rng(0)
    writer = LevelWriter(folder, rows, dims)
    labels = generator.integers(0, clusters, rows).astype(np.int32)
    arrays = writer.labels(), writer.distances()
    for array, values in zip(arrays, (labels, generator.random(rows, dtype=np.float32)), strict=True):
        for start in range(0, rows, array.chunk_rows):
            array.write(start, values[start : start + array.chunk_rows])
    centroids = writer.centroids(clusters)
    step = centroids.chunk_rows
    for start in range(0, clusters, step):
        centroids.write(start, np.zeros((min(step, clusters - start), dims), dtype=np.float32))
    writer.write_offsets(np.bincount(labels, minlength=clusters))
    began = time.perf_counter()
    stored = writer.stored("labels"), writer.stored("distances")
    write_members(*stored, writer.members(rows), folder.with_name(f"{folder.name}-runs"), executor)
    return max(time.perf_counter() - began, 1e-6)


def _statistics_rate(rows: NDArray[Any], bench: Bench) -> float:
    work = StatisticsPass(bench.metric, unit_rows(rows.shape[1], rows.dtype))
    working = Working()
    bench.executor.run(work, Points.all_of(MemoryRows(rows)), {}, align=work.unit_rows)
    return rows.nbytes / max(working.seconds, 1e-6)


def _levels(
    rows: NDArray[Any], config: Config, problems: Sequence[Problem], bench: Bench, statistics: float
) -> list[LevelRates]:
    weights = [_weight(level, problem) for level, problem in zip(config.levels, problems, strict=True)]
    found: list[LevelRates] = []
    for index, (level, problem) in enumerate(zip(config.levels, problems, strict=True)):
        share = weights[index] / sum(weights[index:])
        seconds = max(share * _FOR_LEVELS * bench.watch.left, _LEAST_SECONDS)
        rates, seen = _level(rows, level, problem, bench, seconds, statistics)
        found.append(rates)
        # The next level's points: the centroids found where they are all there, else rows in their place.
        complete = seen.finished and seen.clusters == level.clusters and level.splits == 1
        points = seen.centroids if complete else rows.astype(np.float32)
        rows = points[np.random.default_rng(bench.seed).permutation(len(points))]
    return found


def _level(
    rows: NDArray[Any],
    level: Level,
    problem: Problem,
    bench: Bench,
    seconds: float,
    statistics: float,
) -> tuple[LevelRates, Seen]:
    keep = level.resampling.rows_per_cluster if level.resampling else 0
    steps = resampling_steps(problem, level)
    part = 1.0 - (_FOR_SPLITS if level.splits > 1 else 0.0)
    fits = 2 if steps else 1
    first, seen = fit_rates(rows, fitted_points(problem, level), level, bench, part * seconds / fits, keep)
    resampled: FitRates | None = None
    if steps:
        kept = seen.kept if seen.kept is not None and len(seen.kept) >= seen.clusters else rows
        mixed = kept[np.random.default_rng(bench.seed).permutation(len(kept))]
        resampled, _ = fit_rates(mixed, kept_points(problem, level), level, bench, part * seconds / fits, alike=rows)
        # A likeness keeps fewer rows; how fast so many clusters are searched is known from the first fit.
        if seen.clusters < level.clusters:
            again = min(resampled.again, first.again)
            resampled = replace(
                resampled, search=first.search, label=first.label, again=again, pass_seconds=first.pass_seconds
            )
    splits = _split_rate(rows, level, problem, bench) if level.splits > 1 else None
    return LevelRates(first, resampled, splits, statistics), seen


def _weight(level: Level, problem: Problem) -> float:
    """How much of the time a level takes, roughly."""
    steps = resampling_steps(problem, level)
    fitted = fitted_points(problem, level) + steps * kept_points(problem, level)
    return (fitted * 10.0 + problem.count * (1 + steps)) * level.clusters * problem.dims


def _split_rate(rows: NDArray[Any], level: Level, problem: Problem, bench: Bench) -> float:
    """Rows/s of the fits within coarse clusters: of groups of neighbouring rows in their place."""
    size = max(min(problem.count // level.clusters, _SPLIT_ROWS), 1)
    used = min(size, len(rows))
    inner = replace(level, clusters=min(level.splits, used), splits=1, fit_rows=None, resampling=None)
    around = bench.around(lambda event: None)
    statistics, _ = measure(Points.all_of(MemoryRows(rows)), around)
    measured = Measured.of(Points.all_of(MemoryRows(rows)), statistics, bench.metric)
    groups = _groups(rows, used, bench)
    if fits_bundle(used, problem.dims, level, measured):
        numbers = np.arange(len(groups), dtype=np.int64)
        values = rows[np.concatenate(groups)]
        starts = np.arange(len(groups) + 1, dtype=np.int64) * used

        def some(which: NDArray[np.int64]) -> None:
            mine = np.concatenate([values[starts[at] : starts[at + 1]] for at in which])
            fit_bundle(mine, starts[: len(which) + 1], numbers[which], measured, level, around)

        some(numbers[:2])
        began, done, working = time.perf_counter(), 0, Working()
        threads = bench.executor.budget.threads
        while time.perf_counter() - began < 0.3 and bench.watch.left > 0:
            for _ in bench.executor.local.side_by_side(some, np.array_split(numbers, min(threads, len(numbers)))):
                pass
            done += len(groups)
        return max(done, 1) * used / max(working.seconds, 1e-6)
    # Side by side, each in one thread, as split fits are.
    threads = bench.executor.budget.threads
    with SerialExecutor(replace(bench.executor.budget, threads=1), bench.watch) as inline:

        def one(number: int) -> None:
            folder = bench.folder / f"split-{number}"
            folder.mkdir()
            look(rows[groups[number]], inner, replace(bench, executor=inline, folder=folder))

        began, done, working = time.perf_counter(), 0, Working()
        while done < len(groups) and (not done or time.perf_counter() - began < 0.4):
            some_more = range(done, min(done + threads, len(groups)))
            for _ in bench.executor.local.side_by_side(one, some_more):
                pass
            done = some_more.stop
        return done * used / max(working.seconds, 1e-6) * min(size / used, 1.0)


def _groups(rows: NDArray[Any], size: int, bench: Bench) -> list[NDArray[np.int64]]:
    """Row numbers of groups of neighbours."""
    random = np.random.default_rng(bench.seed)
    if size >= len(rows):
        return [np.arange(len(rows), dtype=np.int64)]
    found = []
    for centre in random.integers(0, len(rows), min(_SPLIT_GROUPS, max(_SPLIT_ROWS // size, 2))):
        which = np.zeros(len(rows), dtype=np.int64)
        near = kernels.squared_distances_of_pairs(
            rows, np.arange(len(rows)), centre_vectors(rows[[centre]], bench.metric), which, bench.metric
        )
        found.append(np.sort(np.argpartition(near, size)[:size]).astype(np.int64))
    return found
