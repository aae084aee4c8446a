"""The one place that compiles: a typed, thin wrapper around numba.

A compiled function calls only compiled functions of its own file: numba's cache on disk watches that file alone, so a
change of a function in another file would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
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


def _compiled(function: _Function, **options: Any) -> _Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return cast(_Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written: compile in each process
        return cast(_Function, numba.njit(**options)(function))
