"""What building a level consists of: its stages, and of each the passes, bytes and operations.

The counts follow the code in ``clustering``: a pass over n rows of b bytes reads n b bytes, as its report says. What
depends on the rows themselves is given at its most (iterations) or as expected (passes that draw rows).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from streamcurate.clustering import oversampling, plus_plus
from streamcurate.clustering.kept_labels import FEW_ROWS
from streamcurate.clustering.seeding import choose_method
from streamcurate.config import Level

# Labels and the bounds of the distance to other centroids, kept from pass to pass, or labels alone; labels and values
# between tiles.
KEPT_BYTES, LABEL_BYTES = 8, 4
TILE_BYTES = 12
# Row number and cluster of a row that is regrouped; a record while members are sorted.
TAG_BYTES, RECORD_BYTES = 16, 16
_ROUND_BYTES = 12
_RUNNING_ITERATIONS = 10


class Layout(Protocol):
    """What depends on where a level is computed: how centroids are laid out in memory."""

    def fit_tiles(self, points: int, clusters: int, value_bytes: int) -> int:
        """Tiles of the centroids in an iteration; 1 where all are in memory."""

    def label_tiles(self, points: int, clusters: int, value_bytes: int, keep: int) -> int:
        """The same for a pass that only labels, keeping so many points of each cluster."""

    def keeps_labels(self, points: int, clusters: int, value_bytes: int) -> bool:
        """Whether labels are kept on disk between iterations, so that later ones search less."""


@dataclass(frozen=True)
class DeviceLayout:
    """GPUs of so many bytes for centroids: those given and laid out for the search, or with sums of two limbs."""

    dims: int
    device_bytes: float

    def fit_tiles(self, points: int, clusters: int, value_bytes: int) -> int:
        """Centroids and sums, 24 bytes a coordinate."""
        return math.ceil(clusters * self.dims * 24 / self.device_bytes)

    def label_tiles(self, points: int, clusters: int, value_bytes: int, keep: int) -> int:
        """Centroids alone, 8 bytes a coordinate."""
        return math.ceil(clusters * self.dims * 8 / self.device_bytes)

    def keeps_labels(self, points: int, clusters: int, value_bytes: int) -> bool:
        """A GPU searches again in less time than it would take to find out which rows need it."""
        return False


@dataclass(frozen=True)
class PassCount:
    """Passes of one name: how often within a stage, over how many rows, and the bytes of rows each reads.

    ``exact`` is False where chance decides how often.
    """

    name: str
    times: float
    rows: int
    bytes: int
    exact: bool = True


@dataclass(frozen=True)
class Stage:
    """What one kind of work costs, ``fits`` times ``iterations`` over.

    Attributes
    ----------
    name : str
    points, clusters, row_bytes : int
        What it is over.
    flop, read, written : float
        Operations of the full search, bytes read and written: once.
    fits : int
        How often it is done, iterations aside.
    iterations : int
        At most, of each fit; 1 for what is no iteration.
    passes : tuple of PassCount
        Once.
    resampled : bool
        Belongs to fits on resampled points.
    kept : bool
        Labels are kept between iterations, or taken over from the last one.
    sums_bytes : int
        Of one task's partial sums over the clusters of a tile; where several processes work, they go through files. A
        task of fewer points than ``sums_clusters`` touches, and writes, that many fewer.
    driver_records : int
        What one process merges alone.
    tiles : int
        Passes over the same rows that it consists of, each with a part of the centroids.
    dims : int
    method : str
        Of seeding.
    """

    name: str
    points: int
    clusters: int
    row_bytes: int
    flop: float
    read: float
    written: float
    fits: int = 1
    iterations: int = 1
    passes: tuple[PassCount, ...] = ()
    resampled: bool = False
    kept: bool = False
    sums_bytes: int = 0
    sums_clusters: int = 1
    driver_records: int = 0
    tiles: int = 1
    dims: int = 0
    method: str = ""

    @property
    def times(self) -> int:
        """The most it is done."""
        return self.fits * self.iterations


@dataclass(frozen=True)
class Problem:
    """The points of a level.

    Attributes
    ----------
    rows : int
        Of the source.
    count : int
        Those that count.
    dims, value_bytes : int
    """

    rows: int
    count: int
    dims: int
    value_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored row."""
        return self.dims * self.value_bytes

    def of(self, rows: int) -> Problem:
        """So many of the rows, gathered."""
        return replace(self, rows=rows, count=rows)

    def above(self, level: Level) -> Problem:
        """The clusters of a level as points of the next: at most."""
        clusters = min(level.most_clusters, self.count)
        return Problem(clusters, clusters, self.dims, 4)


def fitted_points(problem: Problem, level: Level) -> int:
    """Points of a level's first fit."""
    return min(level.fit_rows or problem.count, problem.count)


