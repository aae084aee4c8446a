"""Lloyd's algorithm: means, empty clusters refilled; members put in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate import kernels
from streamcurate.clustering import centroids as tiles
from streamcurate.clustering.centroids import in_memory
from streamcurate.clustering.lloyd import lloyd
from streamcurate.clustering.members import write_members
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.storage import create_array
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor


@pytest.fixture(params=["whole", "tiles"])
def run(request, tmp_path, monkeypatch):
    """``run(values, centroids, iterations, metric)``: centroids after so many passes, and the events."""
    if request.param == "tiles":
        monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
        monkeypatch.setattr(tiles, "SMALLEST_TILE", 2)
    count = iter(range(1000))

    def make(values: np.ndarray, start: Any, iterations: int, metric: Any = "l2", tolerance: float = 0) -> Any:
        events: list[Any] = []
        with SerialExecutor(MemoryBudget(1 << 30, 2)) as executor:
            around = Surroundings(executor, metric, 0, tmp_path / f"scratch-{next(count)}", None, events.append, 1)
            measured = Measured.of(Points.all_of(MemoryRows(values)), kernels.statistics(values, metric), metric)
            start = np.array(start, dtype=np.float32)
            found = lloyd(measured, in_memory(start), iterations, tolerance, around)
            return found.centroids.read(0, len(start)), events

    return make


def test_one_pass_takes_the_means(run):
    values = np.array([[0], [1], [2], [10], [12]], dtype=np.float32)
    found, events = run(values, [[0], [9]], 1)
    np.testing.assert_array_equal(found, [[1], [11]])
    assert events[0].inertia == 0 + 1 + 4 + 1 + 9
    assert events[0].refilled == 0


def test_it_ends_when_no_label_changes(run):
    values = np.array([[0], [1], [2], [10], [12]], dtype=np.float32)
    _, events = run(values, [[0], [9]], 50)
    assert [event.iteration for event in events] == [1, 2]


def test_empty_clusters_go_to_the_farthest_points(run):
    """Clusters 1, 3 and 4 begin empty: they take the three farthest points, the lowest cluster the farthest."""
    values = np.array([[0], [1], [-1], [8], [20], [-30]], dtype=np.float32)
    found, events = run(values, [[0], [1000], [0], [2000], [3000]], 1)
    assert events[0].refilled == 4
    np.testing.assert_array_equal(found[1:], [[-30], [20], [8], [1]])
    assert found[0] == pytest.approx(-1 / 3)


def test_copies_of_an_outlier_take_one_cluster(run):
    values = np.array([[0], [0], [1], [50], [50], [50], [7]], dtype=np.float32)
    found, events = run(values, [[0], [1000], [2000], [3000], [4000]], 1)
    np.testing.assert_array_equal(found[1:4], [[50], [7], [1]])
    np.testing.assert_array_equal(found[4], [4000])  # nothing apart from its centroid is left
    assert events[0].refilled == 3


def test_ties_are_refilled_by_the_lowest_row(run):
    values = np.array([[0, 0], [5, 0], [0, 5], [-5, 0]], dtype=np.float32)
    found, _ = run(values, [[0, 0], [999, 999], [-999, 999]], 1)
    np.testing.assert_array_equal(found[1:], [[5, 0], [0, 5]])


def test_refilled_clusters_are_used(run):
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.standard_normal((50, 2)), generator.standard_normal((50, 2)) + 40]).astype("f4")
    found, _ = run(values, [[0, 0], [900, 900]], 10)
    assert sorted(np.round(found[:, 0] / 40).tolist()) == [0, 1]


def test_refills_under_cosine_are_unit_rows(run):
    values = np.array([[1, 0], [2, 0.01], [0, 3], [-4, 0]], dtype=np.float32)
    found, events = run(values, [[1, 0], [1, 0], [1, 0]], 1, "cosine")
    assert events[0].refilled == 2
    np.testing.assert_allclose(found[1:], [[-1, 0], [0, 1]], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_no_more_refills_than_are_kept_each_pass(run, monkeypatch):
    from streamcurate.clustering import iteration
    from streamcurate.clustering import lloyd as module

    monkeypatch.setattr(iteration, "REFILLS", 2)
    monkeypatch.setattr(module, "REFILLS", 2)
    values = np.arange(12, dtype=np.float32)[:, None] ** 2
    _, events = run(values, [[0], [1e6], [1e6], [1e6], [1e6]], 3)
    assert [event.refilled for event in events[:2]] == [2, 2]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_passes_against_brute_force(run, metric):
    generator = np.random.default_rng(1)
    values = generator.standard_normal((300, 3)).astype(np.float32)
    wide = values.astype(np.float64)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1)[:, None]
    expected = wide[:9].astype(np.float32)
    found, events = run(values, expected, 4, metric)
    for event in events:
        table = ((wide[:, None] - expected.astype(np.float64)[None]) ** 2).sum(axis=2)
        labels = table.argmin(axis=1)
        # The formula's values: twice 1 - cos under cosine, here as anywhere between passes.
        assert event.inertia == pytest.approx(table.min(axis=1).sum(), rel=1e-9)
        means = np.array([wide[labels == cluster].mean(axis=0) for cluster in range(9)])
        if metric == "cosine":
            means /= np.linalg.norm(means, axis=1)[:, None]
        expected = means.astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-9)


# -- members -------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    labels=st.lists(st.integers(-1, 4), max_size=120),
    seed=st.integers(0, 9),
    runs=st.booleans(),
)
def test_members_are_ordered_by_cluster_distance_row(tmp_path_factory, labels, seed, runs):
    from streamcurate.streaming import shuffle

    folder = tmp_path_factory.mktemp("members")
    label = np.array(labels, dtype=np.int32)
    distance = np.random.default_rng(seed).integers(0, 3, len(label)).astype(np.float32)
    distance[label < 0] = np.nan
    count = int((label >= 0).sum())
    arrays = []
    for name, values in (("labels", label), ("distances", distance)):
        arrays.append(create_array(folder / name, values.shape, values.dtype, 50))
        arrays[-1].write(0, values)
    members = create_array(folder / "members", (count,), np.int64, 30)
    with pytest.MonkeyPatch.context() as patch:
        if runs:
            patch.setattr(shuffle, "_BYTES_IN_SORT", 1 << 30)
            patch.setattr(shuffle, "_SMALLEST_RUN", 17)
        with SerialExecutor(MemoryBudget.of(1 << 30)) as executor:
            write_members(arrays[0], arrays[1], members, folder / "sort", executor)
    inside = np.flatnonzero(label >= 0)
    order = np.lexsort((inside, distance[inside], label[inside]))
    np.testing.assert_array_equal(members.read(0, count), inside[order])
    assert not (folder / "sort").exists()
