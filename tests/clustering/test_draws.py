"""Random choices: exact sizes, the right distribution, the same for any blocks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.clustering import oversampling, plus_plus, sample_rows
from streamcurate.clustering.sample_rows import gather, sample_threshold, sampled_row_blocks, sampled_rows
from streamcurate.clustering.seeding import choose_method, seed
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings, ignore
from streamcurate.storage import create_array
from streamcurate.streaming import MemoryBudget, MemoryRows, Points, SerialExecutor, budget


@pytest.fixture
def around(tmp_path):
    with SerialExecutor(MemoryBudget(1 << 30, 2)) as executor:

        def make(number: int = 0, metric: Any = "l2") -> Surroundings:
            return Surroundings(executor, metric, number, tmp_path / "scratch", None, ignore, 1)

        yield make


def numbered(rows: int) -> Points:
    return Points.all_of(MemoryRows(np.zeros((rows, 1), np.float32)))


def masked(folder: Path, counts: np.ndarray) -> Points:
    mask = create_array(folder / "mask", counts.shape, np.uint8, 64)
    mask.write(0, counts.astype(np.uint8))
    return Points(MemoryRows(np.zeros((len(counts), 1), np.float32)), int(counts.sum()), mask)


@pytest.mark.parametrize("size", [1, 2, 17, 499, 500, 501, 10_000])
def test_samples_have_exactly_the_size_asked_for(around, size):
    rows = sampled_rows(numbered(500), size, Purpose.FIT_ROWS, around())
    assert len(rows) == min(size, 500)
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < 500


def test_samples_are_the_rows_with_the_smallest_random_numbers(around):
    rows = np.arange(3000)
    order = np.argsort(around().random_bits(Purpose.FIT_ROWS, rows))
    for size in (1, 40, 2999):
        np.testing.assert_array_equal(
            sampled_rows(numbered(3000), size, Purpose.FIT_ROWS, around()), np.sort(order[:size])
        )


def test_samples_of_some_rows(around, tmp_path):
    counts = np.random.default_rng(0).random(700) < 0.3
    points = masked(tmp_path, counts)
    rows = sampled_rows(points, 60, Purpose.FIT_ROWS, around())
    assert len(rows) == 60
    assert counts[rows].all()
    np.testing.assert_array_equal(sampled_rows(points, 700, Purpose.FIT_ROWS, around()), np.flatnonzero(counts))


def test_equal_random_numbers_fall_back_on_row_numbers(around, monkeypatch):
    monkeypatch.setattr(
        kernels, "random_bits", lambda seed, stream, counters: np.full(len(counters), 9, dtype=np.uint64)
    )
    rows = sampled_rows(numbered(300), 41, Purpose.FIT_ROWS, around())
    np.testing.assert_array_equal(rows, np.arange(41))


def test_samples_do_not_depend_on_blocks_and_differ_between_streams(around, monkeypatch):
    points = numbered(2000)
    rows = sampled_rows(points, 100, Purpose.FIT_ROWS, around())
    for other in (around(1), around().at(1)):
        assert not np.array_equal(rows, sampled_rows(points, 100, Purpose.FIT_ROWS, other))
    assert not np.array_equal(rows, sampled_rows(points, 100, Purpose.RANDOM_SEEDS, around()))
    monkeypatch.setattr(budget, "_LARGEST_BLOCK_ROWS", 64)
    monkeypatch.setattr(sample_rows, "_COLLECT_ROWS", 77)
    np.testing.assert_array_equal(rows, sampled_rows(points, 100, Purpose.FIT_ROWS, around()))
    assert max(len(block) for block in sampled_row_blocks(points, 100, Purpose.FIT_ROWS, around())) < 77


def test_every_row_is_as_likely(around):
    drawn = np.zeros(40)
    for number in range(600):
        drawn[sampled_rows(numbered(40), 10, Purpose.FIT_ROWS, around(number))] += 1
    # 150 expected each, standard deviation 10.6 without replacement.
    assert np.abs(drawn - 150).max() < 5 * math.sqrt(600 * 0.25 * 0.75)
    assert drawn.sum() == 6000


def test_a_threshold_holds_as_many_rows_as_asked_for(around):
    rows = np.arange(1000)
    threshold = sample_threshold(numbered(1000), 123, Purpose.FIT_ROWS, around())
    assert threshold.holds(around().random_bits(Purpose.FIT_ROWS, rows), rows).sum() == 123


def test_gather_copies_the_rows(around, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_rows, "_SCRATCH_CHUNK_BYTES", 40)
    values = np.random.default_rng(0).standard_normal((90, 3)).astype(np.float16)
    rows = np.array([0, 3, 4, 50, 88, 89])
    array = gather(MemoryRows(values), iter([rows[:2], rows[2:]]), 6, tmp_path / "a" / "b")
    assert array.dtype == np.float16
    np.testing.assert_array_equal(array.read(0, 6), values[rows])


# -- seeding -------------------------------------------------------------------


def measured_of(values: np.ndarray, metric: Any = "l2") -> Measured:
    return Measured.of(Points.all_of(MemoryRows(values)), kernels.statistics(values, metric), metric)


def space_of(values: np.ndarray, metric: Any = "l2") -> Any:
    return kernels.seeding_space(kernels.statistics(values, metric), len(values), values.shape[1], metric)


NONE = np.empty(0, dtype=np.int64)


def exact_potentials(values: np.ndarray, chosen: list[int]) -> np.ndarray:
    wide = values.astype(np.float64)
    return ((wide[:, None] - wide[chosen][None]) ** 2).sum(axis=2).min(axis=1)


def test_plus_plus_draws_by_squared_distance(around, monkeypatch):
    """Without greed (one trial), the second and third centre against the law, over many seeds."""
    monkeypatch.setattr(plus_plus, "trials", lambda clusters: 1)
    values = np.array([[0], [1], [3], [3.5], [9]], dtype=np.float32)
    space = space_of(values)
    encoded = space.encode(values)
    firsts, pairs, triples = np.zeros(5), np.zeros((5, 5)), np.zeros((5, 5, 5))
    draws = 4000
    for number in range(draws):
        one, two, three = plus_plus.plus_plus(encoded, 3, space, around(number), NONE)
        firsts[one] += 1
        pairs[one, two] += 1
        triples[one, two, three] += 1

    def statistic(seen: np.ndarray, law: np.ndarray) -> float:
        expected = law * draws
        assert (seen[law == 0] == 0).all()
        keep = expected > 0
        return float((((seen - expected) ** 2)[keep] / expected[keep]).sum())

    law2 = np.array([exact_potentials(values, [one]) / exact_potentials(values, [one]).sum() for one in range(5)]) / 5
    law3 = np.zeros((5, 5, 5))
    for one in range(5):
        for two in range(5):
            if one != two:
                left = exact_potentials(values, [one, two])
                law3[one, two] = law2[one, two] * left / left.sum()
    assert statistic(firsts, np.full(5, 0.2)) < 23.5  # chi-square, 4 degrees of freedom, p = 1e-4
    assert statistic(pairs, law2) < 49  # 19 degrees
    assert statistic(triples, law3) < 110  # 59 degrees


def test_plus_plus_takes_the_best_of_its_trials(around):
    """Greedy: the cost is lower on average than with a single trial."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((200, 3)).astype(np.float32)
    space = space_of(values)
    encoded = space.encode(values)
    costs = {}
    for tries in (1, 5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plus_plus, "trials", lambda clusters, tries=tries: tries)
            chosen = [plus_plus.plus_plus(encoded, 8, space, around(number), NONE) for number in range(25)]
        costs[tries] = np.mean([exact_potentials(values, list(rows)).sum() for rows in chosen])
    assert costs[5] < 0.95 * costs[1]
    assert plus_plus.trials(1) == 2
    assert plus_plus.trials(1000) == 8


