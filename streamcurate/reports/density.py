"""Where rows lie: along the two principal axes of a sample, counted in hexagons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.reports.drawn import STREAM

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

# Axes are sought among a few more than two directions, so that they settle quickly.
_DIRECTIONS = 12
_ROUNDS, _SETTLED = 60, 1e-12
_AXES = 0x6178
_BLOCK = 2048
# Hexagons across the frame: fewer for few rows. And the share of rows on either side that it may leave out.
_FEWEST_COLUMNS, _MOST_COLUMNS = 14, 34
_TAIL = 0.002
_MARGIN = 0.04
_NEAR = 0.15


@dataclass(frozen=True, eq=False)
class Axes:
    """Two directions along which a sample of rows varies most.

    Attributes
    ----------
    centre : ndarray of float64, shape (dims,)
    vectors : ndarray of float64, shape (2, dims)
        Of unit length; the second is 0 for rows of one dimension.
    explained : tuple of float
        Share of the sample's variance along each.
    metric : str
        Under cosine rows are brought to unit length first.
    """

    centre: Float64
    vectors: Float64
    explained: tuple[float, float]
    metric: str

    def places(self, rows: NDArray[Any]) -> Float64:
        """Coordinates of rows; float64, shape (m, 2)."""
        found = np.empty((len(rows), 2))
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            found[part] = (_plain(rows[part], self.metric) - self.centre) @ self.vectors.T
        return found


def principal_axes(rows: NDArray[Any], metric: str) -> Axes:
    """The two principal axes of rows, by subspace iteration: no matrix of dims × dims is made.

    Parameters
    ----------
    rows : ndarray, shape (m, dims)
    metric : "l2" or "cosine"
    """
    count, dims = rows.shape
    blocks = [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
    centre = sum((_plain(rows[part], metric).sum(axis=0) for part in blocks), np.zeros(dims)) / count
    width = min(_DIRECTIONS, dims)
    bits = kernels.random_bits(0, (STREAM, _AXES), np.arange(width * dims))
    basis, _ = np.linalg.qr((bits / 2.0**64 - 0.5).reshape(dims, width))
    values, before = np.zeros(width), np.full(width, np.inf)
    total = 0.0
    for _ in range(_ROUNDS):
        product = np.zeros((dims, width))
        total = 0.0
        for part in blocks:
            centred = _plain(rows[part], metric) - centre
            total += float((centred * centred).sum())
            product += centred.T @ (centred @ basis)
        # Rayleigh-Ritz: the best directions within the subspace.
        values, turn = np.linalg.eigh(basis.T @ product)
        ritz = basis @ turn
        if np.abs(values - before).max() <= _SETTLED * max(total, 1e-300):
            break
        before = values
        basis, _ = np.linalg.qr(product)
    vectors, explained = np.zeros((2, dims)), [0.0, 0.0]
    for axis in range(min(2, width)):
        vector = ritz[:, -1 - axis]
        # A direction and its opposite are the same axis: the largest coordinate is positive.
        vectors[axis] = vector * (1 if vector[np.argmax(np.abs(vector))] >= 0 else -1)
        explained[axis] = max(float(values[-1 - axis]) / total, 0.0) if total > 0 else 0.0
    return Axes(centre, vectors, (explained[0], explained[1]), metric)


def _plain(rows: NDArray[Any], metric: str) -> Float64:
    found = kernels.formula_rows(rows, metric) if metric == "cosine" else rows
    return found.astype(np.float64)


@dataclass(frozen=True)
class Frame:
    """A window on the plane, cut into hexagons with a corner on top.

    Attributes
    ----------
    left, bottom, width, height : float
    radius : float
        Of a hexagon, from its centre to a corner.
    lines, columns : int
        Of hexagons; every other line is shifted by half a hexagon and has one more.
    """

    left: float
    bottom: float
    width: float
    height: float
    radius: float
    lines: int
    columns: int

    def hexagons(self, places: Float64) -> tuple[Int64, Int64]:
        """Line and column of the hexagon that each place lies in; -1 for places outside the frame."""
        across, up = math.sqrt(3) * self.radius, 1.5 * self.radius
        x, y = places[:, 0] - self.left, places[:, 1] - self.bottom
        inside = (x >= 0) & (x <= self.width) & (y >= 0) & (y <= self.height)
        near = np.floor(y / up).astype(np.int64)
        line, column, best = np.full(len(x), -1), np.full(len(x), -1), np.full(len(x), np.inf)
        # The centre is in the line below or in that above.
        for candidate in (near, near + 1):
            shift = 0.5 * (candidate % 2)
            cell = np.floor(x / across + shift).astype(np.int64)
            distance = (x - (cell + 0.5 - shift) * across) ** 2 + (y - candidate * up) ** 2
            better = distance < best
            line[better], column[better], best[better] = candidate[better], cell[better], distance[better]
        line[~inside] = column[~inside] = -1
        return line, column

    def counts(self, places: Float64, weights: Int64 | None = None) -> tuple[Int64, int]:
        """Rows in each hexagon, int64 (lines, columns + 1), and those outside the frame."""
        line, column = self.hexagons(places)
        inside = line >= 0
        weights = np.ones(len(places), dtype=np.int64) if weights is None else weights
        counts = np.zeros((self.lines, self.columns + 1), dtype=np.int64)
        np.add.at(counts, (line[inside], column[inside]), weights[inside])
        return counts, int(weights[~inside].sum())


def frame_of(places: Float64) -> Frame:
    """A frame around most of the places: at most 0.2 % of them lie outside on each side."""
    low, high = np.quantile(places, [_TAIL, 1 - _TAIL], axis=0)
    # All of them where the last ones lie close to the others.
    least, most = places.min(axis=0), places.max(axis=0)
    near = _NEAR * (high - low)
    low, high = np.where(low - least <= near, least, low), np.where(most - high <= near, most, high)
    size = np.maximum(high - low, 1e-9 * max(float(np.abs(places).max()), 1e-30))
    # Neither side much longer than the other, so that the picture has a shape that fits a page.
    longest = float(size.max())
    size = np.maximum(size, 0.55 * longest)
    middle = (low + high) / 2
    size = size * (1 + 2 * _MARGIN)
    left, bottom = (middle - size / 2).tolist()
    width, height = size.tolist()
    columns = min(max(round(math.sqrt(len(places))), _FEWEST_COLUMNS), _MOST_COLUMNS)
    radius = width / (columns * math.sqrt(3))
    return Frame(left, bottom, width, height, radius, int(height / (1.5 * radius)) + 2, columns)
