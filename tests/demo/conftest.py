"""A pool small enough to curate in every test."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.config import Config, Level, Resampling
from streamcurate.demo import Pool


@pytest.fixture
def pool() -> Pool:
    """60 points in two groups of 50 and 10, with ids; drawn as digits are."""
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(0, 1, (50, 64)), random.normal(9, 1, (10, 64))]).astype(np.float32)
    return Pool(
        name="small",
        title="a small pool",
        rows=rows,
        ids=tuple(f"row-{number}" for number in range(60)),
        groups=np.repeat([0, 1], [50, 10]),
        group_names=("big", "small"),
        group_word="group",
        config=Config((Level(12, resampling=Resampling(1, 2)), Level(2))),
        size=16,
    )
