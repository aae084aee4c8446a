"""Many small k-means problems side by side: rows in segments, each segment with centroids of its own.

A segment's rows lie together, and so do its centroids; labels number the centroids of the whole bundle. One call works
on all segments, so that a problem of a hundred rows costs its arithmetic and not the calls around it.

What makes passes after the first cheap are lower bounds of the distance from each row to each centroid of its segment
(Elkan 2003). ``bounds`` hold l_ij <= |x_i - c_j|, in exact arithmetic: from a formula value F, whose relative error is
below (d + 4) 2^-53 < 1e-9, l = sqrt(F) (1 - 1e-9); when c_j moves by at most m, l becomes (l - m) (1 - 2^-50), the
factor covering the rounding of the subtraction. l_ij > sqrt(F_i,own) (1 + 1e-9) then proves F_ij > F_i,own: the pair
neither wins nor ties. All other pairs are evaluated by the formula (float32 operands and unit rows neither under- nor
overflow in it). The own centroid's place holds infinity: it is no candidate.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64, as_centroids, as_rows, check_metric

LANES = 64  # rows side by side: with their sums they stay in the nearest cache up to some hundred dims
FEW = 8  # fewer rows than this are not worth turning
_TILE_BYTES = 1 << 22


@compiled
def _values_of_lanes(turned: Float64, lanes: int, centroids: Float32, c: int, sums: Float64) -> None:
    # Four coordinates at a time, added from left to right: the formula's order, with a fourth of the stores.
    # (All of ``turned``, not a slice of it: a slice would be read with strides, one number at a time.)
    dims = turned.shape[0]
    whole = dims - dims % 4
    for i in range(lanes):
        sums[i] = 0.0
    for j in range(0, whole, 4):
        c0, c1 = np.float64(centroids[c, j]), np.float64(centroids[c, j + 1])
        c2, c3 = np.float64(centroids[c, j + 2]), np.float64(centroids[c, j + 3])
        for i in range(lanes):
            a0, a1 = turned[j, i] - c0, turned[j + 1, i] - c1
            a2, a3 = turned[j + 2, i] - c2, turned[j + 3, i] - c3
            sums[i] = (((sums[i] + a0 * a0) + a1 * a1) + a2 * a2) + a3 * a3
    for j in range(whole, dims):
        c0 = np.float64(centroids[c, j])
        for i in range(lanes):
            a0 = turned[j, i] - c0
            sums[i] += a0 * a0


@compiled
def _values_of_pairs(
    rows: Array, pair_row: Int64, centroids: Float32, pair_cluster: Int64, count: int, values: Float64
) -> None:
    # Four pairs at a time: one pair's additions must wait for one another, different pairs' need not.
    dims = rows.shape[1]
    for p in range(0, count, 4):
        p1, p2, p3 = min(p + 1, count - 1), min(p + 2, count - 1), min(p + 3, count - 1)
        r0, r1, r2, r3 = pair_row[p], pair_row[p1], pair_row[p2], pair_row[p3]
        k0, k1, k2, k3 = pair_cluster[p], pair_cluster[p1], pair_cluster[p2], pair_cluster[p3]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(dims):
            a0 = np.float64(rows[r0, j]) - np.float64(centroids[k0, j])
            a1 = np.float64(rows[r1, j]) - np.float64(centroids[k1, j])
            a2 = np.float64(rows[r2, j]) - np.float64(centroids[k2, j])
            a3 = np.float64(rows[r3, j]) - np.float64(centroids[k3, j])
            s0 += a0 * a0
            s1 += a1 * a1
            s2 += a2 * a2
            s3 += a3 * a3
        values[p], values[p1], values[p2], values[p3] = s0, s1, s2, s3


@compiled
def first_labels(
    rows: Array,
    starts: Int64,
    edges: Int64,
    centroids: Float32,
    places: Int64,
    labels: Int32,
    values: Float64,
    bounds: Float64,
) -> None:
    """Label every row of every segment, and take the bounds that later passes go on from.

    Parameters
    ----------
    rows : (m, d) float32 or float64
        Formula rows.
    starts, edges : (segments + 1,) int64
        First row and first centroid of each segment.
    centroids : (k, d) float32
    places : (segments,) int64
        Where in ``bounds`` a segment's matrix (centroids, rows) begins; no bounds are kept where it is empty.
    labels, values : (m,) int32, float64
        Written: the nearest centroid of the row's segment, ties to the lowest; -1 where the segment has none.
    bounds : (sum of rows x centroids,) float64
        Written.
    """
    dims = rows.shape[1]
    turned = np.empty((dims, LANES), dtype=np.float64)
    sums = np.empty(LANES, dtype=np.float64)
    for segment in range(len(starts) - 1):
        first, last, low, high = starts[segment], starts[segment + 1], edges[segment], edges[segment + 1]
        size = last - first
        for begin in range(first, last, LANES):
            end = min(begin + LANES, last)
            for i in range(begin, end):
                labels[i] = -1
                values[i] = np.inf
                for j in range(dims):
                    turned[j, i - begin] = np.float64(rows[i, j])
            for c in range(low, high):
                _values_of_lanes(turned, end - begin, centroids, c, sums)
                for i in range(end - begin):
                    better = sums[i] < values[begin + i]
                    values[begin + i] = sums[i] if better else values[begin + i]
                    labels[begin + i] = c if better else labels[begin + i]
                if len(places):
                    place = places[segment] + (c - low) * size + begin - first
                    for i in range(end - begin):
                        bounds[place + i] = np.sqrt(sums[i]) * (1 - 1e-9)
            if len(places):
                for i in range(begin, end):
                    bounds[places[segment] + (labels[i] - low) * size + i - first] = np.inf


@compiled
def next_labels(
    rows: Array,
    starts: Int64,
    edges: Int64,
    segments: Int64,
    centroids: Float32,
    moved: Float64,
    places: Int64,
    labels: Int32,
    values: Float64,
    bounds: Float64,
    changed: Int64,
    before: Int32,
) -> int:
    """Label the rows of some segments again after their centroids moved.

    Parameters
    ----------
    segments : (s,) int64
        Which; the others keep what they have.
    moved : (k,) float64
        At least how far each centroid moved since the pass before; 0 only where it did not at all.
    labels, values, bounds
        Of the pass before, rewritten.
    changed, before : (m,) int64, int32
        Written: the rows whose label changed, and what it was.

    Returns
    -------
    int
        How many rows changed their label.
    """
    largest = 0
    for segment in segments:
        largest = max(largest, (starts[segment + 1] - starts[segment]) * (edges[segment + 1] - edges[segment] + 1))
    pair_row, pair_cluster = np.empty(largest, dtype=np.int64), np.empty(largest, dtype=np.int64)
    pair_value = np.empty(largest, dtype=np.float64)
    upper = np.empty(len(rows), dtype=np.float64)
    was = np.empty(len(rows), dtype=np.int32)
    count = 0
    for segment in segments:
        first, last, low, high = starts[segment], starts[segment + 1], edges[segment], edges[segment + 1]
        size = last - first
        was[:size] = labels[first:last]
        pairs = 0
        for i in range(first, last):
            if moved[labels[i]] > 0.0:
                pair_row[pairs], pair_cluster[pairs] = i, labels[i]
                pairs += 1
        _values_of_pairs(rows, pair_row, centroids, pair_cluster, pairs, pair_value)
        for p in range(pairs):
            values[pair_row[p]] = pair_value[p]
        for i in range(first, last):
            upper[i - first] = np.sqrt(values[i]) * (1 + 1e-9)
        pairs = 0
        for c in range(low, high):
            own = bounds[places[segment] + (c - low) * size : places[segment] + (c - low + 1) * size]
            far = moved[c]
            near = 0
            for i in range(size):  # without a branch a row; most centroids are near no row but their own
                bound = (own[i] - far) * (1 - 2.0**-50)
                own[i] = bound
                near += 1 if bound <= upper[i] else 0
            if near:
                for i in range(size):
                    if own[i] <= upper[i]:
                        pair_row[pairs], pair_cluster[pairs] = first + i, c
                        pairs += 1
        _values_of_pairs(rows, pair_row, centroids, pair_cluster, pairs, pair_value)
        for p in range(pairs):
            i, c, value = pair_row[p], pair_cluster[p], pair_value[p]
            place = places[segment] + i - first
            if value < values[i] or (value == values[i] and c < labels[i]):
                bounds[place + (labels[i] - low) * size] = np.sqrt(values[i]) * (1 - 1e-9)
                bounds[place + (c - low) * size] = np.inf
                values[i], labels[i] = value, c
            else:
                bounds[place + (c - low) * size] = np.sqrt(value) * (1 - 1e-9)
        for i in range(first, last):
            if labels[i] != was[i - first]:
                changed[count], before[count] = i, was[i - first]
                count += 1
    return count


@compiled
def _labels_within(
    rows: Array,
    order: Int64,
    starts: Int64,
    lows: Int64,
    highs: Int64,
    centroids: Float32,
    labels: Int32,
    values: Float64,
) -> None:
    dims = rows.shape[1]
    turned = np.empty((dims, LANES), dtype=np.float64)
    sums = np.empty(LANES, dtype=np.float64)
    row, cluster = np.empty(LANES, dtype=np.int64), np.empty(LANES, dtype=np.int64)
    for segment in range(len(lows)):
        low, high = lows[segment], highs[segment]
        for begin in range(starts[segment], starts[segment + 1], LANES):
            end = min(begin + LANES, starts[segment + 1])
            if end - begin < FEW:
                for p in range(begin, end):
                    i = order[p]
                    row[:] = p
                    for first in range(low, high, LANES):
                        count = min(LANES, high - first)
                        for c in range(count):
                            cluster[c] = first + c
                        _values_of_pairs(rows, row, centroids, cluster, count, sums)
                        for c in range(count):
                            if sums[c] < values[i]:
                                values[i], labels[i] = sums[c], first + c
                continue
            for p in range(begin, end):
                for j in range(dims):
                    turned[j, p - begin] = np.float64(rows[p, j])
            for c in range(low, high):
                _values_of_lanes(turned, end - begin, centroids, c, sums)
                for p in range(begin, end):
                    if sums[p - begin] < values[order[p]]:
                        values[order[p]], labels[order[p]] = sums[p - begin], c


def nearest_within(
    rows: Array, segments: Int64, offsets: Int64, centroids: Float32, metric: str
) -> tuple[Int32, Float64]:
    """The nearest centroid of each row among those of its segment, by the formula, ties to the lowest.

    Parameters
    ----------
    rows : (m, d) float16 or float32
    segments : (m,) integers
        Each row's segment.
    offsets : (segments + 1,) int64
        Where each segment's centroids begin.
    centroids : (k, d) float32
    metric : "l2" or "cosine"

    Returns
    -------
    labels : (m,) int32
        Numbered through ``centroids``; -1 where the segment has none.
    values : (m,) float64
        Formula values; infinite where the label is -1.
    """
    check_metric(metric)
    rows, centroids = as_rows(rows), as_centroids(centroids, rows.shape[1])
    labels = np.full(len(rows), -1, dtype=np.int32)
    values = np.full(len(rows), np.inf)
    order = np.argsort(segments, kind="stable")
    step = max(_TILE_BYTES // (8 * max(rows.shape[1], 1)), LANES)
    for start in range(0, len(order), step):
        part = order[start : start + step]
        own = segments[part]
        edges = np.flatnonzero(np.diff(own, prepend=-1))
        which = own[edges]
        _labels_within(
            formula_rows(rows[part], metric), part, np.append(edges, len(part)), offsets[which], offsets[which + 1],
            centroids, labels, values,
        )  # fmt: skip
    return labels, values


@compiled
def movements(centroids: Float32, means: Float32, clusters: Int64, moved: Float64) -> None:
    """At least how far each of ``clusters`` goes from its centroid to its mean, into ``moved``; 0 if not at all."""
    for c in clusters:
        total = 0.0
        for j in range(centroids.shape[1]):
            difference = np.float64(means[c, j]) - np.float64(centroids[c, j])
            total += difference * difference
        moved[c] = np.sqrt(total) * (1 + 1e-9)


@compiled
def segment_totals(
    values: Float64, starts: Int64, segments: Int64, scale: float, limb_bits: int, totals: Float64
) -> None:
    """Exact sums of the segments' values, each rounded as ``ExactTotal`` rounds it, into ``totals`` (segments, 2).

    ``scale`` is 2^-(exponent + limb_bits). A sum is a whole number and a rest in units of 2^-limb_bits, both exact in
    float64 for up to 2^13 values; their float64 sum is the exact total, rounded once.
    """
    whole, part = 1.5 * 2.0**52, 1.5 * 2.0 ** (52.0 - limb_bits)
    for segment in segments:
        high = low = 0.0
        for i in range(starts[segment], starts[segment + 1]):
            scaled = values[i] * scale
            piece = (scaled + whole) - whole
            high += piece
            low += ((scaled - piece) + part) - part
        totals[segment, 0], totals[segment, 1] = high, low
