"""Iterations that keep labels and sums from one to the next give what iterations that keep nothing give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.clustering import kept_labels
from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.iteration import AssignPass, gap_counts, share_within
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.storage import SequentialWriter, create_array
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor


def bunches(seed: int, rows: int, dims: int, bunched: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((bunched, dims))
    own = generator.integers(bunched, size=rows)
    return (centres[own] + 0.4 * generator.standard_normal((rows, dims))).astype(np.float16)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """``fit(values, start, iterations, metric, mask, keeps)``: centroids, events, and the passes run."""
    count = iter(range(1000))

    def run(values, start, iterations, metric="l2", mask=None, keeps=True, sums_share=1 / 8):
        monkeypatch.setattr(kept_labels, "_FEWEST_OPERATIONS", 0 if keeps else np.inf)
        monkeypatch.setattr(kept_labels, "_SUMS_SHARE", sums_share)
        events, passes = [], []
        chunk = AssignPass.chunk
        monkeypatch.setattr(AssignPass, "chunk", lambda self, *rest: (passes.append(self), chunk(self, *rest))[1])
        folder = tmp_path / f"scratch-{next(count)}"
        points = Points.all_of(MemoryRows(values))
        if mask is not None:
            stored = create_array(tmp_path / f"mask-{next(count)}", mask.shape, np.uint8, 1024)
            with SequentialWriter(stored) as writer:
                writer.append(mask)
            points = Points(points.source, int(mask.sum()), stored)
            counted = values[mask != 0]
        else:
            counted = values
        with SerialExecutor(MemoryBudget(1 << 30, 2)) as executor:
            around = Surroundings(executor, metric, 0, folder, None, events.append, 1)
            measured = Measured.of(points, kernels.statistics(counted, metric), metric)
            found = lloyd(measured, in_memory(start), iterations, 0, around)
        monkeypatch.setattr(AssignPass, "chunk", chunk)
        assert found.kept is not None
        found.kept.close()
        assert not list(folder.rglob("labels-*"))
        return found.centroids.read(0, len(start)), events, passes

    return run


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sums_share", [1 / 8, 0])
def test_centroids_and_inertia_are_the_same(fit, metric, masked, sums_share):
    values = bunches(0, 5000, 24, 60)
    # Seeds that leave some clusters empty at first.
    start = np.concatenate([values[:55], values[:5] + 100]).astype(np.float32)
    if metric == "cosine":
        start /= np.linalg.norm(start, axis=1, keepdims=True)
    mask = (np.arange(5000) % 7 != 0).astype(np.uint8) if masked else None
    expected, before, plain = fit(values, start, 40, metric, mask, keeps=False)
    found, after, kept = fit(values, start, 40, metric, mask, sums_share=sums_share)
    np.testing.assert_array_equal(found, expected)
    for one, other in zip(after, before, strict=True):
        assert one == replace(other, time=one.time, seconds=one.seconds)
    assert not any(work.keeps for work in plain)
    assert sum(work.again for work in kept) >= 2
    assert any(work.moves for work in kept) == (sums_share > 0)
    assert before[0].refilled > 0 or metric == "cosine"


def test_the_last_iterations_search_little(fit, monkeypatch):
    values = bunches(1, 6000, 32, 120)
    searched = []
    original = kernels.cpu.relabel._search

    def counted(rows, which, prepared, *rest):
        searched.append(len(which) * prepared.clusters)
        return original(rows, which, prepared, *rest)

    monkeypatch.setattr(kernels.cpu.relabel, "_search", counted)
    _, events, _ = fit(values, values[:120].astype(np.float32), 60)
    assert events[-1].iteration > 3
    first = sum(searched[: len(searched) // len(events)])
    assert sum(searched[-3:]) < 0.1 * first
    assert sum(searched) < 0.7 * len(events) * 6000 * 120


def test_gaps_are_counted_by_quarter_octaves():
    distances = np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    floors = np.array([1.5, 1.25, 1.0, 0.5, np.inf], dtype=np.float32)
    counts = gap_counts(floors, distances**2)
    assert counts.sum() == 5
    assert share_within(counts, 0.0) == 2 / 5
    assert share_within(counts, 0.24) == 2 / 5
    assert share_within(counts, 0.25) == 3 / 5
    assert share_within(counts, 0.6) == 4 / 5
    assert share_within(np.zeros_like(counts), 1.0) == 1.0


def test_drift_leaves_to_the_floors_what_they_hold():
    gaps = gap_counts(np.full(1000, 1.1, dtype=np.float32), np.ones(1000))
    few_far = np.concatenate([np.full(90, 0.01), np.full(10, 0.5)])
    assert kept_labels._best_drift(few_far, gaps) == 0.01
    assert kept_labels._best_drift(np.zeros(100), gaps) == 0.0
    no_room = gap_counts(np.full(1000, 1.0, dtype=np.float32), np.ones(1000))
    assert kept_labels._best_drift(np.linspace(0, 1, 100), no_room) == 0.0
