"""Parquet, Arrow and saved data sets in object stores and on web servers, with requests that fail."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamcurate as sc
from streamcurate.embeddings.sources import base, open_sources
from streamcurate.errors import InputError, ObjectError

pytest_plugins = ["object_store"]

ROWS = 3000


def table_of(values: np.ndarray) -> pa.Table:
    rows, dims = values.shape
    vectors = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * dims, pa.int32()), pa.array(values.reshape(-1)))
    return pa.table({"id": [f"n{row}" for row in range(rows)], "emb": vectors})


def values_of(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 32), dtype=np.float32)


def parquet(table: pa.Table) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, row_group_size=250)
    return made.getvalue()


def stream(table: pa.Table, open_=pa.ipc.new_stream) -> bytes:
    made = io.BytesIO()
    with open_(made, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    return made.getvalue()


FILES = {
    "x.parquet": parquet,
    "x.arrow": stream,
    "x.feather": lambda table: stream(table, pa.ipc.new_file),
}


def read(url: str, start: int) -> bytes:
    (reader,) = open_sources(url)
    return b"".join(block.tobytes() for block, _ in reader.blocks(start))


def check(store: sc.Embeddings, values: np.ndarray) -> None:
    assert store.array.read(0, store.rows).tobytes() == values.tobytes()
    assert store.ids.read(0, store.rows).tolist() == [f"n{row}" for row in range(len(values))]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_web_server_that_fails(web_server, tmp_path, monkeypatch, name):
    monkeypatch.setattr(base, "BLOCK_BYTES", 32 << 10)
    values = values_of()
    (web_server.folder / name).write_bytes(FILES[name](table_of(values)))
    # A Parquet file of this size is a few requests.
    faults = web_server.faults(0.5 if name == "x.parquet" else 0.05, seed=1, kinds=["error", "reset", "cut"])
    check(sc.ingest(web_server.url(name), tmp_path / "x.zarr", ids="id"), values)
    assert faults.counts.total()
    web_server.reset()
    for start in (0, 299, 300, 1777, ROWS):
        assert read(web_server.url(name), start) == values[start:].tobytes()


def test_only_the_start_is_asked_for_before_it_begins(web_server):
    """Opening does not walk through the batches of a remote file, and resuming asks for their metadata alone."""
    data = stream(table_of(values_of()))
    (web_server.folder / "x.arrow").write_bytes(data)
    web_server.reset()
    (reader,) = open_sources(web_server.url("x.arrow"))
    assert reader.rows is None
    assert len(web_server.requests) < 12
    web_server.reset()
    assert sum(len(block) for block, _ in reader.blocks(ROWS - 100)) == 100
    asked = [span.removeprefix("bytes=").split("-") for _, _, span in web_server.requests if span]
    assert sum(int(last) + 1 - int(first) for first, last in asked) < len(data) // 2


def test_a_data_set_in_a_bucket(object_store, tmp_path):
    values = values_of()
    parts = np.split(np.arange(ROWS), [1000, 1000, 1700])
    table = table_of(values)
    names = [f"data-{number:05d}-of-00004.arrow" for number in range(4)]
    for name, part in zip(names, parts, strict=True):
        object_store.put(f"set/{name}", stream(table.take(part)))
    state = {"_data_files": [{"filename": name} for name in names]}
    object_store.put("set/state.json", json.dumps(state).encode())
    object_store.faults(0.05, seed=2, kinds=["error", "busy", "reset", "cut"])
    check(sc.ingest(object_store.url("set"), tmp_path / "x.zarr", ids="id"), values)
    object_store.reset()
    for start in (999, 1000, 1700, ROWS):
        assert read(object_store.url("set"), start) == values[start:].tobytes()


def test_a_lance_dataset_in_a_bucket(object_store, tmp_path):
    lance = pytest.importorskip("lance")
    values = values_of(500)
    lance.write_dataset(table_of(values), str(tmp_path / "x.lance"), max_rows_per_file=200)
    for file in (tmp_path / "x.lance").rglob("*.*"):
        object_store.put(file.relative_to(tmp_path).as_posix(), file.read_bytes())
    check(sc.ingest(object_store.url("x.lance"), tmp_path / "x.zarr", ids="id"), values)
    with pytest.raises(InputError, match=r"y.lance: no such dataset"):
        open_sources(object_store.url("y.lance"))


def test_what_is_not_there_or_cut_off(object_store):
    for name, made in FILES.items():
        with pytest.raises(ObjectError, match=f"{name}: no such object"):
            open_sources(object_store.url(name))
        data = made(table_of(values_of()))
        object_store.put(name, data[: len(data) // 2])
        with pytest.raises(InputError, match=f"{name}: .*(damaged|cut off)"):
            read(object_store.url(name), 0)
