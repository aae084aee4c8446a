"""The compiled parts of the join of two tiles of rows; cpu/pairs_search.py has the derivation and the names."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from streamcurate.kernels.jit import compiled, llvm_intrinsic
from streamcurate.kernels.metric import Float32, Float64, Int64

LANES = 32
"""Scores looked at in one step; tiles of columns are padded to multiples of it."""

STEP = 64
"""Values by which a pair that is looked at again is known better from one look to the next; a multiple of LANES."""

UNITED, RESCORED = 0, 1
"""Places in the tally: pairs that united two groups, pairs given to the formula."""


@llvm_intrinsic
def _at_most(typing_context: Any, scores: Any, halves: Any, first: Any, column: Any, limit: Any) -> Any:
    """Bits of the 32 columns from ``column`` on whose score + half is at most ``limit``.

    In LLVM's own vectors, for the reason given in cpu/screen.py.
    """
    signature = types.uint32(scores, halves, types.intp, types.intp, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), LANES)

        def load(argument: int, position: Any) -> Any:
            array = context.make_array(signature.args[argument])(context, builder, arguments[argument])
            pointer = builder.bitcast(builder.gep(array.data, [position]), vector.as_pointer())
            loaded = builder.load(pointer)
            loaded.align = 4
            return loaded

        sums = builder.fadd(load(0, arguments[2]), load(1, arguments[3]))
        index, nothing = ir.IntType(32), ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(nothing, arguments[4], ir.Constant(index, 0))
        limits = builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))
        return builder.bitcast(builder.fcmp_ordered("<=", sums, limits), ir.IntType(LANES))

    return signature, generate


@llvm_intrinsic
def _lowest_bit(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest set bit of an integer that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1)), ir.IntType(64))

    return types.int64(types.uint32), generate


@compiled
def _root(groups: Int64, position: int) -> int:
    while groups[position] != position:
        groups[position] = groups[groups[position]]
        position = groups[position]
    return position


@compiled
def lowest_positions(groups: Int64, lowest: Int64) -> None:
    """The lowest position of each position's group; parents may be any forest, which is flattened."""
    lowest[:] = -1
    for position in range(len(groups)):
        root = _root(groups, position)
        if lowest[root] < 0:
            lowest[root] = position
        groups[position] = root
    for position in range(len(groups)):  # each holds its root by now
        groups[position] = lowest[groups[position]]
    lowest[:] = groups


@compiled
def pair_values(
    left: Float32,
    left_norms: Float64,
    i: Int64,
    right: Float32,
    right_norms: Float64,
    j: Int64,
    unit: bool,
    values: Float64,
) -> None:
    """The formula for pairs of rows; ``unit``: of rows divided by their norms."""
    # Four pairs at a time: one pair's additions must wait for one another, different pairs' need not.
    count, dims = len(i), left.shape[1]
    for p in range(0, count, 4):
        p1, p2, p3 = min(p + 1, count - 1), min(p + 2, count - 1), min(p + 3, count - 1)
        i0, i1, i2, i3 = i[p], i[p1], i[p2], i[p3]
        j0, j1, j2, j3 = j[p], j[p1], j[p2], j[p3]
        s0 = s1 = s2 = s3 = 0.0
        if unit:
            for k in range(dims):
                a0 = np.float64(left[i0, k]) / left_norms[i0] - np.float64(right[j0, k]) / right_norms[j0]
                a1 = np.float64(left[i1, k]) / left_norms[i1] - np.float64(right[j1, k]) / right_norms[j1]
                a2 = np.float64(left[i2, k]) / left_norms[i2] - np.float64(right[j2, k]) / right_norms[j2]
                a3 = np.float64(left[i3, k]) / left_norms[i3] - np.float64(right[j3, k]) / right_norms[j3]
                s0 += a0 * a0
                s1 += a1 * a1
                s2 += a2 * a2
                s3 += a3 * a3
        else:
            for k in range(dims):
                a0 = np.float64(left[i0, k]) - np.float64(right[j0, k])
                a1 = np.float64(left[i1, k]) - np.float64(right[j1, k])
                a2 = np.float64(left[i2, k]) - np.float64(right[j2, k])
                a3 = np.float64(left[i3, k]) - np.float64(right[j3, k])
                s0 += a0 * a0
                s1 += a1 * a1
                s2 += a2 * a2
                s3 += a3 * a3
        values[p], values[p1], values[p2], values[p3] = s0, s1, s2, s3


