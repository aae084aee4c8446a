"""Near-duplicates end to end: equal to comparing all pairs, whatever the clusters, interruptions and workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from oracles import formula

import streamcurate as sc
from streamcurate.errors import ConfigError, DataError, InputError, MemoryLimitError, RunError, StoreError
from streamcurate.kernels import random_bits
from streamcurate.neighbors.duplicates import Duplicates, open_duplicates
from streamcurate.neighbors.pairs.keep import STREAM
from streamcurate.pipeline import dedup as job
from streamcurate.pipeline.dedup import clusters_for, dedup
from streamcurate.storage import create_array, create_group, open_array
from streamcurate.streaming import MemoryBudget

pytest_plugins = ["object_store"]

ROWS, DIMS = 700, 6
SUMMARIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "package_summaries" / "embeddings.npy"
RESULT = ["dedup.json", "duplicates.parquet", "keep.npy", "removed.npy"]


def rows(count: int = ROWS, seed: int = 3) -> np.ndarray:
    """Clumps; copies, near copies, and chains of rows that are near the next one alone."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((12, DIMS)) * 5
    values = centres[generator.integers(0, 12, count)] + generator.standard_normal((count, DIMS))
    values[100:160] = values[generator.integers(0, 40, 60)] + generator.standard_normal((60, DIMS)) * 0.01
    values[300:340] = values[299] + np.arange(40)[:, None] * 0.05
    values[500:520] = values[5]
    return generator.permutation(values).astype(np.float16)


def store(place: Path, values: np.ndarray, ids: bool = True) -> Path:
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, 128).write(0, values)
    if ids:
        names = np.array([f"img_{row:04d}" for row in range(len(values))])
        create_array(place / "ids", names.shape, str, 1000).write(0, names)
    return place


def grouped(values: np.ndarray, metric: str, limit: float, inside: np.ndarray | None = None) -> dict[int, int]:
    """Component of every row that has duplicates, by comparing all pairs."""
    chosen = np.arange(len(values)) if inside is None else np.flatnonzero(inside)
    near = np.zeros((len(chosen), len(chosen)), dtype=bool)
    for start in range(0, len(chosen), 500):
        near[start : start + 500] = (
            formula_of_rows(values[chosen[start : start + 500]], values[chosen], metric) <= limit
        )
    label = np.arange(len(chosen))
    while True:  # the lowest of what is near, until nothing changes
        lowest = np.array([label[one].min() for one in near])
        if (lowest == label).all():
            break
        label = lowest
    found = {int(chosen[row]): int(chosen[label[row]]) for row in range(len(chosen))}
    sizes = np.unique(list(found.values()), return_counts=True)
    many = set(sizes[0][sizes[1] > 1].tolist())
    return {row: group for row, group in found.items() if group in many}


def formula_of_rows(one: np.ndarray, other: np.ndarray, metric: str) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    if metric == "cosine":
        squares = np.zeros(len(other))
        for j in range(other.shape[1]):
            squares += other[:, j] * other[:, j]
        other = other / np.sqrt(squares)[:, None]
    return formula(one, other, metric)


