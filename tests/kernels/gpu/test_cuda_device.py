"""The calls made to CuPy, against a stand-in that takes them as CuPy and cuBLAS document them."""

from __future__ import annotations

import ctypes
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.errors import InputError
from streamcurate.kernels.gpu.backend import GpuBackend
from streamcurate.kernels.gpu.device import cupy_version, open_device
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE
from streamcurate.kernels.gpu.source import OPTIONS, cuda_source
from streamcurate.kernels.gpu.trust import check_arithmetic, trusted_routes

MEMORY = 2**26


class Pointer:
    """What is used of ``cupy.cuda.MemoryPointer``."""

    def __init__(self, ptr, memset_async=None):
        self.ptr, self.memset_async = ptr, memset_async

    def __add__(self, offset):
        return Pointer(self.ptr + offset)

    def copy_from_host_async(self, mem, size, stream):
        assert type(mem) is int
        assert isinstance(stream, Stream)
        ctypes.memmove(self.ptr, mem, size)


class Stream:
    """What is used of ``cupy.cuda.Stream``: it knows which is current, and what waited for what."""

    current: ClassVar[list] = []

    def __init__(self, null=False, non_blocking=False):
        assert null or non_blocking
        self.done = []

    def __enter__(self):
        Stream.current.append(self)
        return self

    def __exit__(self, *_):
        assert Stream.current.pop() is self

    def synchronize(self):
        self.done.append("synchronize")

    def record(self):
        return "event"

    def wait_event(self, event):
        self.done.append(event)


class NdArray:
    """What is used of ``cupy.ndarray``."""

    def __init__(self, array):
        self.host = array
        self.shape, self.dtype, self.nbytes, self.size = array.shape, array.dtype, array.nbytes, array.size
        self.flags = array.flags
        self.data = Pointer(array.ctypes.data, self.memset)

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


def matrix(pointer, rows, columns, leading, kind=np.float32):
    """A column-major matrix in memory, as cuBLAS takes one."""
    memory = (ctypes.c_ubyte * (np.dtype(kind).itemsize * leading * columns)).from_address(pointer)
    return np.frombuffer(memory, kind).reshape(columns, leading).T[:rows]


def gemm_ex(
    handle, transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype, ldc, compute, algorithm
):
    assert (handle, atype, ctype, algorithm) == ("handle", btype, "R_32F", "any")
    assert compute == {"R_32F": "pedantic", "R_16F": "float32"}[atype]
    kind = {"R_32F": np.float32, "R_16F": np.float16}[atype]
    assert [ctypes.c_float.from_address(scalar).value for scalar in (alpha, beta)] == [1.0, 0.0]
    left = matrix(a, k, m, lda, kind).T if transa == "T" else matrix(a, m, k, lda, kind)
    right = matrix(b, n, k, ldb, kind).T if transb == "T" else matrix(b, k, n, ldb, kind)
    matrix(c, m, n, ldc)[...] = left.astype(np.float32) @ right.astype(np.float32)


class FakeError(RuntimeError):
    pass


class FakeOutOfMemoryError(MemoryError):
    pass


