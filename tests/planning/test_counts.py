"""Passes, bytes, tree and scratch as planned, against those of runs that are made."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_plans import fixed_rates

import streamcurate as sc
from streamcurate.pipeline.plan import plan
from streamcurate.runs import read_events
from streamcurate.runs.events import IterationFinished, PassFinished

RESAMPLING = sc.Resampling(2, 4)


class Watcher:
    """Adds up what lies in some folders whenever a pass ends."""

    def __init__(self, run: Path) -> None:
        self.places = [run / "scratch", run / "checkpoints"]
        self.peak = 0

    def started(self, name: str, rows: int) -> None:
        self.look()

    def advanced(self, rows: int, bytes: int) -> None:
        self.look()

    def finished(self) -> None:
        self.look()

    def note(self, text: str) -> None: ...

    def look(self) -> None:
        self.peak = max(self.peak, sum(bytes_in(place) for place in self.places))


def bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if not name.endswith(".json"):
                try:
                    total += os.path.getsize(os.path.join(place, name))
                except FileNotFoundError:
                    continue
    return total


@pytest.fixture
def rows() -> np.ndarray:
    random = np.random.default_rng(5)
    centres = random.normal(size=(40, 24))
    return (centres[random.integers(0, 40, 6000)] + 0.4 * random.normal(size=(6000, 24))).astype(np.float32)


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[sc.Tree, list[Any], Watcher]:
    """A run with every pass in its events."""
    monkeypatch.setattr("streamcurate.pipeline.log._REPORTED_SECONDS", 0.0)
    watcher = Watcher(folder / "run")
    tree = sc.cluster(folder / "rows.zarr", folder / "run", progress=watcher, memory_limit="1GiB", **options)
    return tree, read_events(folder / "run" / "events.jsonl"), watcher


CASES = {
    "flat": {"levels": [sc.Level(50, iterations=4)]},
    "cosine, two levels": {"levels": [sc.Level(60, iterations=3), sc.Level(6, iterations=2)], "metric": "cosine"},
    "resampled": {"levels": [sc.Level(50, resampling=RESAMPLING, iterations=3), sc.Level(9, resampling=RESAMPLING)]},
    "fitted on some rows": {"levels": [sc.Level(40, fit_rows=1000, iterations=3)]},
    "some rows, resampled": {"levels": [sc.Level(40, fit_rows=900, resampling=RESAMPLING, iterations=2)]},
    "k-means||": {"levels": [sc.Level(30, init="k-means||", iterations=2)]},
    "random": {"levels": [sc.Level(30, init="random", iterations=2)]},
    "split": {"levels": [sc.Level(20, splits=5, iterations=3)]},
    "every row a cluster": {"levels": [sc.Level(6000, iterations=1), sc.Level(7, iterations=2)]},
    "subset": {"levels": [sc.Level(25, iterations=2)], "subset": np.arange(0, 6000, 3)},
}


def expected_counts(found: Any, iterations: Counter[tuple[int, bool]]) -> dict[tuple[Any, ...], float]:
    """How often each pass comes, with the iterations that were made."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for level in found.levels:
        for one in level.stages:
            stage = one.stage
            times = float(stage.fits)
            if stage.name in ("iterations", "sums"):
                times = float(iterations[level.number, stage.resampled])
                assert times <= one.most_repeats
            for count in stage.passes:
                if count.exact:
                    counts[level.number, count.name, count.rows, count.bytes] += count.times * times
    return {key: value for key, value in counts.items() if value}


def seen_counts(events: list[Any]) -> dict[tuple[Any, ...], int]:
    passes = [event for event in events if isinstance(event, PassFinished) and event.name != "drawing rows"]
    return Counter((event.level, event.name, event.rows, event.bytes) for event in passes)


TILED = ("flat", "cosine, two levels", "resampled")


@pytest.mark.parametrize(("case", "tiled"), [(case, False) for case in CASES] + [(case, True) for case in TILED])
def test_passes_and_bytes_are_those_of_the_run(rows, tmp_path, monkeypatch, case, tiled):
    options = CASES[case]
    if tiled:
        # No block of centroids counts as comfortable: they are held in tiles of at most 64, on both sides.
        monkeypatch.setattr("streamcurate.clustering.centroids._COMFORTABLE_ROWS", 1 << 40)
        options = options | {
            "levels": [sc.Level(150, iterations=2, init="random", resampling=options["levels"][0].resampling)]
        }
    sc.ingest(rows, tmp_path / "rows.zarr")
    tree, events, watcher = made(tmp_path, monkeypatch, **options)
    found = plan(
        tmp_path / "rows.zarr",
        memory_limit="1GiB",
        scratch=tmp_path,
        rates=fixed_rates(len(options["levels"])),
        **options,
    )
    assert found.refusal is None
    iterations: Counter[tuple[int, bool]] = Counter()
    for event in events:
        if isinstance(event, IterationFinished):
            iterations[event.level, event.step > 0] += 1
    # What resampling keeps is at most so much: clusters may hold fewer points.
    seen, expected = seen_counts(events), expected_counts(found, iterations)
    if "resampl" in case:
        assert sum(seen.values()) == sum(expected.values())
        smaller = {(key[0], key[1]): value for key, value in by_name(seen).items()}
        assert smaller == by_name(expected)
    else:
        assert seen == expected
    if tiled:
        assert any("tile 4 of 4" in key[1] for key in seen)
    seedings = [record.seeding for record in tree.manifest.levels]
    planned = [level.seeding for level in found.levels]
    assert [name for name in planned if name != "all rows"] == seedings[-len(planned) :][planned.count("all rows") :]
    least = found.tree_bytes if case == "split" else bytes_in(tmp_path / "run" / "tree.zarr")
    assert bytes_in(tmp_path / "run" / "tree.zarr") <= found.tree_bytes == least
    assert 0.3 * found.scratch_bytes < watcher.peak <= found.scratch_bytes


def by_name(counts: dict[tuple[Any, ...], float]) -> dict[tuple[Any, ...], float]:
    found: Counter[tuple[Any, ...]] = Counter()
    for key, value in counts.items():
        found[key[0], key[1]] += value
    return dict(found)
