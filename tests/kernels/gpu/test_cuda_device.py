"""The calls made to CuPy, against a stand-in that takes them as CuPy and cuBLAS document them."""

from __future__ import annotations

import ctypes
import sys
import types

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.gpu.backend import GpuBackend, check_arithmetic
from streamcurate.kernels.gpu.device import cupy_version, open_device
from streamcurate.kernels.gpu.source import OPTIONS, cuda_source

MEMORY = 2**26


class NdArray:
    """What is used of ``cupy.ndarray``."""

    def __init__(self, array):
        self.host = array
        self.shape, self.dtype, self.nbytes, self.size = array.shape, array.dtype, array.nbytes, array.size
        self.flags = array.flags
        self.data = types.SimpleNamespace(ptr=array.ctypes.data, memset_async=self.memset)

    def __len__(self):
        return len(self.host)

    def __getitem__(self, part):
        return NdArray(self.host[part])

    def memset(self, value, size):
        assert size == self.nbytes
        self.host.reshape(-1).view(np.uint8)[:] = value

    def set(self, array):
        assert (array.dtype, array.shape) == (self.dtype, self.shape)
        self.host[...] = array

    def get(self, out):
        assert (out.dtype, out.shape) == (self.dtype, self.shape)
        out[...] = self.host


def matrix(pointer, rows, columns, leading):
    """A column-major matrix in memory, as cuBLAS takes one."""
    memory = (ctypes.c_float * (leading * columns)).from_address(pointer)
    return np.ctypeslib.as_array(memory).reshape(columns, leading).T[:rows]


def gemm_ex(
    handle, transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype, ldc, compute, algorithm
):
    assert (handle, atype, btype, ctype, compute, algorithm) == ("handle", "R_32F", "R_32F", "R_32F", "pedantic", "any")
    assert [ctypes.c_float.from_address(scalar).value for scalar in (alpha, beta)] == [1.0, 0.0]
    left = matrix(a, k, m, lda).T if transa == "T" else matrix(a, m, k, lda)
    right = matrix(b, n, k, ldb).T if transb == "T" else matrix(b, k, n, ldb)
    matrix(c, m, n, ldc)[...] = left @ right


class FakeError(RuntimeError):
    pass


class FakeOutOfMemoryError(MemoryError):
    pass


@pytest.fixture
def cupy(host_kernels, monkeypatch):
    def empty(shape, dtype):
        if np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize > MEMORY:
            raise FakeOutOfMemoryError
        return NdArray(np.empty(shape, dtype=dtype))

    def get_function(name):
        def launch(grid, block, arguments):
            assert block == (256,)
            kinds = [kind for kind, _ in host_kernels.parameters[name]]
            passed = []
            for argument, kind in zip(arguments, kinds, strict=True):
                if isinstance(argument, NdArray):
                    passed.append(ctypes.c_void_p(argument.data.ptr))
                else:
                    assert type(argument) is {"long long": np.int64, "double": np.float64}[kind]
                    passed.append({"long long": ctypes.c_longlong, "double": ctypes.c_double}[kind](argument))
            count = ctypes.c_longlong(grid[0] * block[0])
            getattr(host_kernels.library, f"launch_{name}")(count, ctypes.c_longlong(0), *passed)

        return launch

    def raw_module(code, options):
        assert (code, options) == (cuda_source(), OPTIONS)
        return types.SimpleNamespace(get_function=get_function)

    class Device:
        compute_capability = "90"

        def __init__(self, number):
            assert number == 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    class Null(Device):
        def synchronize(self):
            pass

    made = types.ModuleType("cupy")
    made.ndarray, made.empty, made.RawModule = NdArray, empty, raw_module
    pool = types.SimpleNamespace(
        free_bytes=lambda: 2**20, used_bytes=lambda: 2**21, get_limit=lambda: made.limit, free_all_blocks=lambda: None
    )
    made.limit, made.allocator = 0, pool.free_bytes
    made.get_default_memory_pool = lambda: pool
    made.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1, CUDARuntimeError=FakeError, deviceSynchronize=lambda: None, CUDA_R_32F="R_32F",
            memGetInfo=lambda: (MEMORY, 2 * MEMORY),
            getDeviceProperties=lambda number: {"name": b"Stand-in", "totalGlobalMem": 2 * MEMORY},
        ),
        get_allocator=lambda: made.allocator,
        Device=Device,
        Stream=types.SimpleNamespace(null=Null(0)),
        device=types.SimpleNamespace(get_cublas_handle=lambda: "handle"),
        compiler=types.SimpleNamespace(CompileException=FakeError),
        cublas=types.SimpleNamespace(
            gemmEx=gemm_ex, setPointerMode=lambda handle, mode: None, CUBLAS_POINTER_MODE_HOST="host",
            CUBLAS_OP_T="T", CUBLAS_OP_N="N", CUBLAS_COMPUTE_32F_PEDANTIC="pedantic", CUBLAS_GEMM_DEFAULT="any",
        ),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made


def test_results_are_the_cpus(cupy):
    device = open_device()
    check_arithmetic(device)
    backend = GpuBackend(device, 2**18)
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((700, 40)).astype(np.float16), rng.standard_normal((300, 40)).astype(np.float32)
    rows = backend.upload(x)
    labels, values = backend.nearest(rows, backend.prepare_centroids(c, "cosine"))
    expected = kernels.nearest(x, kernels.prepare_centroids(c, "cosine"))
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(values, expected[1])
    fixed = kernels.FixedPoint.for_unit_rows(700)
    np.testing.assert_array_equal(
        backend.cluster_sums(rows, labels, "cosine", fixed, 300).limbs,
        kernels.cluster_sums(x, labels, "cosine", fixed, 300).limbs,
    )
    backend.close()


def test_version_is_told(cupy):
    cupy.__version__ = "14.0.1"
    assert cupy_version() == "14.0.1"


def test_memory_is_told_and_refused(cupy):
    device = open_device()
    assert (device.name, device.total_bytes, device.free_bytes()) == ("Stand-in", 2 * MEMORY, MEMORY + 2**20)


def test_a_pool_that_holds_all_memory_does_not_make_tiles_tiny(cupy):
    device = open_device()

    def rmm_cupy_allocator(nbytes):
        raise AssertionError

    rmm_cupy_allocator.__module__ = "rmm.allocators.cupy"
    cupy.allocator = rmm_cupy_allocator
    cupy.cuda.runtime.memGetInfo = lambda: (2**10, 2 * MEMORY)
    assert device.free_bytes() == MEMORY // 2


def test_memory_limits_are_kept(cupy):
    device = open_device()
    cupy.limit = 2**22
    assert device.free_bytes() == 2**21
    with pytest.raises(InputError, match=r"0\.12 GiB more do not fit on Stand-in, which has 0\.00 GiB free of 0\.12"):
        device.empty((2**25,), np.float32)


def test_what_a_kernel_cannot_take_is_refused(cupy):
    device = open_device()
    square = device.zeros((4, 4), np.float32)
    with pytest.raises(TypeError, match="a ndarray that is no C-contiguous array of the device"):
        device.launch("row_norms_float32", 4, np.zeros((4, 4), np.float32), 4, 4, device.zeros((4,), np.float64))
    with pytest.raises(ValueError, match="make no product"):
        device.product(square, device.zeros((4, 3), np.float32), square)
    with pytest.raises(ValueError, match="is not a C-contiguous float32 matrix"):
        device.product(square, device.zeros((4, 4), np.float64), square)
    wide = NdArray(np.zeros((4, 8), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="is not a C-contiguous float32 matrix"):
        device.product(square, wide, square)
