"""The tree that users hold."""

from __future__ import annotations

import inspect

import pytest

import streamcurate
from streamcurate.reports import report


@pytest.mark.parametrize(
    ("method", "function"),
    [
        *((name, getattr(streamcurate, name)) for name in ("sample", "explain", "extend")),
        ("report", report),
    ],
)
def test_methods_show_the_options_of_the_functions(method: str, function: object) -> None:
    shown = inspect.signature(getattr(streamcurate.Tree, method))
    assert shown == inspect.signature(function)  # type: ignore[arg-type]
    assert "options" not in shown.parameters
    tree = streamcurate.Tree.__new__(streamcurate.Tree)
    bound = inspect.signature(getattr(tree, method)).parameters
    assert list(bound) == list(shown.parameters)[1:]  # without the tree itself
    assert "scratch" in bound
    assert inspect.getdoc(getattr(tree, method)) == inspect.getdoc(function)
