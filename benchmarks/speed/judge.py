"""The same judge for all: float64 brute force, float64 inertia, and the machine's own rate of matrix products."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 2000
_BLOCK_VALUES = 1 << 24
# Nearer than this, relative to the norms, a float64 product does not tell two distances apart for sure.
_DOUBT = 1e-9


def brute_force(rows: NDArray[Any], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """The nearest centroid of each row in float64, ties to the lowest."""
    wide, targets = rows.astype(np.float64), centroids.astype(np.float64)
    norms = np.einsum("ij,ij->i", targets, targets)
    labels = np.empty(len(rows), dtype=np.int64)
    step = max(_BLOCK_VALUES // len(targets), 1)
    for start in range(0, len(rows), step):
        part = wide[start : start + step]
        scores = norms - 2.0 * (part @ targets.T)
        nearest = scores.argmin(axis=1)
        best = scores[np.arange(len(part)), nearest]
        doubt = _DOUBT * (np.einsum("ij,ij->i", part, part) + norms.max())
        open_rows = np.flatnonzero((scores <= (best + doubt)[:, None]).sum(axis=1) > 1)
        for row in open_rows:
            candidates = np.flatnonzero(scores[row] <= best[row] + doubt[row])
            squared = ((part[row] - targets[candidates]) ** 2).sum(axis=1)
            nearest[row] = candidates[squared.argmin()]
        labels[start : start + step] = nearest
    return labels


def agreement(rows: NDArray[Any], centroids: NDArray[np.float32], labels: NDArray[Any], seed: int = 0) -> float:
    """Share of a sample of rows whose label brute force gives too."""
    count = min(_SAMPLE, len(rows))
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
    return float((brute_force(rows[sample], centroids) == np.asarray(labels)[sample]).mean())


def inertia(rows: NDArray[Any], centroids: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """Sum of squared distances to the labelled centroids, in float64."""
    total = 0.0
    step = max(_BLOCK_VALUES // (8 * rows.shape[1]), 1)
    for start in range(0, len(rows), step):
        apart = rows[start : start + step].astype(np.float64) - centroids[labels[start : start + step]]
        total += float(np.einsum("ij,ij->", apart, apart))
    return total


def sgemm_rate(rows: NDArray[np.float32], centroids: NDArray[np.float32], seconds: float = 0.3) -> float:
    """FLOP/s of NumPy's float32 product of these rows, a block at a time, and all centroids; median of the blocks'.

    Parameters
    ----------
    rows : (n, d)
    centroids : (k, d)
    seconds : float
        How long to measure.
    """
    block = min(len(rows), 4096)
    out = np.empty((block, len(centroids)), dtype=np.float32)
    turned = centroids.T
    np.matmul(rows[:block], turned, out=out)
    rates: list[float] = []
    began = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - began < seconds:
        start = (len(rates) * block) % max(len(rows) - block, 1)
        before = time.perf_counter()
        np.matmul(rows[start : start + block], turned, out=out)
        rates.append(2.0 * block * len(centroids) * rows.shape[1] / (time.perf_counter() - before))
    return float(np.median(rates))
