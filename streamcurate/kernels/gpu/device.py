"""A CUDA device through CuPy: the one module that imports it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from streamcurate.errors import InputError
from streamcurate.kernels.gpu.interface import DeviceArray
from streamcurate.kernels.gpu.source import OPTIONS, cuda_source
from streamcurate.kernels.metric import Array

_THREADS = 256  # of a block
_LEAST_CAPABILITY = 70
_INSTALL = "pip install 'streamcurate[cuda12]' or 'streamcurate[cuda13]', whichever CUDA version nvidia-smi shows"
_OTHERWISE = "or use --device cpu, the results are the same"


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


# Of a device's memory, counted on where a foreign pool holds all of it.
_POOLED_SHARE = 1 / 4


class CudaDevice:
    """The device that CUDA numbers ``number``; :func:`open_device` checks that there is one and makes this."""

    def __init__(self, cupy: Any, number: int = 0) -> None:
        self._cupy = cupy
        self._number = number
        self._lock = threading.RLock()
        self._pool = cupy.get_default_memory_pool()
        self._module = cupy.RawModule(code=cuda_source(), options=OPTIONS)
        self._functions: dict[str, Any] = {}
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        self._name = str(properties["name"].decode())
        self._total_bytes = int(properties["totalGlobalMem"])
        self._one, self._zero = np.ones(1, np.float32), np.zeros(1, np.float32)

    @property
    def name(self) -> str:
        """What the maker calls it."""
        return self._name

    @property
    def total_bytes(self) -> int:
        """All its memory."""
        return self._total_bytes

    @contextmanager
    def session(self) -> Iterator[None]:
        """See :class:`~streamcurate.kernels.gpu.interface.Device`, as for the methods below."""
        # One stream, whatever a thread or the environment has chosen: what one call leaves, the next finds done.
        with self._lock, self._cupy.cuda.Device(self._number), self._cupy.cuda.Stream.null:
            yield

    def free_bytes(self) -> int:
        free = int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(self._pool.free_bytes())
        allocator = self._cupy.cuda.get_allocator()
        if "rmm" in str(getattr(allocator, "__module__", "")):
            # RMM's pool has taken most of the memory from CUDA and does not say what of it is free.
            return max(free, int(self._total_bytes * _POOLED_SHARE))
        limit = int(self._pool.get_limit())  # what CUPY_GPU_MEMORY_LIMIT says; 0: nothing
        return free if limit == 0 else max(0, min(free, limit - int(self._pool.used_bytes())))

    def holds(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        try:
            return self._cupy.empty(shape, dtype=dtype)
        except MemoryError as error:  # CuPy's own, or that of another allocator it was told to use
            wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            raise InputError(
                f"device gpu: {_gibibytes(wanted)} more do not fit on {self._name}, which has "
                f"{_gibibytes(self.free_bytes())} free of {_gibibytes(self._total_bytes)}; end other programs on it or "
                f"lower --memory-limit, so that blocks and tiles of centroids become smaller, {_OTHERWISE}"
            ) from error

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        array = self.empty(shape, dtype)
        if array.nbytes:
            array.data.memset_async(0, array.nbytes)
        return array

    def upload(self, array: Array) -> DeviceArray:
        copy = self.empty(array.shape, array.dtype)
        if array.nbytes:
            # Straight from the array: cupy.asarray would go through as much pinned memory, and keep that.
            copy.set(array)
            # Were the source pinned, the copy would still be under way.
            self._cupy.cuda.Stream.null.synchronize()
        return copy

    def download(self, array: DeviceArray) -> Array:
        host: Array = np.empty(array.shape, dtype=array.dtype)
        if host.nbytes:
            array.get(out=host)
        return host

    def product(self, left: DeviceArray, right: DeviceArray, out: DeviceArray) -> None:
        if out.size == 0:
            return
        for array in (left, right, out):
            if array.dtype != np.float32 or not array.flags.c_contiguous:
                raise ValueError(f"{array.dtype} of shape {array.shape} is not a C-contiguous float32 matrix")
        (rows, dims), columns = left.shape, right.shape[0]
        if right.shape[1] != dims or out.shape != (rows, columns):
            raise ValueError(f"{left.shape}, {right.shape} and {out.shape} make no product")
        # cuBLAS counts down the columns: a row-major matrix is its transpose there. Pedantic: float32 arithmetic in
        # all phases, whatever CuPy or the environment say of TF32.
        cublas, runtime = self._cupy.cuda.cublas, self._cupy.cuda.runtime
        handle = self._cupy.cuda.device.get_cublas_handle()
        cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
        cublas.gemmEx(
            handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, columns, rows, dims, self._one.ctypes.data,
            right.data.ptr, runtime.CUDA_R_32F, dims, left.data.ptr, runtime.CUDA_R_32F, dims, self._zero.ctypes.data,
            out.data.ptr, runtime.CUDA_R_32F, columns, cublas.CUBLAS_COMPUTE_32F_PEDANTIC, cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip

    def launch(self, kernel: str, count: int, *arguments: DeviceArray | int | float) -> None:
        if count == 0:
            return
        function = self._functions.get(kernel)
        if function is None:
            function = self._functions[kernel] = self._module.get_function(kernel)
        function((-(-count // _THREADS),), (_THREADS,), tuple(self._passed(argument) for argument in arguments))

    def _passed(self, argument: DeviceArray | int | float) -> Any:
        if isinstance(argument, float):
            return np.float64(argument)
        if isinstance(argument, int):
            return np.int64(argument)
        if not self.holds(argument) or not argument.flags.c_contiguous:
            raise TypeError(f"a {type(argument).__name__} that is no C-contiguous array of the device is passed to it")
        return argument

    def close(self) -> None:
        with self.session():
            self._pool.free_all_blocks()


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        what = "CuPy is not installed" if missing else f"CuPy cannot be imported ({_first_line(error)})"
        raise InputError(f"device gpu: {what}; {_INSTALL}, {_OTHERWISE}") from error
    return cupy


def cupy_version() -> str:
    """The version of CuPy; InputError where there is none."""
    return str(_cupy().__version__)


def open_device(number: int = 0) -> CudaDevice:
    """The CUDA device, its kernels compiled.

    Raises
    ------
    InputError
        CuPy, a driver, a device or a compiler is missing, or the device is too old; the message says which.
    """
    cupy = _cupy()
    runtime = cupy.cuda.runtime
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        raise InputError(
            f"device gpu: no CUDA driver or device can be used ({_first_line(error)}); see whether nvidia-smi lists a "
            f"device and CUDA version {int(runtime.runtimeGetVersion()) // 1000} or later, {_OTHERWISE}"
        ) from error
    if count <= number:
        raise InputError(
            f"device gpu: {count} CUDA devices are visible; see nvidia-smi and CUDA_VISIBLE_DEVICES, {_OTHERWISE}"
        )
    try:
        capability = int(cupy.cuda.Device(number).compute_capability)
        if capability < _LEAST_CAPABILITY:
            raise InputError(
                f"device gpu: the device is of compute capability {capability // 10}.{capability % 10}; "
                f"{_LEAST_CAPABILITY // 10}.{_LEAST_CAPABILITY % 10} (Volta) or later is needed; use --device cpu, the "
                "results are the same"
            )
        device = CudaDevice(cupy, number)
        with device.session():
            device.launch(
                "row_norms_float32", 1, device.zeros((1, 1), np.float32), 1, 1, device.zeros((1,), np.float64)
            )
            device.product(*(device.zeros((1, 1), np.float32) for _ in range(3)))
            runtime.deviceSynchronize()
    except InputError:
        raise
    except (ImportError, RuntimeError, cupy.cuda.compiler.CompileException) as error:
        raise InputError(
            f"device gpu: CUDA's compiler or libraries fail ({_first_line(error)}); {_INSTALL} (they bring both), "
            f"{_OTHERWISE}"
        ) from error
    return device


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
