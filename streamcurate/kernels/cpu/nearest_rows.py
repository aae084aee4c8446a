"""The nearest rows of each centroid, certified: float32 scores from a matrix product, the formula for what may count.

cpu/nearest.py derives |s_ij - (t^2 F_ij - |r_i|^2)| <= E_ij for the score s_ij of row i and centroid j, with F_ij the
formula's value and r_i = t (x_i - o). A pair whose value is at most ``bound_j`` therefore has

    s_ij - t^2 bound_j <= E_ij - |r_i|^2,

with E taken for the largest centroid of a tile of columns. 1e-9 covers the float64 rounding of either side, and 2^-100
what underflows; the subtraction on the left is rounded monotonically, and so keeps the order. Pairs that fail this are
passed over, all others are evaluated by the formula. Rows too far out for float32 scores fail nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.formula import _pair_values
from streamcurate.kernels.cpu.nearest import _FARTHEST, _error_terms, _scores
from streamcurate.kernels.cpu.prepare import LARGEST_DIMS, _fill_columns, _largest_difference, _shifted_squared_norms
from streamcurate.kernels.cpu.rows import float32_rows, formula_rows, squared_norms
from streamcurate.kernels.cpu.screen_rows import shift_rows
from streamcurate.kernels.cpu.selection import smallest_per_cluster
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int64, as_centroids, as_rows, check_metric
from streamcurate.kernels.nearest_selection import NearestSelection
from streamcurate.kernels.workspace import work_array

_COLUMNS = 256
_ROW_TILE = 1024
# Before there are bounds, every pair of a tile is evaluated: the first tiles are small, and bring bounds for the next.
_FIRST_ROWS = 64
_ROW_TILE_BYTES = 6 << 20


@dataclass(frozen=True)
class ScreenedSeeds:
    """Centroids laid out for :func:`nearest_rows`.

    Attributes
    ----------
    metric : "l2" or "cosine"
    centroids : (k, d) float32
    origin : (d,) float64
    scale : float
    columns : (k, d) float32
        -2 scale (c - origin).
    norms : (k,) float32
        |scale (c - origin)|^2.
    bounds : (k,) float64
        Upper bounds of the norms.
    """

    metric: str
    centroids: Float32
    origin: Float64
    scale: float
    columns: Float32
    norms: Float32
    bounds: Float64


def screen_seeds(centroids: Float32, metric: str) -> ScreenedSeeds:
    """Make centroids ready for :func:`nearest_rows`: 4 d + 12 bytes for each beside themselves.

    Raises
    ------
    ValueError
        Another dtype or shape, or an unknown metric.
    """
    check_metric(metric)
    centroids = as_centroids(centroids)
    clusters, dims = centroids.shape
    if clusters == 0 or not 0 < dims <= LARGEST_DIMS:
        raise ValueError(f"centroids have shape {centroids.shape}; the error bound holds for 1 to {LARGEST_DIMS} dims")
    origin = np.add.reduce(centroids, axis=0, dtype=np.float64) / clusters
    largest = _largest_difference(centroids, origin)
    scale = 1.0 if largest == 0.0 else math.ldexp(1.0, 1 - math.frexp(largest)[1])
    squared = np.empty(clusters, dtype=np.float64)
    _shifted_squared_norms(centroids, origin, scale, squared)
    columns = np.empty((clusters, dims), dtype=np.float32)
    _fill_columns(centroids, origin, scale, np.arange(clusters, dtype=np.int32), columns)
    bounds = np.sqrt(squared) * (1 + 1e-9) + 2.0**-100
    return ScreenedSeeds(metric, centroids, origin, scale, columns, squared.astype(np.float32), bounds)


@compiled
def _possible(
    scores: Float32, norms: Float32, wanted: Float64, allowed: Float64, pair_row: Int64, pair_column: Int64
) -> int:
    # What is above is certain not to count.
    pairs = 0
    for i in range(scores.shape[0]):
        most = allowed[i]
        for j in range(scores.shape[1]):
            if np.float64(scores[i, j] + norms[j]) - wanted[j] <= most:
                pair_row[pairs] = i
                pair_column[pairs] = j
                pairs += 1
    return pairs


def nearest_rows_workspace_bytes(dims: int, clusters: int, keep: int) -> int:
    """Bytes one call of :func:`nearest_rows` takes beside its arguments, its result included."""
    tile = min(_ROW_TILE, max(64, _ROW_TILE_BYTES // (8 * dims)))
    columns = min(_COLUMNS, clusters)
    pairs = tile * columns
    # Scores, pairs and their order; rows widened, of unit length, shifted; selections by tile, merged and compact.
    return pairs * (4 + 8 + 8 + 8 + 40) + tile * dims * (4 + 8 + 4) + clusters * (40 * keep + 80)


def nearest_rows(rows: Array, numbers: Int64, seeds: ScreenedSeeds, keep: int, bounds: Float64) -> NearestSelection:
    """The ``keep`` rows of a block with the smallest formula values for each centroid, of those not above its bound.

    Parameters
    ----------
    rows : (m, d) float16 or float32, finite
    numbers : (m,) int64
        Row numbers; equal values are decided by them.
    seeds : ScreenedSeeds
    keep : int
        At least 1.
    bounds : (k,) float64
        The largest value that counts, for each centroid; infinite where all do.

    Returns
    -------
    NearestSelection
        Keys are the bits of the formula's values (:func:`keys_of_values`).

    Notes
    -----
    Work buffers and result: :func:`nearest_rows_workspace_bytes`.
    """
    rows = as_rows(rows)
    dims, clusters = rows.shape[1], len(seeds.centroids)
    if dims != seeds.centroids.shape[1]:
        raise ValueError(f"rows have {dims} dims, the centroids {seeds.centroids.shape[1]}")
    most = min(_ROW_TILE, max(64, _ROW_TILE_BYTES // (8 * dims)))
    bounds = np.array(bounds, dtype=np.float64)
    found: list[NearestSelection | None] = [None] * -(-clusters // _COLUMNS)
    start, step = 0, min(_FIRST_ROWS, most)
    while start < len(rows):
        part = slice(start, min(start + step, len(rows)))
        start, step = part.stop, min(2 * step, most)
        _search(formula_rows(rows[part], seeds.metric), numbers[part], seeds, keep, bounds, found)
    return _joined(found, clusters, keep)


def _search(
    exact: Array,
    numbers: Int64,
    seeds: ScreenedSeeds,
    keep: int,
    bounds: Float64,
    found: list[NearestSelection | None],
) -> None:
    """Fold a tile of formula rows into what is found, and lower the bounds."""
    count, dims = exact.shape
    shifted: Float32 = work_array("shifted rows", (count, dims), np.float32)
    reach: Float64 = work_array("reach", (count,), np.float64)
    scores_of: Float64 = work_array("upper", (count,), np.float64)
    wild = np.empty(count, dtype=np.bool_)
    # With zeros for the values of answers so far, what they mean as scores is -|r|^2.
    zeros = np.zeros(count)
    shift_rows(exact, seeds.origin, seeds.scale, _FARTHEST, zeros, shifted, reach, scores_of, wild)
    product, square, both, rest = _error_terms(dims)
    for tile, first in enumerate(range(0, len(bounds), _COLUMNS)):
        part = slice(first, min(first + _COLUMNS, len(bounds)))
        width = part.stop - first
        b = float(seeds.bounds[part].max())
        error = product * reach * b + square * b * b + both * (reach + b) ** 2 + rest * (1 + reach + b)
        allowed = scores_of + error + 2.0**-100
        allowed[wild] = np.inf
        with np.errstate(over="ignore"):  # a bound that is infinite passes over nothing
            wanted = bounds[part] * (seeds.scale * seeds.scale * (1 + 1e-9)) + 2.0**-100
        scores: Float32 = work_array("seed scores", (count, width), np.float32)
        _scores(shifted, seeds.columns[part], scores)
        pair_row: Int64 = work_array("near rows", (count * width,), np.int64)
        pair_column: Int64 = work_array("near seeds", (count * width,), np.int64)
        pairs = _possible(scores, seeds.norms[part], wanted, allowed, pair_row, pair_column)
        if not pairs:
            continue
        pair_row, pair_column = pair_row[:pairs], pair_column[:pairs]
        values: Float64 = work_array("near values", (pairs,), np.float64)
        _pair_values(exact, pair_row, seeds.centroids[part], pair_column, values)
        labels = np.where(values <= bounds[part][pair_column], pair_column, -1).astype(np.int32)
        near = smallest_per_cluster(labels, keys_of_values(values), numbers[pair_row], keep, width)
        assert near.ids is not None
        if not len(near.ids):
            continue
        before = found[tile]
        total = (NearestSelection.empty(width, keep) if before is None else before).combine(near)
        found[tile] = total
        full = near.ids[total.counts[near.ids] == keep]
        last = values_of_keys(total.keys[full * keep + keep - 1])
        bounds[first + full] = np.minimum(bounds[first + full], last)


def _joined(found: list[NearestSelection | None], clusters: int, keep: int) -> NearestSelection:
    """The selections of tiles as one over the clusters that have any rows."""
    ids, counts, keys, rows = [], [], [], []
    for tile, selection in enumerate(found):
        if selection is None:
            continue
        touched = np.flatnonzero(selection.counts)
        held = np.arange(keep) < selection.counts[touched, None]
        ids.append(touched + tile * _COLUMNS)
        counts.append(selection.counts[touched])
        keys.append(selection.keys.reshape(-1, keep)[touched][held])
        rows.append(selection.rows.reshape(-1, keep)[touched][held])
    if not ids:
        none = np.empty(0, dtype=np.int64)
        return NearestSelection(clusters, keep, none, none, none, np.empty(0, dtype=np.uint64), none)
    kept = np.concatenate(counts)
    offsets = np.cumsum(kept) - kept
    return NearestSelection(
        clusters, keep, np.concatenate(ids), kept, offsets, np.concatenate(keys), np.concatenate(rows)
    )


def keys_of_values(values: Float64) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Keys that order as formula values, which are not negative, do: their bits."""
    return (np.ascontiguousarray(values, dtype=np.float64) + 0.0).view(np.uint64)  # -0.0 orders as 0.0


def values_of_keys(keys: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> Float64:
    """The formula values that :func:`keys_of_values` made keys of."""
    return np.ascontiguousarray(keys, dtype=np.uint64).view(np.float64)


def unusable_rows(rows: Array, metric: str) -> tuple[Int64, Int64]:
    """Positions of rows that hold NaN or Inf, and under cosine of rows that are zero, and so have no direction.

    Parameters
    ----------
    rows : (m, d) float16 or float32
    metric : "l2" or "cosine"
    """
    rows = as_rows(rows)
    bad, zero = [], []
    for start in range(0, len(rows), _ROW_TILE):
        # Squares of float32 neither overflow nor vanish in float64.
        squared = squared_norms(float32_rows(rows[start : start + _ROW_TILE]))
        bad.append(np.flatnonzero(~np.isfinite(squared)) + start)
        if metric == "cosine":
            zero.append(np.flatnonzero(squared == 0.0) + start)
    none = np.empty(0, dtype=np.int64)
    return np.concatenate([none, *bad]), np.concatenate([none, *zero])
