"""Formats that other programs take, read back by those programs: stores, ``datasets`` indices, WebDataset key lists."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamcurate.embeddings.fingerprint import FingerprintBuilder
from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.store import Embeddings, open_embeddings
from streamcurate.errors import ConfigError, DataError, DiskFullError, InputError, RunError, StoreError
from streamcurate.sampling import check_destination, formats, lines, sample, selection, store
from streamcurate.storage import list_arrays, open_array

ROWS = 60
KEYS = np.array([f"{row // 20:05}{row % 20:04}" for row in range(ROWS)], dtype=np.dtypes.StringDType())
INTEGER_IDS = np.arange(ROWS, dtype=np.int64) * 10**15 + 7


@pytest.fixture(params=["strings", "integers", "none"])
def ids(request):
    return {"strings": KEYS, "integers": INTEGER_IDS, "none": None}[request.param]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    for module in (formats, lines, selection):
        monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(store, "_READ_ROWS", 7)


def pick(random_tree, ids=KEYS, **options):
    return sample(random_tree(2, ROWS, [8, 5, 3], ids=ids), 80, multiplier=3, seed=1, **options)


# -- .zarr -------------------------------------------------------------------------------------------------------------


def test_a_curated_store_holds_the_distinct_rows(random_tree, ids, tmp_path):
    picked = pick(random_tree, ids)
    picked.save(tmp_path / "curated.zarr")
    found = open_embeddings(tmp_path / "curated.zarr")
    rows = picked.unique_rows
    values = np.stack([rows, -rows], axis=1).astype(np.float32)
    assert found.dtype == np.float32
    assert np.array_equal(np.asarray(found), values)
    builder = FingerprintBuilder(2, np.float32)
    builder.update(values)
    assert found.fingerprint == builder.result()
    every = np.arange(len(rows))
    assert (found.take_ids(every) is None) if ids is None else found.take_ids(every).tolist() == ids[rows].tolist()
    for name, counts in (("rows", rows), ("copies", picked.copies)):
        array = open_array(tmp_path / "curated.zarr" / name)
        assert (array.dtype, array.read(0, array.rows).tolist()) == (np.int64, counts.tolist())
    assert found.attributes["selection"] == {
        "run": str((tmp_path / "run").parent.cwd() / "run"),
        "digest": None,
        "store": "emb.zarr",
        "rows": 80,
        "unique": len(rows),
        "strategy": "random",
        "multiplier": 3,
        "seed": 1,
        "eligible": None,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["curated.zarr"]


def test_other_embeddings_are_never_mixed_with_what_is_there(random_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "default_chunk_rows", lambda dims, dtype: 8)
    picked = pick(random_tree)
    given, taken = np.ones((ROWS, 3), dtype=np.float32), []
    take = Embeddings.take

    def stopped(self, rows):
        taken.append(rows)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return take(self, rows)

    monkeypatch.setattr(Embeddings, "take", stopped)
    with pytest.raises(KeyboardInterrupt):
        picked.to_zarr(tmp_path / "curated.zarr", embeddings=given)
    assert (tmp_path / "curated.zarr.partial").exists()
    with pytest.raises(
        RunError, match=r"curated\.zarr\.partial: holds 16 rows .*of another selection, or of other emb"
    ):
        picked.to_zarr(tmp_path / "curated.zarr", embeddings=given + 1)
    shutil.rmtree(tmp_path / "curated.zarr.partial")
    picked.to_zarr(tmp_path / "curated.zarr", embeddings=given + 1)
    assert (np.asarray(open_embeddings(tmp_path / "curated.zarr")) == 2).all()


def test_a_store_that_exists_is_refused(random_tree, tmp_path):
    picked = pick(random_tree)
    picked.to_zarr(tmp_path / "curated.zarr")
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "curated.zarr").rglob("*"))
    for refuse in (picked.save, picked.to_zarr, check_destination):
        with pytest.raises(InputError, match=r"curated\.zarr: already exists, and a store is never replaced"):
            refuse(tmp_path / "curated.zarr")
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "curated.zarr").rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["curated.zarr"]


def test_an_interrupted_store_is_gone_on_with(random_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "default_chunk_rows", lambda dims, dtype: 8)
    picked = pick(random_tree)
    picked.save(tmp_path / "whole.zarr")
    place = picked.tree.store
    take, asked = place.take, []

    def stopped(rows):
        asked.append(rows)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return take(rows)

    monkeypatch.setattr(place, "take", stopped)
    with pytest.raises(KeyboardInterrupt):
        picked.save(tmp_path / "curated.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curated.zarr.partial", "whole.zarr"]
    asked[:] = [None] * 4
    picked.save(tmp_path / "curated.zarr")
    # Three pieces of 7 rows were read: two chunks of 8 were complete.
    assert asked[4][0] == picked.unique_rows[16]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curated.zarr", "whole.zarr"]
    whole, again = (open_embeddings(tmp_path / name) for name in ("whole.zarr", "curated.zarr"))
    assert whole.attributes == again.attributes
    for name in list_arrays(tmp_path / "whole.zarr"):
        arrays = [open_array(tmp_path / folder / name)[:] for folder in ("whole.zarr", "curated.zarr")]
        assert np.array_equal(*arrays)


def test_another_selection_is_refused(random_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "default_chunk_rows", lambda dims, dtype: 8)
    picked = pick(random_tree)
    other = sample(picked.tree, 30, seed=5)
    monkeypatch.setattr(store, "create_array", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        picked.save(tmp_path / "curated.zarr")
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"of another selection, .*; the earlier command goes on with it"):
        other.save(tmp_path / "curated.zarr")
    with pytest.raises(RunError, match=r"of another command; the earlier command"):
        ingest(np.ones((9, 4), np.float32), tmp_path / "curated.zarr")
    shutil.rmtree(tmp_path / "curated.zarr.partial")
    other.save(tmp_path / "curated.zarr")
    assert open_array(tmp_path / "curated.zarr" / "rows")[:].tolist() == other.unique_rows.tolist()
    assert np.asarray(open_embeddings(tmp_path / "curated.zarr"))[:, 0].tolist() == other.unique_rows.tolist()


def test_an_error_leaves_nothing_of_a_store(random_tree, tmp_path, monkeypatch):
    picked = pick(random_tree)

    def damaged(rows):
        raise StoreError("chunk 3 is truncated")

    monkeypatch.setattr(picked.tree.store, "take", damaged)
    with pytest.raises(StoreError, match="chunk 3"):
        picked.save(tmp_path / "curated.zarr")
    monkeypatch.setattr("streamcurate.embeddings.partial.free_bytes", lambda path: 5)
    with pytest.raises(DiskFullError, match=r"curated\.zarr: needs .* more bytes, and 5 are free"):
        picked.save(tmp_path / "curated.zarr")
    assert not list(tmp_path.iterdir())


def test_embeddings_can_be_given_where_the_store_is_gone(random_tree, tmp_path):
    picked = pick(random_tree, None)
    picked.tree.store = None
    with pytest.raises(StoreError, match=r"emb\.zarr: is gone, .* give the embeddings"):
        picked.save(tmp_path / "curated.zarr")
    values = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float16)
    with pytest.raises(InputError, match="has 59 rows, and the tree in run is of 60"):
        picked.to_zarr(tmp_path / "curated.zarr", embeddings=values[:59])
    assert not list(tmp_path.iterdir())
    picked.to_zarr(tmp_path / "curated.zarr", embeddings=values)
    found = np.asarray(open_embeddings(tmp_path / "curated.zarr"))
    assert found.dtype == np.float16
    assert np.array_equal(found, values[picked.unique_rows])


def test_stores_are_written_to_disks(random_tree):
    with pytest.raises(InputError, match=r"s3://bucket/a\.zarr: curated stores are written to a disk"):
        pick(random_tree).save("s3://bucket/a.zarr")


# -- .arrow ------------------------------------------------------------------------------------------------------------


def test_an_index_of_datasets(random_tree, tmp_path):
    picked = pick(random_tree)
    picked.save(tmp_path / "curated.arrow")
    picked.to_arrow(tmp_path / "named.arrow")
    assert (tmp_path / "curated.arrow").read_bytes() == (tmp_path / "named.arrow").read_bytes()
    with pa.OSFile(str(tmp_path / "curated.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    assert table.schema == pa.schema([("indices", pa.uint64())])
    assert table["indices"].to_pylist() == picked.rows.tolist()


@pytest.mark.filterwarnings("ignore")
def test_datasets_takes_the_index(random_tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    datasets = pytest.importorskip("datasets")
    picked = pick(random_tree)
    picked.save(tmp_path / "curated.arrow")
    whole = datasets.Dataset.from_dict({"key": KEYS.tolist()})
    whole.save_to_disk(tmp_path / "data")
    (shard,) = (tmp_path / "data").glob("*.arrow")
    curated = datasets.Dataset.from_file(str(shard), indices_filename=str(tmp_path / "curated.arrow"))
    assert curated["key"][:] == KEYS[picked.rows].tolist()
    rows = pa.ipc.open_stream(tmp_path / "curated.arrow").read_all()["indices"].to_numpy()
    assert whole.select(rows)["key"][:] == KEYS[picked.rows].tolist()


# -- .jsonl ------------------------------------------------------------------------------------------------------------


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_keys_by_shard_from_the_key_and_from_the_file(random_tree, tmp_path):
    picked = pick(random_tree)
    for shard in range(3):
        table = pa.table({"url": ["u"] * 20, "key": KEYS[20 * shard : 20 * shard + 20].tolist()})
        pq.write_table(table, tmp_path / f"{shard:05}.parquet")
    files = str(tmp_path / "0*.parquet")
    picked.save(tmp_path / "digits.jsonl", shard_digits=5)
    picked.to_jsonl(tmp_path / "position.jsonl", metadata=files, columns="key")
    picked.save(tmp_path / "joined.jsonl", metadata=files, columns="key", metadata_key="key")
    found = read_lines(tmp_path / "digits.jsonl")
    assert found == read_lines(tmp_path / "position.jsonl") == read_lines(tmp_path / "joined.jsonl")
    assert [key for line in found for key in line["keys"]] == KEYS[picked.rows].tolist()
    assert all(key.startswith(line["shard"]) for line in found for key in line["keys"])
    assert [shard for shard, _ in groupby(line["shard"] for line in found)] == ["00000", "00001", "00002"]
    # A line is bounded, however large the shard: a batch, and the copies of one row more.
    assert max(len(line["keys"]) for line in found) <= 4 + 3


def test_integer_keys_are_text(random_tree, tmp_path):
    picked = pick(random_tree, INTEGER_IDS + 10**16)
    picked.save(tmp_path / "a.jsonl", shard_digits=3)
    keys = [key for line in read_lines(tmp_path / "a.jsonl") for key in line["keys"]]
    assert keys == [str(value) for value in (INTEGER_IDS + 10**16)[picked.rows]]


def test_keys_whose_shard_is_not_known_are_refused(random_tree, tmp_path):
    picked = pick(random_tree)
    with pytest.raises(ConfigError, match=r"a\.jsonl: which shard a key is in is not known; .*--shard-digits 5"):
        picked.save(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"shard-digits 5: .*; .*a\.txt is no place for it"):
        picked.save(tmp_path / "a.txt", shard_digits=5)
    with pytest.raises(ConfigError, match=r"shard-digits 0"):
        picked.save(tmp_path / "a.jsonl", shard_digits=0)
    with pytest.raises(DataError, match=r"the id '00000\d+' of row \d+ is not longer than the 9 characters"):
        picked.save(tmp_path / "a.jsonl", shard_digits=9)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_webdataset_reads_what_the_keys_name(random_tree, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard:05}.tar", "w") as tar:
            for key in KEYS[20 * shard : 20 * shard + 20]:
                member = tarfile.TarInfo(f"{key}.txt")
                member.size = len(key)
                tar.addfile(member, io.BytesIO(key.encode()))
    picked = pick(random_tree)
    picked.save(tmp_path / "curated.jsonl", shard_digits=5)
    keys: dict[str, set[str]] = {}
    for line in read_lines(tmp_path / "curated.jsonl"):
        keys.setdefault(line["shard"], set()).update(line["keys"])
    shards = [str(tmp_path / f"{shard}.tar") for shard in keys]
    wanted = set().union(*keys.values())
    data = webdataset.WebDataset(shards, shardshuffle=False).select(lambda sample: sample["__key__"] in wanted)
    assert [sample["txt"].decode() for sample in data] == KEYS[picked.unique_rows].tolist()


def test_a_store_without_a_name(random_tree):
    with pytest.raises(InputError, match="no place for a store"):
        pick(random_tree).to_zarr("")
