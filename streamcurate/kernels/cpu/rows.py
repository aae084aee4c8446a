"""Rows as the formula sees them: float16 widened, cosine rows divided by their norm."""

from __future__ import annotations

import platform
from typing import Any, cast

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64
from streamcurate.kernels.workspace import work_array


def _converts_halves() -> bool:
    """Whether the processor has an instruction for it that compiled code is allowed to use.

    Where there is none, the compiler would call a library function that numba does not bring along.
    """
    chosen = cast(Any, config)  # its attributes are made when it is imported
    if chosen.CPU_NAME or chosen.CPU_FEATURES:  # numba was told to compile for another processor
        return False
    return platform.machine() in ("aarch64", "arm64") or bool(binding.get_host_cpu_features().get("f16c"))


@intrinsic
def _from_half(typing_context: Any, bits: Any) -> Any:
    """The value of a half given as uint16 bits, as float32; compiled code only."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@compiled
def _widen_by_instruction(halves: Array, values: Float32) -> None:
    # Eight values an instruction: 0.09 ns a value within the cache, as fast as a constant could be stored there, and
    # at the memory's own speed outside.
    rows, dims = halves.shape
    for i in range(rows):
        for j in range(dims):
            values[i, j] = _from_half(halves[i, j])  # type: ignore[call-arg]  # it is given the context by itself


@compiled
def _widen_by_bits(halves: Array, bits: Array, values: Float32) -> None:
    # The fields of a half, moved to where a float32 has them, make a number 2^112 too small: subnormals come out right
    # as well, and both loops run on whole vector registers. (NumPy's own cast takes 2 to 9 ns a value, this 0.2.)
    rows, dims = halves.shape
    scale = np.float32(2.0**112)
    sign, rest, exponent = np.uint32(0x8000), np.uint32(0x7FFF), np.uint32(0x7C00)
    infinite = np.uint32(0x7F800000)
    for i in range(rows):
        for j in range(dims):
            half = np.uint32(halves[i, j])
            word = np.uint32((half & rest) << np.uint32(13))
            if (half & exponent) == exponent:
                word = np.uint32(word | infinite)
            bits[i, j] = np.uint32(word | np.uint32((half & sign) << np.uint32(16)))
        for j in range(dims):
            values[i, j] = values[i, j] * scale


_BY_INSTRUCTION = _converts_halves()


@compiled
def _squared_norms(rows: Float32, norms: Float64) -> None:
    # Eight rows at a time: each row's additions must wait for one another, different rows' need not.
    count, dims = rows.shape
    whole = count - count % 8
    for i in range(0, whole, 8):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
        for j in range(dims):
            x0, x1 = np.float64(rows[i, j]), np.float64(rows[i + 1, j])
            x2, x3 = np.float64(rows[i + 2, j]), np.float64(rows[i + 3, j])
            x4, x5 = np.float64(rows[i + 4, j]), np.float64(rows[i + 5, j])
            x6, x7 = np.float64(rows[i + 6, j]), np.float64(rows[i + 7, j])
            s0 += x0 * x0
            s1 += x1 * x1
            s2 += x2 * x2
            s3 += x3 * x3
            s4 += x4 * x4
            s5 += x5 * x5
            s6 += x6 * x6
            s7 += x7 * x7
        norms[i], norms[i + 1], norms[i + 2], norms[i + 3] = s0, s1, s2, s3
        norms[i + 4], norms[i + 5], norms[i + 6], norms[i + 7] = s4, s5, s6, s7
    for i in range(whole, count):
        s = 0.0
        for j in range(dims):
            x = np.float64(rows[i, j])
            s += x * x
        norms[i] = s


@compiled
def _divide_rows(rows: Float32, squared_norms: Float64, unit: Float64) -> None:
    count, dims = rows.shape
    for i in range(count):
        norm = np.sqrt(squared_norms[i])
        if norm == 0.0:
            norm = 1.0
        for j in range(dims):
            unit[i, j] = np.float64(rows[i, j]) / norm


def float32_rows(rows: Array, name: str = "float32 rows") -> Float32:
    """Rows as float32: themselves, or widened from float16 into the work buffer ``name`` (4 bytes a value)."""
    if rows.dtype == np.float32:
        return rows
    values: Float32 = work_array(name, rows.shape, np.float32)
    _widen(rows.view(np.uint16), values)
    return values


def _widen(halves: Array, values: Float32) -> None:
    if _BY_INSTRUCTION:
        _widen_by_instruction(halves, values)
    else:
        _widen_by_bits(halves, values.view(np.uint32), values)


def squared_norms(rows: Float32) -> Float64:
    """Sum of squares of each float32 row, in float64, coordinates left to right; shape (m,)."""
    norms = np.empty(len(rows), dtype=np.float64)
    _squared_norms(rows, norms)
    return norms


def unit_rows(rows: Float32, name: str = "unit rows", squared: Float64 | None = None) -> Float64:
    """u = x / sqrt(sum x^2) in float64, in the work buffer ``name`` (8 bytes a value); a row of zeros stays zeros.

    ``squared`` are the rows' :func:`squared_norms` where they are known already.
    """
    unit: Float64 = work_array(name, rows.shape, np.float64)
    _divide_rows(rows, squared_norms(rows) if squared is None else squared, unit)
    return unit


def formula_rows(rows: Array, metric: str) -> Array:
    """The rows whose direct differences the formula takes: float32 for l2, float64 unit rows for cosine.

    At most 12 bytes a value of work buffers; call it on a tile of rows, not on a block.
    """
    widened = float32_rows(rows)
    return unit_rows(widened) if metric == "cosine" else widened
