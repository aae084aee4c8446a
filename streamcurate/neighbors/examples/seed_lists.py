"""For each seed its nearest rows: tiles of seeds, each against all rows, with bounds that tighten from range to range.

What is found so far bounds what may still count: a row farther from a seed than all that its full list holds needs no
look. So rows are gone through in ranges that double, from a few thousand on, from fewer where seeds are many; what the
bounds leave of each range is then about as much as the lists hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.embeddings.rowsets import write_numbers
from streamcurate.kernels import Backend, Metric, NearestSelection
from streamcurate.neighbors.examples.nearest_seeds import FaultyRowsError, Search, shifted
from streamcurate.neighbors.examples.ranges import ChosenRows, most_seeds, parts_of
from streamcurate.neighbors.examples.seeds import RowFaults, Seeds, faults_of, seed_tiles
from streamcurate.streaming import Block, Cost, State
from streamcurate.streaming.shuffle import SortedRecords

# Lists of a tile of seeds travel and are kept; a tile of more gains nothing over two.
_LISTS_BYTES = 32 << 20
_FIRST_ROWS = 1 << 13
_FEWEST_ROWS = 64
# Of the first range, of which every pair is evaluated: about a second.
_FIRST_OPERATIONS = 1 << 32
_SORT_BYTES = 32 << 20
# Lists are kept no more often, since they may be large and rows quickly read, nor so often that it takes a larger share
# of the time: about what a kill may cost.
_SECONDS_KEPT = 3.0
_SHARE_KEPT = 0.05


@dataclass(frozen=True)
class _Ready:
    seeds: Any  # as kernels.screen_seeds laid them out
    bounds: NDArray[np.float64]


@dataclass(frozen=True)
class SeedListPass:
    """The nearest rows of each seed of a tile, among a range of the rows.

    State: ``centroids``, and ``bounds``, the largest value that counts for each.

    Attributes
    ----------
    seeds : int
        Of the tile.
    keep : int
        Rows of each seed.
    start : int
        The number of the range's first row.
    """

    metric: Metric
    seeds: int
    keep: int
    start: int
    name: str = "nearest rows of seeds"
    reads_values: bool = True

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """The tile's seeds as given and as laid out; the lists so far, and those of every block under way."""
        lists = self.seeds * (16 * self.keep + 24)
        return Cost(
            fixed_bytes=3 * lists + self.seeds * (8 * dims + 32),
            thread_bytes=kernels.nearest_rows_workspace_bytes(dims, self.seeds, self.keep),
            row_bytes=64,
            row_operations=2 * dims * self.seeds,
        )

    def prepare(self, state: State, backend: Backend) -> _Ready:
        """The tile's seeds; on a GPU's worker, too, lists are made by the CPU."""
        return _Ready(kernels.screen_seeds(state["centroids"], self.metric), state["bounds"])

    def chunk(
        self, block: Block, columns: tuple[NDArray[Any], ...], ready: _Ready
    ) -> tuple[tuple[NearestSelection, RowFaults], tuple[NDArray[Any], ...]]:
        """The lists of one block; empty ones where some of its rows have no distance."""
        faults = faults_of(block.values, block.rows, self.metric)
        values = block.values[:0] if faults else block.values
        numbers = block.rows[: len(values)] + self.start
        return (kernels.nearest_rows(values, numbers, ready.seeds, self.keep, ready.bounds), faults), ()

    def combine(
        self, total: tuple[NearestSelection, RowFaults], part: tuple[NearestSelection, RowFaults]
    ) -> tuple[NearestSelection, RowFaults]:
        """Both together; adds into ``total``."""
        return total[0].combine(part[0]), total[1].combine(part[1])

    def finalize(self, total: tuple[NearestSelection, RowFaults] | None) -> tuple[NearestSelection, RowFaults]:
        """As they are."""
        return (NearestSelection.empty(self.seeds, self.keep), RowFaults()) if total is None else total


