"""How many points an iteration moved is how many labels differ, by brute force in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcurate as sc
from streamcurate import kernels
from streamcurate.clustering import centroids as tiles
from streamcurate.clustering import kept_labels
from streamcurate.clustering import lloyd as module
from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.runs import IterationFinished, read_events
from streamcurate.storage import SequentialWriter, create_array
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor
from streamcurate.streaming import budget as budgets


def labels_of(values: np.ndarray, centroids: np.ndarray, metric: str) -> np.ndarray:
    wide = values.astype(np.float64)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return ((wide[:, None] - centroids.astype(np.float64)[None]) ** 2).sum(axis=2).argmin(axis=1)


def bunches(rows: int, dims: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((12, dims))
    return (centres[generator.integers(12, size=rows)] + generator.standard_normal((rows, dims))).astype(np.float32)


ROUTES = ["memory", "files", "floors", "tiles", "tiles of two"]


def take(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have labels kept between iterations in this way."""
    monkeypatch.setattr(kept_labels, "_FEWEST_OPERATIONS", 0 if route == "floors" else np.inf)
    monkeypatch.setattr(kept_labels, "FEW_ROWS", 0 if route == "files" else 1 << 20)
    monkeypatch.setattr(budgets, "_LARGEST_BLOCK_ROWS", 128)
    if route.startswith("tiles"):
        monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
        monkeypatch.setattr(kept_labels, "has_room", lambda *_: True)  # few clusters are one tile
        monkeypatch.setattr(tiles, "SMALLEST_TILE", 8 if route == "tiles of two" else 5)


def heard(original: Any, began: list[np.ndarray]) -> Any:
    """An iteration that notes its centroids."""

    def move(measured: Measured, centroids: Any, *rest: Any) -> Any:
        array = centroids if isinstance(centroids, np.ndarray) else centroids.read(0, centroids.rows)
        began.append(array.copy())
        return original(measured, centroids, *rest)

    return move


def fitted(
    folder: Path,
    route: str,
    values: np.ndarray,
    start: np.ndarray,
    iterations: int,
    metric: Any = "l2",
    mask: np.ndarray | None = None,
    threads: int = 2,
    emit: Any = None,
) -> tuple[list[Any], list[np.ndarray], Any]:
    """Events, the centroids each pass began with, and the fit."""
    began: list[np.ndarray] = []
    points, counted = Points.all_of(MemoryRows(values)), values
    if mask is not None:
        stored = create_array(folder / "mask", mask.shape, np.uint8, 1024, overwrite=True)
        with SequentialWriter(stored) as writer:
            writer.append(mask)
        points, counted = Points(points.source, int(mask.sum()), stored), values[mask != 0]
    events: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        take(route, patch)
        for name in ("_move", "_move_by_tiles"):
            patch.setattr(module, name, heard(getattr(module, name), began))
        with SerialExecutor(MemoryBudget(1 << 30, threads)) as executor:
            around = Surroundings(executor, metric, 0, folder / "scratch", None, emit or events.append, 1)
            measured = Measured.of(points, kernels.statistics(counted, metric), metric)
            found = lloyd(measured, in_memory(start), iterations, 0, around)
    left = [path for path in (folder / "scratch").rglob("labels-*") if "tiles" not in path.parts]
    assert bool(left) == (route == "floors")  # which the pass that labels takes over
    if found.kept is not None:
        found.kept.close()
    return events, began, found


def check(events: list[Any], began: list[np.ndarray], values: np.ndarray, metric: str, mask: Any = None) -> int:
    """Compare with brute force; how many points were moved in all."""
    counted = values if mask is None else values[mask != 0]
    assert len(events) == len(began)
    assert {event.points for event in events} == {len(counted)}
    labels = [labels_of(counted, centroids, metric) for centroids in began]
    expected = [int(np.count_nonzero(one != other)) for one, other in pairwise(labels)]
    assert [event.moved for event in events] == [None, *expected]
    return sum(expected)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("masked", [False, True])
def test_moved_against_brute_force(tmp_path, route, metric, masked):
    values = bunches(900, 5)
    # The last clusters begin empty, to be refilled.
    start = np.concatenate([values[:14], values[:2] * 50]).astype(np.float32)
    if metric == "cosine":
        start /= np.linalg.norm(start, axis=1, keepdims=True)
    mask = (np.arange(900) % 5 != 0).astype(np.uint8) if masked else None
    events, began, _ = fitted(tmp_path, route, values, start, 8, metric, mask)
    assert len(events) == 8
    assert check(events, began, values, metric, mask) > 50


