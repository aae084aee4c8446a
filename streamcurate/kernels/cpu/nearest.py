"""Certified nearest centroids: float32 scores from a matrix product, the formula for what could still win.

Derivation
----------
Let o be the origin, t the scale (a power of two), x the row as the formula sees it (for cosine the float64 unit row),
c_j the stored centroid; r = t (x - o) and q_j = t (c_j - o) in exact arithmetic. With a >= |r|, b_j >= |q_j|:

    S_j = |q_j|^2 - 2 r.q_j = t^2 |x - c_j|^2 - |r|^2        orders the centroids as the exact distance does.

The machine computes s_j = fl(n_j + g_j), g_j = fl(x'.w_j), with x' = float32(r), w_j = float32(-2 q_j),
n_j = float32(|q_j|^2). With u = 2^-24 and gamma_n = n u / (1 - n u):

1. x' = r + dx, |dx| <= 1.001 u |r| + f and the same for w_j (float64 subtraction first, then one rounding to float32;
   f: what underflow, even flushed to zero, can take from a coordinate, at most 2^-126 each). Hence
   |x'.w_j + 2 r.q_j| <= 2 (2.01 u) a b_j + underflow.
2. A product of d terms summed in any order, with or without fused multiply-adds, errs by at most
   gamma_d sum|x'||w_j| <= gamma_d 2 (1.001) a b_j, plus 2^-126 for each product that underflows.
3. |n_j - |q_j|^2| <= 1.01 u b_j^2, and the last addition errs by at most u |n_j + g_j| <= u (1.01 b_j^2 + 2.2 a b_j).

Together |s_j - S_j| <= 2.002 gamma_(d+4) a b_j + 3 u b_j^2 + w (1 + a + b_j), w = d 2^-120 covering all underflow.

4. The formula's own value F_j errs from |x - c_j|^2 by at most (d + 2) 2^-53 relatively (one subtraction, counted twice
   by the square, one product, d - 1 additions; float32 operands neither under- nor overflow in float64), and
   t^2 |x - c_j|^2 <= (a + b_j)^2. So with e = (d + 4) 2^-53

    E_j = 2.002 gamma_(d+4) a b_j + 3 u b_j^2 + e (a + b_j)^2 + w (1 + a + b_j):   |s_j - (t^2 F_j - |r|^2)| <= E_j.

Therefore s_j - E_j > min_l (s_l + E_l) proves F_j > F_l for some l: j neither wins nor ties. All other j are evaluated
by the formula and compared as (value, cluster). E is enlarged by a thousandth for the float64 rounding of the bounds
themselves, and taken with the largest b of a group of columns. Rows with a > 2^60 (2^60 times farther from the origin
than any centroid) could overflow float32; they go through the formula with all centroids.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.direct import direct_bytes, direct_nearest
from streamcurate.kernels.cpu.formula import _pair_values
from streamcurate.kernels.cpu.prepare import LARGEST_TILE
from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.cpu.screen import (
    GROUP,
    collect,
    gather_pairs,
    group_minima,
    lower_upper,
    scores_1,
    scores_2,
    scores_3,
    shift_rows,
    take_best,
)
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64, as_rows
from streamcurate.kernels.prepared_centroids import PreparedCentroids
from streamcurate.kernels.workspace import work_array

_ROW_TILE = 512
_LARGE_ROW_TILE = 4096
_SCORES_BYTES = 2**20
_ROW_TILE_BYTES = 3 * 2**20
_CANDIDATES = 16  # per row before the list is pruned; text embeddings leave 1.0 to 1.3 a row
_FARTHEST = 2.0**60


def _row_tile(dims: int, clusters: int) -> int:
    """Rows of one tile.

    512, and up to 4096 where centroids are so few that the calls a tile takes would weigh more than its arithmetic;
    fewer where rows are long, so that a tile's three copies of them stay near the core (measured 128 to 4096).
    """
    columns = min(LARGEST_TILE, clusters + GROUP)
    wanted = min(_LARGE_ROW_TILE, max(_ROW_TILE, _SCORES_BYTES // (4 * columns)))
    return max(128, min(wanted, _ROW_TILE_BYTES // (8 * dims)))


def nearest_workspace_bytes(rows: int, dims: int, clusters: int) -> int:
    """Bytes one call of :func:`nearest` uses beside its arguments and results, in buffers its thread keeps.

    BLAS has packing buffers of its own (OpenBLAS: about 32 MiB for each thread that calls it at the same time).
    """
    tile = min(_row_tile(dims, clusters), max(rows, 1))
    columns = min(LARGEST_TILE, clusters + GROUP)
    lists = tile * _CANDIDATES * (8 + 4 + 8 + 8 + 8) + tile * 48
    few = tile * 12 if dims <= 3 else 0
    scores = tile * columns * 4 + tile * columns * 4 // GROUP
    return tile * dims * (4 + 8 + 4) + few + scores + lists + direct_bytes(dims) + 20 * 64


def _error_terms(dims: int) -> tuple[float, float, float, float]:
    """The factors of a b, b^2, (a + b)^2 and (1 + a + b) in the bound E of the module's derivation."""
    unit = 2.0**-24
    gamma = (dims + 4) * unit / (1 - (dims + 4) * unit)
    terms = (2.002 * gamma, 3 * unit, (dims + 4) * 2.0**-53, dims * 2.0**-120)
    return tuple(1.001 * term for term in terms)  # type: ignore[return-value]


