"""How the search of a pass is carried out, chosen by measuring its first tiles of rows.

What is chosen (all coordinates at once, or so many leading ones first) changes the time a label takes, never the label.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from streamcurate.kernels.cpu.leading import (
    Axes,
    LeadingColumns,
    Projected,
    axes_products,
    leading_columns,
    principal_axes,
    project_columns,
)
from streamcurate.kernels.cpu.screen_rows import STEP
from streamcurate.kernels.metric import Float32, Float64

PLAIN = 0
"""The choice of no leading coordinates: scores over all of them."""

_CANDIDATES = (16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256)
_MOST_AXES = 256
# Fewer centroids, or dims, cannot win back the projection of the rows.
_FEWEST_CLUSTERS = 128
_FEWEST_DIMS = 48
# Rows of a pass seen before axes are sought, as a multiple of those that the search for them costs.
_WORTH = 4
_MANY_CLUSTERS = 2048
_TRIALS = 2
_TRIAL_ROWS = 256
# Passes between two measurements, once a choice has been made.
_TRUSTED = 4
# Where the first guess takes so many times longer than all coordinates at once, no neighbour of it is tried.
_HOPELESS = 1.5
# Candidates laid out at a time: the best so far, and the one on trial.
_KEPT = 2


def axes_count(dims: int) -> int:
    """Axes that are sought: half of the dims at most."""
    return min(dims // 2, _MOST_AXES)


def candidates(clusters: int, dims: int) -> tuple[int, ...]:
    """Numbers of leading coordinates worth a measurement; empty where none is."""
    if clusters < _FEWEST_CLUSTERS or dims < _FEWEST_DIMS:
        return ()
    most = axes_count(dims) * 2 // 3
    return tuple(leading for leading in _CANDIDATES if leading <= most)


def choice_bytes(padded: int, clusters: int, dims: int) -> int:
    """The most bytes a :class:`Choice` holds for so many columns."""
    if not candidates(clusters, dims):
        return 0
    count = axes_count(dims)
    # Coordinates, and the leading ones of two candidates at a time; the axes, and what their search takes.
    return (
        padded * (4 * count + _KEPT * 4 * (count * 2 // 3 + 1 + count // STEP + 2))
        + dims * count * (4 + 24)
        + padded * 4 * count
    )


class Experience:
    """What passes learn for the passes that follow: axes and choices, by dims, clusters and whether labels are known.

    One for each process and job; threads may share it.
    """

    def __init__(self) -> None:
        self.axes: dict[int, Axes] = {}
        self.hints: dict[int, int] = {}
        self.chosen: dict[tuple[int, int, bool], tuple[int, int]] = {}


@dataclass
class _Measured:
    """Seconds a row of each choice tried, the least of its trials."""

    seconds: dict[int, float] = field(default_factory=dict)
    trials: dict[int, int] = field(default_factory=dict)
    settled: bool = False

    def add(self, leading: int, seconds: float) -> None:
        self.seconds[leading] = min(self.seconds.get(leading, math.inf), seconds)
        self.trials[leading] = self.trials.get(leading, 0) + 1

    def tried(self, leading: int, trials: int) -> bool:
        return self.trials.get(leading, 0) >= trials

    def best(self) -> int:
        return min(self.seconds, key=self.seconds.__getitem__)


class Choice:
    """Chooses between all coordinates at once and so many leading ones, for the rows with and without a known label.

    Parameters
    ----------
    columns : (padded k, d) float32
    reach : (padded k,) float64
        Upper bounds of the shifted centroids' norms.
    clusters : int
    experience : Experience
    """

    def __init__(self, columns: Float32, reach: Float64, clusters: int, experience: Experience | None) -> None:
        self._columns, self._reach = columns, reach
        self._building = False
        self._experience = experience or Experience()
        self._candidates = candidates(clusters, columns.shape[1])
        self._key = (columns.shape[1], clusters.bit_length())
        self._measured = {known: _Measured(settled=not self._candidates) for known in (False, True)}
        self._rows = 0
        self._projected: Projected | None = None
        self._built: dict[int, LeadingColumns] = {}
        self._lock = threading.Lock()
        dims = columns.shape[1]
        axes = 0.0 if dims in self._experience.axes else axes_products(clusters, dims)
        self._preparation = axes_count(dims) * (1 + axes)

    def rows(self, known: bool, most: int) -> int:
        """Rows of the next tile: a choice on trial, which may be many times slower, is given few."""
        settled = not self._candidates or self._measured[known].settled
        return most if settled or self._rows < _WORTH * self._preparation else min(most, _TRIAL_ROWS)

    def take(self, known: bool) -> LeadingColumns | None:
        """What to search the next tile of rows with; None: all coordinates at once."""
        if not self._candidates:
            return None
        with self._lock:
            leading = self._next(self._measured[known], known)
            if leading == PLAIN or leading in self._built:
                return self._built.get(leading)
            if self._building:  # by another thread: meanwhile this one labels rows
                return None
            self._building = True
        try:
            built = self._build(leading)
        finally:
            self._building = False
        with self._lock:
            while len(self._built) >= _KEPT:
                times = self._measured[False].seconds | self._measured[True].seconds
                del self._built[max(self._built, key=lambda other: times.get(other, math.inf))]
            self._built[leading] = built
        return built

    def report(self, known: bool, leading: int, rows: int, seconds: float) -> None:
        """What a tile of rows took."""
        if not self._candidates or rows == 0:
            return
        with self._lock:
            self._rows += rows
            measured = self._measured[known]
            if not measured.settled:
                measured.add(leading, seconds / rows)

    def _next(self, measured: _Measured, known: bool) -> int:
        if measured.settled:
            return measured.best()
        key = (*self._key, known)
        remembered, passes = self._experience.chosen.get(key, (None, 0))
        if remembered is not None and not measured.seconds and passes % _TRUSTED:
            measured.add(remembered, math.inf)
            measured.settled = True
            self._experience.chosen[key] = (remembered, passes + 1)
            return remembered
        if remembered is None and self._rows < _WORTH * self._preparation:
            return PLAIN
        for leading in self._to_try(measured, remembered):
            if not measured.tried(leading, _TRIALS if remembered is None else 1):
                return leading
        measured.settled = True
        best = measured.best()
        self._experience.chosen[key] = (best, passes + 1)
        if best != PLAIN:
            self._experience.hints[self._key[0]] = best
        return best

    def _to_try(self, measured: _Measured, remembered: int | None) -> list[int]:
        """A first guess, all coordinates at once, and then neighbours of the best for as long as they are better."""
        dims = self._columns.shape[1]
        hint = remembered or self._experience.hints.get(dims) or dims / 3
        wanted = [min(self._candidates, key=lambda leading: abs(leading - hint)), PLAIN]
        pruned = {leading: value for leading, value in measured.seconds.items() if leading != PLAIN}
        if pruned:
            best = min(pruned, key=pruned.__getitem__)
            if pruned[best] < measured.seconds.get(PLAIN, math.inf) * _HOPELESS:
                at = self._candidates.index(best)
                wanted += self._candidates[max(at - 1, 0) : at + 2]
        return wanted

    def _build(self, leading: int) -> LeadingColumns:
        if self._projected is None:
            self._projected = project_columns(self._columns, self._reach, self._axes())
        # Few centroids leave few pairs, which do not win back the projection of the rows on further axes.
        further = STEP if len(self._columns) < _MANY_CLUSTERS else 2 * STEP
        return leading_columns(self._projected, leading, min(leading + further, self._projected.axes.count))

    def _axes(self) -> Axes:
        dims = self._columns.shape[1]
        axes = self._experience.axes.get(dims)
        if axes is None:
            axes = self._experience.axes[dims] = principal_axes(self._columns, axes_count(dims))
        return axes
