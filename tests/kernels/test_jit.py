"""The compiler's wrapper."""

from __future__ import annotations

import numba

from streamcurate.kernels import jit


def test_without_a_writable_cache_functions_are_compiled_all_the_same(monkeypatch):
    original = numba.njit

    def njit(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    monkeypatch.setattr(numba, "njit", njit)
    twice = jit.compiled(lambda value: 2 * value)
    assert twice(21) == 42
    assert twice.signatures


def test_products_and_sums_are_not_contracted():
    # Fused, x * x - y keeps the bits that rounding x * x loses.
    x = 1.0 + 2.0**-30
    difference = jit.compiled(_square_less)
    assert difference(x, x * x) == 0.0


def _square_less(x, y):
    return x * x - y
