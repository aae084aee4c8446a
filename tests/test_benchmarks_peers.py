"""The speed benchmark: its data, its judge, what it makes of times, and whether all solve the same problem."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``load(name)``: a module of the benchmarks."""
    if not BENCHMARKS.is_dir():
        pytest.skip("the source distribution holds no benchmarks")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def judge(load) -> ModuleType:
    return load("speed.judge")


@pytest.fixture
def problem(load) -> Any:
    """Rows around nine centres, and twelve of them to begin with."""
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((9, 16))[generator.integers(0, 9, 1500)] * 2 + generator.standard_normal(
        (1500, 16)
    )
    rows = rows.astype(np.float16)
    return load("speed.contestants").Problem(rows, rows[:12].astype(np.float32), 4, 2)


def plain_lloyd(problem: Any) -> tuple[np.ndarray, np.ndarray]:
    """Centroids after the passes, and labels, in float64."""
    rows, centroids = problem.rows.astype(np.float64), problem.start.astype(np.float64)

    def nearest() -> np.ndarray:
        return ((rows[:, None] - centroids[None]) ** 2).sum(axis=2).argmin(axis=1)

    for _ in range(problem.iterations):
        labels = nearest()
        centroids = np.array([rows[labels == cluster].mean(axis=0) for cluster in range(len(centroids))])
        centroids = centroids.astype(np.float32).astype(np.float64)
    return centroids, nearest()


# -- data ------------------------------------------------------------------------------------------------------


def test_clustered_rows_follow_the_law(load) -> None:
    data = load("speed.rows")
    case = data.Case("clustered", 8000, 96, 10, "float32")
    rows = data.make_rows(case)
    np.testing.assert_array_equal(rows, data.make_rows(case))
    assert not np.array_equal(rows, data.make_rows(case, seed=1))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    mean = rows.mean(axis=0, dtype=np.float64)
    assert mean @ mean == pytest.approx(0.12, abs=0.03)
    spectrum = np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64)))[::-1]
    shares = np.cumsum(spectrum / spectrum.sum())
    # The measured shares of the leading 1/12, 1/6, 1/3, 1/2 of the coordinates.
    np.testing.assert_allclose(shares[[7, 15, 31, 47]], [0.409, 0.577, 0.782, 0.900], atol=0.06)
    # In no direction that the coordinates name.
    assert rows.var(axis=0).max() < 10 * rows.var(axis=0).min()


def test_isotropic_rows_have_no_leading_direction(load) -> None:
    data = load("speed.rows")
    rows = data.make_rows(data.Case("isotropic", 8000, 24, 10, "float16"))
    assert rows.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=2e-3)
    spectrum = np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64)))
    assert spectrum.max() < 1.3 * spectrum.min()


def test_real_rows_that_are_not_there(load, tmp_path: Path) -> None:
    data = load("speed.rows")
    case = data.Case("real", 3, 384, 10, "float16")
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match="--data"):
            data.make_rows(case, folder)
    np.save(tmp_path / "embeddings.npy", np.ones((5, 4), dtype=np.float16))
    assert data.make_rows(case, tmp_path).shape == (3, 4)


# -- the judge -------------------------------------------------------------------------------------------------


