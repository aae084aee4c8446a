"""Foretelling greedy k-means++ from its first centres: the curve is continued, and rows that are alike end it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from streamcurate.planning.bench import Bench, Stopwatch, TimeUpError, Working
from streamcurate.planning.centres import _Timed, seeding_seconds
from streamcurate.streaming import MemoryBudget, SerialExecutor


class Chooses:
    """Potentials that always choose one centre."""

    def begin(self, row: int) -> None: ...

    def running_sums(self) -> np.ndarray:
        return np.arange(1, 9)

    def potentials_of(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def choose(self, candidates: np.ndarray, limits: np.ndarray, tries: int, most: int) -> np.ndarray:
        return candidates[:1]


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0])
def test_a_curve_is_continued(power):
    timed = _Timed(Chooses(), 1.0)
    timed.chosen = list(range(200))
    timed.at = [0.01 * count**power for count in timed.chosen]
    assert timed.whole(3000) == pytest.approx(0.01 * 3000**power, rel=0.05)


def test_it_stops_when_time_is_up_but_not_before_some_centres():
    timed = _Timed(Chooses(), 0.0)
    timed.begin(0)
    for _ in range(30):
        timed.choose(np.arange(4), np.arange(4), 2, 9)
    with pytest.raises(TimeUpError):
        timed.choose(np.arange(4), np.arange(4), 2, 9)
    assert timed.chosen[-1] == 32


@pytest.mark.parametrize("dims", [3, 40])
def test_rows_alike_are_seeded_at_once(tmp_path, dims):
    with SerialExecutor(MemoryBudget(1 << 30, 1), Stopwatch(math.inf)) as executor:
        bench = Bench(executor, executor.progress, Path(tmp_path), "l2", 0)
        rows = np.ones((500, dims), dtype=np.float32)
        assert 0 < seeding_seconds(rows, 1000, 100, bench, 5.0) < math.inf
        rows[:, 0] = np.arange(500)
        assert 0 < seeding_seconds(rows, 5000, 600, bench, 5.0) < math.inf


def test_waiting_for_others_is_no_work():
    working = Working()
    time.sleep(0.05)
    assert working.seconds < 0.04
    assert 0 <= working.share < 0.8
