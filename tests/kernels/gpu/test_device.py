"""What is said where there is no device, and the check of a device's arithmetic."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.gpu.backend import GpuBackend, check_arithmetic
from streamcurate.kernels.gpu.device import open_device


class FakeRuntimeError(RuntimeError):
    pass


def fake_cupy(count=1, capability="90", failure=None, broken=None):
    """As much of CuPy as is asked before the first array."""

    def device_count():
        if failure is not None:
            raise FakeRuntimeError(failure)
        return count

    def raw_module(**_):
        raise broken

    cupy = types.ModuleType("cupy")
    cupy.RawModule = raw_module
    cupy.get_default_memory_pool = object
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=device_count, CUDARuntimeError=FakeRuntimeError, runtimeGetVersion=lambda: 13020
        ),
        Device=lambda number: types.SimpleNamespace(compute_capability=capability),
        compiler=types.SimpleNamespace(CompileException=type("CompileException", (Exception,), {})),
    )
    return cupy


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (None, r"CuPy is not installed; pip install 'streamcurate\[cuda12\]' or 'streamcurate\[cuda13\]'"),
        (
            fake_cupy(failure="cudaErrorInsufficientDriver: CUDA driver version is insufficient"),
            r"no CUDA driver or device can be used \(cudaErrorInsufficientDriver.*CUDA version 13 or later",
        ),
        (fake_cupy(count=0), "0 CUDA devices are visible; see nvidia-smi and CUDA_VISIBLE_DEVICES"),
        (fake_cupy(capability="61"), r"compute capability 6.1; 7.0 \(Volta\) or later is needed"),
        (
            fake_cupy(broken=ImportError("no libnvrtc.so.13\nmore")),
            r"libraries fail \(no libnvrtc.so.13\); pip install",
        ),
    ],
)
def test_what_is_missing_is_named(monkeypatch, cupy, message):
    if cupy is None:
        # None in sys.modules: the import fails as that of a package that is not installed.
        monkeypatch.setitem(sys.modules, "cupy", None)
    else:
        monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(InputError, match=f"device gpu: .*{message}.*use --device cpu"):
        open_device()


def test_nothing_imports_cupy_before_a_device_is_asked_for():
    code = (
        "import sys, streamcurate.kernels.gpu.backend, streamcurate.kernels.gpu.device; "
        "assert not {'cupy', 'cupyx', 'cupy_backends'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arithmetic_is_checked(make_host_device):
    device = make_host_device()
    check_arithmetic(device)
    assert device.used == 0
    product = device.product

    def tensor_float(left, right, out):
        # 10 bits of mantissa, as TF32 keeps.
        for matrix in (left, right):
            bits = matrix._array.view(np.uint32)
            bits[...] = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        product(left, right, out)

    device.product = tensor_float
    with pytest.raises(InputError, match="products are not of float32 precision"):
        check_arithmetic(device)

    def another_formula(kernel, count, *arguments):
        type(device).launch(device, kernel, count, *arguments)
        if kernel.startswith("pair_values"):
            arguments[-1]._array[17] = np.nextafter(arguments[-1]._array[17], 0)

    device.product, device.launch = product, another_formula
    with pytest.raises(InputError, match="float64 arithmetic is not the processor's"):
        check_arithmetic(device)


def test_the_device_is_described(make_backend):
    backend = make_backend()
    assert backend.name == "gpu"
    assert backend.device_name
    assert backend.device_bytes > 2**30
    x = np.ones((2, 3), np.float16)
    rows = backend.upload(x)
    assert rows.shape == (2, 3)
    assert backend.upload(rows) is rows
    backend.close()
    assert backend.statistics(rows).rows == 2


def test_bytes_said_do_not_grow_with_rows(make_host_device):
    backend = GpuBackend(make_host_device())
    few, many = (backend.nearest_device_bytes(rows, 384, 2000) for rows in (10**6, 10**9))
    assert few == many < 2**30
    assert backend.nearest_workspace_bytes(10**9, 384, 2000) < 8 * 2**20


@pytest.mark.gpu
def test_a_real_device_passes_the_check():
    try:
        device = open_device()
    except InputError as error:
        pytest.skip(str(error))
    check_arithmetic(device)
    assert kernels.get_backend("gpu") is kernels.get_backend("gpu")
