"""The duplicates found are those of all pairs, for any tree, metric and threshold; what is skipped is recorded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcurate as sc
from streamcurate import kernels
from streamcurate.embeddings import as_embeddings
from streamcurate.errors import InputError, MemoryLimitError
from streamcurate.neighbors.pairs import pairing, searching
from streamcurate.neighbors.pairs import search as join
from streamcurate.neighbors.pairs.grouped import tile_rows_for
from streamcurate.neighbors.pairs.search import EdgesFound, find_edges
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.events import StageFinished
from streamcurate.streaming import MemoryBudget, SerialExecutor
from streamcurate.streaming.budget import SMALLEST_LIMIT


def all_values(values: np.ndarray, metric: str) -> np.ndarray:
    """The formula's value of every pair of rows."""
    exact = values.astype(np.float64)
    if metric == "cosine":
        squares = np.zeros(len(exact))
        for column in exact.T:
            squares += column * column
        exact = exact / np.where(squares == 0, 1, np.sqrt(squares))[:, None]
    found = np.zeros((len(exact), len(exact)))
    for column in exact.T:
        found += (column[:, None] - column[None]) ** 2
    return found


def components(close: np.ndarray) -> np.ndarray:
    """The lowest row of each row's component."""
    lowest = np.arange(len(close))
    while True:
        following = np.where(close, lowest[None], len(close)).min(axis=1)
        if (following == lowest).all():
            return lowest
        lowest = following


def united(rows: int, found: EdgesFound) -> np.ndarray:
    parents = np.arange(rows)
    for file in found.files:
        for block in file.blocks():
            kernels.unite_edges(parents, np.ascontiguousarray(block))
    kernels.settle_groups(parents)
    return parents


def find(tree, values, limit, metric, folder: Path, *, threads=1, memory=1 << 30, **options) -> EdgesFound:
    options = {"tile_rows": 128, "cell_rows": 16, **options}
    with SerialExecutor(MemoryBudget(memory, threads)) as executor:
        checkpoints = Checkpoints(folder / "checkpoints", durable=False)
        return find_edges(
            tree, as_embeddings(values), limit, metric, executor, folder / "scratch", checkpoints, **options
        )


