"""One tree: whatever the block sizes, threads, chunks, kinds of input, and memory, the same digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import streamcurate as sc
from streamcurate.clustering import centroids, fit, kept_labels, sample_rows, split
from streamcurate.kernels.cpu import prepare
from streamcurate.storage import create_array, create_group
from streamcurate.streaming import MemoryBudget, budget, shuffle
from streamcurate.streaming.shuffle import SortedRecords

ROWS, DIMS = 800, 6

LEVELS = {
    "resampled": [sc.Level(40, resampling=sc.Resampling(2, 3)), sc.Level(8, resampling=sc.Resampling(2, 2))],
    "random": [
        sc.Level(40, init="random", iterations=6, resampling=sc.Resampling(1, 3, "random")),
        sc.Level(8, init="random"),
    ],
    "oversampled": [sc.Level(30, init="k-means||", iterations=5), sc.Level(5, init="k-means||")],
    "minibatch": [sc.Level(30, algorithm="minibatch", iterations=3), sc.Level(5, algorithm="minibatch")],
    "fit rows": [sc.Level(30, fit_rows=301, iterations=5), sc.Level(5, fit_rows=20)],
    "splits": [sc.Level(9, splits=6, iterations=6), sc.Level(7, splits=2)],
}


def rows() -> np.ndarray:
    """Clumps of very different sizes, with repeated rows; exact in float16, negative values of wide range."""
    generator = np.random.default_rng(11)
    centres = generator.standard_normal((9, DIMS)) * 6
    which = generator.choice(9, ROWS, p=np.arange(1, 10) / 45)
    values = (centres[which] + generator.standard_normal((ROWS, DIMS))).astype(np.float16)
    values[200:240] = values[199]
    return values


def store(place: Path, values: np.ndarray, chunk_rows: int) -> Path:
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, chunk_rows).write(0, values)
    return place


class World:
    """Builds trees of one configuration, and holds them against the plainest build."""

    def __init__(self, folder: Path, levels: Any, metric: str = "l2") -> None:
        self.folder, self.levels, self.metric = folder, levels, metric
        self.count = 0

    def digest(self, source: Any = None, **options: Any) -> str:
        self.count += 1
        source = rows() if source is None else source
        run = self.folder / f"run-{self.count}"
        tree = sc.cluster(source, run, levels=self.levels, metric=self.metric, seed=9, **options)
        self.tree = tree
        return tree.digest


@pytest.fixture(scope="module")
def plainest(tmp_path_factory) -> Callable[[World], sc.Tree]:
    """The plainest build of a world's levels, made once for all tests and with nothing patched."""
    made: dict[int, sc.Tree] = {}

    def tree(world: World) -> sc.Tree:
        key = id(world.levels)
        if key not in made:
            maker = World(tmp_path_factory.mktemp("plainest"), world.levels, world.metric)
            maker.digest(threads=1, prefetch=False)
            made[key] = maker.tree
        return made[key]

    return tree


@pytest.fixture(params=LEVELS)
def world(request, tmp_path) -> World:
    return World(tmp_path, LEVELS[request.param])


@pytest.fixture
def plain(world, plainest) -> str:
    world.tree = plainest(world)
    return world.tree.digest


def small_blocks(monkeypatch, most: int) -> None:
    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", most)
    monkeypatch.setattr(budget, "_SMALLEST_BLOCK_ROWS", min(most, budget._SMALLEST_BLOCK_ROWS))


@pytest.mark.parametrize(("most", "threads", "prefetch"), [(11, 2, True), (50, 3, True), (64, 3, False), (90, 1, True)])
def test_blocks_threads_and_prefetch(world, plain, monkeypatch, most, threads, prefetch):
    small_blocks(monkeypatch, most)
    assert world.digest(threads=threads, prefetch=prefetch) == plain


@pytest.mark.parametrize("sums_share", [1.0, 0.0])
def test_labels_and_sums_kept_between_iterations(world, plain, monkeypatch, sums_share):
    small_blocks(monkeypatch, 90)
    monkeypatch.setattr(kept_labels, "_FEWEST_OPERATIONS", 0)
    monkeypatch.setattr(kept_labels, "_SUMS_SHARE", sums_share)
    monkeypatch.setattr(prepare, "DIRECT_WORK", 0)  # so that there are floors
    assert world.digest(threads=3) == plain


@pytest.mark.parametrize("chunk_rows", [13, 500])
def test_chunks_of_the_store(world, plain, tmp_path, chunk_rows, monkeypatch):
    monkeypatch.setattr(fit, "_HELD_SHARE", 0)  # held in memory, the store's chunks would be seen no more
    small_blocks(monkeypatch, 90)
    place = store(tmp_path / "e.zarr", rows(), min(chunk_rows, ROWS))
    assert world.digest(place, threads=2) == plain


def test_compressed_and_column_chunked_stores(world, plain, tmp_path):
    values = rows()
    for version, chunks in ((2, (100, 4)), (3, (77, DIMS))):
        place = tmp_path / f"v{version}.zarr"
        array = zarr.create_array(
            str(place), shape=values.shape, dtype=values.dtype, chunks=chunks, zarr_format=version, fill_value=0
        )
        array[:] = values
        assert world.digest(place, threads=2) == plain
        assert world.digest(zarr.open_array(str(place), mode="r"), threads=1) == plain


def test_dask_arrays(world, plain):
    dask = pytest.importorskip("dask.array")
    assert world.digest(dask.from_array(rows(), chunks=(111, DIMS)), threads=2) == plain
    assert world.digest(dask.from_array(rows(), chunks=(700, 2)), threads=1) == plain


