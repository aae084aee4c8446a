"""The YAML of a mixture: what it may say, and what is said where it may not."""

from __future__ import annotations

import inspect
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcurate
from streamcurate.config.mixture import DRAW_OPTIONS, RETRIEVE_OPTIONS, MixtureConfig, apportion
from streamcurate.errors import ConfigError
from streamcurate.pipeline.retrieve import retrieve
from streamcurate.sampling import sample

EXAMPLE = """
seed: 7
size: 1_000_000
parts:
  - name: imagenet
    retrieve: run/
    seeds: imagenet.zarr
    per_seed: 4
    share: 0.4
    short: balanced
  - name: balanced
    draw: run/
    share: 0.6
    eligible: dedup/keep.npy
    multiplier: 2
  - name: small
    all: small.zarr
    copies: 2
  - name: listed
    rows: chosen.parquet
    of: emb.zarr
    repeat: true
exclude:
  - rows: unwanted.npy
    of: emb.zarr
"""


def from_text(folder: Path, text: str) -> MixtureConfig:
    (folder / "mixture.yaml").write_text(text, encoding="utf-8")
    return MixtureConfig.from_file(folder / "mixture.yaml")


def test_a_whole_file(tmp_path):
    config = from_text(tmp_path, EXAMPLE)
    assert (config.seed, config.size, config.origin) == (7, 1_000_000, str(tmp_path / "mixture.yaml"))
    near, balanced, small, listed = config.parts
    assert (near.kind, near.source, near.seeds, near.short) == ("retrieve", "run/", "imagenet.zarr", "balanced")
    assert near.options == {"per_seed": 4}
    assert (balanced.kind, balanced.source, balanced.share) == ("draw", "run/", Fraction(3, 5))
    assert balanced.options == {"multiplier": 2, "eligible": "dedup/keep.npy"}
    assert (small.kind, small.source, small.copies, small.open, small.repeat) == ("all", "small.zarr", 2, True, False)
    assert (listed.kind, listed.listed, listed.source, listed.repeat) == ("rows", "chosen.parquet", "emb.zarr", True)
    assert [(exclusion.rows, exclusion.of) for exclusion in config.exclude] == [("unwanted.npy", "emb.zarr")]
    # Parts with a share are of what the others leave.
    assert [config.parts[number].name for number in config.order()] == ["small", "listed", "imagenet", "balanced"]
    assert config.shares(1001) == {0: 400, 1: 601}