def kept_points(problem: Problem, level: Level) -> int:
    """Points that resampling keeps, at most."""
    keep = level.resampling.rows_per_cluster if level.resampling else 0
    return min(level.clusters * keep, problem.count)


def leaf_clusters(problem: Problem, level: Level) -> int:
    """Clusters a level ends with, at most."""
    return min(level.most_clusters, problem.count)


def resampling_steps(problem: Problem, level: Level) -> int:
    """Steps that are done: none where fewer points would be kept than there are clusters."""
    if level.resampling is None or kept_points(problem, level) < level.clusters:
        return 0
    return level.resampling.steps


def seeding_method(init: str, points: int, clusters: int, dims: int) -> str:
    """How so many points are seeded."""
    chosen = choose_method(points, clusters, dims) if init == "auto" else init
    return "all rows" if clusters == points else chosen


def level_stages(problem: Problem, level: Level, layout: Layout) -> list[Stage]:
    """The stages of a level, in their order."""
    return [replace(stage, dims=problem.dims) for stage in _stages(problem, level, layout)]


def _stages(problem: Problem, level: Level, layout: Layout) -> Iterator[Stage]:
    rows, row_bytes, clusters = problem.rows, problem.row_bytes, level.clusters
    whole = float(rows * row_bytes)
    over_rows = PassCount("statistics", 1, rows, rows * row_bytes)
    yield Stage("statistics", rows, clusters, row_bytes, 8.0 * rows * problem.dims, whole, 0, passes=(over_rows,))
    first = problem
    fitted = fitted_points(problem, level)
    if fitted < problem.count:
        bytes_moved = float(fitted * row_bytes)
        yield Stage(
            "sample rows", fitted, clusters, row_bytes, 0, bytes_moved, bytes_moved,
            passes=(_drawing(rows, problem.count),),
        )  # fmt: skip
        first = problem.of(fitted)
    yield from _fit(first, level, layout)
    steps = resampling_steps(problem, level)
    if steps:
        assert level.resampling is not None
        kept = kept_points(problem, level)
        bytes_moved = float(kept * row_bytes)
        keep = level.resampling.rows_per_cluster
        labelled = _labels(problem, level, layout, "resampling", keep)
        # The first of these follows the iterations over the same points, if there were any.
        yield replace(labelled, fits=steps, kept=False)
        yield Stage("gather", kept, clusters, row_bytes, 0, bytes_moved, bytes_moved, fits=steps)
        for stage in _fit(problem.of(kept), level, layout):
            yield replace(stage, fits=steps, resampled=True)
    takes_over = not steps and fitted == problem.count and layout.keeps_labels(rows, clusters, problem.value_bytes)
    if level.splits > 1:
        coarse = _labels(problem, level, layout, "coarse labels", 0)
        yield replace(coarse, written=coarse.written - 4.0 * rows)
        moved = float(problem.count * (row_bytes + TAG_BYTES))
        yield Stage("regroup", rows, clusters, row_bytes, 0, whole + 4 * rows, moved)
        yield Stage(
            "split fits", problem.count, level.splits, row_bytes,
            split_operations(problem.count, level, problem.dims), moved, 16.0 * problem.count,
        )  # fmt: skip
        yield Stage("split labels", rows, clusters, 0, 0, 32.0 * rows, 24.0 * rows, driver_records=problem.count)
    else:
        yield replace(_labels(problem, level, layout, "labels", 0), kept=takes_over)
    yield Stage("members", rows, clusters, 0, 0, 24.0 * rows, 24.0 * rows, driver_records=problem.count)
    digested = 4.0 * rows + 8.0 * problem.count + leaf_clusters(problem, level) * (4.0 * problem.dims + 8)
    yield Stage("digest", rows, clusters, 0, 0, digested, 0)


def beside_iterations(rows: int, kept: bool) -> int:
    """Bytes on disk that an iteration leaves to the next for each row, where all centroids are in memory."""
    return KEPT_BYTES if kept else LABEL_BYTES if rows > FEW_ROWS else 0


