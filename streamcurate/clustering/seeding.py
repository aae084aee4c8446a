"""Where k-means starts: greedy k-means++, k-means|| or uniform rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering import centroids as kept
from streamcurate.clustering import oversampling, plus_plus
from streamcurate.clustering.centroids import Centroids, centre_vectors, in_memory
from streamcurate.clustering.lloyd import CHECKPOINT_SECONDS
from streamcurate.clustering.sample_rows import sampled_row_blocks
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.kernels import Backend, SeedingSpace
from streamcurate.runs.events import Seeded
from streamcurate.streaming import Block, Cost, MemoryBudget, State

Columns = tuple[NDArray[Any], ...]
_Encoded = tuple[int, NDArray[Any], NDArray[np.int64]]

# Bounds of `auto`, in numbers of the problem alone so that every machine chooses alike. k-means++ holds all rows in
# seeding form, which fits the smallest memory limit up to 2^27 bytes, and makes n k d (2 + ln k) operations: 2^42 are
# about a minute on two cores. k-means|| ends with a k-means++ over about 10 k candidates.
_PLUS_PLUS_BYTES = 1 << 27
_PLUS_PLUS_OPERATIONS = 1 << 42
_OVERSAMPLING_OPERATIONS = 1 << 45
# Random seeds are held twice while they are put together.
_IN_MEMORY_SHARE = 1 / 4
_PIECE_BYTES = 8 << 20


def choose_method(rows: int, clusters: int, dims: int) -> str:
    """The seeding ``auto`` stands for: ``k-means++``, ``k-means||`` or ``random``."""
    tries = plus_plus.trials(clusters)
    width = dims + 4 * 16  # the wider of the two seeding forms at small d, potentials and running sums
    if rows * (width + 8 * tries) <= _PLUS_PLUS_BYTES and rows * clusters * dims * tries <= _PLUS_PLUS_OPERATIONS:
        return "k-means++"
    candidates = oversampling.most_candidates(clusters)
    fits = candidates * (width + 8 * tries) <= _PLUS_PLUS_BYTES
    if fits and candidates * clusters * dims * tries <= _OVERSAMPLING_OPERATIONS:
        return "k-means||"
    return "random"


def require_memory(
    method: str, rows: int, clusters: int, encoded_row_bytes: int, budget: MemoryBudget, name: str
) -> None:
    """Refuse a seeding that holds more than the memory limit allows.

    Raises
    ------
    MemoryLimitError
    """
    if method == "k-means++":
        needed = plus_plus.working_bytes(rows, clusters, encoded_row_bytes)
        budget.require(needed, f"{name}: k-means++ over {rows:,} rows", "choose init: k-means||")
    elif method == "k-means||":
        needed = oversampling.working_bytes(clusters, encoded_row_bytes)
        budget.require(needed, f"{name}: k-means|| with {clusters:,} clusters", "choose init: random")


def seed(measured: Measured, clusters: int, method: str, around: Surroundings) -> tuple[Centroids, str]:
    """First centroids of a fit.

    Parameters
    ----------
    measured : Measured
    clusters : int
        At most the number of points.
    method : str
        ``auto``, ``k-means++``, ``k-means||`` or ``random``.
    around : Surroundings

    Returns
    -------
    centroids : Centroids
    method : str
        What ``auto`` chose.

    Raises
    ------
    MemoryLimitError
        The method holds more than the memory limit allows.
    """
    points = measured.points
    if (saved := kept.load("seeds", around)) is not None:
        return saved[0], str(saved[1]["method"])
    began = time.monotonic()
    chosen = choose_method(points.count, clusters, points.source.dims) if method == "auto" else method
    with around.stage("seeding", points.count, around.step):
        centroids = _seeds(measured, clusters, chosen, around)
    seconds = time.monotonic() - began
    around.emit(Seeded(level=around.level, step=around.step, method=chosen, clusters=clusters, seconds=seconds))
    if seconds > CHECKPOINT_SECONDS:
        kept.save("seeds", centroids, {"method": chosen}, around)
    return centroids, chosen


def _seeds(measured: Measured, clusters: int, method: str, around: Surroundings) -> Centroids:
    """First centroids by a method that ``auto`` is none of."""
    points, source = measured.points, measured.points.source
    if method == "random" or clusters == points.count:
        return _random(measured, clusters, around)
    space = kernels.seeding_space(measured.statistics, points.count, source.dims, around.metric)
    require_memory(method, points.count, clusters, space.bytes_per_row, around.executor.budget, source.name)
    if method == "k-means++":
        encoded, numbers = around.executor.run(_EncodePass(space), points, {})
        alike = np.empty(0, dtype=np.int64)
        potentials = plus_plus.potentials_of(encoded, clusters, space, around, alike)
        del encoded
        rows = numbers[plus_plus.greedy(potentials, len(numbers), clusters, around, alike)]
        del potentials
    else:
        rows = oversampling.oversample(measured, clusters, space, around)
    order = np.argsort(rows)
    vectors = np.empty((clusters, source.dims), dtype=np.float32)
    vectors[order] = centre_vectors(source.take(rows[order]), around.metric)
    return in_memory(vectors)


def _random(measured: Measured, clusters: int, around: Surroundings) -> Centroids:
    """Uniform rows as centroids, through a scratch array where they are many."""
    source = measured.points.source
    step = max(_PIECE_BYTES // (4 * source.dims), 1)
    pieces = (
        centre_vectors(source.take(rows[start : start + step]), around.metric)
        for rows in sampled_row_blocks(measured.points, clusters, Purpose.RANDOM_SEEDS, around)
        for start in range(0, len(rows), step)
    )
    if 4 * source.dims * clusters <= _IN_MEMORY_SHARE * around.executor.budget.usable:
        return in_memory(np.concatenate(list(pieces)))
    return kept.store(pieces, clusters, source.dims, "seeds", around)


@dataclass(frozen=True)
class _EncodePass:
    """All points in seeding form, and their row numbers, in memory."""

    space: SeedingSpace
    name: str = "seeding"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost(row_bytes=self.space.bytes_per_row, row_operations=16 * dims)

    def prepare(self, state: State, backend: Backend) -> Backend:
        return backend

    def chunk(self, block: Block, columns: Columns, backend: Backend) -> tuple[list[_Encoded], Columns]:
        return [(block.start, self.space.encode(block.values, backend), block.rows)], ()

    def combine(self, total: list[_Encoded], part: list[_Encoded]) -> list[_Encoded]:
        total.extend(part)
        return total

    def finalize(self, total: list[_Encoded] | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
        parts = sorted(total or [], key=lambda part: part[0], reverse=True)
        if total:
            total.clear()
        rows = sum(len(part[1]) for part in parts)
        encoded = np.empty((rows, *parts[-1][1].shape[1:]), dtype=parts[-1][1].dtype)
        numbers = np.empty(rows, dtype=np.int64)
        end = 0
        while parts:  # each part is let go as it is copied, so that all rows are never there twice
            _, part, own = parts.pop()
            encoded[end : end + len(part)], numbers[end : end + len(part)] = part, own
            end += len(part)
        return encoded, numbers