def check(
    found: Duplicates, wanted: dict[int, int], count: int, inside: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """The result is that of comparing all pairs; its lines."""
    lines = pq.read_table(found.table).to_pylist()
    assert {line["row"]: line["component"] for line in lines} == wanted
    assert [line["row"] for line in lines] == sorted(wanted)
    sizes = {group: list(wanted.values()).count(group) for group in set(wanted.values())}
    assert all(line["size"] == sizes[line["component"]] for line in lines)
    kept = [line["component"] for line in lines if line["kept"]]
    assert sorted(kept) == sorted(sizes)
    mask = np.load(found.mask)
    expected = np.ones(count, dtype=bool) if inside is None else inside.copy()
    expected[[line["row"] for line in lines if not line["kept"]]] = False
    np.testing.assert_array_equal(mask, expected)
    removed = np.load(found.removed_rows)
    assert removed.dtype == np.int64
    assert removed.tolist() == [line["row"] for line in lines if not line["kept"]]
    assert (found.kept, found.components) == (expected.sum(), len(sizes))
    assert found.kept + found.removed == found.rows
    assert found.sizes == {size: list(sizes.values()).count(size) for size in sorted(set(sizes.values()))}
    assert [(one.component, one.size) for one in found.largest] == sorted(
        sizes.items(), key=lambda one: (-one[1], one[0])
    )[:100]
    return lines


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many tiles and cells."""
    monkeypatch.setattr(job, "tile_rows_for", lambda rows, dims: 128)
    monkeypatch.setattr("streamcurate.neighbors.pairs.grouped.cell_rows_for", lambda rows: 16)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


THRESHOLDS: list[dict[str, Any]] = [{"cosine": 0.99}, {"l2": 0.2}, {"l2": 1.0}, {"cosine": 1.0}, {"l2": 0.0}]


def limit_of(threshold: dict[str, Any]) -> tuple[str, float]:
    if "cosine" in threshold:
        return "cosine", 2 * (1 - threshold["cosine"])
    return "l2", threshold["l2"] ** 2


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_equal_to_comparing_all_pairs(threshold, small_tiles, tmp_path):
    values = rows()
    place = store(tmp_path / "e.zarr", values)
    wanted = grouped(values, *limit_of(threshold))
    assert wanted
    tree = sc.cluster(place, tmp_path / "run", levels=[sc.Level(12, splits=3), 5], metric="l2", seed=1)
    results = []
    sources = (place, values, tree, tmp_path / "run") if threshold == THRESHOLDS[0] else (place, tree)
    for number, source in enumerate(sources):
        found = dedup(source, tmp_path / f"out-{number}", keep="first", **threshold)
        lines = check(found, wanted, ROWS)
        assert all(line["kept"] == (line["row"] == line["component"]) for line in lines)
        assert sorted(os.listdir(tmp_path / f"out-{number}")) == RESULT
        results.append((tmp_path / f"out-{number}" / "keep.npy").read_bytes())
    assert len(set(results)) == 1
    assert [line["id"] for line in lines] == [f"img_{row:04d}" for row in sorted(wanted)]
    assert found.largest[0].id == f"img_{found.largest[0].kept:04d}"
    assert sorted(os.listdir(tmp_path)) == ["e.zarr", *(f"out-{number}" for number in range(len(sources))), "run"]


def test_the_row_that_is_kept(tmp_path):
    values = rows()
    place = store(tmp_path / "e.zarr", values)
    tree = sc.cluster(place, tmp_path / "run", levels=[20], metric="cosine", seed=1)
    wanted = grouped(values, "cosine", 2 * (1 - 0.99))
    distances = tree.levels[0].distances[:]
    keys = {
        "closest": lambda row: (distances[row], row),
        "first": lambda row: row,
        "random": lambda row: int(random_bits(7, (STREAM, 0), np.array([row]))[0]),
    }
    for keep, key in keys.items():
        found = dedup(tree, tmp_path / keep, cosine=0.99, keep=keep, **({"seed": 7} if keep == "random" else {}))
        for line in check(found, wanted, ROWS):
            mine = [row for row, group in wanted.items() if group == line["component"]]
            assert line["kept"] == (line["row"] == min(mine, key=key))


@pytest.mark.parametrize("kind", ["rows", "mask", "ids"])
def test_a_subset_of_a_store(kind, tmp_path):
    values = rows()
    values[7] = 0  # no direction: outside the subset it does no harm
    inside = np.random.default_rng(2).random(ROWS) < 0.6
    inside[7] = False
    place = store(tmp_path / "e.zarr", values)
    chosen = {
        "rows": np.flatnonzero(inside)[::-1],
        "mask": inside,
        "ids": [f"img_{row:04d}" for row in np.flatnonzero(inside)],
    }
    found = dedup(place, tmp_path / "out", cosine=0.99, subset=chosen[kind])
    check(found, grouped(values, "cosine", 2 * (1 - 0.99), inside), ROWS, inside)
    assert found.rows == inside.sum()
    notes = Listener()
    again = dedup(place, tmp_path / "out", cosine=0.99, subset=np.flatnonzero(inside), progress=notes)
    assert again == found
    assert notes.notes == [f"{tmp_path / 'out'}: finished already, nothing to do"]
    inside[8] ^= True
    with pytest.raises(InputError, match=r"holds a finished dedup with subset '.*' instead of '.*'"):
        dedup(place, tmp_path / "out", cosine=0.99, subset=inside)


def test_a_tree_of_a_subset(tmp_path):
    values = rows()
    inside = np.random.default_rng(4).random(ROWS) < 0.5
    place = store(tmp_path / "e.zarr", values)
    tree = sc.cluster(place, tmp_path / "run", levels=[15], subset=inside, seed=0)
    found = dedup(tree, tmp_path / "out", l2=0.5)
    check(found, grouped(values, "l2", 0.25, inside), ROWS, inside)


def test_the_result_is_a_list_of_rows(tmp_path):
    values = rows()
    place = store(tmp_path / "e.zarr", values)
    found = dedup(place, tmp_path / "out", cosine=0.99)
    kept = np.flatnonzero(np.load(found.mask))
    tree = sc.cluster(place, tmp_path / "run", levels=[10, 3], subset=found, seed=0)
    np.testing.assert_array_equal(np.flatnonzero(tree.levels[0].labels[:] >= 0), kept)
    whole = sc.cluster(place, tmp_path / "whole", levels=[10, 3], seed=0)
    pick = whole.sample(100, eligible=found)
    assert np.isin(pick.rows, kept).all()
    assert dedup(place, tmp_path / "again", cosine=0.99, subset=found).removed == 0


def test_few_rows(tmp_path):
    one = np.ones((1, 3), dtype=np.float32)
    found = dedup(one, tmp_path / "one", cosine=0.5)
    assert (found.rows, found.kept, found.components, found.largest) == (1, 1, 0, ())
    assert found.told()[0] == "1 rows: 1 kept, 0 removed as duplicates of those (0.0 %)"
    found = dedup(np.repeat(one, 5, axis=0), tmp_path / "five", l2=1e-30)
    assert (found.kept, found.sizes) == (1, {5: 1})
    assert [clusters_for(count) for count in (1, 3, 10_000)] == [1, 1, 100]


def test_the_wait_for_the_compiler_is_told(tmp_path, monkeypatch):
    told = "the first dedup on a machine compiles what compares rows: some ten seconds more"
    for there in (False, True):
        monkeypatch.setattr("streamcurate.kernels.pairs_compiled", lambda there=there: there)
        heard = Listener()
        dedup(np.ones((3, 2), dtype=np.float32), tmp_path / str(there), l2=0, progress=heard)
        assert (told in heard.notes) == (not there)
        alone = Listener()
        dedup(np.ones((1, 2), dtype=np.float32), tmp_path / f"{there}-one", l2=0, progress=alone)
        assert told not in alone.notes


def test_what_is_skipped_is_told(small_tiles, tmp_path):
    values = rows()
    wanted = grouped(values, "l2", 1.0)
    found = dedup(values, tmp_path / "out", l2=1.0, most_neighbours=1, keep="first")
    skipped = pq.read_table(tmp_path / "out" / "skipped.parquet").to_pylist()
    assert len(skipped) == found.summary["cells"]["skipped"] > 0
    assert not found.complete
    assert found.warnings[0].startswith(f"{len(skipped):,} pairs of cells that could hold duplicates were not compared")
    assert "without --most-neighbours all are compared" in found.warnings[0]
    # Nothing is found that is not there.
    for line in pq.read_table(found.table).to_pylist():
        assert wanted[line["row"]] == wanted[line["component"]]
    assert dedup(values, tmp_path / "all", l2=1.0, most_neighbours=1000).complete


def test_an_extended_tree(tmp_path):
    values = rows()
    first, second = store(tmp_path / "a.zarr", values[:400]), store(tmp_path / "b.zarr", values[400:])
    tree = sc.cluster(first, tmp_path / "run", levels=[9], seed=0).extend(second, tmp_path / "more")
    check(dedup(tree, tmp_path / "out", cosine=0.99), grouped(values, "cosine", 2 * (1 - 0.99)), ROWS)


def test_the_same_bytes_by_any_way(small_tiles, tmp_path):
    place = store(tmp_path / "e.zarr", rows())
    ways: list[dict[str, Any]] = [{"search": "blas", "threads": 1}, {"search": "faiss", "threads": 2}]
    for number, way in enumerate(ways):
        dedup(place, tmp_path / f"out-{number}", l2=1.0, **way)
    assert content(tmp_path / "out-0") == content(tmp_path / "out-1")


def test_rows_in_units_far_from_a_cosine_trees_centroids(tmp_path):
    values = (rows().astype(np.float32) * 1e-41).astype(np.float32)
    values[~values.any(axis=1), 0] = 1e-45
    place = store(tmp_path / "e.zarr", values)
    tree = sc.cluster(place, tmp_path / "run", levels=[15], metric="cosine", seed=1)
    check(dedup(tree, tmp_path / "out", l2=1e-42), grouped(values, "l2", 1e-42**2), ROWS)


def test_a_radius_beyond_all_rows(tmp_path):
    assert dedup(rows(), tmp_path / "out", l2=1e150).sizes == {ROWS: 1}


def test_chains_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_CHAINED_ROWS", 20)
    (warning,) = dedup(rows(), tmp_path / "out", l2=0.2).warnings
    assert warning.startswith("one component holds ")
    assert "of 700 rows, of which one is kept" in warning


@pytest.mark.slow
def test_real_text_embeddings(tmp_path):
    """All 200 million pairs of 20,000 rows."""
    if not SUMMARIES.exists():
        pytest.skip(f"{SUMMARIES} is not there")
    values = np.load(SUMMARIES)
    place = store(tmp_path / "e.zarr", values, ids=False)
    tree = sc.cluster(place, tmp_path / "run", levels=[400], metric="l2", seed=0)
    thresholds = (0.95, 0.9, 0.8)
    near = near_pairs(values, 2 * (1 - min(thresholds)))
    for threshold in thresholds:
        limit = 2 * (1 - threshold)
        parents = np.arange(len(values))
        for one, other in near[near[:, 2] <= limit, :2].astype(np.int64).tolist():
            low, high = sorted((root(parents, one), root(parents, other)))
            parents[high] = low
        groups = np.array([root(parents, row) for row in range(len(values))])
        many = np.bincount(groups, minlength=len(values))[groups] > 1
        wanted = {int(row): int(groups[row]) for row in np.flatnonzero(many)}
        for source, name in ((place, "store"), (tree, "tree")):
            check(dedup(source, tmp_path / f"{name}-{threshold}", cosine=threshold), wanted, len(values))


def near_pairs(values: np.ndarray, limit: float) -> np.ndarray:
    """Pairs (i, j) and the formula's value, of all that are within the limit; all pairs are scored in float64."""
    exact = values.astype(np.float64)
    squares = np.zeros(len(exact))
    for j in range(exact.shape[1]):
        squares += exact[:, j] * exact[:, j]
    units = exact / np.sqrt(squares)[:, None]
    found = []
    for start in range(0, len(units), 1000):
        products = units[start : start + 1000] @ units.T
        one, other = np.nonzero(2 - 2 * products <= limit + 1e-9)
        one += start
        one, other = one[one < other], other[one < other]
        value = np.zeros(len(one))
        for j in range(units.shape[1]):
            difference = units[one, j] - units[other, j]
            value += difference * difference
        found.append(np.stack([one, other, value], axis=1))
    pairs = np.concatenate(found)
    return pairs[pairs[:, 2] <= limit]


def root(parents: np.ndarray, row: int) -> int:
    while parents[row] != row:
        row = int(parents[row])
    return row


# -- stopped, and gone on with -----------------------------------------------------------------------------------------


class Listener:
    """Hears notes; stops the work when a pass of a name begins."""

    def __init__(self, stop: str | None = None) -> None:
        self.stop, self.notes, self.names = stop, list[str](), list[str]()

    def started(self, name: str, rows: int) -> None:
        self.names.append(name)
        if name == self.stop:
            raise KeyboardInterrupt

    def advanced(self, rows: int, bytes: int) -> None: ...
    def finished(self) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


def stopping(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Counts the calls of a function of the job."""
    original: Callable[..., Any] = getattr(job, name)
    seen: list[str] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(name)
        return original(*arguments, **options)

    monkeypatch.setattr(job, name, counted)
    return seen


STAGES = ["cluster", "find_edges", "find_components", "mark_rows", "write_summary"]


@pytest.mark.parametrize("stage", STAGES)
def test_stopped_before_a_stage(stage, tmp_path, monkeypatch):
    values = rows()
    place = store(tmp_path / "e.zarr", values)
    plain = dedup(place, tmp_path / "plain", cosine=0.99)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(job, stage, stopping)
        with pytest.raises(KeyboardInterrupt):
            dedup(place, out, cosine=0.99)
    assert not out.exists()
    assert (tmp_path / "out.partial").exists()
    other = {"cosine": 0.98}
    with pytest.raises(RunError, match=r"holds an unfinished dedup with cosine 0\.99 instead of 0\.98; .*remove the"):
        dedup(place, out, **other)
    listener = Listener()
    components = calls(monkeypatch, "find_components")
    found = dedup(place, out, cosine=0.99, progress=listener, memory_limit="600MiB", threads=1)
    assert listener.notes[0].endswith("out.partial: going on with what is done")
    assert len(components) == (STAGES.index(stage) <= STAGES.index("find_components"))
    assert content(out) == content(tmp_path / "plain")
    assert found.sizes == plain.sizes
    assert sorted(os.listdir(tmp_path)) == ["e.zarr", "out", "plain"]


@pytest.mark.parametrize("what", ["k-means pass", "comparing tiles", "rows to keep"])
def test_stopped_inside_a_stage(what, tmp_path):
    values = rows()
    dedup(values, tmp_path / "plain", cosine=0.99)
    with pytest.raises(KeyboardInterrupt):
        dedup(values, tmp_path / "out", cosine=0.99, progress=Listener(what))
    dedup(values, tmp_path / "out", cosine=0.99)
    assert content(tmp_path / "out") == content(tmp_path / "plain")


def test_lost_scratch_is_made_again(tmp_path, monkeypatch):
    values = rows()
    dedup(values, tmp_path / "plain", cosine=0.99)
    for lost in ("all", "damaged"):
        out = tmp_path / lost
        with monkeypatch.context() as patch:
            patch.setattr(job, "write_rows", stopping)
            with pytest.raises(KeyboardInterrupt):
                dedup(values, out, cosine=0.99)
        scratch = tmp_path / f"{lost}.partial" / "scratch"
        if lost == "all":
            shutil.rmtree(scratch)
        else:
            place = scratch / "components.bin"
            place.write_bytes(place.read_bytes()[:-3] + b"abc")
        dedup(values, out, cosine=0.99)
        assert content(out) == content(tmp_path / "plain")


def test_stopped_after_the_result_is_in_its_place(tmp_path, monkeypatch):
    values = rows()
    with monkeypatch.context() as patch:
        patch.setattr("streamcurate.neighbors.unfinished.UnfinishedWork._remove", stopping)
        with pytest.raises(KeyboardInterrupt):
            dedup(values, tmp_path / "out", cosine=0.99)
    assert sorted(os.listdir(tmp_path)) == ["out", "out.partial"]
    listener = Listener()
    dedup(values, tmp_path / "out", cosine=0.99, progress=listener)
    assert listener.notes == [f"{tmp_path / 'out'}: finished already, nothing to do"]
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_scratch_elsewhere(tmp_path):
    values = rows()
    dedup(values, tmp_path / "plain", cosine=0.99)
    (tmp_path / "scratch").mkdir()
    dedup(values, tmp_path / "out", cosine=0.99, scratch=tmp_path / "scratch", memory_limit="512MiB")
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    assert os.listdir(tmp_path / "scratch") == []


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, kind: type[InputError], match: str, source: Any = None, **options: Any) -> None:
    """An error of that kind, with nothing left behind."""
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(kind, match=match):
        dedup(rows() if source is None else source, tmp_path / "new", **options)
    assert sorted(os.listdir(tmp_path)) == before


def test_options_out_of_range(tmp_path):
    refused(tmp_path, ConfigError, "give exactly one of them")
    refused(tmp_path, ConfigError, "give exactly one of them", cosine=0.9, l2=1)
    refused(tmp_path, ConfigError, "cosine: 1.5 is not allowed", cosine=1.5)
    refused(tmp_path, ConfigError, "l2: -1 is not allowed", l2=-1)
    refused(tmp_path, ConfigError, "keep: 'nearest' is not allowed; it must be closest or", cosine=0.9, keep="nearest")
    refused(tmp_path, ConfigError, "seed: -1 is not allowed", cosine=0.9, keep="random", seed=-1)
    refused(tmp_path, ConfigError, "seed: 0 is of --keep random", cosine=0.9, seed=0)
    refused(tmp_path, ConfigError, "seed: 5 is of --keep random", cosine=0.9, keep="first", seed=5)
    refused(tmp_path, ConfigError, "search: 'gpu' is not allowed", cosine=0.9, search="gpu")
    refused(tmp_path, ConfigError, "most_neighbours: 0 is not allowed", cosine=0.9, most_neighbours=0)
    refused(tmp_path, ConfigError, "clusters: 701 of 700 rows; choose at most 700", cosine=0.9, clusters=701)
    refused(tmp_path, ConfigError, "device is 'tpu'", cosine=0.9, device="tpu")
    refused(tmp_path, ConfigError, "the smallest supported", cosine=0.9, memory_limit="100MiB")
    refused(tmp_path, InputError, "scratch cannot lie at a URL", cosine=0.9, scratch="s3://bucket/scratch")
    refused(tmp_path, DataError, "row 700 is not among", cosine=0.9, subset=[3, 700])


def test_memory_is_checked_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "join_bytes", lambda *arguments: 1 << 40)
    monkeypatch.setattr(job, "cluster", stopping)
    refused(tmp_path, MemoryLimitError, r"comparing rows of 6 dims.* needs 1\.0 TiB of working memory", cosine=0.9)


@pytest.mark.parametrize("dims", [2, 24, 64, 128, 384, 1024, 4096])
@pytest.mark.parametrize("search", ["auto", "faiss"])
def test_the_smallest_limit_does(dims, search):
    class Rows:
        name, dtype = "e.zarr", np.dtype(np.float32)

    Rows.dims = dims
    small, large = (MemoryBudget.of(limit, 1) for limit in (512 << 20, 64 << 30))
    assert job._tile_rows(Rows, 10**8, search, small) == job._tile_rows(Rows, 10**8, search, large) >= 128


def test_rows_that_cannot_be_used(tmp_path):
    values = rows()
    values[17, 2] = np.nan
    refused(tmp_path, DataError, "row 17", values, l2=0.5)
    values[17] = 0
    refused(tmp_path, DataError, "row 17", values, cosine=0.5)
    refused(tmp_path, InputError, "no such file", tmp_path / "gone.zarr", cosine=0.5)


def test_a_run_has_its_rows_and_clusters(tmp_path):
    values = rows()
    place = store(tmp_path / "e.zarr", values)
    sc.cluster(place, tmp_path / "run", levels=[10])
    refused(tmp_path, ConfigError, r"subset: .*run is a run.*name its store", tmp_path / "run", cosine=0.9, subset=[1])
    refused(tmp_path, ConfigError, r"clusters: 5 for .*run", tmp_path / "run", cosine=0.9, clusters=5)
    moved = tmp_path / "moved.zarr"
    place.rename(moved)
    refused(tmp_path, StoreError, "the rows it was built from are not there", tmp_path / "run", cosine=0.9)
    moved.rename(place)
    shutil.rmtree(place)
    store(place, rows(seed=8))
    refused(tmp_path, StoreError, "changed since", tmp_path / "run", cosine=0.9)


def test_a_tree_may_hold_rows_without_a_direction(tmp_path):
    values = rows()
    values[[17, 300, 301]] = 0
    place = store(tmp_path / "e.zarr", values)
    tree = sc.cluster(place, tmp_path / "run", levels=[10], metric="l2")
    words = r'3 rows are zero and have no direction .*first: row 17, id "img_0017"\); give a distance \(--l2\)'
    refused(tmp_path, DataError, words, tree, cosine=0.9)
    inside = values.any(axis=1)
    tree = sc.cluster(place, tmp_path / "inside", levels=[10], metric="l2", subset=inside)
    check(dedup(tree, tmp_path / "out", cosine=0.99), grouped(values, "cosine", 2 * (1 - 0.99), inside), ROWS, inside)


def test_places_that_are_taken(tmp_path):
    values = rows()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="already exists, and is no finished dedup"):
        dedup(values, tmp_path / "file", cosine=0.9)
    with pytest.raises(InputError, match="does not exist; make it first"):
        dedup(values, tmp_path / "no" / "out", cosine=0.9)
    place = store(tmp_path / "e.zarr", values)
    dedup(place, tmp_path / "out", cosine=0.9)
    before = content(tmp_path / "out")
    for options, differs in (
        ({"cosine": 0.8}, "cosine 0.9 instead of 0.8"),
        ({"l2": 0.9}, "cosine 0.9 instead of none"),
        ({"cosine": 0.9, "keep": "first"}, "keep 'closest' instead of 'first'"),
        ({"cosine": 0.9, "clusters": 7}, "clusters none instead of 7"),
        ({"cosine": 0.9, "most_neighbours": 7}, "most neighbours none instead of 7"),
    ):
        with pytest.raises(InputError, match=f"out: holds a finished dedup with {differs}; choose another place"):
            dedup(place, tmp_path / "out", **options)
    dedup(place, tmp_path / "out", cosine=0.9, search="blas")  # which changes nothing
    dedup(values, tmp_path / "out", cosine=0.9)
    with pytest.raises(InputError, match="of other rows than"):
        dedup(rows(seed=9), tmp_path / "out", cosine=0.9)
    shutil.rmtree(place)
    store(place, rows(seed=9))
    with pytest.raises(InputError, match=r"of other rows than .*e\.zarr holds now"):
        dedup(place, tmp_path / "out", cosine=0.9)
    assert content(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["e.zarr", "file", "out"]


def test_a_store_that_changed_in_between(tmp_path, monkeypatch):
    place = store(tmp_path / "e.zarr", rows())
    with monkeypatch.context() as patch:
        patch.setattr(job, "find_components", stopping)
        with pytest.raises(KeyboardInterrupt):
            dedup(place, tmp_path / "out", cosine=0.99)
    shutil.rmtree(place)
    store(place, rows(seed=9))
    words = r"changed since the run began.*; for a dedup of the rows as they are now, remove .*out\.partial as well"
    with pytest.raises(StoreError, match=words):
        dedup(place, tmp_path / "out", cosine=0.99)


@pytest.mark.parametrize("stage", ["regrouping rows", "rows to keep"])
@pytest.mark.parametrize("kind", ["store", "tree"])
def test_a_store_that_changes_meanwhile(kind, stage, tmp_path):
    place, whole = store(tmp_path / "e.zarr", rows()), store(tmp_path / "whole.zarr", rows())
    source = place if kind == "store" else sc.cluster(place, tmp_path / "run", levels=[20])

    class Writer(Listener):
        def started(self, name: str, rows: int) -> None:
            if name == stage:
                array = open_array(place / "embeddings", writable=True)
                array.write(128, array.read(128, 256)[::-1].copy())

    words = r"changed since the run began: rows 128 to 255 .*remove .*out\.partial as well"
    with pytest.raises(StoreError, match=words):
        dedup(source, tmp_path / "out", cosine=0.99, progress=Writer())
    assert not (tmp_path / "out").exists()
    # Put back, it gives what undisturbed work gives.
    shutil.rmtree(place)
    shutil.copytree(whole, place)
    dedup(source, tmp_path / "out", cosine=0.99)
    dedup(source, tmp_path / "plain", cosine=0.99)
    assert content(tmp_path / "out") == content(tmp_path / "plain")


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_at_a_url(object_store, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path / "temporary"))
    values = rows()
    plain = dedup(values, tmp_path / "plain", cosine=0.99)
    url = object_store.url("out")
    with monkeypatch.context() as patch:
        patch.setattr(job, "write_summary", stopping)
        with pytest.raises(KeyboardInterrupt):
            dedup(values, url, cosine=0.99)
    with pytest.raises(InputError, match="no such folder"):
        open_duplicates(url)
    found = dedup(values, url, cosine=0.99)
    assert found.summary == plain.summary
    assert os.listdir(tmp_path / "temporary") == []
    np.testing.assert_array_equal(np.concatenate(list(found.rows_kept())), np.flatnonzero(np.load(plain.mask)))
    tree = sc.cluster(values, tmp_path / "run", levels=[10], subset=found)
    assert tree.manifest.levels[0].rows == found.kept
    assert dedup(values, url, cosine=0.99).summary == plain.summary
    with pytest.raises(InputError, match="holds a finished dedup with cosine"):
        dedup(values, url, cosine=0.98)
