"""Regrouped rows are all there, once, whatever the memory, and cells know their extent."""

from __future__ import annotations

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.embeddings import as_embeddings
from streamcurate.errors import MemoryLimitError
from streamcurate.neighbors.pairs.bounds import point_norms
from streamcurate.neighbors.pairs.grouped import at_most, group_rows, tile_edges, tile_rows_for
from streamcurate.streaming import MemoryBudget, SerialExecutor

ROWS, DIMS = 900, 5


def rows(dtype=np.float32):
    generator = np.random.default_rng(4)
    centres = generator.standard_normal((7, DIMS)) * 5
    return (centres[generator.integers(0, 7, ROWS)] + generator.standard_normal((ROWS, DIMS))).astype(dtype)


def group(values, folder, *, levels=20, metric="l2", tree_metric="l2", memory=1 << 30, threads=1, **options):
    subset = options.pop("subset", None)
    tree = sc.cluster(values, levels=[levels], metric=tree_metric, seed=0, threads=1, subset=subset)
    level = tree.levels[0]
    options = {"tile_rows": 64, "cell_rows": 12, **options}
    with SerialExecutor(MemoryBudget(memory, threads)) as executor:
        return group_rows(
            as_embeddings(values), level.stored_labels, level.stored_centroids, level.sizes(), metric, tree_metric,
            0.1, executor, folder, **options,
        )  # fmt: skip


def tiles_of(found):
    return [found.rows.tile(number, found.table) for number in range(found.table.count)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("metric", "tree_metric"), [("l2", "l2"), ("cosine", "l2"), ("l2", "cosine")])
@pytest.mark.parametrize("levels", [1, 20, 300])
def test_every_row_lies_in_one_tile(levels, metric, tree_metric, dtype, tmp_path):
    values = rows(dtype)
    found = group(values, tmp_path, levels=levels, metric=metric, tree_metric=tree_metric)
    tiles = tiles_of(found)
    numbers = np.concatenate([tile.numbers for tile in tiles])
    assert sorted(numbers.tolist()) == list(range(ROWS))
    table, geometry = found.table, found.rows.geometry
    assert (table.tile_rows() <= 64).all()
    assert 20 < table.cells < 200
    for tile in tiles:
        np.testing.assert_array_equal(tile.values, values[tile.numbers])
        points = geometry.points(tile.values)
        for cell in range(len(tile.centres)):
            part = points[tile.edges[cell] : tile.edges[cell + 1]]
            number = tile.first_cell + cell
            assert (point_norms(part) <= table.reach[number]).all()
            away = np.linalg.norm(part.astype(np.float64) - tile.centres[cell], axis=1)
            assert (away <= table.spread[number]).all()
            assert table.spread[number] <= away.max() * 1.00001 + 1e-5
            assert table.examples[number] in tile.numbers[tile.edges[cell] : tile.edges[cell + 1]]
    assert {tuple(row) for row in found.sample.tolist()} <= {tuple(row) for row in values.tolist()}
    assert not (tmp_path / "segments").exists()


def test_memory_and_threads_change_nothing(tmp_path):
    values = rows()
    digests = {
        group(values, tmp_path / str(number), memory=memory, threads=threads).table.digest()
        for number, (memory, threads) in enumerate([(1 << 30, 1), (1 << 30, 3), (266 << 20, 1)])
    }
    assert len(digests) == 1
    assert group(values, tmp_path / "other", cell_rows=24).table.digest() not in digests


def test_rows_outside_the_subset_are_left_out(tmp_path):
    found = group(rows(), tmp_path, subset=np.arange(0, ROWS, 2))
    numbers = np.concatenate([tile.numbers for tile in tiles_of(found)])
    assert sorted(numbers.tolist()) == list(range(0, ROWS, 2))


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(MemoryLimitError, match=r"putting .* rows in order needs"):
        group(rows(), tmp_path, memory=240 << 20)


def test_tiles_keep_cells_whole():
    assert tile_edges(np.array([5, 5, 1, 10, 2, 9]), 10).tolist() == [0, 2, 3, 4, 5, 6]
    assert tile_edges(np.array([], dtype=np.int64), 10).tolist() == [0]
    for count, dims in ((10, 3), (20_000, 384), (10**9, 128), (10**6, 4096), (10**6, 1)):
        assert 64 <= tile_rows_for(count, dims) <= 1 << 15
        assert tile_rows_for(count, dims) * dims <= max(1 << 21, 64 * dims)


@pytest.mark.parametrize("dims", [1, 384, 4096, 1 << 22])
def test_wide_rows_are_held_in_smaller_numbers(dims):
    for rows in (4096, 1 << 14):
        assert 1 <= at_most(rows, dims) <= rows
        assert at_most(rows, dims) * dims <= max(1 << 21, dims)


def test_centres_and_samples_of_wide_rows(tmp_path, monkeypatch):
    values = np.random.default_rng(0).standard_normal((ROWS, 40)).astype(np.float32)
    plain = group(values, tmp_path / "plain")
    monkeypatch.setattr("streamcurate.neighbors.pairs.grouped._BLOCK_VALUES", 400)
    found = group(values, tmp_path / "blocks")
    assert len(plain.sample) > 400
    assert len(found.sample) < 40
    assert found.rows.centres.chunk_rows == 10
    assert sorted(number for tile in tiles_of(found) for number in tile.numbers.tolist()) == list(range(ROWS))
    for name in ("plain", "blocks"):
        assert not list((tmp_path / name).glob("*.centres"))
