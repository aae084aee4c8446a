"""The compiled parts of the certified search; cpu/nearest.py has the derivation and the names."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from streamcurate.kernels.jit import compiled, compiled_any_order, llvm_intrinsic
from streamcurate.kernels.metric import Array, Float32, Float64, Int32, Int64

LANES = 32
"""Scores looked at in one step; tiles of columns are padded to multiples of it."""


def _sums(context: Any, builder: Any, signature: Any, arguments: Any, first: Any, column: Any) -> Any:
    """LLVM vector of 32 scores and norms added: ``arguments`` begin with both arrays."""
    vector = ir.VectorType(ir.FloatType(), LANES)

    def load(argument: int, position: Any) -> Any:
        array = context.make_array(signature.args[argument])(context, builder, arguments[argument])
        pointer = builder.bitcast(builder.gep(array.data, [position]), vector.as_pointer())
        loaded = builder.load(pointer)
        loaded.align = 4
        return loaded

    return builder.fadd(load(0, first), load(1, column))


@llvm_intrinsic
def _at_most(typing_context: Any, scores: Any, norms: Any, first: Any, column: Any, limit: Any) -> Any:
    """Bits of the 32 columns from ``column`` on whose score + norm is at most ``limit``.

    Written in LLVM's own vectors, which become one compare and one move-mask for each register: loops that the
    compiler vectorises by itself take three to five times as long (measured 0.10 against 0.31 to 0.44 ns a score).
    """
    signature = types.uint32(scores, norms, types.intp, types.intp, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums = _sums(context, builder, signature, arguments, arguments[2], arguments[3])
        index, nothing = ir.IntType(32), ir.Constant(sums.type, ir.Undefined)
        one = builder.insert_element(nothing, arguments[4], ir.Constant(index, 0))
        limits = builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))
        return builder.bitcast(builder.fcmp_ordered("<=", sums, limits), ir.IntType(LANES))

    return signature, generate


def _store_of(builder: Any, value: Any) -> Any:
    """A place on the stack that holds a value."""
    allocate: Any = cgutils.alloca_once_value
    return allocate(builder, value)


@llvm_intrinsic
def _least(typing_context: Any, scores: Any, norms: Any, first: Any, columns: Any) -> Any:
    """The smallest score + norm among so many columns, a multiple of 32, of the row whose scores begin at ``first``."""
    signature = types.float32(scores, norms, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        smallest = ir.Constant(ir.VectorType(ir.FloatType(), LANES), [float("inf")] * LANES)
        least = _store_of(builder, smallest)

        def take_smaller(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", one, other), one, other)

        start, step = ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), LANES)
        with cgutils.for_range_slice(builder, start, arguments[3], step) as (column, _):
            sums = _sums(context, builder, signature, arguments, builder.add(arguments[2], column), column)
            builder.store(take_smaller(sums, builder.load(least)), least)
        left, width = builder.load(least), LANES
        while width > 1:  # one half against the other, until one value is left
            width //= 2
            nothing = ir.Constant(left.type, ir.Undefined)
            places = ir.VectorType(ir.IntType(32), width)
            low = builder.shuffle_vector(left, nothing, ir.Constant(places, list(range(width))))
            high = builder.shuffle_vector(left, nothing, ir.Constant(places, list(range(width, 2 * width))))
            left = take_smaller(low, high)
        return builder.extract_element(left, ir.Constant(ir.IntType(32), 0))

    return signature, generate


@llvm_intrinsic
def _lowest_bit(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest set bit of an integer that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1)), ir.IntType(64))

    return types.int64(types.uint32), generate


HUNTING = -1
ELSEWHERE = -2


@compiled
def _number(cluster: int, numbers: Int32, first_cluster: int) -> int:
    """A cluster of the slice as answers number it: by ``numbers`` where there are any."""
    return int(np.int64(numbers[cluster])) if len(numbers) else cluster + first_cluster


@compiled
def _settle_row(
    rows: Array,
    i: int,
    centroids: Float32,
    clusters: Int32,
    length: int,
    labels: Int32,
    values: Float64,
    numbers: Int32,
    first_cluster: int,
) -> None:
    dims = rows.shape[1]
    p = 0
    while p < length:
        k0 = clusters[p]
        k1 = clusters[min(p + 1, length - 1)]
        k2 = clusters[min(p + 2, length - 1)]
        k3 = clusters[min(p + 3, length - 1)]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(dims):
            x = np.float64(rows[i, j])
            a0 = x - np.float64(centroids[k0, j])
            a1 = x - np.float64(centroids[k1, j])
            a2 = x - np.float64(centroids[k2, j])
            a3 = x - np.float64(centroids[k3, j])
            s0 += a0 * a0
            s1 += a1 * a1
            s2 += a2 * a2
            s3 += a3 * a3
        for cluster, value in ((k0, s0), (k1, s1), (k2, s2), (k3, s3)):
            number = _number(cluster, numbers, first_cluster)
            if labels[i] < 0 or value < values[i] or (value == values[i] and number < labels[i]):
                values[i] = value
                labels[i] = number
        p += 4


@compiled
def _keep(
    i: int,
    cluster: int,
    low: float,
    highest: float,
    found: Int32,
    lower: Float64,
    length: Int64,
    rows: Array,
    centroids: Float32,
    labels: Int32,
    values: Float64,
    numbers: Int32,
    first_cluster: int,
) -> None:
    """Add a possible winner to row ``i``'s list.

    A list that is full even after pruning is settled by the formula at once, so memory does not depend on how many
    centroids are alike.
    """
    room = found.shape[1]
    n = length[i]
    if n == room:
        n = 0
        for p in range(room):
            if lower[i, p] <= highest:
                lower[i, n] = lower[i, p]
                found[i, n] = found[i, p]
                n += 1
        if n == room:
            _settle_row(rows, i, centroids, found[i], n, labels, values, numbers, first_cluster)
            n = 0
    found[i, n] = cluster
    lower[i, n] = low
    length[i] = n + 1


@compiled
def _not_below(value: float) -> np.float32:
    """A float32 at or above ``value``."""
    return np.float32(value + abs(value) * 2.0**-22 + 2.0**-120)


@compiled
def _highest(upper: float, reach: float, margin: float) -> float:
    """The score of a centroid farther by ``margin`` than one of score ``upper``; at least ``upper``."""
    if margin == 0.0 or not upper < np.inf:
        return upper
    wider: float = upper + margin * (2.0 * np.sqrt(max(0.0, upper + reach * reach)) + margin)
    return wider


@compiled
def _note(i: int, cluster: int, low: float, rivals: Float64, nearest_rival: Int32) -> None:
    """Remember the two smallest lower bounds among the columns looked at closely."""
    if low < rivals[i, 0]:
        rivals[i, 1] = rivals[i, 0]
        rivals[i, 0] = low
        nearest_rival[i] = cluster
    elif low < rivals[i, 1]:
        rivals[i, 1] = low


@compiled
def _error(a: float, b: float, product_term: float, norm_term: float, formula_term: float, tiny_term: float) -> float:
    total = a + b
    return product_term * a * b + norm_term * b * b + formula_term * total * total + tiny_term * (1.0 + total)


@compiled
def _smallest_column(scores: Float32, i: int, norms: Float32) -> int:
    """The column of row ``i`` with the smallest score."""
    base = i * len(norms)
    least = _least(scores, norms, base, len(norms))
    for c in range(0, len(norms), LANES):
        bits = _at_most(scores, norms, base + c, c, least)
        if bits != 0:
            column: int = c + _lowest_bit(bits)
            return column
    return 0


@compiled
def sift(
    scores: Float32,
    norms: Float32,
    order: Int32,
    bound: float,
    terms: Float64,
    own: Int32,
    margin: float,
    rivals: Float64,
    nearest_rival: Int32,
    reach: Float64,
    upper: Float64,
    found: Int32,
    lower: Float64,
    length: Int64,
    rows: Array,
    centroids: Float32,
    labels: Int32,
    values: Float64,
    numbers: Int32,
    first_cluster: int,
) -> None:
    """Lower each row's ``upper`` by this tile's scores (rows, columns) and list the columns that could still win.

    ``bound`` is the largest norm among the tile's columns. ``own`` is the cluster whose value is in ``upper`` already,
    HUNTING where there is nothing good in ``upper`` yet, ELSEWHERE where what is there is none of these columns'.
    Columns farther than the best by no more than ``margin`` are looked at closely; the two best of them are noted in
    ``rivals``.
    """
    count, columns = scores.shape
    for i in range(count):
        error = _error(reach[i], bound, terms[0], terms[1], terms[2], terms[3])
        base = i * columns
        if own[i] == HUNTING:
            high = np.float64(_least(scores, norms, base, columns)) + error
            if high < upper[i]:
                upper[i] = high
        highest = upper[i]
        limit = _not_below(_highest(highest, reach[i], margin) + error)
        for first in range(0, columns, LANES):
            bits = _at_most(scores, norms, base + first, first, limit)
            while bits != 0:
                c = first + _lowest_bit(bits)
                bits = np.uint32(bits & np.uint32(bits - np.uint32(1)))
                low = np.float64(scores[i, c] + norms[c]) - error
                if order[c] < 0 or order[c] == own[i]:
                    continue
                _note(i, _number(order[c], numbers, first_cluster), low, rivals, nearest_rival)
                if low <= highest:
                    _keep(
                        i, order[c], low, highest, found, lower, length,
                        rows, centroids, labels, values, numbers, first_cluster,
                    )  # fmt: skip


@compiled_any_order
def _product(x: Float32, i: int, y: Float32, c: int, first: int, last: int) -> np.float32:
    # Whole arrays and indices, since a view costs as much as the product of a few dozen coordinates; indices without
    # sign, since what may count from the end is not vectorised (measured 5 ns a product of 64, against 9 and 70).
    row, column, begin = np.uint64(i), np.uint64(c), np.uint64(first)
    total = np.float32(0.0)
    for j in range(np.uint64(last) - begin):
        total += x[row, begin + j] * y[column, begin + j]
    return total


@compiled
def _try_column(
    i: int,
    c: int,
    shifted: Float32,
    columns: Float32,
    norms: Float32,
    order: Int32,
    bound: float,
    terms: Float64,
    rivals: Float64,
    nearest_rival: Int32,
    reach: Float64,
    upper: Float64,
    found: Int32,
    lower: Float64,
    length: Int64,
    rows: Array,
    centroids: Float32,
    labels: Int32,
    values: Float64,
    numbers: Int32,
    first_cluster: int,
) -> None:
    """Score a column over all coordinates: lower the row's ``upper`` by it, list it if it could still win."""
    if order[c] < 0:
        return
    error = _error(reach[i], bound, terms[0], terms[1], terms[2], terms[3])
    score = np.float64(_product(shifted, i, columns, c, 0, shifted.shape[1]) + norms[c])
    _note(i, _number(order[c], numbers, first_cluster), score - error, rivals, nearest_rival)
    if score - error <= upper[i]:
        if score + error < upper[i]:
            upper[i] = score + error
        _keep(
            i, order[c], score - error, upper[i], found, lower, length,
            rows, centroids, labels, values, numbers, first_cluster,
        )  # fmt: skip


