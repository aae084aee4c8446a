"""A small finished run with hostile ids, and its store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamcurate as sc

HOSTILE = '"><script>alert(1)</script>&\u202e\x07'


def rows(seed: int = 0) -> np.ndarray:
    """500 rows of 5 dims in clusters of very different size."""
    generator = np.random.default_rng(seed)
    centres = 4 * generator.standard_normal((6, 5))
    labels = np.repeat(np.arange(6), [300, 120, 50, 20, 9, 1])
    return (centres[labels] + generator.standard_normal((500, 5))).astype(np.float32)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``emb.zarr`` and the finished ``run`` of two levels."""
    folder = tmp_path_factory.mktemp("report")
    np.save(folder / "emb.npy", rows())
    (folder / "ids.txt").write_text("".join(f"{HOSTILE}{row}\n" for row in range(500)))
    store = sc.ingest(folder / "emb.npy", folder / "emb.zarr", ids=folder / "ids.txt")
    levels = [sc.Level(30, resampling=sc.Resampling(2, 3)), sc.Level(6)]
    sc.cluster(store, folder / "run", levels=levels, seed=3)
    return folder
