"""The plan holds exactly the pairs that bounds leave, however little memory it has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import MemoryLimitError, StoreError
from streamcurate.neighbors.pairs import plan as pairs_plan
from streamcurate.neighbors.pairs.plan import make_plan
from streamcurate.neighbors.pairs.tiles import TileTable
from streamcurate.streaming import MemoryBudget

RADIUS, MISSING = 1.0, 1.5


class SmallBudget:
    """Plans in many buckets, and refuses nothing."""

    usable = 40_000

    def require(self, *told):
        return None


def table_of(cell_rows, tiles):
    cells = len(cell_rows)
    return TileTable(
        np.append(0, np.cumsum(cell_rows)), np.array(tiles), np.ones(cells), np.ones(cells), np.arange(cells) * 10,
        np.zeros((len(tiles) - 1, 2), np.int64), np.zeros(1, np.uint64), np.zeros(len(tiles) - 1, np.uint64),
    )  # fmt: skip


def case(seed, tiles=9):
    """Bounds between all cells, and the table."""
    generator = np.random.default_rng(seed)
    edges = np.append(0, np.cumsum(generator.integers(1, 5, tiles)))
    table = table_of(generator.integers(1, 50, edges[-1]), edges)
    bounds = generator.normal(0.6, 0.5, (table.cells, table.cells)).astype(np.float32)
    bounds[generator.random(bounds.shape) < 0.1] = -np.inf
    np.fill_diagonal(bounds, np.inf)
    return table, bounds


def planned(table, bounds, folder, budget=None, **options):
    def given_bounds():
        for tile in range(table.count):
            cells = slice(table.tiles[tile], table.tiles[tile + 1])
            tails, heads = np.nonzero(bounds[cells] <= np.float32(MISSING))
            yield tails + cells.start, heads, bounds[cells][tails, heads]

    entries = int((bounds <= np.float32(MISSING)).sum())
    budget = budget or MemoryBudget(1 << 30, 1)
    return make_plan(given_bounds, entries, table, RADIUS, MISSING, 2.0, folder, budget, **options)


def pairs_in(plan):
    records = [item.read(plan.path) for item in plan.items]
    return np.concatenate(records) if records else np.empty(0, pairs_plan.PAIR)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_the_pairs_that_bounds_leave(tmp_path_factory, seed):
    table, bounds = case(seed)
    kept = np.minimum(bounds, np.float32(MISSING)).astype(np.float64)
    none = (bounds > MISSING) & (bounds.T > MISSING)
    possible = np.triu((kept + kept.T <= RADIUS) & ~none, 1)
    tile = table.tile_of_cell
    for budget in (None, SmallBudget()):
        plan = planned(table, bounds, tmp_path_factory.mktemp("plan"), budget)
        records = pairs_in(plan)
        assert plan.joined == possible.sum()
        assert plan.skipped is None
        expected = {(a, b) for a, b in zip(*np.nonzero(possible), strict=True) if tile[a] != tile[b]}
        assert {(r["low"], r["high"]) for r in records} == expected
        assert len(records) == len(expected)
        for record in records:
            assert record["forth"] == np.float32(kept[record["low"], record["high"]])
            assert record["back"] == np.float32(kept[record["high"], record["low"]])
        sizes = np.diff(table.edges)
        assert sum(item.pairs for item in plan.items) == (sizes[records["low"]] * sizes[records["high"]]).sum()


def test_parts_hold_few_lower_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_plan, "_FEWEST_PAIRS", 2000)
    monkeypatch.setattr(pairs_plan, "_PARTS_WANTED", 10**9)
    table, bounds = case(3, tiles=30)
    plan = planned(table, bounds, tmp_path)
    assert len(plan.items) > 3
    position = 0
    for item in plan.items:
        assert item.start == item.parts[0] == position
        position = item.parts[-1]
        assert position == item.stop
        records = item.read(plan.path)
        for start, stop in zip(item.parts[:-1], item.parts[1:], strict=True):
            part = records[start - item.start : stop - item.start]
            lower = table.tile_of_cell[part["low"]]
            assert len(np.unique(lower // pairs_plan.HELD_TILES)) == 1
            joins = lower + 1000 * table.tile_of_cell[part["high"]]
            assert np.count_nonzero(np.diff(joins)) == len(np.unique(joins)) - 1


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_nearest_partners_of_either_cell(tmp_path_factory, seed, most):
    table, bounds = case(seed)
    kept = np.minimum(bounds, np.float32(MISSING)).astype(np.float64)
    least = np.maximum(kept + kept.T, 0.0)
    possible = (
        (kept + kept.T <= RADIUS) & ~((bounds > MISSING) & (bounds.T > MISSING)) & ~np.eye(table.cells, dtype=bool)
    )
    chosen = np.zeros_like(possible)
    for cell in range(table.cells):
        partners = np.flatnonzero(possible[cell])
        chosen[cell, partners[np.lexsort((partners, least[cell, partners]))][:most]] = True
    tile = table.tile_of_cell
    chosen |= chosen.T | (possible & (tile[:, None] == tile[None]))
    for budget in (None, SmallBudget()):
        plan = planned(table, bounds, tmp_path_factory.mktemp("few"), budget, most_neighbours=most)
        assert plan.joined == np.triu(chosen).sum()
        missed = np.triu(possible & ~chosen)
        skipped = list(plan.skipped.blocks(3)) if plan.skipped is not None else []
        assert {(r["low"], r["high"]) for block in skipped for r in block} == set(zip(*np.nonzero(missed), strict=True))
        for block in skipped:
            np.testing.assert_allclose(block["least"], 2 * least[block["low"], block["high"]])


def test_damage_is_noticed(tmp_path):
    table, bounds = case(1)
    plan = planned(table, bounds, tmp_path, most_neighbours=1)
    for path, read in (
        (plan.path, lambda: pairs_in(plan)),
        (tmp_path / "skipped", lambda: list(plan.skipped.blocks())),
    ):
        read()
        content = path.read_bytes()
        for damaged in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
            path.write_bytes(damaged)
            with pytest.raises(StoreError, match="give the same command again"):
                read()
        path.unlink()
        with pytest.raises(StoreError):
            read()


def test_a_plan_too_large_is_refused(tmp_path):
    table, bounds = case(1)
    with pytest.raises(MemoryLimitError, match="comparing the bounds of"):
        planned(table, bounds, tmp_path, MemoryBudget(230 << 20, 1))
