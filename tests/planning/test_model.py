"""What cannot fit is refused before anything is read, and what can is not."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.config import Config, Level, Resampling
from streamcurate.errors import DataError, MemoryLimitError
from streamcurate.planning.model import check_levels
from streamcurate.streaming import MemoryBudget

MIB = 1 << 20
HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def check(levels, rows=10**9, dims=768, dtype=HALF, limit=512, **options):
    config = Config(tuple(levels), **options)
    check_levels(config, rows, dims, dtype, MemoryBudget(limit * MIB, 2), "emb.zarr")


@pytest.mark.parametrize("dtype", [HALF, SINGLE])
def test_usual_problems_fit_the_smallest_limit(dtype):
    check([Level(10_000), Level(1000, resampling=Resampling(3, 10)), Level(10)], dtype=dtype)
    check([Level(1)], rows=1, dims=1, dtype=dtype)
    check([Level(100, splits=100), Level(50)], dtype=dtype)
    check([Level(50_000, init="random")], dims=4096, dtype=dtype)  # in tiles


def test_more_clusters_than_rows():
    with pytest.raises(DataError, match=r"levels\[0\]\.clusters: 11 clusters from the 10 rows of emb\.zarr"):
        check([Level(11)], rows=10)
    check([Level(10)], rows=10)


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (
            Level(100, init="k-means++"),
            r"level 1: k-means\+\+ over 1,000,000,000 rows needs .*choose init: k-means\|\|",
        ),
        (Level(500_000, init="k-means||"), r"level 1: k-means\|\| with 500,000 clusters needs .*choose init: random"),
        (Level(500_000, resampling=Resampling(1, 100)), r"level 1 \(500,000 clusters of 768 dims\): labels needs"),
    ],
)
def test_what_cannot_fit(level, said):
    with pytest.raises(MemoryLimitError, match=said) as caught:
        check([level])
    enough = int(str(caught.value).split("--memory-limit ")[1].split("MiB")[0])
    check([level], limit=enough)


def test_a_level_above_is_checked_too():
    with pytest.raises(MemoryLimitError, match="level 2"):
        check([Level(400_000, init="random"), Level(300_000, init="k-means++")])


def test_what_is_known_only_later_is_not_refused():
    """A subset may name few rows, and fit_rows takes few."""
    level = Level(100, init="k-means++")
    check([level], subset="rows.npy")
    check([Level(100, init="k-means++", fit_rows=10_000)])
