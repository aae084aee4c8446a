"""Laying centroids out for screening: shifted, scaled, ordered by norm."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from streamcurate.kernels.cpu import centroid_boxes
from streamcurate.kernels.cpu.centroid_boxes import GroupedCentroids
from streamcurate.kernels.cpu.choice import Choice, Experience, choice_bytes
from streamcurate.kernels.cpu.screen import ELSEWHERE, LANES
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Float32, Float64, Int32, as_centroids, check_metric
from streamcurate.kernels.prepared_centroids import PreparedCentroids

LARGEST_TILE = 512
"""Most columns of one tile of scores. Larger tiles gain nothing in the matrix product (measured 256 to 4096)."""

# Up to so many clusters x (dims + 3) the formula over all pairs beats screening (measured, one thread: 100 to 300
# clusters at 8 to 1 dims, 60 at 16, 16 at 64, 2 at 384).
DIRECT_WORK = 1200

LARGEST_MOVED_SHARE = 0.5
"""Share of the centroids up to which those that moved are searched apart from the others."""

# Up to here (d + 4) 2^-24 <= 0.07 and float64 norms err by less than 1e-9, as the error bound of the search assumes.
LARGEST_DIMS = 2**20


@dataclass(frozen=True)
class Moved:
    """The centroids that moved farther than the others since the pass before.

    Attributes
    ----------
    drift : float
        Upper bound of the distance that any centroid moved which is not among these.
    prepared : ScreenedCentroids or None
        The moved ones, laid out for a search of their own; None where there are none.
    clusters : (p,) int32
        Their numbers, ascending.
    places : (k,) int32
        Each centroid's place among the moved, ELSEWHERE for others.
    """

    drift: float
    prepared: ScreenedCentroids | None
    clusters: Int32
    places: Int32


@dataclass(frozen=True)
class ScreenedCentroids(PreparedCentroids):
    """Prepared for the CPU: ``bounds`` for each of the columns, which come in whole steps of 32.

    Attributes
    ----------
    choice : Choice or None
        How the search is carried out; learns from tile to tile. None where ``direct``.
    moved : Moved or None
        None where nothing is known of the centroids before, or too many moved for a search of them to gain.
    grouped : GroupedCentroids or None
        At few dims, where a tree of boxes beats screening; the arrays of screening are empty then.
    """

    choice: Choice | None
    moved: Moved | None = None
    grouped: GroupedCentroids | None = None


@compiled
def _largest_difference(centroids: Float32, origin: Float64) -> float:
    largest = 0.0
    for i in range(centroids.shape[0]):
        for j in range(centroids.shape[1]):
            largest = max(largest, abs(np.float64(centroids[i, j]) - origin[j]))
    return largest


@compiled
def _shifted_squared_norms(centroids: Float32, origin: Float64, scale: float, norms: Float64) -> None:
    for i in range(centroids.shape[0]):
        total = 0.0
        for j in range(centroids.shape[1]):
            value = (np.float64(centroids[i, j]) - origin[j]) * scale
            total += value * value
        norms[i] = total


@compiled
def _fill_columns(centroids: Float32, origin: Float64, scale: float, order: Int32, columns: Float32) -> None:
    for position in range(len(order)):
        cluster = order[position]
        for j in range(centroids.shape[1]):
            if cluster < 0:
                columns[position, j] = np.float32(0.0)
            else:
                columns[position, j] = np.float32((np.float64(centroids[cluster, j]) - origin[j]) * (-2.0 * scale))


def _layout(clusters: int) -> tuple[int, int]:
    """(columns of one tile, padded columns) for so many clusters: whole steps, tiles of about equal size."""
    steps = -(-clusters // LANES)
    tiles = -(-steps * LANES // LARGEST_TILE)
    return -(-steps // tiles) * LANES, steps * LANES


def prepared_centroids_bytes(clusters: int, dims: int) -> int:
    """Bytes :func:`prepare_centroids` and searches add to those of the centroids, their work included."""
    if centroid_boxes.worthwhile(clusters, dims):
        return centroid_boxes.grouped_bytes(clusters, dims)
    padded = -(-clusters // LANES) * LANES
    return padded * (4 * dims + 4 + 4 + 8) + padded * 40 + 24 * dims + choice_bytes(padded, clusters, dims)


def moved_centroids_bytes(clusters: int, dims: int) -> int:
    """Bytes :func:`prepare_centroids` adds where it is given the centroids before, which are not counted."""
    return 28 * clusters + prepared_centroids_bytes(int(LARGEST_MOVED_SHARE * clusters) + 1, dims)


def prepare_centroids(
    centroids: Float32,
    metric: str,
    experience: Experience | None = None,
    before: Float32 | None = None,
    drift: float = 0.0,
    boxes: bool | None = None,
) -> ScreenedCentroids:
    """Make centroids ready for :func:`nearest`.

    Parameters
    ----------
    centroids : (k, d) float32, finite
        For "cosine" the stored unit centroids. Not copied: leave it alone while the result is in use.
    metric : "l2" or "cosine"
    experience : Experience, optional
        What earlier passes learned about how to search; changes the time a search takes only.
    before : (k, d) float32, optional
        The centroids of the pass before, for :func:`relabel`.
    drift : float
        Centroids that moved by no more than this are not searched again for every row; changes time only.
    boxes : bool, optional
        Whether to search a tree of boxes; by default where that is faster.

    Returns
    -------
    ScreenedCentroids
        Shared by all threads of a pass; takes :func:`prepared_centroids_bytes` at most.

    Raises
    ------
    ValueError
        No centroids, another dtype or shape, or an unknown metric.
    """
    check_metric(metric)
    centroids = as_centroids(centroids)
    clusters, dims = centroids.shape
    if clusters == 0 or dims == 0:
        raise ValueError(f"centroids have shape {centroids.shape}; at least one centroid of one dim is needed")
    if dims > LARGEST_DIMS:
        raise ValueError(f"centroids have {dims} dims; the search's error bound holds up to {LARGEST_DIMS}")
    direct = clusters * (dims + 3) <= DIRECT_WORK
    if boxes is None:
        boxes = not direct and centroid_boxes.worthwhile(clusters, dims)
    if direct or boxes:
        none32, none64 = np.empty(0, np.float32), np.empty(0, np.float64)
        columns, order = none32.reshape(0, dims), np.empty(0, np.int32)
        grouped = centroid_boxes.prepare(centroids, metric) if boxes else None
        return ScreenedCentroids(
            metric, centroids, direct, LANES, none64, 1.0, columns, none32, order, none64, None, None, grouped
        )
    # Any origin gives the same labels; the mean makes scores small, so that an offset all rows share costs nothing.
    origin = np.add.reduce(centroids, axis=0, dtype=np.float64) / clusters
    largest = _largest_difference(centroids, origin)
    scale = 1.0 if largest == 0.0 else math.ldexp(1.0, 1 - math.frexp(largest)[1])
    plain = _laid_out(metric, centroids, origin, scale, experience)
    if before is None:
        return plain
    moved = _moved(plain, as_centroids(before, dims), experience, drift)
    return replace(plain, moved=moved)


def _laid_out(
    metric: str, centroids: Float32, origin: Float64, scale: float, experience: Experience | None
) -> ScreenedCentroids:
    """Centroids ready to be screened, however few."""
    clusters, dims = centroids.shape
    tile, padded = _layout(clusters)
    squared = np.empty(clusters, dtype=np.float64)
    _shifted_squared_norms(centroids, origin, scale, squared)
    # Neighbours in norm share a tile, whose error bound is that of its largest member.
    order = np.full(padded, -1, dtype=np.int32)
    order[:clusters] = np.argsort(squared, kind="stable")
    columns = np.empty((padded, dims), dtype=np.float32)
    _fill_columns(centroids, origin, scale, order, columns)
    norms = np.where(order < 0, np.float32(np.inf), squared[order].astype(np.float32)).astype(np.float32)
    # 1e-9 covers the float64 rounding of a norm of up to a million coordinates, 2^-100 its underflow.
    bounds = np.where(order < 0, 0.0, np.sqrt(squared[order]) * (1 + 1e-9) + 2.0**-100)
    choice = Choice(columns, bounds, clusters, experience)
    return ScreenedCentroids(metric, centroids, False, tile, origin, scale, columns, norms, order, bounds, choice)


def _moved(prepared: ScreenedCentroids, before: Float32, experience: Experience | None, drift: float) -> Moved | None:
    centroids = prepared.centroids
    shifts = centroid_shifts(before, centroids)
    clusters = np.flatnonzero(shifts > drift).astype(np.int32)
    if len(clusters) > LARGEST_MOVED_SHARE * len(centroids):
        return None
    places = np.full(len(centroids), ELSEWHERE, dtype=np.int32)
    places[clusters] = np.arange(len(clusters), dtype=np.int32)
    again = None
    if len(clusters):
        again = _laid_out(prepared.metric, centroids[clusters], prepared.origin, prepared.scale, experience)
    return Moved(float(np.delete(shifts, clusters).max(initial=0.0)), again, clusters, places)


@compiled
def _shifts(before: Float32, after: Float32, shifts: Float64) -> None:
    for i in range(len(before)):
        total = 0.0
        for j in range(before.shape[1]):
            difference = np.float64(before[i, j]) - np.float64(after[i, j])
            total += difference * difference
        # Rounding errs by less than 1e-9; what underflows is less than the last term.
        shifts[i] = np.sqrt(total) * (1 + 1e-9) if total > 0.0 else 0.0


def centroid_shifts(before: Float32, after: Float32) -> Float64:
    """Upper bounds of the distances by which centroids (k, d) moved; (k,) float64, 0 only where nothing moved."""
    shifts = np.empty(len(before), dtype=np.float64)
    _shifts(as_centroids(before), as_centroids(after), shifts)
    return shifts
