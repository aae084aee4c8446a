"""Rows as the formula sees them."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.kernels.cpu import rows as module


@pytest.mark.parametrize("by_instruction", [True, False])
@pytest.mark.parametrize("width", [1, 7, 256])  # with and without whole vector registers
def test_every_half_widens_to_its_value_either_way(monkeypatch, by_instruction, width):
    if by_instruction and not module._converts_halves():
        pytest.skip("this processor has no instruction for it")
    monkeypatch.setattr(module, "_BY_INSTRUCTION", by_instruction)
    halves = np.resize(np.arange(2**16, dtype=np.uint16), (2**16 // width + 1, width)).view(np.float16)
    widened = module.float32_rows(halves)
    expected = halves.astype(np.float32)
    finite = np.isfinite(expected)
    # Bit for bit, for zeros have a sign; of a NaN it matters only that it stays one.
    np.testing.assert_array_equal(widened.view(np.uint32)[finite], expected.view(np.uint32)[finite])
    np.testing.assert_array_equal(widened[~finite], expected[~finite])


def test_no_instruction_is_used_that_numba_was_told_to_do_without(monkeypatch):
    monkeypatch.setattr(module.config, "CPU_NAME", "generic")
    assert not module._converts_halves()


def test_single_rows_are_not_widened_again():
    values = np.ones((3, 4), dtype=np.float32)
    assert module.float32_rows(values) is values