def clumps(seed: int, rows: int, dims: int, dtype=np.float32) -> np.ndarray:
    """Clumps of different sizes, with copies and near copies."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((8, dims)) * 3
    values = centres[generator.choice(8, rows, p=np.arange(1, 9) / 36)] + generator.standard_normal((rows, dims))
    copied = generator.integers(0, rows, rows // 4)
    values[generator.integers(0, rows, rows // 4)] = (
        values[copied] + generator.standard_normal((rows // 4, dims)) * 0.01
    )
    values[: rows // 10] = values[rows // 10]
    return values.astype(dtype)


KINDS = {
    "one level": [sc.Level(12)],
    "two levels": [sc.Level(20), sc.Level(4)],
    "splits": [sc.Level(4, splits=6)],
    "one cluster": [sc.Level(1)],
    "more clusters than there are groups": [sc.Level(90)],
}


@pytest.mark.parametrize("tree_metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_all_pairs(kind, tree_metric, tmp_path):
    values = clumps(1, 500, 5)
    tree = sc.cluster(values, levels=KINDS[kind], metric=tree_metric, seed=0, threads=1)
    pruned = 0
    for metric in ("l2", "cosine"):
        exact = all_values(values, metric)
        # Of some pairs the value is the limit itself.
        for limit in np.quantile(exact, [0.004, 0.2], method="nearest").tolist():
            found = find(tree, values, limit, metric, tmp_path / f"{metric}-{limit}")
            np.testing.assert_array_equal(united(500, found), components(exact <= limit))
            assert found.rows == 500
            assert found.possible == 500 * 499 // 2
            assert found.covered <= found.possible
            assert found.joined + found.pruned == found.cells * (found.cells - 1) // 2
            assert found.skipped == 0
            pruned += found.pruned
    assert pruned > 300


@settings(max_examples=12)
@given(
    st.integers(0, 10**6),
    st.integers(2, 300),
    st.sampled_from([2, 3, 16, 64]),
    st.sampled_from([np.float16, np.float32]),
    st.sampled_from(["l2", "cosine"]),
    st.floats(0, 0.2),
    st.sampled_from([16, 50, 400]),
)
def test_equals_all_pairs_of_any_rows(tmp_path_factory, seed, rows, dims, dtype, metric, share, tile_rows):
    values = clumps(seed, rows, dims, dtype)
    tree = sc.cluster(values, levels=[min(6, rows)], seed=0, threads=1)
    exact = all_values(values, metric)
    limit = float(np.quantile(exact, share, method="nearest"))
    folder = tmp_path_factory.mktemp("any")
    found = find(tree, values, limit, metric, folder, tile_rows=tile_rows, cell_rows=8)
    np.testing.assert_array_equal(united(rows, found), components(exact <= limit))


@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_any_scale(scale, tmp_path):
    values = (clumps(2, 300, 4).astype(np.float64) * scale).astype(np.float32)
    tree = sc.cluster(values, levels=[9], seed=0, threads=1)
    exact = all_values(values, "l2")
    limit = float(np.quantile(exact, 0.01))
    found = find(tree, values, limit, "l2", tmp_path)
    np.testing.assert_array_equal(united(300, found), components(exact <= limit))
    assert found.pruned > 0


def test_rows_outside_the_subset_are_not_looked_at(tmp_path):
    values = clumps(3, 400, 6)
    chosen = np.arange(0, 400, 3)
    tree = sc.cluster(values, levels=[10], seed=0, threads=1, subset=chosen)
    exact = all_values(values, "l2")
    limit = float(np.quantile(exact, 0.05))
    found = find(tree, values, limit, "l2", tmp_path)
    close = np.zeros_like(exact, dtype=bool)
    close[np.ix_(chosen, chosen)] = exact[np.ix_(chosen, chosen)] <= limit
    close[np.arange(400), np.arange(400)] = True
    np.testing.assert_array_equal(united(400, found), components(close))
    assert found.rows == len(chosen)


def test_no_pair_of_rows(tmp_path):
    values = clumps(3, 40, 6)
    tree = sc.cluster(values, levels=[1], seed=0, threads=1, subset=[7])
    found = find(tree, values, 1e9, "l2", tmp_path)
    assert (found.rows, found.files, found.possible) == (1, [], 0)


def test_many_copies_are_one_component_of_few_edges(tmp_path):
    values = np.ones((600, 3), dtype=np.float32)
    values[::7] += 5
    tree = sc.cluster(values, levels=[3], seed=0, threads=1)
    found = find(tree, values, 0.0, "l2", tmp_path)
    np.testing.assert_array_equal(united(600, found), np.where(np.arange(600) % 7 == 0, 0, 1))
    assert sum(file.count for file in found.files) < 700
    assert found.rescored < 2000


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")
def test_approximate_labels_and_search_by_faiss(tmp_path):
    values = clumps(5, 500, 8)
    tree = sc.cluster(values, levels=[sc.Level(40, search="faiss")], seed=0, threads=1)
    exact = all_values(values, "cosine")
    limit = float(np.quantile(exact, 0.02))
    for search in ("blas", "faiss"):
        found = find(tree, values, limit, "cosine", tmp_path / search, search=search)
        np.testing.assert_array_equal(united(500, found), components(exact <= limit))


def test_threads_memory_and_tiles_do_not_matter(tmp_path):
    values = clumps(6, 900, 7, np.float16)
    tree = sc.cluster(values, levels=[15], seed=0, threads=1)
    limit = float(np.quantile(all_values(values, "l2"), 0.01))
    expected = united(900, find(tree, values, limit, "l2", tmp_path / "one"))
    edges = [file.checksum for file in find(tree, values, limit, "l2", tmp_path / "same").files]
    assert len(np.unique(expected)) < 850
    for number, options in enumerate(
        ({"threads": 3}, {"memory": 400 << 20}, {"tile_rows": 1000}, {"tile_rows": 20, "cell_rows": 5})
    ):
        found = find(tree, values, limit, "l2", tmp_path / str(number), **options)
        np.testing.assert_array_equal(united(900, found), expected)
        if number < 2:
            assert [file.checksum for file in found.files] == edges


def test_what_does_not_fit_is_refused(tmp_path):
    values = clumps(6, 100, 7)
    tree = sc.cluster(values, levels=[5], seed=0, threads=1)
    with pytest.raises(MemoryLimitError, match=r"comparing tiles of 128 rows of 7 dims needs .* --memory-limit"):
        find(tree, values, 0.1, "l2", tmp_path, memory=250 << 20)
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("most", [1, 3])
def test_few_neighbours_tell_what_they_skipped(most, tmp_path, monkeypatch):
    values = clumps(7, 800, 3)
    tree = sc.cluster(values, levels=[30], seed=0, threads=1)
    exact = all_values(values, "l2")
    limit = float(np.quantile(exact, 0.015))
    cell_of = np.empty(800, dtype=np.int64)
    original = join.group_rows

    def group_rows(*given, **options):
        grouping = original(*given, **options)
        for number in range(grouping.table.count):
            tile = grouping.rows.tile(number, grouping.table)
            cell_of[tile.numbers] = np.repeat(np.arange(tile.cells.start, tile.cells.stop), np.diff(tile.edges))
        return grouping

    monkeypatch.setattr(join, "group_rows", group_rows)
    full = find(tree, values, limit, "l2", tmp_path / "full")
    found = find(tree, values, limit, "l2", tmp_path / "few", most_neighbours=most)
    assert found.skipped > 0
    assert found.skipped + found.joined == full.joined
    assert found.pruned == full.pruned
    assert found.covered < full.covered
    skipped = np.concatenate(list(found.skipped_pairs.blocks(7)))
    assert len(skipped) == found.skipped
    sizes = np.bincount(cell_of)
    pairs = {}
    for record in skipped:
        assert record["low"] < record["high"]
        assert record["rows_low"] == sizes[record["low"]]
        assert record["rows_high"] == sizes[record["high"]]
        assert cell_of[record["example_low"]] == record["low"]
        assert cell_of[record["example_high"]] == record["high"]
        pairs[int(record["low"]), int(record["high"])] = float(record["least"])
    components_found = united(800, found)
    one, other = np.nonzero(np.triu(exact <= limit, 1))
    missed = components_found[one] != components_found[other]
    assert missed.any()
    for a, b in zip(cell_of[one[missed]].tolist(), cell_of[other[missed]].tolist(), strict=True):
        assert (min(a, b), max(a, b)) in pairs
    for (a, b), distance in pairs.items():
        assert distance <= np.sqrt(exact[np.ix_(cell_of == a, cell_of == b)].min()) * (1 + 1e-12)
        assert distance <= np.sqrt(limit) * (1 + 1e-12)
    # As many neighbours as there are cells leave nothing out.
    everything = find(tree, values, limit, "l2", tmp_path / "all", most_neighbours=found.cells)
    assert everything.skipped == 0
    assert everything.skipped_pairs is None
    np.testing.assert_array_equal(united(800, everything), united(800, full))


def counted(name, calls):
    original = getattr(pairing, name)

    def call(*given):
        calls.append(name)
        return original(*given)

    return call


class TestResuming:
    @pytest.fixture
    def case(self, tmp_path, monkeypatch):
        values = clumps(8, 900, 4)
        tree = sc.cluster(values, levels=[20], seed=0, threads=1)
        limit = float(np.quantile(all_values(values, "l2"), 0.02))
        calls = []
        for name in ("unite_within", "unite_between"):
            monkeypatch.setattr(searching, name, counted(name, calls))
        monkeypatch.setattr("streamcurate.neighbors.pairs.plan._FEWEST_PAIRS", 1)
        monkeypatch.setattr("streamcurate.neighbors.pairs.plan._PARTS_AN_ITEM", 1)
        first = find(tree, values, limit, "l2", tmp_path, tile_rows=64)
        assert calls.count("unite_within") > 10
        assert calls.count("unite_between") > 20

        def again(**options):
            calls.clear()
            found = find(tree, values, limit, "l2", tmp_path, **{"tile_rows": 64, **options})
            assert (found.covered, found.joined, found.pruned) == (first.covered, first.joined, first.pruned)
            np.testing.assert_array_equal(united(900, found), united(900, first))
            return len(calls)

        return again, first

    def test_finished_parts_are_not_done_again(self, case):
        again, _ = case
        assert again() == 0
        assert again(threads=2, memory=500 << 20) == 0

    def test_missing_and_damaged_edges_are_found_again(self, case):
        again, first = case
        for file in first.files[::2]:
            Path(file.path).unlink()
        some = again()
        assert 0 < some < 300
        path = Path(first.files[1].path)
        content = bytearray(path.read_bytes())
        content[3] ^= 1
        path.write_bytes(content)
        assert 0 < again() < some
        assert again() == 0

    def test_lost_checkpoints(self, case, tmp_path):
        again, _ = case
        kept = sorted((tmp_path / "checkpoints").glob("*.json"))
        for path in kept[::3]:
            path.unlink()
        assert again() > 0
        assert again() == 0

    def test_another_limit_begins_anew(self, case, tmp_path):
        before = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        values = clumps(8, 900, 4)
        tree = sc.cluster(values, levels=[20], seed=0, threads=1)
        found = find(tree, values, 1e-4, "l2", tmp_path)
        np.testing.assert_array_equal(united(900, found), components(all_values(values, "l2") <= 1e-4))
        assert before < {path.name for path in (tmp_path / "checkpoints").iterdir()}


@pytest.mark.parametrize("dims", [2, 128, 384, 768, 1024, 2048, 4096])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_usual_rows_fit_the_smallest_memory(dims, itemsize):
    needed = join.join_bytes(tile_rows_for(10**9, dims), dims, itemsize, "auto")
    assert needed <= MemoryBudget(SMALLEST_LIMIT, 1).usable


def test_no_neighbours_are_refused(tmp_path):
    values = clumps(9, 50, 4)
    tree = sc.cluster(values, levels=[5], seed=0, threads=1)
    with pytest.raises(InputError, match="most_neighbours is 0; it must be at least 1"):
        find(tree, values, 0.1, "l2", tmp_path, most_neighbours=0)


def test_events(tmp_path):
    values = clumps(9, 100, 4)
    tree = sc.cluster(values, levels=[5], seed=0, threads=1)
    events = []
    find(tree, values, 0.1, "l2", tmp_path, emit=events.append)
    assert [event.stage for event in events] == ["regrouping rows", "searching tiles", "comparing tiles"]
    assert all(isinstance(event, StageFinished) for event in events)
