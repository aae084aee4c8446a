"""A tile comes back as it was written, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.embeddings import as_embeddings
from streamcurate.errors import StoreError
from streamcurate.neighbors.pairs.grouped import group_rows
from streamcurate.neighbors.pairs.tiles import TileTable
from streamcurate.streaming import MemoryBudget, SerialExecutor


@pytest.fixture
def grouped(tmp_path):
    values = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float16)
    level = sc.cluster(values, levels=[6], seed=0, threads=1).levels[0]
    with SerialExecutor(MemoryBudget(1 << 30, 1)) as executor:
        found = group_rows(
            as_embeddings(values), level.stored_labels, level.stored_centroids, level.sizes(), "l2", "l2", 0.1,
            executor, tmp_path / "rows", 64, 10,
        )  # fmt: skip
    return values, found


def test_the_table_travels_as_arrays(grouped):
    _, found = grouped
    table = TileTable.of(found.table.state())
    assert table.digest() == found.table.digest()
    assert table.rows == 300
    assert table.cells == len(found.table.reach)
    assert table.tile_rows().sum() == 300
    changed = TileTable.of({**table.state(), "checksums": table.checksums + np.uint64(1)})
    assert changed.digest() != table.digest()


@pytest.mark.parametrize("kind", ["values", "numbers"])
@pytest.mark.parametrize("damage", ["changed", "cut short", "gone"])
def test_damaged_files_are_noticed(grouped, kind, damage):
    _, found = grouped
    tile = found.rows.tile(found.table.count - 1, found.table)
    assert tile.rows == found.table.tile_rows()[-1]
    bucket = found.table.files[-1, 0]
    (path,) = found.rows.folder.glob(f"bucket-{bucket}-*.{kind}")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut short" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match="scratch is gone or damaged; give the same command again"):
        found.rows.tile(found.table.count - 1, found.table)


def test_points_and_products(grouped):
    values, found = grouped
    tile = found.rows.tile(1, found.table)
    points, own = tile.measured(found.rows.geometry)
    np.testing.assert_array_equal(tile.values, values[tile.numbers])
    cell = np.repeat(np.arange(len(tile.centres)), np.diff(tile.edges))
    np.testing.assert_allclose(own, np.einsum("ij,ij->i", points, tile.centres[cell]), rtol=1e-5, atol=1e-5)
    assert len(tile.without_values().values) == 0
