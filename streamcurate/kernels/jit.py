"""The one place that compiles: a typed, thin wrapper around numba.

A compiled function calls only compiled functions of its own file: numba's cache on disk watches that file alone, so a
change of a function in another file would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.extending import intrinsic

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile on the first call with each set of types; the call releases the interpreter lock.

    Without ``fastmath``, so that nothing is reordered or contracted to fused multiply-adds: the order of operations in
    the source is the order that runs. ``error_model="numpy"`` leaves out the checks for division by zero, which would
    keep loops from being vectorised.
    """
    return _compiled(function)


def compiled_any_order(function: _Function) -> _Function:
    """The same where sums may be taken in any order and contracted: only for what an error bound covers."""
    return _compiled(function, fastmath={"reassoc", "contract", "nsz"})


def llvm_intrinsic(generator: Callable[..., Any]) -> Callable[..., Any]:
    """A function of compiled code given by its LLVM instructions (numba's ``intrinsic``)."""
    return cast(Callable[..., Any], intrinsic(generator))


def is_compiled(function: Callable[..., Any]) -> bool:
    """Whether a compiled function's first call has its machine code, from this process or from an earlier one's cache.

    It is asked to tell of a wait: a cache of other types, or of a source replaced by an older one, goes unnoticed.
    """
    made: Any = function
    if not hasattr(made, "signatures") or made.signatures:  # the former where numba is told not to compile
        return True
    folder = made.stats.cache_path
    if folder is None:
        return False
    source = Path(made.py_func.__code__.co_filename)
    found = list(Path(folder).glob(f"{source.stem}.{made.py_func.__qualname__}-*.nbi"))
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in found)


def _compiled(function: _Function, **options: Any) -> _Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return cast(_Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written: compile in each process
        return cast(_Function, numba.njit(**options)(function))
