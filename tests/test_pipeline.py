"""Trees against brute force in float64: labels, distances, members, offsets, inertia, at every level."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import formula

import streamcurate as sc
from streamcurate import pipeline
from streamcurate.errors import ConfigError, DataError, InputError, RunError, StoreError
from streamcurate.runs import Manifest, read_events
from streamcurate.storage import create_array, create_group, list_arrays


def check_level(level: Any, points: np.ndarray, counts: np.ndarray, record: Any, metric: str) -> None:
    """One level against brute force over the points that count."""
    labels, distances = level.labels[:], level.distances[:]
    members, offsets, centroids = level.members[:], level.offsets[:], level.centroids[:]
    assert (labels.dtype, distances.dtype, members.dtype) == (np.int32, np.float32, np.int64)
    assert (offsets.dtype, centroids.dtype) == (np.int64, np.float32)
    inside = np.flatnonzero(counts)
    values = formula(points[inside], centroids, metric)
    if level.stored_coarse_offsets is not None:
        edges = level.stored_coarse_offsets.read(0, level.stored_coarse_offsets.rows)
        coarse = level.stored_coarse_centroids.read(0, level.stored_coarse_centroids.rows)
        assert edges[0] == 0
        assert edges[-1] == len(centroids)
        owner = np.repeat(np.arange(len(coarse)), np.diff(edges))
        own = formula(points[inside], coarse, metric).argmin(axis=1)
        values[own[:, None] != owner[None, :]] = np.inf
        assert np.diff(offsets).min() > 0  # empty leaves are dropped
    best = values.min(axis=1)
    np.testing.assert_array_equal(labels[inside], values.argmin(axis=1))
    expected = np.sqrt(best) if metric == "l2" else best / 2
    np.testing.assert_array_equal(distances[inside], expected.astype(np.float32))
    assert (labels[~counts] == -1).all()
    assert np.isnan(distances[~counts]).all()
    order = np.lexsort((inside, distances[inside], labels[inside]))
    np.testing.assert_array_equal(members, inside[order])
    sizes = np.bincount(labels[inside], minlength=len(centroids))
    np.testing.assert_array_equal(offsets, np.append(0, np.cumsum(sizes)))
    inertia = math.fsum(best) / (1 if metric == "l2" else 2)
    assert record.inertia == pytest.approx(inertia, rel=1e-9, abs=1e-12)
    assert (record.clusters, record.rows, record.empty) == (len(centroids), len(inside), int((sizes == 0).sum()))
    assert (record.sizes.min, record.sizes.max) == (sizes.min(), sizes.max())
    assert record.sizes.median == np.median(sizes)


def check_tree(tree: Any, values: np.ndarray, chosen: np.ndarray | None = None) -> None:
    points = values
    counts = np.ones(len(values), dtype=bool) if chosen is None else np.isin(np.arange(len(values)), chosen)
    for level, record in zip(tree.levels, tree.manifest.levels, strict=True):
        check_level(level, points, counts, record, tree.metric)
        points, counts = level.centroids[:], np.diff(level.offsets[:]) > 0
    # tree.zarr holds the levels and nothing else; scratch is gone.
    run = Path(tree.path)
    names = {f"level-{level.number}" for level in tree.levels}
    assert {path.name for path in (run / "tree.zarr").iterdir()} == names | {"zarr.json"}
    kept = {".lock", "run.json", "events.jsonl", "store.json", "tree.zarr"}
    assert {path.name for path in run.iterdir()} == kept


def clumps(rows: int, dims: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((7, dims)) * 4
    return (centres[generator.integers(0, 7, rows)] + generator.standard_normal((rows, dims))).astype(dtype)


LEVELS = {
    "plain": [sc.Level(40), sc.Level(7)],
    "three": [sc.Level(60), sc.Level(20), sc.Level(3)],
    "closest": [sc.Level(30, resampling=sc.Resampling(3, 2)), sc.Level(5, resampling=sc.Resampling(2, 2))],
    "random": [sc.Level(30, resampling=sc.Resampling(2, 4, "random")), sc.Level(5)],
    "splits": [sc.Level(6, splits=7), sc.Level(4)],
    "splits above": [sc.Level(60), sc.Level(5, splits=4)],
    "minibatch": [sc.Level(20, algorithm="minibatch"), sc.Level(3)],
    "fit rows": [sc.Level(20, fit_rows=97), sc.Level(3)],
    "oversampled": [sc.Level(25, init="k-means||"), sc.Level(3, init="random")],
    "plus plus": [sc.Level(25, init="k-means++", tolerance=0), sc.Level(1)],
}


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("name", LEVELS)
def test_every_kind_of_level_is_exact(tmp_path, name, metric):
    values = clumps(500, 5, dtype=np.float16 if name == "plain" else np.float32)
    tree = sc.cluster(values, tmp_path / "run", levels=LEVELS[name], metric=metric, seed=3)
    check_tree(tree, values)
    assert tree.complete
    assert tree.warnings == [text for record in tree.manifest.levels for text in record.warnings]


@pytest.mark.parametrize("name", ["plain", "closest", "splits", "minibatch", "fit rows", "oversampled"])
def test_a_subset_is_all_that_counts(tmp_path, name):
    values = clumps(700, 4)
    values[10] = np.nan  # outside: may hold anything
    values[11] = np.inf
    chosen = np.setdiff1d(np.random.default_rng(1).permutation(700)[:400], [10, 11])
    tree = sc.cluster(values, tmp_path / "run", levels=LEVELS[name], subset=chosen, seed=1)
    check_tree(tree, values, chosen)
    mask = np.zeros(700, dtype=bool)
    mask[chosen] = True
    again = sc.cluster(values, tmp_path / "again", levels=LEVELS[name], subset=mask, seed=1)
    assert again.digest == tree.digest


def test_a_subset_gives_the_centroids_that_its_rows_alone_give(tmp_path):
    """k = 1 has one answer, the exact mean of the chosen rows."""
    values = clumps(300, 3)
    chosen = np.arange(5, 200, 3)
    tree = sc.cluster(values, tmp_path / "run", levels=[1], subset=chosen)
    mean = [math.fsum(column) / len(chosen) for column in values[chosen].astype(np.float64).T]
    np.testing.assert_array_max_ulp(tree.levels[0].centroids[:][0], np.array(mean, dtype=np.float32), maxulp=1)


@st.composite
def problems(draw):
    rows = draw(st.integers(1, 40))
    dims = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    # Few distinct values: duplicates, ties between centroids, empty clusters.
    pool = draw(st.sampled_from([[0.0, 1.0], [-1.0, 0.0, 1.0, 2.0], [0.1, 0.2, 0.30000001, 4.0, -7.5], [1e-7, 3e4]]))
    cells = draw(st.lists(st.sampled_from(pool), min_size=rows * dims, max_size=rows * dims))
    values = np.array(cells).reshape(rows, dims).astype(dtype)
    clusters = draw(st.integers(1, rows))
    level = sc.Level(
        clusters,
        iterations=draw(st.integers(1, 4)),
        tolerance=draw(st.sampled_from([0, 1e-4])),
        splits=draw(st.sampled_from([1, 1, 3])),
        init=draw(st.sampled_from(["auto", "k-means++", "k-means||", "random"])),
        resampling=draw(st.sampled_from([None, sc.Resampling(2, 1), sc.Resampling(1, 3, "random")])),
    )
    return values, level, draw(st.sampled_from(["l2", "cosine"])), draw(st.integers(0, 2**64 - 1))


@settings(max_examples=40)
@given(problem=problems())
def test_any_rows_give_exact_labels(tmp_path_factory, problem):
    values, level, metric, seed = problem
    if metric == "cosine":
        values = values.copy()
        values[(values == 0).all(axis=1)] = 1
    run = tmp_path_factory.mktemp("any") / "run"
    tree = sc.cluster(values, run, levels=[level], metric=metric, seed=seed, threads=1, prefetch=False)
    check_tree(tree, values)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_as_many_clusters_as_rows(tmp_path, metric):
    values = clumps(50, 6)
    tree = sc.cluster(values, tmp_path / "run", levels=[50, 50 - 1], metric=metric)
    check_tree(tree, values)
    assert sorted(tree.levels[0].labels[:]) == list(range(50))
    if metric == "l2":
        assert tree.manifest.levels[0].inertia == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_dimension(tmp_path, dtype):
    values = np.random.default_rng(4).standard_normal((400, 1)).astype(dtype)
    check_tree(sc.cluster(values, tmp_path / "run", levels=[30, 4]), values)


def test_float64_in_memory_is_rounded(tmp_path):
    values = np.random.default_rng(4).standard_normal((60, 3))
    tree = sc.cluster(values, tmp_path / "run", levels=[5])
    assert tree.digest == sc.cluster(values.astype(np.float32), tmp_path / "b", levels=[5]).digest


def test_duplicates_leave_clusters_empty_that_the_next_level_leaves_out(tmp_path):
    distinct = clumps(12, 3)
    values = distinct[np.random.default_rng(2).integers(0, 12, 300)]
    tree = sc.cluster(values, tmp_path / "run", levels=[20, 8, 2])
    check_tree(tree, values)
    first, second = tree.levels[:2]
    empty = np.flatnonzero(np.diff(first.offsets[:]) == 0)
    assert len(empty) == 8
    assert (second.labels[:][empty] == -1).all()
    assert np.isfinite(first.centroids[:]).all()
    assert tree.manifest.levels[0].inertia == 0
    assert any("8 of 20 clusters are empty" in text for text in tree.warnings)
    assert tree.rows_under()[-1].sum() == 300


def test_converged_centroids_are_the_exact_means(tmp_path):
    values = clumps(400, 4)
    tree = sc.cluster(values, tmp_path / "run", levels=[sc.Level(15, tolerance=0, iterations=300)])
    level = tree.levels[0]
    assert tree.manifest.levels[0].iterations < 300
    for cluster in range(15):
        mine = values[level.labels[:] == cluster].astype(np.float64)
        mean = np.array([math.fsum(column) / len(mine) for column in mine.T]).astype(np.float32)
        np.testing.assert_array_max_ulp(level.centroids[:][cluster], mean, maxulp=1)


def test_lloyd_never_raises_the_inertia(tmp_path):
    values = clumps(600, 5)
    sc.cluster(values, tmp_path / "run", levels=[sc.Level(30, tolerance=0, init="random")], seed=5)
    events = [event for event in read_events(tmp_path / "run" / "events.jsonl") if hasattr(event, "inertia")]
    passes = [event.inertia for event in events if hasattr(event, "iteration")]
    assert len(passes) > 3
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(passes))


def test_a_tolerance_ends_lloyd_early(tmp_path):
    values = clumps(600, 5)
    counts = []
    for tolerance in (0, 0.02):
        level = sc.Level(30, tolerance=tolerance, init="random")
        counts.append(sc.cluster(values, tmp_path / str(tolerance), levels=[level]).manifest.levels[0].iterations)
    assert counts[1] < counts[0]


def test_resampling_takes_the_nearest_of_each_cluster(tmp_path, monkeypatch):
    """What the second fit is given is exactly the r nearest of each cluster of the first, ties to the lowest row."""
    from streamcurate.clustering import fit as module

    seen = []
    original = module.gather

    def gather(source, blocks, count, path):
        rows = np.concatenate(list(blocks))
        seen.append(rows)
        return original(source, iter([rows]), count, path)

    fits = []
    original_fit = module.fit

    def fit(measured, level, around, *seeding):
        fits.append(original_fit(measured, level, around, *seeding))
        return fits[-1]

    monkeypatch.setattr(module, "gather", gather)
    monkeypatch.setattr(module, "fit", fit)
    values = np.repeat(clumps(100, 3), 3, axis=0)
    level = sc.Level(9, resampling=sc.Resampling(2, 5))
    tree = sc.cluster(values, tmp_path / "run", levels=[level])
    assert len(seen) == 2
    for rows, fitted in zip(seen, fits, strict=False):
        table = formula(values, fitted.centroids.read(0, 9), "l2")
        labels, distances = table.argmin(axis=1), np.sqrt(table.min(axis=1)).astype(np.float32)
        order = np.lexsort((np.arange(300), distances, labels))
        kept = np.concatenate([order[labels[order] == cluster][:5] for cluster in range(9)])
        np.testing.assert_array_equal(rows, np.sort(kept))
    np.testing.assert_array_equal(tree.levels[0].centroids[:], fits[-1].centroids.read(0, 9))


def test_a_union_smaller_than_k_is_skipped_with_a_warning(tmp_path):
    values = np.repeat(clumps(6, 2), 10, axis=0)  # 10 clusters, 6 distinct rows: 6 kept at one row each
    tree = sc.cluster(values, tmp_path / "run", levels=[sc.Level(10, resampling=sc.Resampling(2, 1))])
    check_tree(tree, values)
    # Later steps would keep the same: one warning for all.
    assert sum("resampling step 1 kept 6 points" in text and "skipped" in text for text in tree.warnings) == 1


def test_auto_says_which_seeding_it_chose(tmp_path):
    tree = sc.cluster(clumps(100, 3), tmp_path / "run", levels=[10, 2])
    assert [record.seeding for record in tree.manifest.levels] == ["k-means++", "k-means++"]


def test_events_tell_the_stages_in_order(tmp_path):
    sc.cluster(clumps(100, 3), tmp_path / "run", levels=[10, 2])
    kinds = [type(event).__name__ for event in read_events(tmp_path / "run" / "events.jsonl")]
    assert (kinds[0], kinds[-1]) == ("RunStarted", "RunFinished")
    assert kinds.count("LevelFinished") == 2
    assert "Interrupted" not in kinds


# -- runs ----------------------------------------------------------------------


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.passes: list[str] = []
        self.notes: list[str] = []

    def started(self, name: str, rows: int) -> None:
        self.passes.append(name)

    def advanced(self, rows: int, bytes: int) -> None: ...
    def finished(self) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_finished_run_is_not_built_again(tmp_path):
    values = clumps(200, 3)
    first = sc.cluster(values, tmp_path / "run", levels=[10, 2])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    notes = Notes()
    again = sc.cluster(values, tmp_path / "run", levels=[10, 2], progress=notes, threads=1)
    assert again.digest == first.digest
    assert notes.passes == []
    assert any("nothing to do" in text for text in notes.notes)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    before.pop(tmp_path / "run" / ".lock")
    after.pop(tmp_path / "run" / ".lock")
    assert before == after


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"levels": [9, 2]}, "levels[0].clusters: 10 → 9"),
        ({"levels": [10]}, "levels[1]"),
        ({"seed": 1}, "seed: 0 → 1"),
        ({"metric": "cosine"}, "metric: l2 → cosine"),
        ({"subset": np.arange(50)}, "subset"),
        ({"levels": [sc.Level(10, iterations=3), 2]}, "levels[0].iterations: 50 → 3"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(tmp_path, change, said):
    values = clumps(100, 3)
    digest = sc.cluster(values, tmp_path / "run", levels=[10, 2]).digest
    with pytest.raises(RunError) as caught:
        sc.cluster(values, tmp_path / "run", **({"levels": [10, 2]} | change))
    assert said in str(caught.value)
    assert sc.open_tree(tmp_path / "run").digest == digest


def test_rows_that_changed_in_memory_are_refused(tmp_path):
    values = clumps(100, 3)
    sc.cluster(values, tmp_path / "run", levels=[10])
    changed = values.copy()
    changed[77, 1] += 1
    with pytest.raises(StoreError, match="changed since the run began"):
        sc.cluster(changed, tmp_path / "run", levels=[10])
    with pytest.raises(StoreError, match="100 x 3 float32 then, 99 x 3 float32 now"):
        sc.cluster(values[:99], tmp_path / "run", levels=[10])


def store_of(place: Path, values: np.ndarray, chunk_rows: int = 64) -> Path:
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, chunk_rows).write(0, values)
    return place


def test_reuse_takes_over_the_levels_that_are_the_same(tmp_path):
    values = clumps(400, 4)
    store = store_of(tmp_path / "e.zarr", values)
    sc.cluster(store, tmp_path / "a", levels=[30, 10, 3], seed=2)
    fresh = sc.cluster(store, tmp_path / "fresh", levels=[30, 6], seed=2)
    notes = Notes()
    tree = sc.cluster(store, tmp_path / "b", levels=[30, 6], seed=2, reuse=tmp_path / "a", progress=notes)
    assert tree.digest == fresh.digest
    assert "1 of 2 levels taken over" in " ".join(notes.notes)
    check_tree(tree, values)
    # No pass over the 400 rows: level 1 was taken over, its rows' checksums too.
    events = read_events(tmp_path / "b" / "events.jsonl")
    assert {event.level for event in events if type(event).__name__ == "IterationFinished"} == {2}
    assert [record.digest for record in tree.manifest.levels] == [record.digest for record in fresh.manifest.levels]


def test_reuse_of_everything(tmp_path):
    values = clumps(200, 4)
    tree = sc.cluster(values, tmp_path / "a", levels=[30, 6])
    again = sc.cluster(values, tmp_path / "b", levels=[30, 6], reuse=tmp_path / "a")
    assert again.digest == tree.digest
    check_tree(again, values)


def test_reuse_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    import shutil

    values = clumps(300, 4)
    sc.cluster(values, tmp_path / "a", levels=[30, 10, 3])
    fresh = sc.cluster(values, tmp_path / "fresh", levels=[30, 10, 4])
    copies = []
    original = shutil.copytree

    def copytree(source, target, *arguments, **options):
        if Path(source).name.startswith("level-"):  # not what it calls itself for, the folders inside
            copies.append(Path(source).name)
            if len(copies) == 2:
                raise KeyboardInterrupt
        return original(source, target, *arguments, **options)

    monkeypatch.setattr(shutil, "copytree", copytree)
    options = {"levels": [30, 10, 4], "reuse": tmp_path / "a"}
    with pytest.raises(KeyboardInterrupt):
        sc.cluster(values, tmp_path / "b", **options)
    tree = sc.cluster(values, tmp_path / "b", **options)
    assert copies == ["level-1", "level-2", "level-2"]
    assert tree.digest == fresh.digest
    check_tree(tree, values)
    shutil.rmtree(tmp_path / "a")
    assert sc.cluster(values, tmp_path / "b", **options).digest == fresh.digest


@pytest.mark.parametrize("change", [{"seed": 1}, {"levels": [29, 6]}, {"metric": "cosine"}])
def test_reuse_without_a_common_level_is_refused_and_leaves_nothing(tmp_path, change):
    values = clumps(200, 4)
    sc.cluster(values, tmp_path / "a", levels=[30, 6])
    with pytest.raises(RunError, match="shares no level"):
        sc.cluster(values, tmp_path / "b", reuse=tmp_path / "a", **({"levels": [30, 6]} | change))
    assert not (tmp_path / "b").exists()


def test_reuse_of_a_run_over_other_rows_is_refused(tmp_path):
    values = clumps(200, 4)
    sc.cluster(values, tmp_path / "a", levels=[30, 6])
    with pytest.raises(InputError, match=r"changed|fingerprint"):
        sc.cluster(values + 1, tmp_path / "b", levels=[30, 6], reuse=tmp_path / "a")
    with pytest.raises(RunError, match="no run directory"):
        sc.cluster(values, tmp_path / "b", levels=[30, 6], reuse=tmp_path / "nowhere")
    assert not (tmp_path / "b").exists()


def test_a_half_finished_run_of_another_version_is_refused_and_a_finished_one_read(tmp_path):
    import dataclasses

    values = clumps(100, 3)
    run = tmp_path / "run"
    tree = sc.cluster(values, run, levels=[10, 2])
    finished = tree.manifest
    dataclasses.replace(finished, engine="0.0.1").write(run)
    assert sc.open_tree(run).digest == tree.digest
    assert sc.cluster(values, run, levels=[10, 2]).digest == tree.digest
    dataclasses.replace(finished, engine="0.0.1", complete=False, digest=None, levels=finished.levels[:1]).write(run)
    with pytest.raises(RunError, match=r"0\.0\.1.*half-finished"):
        sc.cluster(values, run, levels=[10, 2])
    with pytest.raises(RunError, match=r"unfinished \(1 of 2 levels\)"):
        sc.open_tree(run)


def test_without_a_run_directory_the_tree_lives_as_long_as_the_object(tmp_path):
    import gc

    values = clumps(100, 3)
    tree = sc.cluster(values, levels=[10, 2])
    place = Path(tree.path)
    assert tree.digest == sc.cluster(values, tmp_path / "run", levels=[10, 2]).digest
    assert tree.sample(20).rows.shape == (20,)
    assert place.is_dir()
    del tree
    gc.collect()
    assert not place.exists()


def test_without_a_run_directory_an_error_leaves_nothing(tmp_path, monkeypatch):
    import gc
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values = clumps(100, 3)
    values[5] = np.nan
    with pytest.raises(DataError):
        sc.cluster(values, levels=[10, 2])
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [{}, {"levels": [3], "config": "levels.yaml"}])
def test_levels_or_a_file(given):
    with pytest.raises(ConfigError, match="exactly one"):
        pipeline.resolve_config(given.get("levels"), given.get("config"), None, None, None)


def test_what_is_no_client_is_refused(tmp_path):
    with pytest.raises(InputError, match="client: object object; give a synchronous"):
        sc.cluster(clumps(10, 2), tmp_path / "run", levels=[2], client=object())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "options", "error", "said"),
    [
        (clumps(5, 2), {"levels": [6]}, DataError, "6 clusters from the 5 rows"),
        (clumps(20, 2), {"levels": [6], "subset": np.arange(5)}, DataError, "5 rows"),
        (np.zeros((5, 2), np.float32), {"levels": [2], "metric": "cosine"}, DataError, "row 0"),
        (np.full((5, 2), np.nan, np.float32), {"levels": [2]}, DataError, "5 rows hold NaN or Inf"),
        (clumps(20, 2), {"levels": [3], "subset": np.array([3, 3, 4])}, DataError, "row 3 more than once"),
        (clumps(20, 2), {"levels": [3], "subset": np.array([3, 20])}, DataError, "row 20"),
        (clumps(20, 2), {"levels": [3], "subset": np.array([0.5])}, InputError, "float64"),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_refused_rows_leave_nothing_behind(tmp_path, values, options, error, said, elsewhere):
    scratch = {"scratch": tmp_path / "scratch"} if elsewhere else {}
    if elsewhere:
        (tmp_path / "scratch").mkdir()
    with pytest.raises(error) as caught:
        sc.cluster(values, tmp_path / "run", **options, **scratch)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert not elsewhere or list((tmp_path / "scratch").iterdir()) == []


def test_a_refusal_in_a_folder_that_was_there_leaves_it_usable(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError):
        sc.cluster(np.full((5, 2), np.inf, np.float32), tmp_path / "run", levels=[2])
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {".lock"}
    values = clumps(20, 2)
    check_tree(sc.cluster(values, tmp_path / "run", levels=[2]), values)


def test_too_few_clusters_that_hold_anything_for_the_next_level(tmp_path):
    values = np.repeat(clumps(3, 2), 20, axis=0)
    with pytest.raises(DataError, match=r"levels\[1\]\.clusters: 8 clusters from the 3 clusters of level 1"):
        sc.cluster(values, tmp_path / "run", levels=[20, 8])


def test_the_tree_remembers_its_store(tmp_path):
    values = clumps(100, 3)
    store = store_of(tmp_path / "e.zarr", values)
    tree = sc.cluster(store, tmp_path / "run", levels=[10, 2])
    assert tree.source["path"] == str(store)
    assert (tree.source["rows"], tree.source["dims"], tree.source["dtype"]) == (100, 3, "float32")
    assert tree.embeddings().rows == 100
    assert Manifest.read(tmp_path / "run") == tree.manifest
    names = {"centroids", "labels", "distances", "members", "offsets"}
    assert set(list_arrays(tmp_path / "run" / "tree.zarr" / "level-1")) == names
