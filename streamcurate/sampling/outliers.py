"""Lone outliers: clusters of hardly any rows that k-means keeps because they are far from everything else.

A cluster with at most ``rows`` rows under it is an outlier when its centroid lies farther from its parent's than those
of the clusters of its level that hold ``percentile`` per cent of the rows. Clusters of the top level have no parent's
centroid; there the count of rows alone decides: so few rows keep a top centroid only when no other is near. All rows of
the tree count, whichever may be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamcurate.sampling.hierarchy import Hierarchy, SampledLevel, segment_sums
from streamcurate.sampling.quotas import Filled, UInt64, fill
from streamcurate.sampling.weighted import Float64

Int64 = NDArray[np.int64]
Marks = NDArray[np.bool_]


def find_outliers(hierarchy: Hierarchy, levels: Sequence[SampledLevel], rows: int, percentile: float) -> list[Marks]:
    """Mark the outliers of every level, level 1 first.

    Parameters
    ----------
    hierarchy : Hierarchy
    levels : sequence of SampledLevel
        Their distances are those of the clusters below to their centroids.
    rows : int
        Most rows of an outlier.
    percentile : float
        Rounded to a thousandth.
    """
    under = hierarchy.totals(hierarchy.sizes)
    marks = []
    for number, held in enumerate(under, start=1):
        few = (held > 0) & (held <= rows)
        if number < hierarchy.depth and few.any():
            distances = levels[number].stored_distances
            few &= _beyond(np.asarray(distances.read(0, distances.rows), dtype=np.float32), held, percentile)
        marks.append(few)
    return marks


def distance_limit(distances: NDArray[np.float32], rows: Int64, percentile: float) -> np.float32:
    """The smallest distance within which clusters hold so much of the rows."""
    filled = np.flatnonzero(rows)
    order = filled[np.argsort(distances[filled], kind="stable")]
    up_to = np.cumsum(rows[order])
    # Rounded up in whole numbers.
    wanted = -(-int(up_to[-1]) * round(percentile * 1000) // 100_000)
    limit: np.float32 = distances[order[min(int(np.searchsorted(up_to, wanted)), len(order) - 1)]]
    return limit


def _beyond(distances: NDArray[np.float32], rows: Int64, percentile: float) -> Marks:
    with np.errstate(invalid="ignore"):  # NaN: an empty cluster
        beyond: Marks = distances > distance_limit(distances, rows, percentile)
    return beyond


def fill_apart(
    targets: Int64,
    capacities: Int64,
    offsets: Int64,
    keys: UInt64,
    lower: Int64 | None,
    weights: Float64 | None,
    outliers: Marks,
    most: Int64,
) -> tuple[Filled, Int64, Filled | None]:
    """Fill as :func:`.quotas.fill` does, the outliers of every parent together to no more than ``most``.

    Where they would give more, the parent's target is cut in two, and outliers and others are filled apart. Outliers
    still give what they must, and what the others cannot hold. Neither part shrinks when the target grows: of what the
    outliers would give, ``most`` (a share of the target, rounded down) and what the others leave, each grows by 0 or 1
    with every unit.

    Parameters
    ----------
    targets, capacities, offsets, keys, lower, weights
        As there.
    outliers : ndarray of bool, shape (c,)
    most : ndarray of int64, shape (p,)

    Returns
    -------
    filled : Filled
        Where the outliers are held down, levels, remainders and takers are those of the others.
    free : ndarray of int64, shape (p,)
        What the outliers of each parent would give.
    together : Filled or None
        What they give instead, with their levels, remainders and takers where they are held down; None where nowhere.
    """
    filled = fill(targets, capacities, offsets, keys, lower, weights)
    free = segment_sums(np.where(outliers, filled.quotas, 0), offsets)
    wanted = np.maximum(np.minimum(free, most), targets - segment_sums(np.where(outliers, 0, capacities), offsets))
    if lower is not None:
        wanted = np.maximum(wanted, segment_sums(np.where(outliers, lower, 0), offsets))
    held = np.flatnonzero(wanted < free)
    if not len(held):
        return filled, free, None
    counts = np.diff(offsets)
    ranks = np.full(len(targets), -1, dtype=np.int64)
    ranks[held] = np.arange(len(held))
    rank_of = np.repeat(ranks, counts)
    index = np.flatnonzero(rank_of >= 0)
    part = 2 * rank_of[index] + outliers[index]
    index = index[np.argsort(part, kind="stable")]
    parts = np.stack([targets[held] - wanted[held], wanted[held]], axis=1).ravel()
    again = fill(
        parts,
        capacities[index],
        np.append(0, np.cumsum(np.bincount(part, minlength=2 * len(held)))),
        keys[index],
        None if lower is None else lower[index],
        None if weights is None else weights[index],
    )
    filled.quotas[index] = again.quotas
    together = Filled(wanted, *(np.zeros_like(values) for values in (filled.levels, filled.remainders, filled.takers)))
    for target, start in ((filled, 0), (together, 1)):
        target.levels[held] = again.levels[start::2]
        target.remainders[held] = again.remainders[start::2]
        target.takers[held] = again.takers[start::2]
    return filled, free, together
