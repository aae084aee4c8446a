"""The choice of a backend, and what importing the room costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.backend import Backend


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_cpu_offers_the_whole_protocol(device):
    backend = kernels.get_backend(device)
    assert backend.name == "cpu"
    for name, declared in inspect.getmembers(Backend, inspect.isfunction):
        if name.startswith("_"):
            continue
        assert getattr(backend, name) is getattr(kernels, name)
        parameters = [p for p in inspect.signature(declared).parameters if p != "self"]
        assert list(inspect.signature(getattr(backend, name)).parameters) == parameters


def test_gpu_is_refused():
    with pytest.raises(InputError, match="computes on the CPU only; use cpu"):
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
