"""Rates in files, and rates of named hardware."""

from __future__ import annotations

import json

import pytest
from made_plans import fixed_rates

from streamcurate.errors import ConfigError, InputError
from streamcurate.planning.hardware import parse_hardware
from streamcurate.planning.rates import load_rates


def test_rates_come_back_from_their_file(tmp_path):
    rates = fixed_rates(2)
    rates.save(tmp_path / "rates.json")
    assert load_rates(tmp_path / "rates.json", 2) == rates


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "holds no rates of this version"),
        ('{"format": 99, "rates": {}}', "format 99, not 1"),
    ],
)
def test_files_that_are_none(tmp_path, content, said):
    path = tmp_path / "rates.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        load_rates(path, 1)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"read": -1.0}, {"read": "fast"}, {"unknown": 1}, {"levels": [{}]}, {"read": float("nan")}, {"read": 0}],
)
def test_values_that_are_no_rates(tmp_path, change):
    fixed_rates(1).save(tmp_path / "rates.json")
    content = json.loads((tmp_path / "rates.json").read_text())
    content["rates"] |= change
    (tmp_path / "rates.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="holds no rates of this version"):
        load_rates(tmp_path / "rates.json", 1)


def test_rates_of_other_levels(tmp_path):
    fixed_rates(2).save(tmp_path / "rates.json")
    with pytest.raises(InputError, match="rates of 2 levels, and the configuration has 3"):
        load_rates(tmp_path / "rates.json", 3)


def test_this_machine_has_no_name():
    assert parse_hardware("this") is None


@pytest.mark.parametrize("text", ["", "H100", "0xH100", "8xH1000", "8x", "-1xH100", "that", "3xGFLOPS", "2x0GFLOPS"])
def test_hardware_nobody_knows(text):
    with pytest.raises(ConfigError, match=r"no hardware known by that name; give this, .*8xH100.*16x500GFLOPS"):
        parse_hardware(text)


def test_named_hardware(tmp_path):
    found = parse_hardware("12xA100", tmp_path)
    assert (found.workers, found.nodes, found.gpu) == (12, 2, True)
    assert found.rates["nearest"].origin == "assumed"
    assert found.rates["nearest"].value == pytest.approx(9.75e12)
    nodes = parse_hardware("3x1.5tflop/s", tmp_path)
    assert (nodes.workers, nodes.nodes, nodes.gpu, nodes.rates["nearest"].value) == (3, 3, False, 1.5e12)
    assert all(rate.origin in ("assumed", "published") for one in (found, nodes) for rate in one.rates.values())


def test_a_device_that_was_measured(tmp_path):
    shapes = [
        {"dims": d, "clusters": 1000, "tflops": {"nearest, rows on the host": t}} for d, t in ((64, 5), (1024, 90))
    ]
    content = {"machine": {"device": "NVIDIA H100 80GB HBM3"}, "shapes": shapes}
    (tmp_path / "gpu-h100.json").write_text(json.dumps(content))
    rate = parse_hardware("8xH100", tmp_path).rates["nearest"]
    assert (rate.origin, rate.value) == ("measured", 90e12)
    assert "gpu-h100.json" in rate.source
    assert parse_hardware("8xA100", tmp_path).rates["nearest"].origin == "assumed"
