"""Two devices for the same tests: a GPU, and the host, where the same CUDA source runs as C++, thread by thread."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tensor_core_emulation import fused_screen, rough_product, tensor_product

from streamcurate.errors import InputError
from streamcurate.kernels.gpu.backend import WORKSPACE, GpuBackend
from streamcurate.kernels.gpu.bound import single_kappa
from streamcurate.kernels.gpu.device import open_device
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE, THREADS
from streamcurate.kernels.gpu.source import cuda_source
from streamcurate.kernels.gpu.trust import trusted_routes

_KERNEL = re.compile(r'extern "C" __attribute__\(\(used\)\) void (\w+)\(([^)]*)\)')
_POINTERS = {
    "float": np.float32, "double": np.float64, "int": np.int32, "long long": np.int64, "unsigned int": np.uint32,
    "unsigned long long": np.int64, "unsigned char": np.uint8, "signed char": np.int8, "Half": np.float16,
}  # fmt: skip
_LAUNCHER = """
extern "C" void launch_{name}(long long threads, long long last_first, {parameters}) {{
    blockDim.x = 256;
    backwards = (int)last_first;
    for (long long n = 0; n < threads; n++) {{
        long long t = last_first ? threads - 1 - n : n;
        blockIdx.x = (unsigned int)(t / 256);
        threadIdx.x = (unsigned int)(t % 256);
        {name}({arguments});
    }}
}}
"""
_LARGEST_EMULATED = 2**20  # multiplications of one product
_GUARD = 64  # bytes around every array that no kernel may write to


class HostKernels:
    """The kernels as a shared library, and what each takes."""

    def __init__(self, folder: Path, compiler: str) -> None:
        text = (Path(__file__).with_name("host_cuda.h")).read_text() + cuda_source()
        source, library = folder / "kernels.cpp", folder / "kernels.so"
        source.write_text(text)
        expanded = subprocess.run([compiler, "-E", "-P", source], check=True, capture_output=True, text=True).stdout
        self.parameters: dict[str, list[tuple[str, str]]] = {}
        for name, listed in _KERNEL.findall(expanded):
            split = [parameter.strip().rpartition(" ") for parameter in listed.replace("\n", " ").split(",")]
            self.parameters[name] = [(kind.removeprefix("const "), what) for kind, _, what in split]
            arguments = ", ".join(what for _, what in self.parameters[name])
            text += _LAUNCHER.format(name=name, parameters=listed, arguments=arguments)
        source.write_text(text)
        options = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Werror"]
        options += ["-Wno-unused-function", "-Wno-unknown-pragmas"]
        subprocess.run([compiler, *options, source, "-o", library], check=True)
        self.library = ctypes.CDLL(str(library))


class HostArray:
    """An array that, like a device's, nothing of NumPy takes by mistake."""

    def __init__(self, array: np.ndarray, owner: object = None) -> None:
        self._array = array
        self._owner = owner
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> HostArray:
        assert isinstance(part, slice)
        return HostArray(self._array[part], self._owner or self)

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array")


