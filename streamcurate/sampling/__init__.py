"""Balanced draws from a tree: quotas first, then rows, then the selection's files.

>>> from streamcurate.sampling import water_fill
>>> import numpy as np
>>> water_fill(np.array([100, 3, 50]), 43)
array([20,  3, 20])
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamcurate.errors import CapacityError, ConfigError, InputError, RunError
from streamcurate.sampling.draw import NOTHING, STRATEGIES, check_strategy, draw_rows
from streamcurate.sampling.export import check_destination
from streamcurate.sampling.hierarchy import Hierarchy, SampledTree, read_hierarchy
from streamcurate.sampling.include import read_included
from streamcurate.sampling.quotas import ALLOCATIONS, leaf_quotas, segmented_water_fill, water_fill
from streamcurate.sampling.selection import Selection

__all__ = [
    "ALLOCATIONS",
    "STRATEGIES",
    "Hierarchy",
    "SampledTree",
    "Selection",
    "check_destination",
    "leaf_quotas",
    "read_hierarchy",
    "sample",
    "segmented_water_fill",
    "water_fill",
]

# Capacities are int64, and sums of them must be as well.
_LARGEST = 2**62


def sample(
    tree: SampledTree,
    size: int,
    strategy: str = "random",
    multiplier: int = 1,
    seed: int = 0,
    include: Any = None,
) -> Selection:
    """Draw a balanced sample from a finished tree.

    Quotas are water-filled from the root down (see :mod:`streamcurate.sampling.quotas`), so that the copies add up to
    ``size`` exactly; each leaf then gives its quota (see :mod:`streamcurate.sampling.draw`). The draw depends on the
    tree and the arguments alone, and with the same seed a smaller draw is part of a larger one.

    Parameters
    ----------
    tree : SampledTree
    size : int
        Rows to draw, copies counted.
    strategy : {"random", "closest", "furthest"}
        Which rows of a leaf come first.
    multiplier : int
        How often one row may be drawn.
    seed : int
    include : Selection, path (.parquet, .npy, .csv) or array of row numbers, optional
        An earlier draw. Its rows stay, with their copies, and count towards ``size``.

    Returns
    -------
    Selection

    Raises
    ------
    ConfigError
        An argument out of range.
    CapacityError
        ``size`` is above what the tree can give; the message says how much that is.
    InputError
        The earlier draw cannot be read, does not belong to the tree, or is larger than ``size``.
    RunError
        The tree is not finished.
    """
    size = _whole("size", size, 1, _LARGEST)
    multiplier = _whole("multiplier", multiplier, 1, _LARGEST)
    seed = _whole("seed", seed, 0, 2**64 - 1)
    check_strategy(strategy)
    if not tree.complete:
        raise RunError(f"{tree.path}: not finished yet; give the same cluster command again to finish it, then sample")
    hierarchy = read_hierarchy(tree)
    if hierarchy.rows * multiplier > _LARGEST:
        raise ConfigError(
            f"multiplier: {multiplier} is too large for {hierarchy.rows:,} rows; at most {_LARGEST // hierarchy.rows}"
        )
    leaves = tree.levels[0]
    capacities = hierarchy.sizes * multiplier
    included, lower, above = NOTHING, None, 0
    if include is not None:
        included = read_included(include, leaves.stored_labels, tree.path)
        if included.size > size:
            raise InputError(
                f"the earlier draw holds {included.size:,} rows, copies counted, more than the {size:,} asked for: "
                "size is the total, the earlier rows included; ask for more, or leave the earlier draw out"
            )
        lower = included.lower(len(capacities))
        kept = included.above(len(capacities), multiplier)
        above = int(kept.sum())
        capacities += kept
    capacity = int(capacities.sum())
    if size > capacity:
        remedy = f"ask for {capacity:,} or less, or raise the multiplier above {multiplier}"
        raise CapacityError(
            f"{tree.path}: {size:,} rows are asked for, at most {capacity:,} can be drawn "
            f"({hierarchy.rows:,} rows, each up to {_times(multiplier)}{_beside(above)}); {remedy}"
        )
    quotas = leaf_quotas(hierarchy, size, capacities, seed=seed, lower=lower)
    rows, copies = draw_rows(
        leaves.stored_members, hierarchy.leaf_offsets, quotas, strategy=strategy, seed=seed, included=included
    )
    return Selection(rows, copies, strategy, multiplier, seed, tree)


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ConfigError(f"{name}: {value!r} cannot be; give a whole number from {least} to {most}")
    return int(value)


def _times(multiplier: int) -> str:
    return "once" if multiplier == 1 else f"{multiplier} times"


def _beside(above: int) -> str:
    """What rows drawn more often before than they may be now add to the capacity."""
    copies = "1 copy" if above == 1 else f"{above:,} copies"
    return f", and {copies} above that in the earlier draw" if above else ""
