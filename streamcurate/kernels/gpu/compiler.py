"""From the CUDA source to machine code, once for each device, source and compiler.

CuPy's own way to compile adds an option that flushes float32 subnormals to zero, which would change float16 rows; so
its binding of the compiler is called directly, and the result is kept where CuPy keeps its own.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamcurate.kernels.gpu.source import OPTIONS, architecture, cuda_source


def compiled(nvrtc: Any, capability: int) -> bytes:
    """The kernels' machine code, from an earlier process where there is one.

    Parameters
    ----------
    nvrtc : module
        ``cupy.cuda.nvrtc``.
    capability : int
        Compute capability of the device, 90 for 9.0.

    Raises
    ------
    RuntimeError
        The compiler failed; the message is its own first line.
    """
    options = (*OPTIONS, f"--gpu-architecture={architecture(capability)}")
    told = repr((options, nvrtc.getVersion(), cuda_source()))
    digest = hashlib.sha256(told.encode()).hexdigest()
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    kept = folder / f"streamcurate-{digest}.cubin"
    with suppress(OSError):
        code, _, check = kept.read_bytes().rpartition(b"\n")
        if hashlib.sha256(code).hexdigest().encode() == check:
            return code
    code = _machine_code(nvrtc, options)
    # Where it cannot be kept it is compiled again next time.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(code + b"\n" + hashlib.sha256(code).hexdigest().encode())
        Path(file.name).replace(kept)
    return code


def _machine_code(nvrtc: Any, options: tuple[str, ...]) -> bytes:
    program = nvrtc.createProgram(cuda_source(), "streamcurate.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        log = str(nvrtc.getProgramLog(program))
        first = next((line for line in log.splitlines() if line.strip()), str(error))
        raise RuntimeError(f"nvrtc, {options[-1]}: {first}") from error
    finally:
        nvrtc.destroyProgram(program)
