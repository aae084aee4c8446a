"""Tiles of rows made ready to be joined with other tiles; cpu/pairs_search.py has the derivation and the names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.leading import principal_axes
from streamcurate.kernels.cpu.rows import float32_rows, formula_rows, squared_norms
from streamcurate.kernels.cpu.screen_rows import shift_rows
from streamcurate.kernels.metric import Array, Float32, Float64, as_rows, check_metric
from streamcurate.kernels.workspace import work_array

# Up to so many dims, coordinates themselves are as good as any axes.
_FEW_DIMS = 32
# Coordinates kept of a row. Text embeddings (384 dims) at cosine 0.8 leave 0.3 % of the pairs after 48, 0.007 % after
# 96; a product of 96 columns already costs a quarter of one of all 384.
_MOST_AXES = 96
_SLICE = 256
_FARTHEST = 2.0**60
_UNIT = 2.0**-24


@dataclass(frozen=True)
class PairAxes:
    """What rows are measured against while pairs are screened; made by :func:`pair_axes`.

    Both sides of a join share one. It changes what a join costs, never its result.

    Attributes
    ----------
    origin : (d,) float64
        What is taken from every row (for cosine: from the unit row).
    scale : float
        A power of two by which the differences are multiplied, so that most are about as long as 1.
    vectors : (q, d) float32
        Nearly orthonormal directions, those along which rows differ most first; (0, d): the coordinates themselves.
    skew : float
        Upper bound of |R R^T - I| in Frobenius' norm, R the ``vectors``.
    """

    origin: Float64
    scale: float
    vectors: Float32
    skew: float

    @property
    def count(self) -> int:
        """Coordinates that a prepared row has."""
        return len(self.vectors) or len(self.origin)

    def same_as(self, other: PairAxes) -> bool:
        """Whether rows prepared with the other can be joined with rows prepared with these."""
        return self is other or (
            self.scale == other.scale
            and np.array_equal(self.origin, other.origin)
            and np.array_equal(self.vectors, other.vectors)
        )


@dataclass(frozen=True)
class PairRows:
    """A tile of rows made ready for any number of joins; made by :func:`prepare_pair_rows`.

    Attributes
    ----------
    rows : (m, d) float32
        The rows as they are stored, widened.
    metric : "l2" or "cosine"
    axes : PairAxes
    norms : (m,) float64
        Divisors of the formula's unit rows; ones for l2.
    factors : (m,) float32
        What the second look multiplies a row's values by; NaN where only the formula will do.
    coordinates : (m, q) float32
        Shifted, scaled rows along the axes.
    reach : (m,) float64
        Upper bounds of the shifted rows' norms; 0 for a row that float32 cannot hold.
    lengths : (m,) float64
        Lower bounds of their squared norms; -inf for a row that float32 cannot hold.
    """

    rows: Float32
    metric: str
    axes: PairAxes
    norms: Float64
    factors: Float32
    coordinates: Float32
    reach: Float64
    lengths: Float64

    @property
    def count(self) -> int:
        """Number of rows, m."""
        return len(self.rows)

    @property
    def dims(self) -> int:
        """Values of a row, d."""
        return int(self.rows.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held, the rows included."""
        held = (self.rows, self.norms, self.factors, self.coordinates, self.reach, self.lengths)
        return sum(array.nbytes for array in held)

    def take(self, index: Array | slice) -> PairRows:
        """Some of the rows, by positions, a mask or a slice (which copies nothing where its step is 1)."""

        def part(values: Array) -> Array:
            return np.ascontiguousarray(values[index])  # compiled code reckons with rows one after another

        return PairRows(
            part(self.rows),
            self.metric,
            self.axes,
            part(self.norms),
            part(self.factors),
            part(self.coordinates),
            part(self.reach),
            part(self.lengths),
        )


def pair_axes(sample: Array, metric: str) -> PairAxes:
    """Origin, scale and leading principal axes by which pairs are screened.

    Parameters
    ----------
    sample : (s, d) float16 or float32
        Some thousand rows of those that are to be joined, from all over them.
    metric : "l2" or "cosine"

    Returns
    -------
    PairAxes
        Without axes (``vectors`` of shape (0, d)) where dims are so few that these would not pay.
    """
    check_metric(metric)
    sample = as_rows(sample)
    count, dims = sample.shape
    plain = _plain_axes(dims)
    exact = np.empty((count, dims), dtype=np.float64)
    for start in range(0, count, _SLICE):
        exact[start : start + _SLICE] = formula_rows(sample[start : start + _SLICE], metric)
    exact = exact[np.isfinite(exact).all(axis=1)]
    if len(exact) == 0:
        return plain
    origin = exact.mean(axis=0)
    exact -= origin
    spread = float(np.sqrt(np.median(np.einsum("ij,ij->i", exact, exact))))
    if not 0.0 < spread < math.inf:
        return PairAxes(origin, 1.0, plain.vectors, 0.0)
    scale = 2.0 ** min(80, max(-120, -round(math.log2(spread))))
    exact *= scale
    near = exact[(np.abs(exact) < 2.0**20).all(axis=1)].astype(np.float32)
    if dims <= _FEW_DIMS or len(near) < 2:
        return PairAxes(origin, scale, plain.vectors, 0.0)
    found = principal_axes(near, min(dims, _MOST_AXES))
    axes = PairAxes(origin, scale, found.vectors, found.skew)
    # The derivation asks for errors this small; more than 10,000 dims exceed it.
    return axes if spill(axes) < 5e-3 else PairAxes(origin, scale, plain.vectors, 0.0)


