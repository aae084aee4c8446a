"""The benchmark script's own arithmetic, on the host: it must not fail where a device is at hand for minutes only."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from streamcurate.kernels.gpu.backend import GpuBackend
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def suite(monkeypatch):
    if not BENCHMARKS.is_dir():
        pytest.skip("no benchmarks beside the tests")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    for name in ("torch", "flash_kmeans"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("gpu_suite", BENCHMARKS / "gpu_suite.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in (("CENTRES", 50), ("TILE", 100), ("STREAM_BLOCK", 64), ("REPEATS", 1)):
        monkeypatch.setattr(module, name, value)
    return module


def test_rows_are_the_same_for_any_number_of_centroids(suite):
    rows, few = suite.make_rows(250, 8, 3)
    again, many = suite.make_rows(250, 8, 90)
    np.testing.assert_array_equal(rows, again)
    assert few.shape == (3, 8)
    assert rows.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, rtol=1e-5)


def test_a_shape_is_timed_and_shown(suite, make_host_device, capsys):
    device = make_host_device()
    backend = GpuBackend(device)
    rows, _ = suite.make_rows(200, 16, 1)
    shape = suite.time_shape(backend, rows, 300, lambda: None, with_peers=True)
    assert not shape["failed"]
    assert set(shape["candidates_a_row"]) == {FUSED, HALF, SINGLE}
    assert all(1 <= value < 3 for value in shape["candidates_a_row"].values())
    assert "launch" not in vars(device)
    suite.show([shape], ["d 1, k 2"], 800.0)
    told = capsys.readouterr().out
    assert "16" in told
    assert "left out" in told
    assert set(suite.speed_goals([shape], 800.0).values()) == {None}


def test_goals_are_of_the_shapes_they_were_set_for(suite):
    def shape(dims, clusters, ours, host, torch, tflops):
        seconds = {"nearest": ours, "nearest from the host": host, "torch product and argmin float32": torch}
        return {"dims": dims, "clusters": clusters, "seconds": seconds, "tflops": {"nearest": tflops}}

    small, large = shape(128, 4096, 1.0, 2.0, 2.9, 10.0), shape(1024, 32768, 1.0, 1.05, 9.0, 500.0)
    assert list(suite.speed_goals([small, large], 800.0).values()) == [True, False, None, True]
    assert list(suite.speed_goals([large], 900.0).values()) == [False, True, None, True]


def test_results_are_compared(suite, make_host_device, monkeypatch):
    device = make_host_device()
    backend = GpuBackend(device)
    monkeypatch.setattr(
        suite, "CHECKED", ((40, 7, 90, "l2", 0.0), (40, 9, 80, "cosine", 0.0), (40, 16, 600, "l2", 5.0))
    )
    assert all(all(flag for flag in found.values() if type(flag) is bool) for found in suite.check_results(backend))
    whole = device.product

    def wrong(left, right, out):
        whole(left, right, out)
        out._array[...] = -out._array

    device.product = wrong
    assert not all(all(flag for flag in found.values() if type(flag) is bool) for found in suite.check_results(backend))
