"""A CUDA device through CuPy: the one module that imports it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from streamcurate.errors import InputError
from streamcurate.kernels.gpu.compiler import compiled
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE, THREADS, DeviceArray
from streamcurate.kernels.gpu.source import FUSED_CAPABILITY
from streamcurate.kernels.metric import Array

_FUSED_THREADS = 384
_STAGE_BYTES = 2**23  # pinned memory through which copies to the device go, twice for each thread that makes them
_LEAST_CAPABILITY = 70
_INSTALL = "pip install 'streamcurate[cuda12]' or 'streamcurate[cuda13]', whichever CUDA version nvidia-smi shows"
_OTHERWISE = "or use --device cpu, the results are the same"


_FACTORS = (np.dtype(np.float16), np.dtype(np.float32))


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


# Of a device's memory, counted on where a foreign pool holds all of it.
_POOLED_SHARE = 1 / 4


class _Lane(threading.local):
    """What one thread copies to the device through: a stream and two pinned buffers, made when first asked for.

    Memory that is not pinned is copied by the driver through pinned memory of its own, and nothing else of that thread
    or stream goes on meanwhile.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self._made: tuple[Any, list[tuple[Array, Any]]] | None = None

    def get(self, cupy: Any) -> tuple[Any, list[tuple[Array, Any]]]:
        if self._made is None:
            buffers = []
            for _ in range(2):
                memory = cupy.cuda.alloc_pinned_memory(_STAGE_BYTES)
                # The buffer keeps the memory it views.
                buffers.append((np.frombuffer(memory, np.uint8, _STAGE_BYTES), cupy.cuda.Event(disable_timing=True)))
            # One that does not wait for the null stream, on which the computing goes on.
            self._made = cupy.cuda.Stream(non_blocking=True), buffers
        return self._made


