"""Nearest centroids of rows whose labels under the centroids before are known.

Between two iterations most centroids move little, or not at all. Let ``floor`` be a lower bound of the distance of a
row to all centroids but its own, ``drift`` at least the distance moved by every centroid that is not counted among the
*moved*. By the triangle inequality floor - drift bounds the distance to those from below now; where it is above the
distance to the row's own centroid where that lies now, only moved centroids can take the row over. (The bound is
Hamerly's, 2010; searching the moved centroids instead of giving up leaves nothing to chance and little to search.)

All inequalities leave room for rounding: distances from the formula err by at most (d + 2) 2^-53 relatively, less than
1e-9 at the most dims allowed, and floors are rounded down.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.formula import _pair_values
from streamcurate.kernels.cpu.nearest import nearest, row_tile, search_tile
from streamcurate.kernels.cpu.prepare import ScreenedCentroids
from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.cpu.screen import HUNTING
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64, as_rows
from streamcurate.kernels.prepared_centroids import PreparedCentroids

_NONE: Int32 = np.empty(0, dtype=np.int32)


def relabel(
    rows: Array,
    prepared: PreparedCentroids,
    labels: Int32 | None = None,
    floors: Float32 | None = None,
    margin: float = 0.0,
) -> tuple[Int32, Float64, Float32]:
    """The nearest centroid of each row, the answer of :func:`nearest`, and what the next iteration can save by.

    Parameters
    ----------
    rows : (m, d) float16 or float32, finite
    prepared : PreparedCentroids
        All centroids; prepared with those before, only rows that moved centroids can concern are searched at all.
    labels : (m,) int32, optional
        The answer under the centroids before; -1 means none.
    floors : (m,) float32, optional
        Lower bounds, under the centroids before, of each row's distance to all centroids but its label's.
    margin : float
        How far beyond the distance of the nearest centroid floors are looked for: wider margins take longer and make
        more rows skip the search later.

    Returns
    -------
    labels : (m,) int32
    values : (m,) float64
        The formula's values.
    floors : (m,) float32
        Under these centroids.
    """
    rows = as_rows(rows)
    assert isinstance(prepared, ScreenedCentroids)
    count = len(rows)
    if prepared.direct or prepared.grouped is not None:
        found, values = nearest(rows, prepared, guesses=labels)
        return found, values, np.zeros(count, dtype=np.float32)
    if rows.shape[1] != prepared.dims:
        raise ValueError(f"rows have {rows.shape[1]} dims, the centroids {prepared.dims}")
    answer = np.full(count, -1, dtype=np.int32) if labels is None else labels.astype(np.int32)
    values = _own_values(rows, prepared, answer)
    lowest = np.zeros(count, dtype=np.float32)
    searched = np.ones(count, dtype=np.bool_)
    moved = prepared.moved
    if moved is not None and floors is not None:
        left = (floors.astype(np.float64) - moved.drift) * (1 - 2.0**-22) - 2.0**-149  # rounded down below
        lowest = np.maximum(left, 0.0).astype(np.float32)
        sure = values < lowest.astype(np.float64) ** 2 * (1 - 1e-8)
        np.logical_not(sure, out=searched)
        if moved.prepared is not None:
            # Numbered by place among the moved; a label that did not move has none there.
            _search(
                rows, np.flatnonzero(sure), moved.prepared, moved.places, moved.clusters, answer, values, lowest, margin
            )
    lowest[searched] = np.inf
    _search(rows, np.flatnonzero(searched), prepared, None, _NONE, answer, values, lowest, margin)
    return answer, values, lowest


def _own_values(rows: Array, prepared: ScreenedCentroids, labels: Int32) -> Float64:
    """The formula's value of each row and its label's centroid; infinity where there is no label."""
    values = np.full(len(rows), np.inf)
    step = row_tile(prepared.dims, prepared.clusters)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        known = np.flatnonzero(labels[part] >= 0)
        if not len(known):
            continue
        exact = formula_rows(rows[part], prepared.metric)
        found = np.empty(len(known))
        _pair_values(exact, known, prepared.centroids, labels[part][known].astype(np.int64), found)
        values[start + known] = found
    return values


def _search(
    rows: Array,
    which: Int64,
    prepared: ScreenedCentroids,
    places: Int32 | None,
    numbers: Int32,
    labels: Int32,
    values: Float64,
    floors: Float32,
    margin: float,
) -> None:
    """Search for some of the rows; their answers are replaced where there are better ones, floors by lower ones."""
    most, start = row_tile(prepared.dims, prepared.clusters), 0
    assert prepared.choice is not None
    while start < len(which):
        part = which[start : start + prepared.choice.rows(bool(labels[which[start]] >= 0), most)]
        start += len(part)
        exact = formula_rows(rows[part], prepared.metric)
        found, best, low = labels[part], values[part], np.empty(len(part), dtype=np.float32)
        own = found if places is None else places[found]
        own = np.where(found < 0, np.int32(HUNTING), own)
        search_tile(exact, prepared, found, best, own, numbers=numbers, floors=low, margin=margin)
        labels[part], values[part], floors[part] = found, best, np.minimum(floors[part], low)
