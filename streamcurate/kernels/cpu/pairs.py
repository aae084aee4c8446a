"""Which rows of two tiles are within a distance of each other, united into groups: certified, then by the formula.

The squared distance F of rows x, y is the formula's (cpu/formula.py) with a row in the centroid's place. All pairs
are scored by one float32 product of leading coordinates; what it cannot rule out is looked at in float32 value by
value; what that cannot rule out is decided by the formula. A pair whose rows are in one group already needs none of
it, so many copies of one row cost no more than a look at each score.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streamcurate.kernels.cpu.pairs_rows import (
    PairAxes,
    PairRows,
    pair_axes,
    pair_row_bytes,
    prepare_bytes,
    prepare_pair_rows,
)
from streamcurate.kernels.cpu.pairs_scan import RESCORED, UNITED, lowest_positions, pair_values, scan_tile
from streamcurate.kernels.cpu.pairs_search import Join, scan_by_products, search_bytes
from streamcurate.kernels.cpu.rows import float32_rows, squared_norms
from streamcurate.kernels.jit import is_compiled
from streamcurate.kernels.metric import Array, Float64, Int64, as_rows, check_metric

SEARCHES = ("auto", "blas", "faiss")


class PairCounts(NamedTuple):
    """What one join did: pairs it covered, and pairs among them whose value by the formula was computed."""

    covered: int
    rescored: int


def unite_pairs(
    left: PairRows, right: PairRows | None, limit: float, groups: Int64, search: str = "auto"
) -> tuple[Int64, Int64, PairCounts]:
    """Unite all rows of two tiles whose squared distance by the formula is at most ``limit``.

    Parameters
    ----------
    left : PairRows
    right : PairRows or None
        None joins ``left`` with itself, each pair once.
    limit : float
        Bound of the squared distance (l2: r^2, cosine: 2 (1 - t)), inclusive.
    groups : (left + right,) int64
        Parents of a union-find over positions, the left rows first; changed in place. May hold united groups already:
        rows that share one are not compared.
    search : {"auto", "blas", "faiss"}
        How candidates are found. The groups are the same.

    Returns
    -------
    i, j : (f,) int64
        Positions of the pairs that united two groups, f < left + right.
    counts : PairCounts

    Raises
    ------
    ValueError
        Sides that were prepared differently, groups of another size, a NaN limit or an unknown search.
    InputError
        ``search="faiss"`` without faiss.
    """
    other = left if right is None else right
    offset = 0 if right is None else left.count
    positions = left.count + (0 if right is None else other.count)
    _check(left, other, limit, groups, positions, search)
    forest = np.empty((2, max(0, positions - 1)), dtype=np.int64)
    tally = np.zeros(2, dtype=np.int64)
    covered = left.count * (left.count - 1) // 2 if right is None else left.count * other.count
    if covered and limit >= 0:
        missing = len(np.unique(group_roots(groups))) - 1
        join = Join(left, other, right is None, float(limit), offset, groups, forest, tally, missing)
        if search == "faiss":
            from streamcurate.kernels.cpu.pairs_faiss import scan_by_faiss  # imports faiss

            scan_by_faiss(join)
        else:
            scan_by_products(join)
    found = forest[:, : tally[UNITED]]
    return found[0].copy(), found[1].copy(), PairCounts(covered, int(tally[RESCORED]))


def pairs_compiled() -> bool:
    """Whether :func:`unite_pairs` need not be compiled first, which takes some ten seconds."""
    return is_compiled(scan_tile)


def group_roots(groups: Int64) -> Int64:
    """The lowest position of each position's group.

    Parameters
    ----------
    groups : (m,) int64
        Parents, as :func:`unite_pairs` leaves them; shortened in place.

    Returns
    -------
    (m,) int64
    """
    lowest = np.empty(len(groups), dtype=np.int64)
    lowest_positions(groups, lowest)
    return lowest


def row_pair_distances(left_rows: Array, i: Int64, right_rows: Array, j: Int64, metric: str) -> Float64:
    """Squared distances of pairs of rows by the formula, the second row in the centroid's place.

    Parameters
    ----------
    left_rows, right_rows : (m, d) and (n, d) float16 or float32
    i, j : (p,) integers into them
    metric : "l2" or "cosine"

    Returns
    -------
    (p,) float64
        l2: squared Euclidean distance; cosine: |u - v|^2, twice 1 - cos.

    Raises
    ------
    ValueError
        An index out of range, or arrays of other shapes and dtypes.
    """
    check_metric(metric)
    left_rows, right_rows = as_rows(left_rows), as_rows(right_rows)
    i, j = np.ascontiguousarray(i, dtype=np.int64), np.ascontiguousarray(j, dtype=np.int64)
    if left_rows.shape[1] != right_rows.shape[1] or i.shape != j.shape or i.ndim != 1:
        raise ValueError(
            f"rows of {left_rows.shape[1]} and {right_rows.shape[1]} dims at {i.shape} and {j.shape} places"
        )
    for index, rows in ((i, left_rows), (j, right_rows)):
        if index.size and (index.min() < 0 or index.max() >= len(rows)):
            raise ValueError(f"pairs name rows {index.min()} to {index.max()}; there are {len(rows)}")
    values = np.empty(len(i), dtype=np.float64)
    tile = max(1, 2**18 // max(1, left_rows.shape[1]))
    for start in range(0, len(i), tile):
        part = slice(start, start + tile)
        one = float32_rows(left_rows[i[part]], "pair left rows")
        other = float32_rows(right_rows[j[part]], "pair right rows")
        local = np.arange(len(one), dtype=np.int64)
        unit = metric == "cosine"
        norms = [np.sqrt(squared_norms(rows)) if unit else np.ones(len(rows)) for rows in (one, other)]
        for norm in norms:
            norm[norm == 0.0] = 1.0
        pair_values(one, norms[0], local, other, norms[1], local, unit, values[part])
    return values


def pair_workspace_bytes(left: int, right: int, dims: int, search: str = "auto") -> int:
    """Bytes that preparing rows and one call of :func:`unite_pairs` use beside the prepared rows and ``groups``.

    Parameters
    ----------
    left, right : int
        Rows of the two sides (0 on the right for a join with itself).
    dims : int
    search : str
    """
    other = right or left
    # The forest and its copy, roots and distinct ones; tails, halves and thresholds of either side.
    total = 64 * (left + right) + 48 * (left + other) + search_bytes(left, other) + prepare_bytes(dims) + 2**16
    if search == "faiss":
        from streamcurate.kernels.cpu.pairs_faiss import faiss_bytes

        total += faiss_bytes(dims)
    return total


def _check(left: PairRows, right: PairRows, limit: float, groups: Int64, positions: int, search: str) -> None:
    if left.metric != right.metric or left.dims != right.dims or not left.axes.same_as(right.axes):
        raise ValueError("the two sides of a join must be prepared with the same metric and axes")
    if math.isnan(limit):
        raise ValueError("limit is NaN; it must be a squared distance")
    if search not in SEARCHES:
        raise ValueError(f"search is {search!r}; it must be one of {', '.join(SEARCHES)}")
    if groups.shape != (positions,) or groups.dtype != np.int64 or not groups.flags.c_contiguous:
        raise ValueError(f"groups are {groups.dtype} of shape {groups.shape}; they must be ({positions},) int64")
    if positions and (groups.min() < 0 or groups.max() >= positions):
        raise ValueError(f"groups name positions {groups.min()} to {groups.max()}; there are {positions}")


__all__ = [
    "SEARCHES",
    "PairAxes",
    "PairCounts",
    "PairRows",
    "group_roots",
    "pair_axes",
    "pair_row_bytes",
    "pair_workspace_bytes",
    "pairs_compiled",
    "prepare_pair_rows",
    "row_pair_distances",
    "unite_pairs",
]
