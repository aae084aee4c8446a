"""All that a report says, worked out from a run before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.balance import warnings_of
from streamcurate.kernels import Metric
from streamcurate.reports.branch import Branch, follow
from streamcurate.reports.coverage import Coverage, measure_coverage, pool_rows_measured
from streamcurate.reports.density import Axes, Frame, frame_of, principal_axes
from streamcurate.reports.drawn import DRAW_SAMPLE, POOL_SAMPLE, Drawn, random_draws, take_draw, uniform_places
from streamcurate.reports.exemplars import Exemplars, find_exemplars
from streamcurate.reports.history import History, read_history
from streamcurate.reports.measures import Balance, Histogram, balance, histograms, lorenz
from streamcurate.reports.thumbnails import Images
from streamcurate.sampling import Hierarchy, read_hierarchy
from streamcurate.sampling.metadata import Metadata
from streamcurate.streaming import MemoryBudget, ProgressListener, SerialExecutor
from streamcurate.tree import Tree

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

# Rows of a draw on its map.
_MAP_ROWS = 20_000
# Of the draw and of those it is compared with: rows, copies, places and their order. Of a cluster: offsets, members,
# sizes and counts at once.
_DRAWN_BYTES, _CLUSTER_BYTES = 120, 160
# Sampled rows in memory, as stored and as the map needs them, and what is looked up of them.
_SAMPLE_BYTES = 96 << 20


@dataclass(frozen=True, eq=False)
class LevelFindings:
    """How rows lie over the clusters of a level.

    Attributes
    ----------
    level, clusters, empty : int
    singletons : int
        Clusters that hold a single row.
    smallest, median, largest : float
        Rows under the clusters that hold any.
    pool, draw : Balance
    random : tuple of Balance
        Of several draws.
    histograms : list of Histogram
        Of the pool, the first random draw, and the draw.
    lorenz : list of ndarray
        The same.
    warnings : tuple of str
    """

    level: int
    clusters: int
    empty: int
    singletons: int
    smallest: float
    median: float
    largest: float
    pool: Balance
    draw: Balance
    random: tuple[Balance, ...]
    histograms: list[Histogram]
    lorenz: list[Float64]
    warnings: tuple[str, ...]

    @property
    def degenerate(self) -> bool:
        """Whether a warning calls it so."""
        return any("is degenerate" in text for text in self.warnings)

    def random_figure(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a figure over the random draws."""
        values = [float(getattr(each, name)) for each in self.random]
        return mean(values), stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True, eq=False)