@compiled
def sift_leading(
    scores: Float32,
    projected: Float32,
    tails: Float32,
    leading: int,
    coordinates: Float32,
    column_tails: Float32,
    leading_terms: Float64,
    survivors: Int32,
    shifted: Float32,
    columns: Float32,
    norms: Float32,
    order: Int32,
    bound: float,
    terms: Float64,
    own: Int32,
    margin: float,
    rivals: Float64,
    nearest_rival: Int32,
    reach: Float64,
    upper: Float64,
    found: Int32,
    lower: Float64,
    length: Int64,
    rows: Array,
    centroids: Float32,
    labels: Int32,
    values: Float64,
    numbers: Int32,
    first_cluster: int,
) -> int:
    """As :func:`sift` with scores that are lower bounds from leading coordinates; returns how many pairs survived.

    Survivors get further projected coordinates a step at a time, and what survives those all coordinates.
    """
    count, width = scores.shape
    last = projected.shape[1]
    stages = tails.shape[1]
    total = 0
    for i in range(count):
        slack = _error(reach[i], bound, leading_terms[0], leading_terms[1], leading_terms[2], leading_terms[3])
        base = i * width
        tried = -1
        if own[i] == HUNTING:
            best = _smallest_column(scores, i, norms)
            if np.float64(scores[i, best] + norms[best]) - slack <= upper[i]:
                tried = best
                _try_column(
                    i, tried, shifted, columns, norms, order, bound, terms, rivals, nearest_rival, reach, upper,
                    found, lower, length, rows, centroids, labels, values, numbers, first_cluster,
                )  # fmt: skip
        limit = _not_below(_highest(upper[i], reach[i], margin) + slack)
        n = 0
        for first in range(0, width, LANES):
            bits = _at_most(scores, norms, base + first, first, limit)
            while bits != 0:
                survivors[n] = first + _lowest_bit(bits)
                n += 1
                bits = np.uint32(bits & np.uint32(bits - np.uint32(1)))
        total += n
        for p in range(n):
            c: Any = np.int64(survivors[p])
            if c == tried or order[c] == own[i]:
                continue
            # The product of tails is taken back and that of what follows it put in its place, stage by stage.
            known = scores[i, c] + norms[c] + np.float32(2.0) * tails[i, 0] * column_tails[c, 0]
            alive = True
            for t in range(1, stages):
                start = leading + (t - 1) * 32
                known += _product(projected, i, coordinates, c, start, min(start + 32, last))
                if not known - np.float32(2.0) * tails[i, t] * column_tails[c, t] <= limit:
                    alive = False
                    break
            if alive:
                _try_column(
                    i, c, shifted, columns, norms, order, bound, terms, rivals, nearest_rival, reach, upper,
                    found, lower, length, rows, centroids, labels, values, numbers, first_cluster,
                )  # fmt: skip
                limit = _not_below(_highest(upper[i], reach[i], margin) + slack)
    return total


