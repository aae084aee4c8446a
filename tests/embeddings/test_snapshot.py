"""A store that changed since a run began is told from one that was only touched."""

from __future__ import annotations

import os

import numpy as np
import pytest

from streamcurate.embeddings import fingerprint
from streamcurate.embeddings.fingerprint import FingerprintBuilder
from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.snapshot import Snapshot, stamps_of
from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings
from streamcurate.errors import RunError, StoreError

VALUES = np.random.default_rng(2).standard_normal((50, 4)).astype(np.float32)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Embeddings:
    """Chunks of 20 rows, units of 8."""
    monkeypatch.setattr(fingerprint, "UNIT_BYTES", 8 * 16)
    return ingest(VALUES, tmp_path / "e.zarr", rows_per_chunk=20)


def snapshot_of(embeddings: Embeddings) -> Snapshot:
    builder = FingerprintBuilder(4, embeddings.dtype)
    builder.update(embeddings.read(0, embeddings.rows))
    return Snapshot.of(embeddings, builder.digests, stamps_of(embeddings))


def test_the_fingerprint_is_the_stores_own(store):
    assert snapshot_of(store).fingerprint == store.fingerprint


def test_round_trip(store, tmp_path):
    snapshot = snapshot_of(store)
    assert Snapshot.read(tmp_path / "absent.json") is None
    snapshot.write(tmp_path / "s.json")
    assert Snapshot.read(tmp_path / "s.json") == snapshot
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(RunError, match="unreadable"):
        Snapshot.read(tmp_path / "s.json")


def chunk_file(store: Embeddings, chunk: int) -> str:
    return os.path.join(store.path, "embeddings", "c", str(chunk), "0")


def test_only_chunks_with_other_stamps_are_read_again(store, monkeypatch):
    snapshot = snapshot_of(store)
    reads = []
    read = Embeddings.read
    monkeypatch.setattr(Embeddings, "read", lambda self, start, stop: (reads.append(start), read(self, start, stop))[1])
    assert snapshot.check(store) == snapshot
    assert reads == []
    os.utime(chunk_file(store, 1), ns=(1, 1))
    again = snapshot.check(store)
    # Rows 20 to 39 lie in the units that begin at 16, 24 and 32.
    assert reads == [16, 24, 32]
    assert again.check(store) == again
    assert reads == [16, 24, 32]


def test_other_values_are_found(store):
    snapshot = snapshot_of(store)
    with open(chunk_file(store, 2), "r+b") as file:
        file.seek(3 * 16)
        file.write(b"\x01")
    with pytest.raises(StoreError, match=r"changed since the run began: rows 40 to 47 \(chunk 2\)"):
        snapshot.check(store)


def test_other_shapes_and_absent_chunks_are_found(store, tmp_path):
    snapshot = snapshot_of(store)
    with pytest.raises(StoreError, match=r"50 x 4 float32 then, 49 x 4 float32 now"):
        snapshot.check(ingest(VALUES[1:], tmp_path / "f.zarr"))
    os.unlink(chunk_file(store, 0))
    with pytest.raises(StoreError, match="absent"):
        snapshot.check(open_embeddings(store.path))


def test_arrays_in_memory_and_other_chunks_are_read_whole(store, tmp_path):
    snapshot = snapshot_of(store)
    snapshot.check(ingest(VALUES, tmp_path / "f.zarr", rows_per_chunk=7))
    in_memory = as_embeddings(VALUES)
    assert stamps_of(in_memory) == ()
    snapshot_of(in_memory).check(in_memory)
    changed = VALUES.copy()
    changed[49, 3] += 1
    with pytest.raises(StoreError, match="rows 48 to 49"):
        snapshot_of(in_memory).check(as_embeddings(changed))
