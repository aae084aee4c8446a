"""Rows near seeds, and rows near no unwanted example, against brute force over all pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frozen_trees import Centroids, build, store_of, unit
from oracles import formula

import streamcurate as sc
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.embeddings.store import open_embeddings
from streamcurate.errors import CapacityError, ChangedStoreError, ConfigError, DataError, InputError, MemoryLimitError
from streamcurate.neighbors.examples import cuts, found, nearest_seeds, seed_lists
from streamcurate.neighbors.retrieved import Retrieved
from streamcurate.pipeline import retrieve as module
from streamcurate.pipeline.retrieve import exclude, retrieve, retrieve_to
from streamcurate.streaming import SerialExecutor, Silent

pytest_plugins = ["object_store"]
COUNT, SEEDS = 900, 70


def clumps(count: int, seed: int, dims: int = 5, dtype: Any = np.float16) -> np.ndarray:
    """Clumped rows, a third of them copies: many values are equal."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((12, dims)) * 3
    values = centres[generator.integers(0, 12, count)] + generator.standard_normal((count, dims)) * 0.4
    copied = count // 3
    values[generator.permutation(count)[:copied]] = values[generator.integers(0, count, copied)]
    return values.astype(dtype)


def seeds_among(rows: np.ndarray) -> np.ndarray:
    """Seeds, some of which are rows, and some twice."""
    values = np.concatenate([clumps(SEEDS - 20, 5, rows.shape[1], np.float32), rows[30:50].astype(np.float32)])
    values[3] = values[60]
    return values


@pytest.fixture
def small(monkeypatch):
    """Blocks, segments, ranges and lists of a few rows."""
    from streamcurate.neighbors.examples import ranges
    from streamcurate.streaming import budget

    for place, name, value in (
        (budget, "_LARGEST_BLOCK_ROWS", 64),
        (ranges, "_MOST_ROWS", 320),
        (ranges, "_FEWEST_ROWS", 320),
        (seed_lists, "_FIRST_ROWS", 128),
        (nearest_seeds, "_BLOCK_ROWS", 100),
    ):
        monkeypatch.setattr(place, name, value)

    def three_at_a_time(distances: Any, grouped: Any, keep: int, memory: int) -> cuts.Cuts:
        return cuts.cuts_of_groups(distances, grouped, keep, 3 * cuts.group_bytes(keep))

    monkeypatch.setattr(found, "cuts_of_groups", three_at_a_time)


