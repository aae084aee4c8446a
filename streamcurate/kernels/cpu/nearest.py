"""Certified nearest centroids: float32 scores from a matrix product, the formula for what could still win.

Where it is faster (cpu/choice.py measures), the product takes leading coordinates along principal axes only, and its
scores are lower bounds (derived in cpu/leading.py); what survives them gets further coordinates, then all of them.

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
themselves, and taken with the largest b of a tile of columns. Rows with a > 2^60 (2^60 times farther from the origin
than any centroid) could overflow float32; they go through the formula with all centroids.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from streamcurate.kernels.cpu import centroid_boxes
from streamcurate.kernels.cpu.choice import PLAIN, axes_count, candidates
from streamcurate.kernels.cpu.direct import direct_bytes, direct_nearest
from streamcurate.kernels.cpu.formula import _pair_values
from streamcurate.kernels.cpu.leading import LeadingColumns
from streamcurate.kernels.cpu.prepare import LARGEST_TILE, ScreenedCentroids
from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.cpu.screen import HUNTING, LANES, find_floors, sift, sift_leading, take_best
from streamcurate.kernels.cpu.screen_rows import STEP, few_scores, gather_pairs, shift_rows, tail_norms
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64, as_rows
from streamcurate.kernels.prepared_centroids import PreparedCentroids
from streamcurate.kernels.workspace import work_array

_ROW_TILE = 1024
_LARGE_ROW_TILE = 4096
_SCORES_BYTES = 2**20
_ROW_TILE_BYTES = 6 * 2**20
_CANDIDATES = 16  # per row before the list is pruned; text embeddings leave 1.0 to 1.3 a row
_FARTHEST = 2.0**60
_NO_NUMBERS: Int32 = np.empty(0, dtype=np.int32)


def row_tile(dims: int, clusters: int) -> int:
    """Rows of one tile.

    1024, and up to 4096 where centroids are so few that the calls a tile takes would weigh more than its arithmetic;
    fewer where rows are long, so that a tile's three copies of them stay near the core (measured at 384 dims).
    """
    columns = min(LARGEST_TILE, clusters + LANES)
    wanted = min(_LARGE_ROW_TILE, max(_ROW_TILE, _SCORES_BYTES // (4 * columns)))
    return max(128, min(wanted, _ROW_TILE_BYTES // (8 * dims)))


def nearest_workspace_bytes(rows: int, dims: int, clusters: int) -> int:
    """Bytes one call of :func:`nearest` uses beside its arguments and results, in buffers its thread keeps.

    BLAS has packing buffers of its own (OpenBLAS: about 32 MiB for each thread that calls it at the same time).
    """
    tile = min(row_tile(dims, clusters), max(rows, 1))
    columns = min(LARGEST_TILE, clusters + LANES)
    lists = tile * _CANDIDATES * (8 + 4 + 8 + 8 + 8) + tile * 80
    few = columns * 12 if dims <= 3 else 0
    axes = axes_count(dims) if candidates(clusters, dims) else 0
    leading = (tile * (8 * axes + 4 + 4 * (axes // STEP + 2)) + columns * 4) if axes else 0
    return tile * dims * (4 + 8 + 4) + few + tile * columns * 4 + leading + lists + direct_bytes(dims) + 24 * 64


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
    guesses: Int32 | None = None,
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
    guesses : (m,) int32, optional
        Clusters, numbered as in the answer, that are likely to be the answer or near it: labels of the iteration
        before. They save time where they are good and change no answer; those outside the slice are ignored.

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
    assert isinstance(prepared, ScreenedCentroids)
    if rows.shape[1] != prepared.dims:
        raise ValueError(f"rows have {rows.shape[1]} dims, the centroids {prepared.dims}")
    if prepared.grouped is not None:
        hints = None if guesses is None else _inside(guesses, first_cluster, prepared.clusters)
        return centroid_boxes.nearest(rows, prepared.grouped, previous, first_cluster, hints)
    labels = np.full(len(rows), -1, dtype=np.int32)
    values = np.full(len(rows), np.inf, dtype=np.float64)
    if previous is not None:
        labels[:] = previous[0]
        values[:] = np.where(labels < 0, np.inf, previous[1])
    most, start = row_tile(prepared.dims, prepared.clusters), 0
    while start < len(rows):
        step = most if prepared.choice is None else prepared.choice.rows(guesses is not None, most)
        part = slice(start, min(start + step, len(rows)))
        start = part.stop
        exact = formula_rows(rows[part], prepared.metric)
        if prepared.direct:
            _merge_direct(exact, prepared, labels[part], values[part], first_cluster)
            continue
        own = _try_guesses(
            exact, prepared, labels[part], values[part], first_cluster, None if guesses is None else guesses[part]
        )
        search_tile(exact, prepared, labels[part], values[part], own, first_cluster)
    return labels, values


def _merge_direct(
    exact: Array,
    prepared: PreparedCentroids,
    labels: Int32,
    values: Float64,
    first_cluster: int,
    numbers: Int32 = _NO_NUMBERS,
) -> None:
    which: Int64 = work_array("merge labels", (len(exact),), np.int64)
    best: Float64 = work_array("merge values", (len(exact),), np.float64)
    direct_nearest(exact, prepared.centroids, which, best)
    if len(numbers):
        which[:] = numbers[which]
    else:
        which += first_cluster
    better = (labels < 0) | (best < values) | ((best == values) & (which < labels))
    np.copyto(values, best, where=better)
    np.copyto(labels, which, where=better, casting="same_kind")


def search_tile(
    exact: Array,
    prepared: ScreenedCentroids,
    labels: Int32,
    values: Float64,
    own: Int32,
    first_cluster: int = 0,
    numbers: Int32 = _NO_NUMBERS,
    floors: Float32 | None = None,
    margin: float = 0.0,
) -> None:
    """Fold the nearest of all columns into a tile's answers.

    Parameters
    ----------
    exact : (m, d) float32 or float64
        Formula rows.
    prepared : ScreenedCentroids
    labels, values : (m,) int32 and float64
        The answers, replaced where these columns have a better one.
    own : (m,) int32
        Clusters of the slice that need no look, or what takes their place (see cpu/screen.py).
    first_cluster, numbers
        Clusters are numbered from ``first_cluster`` on, or by ``numbers`` (k,), ascending.
    floors : (m,) float32, optional
        Filled with what :func:`find_floors` gives, seen from all columns and the answers so far.
    margin : float
        How far beyond the best these are looked for.
    """
    count, dims = exact.shape
    known = bool((own != HUNTING).all())
    assert prepared.choice is not None
    leading = prepared.choice.take(known)
    started = time.thread_time()
    shifted: Float32 = work_array("shifted rows", (count, dims), np.float32)
    reach: Float64 = work_array("reach", (count,), np.float64)
    upper: Float64 = work_array("upper", (count,), np.float64)
    wild = np.empty(count, dtype=np.bool_)
    shift_rows(
        exact, prepared.origin, prepared.scale, _FARTHEST, values, shifted, reach, upper, wild
    )  # fmt: skip
    found: Int32 = work_array("found", (count, _CANDIDATES), np.int32)
    lower: Float64 = work_array("lower", (count, _CANDIDATES), np.float64)
    length: Int64 = work_array("length", (count,), np.int64)
    length[:] = 0
    rivals: Float64 = work_array("rivals", (count, 2), np.float64)
    rivals[:] = np.inf
    nearest_rival: Int32 = work_array("nearest rival", (count,), np.int32)
    nearest_rival[:] = -1
    wide = margin * prepared.scale
    before = None if floors is None else (labels.copy(), values.copy())
    lists = (
        own, wide, rivals, nearest_rival, reach, upper, found, lower, length,
        exact, prepared.centroids, labels, values, numbers, first_cluster,
    )  # fmt: skip
    terms = np.array(_error_terms(dims))
    search = None if leading is None else _Leading(leading, shifted, reach)
    padded = len(prepared.norms)
    for start in range(0, padded, prepared.tile):
        part = slice(start, min(start + prepared.tile, padded))
        scores: Float32 = work_array("scores", (count, part.stop - start), np.float32)
        norms, order, bound = prepared.norms[part], prepared.order[part], float(prepared.bounds[part].max())
        if search is None:
            _scores(shifted, prepared.columns[part], scores)
            sift(scores, norms, order, bound, terms, *lists)
        else:
            search.sift(part, scores, prepared, order, norms, bound, terms, lists)
    pair_row: Int64 = work_array("pair rows", (count * _CANDIDATES,), np.int64)
    pair_cluster: Int64 = work_array("pair clusters", (count * _CANDIDATES,), np.int64)
    pair_value: Float64 = work_array("pair values", (count * _CANDIDATES,), np.float64)
    pairs = gather_pairs(found, lower, length, upper, pair_row, pair_cluster)
    _pair_values(exact, pair_row[:pairs], prepared.centroids, pair_cluster[:pairs], pair_value[:pairs])
    take_best(pair_row[:pairs], pair_cluster[:pairs], pair_value[:pairs], labels, values, numbers, first_cluster)
    if wild.any():
        some_labels, some_values = labels[wild], values[wild]
        _merge_direct(exact[wild], prepared, some_labels, some_values, first_cluster, numbers)
        labels[wild], values[wild] = some_labels, some_values
    if floors is not None and before is not None:
        find_floors(wide, prepared.scale, *before, wild, rivals, nearest_rival, reach, upper, labels, floors)
    used = PLAIN if leading is None else leading.leading
    prepared.choice.report(known, used, count, time.thread_time() - started)


def _try_guesses(
    exact: Array,
    prepared: PreparedCentroids,
    labels: Int32,
    values: Float64,
    first_cluster: int,
    guesses: Int32 | None,
) -> Int32:
    """Fold the formula's values of the guesses into the answers; each row's as a cluster of the slice, or HUNTING."""
    if guesses is None:
        return np.full(len(exact), HUNTING, dtype=np.int32)
    own = _inside(guesses, first_cluster, prepared.clusters)
    rows = np.flatnonzero(own >= 0)
    clusters = own[rows].astype(np.int64)
    found: Float64 = work_array("guessed values", (len(rows),), np.float64)
    _pair_values(exact, rows, prepared.centroids, clusters, found)
    take_best(rows, clusters, found, labels, values, _NO_NUMBERS, first_cluster)
    return own


def _inside(guesses: Int32, first_cluster: int, clusters: int) -> Int32:
    """Guesses as clusters of the slice; HUNTING where they are none of it."""
    local = guesses - np.int32(first_cluster)
    local[(local < 0) | (local >= clusters)] = HUNTING
    inside: Int32 = local
    return inside


class _Leading:
    """The search with leading coordinates, for one tile of rows."""

    def __init__(self, columns: LeadingColumns, shifted: Float32, reach: Float64) -> None:
        self._columns, self._shifted = columns, shifted
        count = len(shifted)
        vectors = columns.projected.axes.vectors[: columns.width]
        self._projected: Float32 = work_array("projected rows", (count, columns.width), np.float32)
        np.dot(shifted, vectors.T, out=self._projected)
        self._tails: Float32 = work_array("row tails", (count, columns.tails.shape[1]), np.float32)
        tail_norms(self._projected, 1.0, reach, columns.leading, columns.spill, self._tails)
        self._lead: Float32 = work_array("leading rows", (count, columns.leading + 1), np.float32)
        self._lead[:, :-1] = self._projected[:, : columns.leading]
        self._lead[:, -1] = self._tails[:, 0]

    def sift(
        self,
        part: slice,
        scores: Float32,
        prepared: ScreenedCentroids,
        order: Int32,
        norms: Float32,
        bound: float,
        terms: Float64,
        lists: tuple[Any, ...],
    ) -> None:
        """Scores of a tile of columns, and what survives them."""
        columns = self._columns
        survivors: Int32 = work_array("survivors", (scores.shape[1],), np.int32)
        np.dot(self._lead, columns.lead[part].T, out=scores)
        sift_leading(
            scores, self._projected, self._tails, columns.leading, columns.projected.coordinates[part],
            columns.tails[part], columns.terms, survivors, self._shifted, prepared.columns[part], norms, order,
            bound, terms, *lists,
        )  # fmt: skip


def _scores(shifted: Float32, columns: Float32, scores: Float32) -> None:
    """The products of each row with each column: (rows, d) and (columns, d) to (rows, columns)."""
    if shifted.shape[1] > 3:
        np.dot(shifted, columns.T, out=scores)
        return
    turned: Float32 = work_array("turned columns", (shifted.shape[1], len(columns)), np.float32)
    turned[:] = columns.T
    few_scores(shifted, turned, scores)