@llvm_intrinsic
def _step_of_distance(typing_context: Any, left: Any, i: Any, x: Any, right: Any, j: Any, y: Any) -> Any:
    """Sum of (left x - right y)^2 over 64 values from the places ``i`` and ``j`` of flat arrays, in float32.

    In LLVM's own vectors as well: for 384 values this takes 90 ns where the compiler's own loop took 280.
    """
    signature = types.float32(left, types.intp, types.float32, right, types.intp, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, index = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
        nothing = ir.Constant(vector, ir.Undefined)

        def load(argument: int, position: Any, ahead: int) -> Any:
            array = context.make_array(signature.args[argument])(context, builder, arguments[argument])
            place = builder.add(position, ir.Constant(position.type, ahead))
            pointer = builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer())
            loaded = builder.load(pointer)
            loaded.align = 4
            return loaded

        def spread(value: Any) -> Any:
            one = builder.insert_element(nothing, value, ir.Constant(index, 0))
            return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))

        contract = ("contract",)  # fused multiply-adds: the bound covers either
        total: Any = ir.Constant(vector, [0.0] * LANES)
        one, other = spread(arguments[2]), spread(arguments[5])
        for ahead in range(0, STEP, LANES):
            apart = builder.fsub(
                builder.fmul(load(0, arguments[1], ahead), one, flags=contract),
                builder.fmul(load(3, arguments[4], ahead), other, flags=contract),
                flags=contract,
            )
            total = builder.fadd(total, builder.fmul(apart, apart, flags=contract), flags=contract)
        width = LANES
        while width > 1:  # one half added to the other, until one value is left
            width //= 2
            undefined, places = ir.Constant(total.type, ir.Undefined), ir.VectorType(index, width)
            low = builder.shuffle_vector(total, undefined, ir.Constant(places, list(range(width))))
            high = builder.shuffle_vector(total, undefined, ir.Constant(places, list(range(width, 2 * width))))
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.Constant(index, 0))

    return signature, generate


@compiled
def _is_far(left: Float32, i: int, x: np.float32, right: Float32, j: int, y: np.float32, cut: np.float32) -> bool:
    """Whether the float32 distance is beyond ``cut`` for sure; looked at every 64 values, for it only grows."""
    dims = left.shape[1]
    total, whole = np.float32(0.0), dims - dims % STEP
    for k in range(0, whole, STEP):
        total += _step_of_distance(left, i * dims + k, x, right, j * dims + k, y)
        if total > cut:
            return bool(total < np.float32(1e37))  # beyond that, or NaN, it says nothing
    for k in range(whole, dims):
        a = left[i, k] * x - right[j, k] * y
        total += a * a
    return bool(total > cut and total < np.float32(1e37))


@compiled
def _settle(
    waiting: int,
    wait_i: Int64,
    wait_j: Int64,
    values: Float64,
    left: Float32,
    left_norms: Float64,
    right: Float32,
    right_norms: Float64,
    unit: bool,
    limit: float,
    offset: int,
    groups: Int64,
    forest: Int64,
    tally: Int64,
) -> None:
    pair_values(left, left_norms, wait_i[:waiting], right, right_norms, wait_j[:waiting], unit, values[:waiting])
    tally[RESCORED] += waiting
    for p in range(waiting):
        if values[p] <= limit:
            one, other = _root(groups, wait_i[p]), _root(groups, offset + wait_j[p])
            if one != other:
                groups[max(one, other)] = min(one, other)
                forest[0, tally[UNITED]] = wait_i[p]
                forest[1, tally[UNITED]] = offset + wait_j[p]
                tally[UNITED] += 1


