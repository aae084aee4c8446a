"""The choice of a backend, and what importing the room costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.backend import Backend
from streamcurate.kernels.gpu.backend import GpuBackend, gpu_backend

# Of a backend: what keeps something, or has nothing to do with arithmetic.
OWN = {"upload", "close", "prepare_centroids"}


def declared():
    return [
        (name, function)
        for name, function in inspect.getmembers(Backend, inspect.isfunction)
        if not name.startswith("_")
    ]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_cpu_offers_the_whole_protocol(device):
    backend = kernels.get_backend(device)
    assert backend.name == "cpu"
    assert backend.device_bytes is None
    for name, function in declared():
        assert name in OWN or getattr(backend, name) is getattr(kernels, name)
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
        assert list(inspect.signature(getattr(backend, name)).parameters) == parameters
    rows = np.zeros((2, 3), np.float16)
    assert backend.upload(rows) is rows
    backend.close()


def test_gpu_offers_the_whole_protocol():
    for name, function in declared():
        taken, wanted = (list(inspect.signature(f).parameters.values()) for f in (getattr(GpuBackend, name), function))
        assert [(p.name, p.default) for p in taken if p.name != "self"] == [
            (p.name, p.default) for p in wanted if p.name != "self"
        ]


def test_gpu_without_cupy_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    gpu_backend.cache_clear()
    with pytest.raises(InputError, match="device gpu: CuPy is not installed; pip install"):
        kernels.get_backend("gpu")


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match="device is 'tpu'; it must be auto, cpu or gpu"):
        kernels.get_backend("tpu")


def test_every_name_is_there():
    for name in kernels.__all__:
        assert getattr(kernels, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        kernels.absent  # noqa: B018


def test_importing_the_room_imports_no_compiler():
    code = "import sys, streamcurate.kernels as k; k.FixedPoint, k.Statistics; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
