"""How long seeding takes: of greedy k-means++ the first centres are chosen, and the rest follows from how they went;
k-means|| is done for fewer rows."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering import plus_plus
from streamcurate.clustering.seeding import seed
from streamcurate.kernels.trials import Trials
from streamcurate.planning.bench import Bench, TimeUpError, Working, measured_rows

_FEWEST_CENTRES = 32
# Beyond the first few, which pay for what is set up. (1,000 centres foretold from those of one second: 30,000 rows of
# 768 dims within 1.3, 200,000 of 64 dims 1.1, 100,000 of 8 dims 1.1.)
_FIRST_CENTRES, _POINTS, _LEAST_POWER = 8, 12, 0.5
# Rows to begin with, and how many times as many come next.
_ROWS_A_CENTRE, _MORE_ROWS = 16, 4


class _Timed:
    """Potentials that note when how many centres were chosen, and stop when time is up; they are ``Trials``."""

    def __init__(self, potentials: Trials, seconds: float) -> None:
        self._potentials, self._seconds = potentials, seconds
        self.chosen = [0, 1]
        self.at = [0.0]
        self._began = time.monotonic()

    def begin(self, row: int) -> None:
        """The first centre."""
        self._potentials.begin(row)
        self.at.append(time.monotonic() - self._began)

    def running_sums(self) -> NDArray[np.int64]:
        """Of the potentials."""
        return self._potentials.running_sums()

    def potentials_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of some rows."""
        return self._potentials.potentials_of(rows)

    def choose(
        self, candidates: NDArray[np.int64], limits: NDArray[np.int64], tries: int, most: int
    ) -> NDArray[np.int64]:
        """More centres."""
        found = self._potentials.choose(candidates, limits, tries, most)
        self.chosen.append(self.chosen[-1] + len(found))
        self.at.append(time.monotonic() - self._began)
        if self.at[-1] > self._seconds and self.chosen[-1] >= _FEWEST_CENTRES:
            raise TimeUpError
        return found

    def whole(self, clusters: int) -> float:
        """Seconds of so many centres: time goes on growing with a power of their number, as it did so far."""
        done, spent = self.chosen[-1], self.at[-1]
        counts = np.geomspace(_FIRST_CENTRES, done, _POINTS)
        times = np.maximum(np.interp(counts, self.chosen, self.at), 1e-6)
        power = float(np.polyfit(np.log(counts), np.log(times), 1)[0])
        return spent * math.pow(clusters / done, min(max(power, _LEAST_POWER), 1.0))


def seeding_seconds(rows: NDArray[Any], points: int, clusters: int, bench: Bench, seconds: float) -> float:
    """Seconds of greedy k-means++ over so many points, from its first centres."""
    working = Working()
    around = bench.around(lambda event: None)
    rows = rows[:points]
    measured = measured_rows(rows, bench, around)
    space = kernels.seeding_space(measured.statistics, len(rows), rows.shape[1], bench.metric)
    alike = np.empty(0, dtype=np.int64)
    potentials = plus_plus.potentials_of(space.encode(rows), clusters, space, around, alike)
    before, working = working.seconds, Working()
    timed = _Timed(potentials, seconds)
    try:
        plus_plus.greedy(timed, len(rows), min(clusters, len(rows)), around, alike)
    except TimeUpError:
        whole = timed.whole(clusters)
    else:  # all of them, or as many as there are distinct rows
        whole = timed.at[-1] * max(clusters / len(rows), 1.0)
    return (before + working.share * whole) * points / len(rows)


def oversampling_seconds(rows: NDArray[Any], points: int, clusters: int, bench: Bench, seconds: float) -> float:
    """Seconds of k-means|| over so many points, from ever more of the rows.

    Its candidates are as many whatever the rows, so that their choice costs the same, and the passes cost by the row.
    """
    around = bench.around(lambda event: None)
    spent, counts = list[float](), list[int]()
    count = min(_ROWS_A_CENTRE * clusters, len(rows), points)
    while True:
        measured = measured_rows(rows[:count], bench, around)
        working = Working()
        seed(measured, clusters, "k-means||", around)
        spent.append(working.seconds)
        counts.append(count)
        larger = min(_MORE_ROWS * count, len(rows), points)
        if larger < 2 * count or sum(spent) + spent[-1] * larger / count > seconds:
            break
        count = larger
    if count == points:
        return spent[-1]
    if len(counts) == 1:
        return spent[0] * points / count
    each = max((spent[-1] - spent[-2]) / (counts[-1] - counts[-2]), 0.0)
    # Times of passes as short as these scatter: half of the whole is by the row at least.
    each = max(each, spent[-1] / counts[-1] / 2.0)
    return spent[-1] + each * (points - counts[-1])