def test_streamed_or_held_in_memory(world, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "_HELD_SHARE", 0)
    small_blocks(monkeypatch, 50)
    assert world.digest(store(tmp_path / "e.zarr", rows(), 64), threads=2) == plain


def test_centroids_in_tiles(world, plain, monkeypatch):
    monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
    passes = []

    class Listener(sc_silent()):
        def started(self, name: str, rows: int) -> None:
            passes.append(name)

    for smallest in (3, 17):
        monkeypatch.setattr(centroids, "SMALLEST_TILE", smallest)
        assert world.digest(threads=2, progress=Listener()) == plain
    assert any("tile" in name for name in passes)


def sc_silent() -> type:
    from streamcurate.streaming import Silent

    return Silent


@pytest.mark.parametrize("records", [2])
def test_external_sort_with_tiny_memory(world, plain, monkeypatch, records):
    spilled = []
    original = SortedRecords.__init__

    def tiny(self, folder, memory):
        original(self, folder, memory)
        self.capacity = records * 16
        spilled.append(self)

    monkeypatch.setattr(SortedRecords, "__init__", tiny)
    assert world.digest(threads=1) == plain
    assert any(sorting._runs for sorting in spilled)


def test_scattered_draws(world, plain, monkeypatch):
    monkeypatch.setattr(sample_rows, "_COLLECT_ROWS", 37)
    monkeypatch.setattr(sample_rows, "_SCRATCH_CHUNK_BYTES", 300)
    assert world.digest(threads=2) == plain


@pytest.mark.parametrize("share", [1e-9, 2e-5, 1.0])
def test_buckets_of_splits(tmp_path, monkeypatch, plainest, share):
    """From every coarse cluster streamed on its own to all of them in one bucket."""
    world = World(tmp_path, LEVELS["splits"])
    plain = plainest(world).digest
    monkeypatch.setattr(split, "_BUCKET_SHARE", share)
    monkeypatch.setattr(split, "_WAITING_SHARE", share)
    monkeypatch.setattr(split, "_SEGMENT_SHARE", share)
    monkeypatch.setattr(split, "_SCATTER_ROWS", 77)
    fitted = []
    original = split._FitBucket.__call__

    def fit_bucket(self, item, state, executor):
        fitted.append(item[2] - item[1])
        return original(self, item, state, executor)

    monkeypatch.setattr(split._FitBucket, "__call__", fit_bucket)
    assert world.digest(threads=2) == plain
    if share < 1e-6:
        assert set(fitted) == {1}
    if share == 1.0:
        assert fitted[0] == 9


def test_tiles_of_the_kernels(world, plain, monkeypatch):
    """The screening kernel's own path, which small problems do not take, gives the same as brute force."""
    from streamcurate.kernels.cpu import prepare

    names = [name for name in dir(prepare) if name.isupper() and "DIRECT" in name]
    assert names, "the constant that sends small problems to the direct formula has another name now"
    for name in names:
        monkeypatch.setattr(prepare, name, 0)
    assert world.digest(threads=2) == plain


@pytest.mark.parametrize("limit", [512 << 20, 8 << 30])
def test_memory_limits(world, plain, limit):
    assert world.digest(memory_limit=limit, threads=2) == plain


def test_float16_and_the_same_values_in_float32(world, plain):
    halves = world.tree
    world.digest(rows().astype(np.float32), threads=2)
    for one, other in zip(halves.levels, world.tree.levels, strict=True):
        np.testing.assert_array_equal(one.labels[:], other.labels[:])
        np.testing.assert_array_equal(one.members[:], other.members[:])


def test_cosine(tmp_path, monkeypatch):
    world = World(tmp_path, LEVELS["resampled"], "cosine")
    plain = world.digest(threads=1, prefetch=False)
    small_blocks(monkeypatch, 90)
    monkeypatch.setattr(MemoryBudget, "fits", lambda *_: False)
    monkeypatch.setattr(centroids, "SMALLEST_TILE", 7)
    assert world.digest(store(tmp_path / "e.zarr", rows(), 64), threads=3) == plain


def test_a_masked_store(tmp_path, monkeypatch):
    """Blocks in which few or no rows count."""
    world = World(tmp_path, LEVELS["splits"])
    chosen = np.concatenate([np.arange(100, 108), np.arange(300, 700, 2)])
    plain = world.digest(subset=chosen, threads=1, prefetch=False)
    small_blocks(monkeypatch, 20)
    monkeypatch.setattr(fit, "_HELD_SHARE", 0)
    monkeypatch.setattr(shuffle, "_BYTES_IN_SORT", 1 << 40)
    assert world.digest(store(tmp_path / "e.zarr", rows(), 64), subset=chosen[::-1], threads=3) == plain


def test_another_seed_another_tree(world, plain):
    other = sc.cluster(rows(), world.folder / "other", levels=world.levels, seed=10)
    assert other.digest != plain


def test_the_digest_of_one_small_tree_is_what_it_was(tmp_path):
    """Equal on every machine, and in every release that does not say otherwise in the changelog.

    k = 1 and exact means: the digest cannot depend on seeding or on how many passes are made.
    """
    values = (np.arange(60).reshape(20, 3) % 7).astype(np.float32)
    tree = sc.cluster(values, tmp_path / "run", levels=[1])
    np.testing.assert_array_equal(
        tree.levels[0].centroids[:], values.astype(np.float64).mean(axis=0)[None].astype("f4")
    )
    again = sc.cluster(values.astype(np.float16), tmp_path / "again", levels=[1])
    assert again.digest == tree.digest