def test_brute_force(judge, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    rows, centroids = generator.standard_normal((200, 5)), generator.standard_normal((40, 5)).astype(np.float32)
    # Ties, exact and by less than a product in float64 can tell.
    centroids[7] = centroids[30]
    centroids[8] = np.nextafter(centroids[31], np.float32(9))
    rows[:40] = centroids
    expected = ((rows[:, None] - centroids.astype(np.float64)[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert expected[30] == 7
    np.testing.assert_array_equal(judge.brute_force(rows, centroids), expected)
    monkeypatch.setattr(judge, "_BLOCK_VALUES", 300)
    np.testing.assert_array_equal(judge.brute_force(rows, centroids), expected)
    # Far from the origin the product has nothing left to say.
    far = rows.astype(np.float32) + np.float32(1e5)
    targets = centroids + np.float32(1e5)
    expected = ((far[:, None].astype(float) - targets[None].astype(float)) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(judge.brute_force(far, targets), expected)


def test_agreement_counts_wrong_labels(judge) -> None:
    centroids = np.eye(4, dtype=np.float32)
    rows = np.repeat(centroids, 50, axis=0)
    labels = np.repeat(np.arange(4), 50)
    assert judge.agreement(rows, centroids, labels) == 1.0
    labels[:50] = 3
    assert judge.agreement(rows, centroids, labels) == 0.75


def test_inertia(judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "_BLOCK_VALUES", 48)
    rows = np.arange(20, dtype=np.float16).reshape(10, 2)
    centroids = np.array([[0, 1], [10, 10]], dtype=np.float32)
    labels = np.array([0] * 5 + [1] * 5)
    assert judge.inertia(rows, centroids, labels) == ((rows - centroids[labels]) ** 2).sum()


def test_the_rate_of_products(judge) -> None:
    rows = np.ones((300, 32), dtype=np.float32)
    assert judge.sgemm_rate(rows, rows[:20], seconds=0) > 0


# -- when something was said -----------------------------------------------------------------------------------


def test_stamps_of_printed_and_logged_lines(load) -> None:
    import logging

    stamps = load("speed.stamps")
    with stamps.printed() as said:
        print("Iteration 0,", end=" ")
        print("inertia 3.\nsomething\nIteration 1")
    assert [line for _, line in said.lines] == ["Iteration 0, inertia 3.", "something", "Iteration 1"]
    assert len(said.between("Iteration")) == 1
    (first, _), *_ = said.lines
    assert said.between("Iteration", first - 2)[0] == pytest.approx(2)
    with stamps.logged("a.logger.of.ours") as said:
        logging.getLogger("a.logger.of.ours").info("took %d", 3)
    logging.getLogger("a.logger.of.ours").info("unheard")
    assert [line for _, line in said.lines] == ["took 3"]


def test_stamps_of_what_compiled_code_prints(load, capfd: pytest.CaptureFixture[str]) -> None:
    stamps = load("speed.stamps")
    with stamps.printed_natively() as said:
        os.write(1, b"before\nIteration 1\n")
        os.write(1, b"Iteration 2\n")
    os.write(1, b"after\n")
    assert [line for _, line in said.lines] == ["before", "Iteration 1", "Iteration 2"]
    assert all(seconds >= 0 for seconds in said.between("Iteration"))
    assert capfd.readouterr().out == "after\n"


# -- contestants -----------------------------------------------------------------------------------------------


def test_ours_is_the_engine(load, judge, problem) -> None:
    found = load("speed.contestants").Ours().solve(problem)
    centroids, labels = plain_lloyd(problem)
    np.testing.assert_allclose(found.centroids, centroids, rtol=2e-7, atol=1e-7)
    np.testing.assert_array_equal(found.labels, labels)
    assert len(found.iteration_seconds) == problem.iterations
    assert min(found.fit_seconds, found.label_seconds, found.processor_seconds) > 0
    assert sum(found.iteration_seconds) < found.fit_seconds


def test_ours_from_disk_is_the_same(load, problem, tmp_path: Path) -> None:
    contestants, disk = load("speed.contestants"), load("speed.disk")
    contestants.write_rows(tmp_path / "rows.zarr", problem.rows, chunk_bytes=100 * 32)
    files = disk.chunk_files(tmp_path / "rows.zarr")
    assert b"".join(path.read_bytes() for path in files) == problem.rows.tobytes()
    assert len(files) == 15
    calls = []
    found = contestants.fit_source(
        contestants.stored_rows(tmp_path / "rows.zarr"), problem, lambda: calls.append(disk.drop_cache(files))
    )
    expected = contestants.Ours().solve(problem)
    np.testing.assert_array_equal(found.centroids, expected.centroids)
    np.testing.assert_array_equal(found.labels, expected.labels)
    # Before the statistics, before the first pass, and after each.
    assert len(calls) == 2 + problem.iterations


@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.parametrize(
    "name",
    ["FAISS", "scikit-learn", "SuperKMeans", "SuperKMeans BLAS", "scikit-learn MiniBatch", "dask-ml", "fastkmeans"],
)
def test_peers_solve_the_same_problem(load, judge, problem, name: str) -> None:
    others = load("speed.others")
    contestant = next(one for one in others.contestants() if one.name == name)
    if (why := others.missing(contestant)) is not None:
        pytest.skip(why)
    found = contestant.solve(problem)
    assert judge.agreement(problem.rows, found.centroids, found.labels) > 0.99
    assert all(seconds > 0 for seconds in found.iteration_seconds)
    if contestant.lloyd:
        assert len(found.iteration_seconds) == problem.iterations
        assert sum(found.iteration_seconds) < 1.5 * found.fit_seconds
    if contestant.lloyd and contestant.same_start:
        centroids, labels = plain_lloyd(problem)
        np.testing.assert_allclose(found.centroids, centroids, atol=1e-4)
        np.testing.assert_array_equal(found.labels, labels)


# -- figures ---------------------------------------------------------------------------------------------------


def test_figures_are_medians_of_the_rounds_ratios(load) -> None:
    tables, data, contestants = load("speed.tables"), load("speed.rows"), load("speed.contestants")
    case = data.Case("clustered", 1000, 384, 4000, "float16")

    def took(seconds: float, labels: float = 0.0) -> Any:
        nothing = np.empty(0, dtype=np.float32)
        return contestants.Solution(nothing, nothing, 10 * seconds, labels, [seconds, seconds, 9 * seconds], seconds)

    rounds = [
        (1e9, {"streamcurate": took(1.0), "FAISS": took(3.0, 10.0)}),
        (2e9, {"streamcurate": took(2.0), "FAISS": took(4.0, 20.0)}),
        (4e9, {"streamcurate": took(1.0), "FAISS": took(2.5, 5.0), "late": took(5.0)}),
    ]
    found = tables.figures(case, rounds, "streamcurate")
    faiss = found["FAISS"]
    assert faiss["seconds_per_iteration"] == 3.0
    assert faiss["ratio"] == 2.5
    assert faiss["ratio_fit"] == 2.5
    assert faiss["ratio_fit_and_labels"] == 3.0
    assert faiss["gflops"] == pytest.approx(case.flop / 3e9)
    assert faiss["of_sgemm"] == pytest.approx(case.flop / 4 / 2e9)
    assert found["streamcurate"]["ratio"] == 1.0
    assert (found["late"]["rounds"], found["late"]["ratio"]) == (1, 5.0)
    found["streamcurate"]["labels_equal"] = 1.0
    met = tables.goals(case, found, "streamcurate")
    assert met["clustered-384-4000: iterations at least 2.5 × FAISS"]
    assert not met["clustered-384-4000: fit at least 3 × FAISS at equal or lower inertia"]
    assert met["clustered-384-4000: all labels equal brute force"]


@pytest.mark.filterwarnings("ignore")
def test_the_whole_run(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    peers, data, disk, memory = load("peers"), load("speed.rows"), load("speed.disk"), load("speed.memory")
    cases = (
        data.Case("real", 0, 384, 10, "float16", everyone=True),
        data.Case("clustered", 2500, 32, 20, "float16", everyone=True),
        data.Case("isotropic", 2200, 24, 9, "float32"),
    )
    monkeypatch.setattr(peers, "QUICK", cases)
    monkeypatch.setattr(peers, "QUICK_DISK", disk.Sizes(1500, 6, 3000, 4, dims=16, iterations=2, rounds=1))
    # One process of its own is enough here.
    alone = memory.measure
    monkeypatch.setattr(
        memory, "measure", lambda name, *rest: (alone if "disk" in name else memory._solve)(name, *rest)
    )
    line = ["--quick", "--contestants", "streamcurate,scikit-learn", "--iterations", "2", "--folder", tmp_path]
    line += ["--memory", "first", "--json", tmp_path / "peers.json", "--markdown", tmp_path / "peers.md"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *map(str, line)])
    peers.main()
    result = json.loads((tmp_path / "peers.json").read_text())
    assert list(result["cases"]) == ["clustered-32-20", "isotropic-24-9"]
    assert "real-384-10" in result["skipped"]
    for case in result["cases"].values():
        ours, other = case["contestants"]["streamcurate"], case["contestants"]["scikit-learn"]
        assert not case["failed"]
        assert ours["labels_equal"] == 1.0
        assert other["inertia"] == pytest.approx(ours["inertia"], rel=1e-4)
        assert other["ratio"] > 0
        assert case["sgemm_gflops"] > 0
    found = result["cases"]["clustered-32-20"]["contestants"]
    for peak in (found["streamcurate"]["memory"], found["scikit-learn"]["memory"]):
        assert peak["peak_bytes"] > peak["beyond_rows_bytes"] >= 0
        assert peak["peak_bytes"] > 2500 * 32 * 2
    assert found["streamcurate"]["memory_from_disk"]["peak_bytes"] > 0
    assert all(share > 0 for share in result["disk"]["compute_bound"]["share_of_memory_speed"].values())
    assert all(share > 0 for share in result["disk"]["read_bound"]["share_of_readinto"].values())
    page = (tmp_path / "peers.md").read_text()
    assert "| scikit-learn |" in page
    assert "clustered-32-20" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["peers.json", "peers.md"]
