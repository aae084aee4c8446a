"""Duplicates found on workers are those that one process finds, byte for byte."""

from __future__ import annotations

import os

from spreading import LIMIT, rows, store

import streamcurate as sc
from streamcurate.pipeline.dedup import dedup

NAMES = ("keep.npy", "removed.npy", "duplicates.parquet")


def test_the_same_files(workers, handed, tmp_path, monkeypatch):
    monkeypatch.setattr("streamcurate.streaming.dask.executor.LOCAL_OPERATIONS", 0)
    place = store(tmp_path / "e.zarr")
    tree = sc.cluster(place, tmp_path / "run", levels=[sc.Level(20, splits=3), sc.Level(6)], seed=9, threads=1)
    for source, name in ((tree, "tree"), (rows(), "memory")):
        with monkeypatch.context() as patch:
            alone = dedup(source, tmp_path / f"{name}-alone", l2=1.0)
            patch.setattr("streamcurate.pipeline.dedup.tile_rows_for", lambda rows, dims: 128)
            shared = dedup(source, tmp_path / f"{name}-shared", l2=1.0, client=workers(2), memory_limit=LIMIT)
        assert alone.removed > 50
        for file in NAMES:
            one, other = (tmp_path / f"{name}-{kind}" / file for kind in ("alone", "shared"))
            assert one.read_bytes() == other.read_bytes()
        assert shared.sizes == alone.sizes
        assert sorted(os.listdir(tmp_path / f"{name}-shared")) == ["dedup.json", *sorted(NAMES)]
    assert sum(count for kind, count in handed.counts.items() if kind.startswith("MapTask")) >= 4