def rows_of_seeds(search: Search, seeds: Seeds, keep: int, limit: float | None) -> ChosenRows:
    """All rows that are among the ``keep`` nearest of any seed.

    Parameters
    ----------
    search : Search
    seeds : Seeds
    keep : int
    limit : float or None
        The largest value that counts.

    Raises
    ------
    FaultyRowsError
        Rows hold NaN or Inf, or under cosine only zeros.
    MemoryLimitError
        The list of a single seed does not fit.
    """
    source, budget = search.source, search.executor.budget

    def work(tile: int, start: int = 0) -> SeedListPass:
        return SeedListPass(seeds.metric, tile, keep, start)

    one = work(1).cost(source.dims, source.dtype)
    needed = one.fixed_bytes + budget.threads * one.thread_bytes
    budget.require(needed, f"a list of {keep:,} rows for a seed", "give a smaller --per-seed")
    largest = min(_LISTS_BYTES // (16 * keep + 24), most_seeds(source.dims))
    edges = seed_tiles(
        seeds.rows, source, budget, lambda tile: work(tile).cost(source.dims, source.dtype), max(largest, 1)
    )
    folder = search.scratch / "lists"
    sorting = SortedRecords(folder, min(budget.usable // 8, _SORT_BYTES))
    try:
        with search.stages.one("nearest rows of seeds", source.rows * (len(edges) - 1)):
            for tile, (first, last) in enumerate(pairwise(edges)):
                found = _lists(search, seeds, (first, last), keep, limit, f"tile-{tile}", tile * source.rows)
                rows = np.unique(found.finalize()[0])
                sorting.add(rows.astype(np.uint64), rows)
        chosen = write_numbers(search.scratch / "chosen-rows.npy", _distinct(sorting))
    finally:
        sorting.close()
    return ChosenRows(source, chosen)


def _distinct(sorting: SortedRecords) -> Iterator[NDArray[np.int64]]:
    previous = -1
    for records in sorting.blocks():
        rows = np.ascontiguousarray(records["row"])
        if len(rows):
            yield rows[np.diff(rows, prepend=previous) != 0]
            previous = int(rows[-1])


def _lists(
    search: Search, seeds: Seeds, tile: tuple[int, int], keep: int, limit: float | None, name: str, before: int
) -> NearestSelection:
    """The lists of one tile of seeds; tiles before it went through ``before`` rows."""
    first, last = tile
    total = NearestSelection.empty(last - first, keep)
    begin = 0
    identity = {"tile": [first, last], "keep": keep, "fingerprint": search.fingerprint}
    saved = None if search.checkpoints is None else search.checkpoints.load(f"lists/{name}")
    if saved is not None and {key: saved[1].get(key) for key in identity} == identity:
        arrays, begin = saved[0], int(saved[1]["next"])
        total = NearestSelection(
            last - first, keep, None, arrays["counts"], total.offsets, arrays["keys"], arrays["rows"]
        )
    source = search.source
    state = {"centroids": seeds.centres.read(first, last)} if begin < source.rows else {}
    search.stages.reached(before + begin)
    kept_at, pause = time.monotonic(), _SECONDS_KEPT
    for start, stop in _ranges(begin, source.rows, source.chunk_rows, 2 * source.dims * (last - first)):
        points = search.points(start, stop)
        if points.count:
            bounds = np.full(last - first, np.inf if limit is None else limit)
            full = total.counts == keep
            bounds[full] = kernels.values_of_keys(total.keys.reshape(-1, keep)[full, keep - 1])
            work = SeedListPass(seeds.metric, last - first, keep, start)
            part, faults = search.executor.run(work, points, {**state, "bounds": bounds})
            if faults:
                raise FaultyRowsError(shifted(faults, start))
            total = total.combine(part)
        search.stages.reached(before + stop)
        began = time.monotonic()
        late = began - kept_at >= pause
        if search.checkpoints is not None and (late or stop == source.rows):
            arrays = {"counts": total.counts, "keys": total.keys, "rows": total.rows}
            search.checkpoints.save(f"lists/{name}", arrays, identity | {"next": stop})
            kept_at = time.monotonic()
            pause = max(_SECONDS_KEPT, (kept_at - began) / _SHARE_KEPT)
    return total


def _ranges(begin: int, rows: int, chunk_rows: int, row_operations: int) -> Iterator[tuple[int, int]]:
    """Rows from ``begin`` on in ranges that double, up to the parts that other passes go through."""
    largest = next((stop - start for start, stop in parts_of(rows, chunk_rows, row_operations)), 1)
    smallest = max(min(_FIRST_ROWS, _FIRST_OPERATIONS // row_operations), _FEWEST_ROWS)
    start = begin
    while start < rows:
        size = min(max(start, smallest), largest)
        if chunk_rows <= size:
            size = size // chunk_rows * chunk_rows
        stop = min(start + size, rows)
        yield start, stop
        start = stop
