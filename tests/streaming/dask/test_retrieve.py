"""Rows near seeds, found on workers, are those that one process finds, byte for byte."""

from __future__ import annotations

import numpy as np
from spreading import DIMS, LIMIT, rows, store

import streamcurate as sc
from streamcurate.pipeline.retrieve import exclude, retrieve


def test_files_are_the_same(workers, spread, handed, tmp_path, monkeypatch):
    from streamcurate.neighbors.examples import nearest_seeds, seed_lists

    for module in (nearest_seeds, seed_lists):
        monkeypatch.setattr(module, "seed_tiles", lambda seeds, *_: [*range(0, seeds, 11), seeds])
    place, client = store(tmp_path / "rows.zarr"), workers(2)
    seeds = rows()[40:60] + np.float16(0.25)
    assert seeds.shape[1] == DIMS
    tree = sc.cluster(place, tmp_path / "run", levels=[20, 4], seed=9, threads=1)
    modes = {"radius": {"l2": 1.2}, "lists": {"per_seed": 9}, "cut": {"nearest": 99}, "clusters": {"per_cluster": 5}}
    for name, options in modes.items():
        options["subset"] = np.arange(100, 1400)
        alone, shared, memory = (tmp_path / f"{name}-{way}.parquet" for way in ("alone", "shared", "memory"))
        retrieve(tree, seeds, alone, threads=1, **options)
        retrieve(tree, seeds, shared, client=client, memory_limit=LIMIT, **options)
        assert shared.read_bytes() == alone.read_bytes()
        if name == "lists":
            found = retrieve(rows(), seeds, memory, client=client, memory_limit=LIMIT, metric="l2", **options)
            assert memory.read_bytes() == alone.read_bytes()
            assert len(found) > 10
    for way, options in (("alone", {"threads": 1}), ("shared", {"client": client, "memory_limit": LIMIT})):
        exclude(place, seeds, tmp_path / f"{way}.npy", removed=tmp_path / f"{way}.csv", l2=1.2, **options)
    for suffix in ("npy", "csv"):
        assert (tmp_path / f"alone.{suffix}").read_bytes() == (tmp_path / f"shared.{suffix}").read_bytes()
    assert sum(count for kind, count in handed.counts.items() if "nearest seeds" in kind) >= 8
    assert sum(count for kind, count in handed.counts.items() if "nearest rows" in kind) >= 4
