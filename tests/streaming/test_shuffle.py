"""The external shuffle against sorts and groupings in memory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import DiskFullError, StoreError
from streamcurate.files import TEMPORARY_SUFFIX
from streamcurate.streaming import shuffle
from streamcurate.streaming.shuffle import RowBuckets, RowSegments, SortedRecords


def sort(folder, keys: np.ndarray, rows: np.ndarray, capacity: int, piece: int) -> list[np.ndarray]:
    sorting = SortedRecords(folder, 0)
    sorting.capacity = capacity
    for start in range(0, len(keys), piece):
        sorting.add(keys[start : start + piece], rows[start : start + piece])
    blocks = list(sorting.blocks())
    sorting.close()
    assert not folder.exists()
    return blocks


@settings(max_examples=100)
@given(
    kinds=st.lists(st.sampled_from([0, 1, 2, 3, 2**32, 2**63, 2**64 - 1]), max_size=200),
    capacity=st.integers(1, 60),
    piece=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_any_keys_in_any_memory(tmp_path_factory, kinds, capacity, piece, seed):
    folder = tmp_path_factory.mktemp("sort") / "runs"
    keys = np.array(kinds, dtype=np.uint64)
    rows = np.sort(np.random.default_rng(seed).permutation(3 * len(keys))[: len(keys)]).astype(np.int64)
    found = sort(folder, keys, rows, capacity, piece)
    order = np.lexsort((rows, keys))
    joined = np.concatenate(found) if found else np.empty(0, dtype=shuffle.RECORD)
    np.testing.assert_array_equal(joined["key"], keys[order])
    np.testing.assert_array_equal(joined["row"], rows[order])


@pytest.mark.parametrize("kind", ["equal", "random", "one heavy", "ascending", "descending"])
def test_no_piece_is_larger_than_planned(tmp_path, kind):
    """Whatever the keys, what is merged at a time stays within the memory given."""
    count, capacity = 20_000, 1024
    generator = np.random.default_rng(0)
    keys = {
        "equal": np.zeros(count),
        "random": generator.integers(0, 2**63, count),
        "one heavy": np.where(generator.random(count) < 0.9, 7, generator.integers(0, 100, count)),
        "ascending": np.arange(count),
        "descending": np.arange(count)[::-1],
    }[kind].astype(np.uint64)
    rows = 3 * np.arange(count, dtype=np.int64)
    blocks = sort(tmp_path / "runs", keys, rows, capacity, 777)
    assert max(len(block) for block in blocks) <= capacity
    joined = np.concatenate(blocks)
    order = np.lexsort((rows, keys))
    np.testing.assert_array_equal(joined["row"], rows[order])


def test_memory_means_records(tmp_path):
    sorting = SortedRecords(tmp_path / "runs", 64 * 5000)
    sorting.add(np.zeros(5000, dtype=np.uint64), np.arange(5000))
    assert not (tmp_path / "runs").exists()
    sorting.add(np.zeros(1, dtype=np.uint64), np.array([5000]))
    assert (tmp_path / "runs").exists()
    sorting.close()


def test_runs_of_a_dead_process_do_no_harm(tmp_path):
    (tmp_path / "runs").mkdir()
    for number in range(5):
        (tmp_path / "runs" / f"run-{number}.bin").write_bytes(b"\1" * 16 * 999)
    keys = np.arange(100, dtype=np.uint64)[::-1].copy()
    blocks = sort(tmp_path / "runs", keys, np.arange(100), 30, 7)
    np.testing.assert_array_equal(np.concatenate(blocks)["row"], np.arange(100)[::-1])


def test_a_full_disk_is_said(tmp_path):
    import os

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"run-0.bin.{os.getpid()}{TEMPORARY_SUFFIX}").symlink_to("/dev/full")
    sorting = SortedRecords(tmp_path / "runs", 0)
    with pytest.raises(DiskFullError, match="no space left"):
        sorting.add(np.zeros(5000, dtype=np.uint64), np.arange(5000))


@settings(max_examples=60)
@given(
    owners=st.lists(st.integers(0, 4), max_size=80),
    memory=st.sampled_from([0, 100, 10**6]),
    piece=st.integers(1, 30),
    dtype=st.sampled_from([np.float16, np.float32, np.int64]),
    dims=st.integers(1, 3),
    tags=st.integers(1, 2),
)
def test_buckets_keep_rows_tags_and_order(tmp_path_factory, owners, memory, piece, dtype, dims, tags):
    folder = tmp_path_factory.mktemp("buckets") / "b"
    count = len(owners)
    owner = np.array(owners, dtype=np.int64)
    values = np.random.default_rng(count).integers(-9, 9, (count, dims)).astype(dtype)
    tag = np.arange(count * tags, dtype=np.int64).reshape(count, tags)
    buckets = RowBuckets(folder, 5, dims, np.dtype(dtype), memory, tags=tags)
    for start in range(0, count, piece):
        part = slice(start, start + piece)
        buckets.add(owner[part], values[part], tag[part])
    buckets.flush()
    np.testing.assert_array_equal(buckets.sizes, np.bincount(owner, minlength=5))
    for bucket in range(5):
        mine = owner == bucket
        found = buckets.values(bucket)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, values[mine])
        np.testing.assert_array_equal(buckets.tags(bucket), tag[mine])
    buckets.close()
    assert not folder.exists()


@settings(max_examples=60)
@given(
    owners=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    piece=st.integers(1, 30),
    dtype=st.sampled_from([np.float16, np.float32]),
    dims=st.integers(1, 3),
    tags=st.integers(1, 2),
)
def test_segments_keep_rows_tags_and_order(tmp_path_factory, owners, piece, dtype, dims, tags):
    folder = tmp_path_factory.mktemp("segments")
    count = len(owners)
    owner = np.array(owners, dtype=np.int64)
    values = np.random.default_rng(count).integers(-9, 9, (count, dims)).astype(dtype)
    tag = np.arange(count * tags, dtype=np.int64).reshape(count, tags)
    segments = RowSegments(folder, 5, dims, np.dtype(dtype), tags=tags)
    written = []
    for number, start in enumerate(range(0, count, piece)):
        part = slice(start, start + piece)
        written.append(segments.write(number, owner[part], values[part], tag[part]))
    counts = np.stack(written)
    np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(owner, minlength=5))
    for number in range(5):
        mine = owner == number
        # Through a pickle: another process reads what this one wrote.
        source = pickle.loads(pickle.dumps(segments.bucket(number, counts)))
        assert (source.rows, source.dims, source.dtype) == (mine.sum(), dims, dtype)
        np.testing.assert_array_equal(source.tags(), tag[mine])
        np.testing.assert_array_equal(source.read(0, source.rows), values[mine])
        np.testing.assert_array_equal(source.read(source.rows // 3, source.rows), values[mine][source.rows // 3 :])
        some = np.arange(0, source.rows, 2)
        np.testing.assert_array_equal(source.take(some), values[mine][some])
    segments.close()
    assert not folder.exists()


def test_a_segment_cut_short_is_said(tmp_path):
    segments = RowSegments(tmp_path, 1, 2, np.dtype(np.float32), 1)
    counts = segments.write(0, np.zeros(4, np.int64), np.ones((4, 2), np.float32), np.zeros((4, 1), np.int64))
    path = tmp_path / "segment-0.values"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="cut short"):
        segments.bucket(0, counts[None]).read(0, 4)


def test_a_bucket_cut_short_is_said(tmp_path):
    buckets = RowBuckets(tmp_path / "b", 1, 2, np.dtype(np.float32), 0)
    buckets.add(np.zeros(4, dtype=np.int64), np.ones((4, 2), np.float32), np.zeros((4, 1), np.int64))
    path = tmp_path / "b" / "bucket-0.values"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="cut short"):
        buckets.values(0)


def test_what_lay_in_the_folder_is_no_part_of_it(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "bucket-0.values").write_bytes(b"12345678")
    buckets = RowBuckets(tmp_path / "b", 1, 2, np.dtype(np.float32), 0)
    buckets.add(np.zeros(1, dtype=np.int64), np.ones((1, 2), np.float32), np.zeros((1, 1), np.int64))
    np.testing.assert_array_equal(buckets.values(0), np.ones((1, 2)))
