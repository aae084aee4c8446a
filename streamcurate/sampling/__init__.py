"""Balanced draws from a tree: quotas first, then rows, then the selection's files.

>>> from streamcurate.sampling import water_fill
>>> import numpy as np
>>> water_fill(np.array([100, 3, 50]), 43)
array([20,  3, 20])
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import CapacityError, ConfigError, InputError, RunError
from streamcurate.files import check_scratch
from streamcurate.sampling.draw import NOTHING, STRATEGIES, Included, check_strategy, draw_rows, with_rows
from streamcurate.sampling.eligible import Eligible, eligible_rows
from streamcurate.sampling.export import check_destination, check_options, make_options, write
from streamcurate.sampling.hierarchy import Hierarchy, SampledTree, read_hierarchy
from streamcurate.sampling.include import read_included
from streamcurate.sampling.quotas import ALLOCATIONS, leaf_quotas, segmented_water_fill, water_fill
from streamcurate.sampling.selection import Selection
from streamcurate.streaming.budget import MemoryBudget, parse_bytes
from streamcurate.streaming.progress import ProgressListener, Silent

__all__ = [
    "ALLOCATIONS",
    "STRATEGIES",
    "Hierarchy",
    "SampledTree",
    "Selection",
    "check_destination",
    "check_options",
    "leaf_quotas",
    "make_options",
    "read_hierarchy",
    "sample",
    "segmented_water_fill",
    "water_fill",
    "write",
]

# Capacities are int64, and sums of them must be as well.
_LARGEST = 2**62
# Measured: rows, copies, and their order while the pieces are put together.
_DRAWN_BYTES = 40
# Offsets, sizes, capacities, quotas, keys and their work space.
_CLUSTER_BYTES = 100


def sample(
    tree: SampledTree,
    size: int,
    strategy: str = "random",
    multiplier: int = 1,
    seed: int = 0,
    include: Any = None,
    eligible: Any = None,
    *,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
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
    include : Selection, path (.parquet, .npy, .csv, .arrow, .zarr) or array of row numbers, optional
        An earlier draw. Its rows stay, with their copies, and count towards ``size``, eligible or not.
    eligible : path, array, sequence or selection, optional
        The rows that may be drawn: row numbers, a mask, or ids; see :mod:`streamcurate.embeddings.rowlist`. The draw is
        that from a tree whose members are the eligible rows alone. Rows outside the tree are passed over.
    memory_limit : int or str, optional
        Bytes this process may use; by default half of what is available.
    scratch : path, optional
        Folder for what a long list of eligible rows needs; by default the system's for temporary files.
    progress : ProgressListener, optional

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
    MemoryLimitError
        A draw so large does not fit the memory limit.
    """
    check_scratch(scratch)
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
    budget = MemoryBudget.of(parse_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit, 1)
    held = _DRAWN_BYTES * min(size, hierarchy.rows) + _CLUSTER_BYTES * hierarchy.clusters(1)
    budget.require(held, f"{tree.path}: drawing {size:,} rows", "draw fewer rows")
    leaves = tree.levels[0]
    included = NOTHING if include is None else read_included(include, leaves.stored_labels, tree.path)
    if included.size > size:
        raise InputError(
            f"the earlier draw holds {included.size:,} rows, copies counted, more than the {size:,} asked for: "
            "size is the total, the earlier rows included; ask for more, or leave the earlier draw out"
        )
    listener = progress or Silent()
    with ExitStack() as stack:
        found = None
        if eligible is not None:
            memory = budget.usable - held
            found = stack.enter_context(eligible_rows(eligible, tree, hierarchy, included, memory, scratch, listener))
        rows, copies = _drawn(tree, hierarchy, found, size, strategy, multiplier, seed, included, listener)
    return Selection(rows, copies, strategy, multiplier, seed, tree, None if found is None else found.hierarchy.rows)


def _drawn(
    tree: SampledTree,
    hierarchy: Hierarchy,
    eligible: Eligible | None,
    size: int,
    strategy: str,
    multiplier: int,
    seed: int,
    included: Included,
    listener: ProgressListener,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    members, fixed = tree.levels[0].stored_members, NOTHING
    if eligible is not None:
        hierarchy, members = eligible.hierarchy, eligible.members
        # Earlier rows that are not eligible keep the copies they have, and get no more.
        included, fixed = included.part(eligible.included), included.part(~eligible.included)
    clusters = hierarchy.clusters(1)
    given = fixed.lower(clusters)
    above = included.above(clusters, multiplier) + given
    capacities = hierarchy.sizes * multiplier + above
    capacity = int(capacities.sum())
    if size > capacity:
        which = "" if eligible is None else f" of {eligible.name}"
        remedy = f"ask for {capacity:,} or less, or raise the multiplier above {multiplier}"
        raise CapacityError(
            f"{tree.path}: {size:,} rows are asked for, at most {capacity:,} can be drawn "
            f"({hierarchy.rows:,} rows{which}, each up to {_times(multiplier)}{_beside(int(above.sum()))}); {remedy}"
        )
    lower = None
    if included.size or fixed.size:
        lower = included.lower(clusters) + given
    quotas = leaf_quotas(hierarchy, size, capacities, seed=seed, lower=lower) - given
    rows, copies = draw_rows(
        members,
        hierarchy.leaf_offsets,
        quotas,
        strategy=strategy,
        seed=seed,
        included=included,
        listener=listener,
    )
    return with_rows(rows, copies, fixed)


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