@settings(max_examples=12)
@given(data=st.data())
def test_moved_of_any_points(tmp_path_factory, data):
    rows, dims = data.draw(st.integers(5, 300)), data.draw(st.integers(1, 4))
    clusters, seed = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 99))
    route = data.draw(st.sampled_from(ROUTES))
    # Half the coordinates are rounded: rows repeat, and lie between centroids.
    values = bunches(rows, dims, seed)
    values[: rows // 2] = np.round(values[: rows // 2])
    folder, threads = tmp_path_factory.mktemp("fit"), data.draw(st.integers(1, 3))
    events, began, _ = fitted(folder, route, values, values[:clusters].copy(), 5, threads=threads)
    check(events, began, values, "l2")


@pytest.mark.parametrize("route", ROUTES)
def test_an_iteration_that_changes_nothing_moves_nothing(tmp_path, route):
    values = np.array([[0], [1], [10], [12], [30], [31]] * 40, dtype=np.float32)
    start = np.array([[0], [9], [40], [41], [42], [43]], dtype=np.float32)
    events, _, found = fitted(tmp_path, route, values, start, 50)
    assert events[-1].moved == 0
    assert len(events) == found.iterations < 50


@pytest.mark.parametrize("route", ["memory", "files"])
def test_labels_are_not_kept_where_nobody_is_told(tmp_path, route, monkeypatch):
    values = bunches(400, 3)
    passes = []
    original = module.AssignPass.chunk
    monkeypatch.setattr(
        module.AssignPass, "chunk", lambda self, *rest: (passes.append(self.counts), original(self, *rest))[1]
    )
    _, _, silent = fitted(tmp_path, route, values, values[:6].copy(), 5, emit=ignore)
    assert not any(passes)
    events, _, told = fitted(tmp_path, route, values, values[:6].copy(), 5)
    np.testing.assert_array_equal(silent.centroids.read(0, 6), told.centroids.read(0, 6))
    assert events[-1].moved is not None
    assert any(passes)


@pytest.mark.parametrize("route", ["memory", "files"])
def test_no_room_for_labels(tmp_path, route, monkeypatch):
    """They are left out, and nothing else changes."""
    values = bunches(400, 3)
    told, _, expected = fitted(tmp_path, route, values, values[:6].copy(), 5)
    original = kept_labels.has_room
    monkeypatch.setattr(kept_labels, "has_room", lambda work, *rest: not work.counts and original(work, *rest))
    events, _, found = fitted(tmp_path, route, values, values[:6].copy(), 5)
    assert [event.moved for event in events] == [None] * len(told)
    assert [event.inertia for event in events] == [event.inertia for event in told]
    np.testing.assert_array_equal(found.centroids.read(0, 6), expected.centroids.read(0, 6))


@pytest.mark.parametrize("route", ROUTES)
def test_unknown_after_a_stop(tmp_path, route, monkeypatch):
    """The first iteration after a stop has nothing to compare with; later ones are those of an undisturbed run."""
    take(route, monkeypatch)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    values = bunches(700, 4)
    levels = [sc.Level(20, init="random", iterations=7, tolerance=0)]
    sc.cluster(values, tmp_path / "whole", levels=levels)
    whole = {event.iteration: event for event in iterations_of(tmp_path / "whole")}
    emitted = []
    original = sc.runs.EventLog.append

    def append(log: Any, event: Any) -> None:
        original(log, event)
        emitted.append(event)
        if isinstance(event, IterationFinished) and event.iteration == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sc.runs.EventLog, "append", append)
        with pytest.raises(KeyboardInterrupt):
            sc.cluster(values, tmp_path / "run", levels=levels)
    sc.cluster(values, tmp_path / "run", levels=levels)
    events = iterations_of(tmp_path / "run")
    assert [event.iteration for event in events] == [1, 2, 3, 3, 4, 5, 6, 7]
    assert [event.moved for event in events[:3]] == [None, whole[2].moved, whole[3].moved]
    assert [event.moved for event in events[3:]] == [None, *(whole[number].moved for number in range(4, 8))]
    assert whole[7].moved is not None


def iterations_of(run: Any) -> list[IterationFinished]:
    return [event for event in read_events(run / "events.jsonl") if isinstance(event, IterationFinished)]
