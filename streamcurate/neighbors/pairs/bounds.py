"""Which rows cannot lie within a radius of each other: bounds from cells of rows, each with a centre.

Any two points g, h give a bound for any two rows x, y. With e = (h - g) / |h - g|,

    H_gh(x) = (|h|^2 - |g|^2 - 2 <x, h - g>) / (2 |h - g|)

is how far x lies before the plane midway between g and h, along e, and H_hg(y) how far y lies before it from the other
side: <y - x, e> = H_gh(x) + H_hg(y). By Cauchy's inequality

    |x - y| >= H_gh(x) + H_hg(y).                                                                            (1)

Nothing is asked of the cells: neither that a row is nearest to its own centre (then H >= 0, and the bound is good), nor
that stored labels and distances are right. So any level of any tree serves, approximate labels and leaves of splits
included, and rows may be compared in another metric than the tree's. For a cell g let M_gh be the least H_gh of its
rows: rows of the cells g and h need not be compared if M_gh + M_hg > r, and a row x of g need not be compared with
those of h if H_gh(x) + M_hg > r. Centres R_g and R_h from their farthest rows: if |g - h| - R_g - R_h > r, likewise.

Rounding
--------
Rows and centres are taken relative to a fixed origin, in units of a power of two (:class:`Geometry`). Exact points are
the rows as the formula sees them (l2: the stored values; cosine: u in float64), so that the formula's value is
|x - y|^2 but for a share of (d + 4) 2^-53, which the radius is made larger by. Then, with u = 2^-24 and
gamma = d u / (1 - d u):

1. Centres are float32 points by definition: they have no error.
2. w = float32(x - origin) has |w - (x - origin)| <= delta = 1.01 u |w| + 2^-50 |origin| + sqrt(d) 2^-148, and so H
   errs by delta at most.
3. A float32 product <w, h> errs by gamma |w| |h| + d 2^-148, whatever its order of summation, and a difference of two
   by that of both and u (|g| + |h|) |w| for itself; the bound takes 1.01 (gamma + 2 u) |w| (|g| + |h|) + d 2^-147.
4. |g|^2 and |h|^2 in float64 err by less than (d + 4) 2^-53 of themselves, |h - g|^2 from a float64 product by less
   than 4 (d + 4) 2^-53 (|g|^2 + |h|^2): a numerator above zero is divided by the upper bound of |h - g|, one below
   zero by the lower. Centres that coincide give no bound then.

What overflows float32 becomes infinite or NaN, and these never rule anything out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.kernels import Metric

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_UNIT = 2.0**-24
# Rows made ready, and scored against centres, at a time: some MiB at a thousand dims.
_SLICE = 512
_ROWS, _CENTRES = 4096, 1024


@dataclass(frozen=True)
class Geometry:
    """The space in which rows are compared.

    Attributes
    ----------
    metric : "l2" or "cosine"
        Of the threshold; not always the tree's.
    limit : float
        Bound of the formula's value.
    origin : ndarray of float64, shape (dims,)
        In the units of ``exponent``.
    exponent : int
        Rows are taken in units of 2^exponent; 0 for cosine.
    """

    metric: Metric
    limit: float
    origin: Float64
    exponent: int

    @property
    def radius(self) -> float:
        """Upper bound of the distance of two rows within the limit."""
        limit = max(self.limit, 0.0) * (1 + (len(self.origin) + 8) * 2.0**-52)
        return math.ldexp(math.sqrt(limit), -self.exponent) * (1 + 2.0**-50) + 1e-140

    def exact(self, rows: NDArray[Any]) -> Float64:
        """Rows (m, dims) relative to the origin in float64, for a few rows at a time."""
        points = kernels.formula_rows(rows, self.metric).astype(np.float64)
        if self.exponent:
            points *= 2.0**-self.exponent  # exact: no float32 is near the ends of float64
        points -= self.origin
        return points

    def points(self, rows: NDArray[Any]) -> Float32:
        """Rows (m, dims) relative to the origin, rounded to float32."""
        points = np.empty(rows.shape, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(rows), _SLICE):
                points[start : start + _SLICE] = self.exact(rows[start : start + _SLICE])
        return points

    def drift(self, reach: Float64) -> Float64:
        """delta of the derivation, for points with norms up to ``reach``."""
        dims = len(self.origin)
        fixed = 2.0**-50 * float(np.linalg.norm(self.origin)) + math.sqrt(dims) * 2.0**-148
        return 1.01 * _UNIT * reach + fixed


def point_norms(points: Float32) -> Float64:
    """Upper bounds of the norms of float32 points (m, dims)."""
    squares = np.empty(len(points), dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(points), _SLICE):
            part = points[start : start + _SLICE].astype(np.float64)
            squares[start : start + _SLICE] = np.einsum("ij,ij->i", part, part)
        norms: Float64 = np.sqrt(squares) * (1 + (points.shape[1] + 4) * 2.0**-52)
    return norms


@dataclass(frozen=True)
class Planes:
    """The planes between the centres of some cells (g, rows) and of others (h, columns), with their errors.

    Attributes
    ----------
    base : ndarray of float64, shape (g, h)
        A lower bound of half the numerator of H_gh(x) is base less the machine's <w, h> - <w, g>.
    near, far : ndarray of float64, shape (g, h)
        Bounds of the distance of the centres.
    drift : ndarray of float64, shape (g,)
    """

    base: Float64
    near: Float64
    far: Float64
    drift: Float64

    @classmethod
    def between(cls, own: Float32, other: Float32, reach: Float64, geometry: Geometry) -> Planes:
        """Planes between centres ``own`` (g, dims), of cells whose rows are at most ``reach`` (g,) long, and others."""
        dims = own.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):
            one, two = own.astype(np.float64), other.astype(np.float64)
            left, right = np.einsum("ij,ij->i", one, one)[:, None], np.einsum("ij,ij->i", two, two)[None]
            both = left + right
            squared = both - 2 * (one @ two.T)
            error = 4 * (dims + 4) * 2.0**-53 * both
            gamma = dims * _UNIT / (1 - dims * _UNIT)
            length = np.sqrt(left) + np.sqrt(right)
            product = 1.01 * (gamma + 2 * _UNIT) * reach[:, None] * length + dims * 2.0**-147
            base = (right - left) / 2 - product - (dims + 4) * 2.0**-52 * both
            near = np.sqrt(np.maximum(squared - error, 0.0)) * (1 - 2.0**-50)
            far = np.sqrt(np.maximum(squared, 0.0) + error) * (1 + 2.0**-50)
            return cls(base, near, far, geometry.drift(reach))

    def part(self, columns: NDArray[np.int64]) -> Planes:
        """Those with some of the other centres."""
        return Planes(self.base[:, columns], self.near[:, columns], self.far[:, columns], self.drift)

    def least(self, most: NDArray[Any]) -> Float32:
        """M_gh from the largest <w, h> - <w, g> of each cell g (g, h), rounded down; -inf where nothing is known."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            numerator = self.base - most
            least = numerator / np.where(numerator >= 0, self.far, self.near) - self.drift[:, None]
            return rounded_down(np.where(np.isnan(least), -np.inf, least))

    def thresholds(self, room: Float64) -> Float32:
        """A row x of g lies farther than ``room`` (g, h) before the plane where <w, h> - <w, g> is below this."""
        with np.errstate(over="ignore", invalid="ignore"):
            room = room + self.drift[:, None]
            threshold = self.base - np.where(room >= 0, self.far, self.near) * room
            return rounded_down(np.where(np.isnan(threshold), -np.inf, threshold))


