"""Float32 columns whose products bound those of rows of 8-bit integers: kinds, bounds, and the choice among them.

For rows a and b of integers, less a common offset, columns z have <a, b> <= <z_a, z_b> + k |a| |b|. They are either

- the integers themselves, which float32 holds: k = gamma_(d+2), what a sum of d products may err by;
- or q leading coordinates y = R a along the principal axes of the rows, and the norm t of the rest (Cauchy-Schwarz):
  <a, b> <= <R a, R b> + t_a t_b + 1.01 e |a| |b| where |R R^T - I| <= e. The machine's y errs by D |a| at most,
  D = 1.02 sqrt(q) gamma_(d+2); t is made larger by that, and k = 1.01 (1.01 e + 2.01 D + 1.05 gamma_(q+30)).

Which of them, and how many axes, is chosen by what is left in question for a few rows and candidates: it changes the
time and no number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.leading import Axes, principal_axes
from streamcurate.kernels.cpu.products import Integers
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Array, Float32, Float64, Int64
from streamcurate.kernels.workspace import work_array

_UNIT = 2.0**-24
# A pair in question takes as long as so many columns of one in the product. Measured at 384 dims: 25 ns
# against 0.022 ns a column.
_COLUMNS_PER_PAIR = 1000
_STEP = 16
_FEWEST_DIMS = 48
_MOST_SAMPLED = 2048
# Another choice must promise to save this share.
_WORTHWHILE = 0.15


@compiled
def _place(integers: Array, offset: Int64, values: Float32) -> None:
    for i in range(integers.shape[0]):
        for j in range(integers.shape[1]):
            values[i, j] = np.float32(np.int32(integers[i, j]) - np.int32(offset[j]))


@compiled
def _add_tails(coordinates: Float32, shifted: Int64, spill: float, columns: Float32) -> None:
    leading = columns.shape[1] - 1
    for i in range(len(columns)):
        near = 0.0
        for j in range(leading):
            value = coordinates[i, j]
            columns[i, j] = value
            near += np.float64(value) * np.float64(value)
        whole = np.float64(shifted[i])
        inside = max(0.0, np.sqrt(near) * (1 - 1e-9) - spill * np.sqrt(whole))
        columns[i, leading] = np.float32(np.sqrt(max(0.0, whole - inside * inside)) * (1 + 2.0**-22))


@dataclass(frozen=True)
class Columns:
    """How rows of integers become float32 columns whose products bound theirs.

    Attributes
    ----------
    offset : (d,) int64
        Taken off every row first; zeros without axes.
    axes : Axes or None
    leading : int
        Axes used; 0 for the integers themselves.
    """

    offset: Int64
    axes: Axes | None
    leading: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.leading + 1 if self.leading else len(self.offset)

    @property
    def _drift(self) -> float:
        return 1.02 * math.sqrt(max(self.leading, 1)) * _gamma(len(self.offset) + 2)

    @property
    def keep(self) -> float:
        """1 - k of the module's bound."""
        if self.axes is None:
            return 1 - 1.01 * _gamma(len(self.offset) + 2)
        return 1 - 1.01 * (1.01 * self.axes.skew + 2.01 * self._drift + 1.05 * _gamma(self.leading + 30))

    def heights(self, shifted: Int64) -> Float32:
        """What a candidate whose squared norm less the offset is ``shifted`` adds to a row's threshold."""
        square = shifted.astype(np.float64)
        heights: Float32 = (0.5 * self.keep * square - 2.0**-22 * square).astype(np.float32)
        return heights

    def lay(self, integers: Array, shifted: Int64, out: Float32) -> None:
        """Columns (m, width) of rows (m, d) int8 whose squared norms less the offset are ``shifted``."""
        if self.axes is None:
            _place(integers, self.offset, out)
            return
        values = work_array("integers as float32", integers.shape, np.float32)
        _place(integers, self.offset, values)
        coordinates = work_array("leading coordinates", (len(values), self.leading), np.float32)
        np.dot(values, self.axes.vectors[: self.leading].T, out=coordinates)
        _add_tails(coordinates, shifted, self._drift + 1.01 * self.axes.skew, out)


