"""Order-free totals, against fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.kernels import ExactTotal


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), max_size=80),
    power=st.sampled_from([-290, -3, 0, 60, 250]),
    planned=st.sampled_from([0, 10**6, 2**33]),
    cut=st.integers(0, 80),
)
def test_total_is_order_free_and_close_to_exact(values, power, planned, cut):
    x = np.array(values, dtype=np.float64) * 2.0**power
    empty = ExactTotal.scale(2.0**power, len(x) + planned)
    whole = empty.add(x)
    parts = empty.add(x[cut:][::-1]).combine(empty.add(x[:cut]))
    assert parts == whole
    assert empty.limit_exponent - empty.exponent >= 55
    exact = sum((Fraction(float(value)) for value in x), Fraction(0))
    rounding = len(x) * Fraction(2) ** (empty.exponent - 1)
    assert abs(whole.units * Fraction(2) ** empty.exponent - exact) <= rounding
    assert abs(Fraction(whole.value()) - exact) <= rounding + exact / 2**52


def test_values_that_do_not_fit_are_refused():
    empty = ExactTotal.scale(3.0, 10)
    for bad in (-1.0, 4.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="scaled for 0 to 2"):
            empty.add(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="cannot be combined"):
        empty.combine(ExactTotal.scale(100.0, 10))
    with pytest.raises(ValueError, match="finite"):
        ExactTotal.scale(np.inf, 10)


def test_a_total_of_zeros_is_zero():
    assert ExactTotal.scale(0.0, 5).add(np.zeros(5)).value() == 0.0