class CudaDevice:
    """The device that CUDA numbers ``number``; :func:`open_device` checks that there is one and makes this."""

    def __init__(self, cupy: Any, number: int = 0) -> None:
        self._cupy = cupy
        self._number = number
        self._lock = threading.RLock()
        self._lane = _Lane()
        self._pool = cupy.get_default_memory_pool()
        self._capability = int(cupy.cuda.Device(number).compute_capability)
        # A binary is loaded from a file, when a kernel is first asked for; it goes with this object.
        folder = tempfile.mkdtemp(prefix="streamcurate-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        binary = Path(folder) / "kernels.cubin"
        binary.write_bytes(compiled(cupy.cuda.nvrtc, self._capability))
        self._module = cupy.RawModule(path=str(binary))
        self._functions: dict[str, Any] = {}
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        self._name = str(properties["name"].decode())
        self._total_bytes = int(properties["totalGlobalMem"])
        self._cache_bytes = int(properties.get("l2CacheSize", 0))
        self._one, self._zero = np.ones(1, np.float32), np.zeros(1, np.float32)

    @property
    def name(self) -> str:
        """What the maker calls it."""
        return self._name

    @property
    def total_bytes(self) -> int:
        """All its memory."""
        return self._total_bytes

    @property
    def cache_bytes(self) -> int:
        """Its last cache before memory."""
        return self._cache_bytes

    @property
    def routes(self) -> tuple[str, ...]:
        """What it can do of FUSED, HALF and SINGLE."""
        return (FUSED, HALF, SINGLE) if self._capability == FUSED_CAPABILITY else (HALF, SINGLE)

    @contextmanager
    def session(self) -> Iterator[None]:
        """See :class:`~streamcurate.kernels.gpu.interface.Device`, as for the methods below."""
        # One stream, whatever a thread or the environment has chosen: what one call leaves, the next finds done.
        null = self._cupy.cuda.Stream.null
        with self._lock, self._cupy.cuda.Device(self._number), null:
            self._lane.sessions += 1
            try:
                yield
            finally:
                self._lane.sessions -= 1
                if self._lane.sessions == 0:
                    # Memory given back from here on may be taken by a copy on another stream.
                    null.synchronize()

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
        if array.nbytes < _STAGE_BYTES // 8:
            with self._cupy.cuda.Device(self._number):
                copy = self.empty(array.shape, array.dtype)
                if array.nbytes:
                    copy.set(array)
                    # Were the source pinned, the copy would still be under way.
                    self._cupy.cuda.get_current_stream().synchronize()
                return copy
        with self._cupy.cuda.Device(self._number):
            stream, buffers = self._lane.get(self._cupy)
            if self._lane.sessions:
                # The memory this copy is given may be what a kernel of this session still reads.
                stream.wait_event(self._cupy.cuda.Stream.null.record())
            with stream:
                copy = self.empty(array.shape, array.dtype)
                source = array.reshape(-1).view(np.uint8)
                for turn, start in enumerate(range(0, array.nbytes, _STAGE_BYTES)):
                    buffer, copied = buffers[turn % 2]
                    count = min(_STAGE_BYTES, array.nbytes - start)
                    copied.synchronize()
                    np.copyto(buffer[:count], source[start : start + count])
                    (copy.data + start).copy_from_host_async(buffer.ctypes.data, count, stream)
                    copied.record(stream)
                stream.synchronize()
        return copy

    def download(self, array: DeviceArray) -> Array:
        host: Array = np.empty(array.shape, dtype=array.dtype)
        if host.nbytes:
            array.get(out=host)
        return host

    def product(self, left: DeviceArray, right: DeviceArray, out: DeviceArray) -> None:
        if out.size == 0:
            return
        kind = left.dtype
        for array, wanted in ((left, kind), (right, kind), (out, np.dtype(np.float32))):
            if array.dtype != wanted or kind not in _FACTORS or not array.flags.c_contiguous:
                raise ValueError(f"{array.dtype} of shape {array.shape} is not a C-contiguous factor or product")
        (rows, dims), columns = left.shape, right.shape[0]
        if right.shape[1] != dims or out.size != rows * columns:
            raise ValueError(f"{left.shape}, {right.shape} and {out.shape} make no product")
        # cuBLAS counts down the columns: a row-major matrix is its transpose there. Pedantic: float32 arithmetic in
        # all phases, whatever CuPy or the environment say of TF32. float16 is multiplied by tensor cores and added in
        # float32 by either.
        cublas, runtime = self._cupy.cuda.cublas, self._cupy.cuda.runtime
        if kind == np.float16:
            factor, compute = runtime.CUDA_R_16F, cublas.CUBLAS_COMPUTE_32F
        else:
            factor, compute = runtime.CUDA_R_32F, cublas.CUBLAS_COMPUTE_32F_PEDANTIC
        handle = self._cupy.cuda.device.get_cublas_handle()
        cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
        cublas.gemmEx(
            handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, columns, rows, dims, self._one.ctypes.data,
            right.data.ptr, factor, dims, left.data.ptr, factor, dims, self._zero.ctypes.data, out.data.ptr,
            runtime.CUDA_R_32F, columns, compute, cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip

    def launch(self, kernel: str, count: int, *arguments: DeviceArray | int | float) -> None:
        if count == 0:
            return
        passed = tuple(self._passed(argument) for argument in arguments)
        self._function(kernel)((-(-count // THREADS),), (THREADS,), passed)

    def blocks(self, items: int, items_a_block: int) -> int:
        return -(-items // items_a_block) * THREADS

    def fused_screen(self, blocks: int, shared_bytes: int, *arguments: DeviceArray | int | float) -> None:
        if blocks == 0:
            return
        function = self._function("fused_screen")
        if function.max_dynamic_shared_size_bytes < shared_bytes:
            function.max_dynamic_shared_size_bytes = shared_bytes
        passed = tuple(self._passed(argument) for argument in arguments)
        function((blocks,), (_FUSED_THREADS,), passed, shared_mem=shared_bytes)

    def synchronize(self) -> None:
        self._cupy.cuda.Stream.null.synchronize()

    def _function(self, kernel: str) -> Any:
        function = self._functions.get(kernel)
        if function is None:
            function = self._functions[kernel] = self._module.get_function(kernel)
        return function

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
            for kind in _FACTORS:
                device.product(*(device.zeros((1, 1), dtype) for dtype in (kind, kind, np.float32)))
            runtime.deviceSynchronize()
    except InputError:
        raise
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(
            f"device gpu: CUDA's compiler or libraries fail ({_first_line(error)}); {_INSTALL} (they bring both), "
            f"{_OTHERWISE}"
        ) from error
    return device


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
