"""The nearest rows of each centroid, against the formula over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import formula

from streamcurate import kernels
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.kernels import NearestSelection


def expected(
    rows: np.ndarray, numbers: np.ndarray, centres: np.ndarray, metric: str, keep: int, bounds: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and values of each list."""
    values = formula(rows, centres, metric)
    lists = []
    for j in range(len(centres)):
        order = np.lexsort((numbers, values[:, j]))
        order = order[values[order, j] <= bounds[j]][:keep]
        lists.append((numbers[order], values[order, j]))
    return lists


def check(found: NearestSelection, lists: list[tuple[np.ndarray, np.ndarray]]) -> None:
    rows, counts = found.finalize()
    assert counts.tolist() == [len(numbers) for numbers, _ in lists]
    np.testing.assert_array_equal(rows, np.concatenate([numbers for numbers, _ in lists]))
    whole = NearestSelection.empty(found.clusters, found.r).combine(found)
    for j, (_, values) in enumerate(lists):
        keys = whole.keys[j * found.r : j * found.r + len(values)]
        np.testing.assert_array_equal(kernels.values_of_keys(keys), values)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("dims", "keep"), [(1, 3), (2, 70), (3, 800), (7, 1), (40, 5)])
def test_every_list_is_that_of_all_pairs(metric, dtype, dims, keep):
    generator = np.random.default_rng(dims)
    rows = (generator.integers(1, 5, (600, dims)) if dims < 4 else generator.standard_normal((600, dims))).astype(dtype)
    rows[360:] = rows[:240]  # equal values, to be decided by the row's number
    centres = centre_vectors(generator.standard_normal((270, dims)).astype(np.float32), metric)
    centres[:50] = centre_vectors(rows[:50], metric)
    numbers = np.sort(generator.choice(10**12, 600, replace=False))
    screened = kernels.screen_seeds(centres, metric)
    values = formula(rows, centres, metric)
    for bounds in (np.full(270, np.inf), np.full(270, np.median(values)), values[7], np.zeros(270)):
        found = kernels.nearest_rows(rows, numbers, screened, keep, bounds)
        check(found, expected(rows, numbers, centres, metric, keep, bounds))


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e15])
def test_rows_of_any_size(scale):
    """Rows beyond what float32 scores can hold are evaluated by the formula."""
    generator = np.random.default_rng(3)
    centres = (generator.standard_normal((20, 9)) * scale).astype(np.float32)
    rows = (generator.standard_normal((300, 9)) * scale).astype(np.float32)
    rows[::7] *= np.float32(1e22 if scale < 1 else 1e20)
    rows[5], rows[6] = 0, 3e38
    numbers = np.arange(300)
    found = kernels.nearest_rows(rows, numbers, kernels.screen_seeds(centres, "l2"), 280, np.full(20, np.inf))
    check(found, expected(rows, numbers, centres, "l2", 280, np.full(20, np.inf)))


def test_a_bound_is_reached():
    """A value that is the bound itself counts, the next one above it does not."""
    generator = np.random.default_rng(8)
    rows = generator.standard_normal((400, 33)).astype(np.float32)
    centres = generator.standard_normal((10, 33)).astype(np.float32)
    values = formula(rows, centres, "l2")
    bounds = np.sort(values, axis=0)[20]
    screened, numbers = kernels.screen_seeds(centres, "l2"), np.arange(400)
    for some, count in ((bounds, 21), (np.nextafter(bounds, 0), 20)):
        _, counts = kernels.nearest_rows(rows, numbers, screened, 400, some).finalize()
        assert (counts == count).all()


@given(
    st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 30), st.sampled_from(["l2", "cosine"]), st.integers(1, 400)
)
def test_parts_combine_to_the_whole(seed, dims, keep, metric, cut):
    generator = np.random.default_rng(seed)
    rows = generator.integers(1, 4, (400, dims)).astype(np.float16)
    centres = centre_vectors(generator.integers(1, 4, (30, dims)).astype(np.float32), metric)
    screened, numbers, all_of = kernels.screen_seeds(centres, metric), np.arange(400), np.full(30, np.inf)
    first = kernels.nearest_rows(rows[:cut], numbers[:cut], screened, keep, all_of)
    total = NearestSelection.empty(30, keep).combine(first)
    # What the first part found bounds what counts of the second.
    full = total.counts == keep
    bounds = np.where(full, kernels.values_of_keys(total.keys.reshape(-1, keep)[:, -1]), np.inf)
    second = kernels.nearest_rows(rows[cut:], numbers[cut:], screened, keep, bounds)
    check(second.combine(total), expected(rows, numbers, centres, metric, keep, all_of))


def test_nothing_to_find():
    screened = kernels.screen_seeds(np.ones((3, 2), np.float32), "l2")
    none = kernels.nearest_rows(np.empty((0, 2), np.float16), np.empty(0, np.int64), screened, 4, np.full(3, np.inf))
    assert none.finalize()[1].tolist() == [0, 0, 0]
    far = kernels.nearest_rows(np.zeros((9, 2), np.float16), np.arange(9), screened, 4, np.full(3, 0.5))
    assert len(far.rows) == 0


def test_what_cannot_be():
    with pytest.raises(ValueError, match="1 to"):
        kernels.screen_seeds(np.empty((0, 2), np.float32), "l2")
    with pytest.raises(ValueError, match="metric is"):
        kernels.screen_seeds(np.ones((1, 2), np.float32), "l1")
    screened = kernels.screen_seeds(np.ones((3, 2), np.float32), "l2")
    with pytest.raises(ValueError, match="rows have 3 dims, the centroids 2"):
        kernels.nearest_rows(np.ones((4, 3), np.float32), np.arange(4), screened, 1, np.full(3, np.inf))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_that_cannot_be_used(dtype):
    rows = np.ones((2100, 3), dtype)
    rows[[4, 2000]] = [np.nan, 1, 1]
    rows[1500, 2], rows[7, 1] = -np.inf, np.finfo(dtype).max
    rows[[3, 2050]] = 0
    rows[9] = [0, 0, np.finfo(dtype).smallest_subnormal]
    bad, zero = kernels.unusable_rows(rows, "cosine")
    assert (bad.tolist(), zero.tolist()) == ([4, 1500, 2000], [3, 2050])
    bad, zero = kernels.unusable_rows(rows, "l2")
    assert (bad.tolist(), zero.tolist()) == ([4, 1500, 2000], [])


def test_a_bound_beyond_all_numbers_passes_over_nothing():
    """Of tiny centroids, whose scale is huge, a huge bound has no finite value among the scores."""
    rows = (np.arange(12, dtype=np.float32) * np.float32(1e-40)).reshape(6, 2)
    numbers, bounds = np.arange(6), np.full(2, 1e300)
    found = kernels.nearest_rows(rows, numbers, kernels.screen_seeds(rows[:2], "l2"), 4, bounds)
    check(found, expected(rows, numbers, rows[:2], "l2", 4, bounds))