def plain_columns(dims: int) -> Columns:
    """The integers themselves."""
    return Columns(np.zeros(dims, dtype=np.int64), None, 0)


def _most_axes(dims: int) -> int:
    return 0 if dims < _FEWEST_DIMS else min(dims * 5 // 8, 384) // _STEP * _STEP


def axes_sample(rows: Array) -> Array:
    """The rows, evenly spread, that axes are sought in."""
    wanted = min(2 * rows.shape[1], _MOST_SAMPLED)
    return rows[:: max(len(rows) // wanted, 1)][: 2 * wanted]


def axes_bytes(dims: int) -> int:
    """The most memory that :func:`principal_columns` takes: its sample, products with the axes, and a factorisation."""
    most = _most_axes(dims)
    return min(4 * dims, 2 * _MOST_SAMPLED) * (5 * dims + 12 * most) + 40 * dims * most if most else 0


def axes_operations(rows: int, dims: int) -> int:
    """Operations of :func:`principal_columns` over so many rows: three rounds of two products and a factorisation."""
    most = _most_axes(dims)
    return 3 * (4 * rows * dims * most + 4 * dims * most * most)


def principal_columns(sample: Array) -> Columns | None:
    """As many axes as could pay, from a sample of rows (m, d) int8; None where none could."""
    most = _most_axes(sample.shape[1])
    if most == 0 or len(sample) < most:
        return None
    offset = np.rint(sample.mean(axis=0, dtype=np.float64)).astype(np.int64)
    values = np.empty(sample.shape, dtype=np.float32)
    _place(np.ascontiguousarray(sample), offset, values)
    return Columns(offset, principal_axes(values, most), most)


def choose_columns(most: Columns, rows: Array, candidates: Array, potentials: Int64, projection: float) -> Columns:
    """The columns that take the least time, judged by a few rows and candidates (m, d) and (b, d) int8.

    Parameters
    ----------
    most : Columns
        With the most axes there are to choose from.
    rows, candidates : int8
    potentials : (m,) int64
        Of the rows.
    projection : float
        What laying the rows out costs, as a share of the product.
    """
    left, right = Integers(rows), Integers(candidates)
    both = [left, right]
    for one in both:
        one.shift(most.offset)
    whole = [np.sqrt(one.shifted.astype(np.float64)) for one in both]
    coordinates: list[Float64] = []
    for one in both:
        columns = np.empty((len(one.rows), most.width), dtype=np.float32)
        most.lay(one.rows, one.shifted, columns)
        coordinates.append(columns[:, :-1].astype(np.float64))
    near = [np.zeros(len(one.rows)) for one in both]
    products = np.zeros((len(rows), len(candidates)))
    heights = (left.shifted - potentials)[:, None] / 2 + right.shifted[None] / 2
    dims = rows.shape[1]
    best, least = plain_columns(dims), (1 - _WORTHWHILE) * dims
    for leading in range(_STEP, most.leading + 1, _STEP):
        part = slice(leading - _STEP, leading)
        products += coordinates[0][:, part] @ coordinates[1][:, part].T
        for side in (0, 1):
            near[side] += (coordinates[side][:, part] ** 2).sum(axis=1)
        tails = [np.sqrt(np.maximum(whole[side] ** 2 - near[side], 0)) for side in (0, 1)]
        share = float((products + tails[0][:, None] * tails[1][None] > heights).mean())
        cost = leading * (1 + projection) + 1 + _COLUMNS_PER_PAIR * share
        if cost < least:
            best, least = Columns(most.offset, most.axes, leading), cost
    return best


def _gamma(terms: int) -> float:
    return terms * _UNIT / (1 - terms * _UNIT)
