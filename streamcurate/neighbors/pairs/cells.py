"""Cells: small groups of rows that lie together, from whatever clusters a tree has.

Pruning wants cells of a certain size: larger ones reach everywhere, smaller ones cost more to bound than they save.
So small clusters that lie near each other share a cell, and large ones are cut by a few rounds of k-means of their own.
What cells there are changes what a search costs and never what it finds.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Measured on mixtures of 200,000 and 2 million rows of 128 dims: half as many in a cell and bounds cost more than they
# save, twice as many and too many rows reach too many cells.
_FEWEST_ROWS = 128
_ROUNDS = 2
_SLICE = 4096
_DIRECTION_ROWS = 512
_DIRECTION_ROUNDS = 4
# Segments of so many points are sorted along one direction, and not halved any further.
_SORTED = 8


def cell_rows_for(rows: int) -> int:
    """Rows that a cell should have, of so many in all: cells number about twice the root of the rows."""
    return max(_FEWEST_ROWS, math.isqrt(rows) // 2)


def near_order(points: NDArray[np.floating]) -> Int64:
    """An order in which neighbouring points (m, q) are close: halved again and again where they spread most."""
    order = np.arange(len(points), dtype=np.int64)
    waiting = [(0, len(points))]
    while waiting:
        start, stop = waiting.pop()
        if stop - start < 2:
            continue
        part = order[start:stop]
        along = _along(points[part])
        order[start:stop] = part[np.argsort(along, kind="stable")]
        if stop - start > _SORTED:
            middle = (start + stop) // 2
            waiting += [(start, middle), (middle, stop)]
    return order


def _along(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where points lie along the direction in which they spread most."""
    exact = points.astype(np.float64)
    exact -= exact.mean(axis=0)
    sample = exact[:: max(1, len(exact) // _DIRECTION_ROWS)]
    direction = sample[np.argmax(np.einsum("ij,ij->i", sample, sample))]
    for _ in range(_DIRECTION_ROUNDS):
        turned = sample.T @ (sample @ direction)
        length = float(np.linalg.norm(turned))
        if not 0.0 < length < math.inf:
            break
        direction = turned / length
    along: NDArray[np.float64] = exact @ direction
    return along


def form_cells(points: Float32, clusters: Int64, wanted: int, largest: int) -> tuple[Int64, Int64]:
    """Cells of about ``wanted`` and at most ``largest`` rows.

    Parameters
    ----------
    points : ndarray of float32, shape (m, dims)
    clusters : ndarray of int64, shape (m,)
        Of each point, ascending; neighbouring clusters are close.
    wanted, largest : int

    Returns
    -------
    order : ndarray of int64, shape (m,)
        The points, cell by cell.
    edges : ndarray of int64, shape (cells + 1,)
        Cell i holds the points order[edges[i]:edges[i + 1]].
    """
    order = np.arange(len(points), dtype=np.int64)
    starts = np.flatnonzero(np.diff(clusters, prepend=-1)).tolist()
    edges = [0]
    for start, stop in pairwise([*starts, len(points)]):
        begun = start - edges[-1]
        if begun and (2 * begun >= wanted or begun + stop - start > 2 * wanted or begun + stop - start > largest):
            edges.append(start)
        if stop - start >= 2 * wanted or stop - start > largest:
            pieces = -(-(stop - start) // wanted)
            inside, sizes = _cut(points[start:stop], pieces)
            order[start:stop] = inside + start
            for size in sizes.tolist():
                parts = -(-size // min(4 * wanted, largest))
                begin = edges[-1]
                edges += [begin + size * (part + 1) // parts for part in range(parts)]
    if edges[-1] < len(points):
        edges.append(len(points))
    return order, np.array(edges, dtype=np.int64)


def _cut(points: Float32, pieces: int) -> tuple[Int64, Int64]:
    """An order of the points, piece by piece, and the sizes of the pieces that have any."""
    centres = points[np.arange(pieces) * len(points) // pieces]
    labels = np.zeros(len(points), dtype=np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        for turn in range(_ROUNDS):
            half = np.einsum("ij,ij->i", centres, centres) / 2
            for start in range(0, len(points), _SLICE):
                scores = points[start : start + _SLICE] @ centres.T
                scores -= half
                labels[start : start + _SLICE] = scores.argmax(axis=1)
            order = np.argsort(labels, kind="stable")
            sizes = np.bincount(labels, minlength=pieces)
            kept = np.flatnonzero(sizes)
            centres, pieces, sizes = means(points[order], np.append(0, np.cumsum(sizes[kept]))), len(kept), sizes[kept]
            labels = np.searchsorted(kept, labels)
            if turn + 1 < _ROUNDS:
                continue
            near = near_order(np.nan_to_num(centres, posinf=0.0, neginf=0.0))
            place = np.empty_like(near)
            place[near] = np.arange(pieces)
            return np.argsort(place[labels], kind="stable"), sizes[near]
    raise AssertionError("no round")


def means(points: Float32, edges: Int64) -> Float32:
    """The mean point of each cell."""
    with np.errstate(over="ignore", invalid="ignore"):
        totals = [points[start:stop].mean(axis=0, dtype=np.float64) for start, stop in pairwise(edges.tolist())]
        return np.array(totals, dtype=np.float64).reshape(len(totals), points.shape[1]).astype(np.float32)
