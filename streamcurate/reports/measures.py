"""How evenly rows lie over the clusters of a level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

# Points of a curve: more cannot be told apart in a picture of this size.
CURVE_POINTS = 101


@dataclass(frozen=True)
class Balance:
    """How evenly rows lie over k clusters, those that hold no row of the tree left out.

    Attributes
    ----------
    clusters : int
        k.
    rows : int
        Copies counted.
    reached : float
        Share of the clusters with at least one row.
    entropy : float
        H = −Σ pᵢ ln pᵢ over the clusters' shares pᵢ, in nats.
    divergence : float
        Kullback-Leibler divergence from even shares, ln k − H, in nats.
    effective : float
        Effective number of clusters, exp H: so many clusters of equal size would have this entropy.
    gini : float
        Half the mean absolute difference of two clusters' rows, over their mean: 0 where all are equal, 1 − 1/k where
        one has everything.
    largest : float
        Share of the rows in the largest cluster.
    singletons : float
        Share of the rows that come from clusters which hold a single row of the tree.
    """

    clusters: int
    rows: int
    reached: float
    entropy: float
    divergence: float
    effective: float
    gini: float
    largest: float
    singletons: float


def balance(counts: Int64, sizes: Int64) -> Balance:
    """Measure rows by cluster.

    Parameters
    ----------
    counts : ndarray of int64, shape (k,)
        Rows in each cluster, copies counted.
    sizes : ndarray of int64, shape (k,)
        Rows of the tree under each. Clusters with none do not count.

    Examples
    --------
    >>> even = balance(np.array([4, 4, 0]), np.array([9, 9, 0]))
    >>> round(even.effective, 6), even.gini, even.largest
    (2.0, 0.0, 0.5)
    """
    held = sizes > 0
    counts, sizes = counts[held], sizes[held]
    total, clusters = int(counts.sum()), len(counts)
    if not total:
        return Balance(clusters, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    shares = counts[counts > 0] / total
    entropy = max(float(-(shares * np.log(shares)).sum()), 0.0)
    ordered = np.sort(counts).astype(np.float64)
    ranks = 2 * np.arange(1, clusters + 1) - clusters - 1
    return Balance(
        clusters=clusters,
        rows=total,
        reached=len(shares) / clusters,
        entropy=entropy,
        divergence=max(float(np.log(clusters)) - entropy, 0.0),
        effective=float(np.exp(entropy)),
        gini=max(float((ranks * ordered).sum() / (clusters * total)), 0.0),
        largest=float(ordered[-1] / total),
        singletons=float(counts[sizes == 1].sum() / total),
    )


def lorenz(counts: Int64, sizes: Int64, points: int = CURVE_POINTS) -> Float64:
    """The Lorenz curve: which share of the rows the smallest clusters hold together.

    Parameters
    ----------
    counts, sizes
        As for :func:`balance`.
    points : int

    Returns
    -------
    ndarray of float64, shape (points,)
        At the shares 0 to 1 of the clusters, in equal steps; straight between whole clusters.
    """
    ordered = np.sort(counts[sizes > 0]).astype(np.float64)
    total = ordered.sum()
    if not total:
        return np.linspace(0, 1, points)
    held = np.append(0.0, np.cumsum(ordered)) / total
    return np.asarray(np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(held)), held))


@dataclass(frozen=True)
class Histogram:
    """Clusters by their rows, in multiples of an even share.

    Attributes
    ----------
    edges : ndarray of float64, shape (b + 1,)
        Powers of 2 and what lies halfway between, in multiples of an even share.
    shares : ndarray of float64, shape (b,)
        Share of the clusters in each; with ``none`` they add up to 1.
    none : float
        Share of the clusters without a row.
    """

    edges: Float64
    shares: Float64
    none: float


def histograms(all_counts: list[Int64], sizes: Int64) -> list[Histogram]:
    """Histograms with the same edges of several ways to count the rows of clusters; parameters as for
    :func:`balance`."""
    held = sizes > 0
    logarithms = []
    for counts in all_counts:
        counts = counts[held]
        filled = counts[counts > 0]
        even = counts.sum() / max(len(counts), 1)
        # Two bins for every doubling; an even share lies in the middle of one.
        logarithms.append(np.rint(2 * np.log2(filled / even)).astype(np.int64) if len(filled) else filled)
    present = np.concatenate(logarithms)
    first, last = (int(present.min()), int(present.max())) if len(present) else (0, 0)
    edges = 2.0 ** ((np.arange(first, last + 2) - 0.5) / 2)
    clusters = max(int(held.sum()), 1)
    found = []
    for bins in logarithms:
        shares = np.bincount(bins - first, minlength=last - first + 1) / clusters
        found.append(Histogram(edges, shares, 1 - len(bins) / clusters))
    return found
