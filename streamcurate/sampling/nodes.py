"""The clusters of a tree with their bounds and weights, and quotas from the root down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import ConfigError, InputError
from streamcurate.sampling.allocations import BALANCED, Allocation
from streamcurate.sampling.hierarchy import Hierarchy, SampledLevel
from streamcurate.sampling.outliers import fill_apart, find_outliers
from streamcurate.sampling.quotas import Filled, fill, node_keys
from streamcurate.sampling.weighted import LARGEST_TARGET, Float64, powers, rounded_weights
from streamcurate.sampling.weights import ClusterWeights

Int64 = NDArray[np.int64]
Marks = NDArray[np.bool_]

# Shares are rounded to millionths.
_MILLION = 1_000_000


@dataclass(frozen=True)
class Shares:
    """How the parents of a level share their quotas.

    Attributes
    ----------
    children : ndarray of int64, shape (c,)
        Clusters ordered by parent.
    offsets : ndarray of int64, shape (p + 1,)
    filled : Filled
        What each child gives. Where outliers are held down, levels, remainders and takers are those of the others.
    outliers_free : ndarray of int64, shape (p,), or None
        What the outliers of each parent would give without a share.
    outliers : Filled or None
        What they give together instead, and their levels, remainders and takers where they are held down.
    """

    children: Int64
    offsets: Int64
    filled: Filled
    outliers_free: Int64 | None = None
    outliers: Filled | None = None


@dataclass(frozen=True)
class Nodes:
    """Bounds and weights of every cluster; every list begins with level 1.

    Attributes
    ----------
    hierarchy : Hierarchy
    seed : int
    rows : list of ndarray of int64, or None
        Rows under each cluster, without those of clusters that give nothing; None where no weight asks for them.
    capacities : list of ndarray of int64
        The most each can give, copies counted.
    lower : list of ndarray of int64, or None
        The least each must give.
    nothing : list of ndarray of bool, or None
        Clusters that an option makes give nothing.
    weights : list of (ndarray of float64, or None)
        None at a level where all are 1.
    outliers : list of ndarray of bool, or None
    outlier_millionths : int
        Their share.
    taken : tuple of (str, int)
        Options, and by how much each lowers what can be drawn.
    leasts_unmet : int
        Clusters that can give less than their least.
    """

    hierarchy: Hierarchy
    seed: int
    rows: list[Int64] | None
    capacities: list[Int64]
    lower: list[Int64] | None
    nothing: list[Marks] | None
    weights: list[Float64 | None]
    outliers: list[Marks] | None
    outlier_millionths: int
    taken: tuple[tuple[str, int], ...]
    leasts_unmet: int = 0

    @property
    def capacity(self) -> int:
        """The most that can be drawn."""
        return int(self.capacities[-1].sum())

    @property
    def least(self) -> int:
        """The least that must be drawn."""
        return 0 if self.lower is None else int(self.lower[-1].sum())

    def quotas(self, target: int) -> Iterator[tuple[int, Int64]]:
        """Levels from the top down, and what each of their clusters gives of ``target``."""
        if target > LARGEST_TARGET and any(weights is not None for weights in self.weights):
            raise ConfigError(f"size: {target:,} cannot be shared by weights; ask for {LARGEST_TARGET:,} or less")
        quotas = np.array([target], dtype=np.int64)
        for level in range(self.hierarchy.depth, 0, -1):
            shares = self.share(level, quotas)
            # Children that nobody lists are empty clusters: they give nothing.
            quotas = np.zeros(self.hierarchy.clusters(level), dtype=np.int64)
            quotas[shares.children] = shares.filled.quotas
            yield level, quotas

    def share(self, level: int, quotas: Int64, first: int = 0) -> Shares:
        """Share the quotas of parents among their children, clusters of ``level``.

        Parameters
        ----------
        level : int
        quotas : ndarray of int64, shape (p,)
            Of parents ``first`` to ``first + p``; what they share does not depend on other parents.
        first : int
        """
        children, offsets = self.hierarchy.children(level)
        offsets = offsets[first : first + len(quotas) + 1]
        children, offsets = children[offsets[0] : offsets[-1]], offsets - offsets[0]
        weights = self.weights[level - 1]
        capacities, keys = self.capacities[level - 1][children], node_keys(self.seed, level, children)
        lower = None if self.lower is None else self.lower[level - 1][children]
        weights = None if weights is None else weights[children]
        if self.outliers is None:
            return Shares(children, offsets, fill(quotas, capacities, offsets, keys, lower, weights))
        outliers, most = self.outliers[level - 1][children], self.most_of_outliers(quotas)
        filled, free, together = fill_apart(quotas, capacities, offsets, keys, lower, weights, outliers, most)
        return Shares(children, offsets, filled, free, together)

    def most_of_outliers(self, quotas: Int64) -> Int64:
        """⌊share · quota⌋, in whole numbers."""
        whole, rest = np.divmod(quotas, _MILLION)
        most: Int64 = whole * self.outlier_millionths + rest * self.outlier_millionths // _MILLION
        return most


def make_nodes(
    hierarchy: Hierarchy,
    capacities: Int64,
    allocation: Allocation = BALANCED,
    *,
    seed: int = 0,
    lower: Int64 | None = None,
    levels: Sequence[SampledLevel] = (),
    whole: Hierarchy | None = None,
) -> Nodes:
    """Work out the bounds and weights of every cluster.

    Parameters
    ----------
    hierarchy : Hierarchy
    capacities : ndarray of int64, shape (k of level 1,)
        The most each cluster of level 1 can give, were there no options.
    allocation : Allocation
    seed : int
    lower : ndarray of int64, shape (k of level 1,), optional
        What each gives at least (rows drawn before).
    levels : sequence of SampledLevel
        Their distances find the outliers; needed for these alone.
    whole : Hierarchy, optional
        Of all rows, where ``hierarchy`` is of the eligible ones: it says what an outlier is.

    Raises
    ------
    ConfigError
        A level that does not exist.
    InputError
        The weights do not belong to the tree, or contradict each other.
    """
    depth, said = hierarchy.depth, allocation.weights
    if allocation.least_rows_level > depth:
        raise ConfigError(f"least_rows_level: {allocation.least_rows_level} cannot be; the levels are 1 to {depth}")
    if said is not None:
        said.check(hierarchy)
    everything = int(capacities.sum())
    held = np.zeros_like(capacities) if lower is None else lower
    taken: list[tuple[str, int]] = []
    nothing: list[Marks] | None = None
    if allocation.least_rows:
        nothing = [np.zeros(hierarchy.clusters(level), dtype=bool) for level in range(1, depth + 1)]
        under = hierarchy.totals(hierarchy.sizes)[allocation.least_rows_level - 1]
        nothing[allocation.least_rows_level - 1] |= (under > 0) & (under < allocation.least_rows)
        _spread_down(hierarchy, nothing)
        capacities = np.where(nothing[0], held, capacities)
        level_text = "" if allocation.least_rows_level == 1 else f" at level {allocation.least_rows_level}"
        taken.append((f"least_rows {allocation.least_rows}{level_text}", everything - int(capacities.sum())))
        everything = int(capacities.sum())
    if said is not None and any(found.nothing.any() for found in said.levels.values()):
        nothing = nothing or [np.zeros(hierarchy.clusters(level), dtype=bool) for level in range(1, depth + 1)]
        for level, found in said.levels.items():
            nothing[level - 1][found.clusters[found.nothing]] = True
        _spread_down(hierarchy, nothing)
        capacities = np.where(nothing[0], held, capacities)
    most, least, unmet = _bounds(hierarchy, capacities, lower, nothing, said)
    if said is not None:
        taken.append((said.name, everything - int(most[-1].sum())))
    sizes = hierarchy.sizes if nothing is None else np.where(nothing[0], 0, hierarchy.sizes)
    rows = None if allocation.alpha == 0 else hierarchy.totals(sizes)
    share = allocation.outlier_share
    return Nodes(
        hierarchy,
        seed,
        rows,
        most,
        least,
        nothing,
        [_weights(hierarchy, level, rows, allocation) for level in range(1, depth + 1)],
        None
        if share is None
        else find_outliers(whole or hierarchy, levels, allocation.outlier_rows, allocation.outlier_percentile),
        0 if share is None else round(share * _MILLION),
        tuple(taken),
        unmet,
    )


def leaf_quotas(
    hierarchy: Hierarchy,
    target: int,
    capacities: Int64,
    *,
    seed: int = 0,
    lower: Int64 | None = None,
    allocation: Allocation = BALANCED,
    levels: Sequence[SampledLevel] = (),
) -> NDArray[np.int64]:
    """Share ``target`` down the tree: at the root among the top clusters, then inside every cluster.

    Parameters
    ----------
    hierarchy : Hierarchy
    target : int
        Rows to draw, copies counted; at most what the clusters can give.
    capacities, seed, lower, allocation, levels
        As for :func:`make_nodes`.

    Returns
    -------
    ndarray of int64, shape (k of level 1,)
        Adds up to ``target``.
    """
    nodes = make_nodes(hierarchy, capacities, allocation, seed=seed, lower=lower, levels=levels)
    quotas = np.empty(0, dtype=np.int64)
    for _, found in nodes.quotas(target):
        quotas = found
    return quotas


def _spread_down(hierarchy: Hierarchy, marks: list[Marks]) -> None:
    """Mark what lies below a marked cluster."""
    for level in range(hierarchy.depth - 1, 0, -1):
        children, offsets = hierarchy.children(level)
        marks[level - 1][children] |= np.repeat(marks[level], np.diff(offsets))


def _bounds(
    hierarchy: Hierarchy,
    capacities: Int64,
    earlier: Int64 | None,
    nothing: list[Marks] | None,
    said: ClusterWeights | None,
) -> tuple[list[Int64], list[Int64] | None, int]:
    """The most and the least that every cluster gives, from the leaves up; and how many cannot give their least."""
    if said is None:
        return hierarchy.totals(capacities), None if earlier is None else hierarchy.totals(earlier), 0
    kept = hierarchy.totals(np.zeros_like(capacities) if earlier is None else earlier)
    most: list[Int64] = []
    least: list[Int64] = []
    unmet = 0
    for level in range(1, hierarchy.depth + 1):
        if level > 1:
            capacities, low = (hierarchy.sums(level, values[-1]) for values in (most, least))
        else:
            low = kept[0]
        found = said.levels.get(level)
        if found is not None:
            clusters = hierarchy.clusters(level)
            caps, leasts = found.dense("caps", clusters), found.dense("leasts", clusters)
            # Rows drawn before stay, above a cap too.
            capacities = np.where(caps < 0, capacities, np.minimum(capacities, np.maximum(caps, kept[level - 1])))
            if (low > capacities).any():
                cluster = int(np.argmax(low > capacities))
                place = said.place(int(found.lines[found.clusters == cluster][0]))
                raise InputError(
                    f"{place}: cap {int(caps[cluster])} of cluster {cluster} of level {level} "
                    f"is below the {int(low[cluster]):,} that the clusters under it give at least; raise the cap, or "
                    "lower a least"
                )
            if nothing is not None:
                leasts = np.where(nothing[level - 1], 0, leasts)
            unmet += int((leasts > capacities).sum())
            low = np.maximum(low, np.minimum(leasts, capacities))
        most.append(capacities)
        least.append(low)
    return most, least, unmet


def _weights(hierarchy: Hierarchy, level: int, rows: list[Int64] | None, allocation: Allocation) -> Float64 | None:
    said = None if allocation.weights is None else allocation.weights.levels.get(level)
    own = None if rows is None else powers(rows[level - 1], allocation.alpha)
    if said is not None and not np.isnan(said.weights).all():
        given = said.dense_weights(hierarchy.clusters(level))
        own = given if own is None else own * given
    return None if own is None else rounded_weights(own)