class HostDevice:
    """Implements ``streamcurate.kernels.gpu.interface.Device`` on the host, with every check there is time for.

    ``rough``: products err as much as the error bound allows. ``backwards``: the last thread runs first.
    """

    name = "host"
    routes = (FUSED, HALF, SINGLE)
    cache_bytes = 2**20

    def __init__(self, kernels: HostKernels, memory: int, rough: bool, backwards: bool) -> None:
        self.total_bytes = memory
        self.used = self.most_used = 0
        self.launched: list[str] = []
        self._kernels, self._rough, self._backwards = kernels, rough, backwards
        self._lock, self._depth = threading.RLock(), 0

    @contextmanager
    def session(self):
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def free_bytes(self) -> int:
        return self.total_bytes - self.used

    def holds(self, array) -> bool:
        return isinstance(array, HostArray)

    def empty(self, shape, dtype) -> HostArray:
        assert self._depth, "outside a session"
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if nbytes > self.free_bytes():
            raise InputError(f"{nbytes} bytes do not fit in {self.free_bytes()}")
        self.used += nbytes
        self.most_used = max(self.most_used, self.used)
        # 0xFF: NaN and -1, should anything read what nothing wrote.
        memory = np.full(nbytes + 2 * _GUARD, 0xFF, dtype=np.uint8)
        array = HostArray(memory[_GUARD : _GUARD + nbytes].view(kind).reshape(shape))
        weakref.finalize(array, self._free, memory, nbytes)
        return array

    def _free(self, memory: np.ndarray, nbytes: int) -> None:
        self.used -= nbytes
        guards = np.concatenate([memory[:_GUARD], memory[_GUARD + nbytes :]])
        assert (guards == 0xFF).all(), "written beyond an array"

    def zeros(self, shape, dtype) -> HostArray:
        array = self.empty(shape, dtype)
        array._array[...] = 0
        return array

    def upload(self, array: np.ndarray) -> HostArray:
        assert type(array) is np.ndarray
        with self.session():
            copy = self.empty(array.shape, array.dtype)
        copy._array[...] = array
        return copy

    def download(self, array: HostArray) -> np.ndarray:
        assert self._depth, "outside a session"
        return array._array.copy()

    def product(self, left: HostArray, right: HostArray, out: HostArray) -> None:
        x, w = left._array, right._array
        assert self._depth, "outside a session"
        assert x.dtype == w.dtype
        assert out.dtype == np.float32
        assert out._array.size == len(x) * len(w)
        result = out._array.reshape(len(x), len(w))
        if x.dtype == np.float16:
            result[...] = self.half_product(x, w)
            return
        assert x.dtype == np.float32
        if not self._rough:
            np.dot(x, w.T, out=result)
            return
        x, w = (np.where(np.abs(m) < 2.0**-126, 0, m).astype(np.float64) for m in (x, w))
        unit, dims = 2.0**-24, x.shape[1]
        # The operands' own rounding is in kappa as well, as d of d + 4; rounding to float32 below adds one unit.
        size = (single_kappa(dims - 4) - 1.01 * unit) * 0.999 * (np.abs(x) @ np.abs(w).T)
        signs = np.random.default_rng(len(x)).choice([-1.0, 1.0], size.shape)
        result[...] = x @ w.T + np.maximum(size, 0) * signs

    def half_product(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        if self._rough:
            return rough_product(x, w)
        # Whole float32 sums are within the bound as well, and quick.
        large = len(x) * w.size > _LARGEST_EMULATED
        return x.astype(np.float32) @ w.astype(np.float32).T if large else tensor_product(x, w)

    def blocks(self, items: int, items_a_block: int) -> int:
        return -(-items // items_a_block) * THREADS

    def fused_screen(self, blocks: int, shared_bytes: int, *arguments) -> None:
        assert self._depth, "outside a session"
        self.launched.append("fused_screen")
        assert shared_bytes <= 227 * 1024 - 1024
        parameters = self._kernels.parameters["fused_screen"]
        for argument, (kind, what) in zip(arguments, parameters, strict=True):
            if kind.endswith("*"):
                assert argument.dtype == _POINTERS[kind.removesuffix("*").strip()], what
            else:
                assert type(argument) is {"long long": int, "double": float}[kind], what
        taken = [argument._array if isinstance(argument, HostArray) else argument for argument in arguments]
        assert blocks * 128 == len(taken[0])
        fused_screen(self.half_product, *taken)

    def synchronize(self) -> None:
        assert self._depth, "outside a session"

    def launch(self, kernel: str, count: int, *arguments) -> None:
        assert self._depth, "outside a session"
        self.launched.append(kernel)
        parameters = self._kernels.parameters[kernel]
        assert len(arguments) == len(parameters), kernel
        passed = []
        for argument, (kind, what) in zip(arguments, parameters, strict=True):
            if kind.endswith("*"):
                assert isinstance(argument, HostArray), (kernel, what)
                assert argument.dtype == _POINTERS[kind.removesuffix("*").strip()], (kernel, what)
                assert argument._array.flags.c_contiguous, (kernel, what)
                passed.append(ctypes.c_void_p(argument._array.ctypes.data))
            else:
                expected, converted = {"long long": (int, ctypes.c_longlong), "double": (float, ctypes.c_double)}[kind]
                assert type(argument) is expected, (kernel, what)
                passed.append(converted(argument))
        # A real device runs whole blocks.
        threads = -(-count // 256) * 256
        launcher = getattr(self._kernels.library, f"launch_{kernel}")
        launcher(ctypes.c_longlong(threads), ctypes.c_longlong(self._backwards), *passed)

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def host_kernels(tmp_path_factory):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: the CUDA source cannot run on the host")
    return HostKernels(tmp_path_factory.mktemp("kernels"), compiler)


@pytest.fixture(scope="session", params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def make_backend(request):
    """A GpuBackend on each device; rough and backwards concern the host alone."""
    if request.param == "host":
        kernels = request.getfixturevalue("host_kernels")

        def make(workspace=WORKSPACE, memory=2**34, rough=False, backwards=False, route=None):
            return GpuBackend(HostDevice(kernels, memory, rough, backwards), workspace, route and (route,))

        return make
    try:
        device = open_device()
    except InputError as error:
        pytest.skip(str(error))
    routes = trusted_routes(device)
    return lambda workspace=WORKSPACE, route=None, **_: GpuBackend(
        device, workspace, (route,) if route in routes else routes
    )


@pytest.fixture(scope="session")
def make_host_device(host_kernels):
    return lambda memory=2**34, rough=False, backwards=False: HostDevice(host_kernels, memory, rough, backwards)