def rounded_down(values: Float64) -> Float32:
    """The next float32 not above each value, infinities left as they are."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def own_products(points: Float32, edges: NDArray[np.int64], centres: Float32) -> Float32:
    """<w, g> of each point with the centre of its cell; cell i holds the points edges[i] to edges[i + 1]."""
    own = np.empty(len(points), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for cell in range(len(centres)):
            part = slice(edges[cell], edges[cell + 1])
            own[part] = points[part] @ centres[cell]
    return own


def largest_products(points: Float32, own: Float32, edges: NDArray[np.int64], centres: Float32) -> NDArray[np.float32]:
    """The largest <w, h> - <w, g> over the points of each cell g, for each of the centres h; shape (cells, h).

    NaN where a point's is.
    """
    most = np.empty((len(edges) - 1, len(centres)), dtype=np.float32)
    starts = np.searchsorted(edges, np.arange(0, len(points), _ROWS))
    cuts = np.unique(np.append(starts, len(edges) - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(centres), _CENTRES):
            columns = slice(first, first + _CENTRES)
            turned = centres[columns].T
            for cell, last in pairwise(cuts.tolist()):
                rows = slice(edges[cell], edges[last])
                products = points[rows] @ turned
                products -= own[rows, None]
                # Cell by cell: eight times as fast as reduceat.
                for one in range(cell, last):
                    part = products[edges[one] - rows.start : edges[one + 1] - rows.start]
                    np.maximum.reduce(part, axis=0, out=most[one, columns])
    return most


def reaching(
    points: Float32, own: Float32, edges: NDArray[np.int64], centres: Float32, thresholds: Float32
) -> NDArray[np.bool_]:
    """Which points (m,) reach which cells h: <w, h> - <w, g> not below ``thresholds`` (cells g, h). NaN reaches."""
    reach = np.empty((len(points), len(centres)), dtype=np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        for cell in range(len(edges) - 1):
            part = slice(edges[cell], edges[cell + 1])
            products = points[part] @ centres.T
            products -= own[part, None]
            np.less(products, thresholds[cell], out=reach[part])
    np.logical_not(reach, out=reach)
    return reach
