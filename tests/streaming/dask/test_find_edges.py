"""Duplicates found by workers are those that one process finds, edge for edge."""

from __future__ import annotations

import numpy as np
from spreading import LIMIT, rows, store

import streamcurate as sc
from streamcurate.embeddings import open_embeddings
from streamcurate.neighbors.pairs.search import find_edges
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.streaming import MemoryBudget, SerialExecutor, Silent
from streamcurate.streaming.dask import DaskExecutor


def test_the_same_edges(workers, handed, monkeypatch, tmp_path):
    monkeypatch.setattr("streamcurate.neighbors.pairs.plan._FEWEST_PAIRS", 20_000)
    monkeypatch.setattr("streamcurate.neighbors.pairs.plan._PARTS_AN_ITEM", 2)
    monkeypatch.setattr("streamcurate.neighbors.pairs.grouped._SEGMENT_SHARE", 3e-5)
    embeddings = open_embeddings(store(tmp_path / "e.zarr", rows()))
    tree = sc.cluster(rows(), levels=[20], seed=0, threads=1)

    def find(executor, name):
        checkpoints = Checkpoints(tmp_path / name / "checkpoints", durable=False)
        scratch = tmp_path / name / "scratch"
        options = {"tile_rows": 128, "cell_rows": 20}
        found = find_edges(tree, embeddings, 0.8, "l2", executor, scratch, checkpoints, **options)
        edges = [np.concatenate(list(file.blocks())) for file in found.files]
        return edges, (found.covered, found.rescored, found.joined, found.pruned)

    with SerialExecutor(MemoryBudget.of(LIMIT, 1)) as executor:
        alone = find(executor, "alone")
    (tmp_path / "s").mkdir()
    with DaskExecutor(
        workers(2), MemoryBudget.of(LIMIT, 2), Silent(), tmp_path / "s", [tmp_path], embeddings
    ) as executor:
        shared = find(executor, "shared")
    assert shared[1] == alone[1]
    assert sum(len(edges) for edges in alone[0]) > 40
    for one, other in zip(alone[0], shared[0], strict=True):
        np.testing.assert_array_equal(one, other)
    for kind in ("regrouping rows", "forming cells", "searching tiles", "comparing tiles"):
        assert any(name.startswith("MapTask") and kind in name for name in handed.counts), handed.counts