def _plain_axes(dims: int) -> PairAxes:
    return PairAxes(np.zeros(dims, dtype=np.float64), 1.0, np.empty((0, dims), dtype=np.float32), 0.0)


def prepare_pair_rows(rows: Array, metric: str, axes: PairAxes | None = None) -> PairRows:
    """Make a tile of rows ready for joins by :func:`unite_pairs`.

    Parameters
    ----------
    rows : (m, d) float16 or float32
        Held as they are where they are float32; they must not change afterwards.
    metric : "l2" or "cosine"
    axes : PairAxes, optional
        The same for all tiles that are joined; without any, coordinates about zero are taken as they are.

    Returns
    -------
    PairRows
    """
    check_metric(metric)
    rows = as_rows(rows)
    count, dims = rows.shape
    axes = _plain_axes(dims) if axes is None else axes
    if len(axes.origin) != dims:
        raise ValueError(f"axes of {len(axes.origin)} dims do not fit rows of {dims}")
    wide: Float32 = rows if rows.dtype == np.float32 else np.empty((count, dims), dtype=np.float32)
    norms = np.ones(count, dtype=np.float64)
    coordinates = np.empty((count, axes.count), dtype=np.float32)
    reach = np.empty(count, dtype=np.float64)
    lengths = np.empty(count, dtype=np.float64)
    for start in range(0, count, _SLICE):
        part = slice(start, min(start + _SLICE, count))
        if wide is not rows:
            wide[part] = float32_rows(rows[part])
        if metric == "cosine":
            np.sqrt(squared_norms(wide[part]), out=norms[part])
        shifted, reach[part], lengths[part] = shifted_rows(wide[part], metric, axes)
        if len(axes.vectors):
            np.dot(shifted, axes.vectors.T, out=coordinates[part])
        else:
            coordinates[part] = shifted
    norms[norms == 0.0] = 1.0
    return PairRows(wide, metric, axes, norms, _factors(norms, axes.scale), coordinates, reach, lengths)


def shifted_rows(rows: Float32, metric: str, axes: PairAxes) -> tuple[Float32, Float64, Float64]:
    """float32 of scale (x - origin) for a slice of rows, in a work buffer; with ``reach`` and ``lengths``."""
    shifted: Float32 = work_array("pair shifted rows", rows.shape, np.float32)
    reach, upper = np.empty(len(rows), dtype=np.float64), np.empty(len(rows), dtype=np.float64)
    wild = np.empty(len(rows), dtype=np.bool_)
    nothing = np.zeros(len(rows), dtype=np.float64)
    shift_rows(formula_rows(rows, metric), axes.origin, axes.scale, _FARTHEST, nothing, shifted, reach, upper, wild)
    # A row's value of zero as a score is minus its squared norm, made larger for rounding.
    return shifted, reach, np.where(wild, -np.inf, -upper)


def _factors(norms: Float64, scale: float) -> Float32:
    factors = scale / norms
    return np.where((factors >= 2.0**-120) & (factors <= 2.0**80), factors, np.nan).astype(np.float32)


def drift(axes: PairAxes) -> float:
    """D of the derivation: the largest error of a row's coordinates, as a share of its norm."""
    if not len(axes.vectors):
        return 1.01 * _UNIT
    count, dims = len(axes.vectors), len(axes.origin)
    gamma = (dims + 2) * _UNIT / (1 - (dims + 2) * _UNIT)
    return 1.02 * math.sqrt(count) * gamma


def spill(axes: PairAxes) -> float:
    """The most by which the length of a row's coordinates exceeds that of its projection, as a share of its norm."""
    return drift(axes) + 1.01 * axes.skew


def pair_row_bytes(dims: int, itemsize: int, axes: PairAxes | None = None) -> int:
    """Bytes a row takes once it is made ready, beside which a float16 row stays as it is while it is made so.

    Parameters
    ----------
    dims : int
    itemsize : int
        Bytes of a stored value: 2 or 4.
    axes : PairAxes, optional
    """
    coordinates = dims if axes is None else axes.count
    return 4 * dims + (itemsize * dims if itemsize < 4 else 0) + 4 * coordinates + 3 * 8 + 4


def prepare_bytes(dims: int) -> int:
    """Bytes of work buffers of :func:`prepare_pair_rows`, whatever the number of rows."""
    return _SLICE * (20 * dims + 64)
