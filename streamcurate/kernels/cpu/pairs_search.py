"""The certified search for pairs of rows within a distance, by float32 products of leading coordinates.

Derivation
----------
x, y are rows as the formula sees them (for cosine the float64 unit rows), o the origin, t the scale (a power of two),
r = t (x - o), s = t (y - o) in exact arithmetic, a >= |r|, b >= |s|, u = 2^-24, gamma_n = n u / (1 - n u), and
C the limit. F errs from |x - y|^2 by less than (d + 3) 2^-53 of it (a subtraction counted twice, a product, d - 1
additions; nothing under- or overflows in float64), so F <= C implies

    |r - s|^2 = |r|^2 + |s|^2 - 2 r.s <= H = t^2 C (1 + (d + 4) 2^-52).                                        (1)

A pair is passed over only where (1) is impossible.

*First look.* R holds q axes with |R R^T - I| <= e in Frobenius' norm, P projects onto their span. As in
cpu/leading.py, r.s <= <R r, R s> + 1.01 e a b + T(r) T(s), with T(v)^2 = |v|^2 - |P v|^2.

1. r' = float32(r) has |r' - r| <= 1.001 u a: x - o is rounded once in float64 (what underflow, even flushed to zero,
   takes is left to w below). y = fl(R r') errs by D a at most, D = 1.02 sqrt(q) gamma_(d+2), as there. Where the
   coordinates themselves are taken (R = I, no product), D = 1.01 u and e = 0. Both sides are rounded so here:
   |<y_r, y_s> - <R r, R s>| <= (2.01 D + D^2) a b <= 2.02 D a b.
2. Tails T are made larger by D + 1.01 e of the row's norm (``tail_norms``); with all of d coordinates themselves
   there is none.
3. The machine's product g of q + 1 columns errs by gamma_(q+1) times the sum of its absolute terms, which is at most
   2.05 a b by Cauchy's inequality.
4. It compares fl(-g + h_s) with a threshold per row, h_s = float32(|s|^2 / 2 - ...): at most u (2.1 a b + b^2) in all.

Together: (1) implies -g + |s|^2 / 2 <= H / 2 - |r|^2 / 2 + E / 2 with

    E = p a b + 2.2 u (a^2 + b^2) + w (1 + a^2 + b^2),    p = 2.02 e + 4.05 D + 4.2 gamma_(q+5) + 4.2 u,

w = d 2^-100 covering all underflow. As a b <= (a^2 + b^2) / 2, E is at most the sum of a share of each side,
(p / 2 + 2.2 u + w) a^2 + w: each side's share is taken from its own half of the squared norm, and nothing about a pair
need be known but its score. Thresholds are rounded up; a thousandth more covers the float64 rounding of the bounds.

*Second look.* fl(x_j f_x) - fl(y_j f_y) squared and summed in float32, in any order, with f = t for l2 (exact, being a
power of two) and f = float32(t / |x|) for cosine. Each difference errs by u of itself, for cosine also by 2.2 u of
both its terms, whose vectors are t long each; what underflow takes is below 2^-45 a coordinate, as f <= 2^80. Partial
sums only grow, up to rounding, so (1) implies that every partial sum is at most

    ((1 + 1.1 u) sqrt(H) + 4.5 u t [cosine] + sqrt(d) 2^-44)^2 (1 + 1.1 gamma_(d+3)) + d 2^-125.               (2)

The first is blind below about 1e-3 of the squared norms about the origin, the second only below 1e-6 of the limit for
l2, and for cosine where sqrt(C) is not large against 3e-7. Rows that overflow float32 on the way (2^60 times
longer than most, or NaN on the way in the second look) are never passed over: the formula decides.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from streamcurate.kernels.cpu.pairs_rows import PairAxes, PairRows, drift, spill
from streamcurate.kernels.cpu.pairs_scan import LANES, UNITED, scan_tile, survivors
from streamcurate.kernels.cpu.screen_rows import tail_norms
from streamcurate.kernels.metric import Float32, Float64, Int64
from streamcurate.kernels.workspace import work_array

_ROW_TILE = 256
_COLUMN_TILE = 2048
_UNIT = 2.0**-24

# Leading coordinates that the first look may take, and what it then costs, in ns a pair (measured on Zen 3, one
# thread: a product of 256 x 2048 scores and the look at them); then what a pair costs that it leaves over.
_LEADING = np.array([8, 16, 24, 32, 48, 64, 80, 96], dtype=np.int64)
_FIRST_LOOK = 0.45 + 0.018 * _LEADING
_SAMPLED = 1024
_PAIRS_A_SAMPLE = 4096
_USUAL_LEADING = 32


class Join(NamedTuple):
    """One join of two tiles: what all ways of searching need. ``missing``: pairs that would unite all the groups."""

    left: PairRows
    right: PairRows
    within: bool
    limit: float
    offset: int
    groups: Int64
    forest: Int64
    tally: Int64
    missing: int

    @property
    def bound(self) -> float:
        """H of the derivation."""
        scale = self.left.axes.scale
        return self.limit * scale * scale * (1 + (self.left.dims + 4) * 2.0**-52)

    def all_united(self) -> bool:
        """Whether all rows are in one group by now, so that no pair is left to be looked at."""
        return int(self.tally[UNITED]) == self.missing

    @property
    def unit(self) -> bool:
        """Whether the formula divides rows by their norms."""
        return self.left.metric == "cosine"

    @property
    def cut(self) -> Any:
        """(2) of the derivation."""
        dims = self.left.dims
        gamma = (dims + 3) * _UNIT / (1 - (dims + 3) * _UNIT)
        spread = 4.5 * _UNIT * self.left.axes.scale if self.unit else 0.0
        root = math.sqrt(self.bound) * (1 + 1.1 * _UNIT) + spread + math.sqrt(dims) * 2.0**-44
        return not_below(root * root * (1 + 1.1 * gamma) + dims * 2.0**-125)


def scan_by_products(join: Join) -> None:
    """Score all pairs by products of leading coordinates, tile by tile, and unite those within the limit."""
    if join.all_united():
        return
    left, right, axes = join.left, join.right, join.left.axes
    leading = choose_leading(join)
    share = _share(axes, leading, left.dims)
    whole = leading == left.dims and not len(axes.vectors)
    width = leading + (0 if whole else 1)
    tails = [_tails(side, leading, whole) for side in ((left,) if join.within else (left, right))]
    row_halves = _halves(left, share)
    column_halves = row_halves if join.within else _halves(right, share)
    thresholds: Float32 = not_below(join.bound / 2 - row_halves)
    cut, floats = join.cut, np.float32
    for first in range(0, right.count, _COLUMN_TILE):
        last = min(first + _COLUMN_TILE, right.count)
        padded = -(-(last - first) // LANES) * LANES
        columns: Float32 = work_array("pair columns", (padded, width), floats)
        halves: Float32 = work_array("pair halves", (padded,), floats)
        columns[last - first :] = 0.0
        halves[last - first :] = np.nan  # at most nothing
        columns[: last - first, :leading] = right.coordinates[first:last, :leading]
        halves[: last - first] = column_halves[first:last]
        if not whole:
            columns[: last - first, leading] = tails[-1][first:last]
        for start in range(0, last if join.within else left.count, _ROW_TILE):
            stop = min(start + _ROW_TILE, left.count)
            rows: Float32 = work_array("pair rows", (stop - start, width), floats)
            np.negative(left.coordinates[start:stop, :leading], out=rows[:, :leading])
            if not whole:
                np.negative(tails[0][start:stop], out=rows[:, leading])
            # Columns before the first row are met from the other side.
            skipped = max(0, start - first) // LANES * LANES if join.within else 0
            scores: Float32 = work_array("pair scores", (stop - start, padded - skipped), floats)
            np.dot(rows, columns[skipped:].T, out=scores)
            scan_tile(
                scores, halves[skipped:], thresholds[start:stop], start, first + skipped, join.within,
                left.rows, left.norms, left.factors, right.rows, right.norms, right.factors,
                join.unit, cut, join.limit, join.offset, join.groups, join.forest, join.tally,
            )  # fmt: skip
            if join.all_united():
                return


def choose_leading(join: Join) -> int:
    """Leading coordinates by which the pairs are scored; any number gives the same groups."""
    left, right = join.left, join.right
    marks = np.append(_LEADING[left.axes.count > _LEADING], min(left.axes.count, _LEADING[-1]))
    pairs = min(_SAMPLED, left.count * right.count // _PAIRS_A_SAMPLE)
    if pairs < 64 or len(marks) == 1:
        return int(min(marks[-1], _USUAL_LEADING))
    counts = np.empty(len(marks), dtype=np.int64)
    survivors(
        left.coordinates, left.lengths, right.coordinates, right.lengths, pairs, join.within, join.bound, marks, counts
    )
    costs = np.interp(marks, _LEADING, _FIRST_LOOK) + (30 + 0.05 * left.dims) * counts / pairs
    return int(marks[np.argmin(costs)])


def _share(axes: PairAxes, leading: int, dims: int) -> tuple[float, float]:
    """Half of a side's share of E: the factor of its squared norm, and what is left without it."""
    gamma = (leading + 5) * _UNIT / (1 - (leading + 5) * _UNIT)
    product = 2.02 * axes.skew + 4.05 * drift(axes) + 4.2 * gamma + 4.2 * _UNIT
    underflow = dims * 2.0**-100
    return 1.001 * (product / 4 + 1.1 * _UNIT + underflow), 1.001 * underflow


def _halves(side: PairRows, share: tuple[float, float]) -> Float64:
    """Half of each row's squared norm, less its share of the error; -inf for a row that float32 cannot hold."""
    halves: Float64 = side.lengths / 2 - share[0] * side.reach**2 - share[1]
    return halves


def _tails(side: PairRows, leading: int, whole: bool) -> Float32:
    tails = np.empty((side.count, 1), dtype=np.float32)
    if whole:
        return tails[:, 0]
    tail_norms(side.coordinates, 1.0, side.reach, leading, spill(side.axes), tails)
    return tails[:, 0]


def search_bytes(left: int, right: int) -> int:
    """Bytes of work buffers of :func:`scan_by_products`, besides a few numbers a row."""
    columns, most = min(_COLUMN_TILE, right + LANES), int(_LEADING[-1]) + 1
    return 4 * columns * (min(_ROW_TILE, left) + most + 1) + 4 * _ROW_TILE * (most + 1)


def not_below(values: Any) -> Any:
    """float32 numbers at or above float64 ones."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite: nothing is passed over
        return np.asarray(values + np.abs(values) * 2.0**-22 + 2.0**-120).astype(np.float32)[()]
