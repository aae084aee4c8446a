"""The nearest seed of every row, found a segment of rows at a time; finished segments outlive a kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.new_rows import RowRange
from streamcurate.clustering.passes import Searching, centroids_ready, nearest_cost
from streamcurate.kernels import Backend, Metric
from streamcurate.neighbors.examples.ranges import ArrayRange, most_seeds, parts_of
from streamcurate.neighbors.examples.seeds import RowFaults, Seeds, faults_of, seed_tiles
from streamcurate.neighbors.examples.stages import Stages
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.digest import Digest
from streamcurate.storage import SequentialWriter, StoredArray, create_array, open_array
from streamcurate.streaming import Block, Cost, Executor, Output, Points, RowSource, State
from streamcurate.tree import add_array
from streamcurate.tree.level import aligned_chunk_rows

_BLOCK_ROWS = 1 << 18
_NO_SEED = 2**31 - 1
Columns = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class NearestSeedPass:
    """Nearest among the seeds of one tile and those before; columns and outputs: seeds (-1: none) and values.

    Attributes
    ----------
    seeds : int
        Of the tile.
    first : int
        The number of its first seed.
    limit : float or None
        The largest value that counts. Where it is known, rows far from all seeds cost no more than their scores.
    """

    metric: Metric
    seeds: int
    first: int
    limit: float | None
    name: str = "nearest seeds"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """The tile's seeds as given and as prepared; for each row two labels and values."""
        return nearest_cost(self.seeds, dims, held=0, row_bytes=96)

    def prepare(self, state: State, backend: Backend) -> Searching:
        """The tile's seeds."""
        return centroids_ready(state, backend, self.metric)

    def chunk(self, block: Block, columns: Columns, ready: Searching) -> tuple[RowFaults, Columns]:
        """Seeds and values of one block; of none of its rows where some have no distance."""
        backend, centroids = ready
        assert centroids is not None
        count = len(block.values)
        found = columns or (np.full(count, -1, dtype=np.int32), np.full(count, np.inf))
        faults = RowFaults() if columns else faults_of(block.values, block.rows, self.metric)
        if faults:
            return faults, found
        seeds, values = found
        if self.limit is not None:
            # A seed that does not exist, just beyond the limit: only what lies within is better.
            seeds, beyond = np.where(seeds < 0, np.int32(_NO_SEED), seeds), np.nextafter(self.limit, np.inf)
            values = np.where(seeds == _NO_SEED, beyond, values)
        previous = (seeds, values) if columns or self.limit is not None else None
        seeds, values = backend.nearest(block.values, centroids, previous, self.first)
        if self.limit is not None:
            far = values > self.limit
            seeds, values = np.where(far, np.int32(-1), seeds), np.where(far, np.inf, values)
        return faults, (seeds, values)

    def combine(self, total: RowFaults, part: RowFaults) -> RowFaults:
        """Those of both."""
        return total.combine(part)

    def finalize(self, total: RowFaults | None) -> RowFaults:
        """As they are."""
        return total or RowFaults()


class SeedDistances:
    """The nearest seed of every row, in scratch.

    Attributes
    ----------
    rows : int
    """

    def __init__(self, rows: int, segments: list[tuple[int, StoredArray, StoredArray]]) -> None:
        self.rows = rows
        self._segments = segments

    def blocks(self) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float64]]]:
        """First row, seeds (-1: none within the limit) and the formula's values, some rows at a time, in order."""
        for first, seeds, values in self._segments:
            for start in range(0, seeds.rows, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, seeds.rows)
                yield first + start, seeds.read(start, stop), values.read(start, stop)


@dataclass(frozen=True)
class Search:
    """What a search for seeds goes through, and where.

    Attributes
    ----------
    source : RowSource
    mask : StoredArray or None
        uint8, non-zero for rows that count.
    executor : Executor
    scratch : Path
    checkpoints : Checkpoints or None
    fingerprint : str
        Of rows, mask, seeds and limit: what was found with others is not taken over.
    stages : Stages
        What the executor tells of its passes.
    """

    source: RowSource
    mask: StoredArray | None
    executor: Executor
    scratch: Path
    checkpoints: Checkpoints | None
    fingerprint: str
    stages: Stages

    def points(self, start: int, stop: int) -> Points:
        """Those of rows ``start`` to ``stop`` that count."""
        piece = RowRange(self.source, start, stop)
        if self.mask is None:
            return Points.all_of(piece)
        count = 0
        for first in range(start, stop, _BLOCK_ROWS):
            count += int(np.count_nonzero(self.mask.read(first, min(first + _BLOCK_ROWS, stop))))
        return Points(piece, count, cast(StoredArray, ArrayRange(self.mask, start, stop)))


