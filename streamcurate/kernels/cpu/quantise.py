"""Rows as 8-bit integers, and integer distances between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamcurate.kernels.cpu.rows import float32_rows, formula_rows, unit_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int64, as_rows, check_metric
from streamcurate.kernels.workspace import work_array

if TYPE_CHECKING:
    from streamcurate.kernels.seeding import Quantiser

_TILE_BYTES = 2**21
# 1040 127^2 < 2^24: any partial sum of so many products of two 8-bit integers is exact in float32, in any order.
_EXACT_COLUMNS = 1040
# Products of a tile (2 MiB) are still in cache when they are turned into distances.
_TILE_ROWS = 512
_TILE_OTHERS = 1024


@compiled
def _round_rows(rows: Array, offset: Float64, step: float, integers: Array) -> None:
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = np.rint((np.float64(rows[i, j]) - offset[j]) / step)
            integers[i, j] = np.int8(min(max(value, -127.0), 127.0))


@compiled
def _int8_to_float32(integers: Array, values: Float32, squared: Int64) -> None:
    for i in range(integers.shape[0]):
        total = np.int32(0)
        for j in range(integers.shape[1]):
            value = np.int32(integers[i, j])
            total += value * value
            values[i, j] = np.float32(integers[i, j])
        squared[i] += total


@compiled
def _place_distances(products: Float32, left: Int64, right: Int64, add: bool, distances: Int64) -> None:
    for i in range(products.shape[0]):
        if add:
            for j in range(products.shape[1]):
                distances[i, j] += left[i] + right[j] - 2 * np.int64(np.int32(products[i, j]))
        else:
            for j in range(products.shape[1]):
                distances[i, j] = left[i] + right[j] - 2 * np.int64(np.int32(products[i, j]))


@compiled
def _direct_potentials(rows: Float32, centres: Float32, scale: float, potentials: Int64) -> None:
    for i in range(rows.shape[0]):
        for b in range(centres.shape[0]):
            total = 0.0
            for j in range(rows.shape[1]):
                difference = np.float64(rows[i, j]) - np.float64(centres[b, j])
                total += difference * difference
            potentials[i, b] = np.int64(np.rint(total * scale))


def _row_step(dims: int) -> int:
    return max(1, min(512, _TILE_BYTES // (8 * max(1, dims))))


def quantise(rows: Array, quantiser: Quantiser, metric: str) -> Array:
    """Rows as integers from -127 to 127, by float64 arithmetic that is the same everywhere; (m, d) int8.

    For cosine the unit rows are rounded. Values beyond the quantiser's ranges are clipped. Besides the result about
    4 MiB of work buffers, or one row's 14 bytes a value where that is more.
    """
    check_metric(metric)
    rows = as_rows(rows)
    integers = np.empty(rows.shape, dtype=np.int8)
    step = _row_step(rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        _round_rows(formula_rows(rows[part], metric), quantiser.offset, quantiser.step, integers[part])
    return integers


def quantised_distances(rows: Array, others: Array) -> Int64:
    """|a - b|^2 between int8 rows (m, d) and (b, d), exactly, through float32 matrix products; (m, b) int64.

    Columns are taken in pieces of 1040, whose products are exact in float32 whatever the order and the instructions.
    Besides the result, at most 9 MiB of work buffers.
    """
    for array in (rows, others):
        if array.dtype != np.int8 or array.ndim != 2 or array.shape[1] != rows.shape[1]:
            raise ValueError(f"{array.dtype} rows of shape {array.shape}; both must be int8 with equal dims")
    rows, others = np.ascontiguousarray(rows), np.ascontiguousarray(others)
    dims = rows.shape[1]
    distances = np.empty((len(rows), len(others)), dtype=np.int64)
    for start in range(0, len(rows), _TILE_ROWS):
        part = slice(start, min(start + _TILE_ROWS, len(rows)))
        for begin in range(0, len(others), _TILE_OTHERS):
            tile = slice(begin, min(begin + _TILE_OTHERS, len(others)))
            for first in range(0, dims, _EXACT_COLUMNS):
                columns = slice(first, min(first + _EXACT_COLUMNS, dims))
                left, left_squared = _as_float32(rows[part, columns], "rows")
                right, right_squared = _as_float32(others[tile, columns], "others")
                products: Float32 = work_array("int8 products", (len(left), len(right)), np.float32)
                np.dot(left, right.T, out=products)
                _place_distances(products, left_squared, right_squared, first > 0, distances[part, tile])
    return distances


def _as_float32(integers: Array, name: str) -> tuple[Float32, Int64]:
    values: Float32 = work_array(f"int8 {name}", integers.shape, np.float32)
    squared = np.zeros(len(integers), dtype=np.int64)
    _int8_to_float32(integers, values, squared)
    return values, squared


def unit_float32(rows: Array) -> Float32:
    """Unit rows rounded to float32; (m, d)."""
    unit = np.empty(rows.shape, dtype=np.float32)
    step = _row_step(rows.shape[1])
    for start in range(0, len(rows), step):
        unit[start : start + step] = unit_rows(float32_rows(rows[start : start + step]))
    return unit


def exact_potentials(rows: Array, centres: Array, exponent: int) -> Int64:
    """rint(|x - c|^2 2^exponent), the square by the formula's float64 differences; (m, b) int64."""
    rows, centres = as_rows(rows), as_rows(centres)
    if rows.shape[1] != centres.shape[1]:
        raise ValueError(f"rows have {rows.shape[1]} dims, the centres {centres.shape[1]}")
    potentials = np.empty((len(rows), len(centres)), dtype=np.int64)
    centres32 = float32_rows(centres, "potential centres")
    scale = float(np.ldexp(1.0, exponent))
    step = _row_step(rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        _direct_potentials(float32_rows(rows[part]), centres32, scale, potentials[part])
    return potentials
