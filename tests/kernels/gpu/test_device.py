"""What is said where there is no device, and the check of a device's arithmetic."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.gpu import trust
from streamcurate.kernels.gpu.backend import GpuBackend
from streamcurate.kernels.gpu.device import open_device
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE
from streamcurate.kernels.gpu.trust import check_arithmetic, fused_screen_holds, half_products_hold, trusted_routes


class FakeRuntimeError(RuntimeError):
    pass


def fake_cupy(count=1, capability="90", failure=None, broken=None):
    """As much of CuPy as is asked before the first array."""

    def device_count():
        if failure is not None:
            raise FakeRuntimeError(failure)
        return count

    def create_program(*_):
        raise broken

    cupy = types.ModuleType("cupy")
    cupy.get_default_memory_pool = object
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=device_count, CUDARuntimeError=FakeRuntimeError, runtimeGetVersion=lambda: 13020
        ),
        Device=lambda number: types.SimpleNamespace(compute_capability=capability),
        nvrtc=types.SimpleNamespace(createProgram=create_program, getVersion=lambda: (13, 0)),
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
def test_what_is_missing_is_named(monkeypatch, tmp_path, cupy, message):
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
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


def test_a_device_that_flushes_subnormals_is_refused(make_host_device):
    device = make_host_device()

    def flushing(kernel, count, *arguments):
        if kernel == "pair_values_float16":
            bits = arguments[0]._array.view(np.uint16)
            bits[(bits & 0x7C00) == 0] = 0
        type(device).launch(device, kernel, count, *arguments)

    device.launch = flushing
    with pytest.raises(InputError, match="float64 arithmetic is not the processor's"):
        check_arithmetic(device)


def test_routes_are_tried_before_they_are_trusted(make_host_device, monkeypatch):
    device = make_host_device()
    assert trusted_routes(device) == (FUSED, HALF, SINGLE)
    assert device.used == 0
    whole = device.half_product

    def flushing(x, w):
        x, w = (np.where(np.abs(m) < 2.0**-14, np.float16(0), m) for m in (x, w))
        return whole(x, w)

    def short(x, w):
        # Sums kept in 13 bits, as some hardware keeps those of 8-bit factors.
        total = np.zeros((len(x), len(w)), np.float32)
        for first in range(0, x.shape[1], 16):
            total += whole(x[:, first : first + 16], w[:, first : first + 16])
            total = (total.view(np.uint32) & np.uint32(0xFFFFFC00)).view(np.float32)
        return total

    for wrong in (flushing, short):
        device.half_product = wrong
        assert not half_products_hold(device)
    del device.half_product

    def forgetful(blocks, shared_bytes, *arguments):
        type(device).fused_screen(device, blocks, shared_bytes, *arguments)
        lengths = arguments[-2]._array
        lengths[5:9] = 0

    device.fused_screen = forgetful
    assert not fused_screen_holds(device)
    monkeypatch.setattr(trust, "half_products_hold", lambda device: False)
    assert trusted_routes(device) == (SINGLE,)


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
    # All it has: should one fail its trial, the search is right without it, and slower.
    assert trusted_routes(device) == device.routes
    assert kernels.get_backend("gpu") is kernels.get_backend("gpu")