class FaultyRowsError(Exception):
    """Rows without a distance were met; whoever knows their names says which."""

    def __init__(self, faults: RowFaults) -> None:
        super().__init__(faults)
        self.faults = faults


def find_nearest(search: Search, seeds: Seeds, limit: float | None, name: str = "nearest") -> SeedDistances:
    """The nearest seed of every row.

    Parameters
    ----------
    search : Search
    seeds : Seeds
    limit : float or None
        The largest value that counts.
    name : str
        Of the segments.

    Raises
    ------
    FaultyRowsError
        Rows hold NaN or Inf, or under cosine only zeros.
    """
    source = search.source
    found = []
    edges = seed_tiles(
        seeds.rows,
        source,
        search.executor.budget,
        lambda tile: NearestSeedPass(seeds.metric, tile, 0, limit).cost(source.dims, source.dtype),
        most_seeds(source.dims),
    )
    tiles = len(edges) - 1
    operations = 2 * source.dims * seeds.rows
    with search.stages.one("nearest seeds", source.rows * tiles):
        for number, (start, stop) in enumerate(parts_of(source.rows, source.chunk_rows, operations)):
            folder = search.scratch / name / f"segment-{number}"
            kept = _kept(f"{name}/segment-{number}", folder, (start, stop), search)
            if kept is None:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                kept = _search(folder, search.points(start, stop), start, seeds, edges, limit, search)
                if search.checkpoints is not None:
                    values = {"rows": [start, stop], "fingerprint": search.fingerprint, "digest": _digest(*kept)}
                    search.checkpoints.save(f"{name}/segment-{number}", {}, values)
            search.stages.reached(stop * tiles)
            found.append((start, *kept))
    return SeedDistances(source.rows, found)


def _search(
    folder: Path, points: Points, start: int, seeds: Seeds, edges: list[int], limit: float | None, search: Search
) -> tuple[StoredArray, StoredArray]:
    """One segment, tile by tile of the seeds; the arrays are used in turn, since a pass cannot write what it reads."""
    source, executor = points.source, search.executor
    chunk = aligned_chunk_rows(source.rows, 2 * source.dims * (edges[1] - edges[0]))
    columns: tuple[StoredArray, ...] = ()
    for tile in range(len(edges) - 1):
        arrays = tuple(
            create_array(folder / f"{kind}-{tile % 2}", (source.rows,), dtype, chunk, durable=False, overwrite=True)
            for kind, dtype in (("seeds", np.int32), ("values", np.float64))
        )
        if not points.count:
            for array, fill in zip(arrays, (-1, np.inf), strict=True):
                with SequentialWriter(array) as writer:
                    for first in range(0, source.rows, _BLOCK_ROWS):
                        writer.append(np.full(min(_BLOCK_ROWS, source.rows - first), fill, dtype=array.dtype))
            return arrays[0], arrays[1]
        name = "nearest seeds" if len(edges) == 2 else f"nearest seeds, tile {tile + 1} of {len(edges) - 1}"
        first, last = edges[tile], edges[tile + 1]
        work = NearestSeedPass(seeds.metric, last - first, first, limit, name)
        state = {"centroids": seeds.centres.read(first, last)}
        outputs = (Output(arrays[0], -1), Output(arrays[1], np.inf))
        faults = executor.run(work, points, state, columns=columns, outputs=outputs)
        if faults:
            raise FaultyRowsError(shifted(faults, start))
        columns = arrays
    for kind in ("seeds", "values"):  # of the tile before the last, and as large
        shutil.rmtree(folder / f"{kind}-{(len(edges) - 1) % 2}", ignore_errors=True)
    return columns[0], columns[1]


def shifted(faults: RowFaults, start: int) -> RowFaults:
    """Faults of a range of rows that begins at ``start``, with the numbers of the whole."""
    bad = faults.first_bad + start if faults.bad else -1
    return RowFaults(faults.bad, bad, faults.zero, faults.first_zero + start if faults.zero else -1)


def _kept(name: str, folder: Path, rows: tuple[int, int], search: Search) -> tuple[StoredArray, StoredArray] | None:
    """A segment that an earlier process finished; None where there is none, or where it is not whole."""
    saved = None if search.checkpoints is None else search.checkpoints.load(name)
    if saved is None or (saved[1]["rows"], saved[1]["fingerprint"]) != (list(rows), search.fingerprint):
        return None
    for turn in (0, 1):
        try:
            arrays = open_array(folder / f"seeds-{turn}"), open_array(folder / f"values-{turn}")
            if _digest(*arrays) == saved[1]["digest"]:
                return arrays
        except Exception:  # scratch that is gone or damaged in whatever way is made again
            continue
    return None


def _digest(*arrays: StoredArray) -> str:
    digest = Digest()
    for array in arrays:
        add_array(digest, array)
    return digest.hexdigest()
