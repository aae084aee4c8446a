"""Draws written to, and lists and metadata read from, an S3 server."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamcurate.errors import InputError
from streamcurate.sampling import check_destination, sample

pytest_plugins = ["object_store"]

ROWS = 60
IDS = np.array([f"{row // 20:05}{row % 20:04}" for row in range(ROWS)], dtype=np.dtypes.StringDType())
FILES = ["a.parquet", "a.csv", "a.npy", "a.txt", "a.arrow", "a.jsonl"]


@pytest.fixture
def tree(random_tree):
    return random_tree(2, ROWS, [8, 5, 3], ids=IDS)


def options_of(name):
    return {"shard_digits": 5} if name.endswith("jsonl") else {}


def test_files_are_those_of_a_disk_and_are_read_back(tree, tmp_path, object_store):
    picked = sample(tree, 80, multiplier=3, seed=1)
    object_store.faults(0.05, seed=1)
    for name in FILES:
        check_destination(object_store.url(name))
        picked.save(object_store.url(name), **options_of(name))
        picked.save(tmp_path / name, **options_of(name))
        assert object_store.get(name) == (tmp_path / name).read_bytes()
    assert set(object_store.objects()) == set(FILES)
    for name in ("a.parquet", "a.csv", "a.npy", "a.arrow"):
        assert sample(tree, 80, multiplier=3, include=object_store.url(name)).rows.tolist() == picked.rows.tolist()


def test_what_breaks_off_leaves_nothing(tree, object_store, monkeypatch):
    picked = sample(tree, 80, multiplier=3, seed=1)
    monkeypatch.setattr(tree.levels[0], "stored_labels", None)
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(AttributeError):
            picked.save(object_store.url(name))
    assert not object_store.objects()
    assert not object_store.uploads()


def test_lists_and_metadata_are_read_from_there(tree, tmp_path, object_store):
    rows = np.arange(0, ROWS, 2)
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "ids.txt").write_text("".join(f"{IDS[row]}\n" for row in rows))
    (tmp_path / "ids.csv").write_text("".join(["id\n", *(f"{IDS[row]}\n" for row in rows)]))
    pq.write_table(pa.table({"row": rows}), tmp_path / "rows.parquet")
    # m2, m6 and m10 in natural order, and m10 first in the store's.
    for shard in range(3):
        part = slice(20 * shard, 20 * shard + 20)
        pq.write_table(
            pa.table({"key": IDS[part].tolist(), "url": [f"u{row}" for row in range(ROWS)][part]}),
            tmp_path / f"m{4 * shard + 2}.parquet",
        )
    for path in tmp_path.iterdir():
        object_store.put(path.name, path.read_bytes())
    object_store.faults(0.05, seed=2)
    expected = sample(tree, 15, seed=3, eligible=rows)
    for name in ("rows.npy", "ids.txt", "ids.csv", "rows.parquet"):
        assert sample(tree, 15, seed=3, eligible=object_store.url(name)).rows.tolist() == expected.rows.tolist()
    for key in (None, "key"):
        expected.save(tmp_path / "a.parquet", metadata=object_store.url("m*.parquet"), metadata_key=key)
        assert pq.read_table(tmp_path / "a.parquet")["url"].to_pylist() == [f"u{row}" for row in expected.unique_rows]
    with pytest.raises(InputError, match=r"absent\.npy"):
        sample(tree, 15, eligible=object_store.url("absent.npy"))
    with pytest.raises(InputError, match="no file matches this pattern"):
        expected.save(tmp_path / "b.parquet", metadata=object_store.url("absent-*.parquet"))
    with pytest.raises(InputError, match=r"a\.zarr: curated stores are written to a disk"):
        expected.save(object_store.url("a.zarr"))
