"""What the log of a run says does not depend on how many workers made it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from spreading import LIMIT, rows, store

import streamcurate as sc
from streamcurate.clustering import centroids, kept_labels
from streamcurate.runs import IterationFinished, PassAdvanced, PassFinished, read_events
from streamcurate.streaming import MemoryBudget

LEVELS = [
    sc.Level(30, init="random", iterations=4, resampling=sc.Resampling(1, 3)),
    sc.Level(9, init="random", splits=2, iterations=3),
    sc.Level(4, init="random", iterations=2),
]


def lasting(run: Path) -> list[dict[str, Any]]:
    """All events but passes, without what a clock or the machine decides."""
    found = []
    for event in read_events(run / "events.jsonl"):
        if not isinstance(event, PassAdvanced | PassFinished):
            record = {"event": type(event).__name__} | dataclasses.asdict(event)
            found.append({key: value for key, value in record.items() if key not in ("time", "seconds")})
    return found


@pytest.mark.parametrize("route", ["memory", "files", "floors", "tiles"])
def test_two_workers_and_one_process_tell_the_same(route, workers, spread, handed, tmp_path, monkeypatch):
    place = store(tmp_path / "e.zarr")
    monkeypatch.setattr(kept_labels, "_FEWEST_OPERATIONS", float("inf"))
    sc.cluster(place, tmp_path / "alone", levels=LEVELS, seed=9, threads=1)
    if route == "floors":
        monkeypatch.setattr(kept_labels, "_FEWEST_OPERATIONS", 0)
    elif route == "files":
        monkeypatch.setattr(kept_labels, "FEW_ROWS", 0)
    elif route == "tiles":
        monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
        monkeypatch.setattr(kept_labels, "has_room", lambda *_: True)
        monkeypatch.setattr(centroids, "SMALLEST_TILE", 15)
    sc.cluster(place, tmp_path / "shared", levels=LEVELS, seed=9, client=workers(2), memory_limit=LIMIT)
    assert handed.counts["PassTask sums of a tile" if route == "tiles" else "PassTask k-means pass"] > 4
    assert lasting(tmp_path / "shared") == lasting(tmp_path / "alone")
    events = read_events(tmp_path / "shared" / "events.jsonl")
    moved = [event.moved for event in events if isinstance(event, IterationFinished)]
    assert sum(number or 0 for number in moved) > 100
    assert moved.count(None) == 4  # the first of each fit


def test_passes_on_workers_are_in_the_log(workers, spread, tmp_path, monkeypatch):
    monkeypatch.setattr("streamcurate.pipeline.log._ADVANCED_SECONDS", 0.0)
    monkeypatch.setattr("streamcurate.pipeline.log._ADVANCED_SHARE", 0.0)
    run = tmp_path / "run"
    sc.cluster(store(tmp_path / "e.zarr"), run, levels=LEVELS, seed=9, client=workers(2), memory_limit=LIMIT)
    seen = [event for event in read_events(run / "events.jsonl") if isinstance(event, PassAdvanced)]
    passes = [event for event in seen if event.name == "k-means pass" and event.level == 1]
    assert len({event.done for event in passes}) > 2
    assert max(event.done for event in passes) == max(event.rows for event in passes) == len(rows())
