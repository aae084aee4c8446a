"""Products of float16 matrices as tensor cores give them, and the fused kernel, in NumPy."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.gpu.bound import half_kappa


def cut(values, quantum):
    """Towards zero, to a multiple of the quantum."""
    return np.trunc(values / quantum) * quantum


def tensor_product(left, right, addends=4):
    """left right^T as hardware that keeps no more than the bound takes for granted: so many products at a time.

    They and the accumulator are aligned to the largest of them and cut off below 24 bits, and so is their sum.
    """
    x, w = left.astype(np.float64), right.astype(np.float64)
    total = np.zeros((len(x), len(w)))
    for first in range(0, x.shape[1], addends):
        products = x[:, None, first : first + addends] * w[None, :, first : first + addends]
        together = np.concatenate([total[:, :, None], products], axis=2)
        _, exponent = np.frexp(np.abs(together).max(axis=2, initial=0.0))
        quantum = np.ldexp(1.0, exponent - 24)
        total = cut(together, quantum[:, :, None]).sum(axis=2)
        _, exponent = np.frexp(total)
        total = cut(total, np.ldexp(1.0, exponent - 24))
    return total.astype(np.float32)


def rough_product(left, right):
    """left right^T with errors as large as the bound allows, of either sign."""
    x, w = left.astype(np.float64), right.astype(np.float64)
    exact = x @ w.T
    sizes = np.sqrt((x * x).sum(axis=1))[:, None] * np.sqrt((w * w).sum(axis=1))
    signs = np.random.default_rng(len(x)).choice([-1.0, 1.0], exact.shape)
    # Rounding to float32 below adds one unit.
    return (exact + (half_kappa(x.shape[1]) - 2.0**-23) * 0.999 * sizes * signs).astype(np.float32)


def unpacked(panels, rows, width):
    """The matrix that lies in panels of ``rows`` rows x 64: 16-byte pieces exchanged by the row's number."""
    count = panels.size // (rows * width) * rows
    pieces = panels.reshape(count // rows, width // 64, rows, 8, 8)
    matrix = np.empty((count // rows, rows, width // 64, 8, 8), panels.dtype)
    for r in range(rows):
        for piece in range(8):
            matrix[:, r, :, piece] = pieces[:, :, r, piece ^ (r % 8)]
    return matrix.reshape(count, width)


def key_of(values):
    bits = np.asarray(values, np.float64).view(np.int64)
    return np.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)


def value_of(keys):
    return np.where(keys < 0, keys ^ 0x7FFFFFFFFFFFFFFF, keys).view(np.float64)


def fused_screen(
    product, rows, columns, norms, order, bounds, residuals, reach, slack, gain, count, panels, pieces, stages,
    resident, room, product_term, norm_term, formula_term, tiny_term, upper, found, lower, length, failed,
):  # fmt: skip
    """cuda/fused.cu with arrays: the same panels, bounds and lists, whatever ``product`` gives for their products."""
    assert stages >= 3
    assert resident in (0, 1)
    x = unpacked(rows, 128, 64 * pieces)[:count]
    w = unpacked(columns, 256, 64 * pieces)
    assert len(w) == 256 * panels
    for panel in range(panels):
        part = slice(256 * panel, 256 * (panel + 1))
        with np.errstate(over="ignore", invalid="ignore"):
            scores = (product(x, w[part]).astype(np.float64) * gain[:, None].astype(np.float64) + norms[part]).astype(
                np.float32
            )
        a, r, b, s = reach, slack, bounds[panel], residuals[panel]
        error = (
            formula_term * a * a
            + ((product_term + 2 * formula_term) * b + tiny_term + 2.002 * s) * a
            + (norm_term + formula_term) * b * b
            + tiny_term * (1 + b)
            + 2.002 * r * b
        )
        limit = np.minimum(value_of(upper), scores.min(axis=1) + error)
        upper[:] = key_of(limit)
        low = scores - error[:, None]
        for i, c in zip(*np.nonzero((low <= limit[:, None]) & (order[part] >= 0)), strict=True):
            if length[i] < room:
                found[length[i], i] = order[part][c]
                lower[length[i], i] = low[i, c]
            length[i] += 1
