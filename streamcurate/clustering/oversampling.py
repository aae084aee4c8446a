"""k-means||: seeds from a few passes, each drawing many candidates at once (Bahmani et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.plus_plus import plus_plus
from streamcurate.clustering.sample_rows import sampled_rows
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.kernels import Backend, SeedingSpace
from streamcurate.kernels.trials import Search
from streamcurate.storage import StoredArray, create_array
from streamcurate.streaming import Block, Cost, Output, State
from streamcurate.tree.level import aligned_chunk_rows

# Five rounds of 2k candidates reach what more rounds do not improve (Bahmani et al. 2012, section 5).
ROUNDS = 5
OVERSAMPLING = 2
# Tiles of 512 rows and 1,024 candidates as float32 and their product; the sample that columns are chosen by.
_SEARCH_BYTES = 16 << 20

Columns = tuple[NDArray[Any], ...]


def most_candidates(clusters: int) -> int:
    """How many candidates to plan memory for: the expected number with room for chance."""
    return 1 + ROUNDS * OVERSAMPLING * clusters + 8 * int((ROUNDS * OVERSAMPLING * clusters) ** 0.5) + 64


def working_bytes(clusters: int, encoded_row_bytes: int) -> int:
    """Memory the choice among the candidates takes."""
    from streamcurate.clustering import plus_plus as greedy

    return greedy.working_bytes(most_candidates(clusters), clusters, encoded_row_bytes)


@dataclass(frozen=True)
class _PotentialPass:
    """Lower every row's potential by the new candidates; columns and outputs: potentials, nearest candidates.

    ``candidates`` new ones, the first of them number ``first`` of all; the state holds them encoded.
    """

    space: SeedingSpace
    candidates: int
    first: int
    name: str = "k-means|| round"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost(
            fixed_bytes=self.space.search_bytes(self.candidates),
            thread_bytes=_SEARCH_BYTES,
            row_bytes=self.space.bytes_per_row + 64,
            row_operations=2 * dims * self.candidates,
        )

    def prepare(self, state: State, backend: Backend) -> tuple[Backend, Search | None]:
        candidates = state["candidates"]
        return backend, self.space.search(candidates, backend) if len(candidates) else None

    def chunk(self, block: Block, columns: Columns, ready: tuple[Backend, Search | None]) -> tuple[int, Columns]:
        backend, search = ready
        encoded = self.space.encode(block.values, backend)
        if columns:
            potentials, nearest = columns[0].copy(), columns[1].copy()
        else:
            potentials = np.full(len(encoded), np.iinfo(np.int64).max, dtype=np.int64)
            nearest = np.zeros(len(encoded), dtype=np.int32)
        if search is not None:  # by chance no row was drawn
            search.lower(encoded, potentials, nearest, self.first)
        return int(potentials.sum()), (potentials, nearest)

    def combine(self, total: int, part: int) -> int:
        return total + part

    def finalize(self, total: int | None) -> int:
        return total or 0


@dataclass(frozen=True)
class _DrawPass:
    """Rows drawn for the next round, each with probability ``wanted * potential / total``; column: potentials."""

    seed: int
    stream: tuple[int, ...]
    wanted: int
    total: int
    name: str = "k-means|| draw"
    reads_values: bool = False

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost(fixed_bytes=16 * self.wanted, row_bytes=64)

    def prepare(self, state: State, backend: Backend) -> None:
        return None

    def chunk(self, block: Block, columns: Columns, ready: None) -> tuple[list[NDArray[np.int64]], Columns]:
        bits = kernels.random_bits(self.seed, self.stream, block.rows)
        # 53 bits as a fraction; each of these operations is rounded the same way everywhere.
        fraction = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        drawn = fraction * float(self.total) < columns[0].astype(np.float64) * float(self.wanted)
        return [block.rows[drawn]], ()

    def combine(self, total: list[NDArray[np.int64]], part: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        total.extend(part)
        return total

    def finalize(self, total: list[NDArray[np.int64]] | None) -> NDArray[np.int64]:
        return np.sort(np.concatenate(total)) if total else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class _CountPass:
    """How many points each candidate is nearest to; column: nearest candidates."""

    candidates: int
    name: str = "k-means|| weights"
    reads_values: bool = False

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        return Cost(fixed_bytes=16 * self.candidates, row_bytes=16)

    def prepare(self, state: State, backend: Backend) -> None:
        return None

    def chunk(self, block: Block, columns: Columns, ready: None) -> tuple[NDArray[np.int64], Columns]:
        return np.bincount(columns[0], minlength=self.candidates).astype(np.int64, copy=False), ()

    def combine(self, total: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.int64]:
        return total + part

    def finalize(self, total: NDArray[np.int64] | None) -> NDArray[np.int64]:
        assert total is not None
        return total


def oversample(measured: Measured, clusters: int, space: SeedingSpace, around: Surroundings) -> NDArray[np.int64]:
    """Row numbers of ``clusters`` seeds by k-means||.

    Parameters
    ----------
    measured : Measured
    clusters : int
    space : SeedingSpace
    around : Surroundings

    Returns
    -------
    ndarray of int64, shape (clusters,)
        Distinct row numbers, in the order in which they were chosen.
    """
    points, executor = measured.points, around.executor
    folder = around.scratch / around.name / "seeding"
    folder.mkdir(parents=True, exist_ok=True)
    chunk = aligned_chunk_rows(points.source.rows, 2 * points.source.dims * OVERSAMPLING * clusters)
    rows = sampled_rows(points, 1, Purpose.OVERSAMPLING, around)
    fresh = rows
    columns: tuple[StoredArray, ...] = ()
    for turn in range(ROUNDS + 1):
        outputs = tuple(
            create_array(
                folder / f"{kind}-{turn % 2}",
                (points.source.rows,),
                dtype,
                chunk,
                durable=False,
                overwrite=True,
            )
            for kind, dtype in (("potentials", np.int64), ("nearest", np.int32))
        )
        work = _PotentialPass(space, max(len(fresh), 1), len(rows) - len(fresh))
        state = {"candidates": space.encode(points.source.take(fresh))}
        total = executor.run(
            work, points, state, columns=columns, outputs=(Output(outputs[0], 0), Output(outputs[1], 0))
        )
        columns = outputs
        if turn == ROUNDS or total == 0:
            break
        draw = _DrawPass(around.seed, around.stream(Purpose.OVERSAMPLING, turn + 1), OVERSAMPLING * clusters, total)
        drawn = executor.run(draw, points, {}, columns=columns[:1])
        fresh = np.setdiff1d(drawn, rows)
        rows = np.concatenate([rows, fresh])
    weights = executor.run(_CountPass(len(rows)), points, {}, columns=columns[1:])
    if len(rows) < clusters:  # chance, or fewer distinct rows than clusters: top up with uniform rows
        more = np.setdiff1d(sampled_rows(points, min(2 * clusters, points.count), Purpose.RANDOM_SEEDS, around), rows)
        more = more[np.argsort(around.random_bits(Purpose.RANDOM_SEEDS, more), kind="stable")]
        return np.concatenate([rows, more[: clusters - len(rows)]])
    order = np.argsort(rows)
    encoded = space.encode(points.source.take(rows[order]))
    return rows[order][plus_plus(encoded, clusters, space, around, np.maximum(weights[order], 1))]
