"""Trees of known data have known digests: the same on every machine, and in every release unless it says otherwise.

The rows are made by integer arithmetic, so that they are the same everywhere. A change of these digests means that
users' runs cannot be reproduced with the new version: raise the engine's version, and say so in the CHANGELOG.
"""

from __future__ import annotations

import numpy as np
import pytest

import streamcurate as sc

LEVELS = [
    sc.Level(40, splits=3, resampling=sc.Resampling(2, 3)),
    sc.Level(12, init="k-means||", algorithm="minibatch", resampling=sc.Resampling(1, 4, "random")),
    sc.Level(3, init="random"),
]


def rows(dims: int) -> np.ndarray:
    """600 rows of multiples of 1/64 below 8 in magnitude, float32, bunched around a few hundred places."""
    numbers = np.arange(600 * dims, dtype=np.uint64).reshape(600, dims)
    mixed = (numbers * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(55)  # 9 bits
    bunch = (np.arange(600, dtype=np.uint64) ** np.uint64(2) % np.uint64(37))[:, None]
    return ((mixed.astype(np.int64) % 64 + 8 * bunch.astype(np.int64) - 160) / 64).astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "dims", "digest"),
    [
        ("l2", 5, "c5a3538ff61a5ce3da8c1b49ed4e61d2"),
        ("l2", 24, "1812e049f0c019fdefced74b6d92124a"),
        ("cosine", 5, "994dcb304cf730f1414e970cfbbe7f78"),
        ("cosine", 24, "0b4e734fe71c22177521b72023f2de10"),
    ],
)
def test_digest(metric, dims, digest):
    assert sc.cluster(rows(dims), levels=LEVELS, metric=metric, seed=7).digest == digest