class MapFindings:
    """Rows along two principal axes.

    Attributes
    ----------
    axes : Axes
    frame : Frame
    sampled : int
        Rows the axes and the map of the pool are made of.
    shares : list of ndarray
        Of the pool, a random draw, and the draw: shares of its rows in each hexagon.
    outside : list of float
        The same, outside the frame.
    rows, of : list of int
        Distinct rows on each map, and how many there are.
    """

    axes: Axes
    frame: Frame
    sampled: int
    shares: list[Float64]
    outside: list[float]
    rows: list[int]
    of: list[int]


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything on the page.

    Attributes
    ----------
    tree : Tree
    rows : int
        Under the root.
    draw : Drawn
    random_count : int
    levels : list of LevelFindings
        Level 1 first.
    top_sizes : ndarray of int64
        Rows under each top cluster.
    coverage : Coverage or None
        None where the store is gone; so with the map.
    random_coverage : tuple of Coverage
    pool_measured : int
        Rows of the pool whose distance was measured.
    map : MapFindings or None
    exemplars : Exemplars
    branch : Branch
    history : History
    warnings : list of str
    without_store : str or None
        Why there is neither coverage nor map.
    """

    tree: Tree
    rows: int
    draw: Drawn
    random_count: int
    levels: list[LevelFindings]
    top_sizes: Int64
    coverage: Coverage | None
    random_coverage: tuple[Coverage, ...]
    pool_measured: int
    map: MapFindings | None
    exemplars: Exemplars
    branch: Branch
    history: History
    warnings: list[str]
    without_store: str | None


@dataclass(frozen=True)
class Wanted:
    """What a user asks for; :func:`streamcurate.reports.report` says what it means.

    Attributes
    ----------
    selection, size, options
        Which draw.
    branch : int, (int, int) or None
    metadata : Metadata or None
    images : Images or None
    scratch : path or None
    """

    selection: Any
    size: int | None
    options: Mapping[str, Any]
    branch: int | tuple[int, int] | None
    metadata: Metadata | None
    images: Images | None
    scratch: str | os.PathLike[str] | None


def find_out(tree: Tree, wanted: Wanted, budget: MemoryBudget, listener: ProgressListener) -> Findings:
    """Work everything out.

    Raises
    ------
    InputError
        What was asked for does not fit the tree or the memory limit.
    """
    hierarchy = read_hierarchy(tree)
    means = {"memory_limit": budget.limit, "scratch": wanted.scratch, "progress": listener}
    draw = take_draw(tree, hierarchy, wanted.selection, wanted.size, wanted.options, **means)
    clusters = sum(hierarchy.clusters(level) for level in range(1, hierarchy.depth + 1))
    held = _DRAWN_BYTES * draw.size + _CLUSTER_BYTES * clusters + _SAMPLE_BYTES
    budget.require(held, f"{tree.path}: a report of {draw.size:,} drawn rows", "report on a smaller draw")
    listener.note("comparing with draws at random")
    # The seed of the draw, where it is known, so that other draws are compared with others.
    seed = int((draw.options or {}).get("seed", tree.seed))
    random = random_draws(tree, hierarchy, draw.size, seed)
    levels = _levels(tree, hierarchy, draw, random)
    covered, across, measured, without = None, None, 0, None
    random_covered: tuple[Coverage, ...] = ()
    # One that lies there with other values is an error: what a page said of its rows would be wrong.
    store = tree.embeddings()
    if store is None:
        place = tree.source.get("path") or "an array in memory"
        without = f"the rows that the tree was built from are not there any more ({place})"
    if store is not None:
        with SerialExecutor(budget, listener) as executor:
            metric: Metric = "cosine" if tree.metric == "cosine" else "l2"
            row_bytes = store.dims * store.dtype.itemsize
            measured = pool_rows_measured(len(draw.rows), store.dims, hierarchy.rows, row_bytes)
            pool_rows = _pool_sample(tree, hierarchy, measured, seed)
            pool = store.take(pool_rows)
            covered = measure_coverage(store, pool, pool_rows, draw, metric, executor, seed)
            random_covered = tuple(
                measure_coverage(store, pool, pool_rows, other, metric, executor, seed)
                for other in random[: _random_covers(draw, store.dims, measured)]
            )
            across = _map(store, pool, hierarchy.rows, metric, random[0], draw, seed)
    listener.note("looking up exemplars")
    exemplars = find_exemplars(
        tree, hierarchy, (draw.rows, draw.copies), wanted.metadata, wanted.images, wanted.scratch
    )
    sizes_at_top = hierarchy.totals(hierarchy.sizes)[-1]
    branch = follow(tree, hierarchy, draw, wanted.branch, means)
    history = read_history(tree.path)
    warnings = [text for level in levels for text in level.warnings]
    warnings += [text for text in tree.warnings if text not in warnings]
    return Findings(
        tree, hierarchy.rows, draw, len(random), levels, sizes_at_top, covered, random_covered, measured, across,
        exemplars, branch, history, warnings, without,
    )  # fmt: skip


def _random_covers(draw: Drawn, dims: int, measured: int) -> int:
    """How many random draws are searched too: several where that is cheap."""
    return 5 if 2.0 * len(draw.rows) * dims * measured <= 2e10 else 1


def _levels(tree: Tree, hierarchy: Hierarchy, draw: Drawn, random: list[Drawn]) -> list[LevelFindings]:
    found = []
    points = [level.sizes() for level in tree.levels]
    for index, sizes in enumerate(hierarchy.totals(hierarchy.sizes)):
        three = [sizes, random[0].counts[index], draw.counts[index]]
        filled = sizes[sizes > 0]
        found.append(
            LevelFindings(
                level=index + 1,
                clusters=len(sizes),
                empty=len(sizes) - len(filled),
                singletons=int(np.count_nonzero(sizes == 1)),
                smallest=float(filled.min()),
                median=float(np.median(filled)),
                largest=float(filled.max()),
                pool=balance(sizes, sizes),
                draw=balance(draw.counts[index], sizes),
                random=tuple(balance(other.counts[index], sizes) for other in random),
                histograms=histograms(three, sizes),
                lorenz=[lorenz(counts, sizes) for counts in three],
                warnings=warnings_of(index + 1, sizes, points[index]),
            )
        )
    return found


def _pool_sample(tree: Tree, hierarchy: Hierarchy, count: int, seed: int) -> Int64:
    """Rows of the tree, all equally likely; ascending."""
    places = uniform_places(hierarchy.rows, count, seed, (POOL_SAMPLE,))
    rows: Int64 = np.asarray(tree.levels[0].stored_members.take(places), dtype=np.int64)
    rows.sort()
    return rows


def _map(store: Any, pool: NDArray[Any], rows: int, metric: str, random: Drawn, draw: Drawn, seed: int) -> MapFindings:
    """The map of a sample of the pool of so many rows, and on the same axes those of two draws."""
    axes = principal_axes(pool, metric)
    places = axes.places(pool)
    frame = frame_of(places)
    counts = [frame.counts(places)]
    numbers = [len(pool)]
    for drawn in (random, draw):
        chosen = uniform_places(len(drawn.rows), min(_MAP_ROWS, len(drawn.rows)), seed, (DRAW_SAMPLE, 1))
        found, outside = np.zeros_like(counts[0][0]), 0
        # A few at a time: the rows of a draw may be far apart in the store, and they may be long.
        for start in range(0, len(chosen), 4096):
            part = chosen[start : start + 4096]
            here, out = frame.counts(axes.places(store.take(drawn.rows[part])), drawn.copies[part])
            found, outside = found + here, outside + out
        counts.append((found, outside))
        numbers.append(len(chosen))
    totals = [int(found.sum()) + outside for found, outside in counts]
    return MapFindings(
        axes=axes,
        frame=frame,
        sampled=len(pool),
        shares=[found / total for (found, _), total in zip(counts, totals, strict=True)],
        outside=[outside / total for (_, outside), total in zip(counts, totals, strict=True)],
        rows=numbers,
        of=[rows, len(random.rows), len(draw.rows)],
    )


def check_metadata(tree: Tree, metadata: Metadata | None) -> None:
    """Refuse metadata that does not fit the tree's rows, where position tells them.

    Raises
    ------
    InputError
        Naming what differs.
    """
    if metadata is None or metadata.key is not None:
        return
    noted = getattr(tree.embeddings(), "attributes", {})
    metadata.check_rows(tree.levels[0].stored_labels.rows, noted.get("rows_dropped") or 0)
    metadata.check_order([source["path"] for source in noted.get("sources") or []])


def has_ids(tree: Tree) -> bool:
    """Whether ids of the tree's rows can be looked up."""
    store = tree.embeddings()
    return store is not None and store.take_ids(np.zeros(1, dtype=np.int64)) is not None
