"""Thresholds as users give them."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.errors import ConfigError
from streamcurate.neighbors.radius import Radius


def test_limits():
    assert Radius.of(0.95, None) == Radius("cosine", 0.95)
    assert Radius.of(0.95, None).limit == 2 * (1 - 0.95)
    assert Radius.of(1, None).limit == 0
    assert Radius.of(None, np.float32(0.5)).limit == 0.25
    assert Radius.of(None, "3").limit == 9
    assert Radius.of(None, 1e150).limit < np.inf
    assert Radius.of(None, 0) == Radius("l2", 0)
    assert Radius.of(None, -0.0).told() == "Euclidean distance 0 or less"
    assert Radius.of(0.5, None).told() == "cosine similarity 0.5 or more"
    assert Radius.of(None, 2.5).told() == "Euclidean distance 2.5 or less"


@pytest.mark.parametrize("both", [(None, None), (0.9, 0.1)])
def test_exactly_one(both):
    with pytest.raises(ConfigError, match=r"give exactly one of them, .*\(--cosine 0\.95\) or .*\(--l2 0\.3\)"):
        Radius.of(*both)


@pytest.mark.parametrize("value", [0, -0.5, 1.0001, float("nan"), float("inf"), True, "near", [0.9]])
def test_cosine_out_of_range(value):
    with pytest.raises(ConfigError, match=r"^cosine: .* is not allowed; it must be a number above 0, up to 1$"):
        Radius.of(value, None)


@pytest.mark.parametrize("value", [-1, -5e-324, float("nan"), float("inf"), 1e151, False, "far", []])
def test_l2_out_of_range(value):
    with pytest.raises(ConfigError, match=r"^l2: .* is not allowed; it must be a number from 0, .* to 1e\+150$"):
        Radius.of(None, value)
