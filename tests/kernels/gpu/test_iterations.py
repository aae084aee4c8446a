"""Iterations on a device tell what those on the host tell: inertia, and how many points moved."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.clustering import kept_labels
from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor


@pytest.mark.parametrize("few_rows", [1 << 20, 0])
def test_iterations_of_a_device(make_backend, tmp_path, few_rows, monkeypatch):
    monkeypatch.setattr(kept_labels, "FEW_ROWS", few_rows)
    generator = np.random.default_rng(0)
    values = generator.standard_normal((700, 9)).astype(np.float32)
    told = []
    for number, backend in enumerate((None, make_backend())):
        # On the host, labels are kept with their floors.
        monkeypatch.setattr(kept_labels, "_FEWEST_OPERATIONS", 0)
        budget = MemoryBudget(1 << 30, 1, device=None if backend is None else 1 << 30)
        events = []
        with SerialExecutor(budget, backend=backend) as executor:
            around = Surroundings(executor, "l2", 0, tmp_path / str(number), None, events.append, 1)
            measured = Measured.of(Points.all_of(MemoryRows(values)), kernels.statistics(values, "l2"), "l2")
            lloyd(measured, in_memory(values[:20].copy()), 5, 0, around)
        told.append([(event.iteration, event.inertia, event.points, event.moved) for event in events])
    assert told[0] == told[1]
    assert [moved is None for *_, moved in told[1]] == [True, False, False, False, False]
    assert told[1][1][3] > 20