def nearest(
    rows: Array,
    prepared: PreparedCentroids,
    previous: tuple[Int32, Float64] | None = None,
    first_cluster: int = 0,
) -> tuple[Int32, Float64]:
    """The nearest centroid of each row: argmin of the formula's value, ties to the lowest cluster.

    Parameters
    ----------
    rows : (m, d) float16 or float32, finite
    prepared : PreparedCentroids
        All centroids, or a slice of them.
    previous : (labels, values), optional
        The answer over other slices; the result is the answer over those and this one, whatever the order of slices.
        Label -1 means none yet.
    first_cluster : int
        The number of the slice's first centroid.

    Returns
    -------
    labels : (m,) int32
    values : (m,) float64
        The formula's value for that pair (see cpu/formula.py).

    Notes
    -----
    Work buffers: :func:`nearest_workspace_bytes`, whatever the number of rows and centroids.
    """
    rows = as_rows(rows)
    if rows.shape[1] != prepared.dims:
        raise ValueError(f"rows have {rows.shape[1]} dims, the centroids {prepared.dims}")
    labels = np.full(len(rows), -1, dtype=np.int32)
    values = np.full(len(rows), np.inf, dtype=np.float64)
    if previous is not None:
        labels[:] = previous[0]
        values[:] = np.where(labels < 0, np.inf, previous[1])
    step = _row_tile(prepared.dims, prepared.clusters)
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        exact = formula_rows(rows[part], prepared.metric)
        if prepared.direct:
            _merge_direct(exact, prepared, labels[part], values[part], first_cluster)
        else:
            _screen_tile(exact, prepared, labels[part], values[part], first_cluster)
    return labels, values


def _merge_direct(
    exact: Array, prepared: PreparedCentroids, labels: Int32, values: Float64, first_cluster: int
) -> None:
    which: Int64 = work_array("merge labels", (len(exact),), np.int64)
    best: Float64 = work_array("merge values", (len(exact),), np.float64)
    direct_nearest(exact, prepared.centroids, which, best)
    which += first_cluster
    better = (labels < 0) | (best < values) | ((best == values) & (which < labels))
    np.copyto(values, best, where=better)
    np.copyto(labels, which, where=better, casting="same_kind")


def _screen_tile(exact: Array, prepared: PreparedCentroids, labels: Int32, values: Float64, first_cluster: int) -> None:
    count, dims = exact.shape
    terms = _error_terms(dims)
    shifted: Float32 = work_array("shifted rows", (count, dims), np.float32)
    reach: Float64 = work_array("reach", (count,), np.float64)
    upper: Float64 = work_array("upper", (count,), np.float64)
    wild = np.empty(count, dtype=np.bool_)
    shift_rows(exact, prepared.origin, prepared.scale, _FARTHEST, values, shifted, reach, upper, wild)
    found: Int32 = work_array("found", (count, _CANDIDATES), np.int32)
    lower: Float64 = work_array("lower", (count, _CANDIDATES), np.float64)
    length: Int64 = work_array("length", (count,), np.int64)
    length[:] = 0
    padded = len(prepared.norms)
    for start in range(0, padded, prepared.tile):
        part = slice(start, min(start + prepared.tile, padded))
        scores: Float32 = work_array("scores", (part.stop - start, count), np.float32)
        minima: Float32 = work_array("minima", ((part.stop - start) // GROUP, count), np.float32)
        _scores(shifted, prepared.columns[part], scores)
        norms, bounds = prepared.norms[part], prepared.bounds[start // GROUP : part.stop // GROUP]
        group_minima(scores, norms, minima)
        lower_upper(minima, bounds, reach, upper, *terms)
        collect(
            minima, scores, norms, prepared.order[part], bounds, reach, upper, found, lower, length,
            exact, prepared.centroids, labels, values, first_cluster, *terms,
        )  # fmt: skip
    pair_row: Int64 = work_array("pair rows", (count * _CANDIDATES,), np.int64)
    pair_cluster: Int64 = work_array("pair clusters", (count * _CANDIDATES,), np.int64)
    pair_value: Float64 = work_array("pair values", (count * _CANDIDATES,), np.float64)
    pairs = gather_pairs(found, lower, length, upper, pair_row, pair_cluster)
    _pair_values(exact, pair_row[:pairs], prepared.centroids, pair_cluster[:pairs], pair_value[:pairs])
    take_best(pair_row[:pairs], pair_cluster[:pairs], pair_value[:pairs], labels, values, first_cluster)
    if wild.any():
        some_labels, some_values = labels[wild], values[wild]
        _merge_direct(exact[wild], prepared, some_labels, some_values, first_cluster)
        labels[wild], values[wild] = some_labels, some_values


def _scores(shifted: Float32, columns: Float32, scores: Float32) -> None:
    """The products of each column with each row: (columns, d) and (rows, d) to (columns, rows)."""
    few = {1: scores_1, 2: scores_2, 3: scores_3}.get(shifted.shape[1])
    if few is None:
        np.dot(columns, shifted.T, out=scores)
        return
    turned: Float32 = work_array("turned rows", (shifted.shape[1], len(shifted)), np.float32)
    turned[:] = shifted.T
    few(turned, columns, scores)
