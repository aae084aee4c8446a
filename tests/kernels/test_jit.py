"""The compiler's wrapper."""

from __future__ import annotations

import os
from pathlib import Path

import numba

from streamcurate.kernels import jit


def test_without_a_writable_cache_functions_are_compiled_all_the_same(monkeypatch):
    original = numba.njit

    def njit(*functions, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return original(*functions, **options)

    monkeypatch.setattr(numba, "njit", njit)
    twice = jit.compiled(lambda value: 2 * value)
    assert twice(21) == 42
    assert twice.signatures


def test_products_and_sums_are_not_contracted():
    # Fused, x * x - y keeps the bits that rounding x * x loses.
    x = 1.0 + 2.0**-30
    difference = jit.compiled(_square_less)
    assert difference(x, x * x) == 0.0


def test_whether_the_first_call_compiles(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", os.fspath(tmp_path))
    first = jit.compiled(_square_less)
    assert not jit.is_compiled(first)
    first(2.0, 1.0)
    assert jit.is_compiled(first)
    # In the next process, which finds it in the cache; not where the source is newer than that.
    assert jit.is_compiled(jit.compiled(_square_less))
    (index,) = tmp_path.rglob("test_jit._square_less-*.nbi")
    older = Path(__file__).stat().st_mtime - 10
    os.utime(index, (older, older))
    assert not jit.is_compiled(jit.compiled(_square_less))
    assert jit.is_compiled(_square_less)  # numba is told not to compile


def _square_less(x, y):
    return x * x - y
