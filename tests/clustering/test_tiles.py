"""Centroids held in tiles give the tree that centroids held whole give."""

from __future__ import annotations

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.streaming import MemoryBudget

LEVELS = [
    sc.Level(120, init="random", iterations=6, resampling=sc.Resampling(2, 2)),
    sc.Level(20, splits=2, init="random", resampling=sc.Resampling(1, 3)),
]


def rows() -> np.ndarray:
    rng = np.random.default_rng(1)
    repeated = np.repeat(rng.normal(size=(60, 24)), 8, axis=0)  # duplicates leave clusters empty, to be refilled
    return np.concatenate([repeated, rng.normal(size=(700, 24))]).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_tiles_change_nothing(metric, monkeypatch):
    whole = sc.cluster(rows(), levels=LEVELS, metric=metric)
    tiles = []
    original = MemoryBudget.fits

    def fits(self, wanted, row_bytes, overhead, cost):
        tiles.append(cost.fixed_bytes)
        return cost.fixed_bytes < 20_000 and original(self, wanted, row_bytes, overhead, cost)

    monkeypatch.setattr(MemoryBudget, "fits", fits)
    monkeypatch.setattr("streamcurate.clustering.centroids.SMALLEST_TILE", 8)
    tiled = sc.cluster(rows(), levels=LEVELS, metric=metric)
    assert max(tiles) > 20_000  # the centroids were cut
    assert tiled.digest == whole.digest


def test_tiled_fit_goes_on_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryBudget, "fits", lambda self, wanted, row_bytes, overhead, cost: cost.fixed_bytes < 20_000)
    monkeypatch.setattr("streamcurate.clustering.centroids.SMALLEST_TILE", 8)
    monkeypatch.setattr("streamcurate.clustering.lloyd.CHECKPOINT_SECONDS", 0.0)
    undisturbed = sc.cluster(rows(), tmp_path / "undisturbed", levels=LEVELS)

    from streamcurate.runs import EventLog, IterationFinished, read_events

    append = EventLog.append
    for stop in (2, 5, 8):
        run = tmp_path / f"stopped-{stop}"
        seen = []

        def stopping(self, event, seen=seen, stop=stop):
            append(self, event)
            seen.append(isinstance(event, IterationFinished))
            if isinstance(event, IterationFinished) and sum(seen) == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(EventLog, "append", stopping)
            with pytest.raises(KeyboardInterrupt):
                sc.cluster(rows(), run, levels=LEVELS)
        resumed = sc.cluster(rows(), run, levels=LEVELS)
        assert resumed.digest == undisturbed.digest
        # Each iteration checkpointed is not done again: only the one whose checkpoint was cut off is.
        total = sum(isinstance(event, IterationFinished) for event in read_events(run / "events.jsonl"))
        once = sum(isinstance(event, IterationFinished) for event in read_events(tmp_path / "undisturbed/events.jsonl"))
        assert total == once + 1


def test_lost_scratch_is_rebuilt(tmp_path, monkeypatch):
    import shutil

    from streamcurate.runs import EventLog, IterationFinished

    monkeypatch.setattr(MemoryBudget, "fits", lambda self, wanted, row_bytes, overhead, cost: cost.fixed_bytes < 20_000)
    monkeypatch.setattr("streamcurate.clustering.centroids.SMALLEST_TILE", 8)
    monkeypatch.setattr("streamcurate.clustering.lloyd.CHECKPOINT_SECONDS", 0.0)
    undisturbed = sc.cluster(rows(), levels=LEVELS)
    append = EventLog.append
    count = 0

    def stopping(self, event):
        nonlocal count
        append(self, event)
        count += isinstance(event, IterationFinished)
        if count == 4:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            sc.cluster(rows(), run, levels=LEVELS)
    shutil.rmtree(run / "scratch")
    assert sc.cluster(rows(), run, levels=LEVELS).digest == undisturbed.digest
