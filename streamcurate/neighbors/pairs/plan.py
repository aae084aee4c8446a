"""Which pairs of cells have to be compared: the bounds of both sides brought together, in bounded memory.

Each tile gives bounds from its cells to others, those that are not hopeless; the bounds of a pair come from two tiles.
They meet in buckets by the lower tile of the two.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.files import disk_errors
from streamcurate.neighbors.pairs.tiles import TileTable
from streamcurate.streaming import MemoryBudget
from streamcurate.streaming.shuffle import RowBuckets

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Bounds = tuple[Int64, Int64, Float32]
"""Bounds M: from cells (m,), to cells (m,), and their values."""

PAIR = np.dtype([("low", "<i4"), ("high", "<i4"), ("forth", "<f4"), ("back", "<f4")])
SKIPPED = np.dtype(
    [("low", "<i8"), ("high", "<i8"), ("rows_low", "<i8"), ("rows_high", "<i8"), ("example_low", "<i8"),
     ("example_high", "<i8"), ("least", "<f8")]
)  # fmt: skip
_READ_RECORDS = 1 << 16
# A bound while the bounds of a bucket are matched.
_BYTES_MATCHED = 160
# Pairs of rows of a part of an item, and how many parts make one.
_FEWEST_PAIRS, _MOST_PAIRS = 10**8, 4 * 10**9
_PARTS_WANTED, _PARTS_AN_ITEM = 256, 8
HELD_TILES = 4
"""Lower tiles that a part holds while it goes through the higher ones: making a tile ready takes its time."""


@dataclass(frozen=True)
class SkippedPairs:
    """Pairs of cells that were not compared, at rest.

    Attributes
    ----------
    path : str
    count : int
    checksum : str
    """

    path: str
    count: int
    checksum: str

    def blocks(self, records: int = _READ_RECORDS) -> Iterator[NDArray[np.void]]:
        """Records of ``SKIPPED``: two cells, their rows, a row of each, and the least distance rows may have.

        Raises
        ------
        StoreError
            The file is gone or damaged.
        """
        digest, left = xxhash.xxh3_128(), self.count
        try:
            with open(self.path, "rb") as file:
                while left:
                    block = np.fromfile(file, SKIPPED, min(records, left))
                    if not len(block):
                        raise _damaged(self.path)
                    digest.update(block.view(np.uint8).data)
                    left -= len(block)
                    yield block
        except FileNotFoundError:
            raise _damaged(self.path) from None
        if digest.hexdigest() != self.checksum:
            raise _damaged(self.path)


@dataclass(frozen=True)
class Item:
    """Some pairs of cells of the plan, to be compared by one task.

    Attributes
    ----------
    start, stop : int
        Records of the plan.
    checksum : int
        Of these.
    pairs : int
        Pairs of rows in these cells.
    parts : tuple of int
        Where the parts begin whose lower tiles are held together, and ``stop``.
    """

    start: int
    stop: int
    checksum: int
    pairs: int
    parts: tuple[int, ...]

    def read(self, path: Path) -> NDArray[np.void]:
        """The pairs, records of ``PAIR``: by the lower cells' tiles held together, then by tile of the higher cell.

        Raises
        ------
        StoreError
            The file was damaged.
        """
        try:
            records = np.fromfile(path, PAIR, self.stop - self.start, offset=self.start * PAIR.itemsize)
        except FileNotFoundError:
            raise _damaged(path) from None
        if xxhash.xxh3_64_intdigest(records.view(np.uint8).data) != self.checksum:
            raise _damaged(path)
        return records


@dataclass(frozen=True)
class Plan:
    """What has to be compared across tiles.

    Attributes
    ----------
    path : Path
        Records of ``PAIR``.
    items : list of Item
    joined : int
        Pairs of different cells that are compared, those within a tile included.
    skipped : SkippedPairs or None
    """

    path: Path
    items: list[Item]
    joined: int
    skipped: SkippedPairs | None


def make_plan(
    bounds: Callable[[], Iterable[Bounds]],
    entries: int,
    table: TileTable,
    radius: float,
    missing: float,
    unit: float,
    folder: Path,
    budget: MemoryBudget,
    most_neighbours: int | None = None,
) -> Plan:
    """Match bounds and cut what is left into items.

    Parameters
    ----------
    bounds : callable
        Gives the bounds of all tiles, one tile after the other.
    entries : int
        How many they are.
    table : TileTable
    radius : float
        Of the geometry.
    missing : float
        What bounds that are not given are above of.
    unit : float
        Of distances in the geometry, for what is told.
    folder : Path
        For the plan; what lies there is removed.
    budget : MemoryBudget
        A quarter of it is used.
    most_neighbours : int, optional
        A pair is compared where it is among so many of the nearest possible ones of either cell.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    memory = budget.usable // 4
    edges = _bucket_edges(table, max(1, -(-2 * entries * _BYTES_MATCHED // max(memory, 1))))
    waiting = RowBuckets(folder / "bounds", len(edges) - 1, 1, np.dtype(np.float32), memory // 4, tags=2)
    for tails, heads, values in bounds():
        lower = table.tile_of_cell[np.minimum(tails, heads)]
        bucket = np.searchsorted(edges, lower, side="right") - 1
        waiting.add(bucket, values[:, None], np.stack([tails, heads], axis=1))
    waiting.flush()
    most = int(waiting.sizes.max(initial=0))
    budget.require(
        most * _BYTES_MATCHED, f"comparing the bounds of {most:,} pairs of cells", "choose a tighter threshold"
    )

    def possible() -> Iterator[tuple[Int64, Int64, Float32, Float32]]:
        for bucket in range(len(edges) - 1):
            yield _matched(waiting.values(bucket)[:, 0], waiting.tags(bucket), table.cells, radius, missing)

    keep = None
    if most_neighbours is not None:
        keep = _Nearest(table.cells, most_neighbours)
        keep.measure(possible, folder / "nearest", memory)
    path, skipped_path = folder / "pairs", folder / "skipped"
    items: list[Item] = []
    joined = skipped = 0
    total = sum(_pairs(table, low, high) for low, high, _, _ in possible())
    target = min(max(total // _PARTS_WANTED, _FEWEST_PAIRS), _MOST_PAIRS)
    digest, position = xxhash.xxh3_128(), 0
    with disk_errors(path), open(path, "wb") as file, open(skipped_path, "wb") as skips:
        for low, high, forth, back in possible():
            within = table.tile_of_cell[low] == table.tile_of_cell[high]
            chosen = np.ones(len(low), dtype=np.bool_) if keep is None else keep.holds(low, high, forth, back) | within
            joined += int(chosen.sum())
            if not chosen.all():
                records = _skipped(table, low[~chosen], high[~chosen], least_distance(forth, back)[~chosen] * unit)
                digest.update(records.view(np.uint8).data)
                records.tofile(skips)
                skipped += len(records)
            across = np.flatnonzero(chosen & ~within)
            tiles = table.tile_of_cell[low[across]], table.tile_of_cell[high[across]]
            across = across[np.lexsort((high[across], low[across], *tiles, tiles[0] // HELD_TILES))]
            records = np.empty(len(across), dtype=PAIR)
            records["low"], records["high"] = low[across], high[across]
            records["forth"], records["back"] = forth[across], back[across]
            records.tofile(file)
            items += _cut(records, table, position, target)
            position += len(records)
    waiting.close()
    told = SkippedPairs(str(skipped_path), skipped, digest.hexdigest()) if skipped else None
    return Plan(path, items, joined, told)


def _damaged(path: str | Path) -> StoreError:
    return StoreError(f"{path}: scratch is gone or damaged; give the same command again to rebuild it")


def least_distance(forth: Float32, back: Float32) -> NDArray[np.float64]:
    """The least distance that rows of two cells may have."""
    return np.maximum(forth.astype(np.float64) + back.astype(np.float64), 0.0)


def _bucket_edges(table: TileTable, buckets: int) -> Int64:
    """Cut the tiles into so many runs of about as many pairs with higher ones."""
    share = np.cumsum(np.diff(table.tiles) * np.arange(table.count, 0, -1))
    wanted = share[-1] * np.arange(1, buckets) / buckets if table.count else []
    return np.unique(np.concatenate([[0], np.searchsorted(share, wanted), [table.count]])).astype(np.int64)


def _matched(
    values: Float32, tags: Int64, cells: int, radius: float, missing: float
) -> tuple[Int64, Int64, Float32, Float32]:
    """Pairs of cells that may hold duplicates, by lower and higher cell, and the bounds both ways."""
    low, high = tags.min(axis=1, initial=cells), tags.max(axis=1, initial=0)
    keys, where = np.unique(low * cells + high, return_inverse=True)
    both = np.full((2, len(keys)), missing, dtype=np.float32)
    both[(tags[:, 0] > tags[:, 1]).astype(np.int64), where] = values
    fits = both[0].astype(np.float64) + both[1].astype(np.float64) <= radius
    keys, both = keys[fits], both[:, fits]
    return keys // max(cells, 1), keys % max(cells, 1), both[0], both[1]


def _pairs(table: TileTable, low: Int64, high: Int64) -> int:
    sizes = np.diff(table.edges).astype(np.float64)
    return int((sizes[low] * sizes[high]).sum())


def _skipped(table: TileTable, low: Int64, high: Int64, least: NDArray[np.float64]) -> NDArray[np.void]:
    records = np.empty(len(low), dtype=SKIPPED)
    sizes = np.diff(table.edges)
    for name, cells in (("low", low), ("high", high)):
        records[name], records[f"rows_{name}"], records[f"example_{name}"] = cells, sizes[cells], table.examples[cells]
    records["least"] = least
    return records


def _cut(records: NDArray[np.void], table: TileTable, position: int, target: int) -> list[Item]:
    """Items of the pairs of one bucket, which begin at ``position`` of the plan."""
    if not len(records):
        return []
    tiles = np.stack([table.tile_of_cell[records["low"]] // HELD_TILES, table.tile_of_cell[records["high"]]])
    sizes = np.diff(table.edges)
    weights = sizes[records["low"]] * sizes[records["high"]]
    starts = np.flatnonzero(np.append(True, (np.diff(tiles, axis=1) != 0).any(axis=0)))
    joins = np.add.reduceat(weights, starts)
    parts, pairs = [0], [0]
    for index, start in enumerate(starts.tolist()):
        if pairs[-1] and (pairs[-1] + joins[index] > target or tiles[0, start] != tiles[0, start - 1]):
            parts.append(start)
            pairs.append(0)
        pairs[-1] += int(joins[index])
    parts.append(len(records))
    items = []
    begin = 0
    while begin < len(pairs):
        end, filled = begin, 0
        while end < len(pairs) and (end == begin or filled + pairs[end] <= _PARTS_AN_ITEM * target):
            filled += pairs[end]
            end += 1
        start, stop = parts[begin], parts[end]
        checksum = xxhash.xxh3_64_intdigest(records[start:stop].view(np.uint8).data)
        inside = tuple(position + part for part in parts[begin : end + 1])
        items.append(Item(position + start, position + stop, checksum, filled, inside))
        begin = end
    return items


class _Nearest:
    """The nearest possible partners of each cell: of (least distance, partner), the largest that still counts."""

    def __init__(self, cells: int, most: int) -> None:
        self._cells, self._most = cells, most
        self._least = np.full(cells, np.inf)
        self._partner = np.full(cells, cells, dtype=np.int64)

    def measure(
        self, possible: Callable[[], Iterable[tuple[Int64, Int64, Float32, Float32]]], folder: Path, memory: int
    ) -> None:
        """Take in all possible pairs."""
        count = sum(2 * len(low) for low, _, _, _ in possible())
        buckets = min(max(1, -(-count * _BYTES_MATCHED // max(memory, 1))), max(self._cells, 1))
        waiting = RowBuckets(folder, buckets, 1, np.dtype(np.float64), memory // 4, tags=2)
        for low, high, forth, back in possible():
            least = least_distance(forth, back)
            tags = np.concatenate([np.stack([low, high], axis=1), np.stack([high, low], axis=1)])
            waiting.add(tags[:, 0] * buckets // self._cells, np.concatenate([least, least])[:, None], tags)
        waiting.flush()
        for bucket in range(buckets):
            least, tags = waiting.values(bucket)[:, 0], waiting.tags(bucket)
            order = np.lexsort((tags[:, 1], least, tags[:, 0]))
            cells = tags[order, 0]
            starts = np.flatnonzero(np.diff(cells, prepend=-1))
            counts = np.diff(np.append(starts, len(cells)))
            full = counts >= self._most
            last = order[starts[full] + self._most - 1]
            self._least[cells[starts[full]]] = least[last]
            self._partner[cells[starts[full]]] = tags[last, 1]
        waiting.close()

    def holds(self, low: Int64, high: Int64, forth: Float32, back: Float32) -> NDArray[np.bool_]:
        """Whether a pair is among the nearest of either of its cells."""
        least = least_distance(forth, back)
        kept = np.zeros(len(low), dtype=np.bool_)
        for one, other in ((low, high), (high, low)):
            kept |= (least < self._least[one]) | ((least == self._least[one]) & (other <= self._partner[one]))
        return kept
