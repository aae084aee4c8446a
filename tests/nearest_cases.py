"""Rows and centroids that make it hard to say which centroid is nearest."""

from __future__ import annotations

import numpy as np


def all_pairs(rows, centroids, metric):
    """The formula for all pairs at once: NumPy's float64 operations, one coordinate after the other."""
    x = rows.astype(np.float64)
    if metric == "cosine":
        squared = np.zeros(len(x))
        for j in range(x.shape[1]):
            squared += x[:, j] * x[:, j]
        norms = np.sqrt(squared)
        x = x / np.where(norms == 0, 1, norms)[:, None]
    values = np.zeros((len(x), len(centroids)))
    for j in range(x.shape[1]):
        values += (x[:, j, None] - centroids[:, j].astype(np.float64)) ** 2
    return values


def brute_force(rows, centroids, metric):
    """Labels and values by the formula for all pairs."""
    values = all_pairs(rows, centroids, metric)
    return values.argmin(axis=1), values.min(axis=1)


def gaussian(rng, rows, clusters, dims):
    return rng.standard_normal((rows, dims)), rng.standard_normal((clusters, dims))


def repeated(rng, rows, clusters, dims):
    # Few distinct centroids, many of each: ties everywhere, more than a row's list of candidates holds.
    points = rng.standard_normal((3, dims))
    return points[rng.integers(3, size=rows)] + rng.standard_normal((rows, 1)), points[rng.integers(3, size=clusters)]


def lattice(rng, rows, clusters, dims):
    return rng.integers(-1, 2, (rows, dims)).astype(float), rng.integers(-1, 2, (clusters, dims)).astype(float)


def neighbours(rng, rows, clusters, dims):
    # Centroids one unit in the last place apart: float32 scores cannot tell them from one another.
    point = rng.standard_normal(dims).astype(np.float32)
    shifts = rng.integers(-1, 2, (clusters, dims)) * np.spacing(point)
    return point + rng.standard_normal((rows, dims)), point + shifts


def offset(rng, rows, clusters, dims):
    return 1000 + rng.standard_normal((rows, dims)), 1000 + rng.standard_normal((clusters, dims))


def huge(rng, rows, clusters, dims):
    return rng.uniform(-3e38, 3e38, (rows, dims)), rng.uniform(-3e38, 3e38, (clusters, dims))


def tiny(rng, rows, clusters, dims):
    return rng.integers(-9, 9, (rows, dims)) * 2.0**-149, rng.integers(-9, 9, (clusters, dims)) * 2.0**-149


def mixed(rng, rows, clusters, dims):
    powers = 10.0 ** rng.integers(-40, 38, dims)
    return rng.standard_normal((rows, dims)) * powers, rng.standard_normal((clusters, dims)) * powers