@pytest.fixture
def cupy(host_kernels, monkeypatch, tmp_path):
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cache"))

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

    def create_program(source, name, headers, include_names):
        assert (source, headers, include_names) == (cuda_source(), (), ())
        made.created.append(17)
        return 17

    def compile_program(program, options):
        assert options == (*OPTIONS, "--gpu-architecture=sm_" + {"90": "90a"}.get(made.capability, made.capability))
        if made.compiler_says is not None:
            raise FakeError("NVRTC_ERROR_COMPILATION (6)")

    def raw_module(path):
        assert Path(path).read_bytes() == b"binary"
        return types.SimpleNamespace(get_function=get_function)

    class Device:
        def __init__(self, number):
            assert number == 0
            self.compute_capability = made.capability

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    null, destroyed = Stream(null=True), []

    def stream(**options):
        return Stream(**options)

    stream.null = null
    made = types.ModuleType("cupy")
    made.destroyed, made.created = destroyed, []
    made.ndarray, made.empty, made.RawModule = NdArray, empty, raw_module
    pool = types.SimpleNamespace(
        free_bytes=lambda: 2**20, used_bytes=lambda: 2**21, get_limit=lambda: made.limit, free_all_blocks=lambda: None
    )
    made.limit, made.allocator, made.capability, made.compiler_says = 0, pool.free_bytes, "80", None
    made.get_default_memory_pool = lambda: pool
    made.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1, CUDARuntimeError=FakeError, deviceSynchronize=lambda: None, CUDA_R_32F="R_32F",
            CUDA_R_16F="R_16F",
            memGetInfo=lambda: (MEMORY, 2 * MEMORY),
            getDeviceProperties=lambda number: {
                "name": b"Stand-in", "totalGlobalMem": 2 * MEMORY, "l2CacheSize": 2**20,
            },
        ),
        get_allocator=lambda: made.allocator,
        Device=Device,
        Stream=stream,
        Event=lambda disable_timing: types.SimpleNamespace(
            synchronize=lambda: None, record=lambda stream: stream.done.append("record")
        ),
        alloc_pinned_memory=lambda size: bytearray(size),
        get_current_stream=lambda: Stream.current[-1] if Stream.current else null,
        nvrtc=types.SimpleNamespace(
            createProgram=create_program, compileProgram=compile_program, destroyProgram=destroyed.append,
            getCUBIN=lambda program: b"binary", getVersion=lambda: (13, 0),
            getProgramLog=lambda program: made.compiler_says, NVRTCError=FakeError,
        ),
        device=types.SimpleNamespace(get_cublas_handle=lambda: "handle"),
        cublas=types.SimpleNamespace(
            gemmEx=gemm_ex, setPointerMode=lambda handle, mode: None, CUBLAS_POINTER_MODE_HOST="host",
            CUBLAS_OP_T="T", CUBLAS_OP_N="N", CUBLAS_COMPUTE_32F_PEDANTIC="pedantic",
            CUBLAS_COMPUTE_32F="float32", CUBLAS_GEMM_DEFAULT="any",
        ),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made


def test_results_are_the_cpus(cupy):
    device = open_device()
    check_arithmetic(device)
    assert cupy.destroyed == [17]
    assert trusted_routes(device) == (HALF, SINGLE)
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
    with pytest.raises(ValueError, match="is not a C-contiguous factor or product"):
        device.product(square, device.zeros((4, 4), np.float64), square)
    wide = NdArray(np.zeros((4, 8), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="is not a C-contiguous factor or product"):
        device.product(square, wide, square)


def test_the_fused_kernel_is_for_one_kind_of_device(cupy):
    cupy.capability = "90"
    assert open_device().routes == (FUSED, HALF, SINGLE)
    cupy.capability = "120"
    assert open_device().routes == (HALF, SINGLE)


def test_what_the_compiler_says_is_told(cupy):
    cupy.compiler_says = "\nnvrtc: error: no such thing\nmore"
    with pytest.raises(InputError, match=r"libraries fail \(nvrtc, --gpu-architecture=sm_80: nvrtc: error: no such"):
        open_device()
    assert cupy.destroyed == [17]


@pytest.mark.parametrize("rows", [3, 2**20 // 16, 2**21 + 1])
def test_rows_are_copied_through_pinned_memory(cupy, rows):
    device = open_device()
    x = np.random.default_rng(0).integers(0, 2**16, (rows, 8), dtype=np.uint16).view(np.float16)
    assert device.upload(x).host.tobytes() == x.tobytes()
    stream = None
    if x.nbytes > 2**20:
        stream, _ = device._lane.get(cupy)
        assert stream.done[-1] == "synchronize"
        assert "event" not in stream.done
    with device.session():
        assert device.upload(x).host.tobytes() == x.tobytes()
    # Within a session the copy comes after what the session has begun.
    assert stream is None or "event" in stream.done
    assert not Stream.current


def test_kernels_are_compiled_once(cupy, tmp_path):
    for _ in range(2):
        open_device()
    assert len(cupy.created) == 1
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"binary", b"binarx"))
    open_device()
    assert len(cupy.created) == 2
    cupy.capability = "90"
    open_device()
    assert len(cupy.created) == 3
    # Where nothing can be kept: a file where the folder should be.
    kept.unlink()
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").touch()
    open_device()
    assert len(cupy.created) == 4