def test_the_example_of_the_readme():
    text = (Path(streamcurate.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    examples = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "\nparts:" in block]
    assert examples
    import yaml

    from streamcurate.config.formats import _loader

    for example in examples:
        assert MixtureConfig.from_mapping(yaml.load(example, _loader())).parts


def test_options_are_those_of_sample_and_retrieve():
    elsewhere = {"size", "memory_limit", "scratch", "progress", "threads", "device", "client", "out"}
    drawn = set(inspect.signature(sample).parameters) - elsewhere - {"tree"}
    assert set(DRAW_OPTIONS) == drawn
    retrieved = set(inspect.signature(retrieve).parameters) - elsewhere - {"source", "seeds"}
    assert set(RETRIEVE_OPTIONS) == retrieved


@settings(max_examples=50)
@given(st.integers(0, 10**12), st.lists(st.fractions(Fraction(1, 10**6), 1), min_size=1, max_size=9))
def test_shares_add_up(total, shares):
    rows = apportion(total, shares)
    assert sum(rows) == total
    for share, count in zip(shares, rows, strict=True):
        assert abs(count - total * share / sum(shares)) < 1


def test_equal_remainders_go_to_the_first():
    assert apportion(11, [Fraction(1, 4)] * 4) == [3, 3, 3, 2]
    assert apportion(0, [Fraction(1)]) == [0]
    assert apportion(5, []) == []


@pytest.mark.parametrize(
    "shares", [(0.1, 0.2, 0.7), ("1/3", "2/3"), (0.333, 0.667), (1,), (0.333333, 0.333333, 0.333333)]
)
def test_shares_that_make_a_whole(shares):
    parts = [{"name": str(number), "draw": "run", "share": share} for number, share in enumerate(shares)]
    config = MixtureConfig.from_mapping({"size": 1000, "parts": parts})
    assert sum(config.shares(1000).values()) == 1000
    assert config.parts[0].share == Fraction(str(shares[0]))


DRAW = {"name": "drawn", "draw": "run", "size": 10}
NEAR = {"name": "near", "retrieve": "run", "seeds": "seeds.zarr"}


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        (None, "mixture: holds nothing, not keys with values"),
        ([DRAW], "mixture: holds a list"),
        ({"part": []}, "part: unknown key; did you mean parts?"),
        ({}, "the key parts is missing"),
        ({"parts": []}, "parts: holds an empty list"),
        ({"parts": "run"}, "parts: holds 'run'"),
        ({"parts": ["run"]}, r"parts\[0\]: holds 'run', not keys with values"),
        ({"parts": [{"name": "a"}]}, r"parts\[0\] \(a\): says not where its rows come from"),
        ({"parts": [{"name": "a", "darw": "run"}]}, r"parts\[0\] \(a\): darw: unknown key; did you mean draw?"),
        ({"parts": [{**DRAW, "all": "x"}]}, "draw: stands beside all"),
        ({"parts": [{**NEAR, "per_sed": 3}]}, r"parts\[0\] \(near\): per_sed: unknown key; did you mean per_seed?"),
        ({"parts": [{**DRAW, "per_seed": 3}]}, "per_seed: is not for a part with draw; it belongs to retrieve"),
        ({"parts": [{**DRAW, "copies": 3}]}, "copies: is not for a part with draw; a draw has multiplier"),
        ({"parts": [{"name": "a", "all": "x", "size": 3}]}, "size: is not for a part with all; 'all' gives all"),
        ({"parts": [{"draw": "run", "size": 3}]}, r"parts\[0\]: name: is missing"),
        ({"parts": [{**DRAW, "name": " "}]}, "name: ' '; give the part a name"),
        ({"parts": [DRAW, DRAW]}, r"parts\[1\]: name: 'drawn' is that of parts\[0\], too"),
        ({"parts": [{**DRAW, "share": 0.5}]}, "size: stands beside share"),
        ({"parts": [{"name": "a", "draw": "run"}]}, "size: is missing; say how many rows to draw"),
        ({"parts": [{**DRAW, "size": 0}]}, "size: 0 is not allowed"),
        ({"parts": [{**DRAW, "size": "many"}]}, "size: 'many' is not allowed"),
        ({"parts": [{**DRAW, "draw": 5}]}, "draw: 5 is no path"),
        ({"parts": [{**DRAW, "repeat": "yes"}]}, "repeat: 'yes' is not allowed; it must be true or false"),
        ({"parts": [{"name": "a", "retrieve": "run"}]}, "seeds: is missing"),
        ({"parts": [{"name": "a", "rows": "x.npy"}]}, "of: is missing"),
        ({"parts": [{"name": "a", "all": "x", "copies": 0}]}, "copies: 0 is not allowed"),
        ({"parts": [{**NEAR, "short": "drawn"}, DRAW]}, "short: is for a part with size or share"),
        (
            {"parts": [{**NEAR, "size": 5, "short": "dran"}, DRAW]},
            r"\(near\): short: 'dran' is no part with draw; .*drawn",
        ),
        ({"parts": [{**NEAR, "size": 5, "short": "near"}]}, "'near' is no part with draw; there is none: leave it out"),
        ({"parts": [DRAW, {**NEAR, "size": 5, "short": "drawn"}]}, "drawn takes its rows before near does"),
        ({"parts": [{**DRAW, "size": None, "share": 0.5}]}, "size: is missing, and drawn has a share of it"),
        ({"parts": [DRAW], "size": 9}, "size: 9, and the sizes of the parts alone add up to 10"),
        ({"parts": [DRAW], "size": 11}, "size: 11, and the sizes of the parts add up to 10"),
        ({"parts": [DRAW], "size": 0}, "size: 0 is not allowed"),
        ({"parts": [DRAW], "seed": -1}, "seed: -1 is not allowed"),
        ({"parts": [DRAW], "exclude": "x.npy"}, "exclude: holds 'x.npy', not a list"),
        ({"parts": [DRAW], "exclude": ["x.npy"]}, r"exclude\[0\]: holds 'x.npy'; say also which store"),
        ({"parts": [DRAW], "exclude": [{"rows": "x.npy"}]}, r"exclude\[0\]: of: is missing"),
        ({"parts": [DRAW], "exclude": [{"of": "x.zarr"}]}, r"exclude\[0\]: rows: is missing"),
    ],
)
def test_what_is_wrong_is_named(mapping, told):
    with pytest.raises(ConfigError, match=told):
        MixtureConfig.from_mapping(mapping)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, "half", True, "1/0", float("nan"), [0.5]])
def test_no_share(share):
    with pytest.raises(ConfigError, match=r"share: .* is not allowed; it must be a number above 0"):
        MixtureConfig.from_mapping({"size": 9, "parts": [{"name": "a", "draw": "run", "share": share}]})


def test_shares_that_make_no_whole_are_told_with_those_that_would():
    parts = [{"name": "a", "draw": "run", "share": 0.6}, {"name": "b", "draw": "run", "share": 0.3}]
    with pytest.raises(
        ConfigError, match=r"share: 0.6 \+ 0.3 add up to 0.9, not to 1; .*\(in these .*: a: 2/3, b: 1/3\)"
    ):
        MixtureConfig.from_mapping({"size": 9, "parts": parts})
    parts = [{"name": "a", "draw": "run", "share": 1}, {"name": "b", "draw": "run", "size": 9}]
    with pytest.raises(ConfigError, match="nothing is left of the 9 rows for a"):
        MixtureConfig.from_mapping({"size": 9, "parts": parts})


def test_a_file_that_is_no_yaml(tmp_path):
    with pytest.raises(ConfigError, match=r"mixture\.yaml: line 1, column 9"):
        from_text(tmp_path, "parts: [")
    with pytest.raises(ConfigError, match="no such file"):
        MixtureConfig.from_file(tmp_path / "absent.yaml")
