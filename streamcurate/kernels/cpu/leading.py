"""Principal axes of centroids: lower bounds of distances from a row's leading coordinates and the norm of the rest.

With the notation of cpu/nearest.py (r the shifted row, q_j the shifted centroid, |r| <= a, |q_j| <= b), let R hold q
nearly orthonormal axes of float32, |R R^T - I| <= e in Frobenius' norm, and P project onto their span. Then

    <r, q_j> = <P r, P q_j> + <(I - P) r, (I - P) q_j> <= <R r, R q_j> + 1.01 e a b + T(r) T(q_j),

T(v)^2 = |v|^2 - |P v|^2 <= |v|^2 - ((1 - e) |R v|)^2: the Cauchy-Schwarz inequality for what the axes leave over. So

    L_j = |q_j|^2 - 2 (<R r, R q_j> + T(r) T(q_j)) <= S_j + 2.02 e a b,

one product of q + 1 columns for all pairs. The machine's y = fl(R r) errs in each coordinate by at most
1.01 gamma_(d+2) a, hence by D a with D = 1.02 sqrt(q) gamma_(d+2) altogether, and so do the centroids'; tails are made
larger by that (``spill``), the products err by 2 (2.01) D a b, and sums of q + 1 terms, corrected by further
coordinates and smaller tails, by less than 6.3 gamma_(q+30) a b. With the terms of the full scores that makes

    E' = (2.02 e + 4.03 D + 6.3 gamma_(q+30)) a b + 20 u b^2 + (formula and underflow as in E).

Cheap at k = 4000 centroids and d = 384: text embeddings keep 2 to 5 % of the pairs after 48 to 64 of 384 coordinates.
The axes are those of the centroids, since it is their tails that must be small; how they were found, and from how
many centroids, changes what pruning costs and never a label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.screen_rows import STEP, tail_norms
from streamcurate.kernels.metric import Float32, Float64

_UNIT = 2.0**-24
# Centroids looked at for the axes, as a multiple of the dims.
_SAMPLED = 2
_ROUNDS = 3


@dataclass(frozen=True)
class Axes:
    """Nearly orthonormal directions, those along which centroids differ most first.

    Attributes
    ----------
    vectors : (q, d) float32
    skew : float
        Upper bound of |R R^T - I| in Frobenius' norm.
    """

    vectors: Float32
    skew: float

    @property
    def count(self) -> int:
        """Number of axes, q."""
        return len(self.vectors)


@dataclass(frozen=True)
class Projected:
    """Columns along the axes, for any number of leading coordinates; made by :func:`project_columns`.

    Attributes
    ----------
    axes : Axes
    coordinates : (padded k, axes.count) float32
        -2 times the shifted centroids' coordinates along the axes.
    reach : (padded k,) float64
        Upper bounds of the shifted centroids' norms.
    """

    axes: Axes
    coordinates: Float32
    reach: Float64


@dataclass(frozen=True)
class LeadingColumns:
    """What the search with so many leading coordinates needs; made by :func:`leading_columns`.

    Attributes
    ----------
    leading, width : int
        Coordinates of the first product; and with those of the correction that follows it.
    projected : Projected
    lead : (padded k, leading + 1) float32
        -2 times the leading coordinates and the tail's norm.
    tails : (padded k, stages) float32
        Upper bounds of the norms of what follows the leading coordinates, those and a step of further ones, ...
    spill : float
        Largest error of a projection's length, as a share of the vector's.
    terms : (4,) float64
        Factors of a b, b^2, (a + b)^2 and 1 + a + b in the bound E'.
    """

    leading: int
    width: int
    projected: Projected
    lead: Float32
    tails: Float32
    spill: float
    terms: Float64


def axes_products(clusters: int, dims: int) -> float:
    """What :func:`principal_axes` costs, in products of all columns with one axis."""
    return 2 * _ROUNDS * min(clusters, _SAMPLED * dims) / max(clusters, 1)


def principal_axes(columns: Float32, count: int) -> Axes:
    """The leading axes of columns (k, d) about the origin, by a few rounds of subspace iteration.

    Parameters
    ----------
    columns : (k, d) float32
        Shifted centroids, at any scale.
    count : int
        Axes wanted, at most d.
    """
    step = max(1, len(columns) // (_SAMPLED * columns.shape[1]))
    sampled = columns[::step]
    # Any start will do that is not orthogonal to the axes; this one is the same every time.
    start = np.cos(np.arange(columns.shape[1] * count, dtype=np.float64) ** 1.5).reshape(columns.shape[1], count)
    basis: Float64 = np.linalg.qr(start)[0]
    for _ in range(_ROUNDS):
        turned = sampled.T @ (sampled @ basis.astype(np.float32))
        largest = float(np.abs(turned).max(initial=0.0))
        if not 0.0 < largest < math.inf:
            break
        basis = np.linalg.qr(turned.astype(np.float64) / largest)[0]
    # Within the subspace, the axes of largest spread first.
    inside = (sampled @ basis.astype(np.float32)).astype(np.float64)
    _, turn = np.linalg.eigh(inside.T @ inside)
    vectors = np.ascontiguousarray((basis @ turn[:, ::-1]).T, dtype=np.float32)
    exact = vectors.astype(np.float64)
    skew = float(np.linalg.norm(exact @ exact.T - np.eye(count))) * (1 + 1e-6) + 1e-10
    return Axes(vectors, skew)


def stages(leading: int, width: int) -> int:
    """Times a pair's bound is looked at, the first included."""
    return 1 + -(-(width - leading) // STEP)


def leading_terms(dims: int, width: int, skew: float) -> tuple[float, Float64]:
    """``spill`` and the factors of the bound E' of the module's derivation."""
    gamma = (dims + 2) * _UNIT / (1 - (dims + 2) * _UNIT)
    short = (width + 30) * _UNIT / (1 - (width + 30) * _UNIT)
    drift = 1.02 * math.sqrt(width) * gamma
    product = 2.02 * skew + 4.03 * drift + 6.3 * short
    terms = np.array([product, 20 * _UNIT, (dims + 4) * 2.0**-53, dims * 2.0**-119]) * 1.001
    return drift + 1.01 * skew, terms


def project_columns(columns: Float32, reach: Float64, axes: Axes) -> Projected:
    """Columns (padded k, d), -2 times centroids whose norms ``reach`` (padded k,) bounds, along the axes."""
    return Projected(axes, columns @ axes.vectors.T, reach)


def leading_columns(projected: Projected, leading: int, width: int) -> LeadingColumns:
    """The columns' first ``leading`` coordinates with their tails, to be corrected up to ``width`` of them."""
    spill, terms = leading_terms(projected.axes.vectors.shape[1], width, projected.axes.skew)
    count = len(projected.coordinates)
    lead = np.empty((count, leading + 1), dtype=np.float32)
    tails = np.empty((count, stages(leading, width)), dtype=np.float32)
    # Coordinates are those of -2 times the centroid.
    tail_norms(projected.coordinates[:, :width], 0.5, projected.reach, leading, spill, tails)
    lead[:, :leading] = projected.coordinates[:, :leading]
    np.multiply(tails[:, 0], np.float32(-2.0), out=lead[:, leading])
    return LeadingColumns(leading, width, projected, lead, tails, spill, terms)