@pytest.mark.parametrize("dims", [2, 40])
@pytest.mark.parametrize("clusters", [1, 7, 30])
def test_plus_plus_gives_distinct_rows(around, dims, clusters):
    values = np.random.default_rng(1).standard_normal((30, dims)).astype(np.float32)
    space = space_of(values)
    rows = plus_plus.plus_plus(space.encode(values), clusters, space, around(), NONE)
    assert len(set(rows.tolist())) == len(rows) == clusters


def test_plus_plus_takes_every_distinct_vector_before_a_copy(around):
    values = np.repeat(np.random.default_rng(1).standard_normal((6, 3)), 9, axis=0).astype(np.float32)
    space = space_of(values)
    rows = plus_plus.plus_plus(space.encode(values), 10, space, around(), NONE)
    assert len({values[row].tobytes() for row in rows[:6]}) == 6
    assert len(set(rows.tolist())) == 10


def test_plus_plus_heeds_weights(around, monkeypatch):
    values = np.array([[0], [1], [2]], dtype=np.float32)
    space = space_of(values)
    encoded = space.encode(values)
    weights = np.array([1, 1, 98], dtype=np.int64)
    first = [int(plus_plus.plus_plus(encoded, 1, space, around(number), weights)[0]) for number in range(400)]
    assert 370 <= first.count(2) <= 400


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("method", ["k-means++", "k-means||", "random"])
def test_seeds_are_distinct_rows(around, method, metric):
    values = np.random.default_rng(2).standard_normal((300, 5)).astype(np.float32)
    centroids, said = seed(measured_of(values, metric), 20, method, around(0, metric))
    found = centroids.read(0, 20)
    assert said == method
    assert found.dtype == np.float32
    wide = values.astype(np.float64)
    pool = wide / np.linalg.norm(wide, axis=1)[:, None] if metric == "cosine" else wide
    distances = np.abs(found[:, None] - pool[None]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-6
    assert len(set(distances.argmin(axis=1).tolist())) == 20


def test_oversampling_is_as_good_as_plus_plus(around):
    """Well separated clumps: k-means|| finds every one of them, uniform rows do not."""
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((15, 4)) * 50
    which = generator.choice(15, 2000, p=np.arange(1, 16) / 120)
    values = (centres[which] + generator.standard_normal((2000, 4))).astype(np.float32)
    costs: dict[str, float] = {}
    for method in ("k-means++", "k-means||", "random"):
        found = [
            seed(measured_of(values), 15, method, around(number))[0].read(0, 15).astype(np.float64)
            for number in range(5)
        ]
        wide = values.astype(np.float64)
        costs[method] = np.mean([((wide[:, None] - one[None]) ** 2).sum(axis=2).min(axis=1).sum() for one in found])
    assert costs["k-means||"] < 2 * costs["k-means++"]
    assert costs["random"] > 10 * costs["k-means||"]


def test_oversampling_tops_up_where_there_are_too_few_distinct_rows(around):
    values = np.repeat(np.random.default_rng(1).standard_normal((4, 3)), 50, axis=0).astype(np.float32)
    rows = oversampling.oversample(measured_of(values), 12, space_of(values), around())
    assert len(set(rows.tolist())) == 12
    assert len({values[row].tobytes() for row in rows}) == 4


def test_auto_depends_on_the_problem_alone():
    assert choose_method(10_000, 100, 16) == "k-means++"
    assert choose_method(100_000_000, 1000, 768) == "k-means||"
    assert choose_method(1_000_000_000, 1_000_000, 768) == "random"