def split_operations(points: int, level: Level, dims: int, iterations: float | None = None) -> float:
    """Operations of the fits within coarse clusters: seeding, iterations and final labels of all of them."""
    splits = min(level.splits, max(points // level.clusters, 1))
    method = seeding_method(level.init, max(points // level.clusters, 1), splits, dims)
    tries = plus_plus.trials(splits) if method == "k-means++" else _RUNNING_ITERATIONS
    done = level.iterations if iterations is None else iterations
    return 2.0 * points * splits * dims * (done + 1 + tries)


def _fit(problem: Problem, level: Level, layout: Layout) -> Iterator[Stage]:
    """Seeding and iterations over these points."""
    points, clusters, dims = problem.count, level.clusters, problem.dims
    rows, row_bytes = problem.rows, problem.row_bytes
    method = seeding_method(level.init, points, clusters, dims)
    whole = rows * row_bytes
    if method == "k-means++":
        flop = 2.0 * points * clusters * dims * plus_plus.trials(clusters)
        seeding = Stage("seeding", rows, clusters, row_bytes, flop, whole, 0, passes=(_pass("seeding", rows, whole),))
    elif method == "k-means||":
        candidates = oversampling.most_candidates(clusters)
        flop = 2.0 * candidates * dims * (points + clusters * plus_plus.trials(clusters))
        rounds = oversampling.ROUNDS
        beside = float(_ROUND_BYTES * rows)
        seeding = Stage(
            "seeding", rows, clusters, row_bytes, flop,
            (rounds + 1) * whole + rounds * beside + 8.0 * rounds * rows + 4.0 * rows, (rounds + 1) * beside,
            passes=(
                _drawing(rows, points), _pass("k-means|| round", rows, whole, rounds + 1),
                _pass("k-means|| draw", rows, 0, rounds), _pass("k-means|| weights", rows, 0),
            ),
        )  # fmt: skip
    else:
        drawn = () if method == "all rows" else (_drawing(rows, points),)
        seeding = Stage("seeding", clusters, clusters, row_bytes, 0, float(clusters * row_bytes), 0, passes=drawn)
    yield replace(seeding, method=method)
    if level.algorithm == "minibatch":
        batch = min(64 * max(4 * clusters, 4096), rows)
        flop = 2.0 * batch * clusters * dims
        yield Stage("warm-up", batch, clusters, row_bytes, flop, float(batch * row_bytes), 0)
    tiles = layout.fit_tiles(rows, clusters, problem.value_bytes)
    own = -(-clusters // tiles)
    sums_bytes = 8 * own * (dims * (1 if problem.value_bytes == 2 else 2) + 1)
    search = 2.0 * points * clusters * dims
    if tiles == 1:
        kept = layout.keeps_labels(rows, clusters, problem.value_bytes)
        beside = float(beside_iterations(rows, kept) * rows)
        yield Stage(
            "iterations", rows, clusters, row_bytes, search, whole + beside, beside, iterations=level.iterations,
            passes=(_pass("k-means pass", rows, whole),), kept=kept, sums_bytes=sums_bytes, sums_clusters=own,
        )  # fmt: skip
        return
    # Labels tile by tile, beside the label and value that the tiles before found; then sums tile by tile, the first of
    # them beside the labels of the iteration before.
    read = tiles * (whole + float(TILE_BYTES * rows))
    labelled = tuple(_pass(f"labels, tile {tile + 1} of {tiles}", rows, whole) for tile in range(tiles))
    yield Stage(
        "iterations", rows, clusters, row_bytes, search, read, float(tiles * TILE_BYTES * rows),
        iterations=level.iterations, passes=labelled, tiles=tiles,
    )  # fmt: skip
    summed = (_pass("sums of a tile", rows, whole, tiles),)
    yield Stage(
        "sums", rows, clusters, row_bytes, 2.0 * tiles * points * dims, read + LABEL_BYTES * rows, 0,
        iterations=level.iterations, passes=summed, sums_bytes=sums_bytes, sums_clusters=own * tiles, tiles=tiles,
    )  # fmt: skip


def _labels(problem: Problem, level: Level, layout: Layout, name: str, keep: int) -> Stage:
    """A pass that labels all points, tile by tile where the centroids do not fit."""
    rows, row_bytes, clusters = problem.rows, problem.row_bytes, level.clusters
    whole = rows * row_bytes
    # What splits and resampling label they do with all centroids in memory, or say before that they cannot.
    tiles = 1 if name == "coarse labels" else layout.label_tiles(rows, clusters, problem.value_bytes, keep)
    beside = 2.0 * TILE_BYTES * rows * (tiles - 1)
    passes = [_pass(f"labels, tile {tile + 1} of {tiles}", rows, whole) for tile in range(tiles if tiles > 1 else 0)]
    passes.append(_pass(name, rows, whole if tiles == 1 else 0))
    flop = 2.0 * problem.count * clusters * problem.dims
    written = (0.0 if keep else 8.0 * rows) + beside
    read = tiles * whole + beside
    return Stage(name, rows, clusters, row_bytes, flop, read, written, passes=tuple(passes), tiles=tiles)


def _pass(name: str, rows: int, size: int, times: int = 1) -> PassCount:
    return PassCount(name, times, rows, size)


def _drawing(rows: int, count: int) -> PassCount:
    """Rows are drawn by 16 bits of their random numbers at a time, until a digit holds none beyond those wanted."""
    mean = max(count, 1) / 65536
    return PassCount("drawing rows", 2 + math.expm1(-mean) / mean, rows, 0, exact=False)