@compiled
def find_floors(
    margin: float,
    scale: float,
    before: Int32,
    values_before: Float64,
    wild: Array,
    rivals: Float64,
    nearest_rival: Int32,
    reach: Float64,
    upper: Float64,
    labels: Int32,
    floors: Float32,
) -> None:
    """Lower bounds of the distances between each row and all centroids searched but that of its label.

    So is a label of ``before`` that lost, whose formula value is in ``values_before``.
    """
    for i in range(len(labels)):
        low = _highest(upper[i], reach[i], margin)
        low = min(low, rivals[i, 1] if nearest_rival[i] == labels[i] else rivals[i, 0])
        # Scores are t^2 |x - c|^2 - |r|^2; what is taken away covers the rounding of |r|^2, and its underflow.
        squared = (low + reach[i] * reach[i] * (1 - 1e-8) - 2.0**-90 * (1.0 + reach[i])) / (scale * scale)
        if before[i] >= 0 and before[i] != labels[i]:
            squared = min(squared, values_before[i])
        squared *= 1 - 1e-8
        if squared > 0.0 and not wild[i]:
            # Rounded down, among subnormal numbers too.
            floors[i] = np.float32(min(np.sqrt(squared) * (1 - 2.0**-22) - 2.0**-149, 3.4e38))
        else:
            floors[i] = np.float32(0.0)


@compiled
def take_best(
    pair_row: Int64,
    pair_cluster: Int64,
    pair_value: Float64,
    labels: Int32,
    values: Float64,
    numbers: Int32,
    first_cluster: int,
) -> None:
    """Fold the pairs' formula values into the rows' answers, ties to the lowest cluster."""
    for p in range(len(pair_row)):
        i = pair_row[p]
        number = _number(pair_cluster[p], numbers, first_cluster)
        value = pair_value[p]
        if labels[i] < 0 or value < values[i] or (value == values[i] and number < labels[i]):
            values[i] = value
            labels[i] = number
