"""Labels by an approximate index: what they are allowed to be, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

import streamcurate as sc
from streamcurate import kernels
from streamcurate.clustering import approximate
from streamcurate.errors import ConfigError, InputError
from streamcurate.kernels import squared_distances_of_pairs
from streamcurate.runs.events import Warned, read_events

METRICS = pytest.mark.parametrize("metric", ["l2", "cosine"])


def rows(count: int, seed: int, dims: int = 12) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((30, dims))
    return (centres[generator.integers(30, size=count)] + 0.3 * generator.standard_normal((count, dims))).astype(
        np.float32
    )


@pytest.fixture
def few_lists(monkeypatch):
    """So few lists visited of so many that a wrong answer is certain among thousands."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "lists_of", lambda clusters: max(clusters // 8, 1))
    monkeypatch.setattr(approximate, "_VISITED", 1)


@METRICS
@pytest.mark.parametrize("dims", [12, 64])
def test_an_index_that_visits_every_list_is_exact(metric, dims, monkeypatch):
    """Of quantised lists all members are candidates then, and the formula finds the nearest of them."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "_VISITED", 1 << 20)
    monkeypatch.setattr(approximate, "_QUANTISED_CENTROIDS", 64)
    monkeypatch.setattr(approximate, "_MORE_CANDIDATES", 500)
    centroids = kernels.formula_rows(rows(500, 1, dims), metric).astype(np.float32)
    values = rows(300, 2, dims).astype(np.float16)
    found = approximate.Index(centroids, metric).nearest(values)
    expected = kernels.nearest(values, kernels.prepare_centroids(centroids, metric))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_ties_go_to_the_lowest_cluster():
    pytest.importorskip("faiss")
    centroids = np.repeat(rows(3, 3), 3, axis=0)
    labels, _ = approximate.Index(centroids, "l2").nearest(rows(50, 4))
    assert set(labels.tolist()) <= {0, 3, 6}


@METRICS
def test_recall_is_reported_and_distances_are_the_formulas(tmp_path, few_lists, metric):
    values = rows(3000, 0)
    level = sc.Level(200, iterations=3, search="faiss")
    tree = sc.cluster(values, tmp_path / "run", levels=[level, sc.Level(5)], metric=metric, seed=1)
    first = tree.levels[0]
    labels, centroids = first.labels[:], first.centroids[:]
    exact, _ = kernels.nearest(values, kernels.prepare_centroids(centroids, metric))
    recall = np.mean(labels == exact)
    assert 0.3 < recall < 1
    stated = [text for text in tree.manifest.levels[0].warnings if "FAISS" in text]
    assert stated == [
        f"level 1: labels by FAISS are approximate: {recall:.2%} of 3,000 rows drawn at random have their exact "
        "nearest centroid; search: exact gives all of them"
    ]
    assert stated[0] in [
        event.text for event in read_events(tmp_path / "run" / "events.jsonl") if isinstance(event, Warned)
    ]
    assert not any("FAISS" in text for text in tree.manifest.levels[1].warnings)
    values64 = squared_distances_of_pairs(values, np.arange(3000), centroids, labels, metric)
    np.testing.assert_array_equal(first.distances[:], kernels.distance_of(values64, metric))
    assert tree.manifest.config["levels"][0]["search"] == "faiss"
    again = sc.cluster(values, tmp_path / "again", levels=[level, sc.Level(5)], metric=metric, seed=1, threads=1)
    assert again.digest == tree.digest


def test_new_rows_are_labelled_likewise(tmp_path, few_lists):
    tree = sc.cluster(rows(3000, 0), tmp_path / "run", levels=[sc.Level(200, iterations=3, search="faiss")])
    new = rows(1000, 9)
    found = sc.assign(tree, new, tmp_path / "new.zarr")
    exact, _ = kernels.nearest(new, kernels.prepare_centroids(tree.levels[0].centroids[:], "l2"))
    recall = np.mean(found.labels()[:] == exact)
    assert 0.3 < recall < 1
    assert f"{recall:.2%} of 1,000 rows" in found.warnings[0]
    assert sorted(path.name for path in (tmp_path / "new.zarr").iterdir()) == ["level-1", "zarr.json"]


def test_the_sample_is_drawn_where_there_are_more_rows(tmp_path, few_lists, monkeypatch):
    monkeypatch.setattr(approximate, "RECALL_ROWS", 500)
    tree = sc.cluster(rows(3000, 0), tmp_path / "run", levels=[sc.Level(200, iterations=1, search="faiss")])
    assert " of 500 rows" in tree.manifest.levels[0].warnings[0]


def test_without_faiss_the_user_is_told_at_once(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"levels\[1\]: search: faiss .*pip install 'streamcurate\[faiss\]'"):
        sc.cluster(rows(100, 0), tmp_path / "run", levels=[sc.Level(20), sc.Level(5, search="faiss")])
    assert not (tmp_path / "run" / "run.json").exists()


def test_what_a_level_may_ask_for():
    with pytest.raises(ConfigError, match="search: faiss with 3 splits"):
        sc.Level(10, splits=3, search="faiss")
    with pytest.raises(ConfigError, match="search"):
        sc.Level(10, search="annoy")


def test_exact_levels_stay_the_same_run():
    """A run begun before there was a choice of search is still the run that is asked for now."""
    from streamcurate.config import Config

    assert "search" not in Config((sc.Level(10),)).to_mapping()["levels"][0]
    faiss = Config((sc.Level(10, search="faiss"),))
    assert faiss.identity() != Config((sc.Level(10),)).identity()
    assert Config.from_mapping(faiss.to_mapping()) == faiss