@compiled
def scan_tile(
    scores: Float32,
    halves: Float32,
    thresholds: Float32,
    first_row: int,
    first_column: int,
    within: bool,
    left: Float32,
    left_norms: Float64,
    left_factors: Float32,
    right: Float32,
    right_norms: Float64,
    right_factors: Float32,
    unit: bool,
    cut: np.float32,
    limit: float,
    offset: int,
    groups: Int64,
    forest: Int64,
    tally: Int64,
) -> None:
    """Unite the pairs of a tile of scores that are within the limit.

    Parameters
    ----------
    scores : (rows, columns) float32
        Minus the products of the leading coordinates and tails.
    halves : (columns,) float32
        Halves of the columns' squared norms, less their share of the error; NaN for padding.
    thresholds : (rows,) float32
        What score + half must not exceed for the pair to be looked at.
    first_row, first_column : int
        Positions of the first row in ``left`` and the first column in ``right``.
    within : bool
        Both sides are the same rows: only pairs whose column is the later one.
    left, right, left_norms, right_norms, left_factors, right_factors, unit
        As in ``PairRows``; ``unit`` for cosine.
    cut : float32
        What the float32 distance must exceed for the formula to be spared.
    limit : float
        What the formula's value must not exceed.
    offset : int
        Position of the right side's first row among ``groups``.
    groups : (positions,) int64
        Parents; changed in place.
    forest : (2, positions) int64
        Filled with the pairs that united two groups.
    tally : (2,) int64
        Increased: see UNITED and RESCORED.
    """
    wait_i, wait_j = np.empty(4, dtype=np.int64), np.empty(4, dtype=np.int64)
    values = np.empty(4, dtype=np.float64)
    columns, waiting = len(halves), 0
    for row in range(len(thresholds)):
        i = first_row + row
        root = _root(groups, i)
        # In a join of rows with themselves, columns up to the row's own are met from the other side.
        start = max(0, i + 1 - first_column) if within else 0
        for c in range(start - start % LANES, columns, LANES):
            bits = _at_most(scores, halves, row * columns + c, c, thresholds[row])
            while bits != 0:
                j = first_column + c + _lowest_bit(bits)
                bits = np.uint32(bits & np.uint32(bits - np.uint32(1)))
                if within and j <= i:
                    continue
                if _root(groups, offset + j) == root:
                    continue
                if _is_far(left, i, left_factors[i], right, j, right_factors[j], cut):
                    continue
                wait_i[waiting], wait_j[waiting] = i, j
                waiting += 1
                if waiting == 4:
                    _settle(waiting, wait_i, wait_j, values, left, left_norms, right, right_norms, unit, limit,
                            offset, groups, forest, tally)  # fmt: skip
                    waiting = 0
                    root = _root(groups, i)
    if waiting > 0:
        _settle(waiting, wait_i, wait_j, values, left, left_norms, right, right_norms, unit, limit,
                offset, groups, forest, tally)  # fmt: skip


@compiled
def scan_list(
    i: Int64,
    j: Int64,
    within: bool,
    left: Float32,
    left_norms: Float64,
    left_factors: Float32,
    right: Float32,
    right_norms: Float64,
    right_factors: Float32,
    unit: bool,
    cut: np.float32,
    limit: float,
    offset: int,
    groups: Int64,
    forest: Int64,
    tally: Int64,
) -> None:
    """The same for a list of pairs (i, j)."""
    wait_i, wait_j = np.empty(4, dtype=np.int64), np.empty(4, dtype=np.int64)
    values = np.empty(4, dtype=np.float64)
    waiting = 0
    for p in range(len(i)):
        if within and j[p] <= i[p]:
            continue
        if _root(groups, i[p]) == _root(groups, offset + j[p]):
            continue
        if _is_far(left, i[p], left_factors[i[p]], right, j[p], right_factors[j[p]], cut):
            continue
        wait_i[waiting], wait_j[waiting] = i[p], j[p]
        waiting += 1
        if waiting == 4:
            _settle(waiting, wait_i, wait_j, values, left, left_norms, right, right_norms, unit, limit,
                    offset, groups, forest, tally)  # fmt: skip
            waiting = 0
    if waiting > 0:
        _settle(waiting, wait_i, wait_j, values, left, left_norms, right, right_norms, unit, limit,
                offset, groups, forest, tally)  # fmt: skip


@compiled
def survivors(
    left: Float32,
    left_squared: Float64,
    right: Float32,
    right_squared: Float64,
    pairs: int,
    within: bool,
    limit: float,
    marks: Int64,
    counts: Int64,
) -> None:
    """How many of some sampled pairs are left after so many leading coordinates (``marks``, ascending); no certificate.

    Pairs are spread evenly by steps of the golden ratio, the same every time.
    """
    counts[:] = 0
    for p in range(pairs):
        i = int(len(left) * ((p * 0.6180339887498949) % 1.0))
        j = int(len(right) * ((p * 0.7548776662466927) % 1.0))
        if within and i == j:
            continue
        x, y, apart, last = left_squared[i], right_squared[j], 0.0, 0
        for t in range(len(marks)):
            for k in range(last, marks[t]):
                one, other = np.float64(left[i, k]), np.float64(right[j, k])
                x -= one * one
                y -= other * other
                apart += (one - other) * (one - other)
            last = marks[t]
            tails = np.sqrt(max(0.0, x)) - np.sqrt(max(0.0, y))
            if apart + tails * tails > limit:
                break
            counts[t] += 1
