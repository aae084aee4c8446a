"""Balanced draws from a tree: quotas first, then rows, then the selection's files.

>>> from streamcurate.sampling import water_fill
>>> import numpy as np
>>> water_fill(np.array([100, 3, 50]), 43)
array([20,  3, 20])
"""

from __future__ import annotations

import os
from typing import Any

from streamcurate.sampling.allocations import ALLOCATIONS, Allocation, make_allocation
from streamcurate.sampling.draw import STRATEGIES
from streamcurate.sampling.explain import Explanation, explain_branch
from streamcurate.sampling.export import check_destination, check_options, make_options, write
from streamcurate.sampling.hierarchy import Hierarchy, SampledTree, read_hierarchy
from streamcurate.sampling.nodes import leaf_quotas
from streamcurate.sampling.prepare import prepared
from streamcurate.sampling.quotas import segmented_water_fill, water_fill
from streamcurate.sampling.selection import Selection
from streamcurate.streaming.progress import ProgressListener

__all__ = [
    "ALLOCATIONS",
    "STRATEGIES",
    "Allocation",
    "Explanation",
    "Hierarchy",
    "SampledTree",
    "Selection",
    "check_destination",
    "check_options",
    "explain",
    "leaf_quotas",
    "make_allocation",
    "make_options",
    "read_hierarchy",
    "sample",
    "segmented_water_fill",
    "water_fill",
    "write",
]


def sample(
    tree: SampledTree,
    size: int,
    strategy: str = "random",
    multiplier: int = 1,
    seed: int = 0,
    include: Any = None,
    eligible: Any = None,
    *,
    allocation: str = "balanced",
    alpha: float | None = None,
    least_rows: int | None = None,
    least_rows_level: int | None = None,
    weights: Any = None,
    outlier_share: float | None = None,
    outlier_rows: int | None = None,
    outlier_percentile: float | None = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> Selection:
    """Draw a sample from a finished tree, balanced or by another allocation.

    Quotas are water-filled from the root down (see :mod:`streamcurate.sampling.quotas`), so that the copies add up to
    ``size`` exactly; each leaf then gives its quota (see :mod:`streamcurate.sampling.draw`). The draw depends on the
    tree and the arguments alone, and with the same seed and options a smaller draw is part of a larger one. The options
    of the allocation combine; :mod:`streamcurate.sampling.allocations` says in which order they act.

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
    allocation : {"balanced", "proportional", "power"}
        What the children of a cluster give is in proportion to 1, to the rows under them, or to these rows to the power
        ``alpha``, as far as each holds that much.
    alpha : float, optional
        For ``power``: from 0 (balanced) to 1 (proportional), rounded to a multiple of 2**-24.
    least_rows : int, optional
        Clusters with fewer rows (with ``eligible``: fewer eligible rows) give nothing beside earlier rows.
    least_rows_level : int, optional
        The level of these clusters; 1, that above the rows, by default.
    weights : path (.csv, .parquet), mapping or sequence, optional
        Of single clusters, with the columns ``level`` and ``cluster`` and any of ``weight`` (0 or more: multiplies what
        the allocation gives a cluster beside its siblings), ``cap`` (rows it gives at most, copies counted; earlier
        rows stay) and ``least`` (rows it gives at least, if it holds them); see
        :func:`streamcurate.sampling.weights.read_weights`.
    outlier_share : float, optional
        Lone outliers give together at most this share of what their parent gives, as long as others can give the rest.
    outlier_rows : int, optional
        Most rows of the tree under an outlier, eligible or not; 1 by default.
    outlier_percentile : float, optional
        Below the top level, an outlier lies farther from its parent's centroid than the clusters of its level that hold
        this percentage of the rows; 90 by default.
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
        ``size`` is above what the tree can give; the message says how much that is, and which option took how much.
    InputError
        The earlier draw or the weights cannot be read, do not belong to the tree, or ask for more than ``size``.
    RunError
        The tree is not finished.
    MemoryLimitError
        A draw so large does not fit the memory limit.
    """
    options = make_allocation(
        allocation, alpha, least_rows, least_rows_level, weights, outlier_share, outlier_rows, outlier_percentile
    )
    with prepared(
        tree, size, strategy, multiplier, seed, include, eligible, options, memory_limit, scratch, progress
    ) as draw:
        notes = draw.notes()
        for note in notes:
            draw.listener.note(note)
        rows, copies = draw.rows()
        made = options.options
        return Selection(rows, copies, strategy, draw.multiplier, draw.seed, tree, draw.eligible, made, notes)


def explain(
    tree: SampledTree,
    size: int,
    strategy: str = "random",
    multiplier: int = 1,
    seed: int = 0,
    include: Any = None,
    eligible: Any = None,
    *,
    row: int | None = None,
    id: str | int | None = None,
    cluster: tuple[int, int] | None = None,
    allocation: str = "balanced",
    alpha: float | None = None,
    least_rows: int | None = None,
    least_rows_level: int | None = None,
    weights: Any = None,
    outlier_share: float | None = None,
    outlier_rows: int | None = None,
    outlier_percentile: float | None = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> Explanation:
    """Say how the quotas of a draw come about, from the root down to a row or a cluster.

    What it says is worked out by the code that draws. Without a row, an id or a cluster it is about the root alone.

    Parameters
    ----------
    tree, size, strategy, multiplier, seed, include, eligible
        As for :func:`sample`, and so are the options of the allocation and all below.
    row : int, optional
        A row of the store.
    id : str or int, optional
        The id of a row; of several rows that share it, the first is meant.
    cluster : (int, int), optional
        A level and the number of a cluster in it.

    Returns
    -------
    Explanation
        Printed, it is text for people; ``to_dict()`` is all of it.

    Raises
    ------
    InputError
        As for :func:`sample`; or the row, the id or the cluster does not exist, or is in no cluster.
    """
    options = make_allocation(
        allocation, alpha, least_rows, least_rows_level, weights, outlier_share, outlier_rows, outlier_percentile
    )
    with prepared(
        tree, size, strategy, multiplier, seed, include, eligible, options, memory_limit, scratch, progress, True
    ) as draw:
        return explain_branch(draw, row, id, cluster)