def tiled(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Take seeds so many at a time."""

    def edges(seeds: int, *_: Any) -> list[int]:
        return [*range(0, seeds, tile), seeds]

    monkeypatch.setattr(nearest_seeds, "seed_tiles", edges)
    monkeypatch.setattr(seed_lists, "seed_tiles", edges)


class Oracle:
    """What all pairs say."""

    def __init__(self, rows: np.ndarray, seeds: np.ndarray, metric: str, among: np.ndarray | None = None) -> None:
        self.metric = metric
        self.values = formula(rows, centre_vectors(seeds, metric), metric)
        self.best, self.seed = self.values.min(axis=1), self.values.argmin(axis=1)
        self.among = np.arange(len(rows)) if among is None else among

    def within(self, limit: float) -> np.ndarray:
        return self.among[self.best[self.among] <= limit]

    def nearest(self, count: int, limit: float = np.inf, among: np.ndarray | None = None) -> np.ndarray:
        rows = np.intersect1d(self.within(limit), self.among if among is None else among)
        return np.sort(rows[np.lexsort((rows, self.best[rows]))][:count])

    def per_seed(self, keep: int, limit: float = np.inf) -> np.ndarray:
        lists = []
        for column in self.values.T:
            order = self.among[np.lexsort((self.among, column[self.among]))][:keep]
            lists.append(order[column[order] <= limit])
        return np.unique(np.concatenate(lists))

    def check(self, found: Retrieved, rows: np.ndarray) -> None:
        assert found.metric == self.metric
        assert (found.rows.dtype, found.seeds.dtype, found.distances.dtype) == (np.int64, np.int64, np.float32)
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.seeds, self.seed[rows])
        exact = self.best[rows]
        distances = (np.sqrt(exact) if self.metric == "l2" else exact / 2).astype(np.float32)
        np.testing.assert_array_equal(found.distances, distances)
        assert len(found) == len(rows)


@pytest.mark.parametrize(
    ("metric", "dtype", "tile", "dims"),
    [
        ("l2", np.float16, None, 5),
        ("l2", np.float32, 30, 2),
        ("cosine", np.float16, 30, 24),
        ("cosine", np.float32, None, 5),
    ],
)
def test_every_mode_is_that_of_all_pairs(metric, dtype, tile, dims, small, monkeypatch):
    if tile is not None:
        tiled(monkeypatch, tile)
    rows = clumps(COUNT, 1, dims, dtype)
    seeds = seeds_among(rows)
    oracle = Oracle(rows, seeds, metric)
    threshold = np.sort(oracle.best)[COUNT // 3]
    radius = {"l2": float(np.sqrt(threshold))} if metric == "l2" else {"cosine": float(1 - threshold / 2)}
    limit = radius["l2"] ** 2 if metric == "l2" else 2 * (1 - radius["cosine"])
    within = oracle.within(limit)
    assert 0 < len(within) < COUNT
    oracle.check(retrieve(rows, seeds, **radius), within)
    # In the midst of equal values, and all there are.
    for count in (200, COUNT):
        oracle.check(retrieve(rows, seeds, nearest=count, metric=metric), oracle.nearest(count))
    for count in (100, COUNT):
        oracle.check(retrieve(rows, seeds, nearest=count, **radius), oracle.nearest(count, limit))
    for keep in (1, 60):
        oracle.check(retrieve(rows, seeds, per_seed=keep, metric=metric), oracle.per_seed(keep))
        oracle.check(retrieve(rows, seeds, per_seed=keep, **radius), oracle.per_seed(keep, limit))
    left = exclude(rows, seeds, **radius)
    assert (left.kept, left.removed, left.rows) == (COUNT - len(within), len(within), COUNT)
    np.testing.assert_array_equal(left.unique_rows, np.setdiff1d(np.arange(COUNT), within))
    assert left.near is not None
    oracle.check(left.near, within)


def test_the_limit_itself_is_within():
    """A row whose distance is the radius is near, one a step farther is not."""
    rows = np.array([[0], [3], [5]], dtype=np.float32)
    seeds = np.zeros((1, 1), np.float32)
    assert retrieve(rows, seeds, l2=3).rows.tolist() == [0, 1]
    assert retrieve(rows, seeds, l2=float(np.nextafter(3, 0))).rows.tolist() == [0]
    assert exclude(rows, seeds, l2=5).unique_rows.tolist() == []
    assert exclude(rows, seeds, l2=float(np.nextafter(5, 0))).unique_rows.tolist() == [2]
    # Copies to the last bit, and nothing else.
    values = clumps(300, 3, 40, np.float32)
    values[[40, 250]] = values[7]
    values[251] = np.nextafter(values[7], np.float32(9))
    assert retrieve(values, values[7:8], l2=0).rows.tolist() == [7, 40, 250]
    assert retrieve(values, values[7:9], l2=0, per_seed=2).rows.tolist() == [7, 8, 40]
    assert exclude(values, values, l2=0).unique_rows.tolist() == []
    np.testing.assert_array_equal(
        exclude(values, values[7:8], l2=0).unique_rows, np.setdiff1d(np.arange(300), [7, 40, 250])
    )
    # Copies, whose unit vectors are rounded on the one side only.
    values = clumps(300, 3, 40, np.float32)
    assert len(exclude(values, values, cosine=0.999999).unique_rows) == 0


@pytest.mark.parametrize(("metric", "splits"), [("l2", 1), ("cosine", 4)])
def test_lists_by_cluster(metric, splits, small, tmp_path):
    """Seeds are labelled as new rows are; every cluster with enough of them gives its rows nearest to any seed."""
    rows = clumps(COUNT, 1)
    seeds = seeds_among(rows)
    levels = [sc.Level(15, splits=splits), sc.Level(6), sc.Level(3)]
    tree = sc.cluster(store_of(tmp_path / "rows.zarr", rows), tmp_path / "run", levels=levels, metric=metric, seed=1)
    labels = tree.assign(seeds, tmp_path / "labels.zarr")
    oracle = Oracle(rows, seeds, metric)
    own = np.arange(COUNT)
    for level in (1, 2, 3):
        own = tree.levels[level - 1].labels[:][own]
        if level == 2:
            continue
        counts = np.bincount(labels.labels(level)[:])
        for least, keep, radius in ((1, 7, {}), (3, 40, {}), (2, COUNT, {"l2": 0.9}), (2, 5, {"cosine": 0.99})):
            if radius and metric not in radius:
                continue
            limit = radius["l2"] ** 2 if "l2" in radius else 2 * (1 - radius["cosine"]) if radius else np.inf
            chosen = np.flatnonzero(counts >= least)
            parts = [oracle.nearest(keep, limit, np.flatnonzero(own == cluster)) for cluster in chosen]
            found = retrieve(tree, seeds, per_cluster=keep, least_seeds=least, level=level, **radius)
            oracle.check(found, np.sort(np.concatenate(parts)))
    with pytest.raises(DataError, match=r"no cluster of level 3 of .* holds 71 of its seeds; the most in one are"):
        retrieve(tree, seeds, per_cluster=3, level=3, least_seeds=71)
    with pytest.raises(ConfigError, match=r"level: 4; .* has levels 1 to 3"):
        retrieve(tree, seeds, per_cluster=3, level=4)


def test_long_lists_are_made_for_some_seeds_at_a_time(monkeypatch):
    monkeypatch.setattr(seed_lists, "_LISTS_BYTES", 1)
    rows = clumps(COUNT, 1)
    seeds = seeds_among(rows)
    oracle = Oracle(rows, seeds, "l2")
    with Stopping() as heard:
        oracle.check(retrieve(rows, seeds, per_seed=50, metric="l2"), oracle.per_seed(50))
    assert heard.passes.count("nearest rows of seeds") == 2


def test_a_quota_beyond_all_rows_takes_what_the_radius_leaves(tmp_path):
    """Lists are no longer than the rows are many."""
    rows = clumps(COUNT, 1)
    seeds = seeds_among(rows)
    oracle = Oracle(rows, seeds, "l2")
    oracle.check(retrieve(rows, seeds, per_seed=10**12, l2=0.7), oracle.within(0.7**2))
    tree = sc.cluster(store_of(tmp_path / "rows.zarr", rows), tmp_path / "run", levels=[9], metric="l2")
    chosen = np.unique(tree.assign(seeds, tmp_path / "labels.zarr").labels()[:])
    under = np.flatnonzero(np.isin(tree.levels[0].labels[:], chosen))
    oracle.check(retrieve(tree, seeds, per_cluster=10**12, l2=0.7), np.intersect1d(oracle.within(0.7**2), under))


def test_the_metric_of_a_radius_need_not_be_the_trees(tmp_path):
    rows = clumps(300, 1)
    run = tmp_path / "run"
    sc.cluster(store_of(tmp_path / "rows.zarr", rows), run, levels=[9], metric="l2")
    seeds = seeds_among(rows)
    euclidean, angular = Oracle(rows, seeds, "l2"), Oracle(rows, seeds, "cosine")
    euclidean.check(retrieve(run, seeds, nearest=40), euclidean.nearest(40))
    angular.check(retrieve(run, seeds, nearest=40, metric="cosine"), angular.nearest(40))
    angular.check(retrieve(run, seeds, nearest=40, cosine=0.9), angular.nearest(40, 2 * (1 - 0.9)))
    angular.check(retrieve(rows, seeds, nearest=40), angular.nearest(40))
    limit = 2 * (1 - 0.999)
    labels = sc.open_tree(run).levels[0].labels[:]
    chosen = np.unique(sc.assign(run, seeds, tmp_path / "labels.zarr").labels()[:])
    expected = np.concatenate([angular.nearest(3, limit, np.flatnonzero(labels == one)) for one in chosen])
    angular.check(retrieve(run, seeds, per_cluster=3, cosine=0.999), np.sort(expected))


def test_of_a_subset_and_of_a_tree_of_some_rows(small, tmp_path):
    """Rows outside are neither found nor left; a tree has the rows it was built on."""
    rows = clumps(COUNT, 1)
    seeds = seeds_among(rows)
    names = np.array([f"r{row}" for row in range(COUNT)])
    store = store_of(tmp_path / "rows.zarr", rows, names)
    generator = np.random.default_rng(2)
    some = np.sort(generator.choice(COUNT, 400, replace=False))
    some = some[(some < 320) | (some >= 640)]  # segments without any
    outside = np.sort(generator.choice(COUNT, 300, replace=False))
    tree = build(tmp_path / "run", store, [Centroids(clumps(12, 9, dtype=np.float32))], "l2", outside)
    inside = np.setdiff1d(np.arange(COUNT), outside)
    for source, subset, among in (
        (store, some, some),
        (store, np.isin(np.arange(COUNT), some), some),
        (store, names[some].tolist(), some),
        (tree, None, inside),
        (tree.path, some, np.intersect1d(some, inside)),
    ):
        oracle = Oracle(rows, seeds, "l2", among)
        oracle.check(retrieve(source, seeds, l2=0.7, subset=subset), oracle.within(0.7**2))
        if source is not store:
            oracle.check(retrieve(source, seeds, nearest=50, metric="l2", subset=subset), oracle.nearest(50))
        oracle.check(retrieve(source, seeds, per_seed=3, metric="l2", subset=subset), oracle.per_seed(3))
        left = exclude(source, seeds, l2=0.7, subset=subset)
        np.testing.assert_array_equal(left.unique_rows, np.setdiff1d(among, oracle.within(0.7**2)))
        assert (left.kept + left.removed, left.rows) == (len(among), COUNT)
    labels = tree.levels[0].labels[:]
    oracle = Oracle(rows, seeds, "l2", inside)
    chosen = np.unique(sc.assign(tree, seeds, tmp_path / "labels.zarr").labels()[:])
    expected = np.concatenate([oracle.nearest(4, among=np.flatnonzero(labels == one)) for one in chosen])
    oracle.check(retrieve(tree, seeds, per_cluster=4), np.sort(expected))
    with pytest.raises(
        CapacityError, match=r"--nearest 700: more rows than are looked at of .*, which are 600; ask for at most 600"
    ):
        retrieve(tree, seeds, nearest=700)


def test_an_extended_tree_is_searched_in_all_its_stores(tmp_path):
    first, second = clumps(200, 1), clumps(150, 2, dtype=np.float32)
    places = [
        store_of(tmp_path / f"{name}.zarr", values, np.array([f"{name}{row}" for row in range(len(values))]))
        for name, values in (("a", first), ("b", second))
    ]
    tree = sc.cluster(places[0], tmp_path / "run", levels=[9], metric="l2").extend(places[1], tmp_path / "both")
    rows, seeds = np.concatenate([first.astype(np.float32), second]), seeds_among(first)
    oracle = Oracle(rows, seeds, "l2")
    found = retrieve(tree, seeds, tmp_path / "near.csv", per_seed=2)
    oracle.check(found, oracle.per_seed(2))
    names = [f"a{row}" if row < 200 else f"b{row - 200}" for row in found.rows]
    assert found.ids is not None
    assert found.ids.tolist() == names
    oracle.check(retrieve(tree, seeds, tmp_path / "near.csv", l2=0.5), oracle.within(0.25))


def test_a_seed_in_a_cluster_without_rows_counts_nothing(tmp_path):
    """A coarse cluster that held no rows has no leaves, and a seed in it no cluster."""
    rows = clumps(60, 1, 2)
    centres = np.array([[0, 0], [50, 50]], dtype=np.float32)
    leaves = Centroids(clumps(3, 2, 2, np.float32), centres, np.array([0, 3, 3]))
    tree = build(tmp_path / "run", store_of(tmp_path / "rows.zarr", rows), [leaves])
    seeds = np.array([[49, 52], [51, 50]], dtype=np.float32)
    with pytest.raises(DataError, match=r"holds 1 of its seeds; the most in one are 0"):
        retrieve(tree, seeds, per_cluster=3)
    both = np.concatenate([seeds, rows[:1].astype(np.float32)])
    own = tree.levels[0].labels[:][0]
    expected = Oracle(rows, both, "l2").nearest(3, among=np.flatnonzero(tree.levels[0].labels[:] == own))
    assert retrieve(tree, both, per_cluster=3).rows.tolist() == expected.tolist()


def test_nothing_near(tmp_path):
    rows, seeds = clumps(50, 1), clumps(4, 1, dtype=np.float32) + 1000
    for options in ({}, {"nearest": 5}, {"per_seed": 5}):
        found = retrieve(rows, seeds, tmp_path / "none.parquet", l2=1, **options)
        assert len(found) == 0
        assert found.ids is None
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(tmp_path / "none.parquet")
        assert (table.num_rows, table.column_names) == (0, ["row", "seed", "distance"])
    assert exclude(rows, seeds, l2=1).mask.all()


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stores(tmp_path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """A store and seeds, both with ids."""
    rows = clumps(COUNT, 1)
    seeds = seeds_among(rows)
    place = store_of(tmp_path / "rows.zarr", rows, np.array([f"r,{row}" for row in range(COUNT)]))
    return place, store_of(tmp_path / "seeds.zarr", seeds, np.arange(SEEDS) + 5000), rows, seeds


def test_files_say_what_was_found(stores, tmp_path, monkeypatch):
    import pyarrow.csv
    import pyarrow.parquet

    from streamcurate.neighbors import row_files

    monkeypatch.setattr(row_files, "_BATCH", 64)
    store, seeds, *_ = stores
    written = {suffix: tmp_path / f"near{suffix}" for suffix in (".parquet", ".csv", ".npy", ".txt")}
    kept = {suffix: retrieve(store, seeds, place, per_seed=4, metric="l2") for suffix, place in written.items()}
    found = kept[".csv"]
    assert found.ids is not None
    for suffix, place in written.items():
        to = retrieve_to(tmp_path / f"again{suffix}", store, seeds, per_seed=4, metric="l2")
        assert (to.rows, to.looked_at, to.seeds, to.clusters) == (len(found), COUNT, SEEDS, None)
        found.save(tmp_path / f"saved{suffix}")
        getattr(found, f"to_{suffix[1:]}")(tmp_path / f"so{suffix}")
        for name in ("again", "saved", "so"):
            assert (tmp_path / f"{name}{suffix}").read_bytes() == place.read_bytes()
    tables = pyarrow.parquet.read_table(written[".parquet"]), pyarrow.csv.read_csv(written[".csv"])
    for table in tables:
        assert table.column_names == ["row", "id", "seed", "seed_id", "distance"]
        columns = {name: table[name].to_numpy() for name in table.column_names}
        np.testing.assert_array_equal(columns["row"], found.rows)
        np.testing.assert_array_equal(columns["id"], found.ids)
        np.testing.assert_array_equal(columns["seed"], found.seeds)
        np.testing.assert_array_equal(columns["seed_id"], found.seeds + 5000)
        np.testing.assert_array_equal(columns["distance"].astype(np.float32), found.distances)
    np.testing.assert_array_equal(found.seed_ids, found.seeds + 5000)
    np.testing.assert_array_equal(np.load(written[".npy"]), found.rows)
    assert written[".txt"].read_text().splitlines() == found.ids.tolist()
    with pytest.raises(InputError, match=r"its suffix is '.npy', to_csv writes .csv"):
        found.to_csv(tmp_path / "x.npy")
    assert not list(tmp_path.glob("*.partial"))
    assert repr(found) == f"Retrieved({len(found)} of 900 rows, near 70 seeds)"


def test_what_stays_and_what_goes(stores, tmp_path, monkeypatch):
    import pyarrow.parquet

    from streamcurate.neighbors import row_files

    monkeypatch.setattr(row_files, "_BATCH", 64)
    store, unwanted, rows, seeds = stores
    oracle = Oracle(rows, seeds, "l2")
    gone = oracle.within(0.25)
    stay = np.setdiff1d(np.arange(COUNT), gone)
    for suffix in (".npy", ".parquet", ".txt", ".csv"):
        out = tmp_path / f"stay{suffix}"
        left = exclude(store, unwanted, out, removed=tmp_path / "gone.parquet", l2=0.5)
        assert (left.kept, left.removed, left.path) == (len(stay), len(gone), str(out))
        assert left.removed_path == str(tmp_path / "gone.parquet")
        with pytest.raises(InputError, match="not in memory"):
            _ = left.mask
    np.testing.assert_array_equal(np.load(tmp_path / "stay.npy"), np.isin(np.arange(COUNT), stay))
    table = pyarrow.parquet.read_table(tmp_path / "stay.parquet")
    assert table.column_names == ["row", "id"]
    assert table["row"].to_pylist() == stay.tolist()
    assert (tmp_path / "stay.txt").read_text().splitlines() == [f"r,{row}" for row in stay]
    removed = pyarrow.parquet.read_table(tmp_path / "gone.parquet")
    assert removed.column_names == ["row", "id", "unwanted", "unwanted_id", "distance"]
    assert removed["unwanted_id"].to_pylist() == (oracle.seed[gone] + 5000).tolist()
    assert exclude(store, unwanted, removed=tmp_path / "gone.npy", l2=0.5).removed == len(gone)
    np.testing.assert_array_equal(np.load(tmp_path / "gone.npy"), gone)


def test_what_was_found_goes_on_into_a_draw(stores, tmp_path):
    """Files and objects are taken by include, eligible and subset."""
    store, seeds, *_ = stores
    tree = sc.cluster(store, tmp_path / "run", levels=[20, 5], metric="l2")
    found = retrieve(tree, seeds, tmp_path / "near.parquet", per_seed=1)
    drawn = tree.sample(300, include=tmp_path / "near.parquet")
    assert np.isin(found.rows, drawn.unique_rows).all()
    among = tree.sample(len(found) // 2, eligible=found)
    assert np.isin(among.unique_rows, found.rows).all()
    left = exclude(tree, seeds, l2=0.5)
    assert not np.isin(tree.sample(50, eligible=left).rows, left.near.rows).any()
    for suffix in (".npy", ".txt", ".parquet", ".csv"):
        exclude(store, seeds, tmp_path / f"stay{suffix}", l2=0.5)
        again = sc.cluster(store, tmp_path / f"run{suffix}", levels=[5], subset=tmp_path / f"stay{suffix}")
        assert int(again.levels[0].sizes().sum()) == left.kept
    np.testing.assert_array_equal(tree.sample(90, include=found).rows, tree.sample(90, include=found.rows).rows)


def test_at_a_url(stores, object_store):
    store, seeds, *_ = stores
    url = object_store.url("near.parquet")
    found = retrieve(store, seeds, url, nearest=30)
    drawn = sc.cluster(store, levels=[9])
    assert np.isin(found.rows, drawn.sample(100, include=url).rows).all()


# -- resume ------------------------------------------------------------------------------------------------------------


class Hearing(Silent):
    """Hears of every stage, and how many rows of it were done."""

    def __init__(self) -> None:
        self.stages = list[list[Any]]()

    def started(self, name: str, rows: int) -> None:
        self.stages.append([name, rows, 0])

    def advanced(self, rows: int, bytes: int) -> None:
        self.stages[-1][2] += rows


class Stopping(Silent):
    """Interrupts a pass, counted from the first; inside ``with`` it hears of each and not of whole stages alone."""

    def __enter__(self) -> Stopping:
        self._patch = pytest.MonkeyPatch()
        run = SerialExecutor.run

        def heard(executor: Any, work: Any, *arguments: Any, **options: Any) -> Any:
            Stopping.started(self, work.name, 0)
            return run(executor, work, *arguments, **options)

        self._patch.setattr(SerialExecutor, "run", heard)
        self._patch.setattr(self, "started", lambda name, rows: None)
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()

    def __init__(self, stop: int | None = None) -> None:
        self.passes = list[str]()
        self._stop = stop

    def started(self, name: str, rows: int) -> None:
        self.passes.append(name)
        if self._stop is not None and len(self.passes) > self._stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{"nearest": 90, "l2": 0.7}, {"per_seed": 5}])
def test_an_interrupted_search_goes_on(options, stores, small, tmp_path, monkeypatch):
    tiled(monkeypatch, 40)
    monkeypatch.setattr(seed_lists, "_SECONDS_KEPT", 0.0)
    store, seeds, *_ = stores
    out = tmp_path / "near.parquet"
    told = Hearing()
    with Stopping() as whole:
        retrieve(store, seeds, tmp_path / "whole.parquet", progress=told, **options)
    done, attempts = 0, 0
    while not out.exists():
        heard = Hearing()
        with Stopping(5) as stopping:
            try:
                retrieve(store, seeds, out, progress=heard, **options)
            except KeyboardInterrupt:
                assert out.with_name("near.parquet.partial").is_dir()
        done, attempts = done + len(stopping.passes), attempts + 1
        assert done < 2 * len(whole.passes) + 20
    # What was finished was not done again: of each attempt one pass broke off, and a tile before it is lost with it.
    assert attempts > 1
    assert done <= len(whole.passes) + 2 * attempts
    # The whole is told as one stage, and rows that were kept count as done.
    assert heard.stages[:-1] == told.stages[:-1]  # the last is the file
    first = "nearest rows of seeds" if "per_seed" in options else "nearest seeds"
    assert told.stages[0] == [first, 2 * COUNT, 2 * COUNT]
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not out.with_name("near.parquet.partial").exists()


def test_unfinished_work_of_other_options_or_rows(stores, small, tmp_path):
    store, seeds, rows, _ = stores
    out = tmp_path / "near.npy"
    with pytest.raises(KeyboardInterrupt), Stopping(2):
        retrieve(store, seeds, out, l2=0.7)
    with pytest.raises(InputError, match=r"near.npy.partial: holds an unfinished retrieve with l2 0.7 instead of 0.6"):
        retrieve(store, seeds, out, l2=0.6)
    # The same command over rows that changed since: nothing of the others is taken over.
    other = rows.copy()
    other[100:] = other[::-1][100:]
    changed = open_embeddings(store).array
    from streamcurate.storage import open_array

    open_array(changed.path, writable=True).write(0, other)
    found = retrieve(store, seeds, out, l2=0.7)
    np.testing.assert_array_equal(found.rows, Oracle(other, seeds_of(seeds), "l2").within(0.7**2))


def seeds_of(place: Path) -> np.ndarray:
    return np.asarray(open_embeddings(place))


def test_of_a_segment_only_the_last_tile_is_kept(stores, small, tmp_path, monkeypatch):
    """Of several tiles of seeds, scratch holds one answer for each row and not two."""
    tiled(monkeypatch, 30)
    store, seeds, *_ = stores
    scratch = tmp_path / "near.npy.partial" / "scratch"

    class Watching(Stopping):
        def started(self, name: str, rows: int) -> None:
            super().started(name, rows)
            if name.startswith("write"):
                self.kept = sorted(path.name for path in (scratch / "nearest" / "segment-1").iterdir())

    heard = Watching()
    retrieve(store, seeds, tmp_path / "near.npy", l2=0.7, progress=heard)
    assert heard.kept == ["seeds-0", "values-0"]


def test_segments_without_rows_are_filled_some_rows_at_a_time(small, tmp_path, monkeypatch):
    lengths = list[int]()

    class Writer(nearest_seeds.SequentialWriter):
        def append(self, values: Any) -> None:
            lengths.append(len(values))
            super().append(values)

    monkeypatch.setattr(nearest_seeds, "SequentialWriter", Writer)
    rows = clumps(COUNT, 1)
    oracle = Oracle(rows, rows[:3], "l2", np.arange(40))
    oracle.check(retrieve(rows, rows[:3], l2=0.7, subset=np.arange(40)), oracle.within(0.7**2))
    assert max(lengths) == 100


def test_damaged_scratch_is_made_again(stores, small, tmp_path):
    store, seeds, rows, values = stores
    out = tmp_path / "near.npy"
    with pytest.raises(KeyboardInterrupt), Stopping(2):
        retrieve(store, seeds, out, l2=0.7)
    for file in (tmp_path / "near.npy.partial" / "scratch" / "nearest" / "segment-1").rglob("c/0"):
        file.write_bytes(bytes(file.stat().st_size))
    with Stopping() as heard:
        found = retrieve(store, seeds, out, l2=0.7)
    np.testing.assert_array_equal(found.rows, Oracle(rows, values, "l2").within(0.7**2))
    assert heard.passes.count("nearest seeds") == 2  # the damaged one of three segments, and the one not begun


def test_a_store_that_changes_meanwhile_is_refused(stores, tmp_path):
    store, seeds, *_ = stores

    class Writing(Silent):
        def finished(self) -> None:
            chunk = store / "embeddings" / "c" / "1" / "0"
            os.utime(chunk, ns=(1, 1))

    with pytest.raises(ChangedStoreError, match=r"rows.zarr: changed while it was read"):
        retrieve(store, seeds, tmp_path / "near.npy", l2=0.7, progress=Writing())
    store = seeds
    with pytest.raises(ChangedStoreError, match=r"seeds.zarr: changed while it was read"):
        exclude(tmp_path / "rows.zarr", seeds, tmp_path / "left.npy", l2=0.7, progress=Writing())


# -- refusals ----------------------------------------------------------------------------------------------------------

REFUSED = (
    ({}, ConfigError, r"which rows to retrieve is not said: give a radius \(--cosine T, --l2 R\), a quota"),
    ({"cosine": 0.5, "l2": 1}, ConfigError, "exactly one"),
    ({"cosine": 1}, ConfigError, "not even copies reach it; give 0.999999"),
    ({"cosine": 1.5}, ConfigError, "cosine: 1.5 is not allowed"),
    ({"l2": -1}, ConfigError, "l2: -1 is not allowed"),
    ({"nearest": 3, "per_seed": 4}, ConfigError, "--nearest 3 and --per-seed 4: quotas of different kinds"),
    ({"nearest": 0}, ConfigError, "--nearest: 0 is not allowed; it must be a whole number from 1"),
    ({"per_seed": 2.5}, ConfigError, "--per-seed: 2.5"),
    ({"nearest": 3, "level": 2}, ConfigError, "--level 2: is for --per-cluster"),
    ({"l2": 3, "least_seeds": 2}, ConfigError, "--least-seeds 2: is for --per-cluster"),
    ({"per_cluster": 3}, ConfigError, "--per-cluster 3: an array or a store has no clusters: give the run directory"),
    ({"l2": 3, "metric": "cosine"}, ConfigError, "metric: cosine, but the radius is of l2"),
    ({"nearest": 3, "metric": "l1"}, ConfigError, "metric: 'l1'; it must be l2 or cosine"),
    ({"nearest": 10**6}, CapacityError, "--nearest 1,000,000: more rows than .* ask for at most 900"),
    ({"per_seed": 10**6}, CapacityError, "--per-seed 1,000,000: more rows"),
    ({"l2": 1, "out": "x.zarr"}, InputError, "a list of rows is written as .parquet, .csv, .npy, .txt"),
    ({"l2": 1, "out": "no/x.npy"}, InputError, "the folder .* does not exist"),
    ({"l2": 1, "subset": [5, 10**6]}, DataError, "row 1000000 is not among the 900 rows"),
    ({"l2": 1, "memory_limit": "1MiB"}, ConfigError, "the smallest supported"),
    ({"l2": 1, "device": "tpu"}, ConfigError, "device is 'tpu'"),
    ({"l2": 1, "scratch": "s3://a/b"}, InputError, "scratch cannot lie at a URL"),
)


@pytest.mark.parametrize(("options", "kind", "text"), REFUSED)
def test_refusals_leave_nothing(options, kind, text, tmp_path, monkeypatch):
    rows = clumps(COUNT, 1)
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(kind, match=text):
        retrieve(rows, seeds_among(rows), **({"out": "near.npy"} | options))
    assert not list(place.iterdir())


def test_bad_rows_are_refused_by_name(tmp_path, small):
    rows = clumps(COUNT, 1)
    rows[[700, 444]] = np.nan
    names = np.array([f"r{row}" for row in range(COUNT)])
    store = store_of(tmp_path / "rows.zarr", rows, names)
    seeds = clumps(30, 4)
    for options in ({"l2": 0.5}, {"per_seed": 3}):
        with pytest.raises(DataError, match=r'rows.zarr: 1 row holds NaN or Inf \(first: row 444, id "r444"\); drop'):
            retrieve(store, seeds, tmp_path / "near.npy", **options)
    rows[[700, 444]] = 0
    with pytest.raises(DataError, match=r"1 row holds only zeros, .* metric cosine \(first: row 444\)"):
        retrieve(rows, seeds, per_seed=3)
    with pytest.raises(DataError, match=r"2 rows hold only zeros|1 row holds only zeros"):
        exclude(rows, seeds, cosine=0.5)
    outside = np.setdiff1d(np.arange(COUNT), [700, 444])
    assert len(retrieve(rows, seeds, per_seed=3, subset=outside))
    zero = np.zeros((2, 5), np.float32)
    run = tmp_path / "run"
    sc.cluster(
        store_of(tmp_path / "good.zarr", unit(clumps(90, 1, dtype=np.float32))), run, levels=[4], metric="cosine"
    )
    with pytest.raises(DataError, match=r"2 rows are zero and have no direction under metric cosine, that of"):
        retrieve(run, zero, per_cluster=3, l2=9)


def test_what_does_not_fit_the_memory(monkeypatch, tmp_path):
    rows = clumps(COUNT, 1)
    seeds = seeds_among(rows)
    monkeypatch.setattr(module, "_HELD_BYTES", 1 << 22)
    with pytest.raises(MemoryLimitError, match=r"a list of 800 rows needs .* or write a file"):
        retrieve(rows, seeds, nearest=800, memory_limit="600MiB")
    with pytest.raises(MemoryLimitError, match=r"a list of 800 rows needs .* or use the command, which holds nothing"):
        retrieve(rows, seeds, tmp_path / "near.npy", nearest=800, memory_limit="600MiB")
    assert not (tmp_path / "near.npy").exists()
    monkeypatch.setattr(module, "_MASK_BYTES", 1 << 22)
    heard = Stopping()
    with pytest.raises(MemoryLimitError, match=r"a mask of 900 rows needs .* or write a file"):
        exclude(rows, seeds, l2=1, memory_limit="600MiB", progress=heard)
    assert not heard.passes
    assert retrieve_to(tmp_path / "near.npy", rows, seeds, nearest=800, memory_limit="600MiB").rows == 800
    monkeypatch.setattr(seed_lists.SeedListPass, "cost", lambda self, dims, dtype: seed_lists.Cost(self.keep << 24))
    with pytest.raises(MemoryLimitError, match=r"a list of 800 rows for a seed needs .* give a smaller --per-seed"):
        retrieve(rows, seeds, per_seed=800, memory_limit="600MiB")
    monkeypatch.setattr(found, "group_bytes", lambda keep: keep << 24)
    store = store_of(tmp_path / "rows.zarr", rows)
    sc.cluster(store, tmp_path / "run", levels=[4])
    with pytest.raises(MemoryLimitError, match=r"a list of 800 rows for a cluster needs .* --per-cluster"):
        retrieve(tmp_path / "run", seeds, per_cluster=800, memory_limit="600MiB")


def test_both_files_must_be_two(tmp_path):
    with pytest.raises(ConfigError, match="name two files"):
        exclude(clumps(9, 1), clumps(3, 2), tmp_path / "x.npy", removed=str(tmp_path / "x.npy"), l2=1)
    with pytest.raises(ConfigError, match="exactly one"):
        exclude(clumps(9, 1), clumps(3, 2))


@pytest.mark.parametrize("count", [4000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_real_text_embeddings(count):
    """200 rows as seeds for all others, in float64 over all pairs."""
    file = Path(__file__).parents[3] / "shared" / "data" / "package_summaries" / "embeddings.npy"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    rows = np.load(file)[:count]
    chosen = np.random.default_rng(4).choice(len(rows), 200, replace=False)
    seeds, rest = rows[chosen], np.delete(rows, chosen, axis=0)
    oracle = Oracle(rest, seeds, "cosine")
    for cosine in (0.9, 0.7):
        within = oracle.within(2 * (1 - cosine))
        assert len(within)
        oracle.check(retrieve(rest, seeds, cosine=cosine), within)
        np.testing.assert_array_equal(exclude(rest, seeds, cosine=cosine).mask, ~np.isin(oracle.among, within))
    oracle.check(retrieve(rest, seeds, nearest=500), oracle.nearest(500))
    oracle.check(retrieve(rest, seeds, per_seed=10), oracle.per_seed(10))


def test_a_list_of_rows_is_no_seed(tmp_path, monkeypatch):
    """The message's own lines make a store of them."""
    monkeypatch.chdir(tmp_path)
    rows = clumps(COUNT, 1)
    store_of(tmp_path / "rows.zarr", rows, np.array([f"r{row}" for row in range(COUNT)]))
    (tmp_path / "some.txt").write_text("r7\nr3\n")
    with pytest.raises(InputError, match=r"some.txt: a list of rows, and seeds are embeddings") as refused:
        retrieve("rows.zarr", "some.txt", nearest=2)
    line = str(refused.value).split("'")[1]
    (tmp_path / "examples.yaml").write_text(line)
    sc.mix("examples.yaml", "examples.zarr")
    np.testing.assert_array_equal(np.asarray(open_embeddings(tmp_path / "examples.zarr")), rows[[3, 7]])
