from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.config import ALGORITHMS, METRICS, SEEDINGS, STRATEGIES, Config, Level, Resampling, parse_levels
from streamcurate.errors import ConfigError

DESIGN_EXAMPLE = """
metric: l2                  # l2 | cosine
seed: 0
levels:
  - clusters: 100_000
    splits: 100
    iterations: 50
    tolerance: 1.0e-4
    init: auto
    algorithm: lloyd
    fit_rows: null
  - clusters: 500_000
    resampling: {steps: 10, rows_per_cluster: 10, strategy: closest}
  - clusters: 50_000
"""


def from_text(folder: Path, text: str) -> Config:
    path = folder / "levels.yaml"
    path.write_text(text, encoding="utf-8")
    return Config.from_file(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_text(folder, text)
    return str(caught.value)


class TestOwnFormat:
    def test_example_with_every_key(self, tmp_path):
        config = from_text(tmp_path, DESIGN_EXAMPLE)
        assert config == Config(
            (
                Level(100_000, splits=100),
                Level(500_000, resampling=Resampling(10, 10, "closest")),
                Level(50_000),
            )
        )
        assert config.notes == ()

    def test_defaults(self):
        assert dataclasses.asdict(Level(7)) == {
            "clusters": 7,
            "splits": 1,
            "iterations": 50,
            "tolerance": 1e-4,
            "init": "auto",
            "algorithm": "lloyd",
            "fit_rows": None,
            "resampling": None,
            "search": "exact",
        }
        assert Resampling(1, 2).strategy == "closest"
        config = Config((Level(7),))
        assert (config.metric, config.seed, config.subset) == ("l2", 0, None)

    def test_json_is_read_too(self, tmp_path):
        path = tmp_path / "levels.json"
        path.write_text(json.dumps({"levels": [{"clusters": 10, "tolerance": 1e-05}], "metric": "cosine"}))
        assert Config.from_file(path) == Config((Level(10, tolerance=1e-5),), metric="cosine")

    @pytest.mark.parametrize(
        ("text", "value"),
        [("100_000", 100_000), ("'100_000'", 100_000), ("010", 10), ("+5", 5), ("'12'", 12)],
    )
    def test_whole_numbers_as_people_write_them(self, tmp_path, text, value):
        assert from_text(tmp_path, f"levels: [{{clusters: {text}}}]").levels[0].clusters == value

    @pytest.mark.parametrize(
        ("text", "value"), [("1.0e-4", 1e-4), ("1e-4", 1e-4), ("'1e-4'", 1e-4), ("0", 0.0), (".5", 0.5), ("0.25", 0.25)]
    )
    def test_tolerances_as_people_write_them(self, tmp_path, text, value):
        assert from_text(tmp_path, f"levels: [{{clusters: 3, tolerance: {text}}}]").levels[0].tolerance == value

    def test_anchors_and_merge_keys(self, tmp_path):
        config = from_text(tmp_path, "levels:\n  - &low {clusters: 50, iterations: 3}\n  - {<<: *low, clusters: 20}\n")
        assert config.levels == (Level(50, iterations=3), Level(20, iterations=3))

    def test_numpy_values_become_plain_ones(self):
        level = Level(np.int64(5), tolerance=np.float32(0.5), fit_rows=np.uint32(9))
        assert level == Level(5, tolerance=0.5, fit_rows=9)
        assert json.loads(json.dumps(Config([level], seed=np.uint64(3)).to_mapping()))["seed"] == 3

    def test_a_number_is_a_level_of_so_many_clusters(self, tmp_path):
        assert from_text(tmp_path, "levels: [5_000, {clusters: 100, splits: 2}, 10]").levels == (
            Level(5000),
            Level(100, splits=2),
            Level(10),
        )
        assert Config([200, Level(20)]) == Config((Level(200), Level(20)))
        for dtype in (np.int64, np.uint16):
            config = Config(list(np.array([200, 20], dtype)))
            assert config == Config((Level(200), Level(20)))
            assert {type(level.clusters) for level in config.levels} == {int}
            assert Config.from_mapping({"levels": list(np.array([200, 20], dtype))}) == config

    def test_paths_become_text(self):
        assert Config((Level(5),), subset=Path("rows.npy")).subset == "rows.npy"


class TestRefusals:
    """Each message names the place, the key, the value, what is allowed, and what to do."""

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("levels: [{clusters: 0}]", ["levels.yaml: levels[0].clusters: 0", "from 1 to"]),
            ("levels: [{clusters: true}]", ["levels[0].clusters: True", "whole number"]),
            ("levels: [{clusters: 1e3}]", ["levels[0].clusters: 1000.0", "write 1000"]),
            ("levels: [{clusters: 2.5}]", ["levels[0].clusters: 2.5", "whole number"]),
            ("levels: [{clusters: many}]", ["levels[0].clusters: 'many'", "whole number"]),
            ("levels: [{clusters: 3_000_000_000}]", ["clusters: 3000000000", "2,147,483,647"]),
            ("levels: [{clusters: 100_000, splits: 30_000}]", ["levels[0].splits: 30,000", "3,000,000,000", "lower"]),
            ("levels: [{clusters: 9, splits: 0}]", ["levels[0].splits: 0", "1 is no splits"]),
            ("levels: [{clusters: 9, iterations: 0}]", ["levels[0].iterations: 0"]),
            ("levels: [{clusters: 9, tolerance: 1}]", ["levels[0].tolerance: 1 ", "below 1"]),
            ("levels: [{clusters: 9, tolerance: .nan}]", ["levels[0].tolerance: '.nan'"]),
            ("levels: [{clusters: 9, tolerance: 'nan'}]", ["levels[0].tolerance: 'nan'"]),
            ("levels: [{clusters: 9, tolerance: true}]", ["levels[0].tolerance: True"]),
            ("levels: [{clusters: 9, init: kmeans++}]", ["levels[0].init: 'kmeans++'", "did you mean k-means++?"]),
            ("levels: [{clusters: 9, algorithm: mini-batch}]", ["algorithm: 'mini-batch'", "did you mean minibatch?"]),
            ("levels: [{clusters: 9, fit_rows: 8}]", ["levels[0].fit_rows: 8", "at least as many rows as clusters"]),
            ("levels: [{clusters: 9}]\nmetric: L2", ["levels.yaml: metric: 'L2'", "l2 or cosine", "did you mean l2?"]),
            ("levels: [{clusters: 9}]\nseed: -1", ["levels.yaml: seed: -1", "from 0 to"]),
            ("levels: [{clusters: 9}]\nsubset: [1, 2]", ["levels.yaml: subset: [1, 2]", ".npy"]),
            ("levels: [{clusters: 9}]\nsubset: ''", ["levels.yaml: subset: ''", ".npy"]),
            ("levels: [{clusters: 9}]\nmetrik: l2", ["levels.yaml: metrik: unknown key", "did you mean metric?"]),
            ("levels: [{cluster: 9}]", ["levels[0].cluster: unknown key", "did you mean clusters?"]),
            ("levels: [{n_clusters: 9}]", ["levels[0].n_clusters: unknown key", "did you mean clusters?"]),
            ("levels: [{clusters: 9, zzz: 1}]", ["levels[0].zzz: unknown key", "known keys: clusters, splits"]),
            ("levels: [{splits: 9}]", ["levels[0].clusters: is missing"]),
            ("levels: []", ["levels.yaml: levels: the list is empty", "at least one", "e.g. [5000, 1000]"]),
            ("levels: 5", ["levels.yaml: levels: holds 5", "clusters"]),
            ("levels: [many]", ["levels[0]: holds 'many'", "clusters: 1000", "just 1000"]),
            ("levels: [true]", ["levels[0]: holds True", "clusters: 1000"]),
            ("levels: [0]", ["levels.yaml: levels[0].clusters: 0", "from 1 to"]),
            ("levels: [9, 3.0]", ["levels[1].clusters: 3.0", "write 3"]),
            ("seed: 1", ["levels.yaml: the key levels is missing"]),
            ("", ["levels.yaml: holds nothing"]),
            ("- 1", ["levels.yaml: holds a list"]),
            ("1: 2", ["levels.yaml: 1: unknown key"]),
            (
                "levels: [{clusters: 9, resampling: {steps: 0, rows_per_cluster: 1}}]",
                ["levels[0].resampling.steps: 0", "leave the key resampling out"],
            ),
            (
                "levels: [{clusters: 9, resampling: {steps: 1, rows_per_cluster: 0}}]",
                ["levels[0].resampling.rows_per_cluster: 0"],
            ),
            (
                "levels: [{clusters: 9, resampling: {steps: 1, rows_per_cluster: 1, strategy: nearest}}]",
                ["levels[0].resampling.strategy: 'nearest'", "closest or random"],
            ),
            ("levels: [{clusters: 9, resampling: {steps: 1}}]", ["levels[0].resampling.rows_per_cluster: is missing"]),
            ("levels: [{clusters: 9, resampling: {step: 1}}]", ["resampling.step: unknown key", "did you mean steps?"]),
            ("levels: [{clusters: 9, resampling: 3}]", ["levels[0].resampling: holds 3"]),
        ],
    )
    def test_bad_values(self, tmp_path, text, parts):
        message = refusal(tmp_path, text)
        assert [part for part in parts if part not in message] == [], message
        assert "\n" not in message

    @pytest.mark.parametrize("above", ["{clusters: 100}", "{clusters: 101}", "{clusters: 10, splits: 10}"])
    def test_a_level_must_have_fewer_clusters_than_the_one_below(self, tmp_path, above):
        message = refusal(tmp_path, f"levels: [{{clusters: 100}}, {above}]")
        assert "levels[1].clusters" in message
        assert "fewer" in message

    def test_splits_count_for_the_level_below(self):
        levels = (Level(10, splits=10), Level(99))
        assert Config(levels).levels == levels

    def test_key_given_twice(self, tmp_path):
        message = refusal(tmp_path, "levels: [{clusters: 9}]\nseed: 1\nseed: 2\n")
        assert "line 3, column 1" in message
        assert "seed is given twice" in message

    @pytest.mark.parametrize("text", ["levels: [", "levels: {clusters: 3", "? [1]\n: 2\n", "a: *b", "a: !thing 3"])
    def test_no_yaml(self, tmp_path, text):
        assert re.search(r"levels\.yaml: line \d+, column \d+: .", refusal(tmp_path, text))

    def test_no_code_is_run(self, tmp_path):
        trace = tmp_path / "ran"
        refusal(tmp_path, f"levels: !!python/object/apply:os.mkdir ['{trace}']")
        assert not trace.exists()

    def test_missing_file(self, tmp_path):
        with pytest.raises(ConfigError, match=r"absent\.yaml: no such file"):
            Config.from_file(tmp_path / "absent.yaml")

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            Config.from_file(tmp_path)

    def test_binary_file(self, tmp_path):
        (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="cannot be read as text"):
            Config.from_file(tmp_path / "x.yaml")

    @pytest.mark.parametrize("levels", [5, "5", None, (), [0], ["5"], [True], [2.5], [np.float32(5)]])
    def test_levels_from_python(self, levels):
        with pytest.raises(ConfigError, match="levels"):
            Config(levels)

    def test_resampling_from_python(self):
        with pytest.raises(ConfigError, match=r"resampling.*Resampling\(steps"):
            Level(5, resampling={"steps": 3, "rows_per_cluster": 1})


class TestParseLevels:
    def test_short_form(self):
        assert parse_levels("5000, 1_000") == (Level(5000), Level(1000))

    @pytest.mark.parametrize("text", ["", "5000,", "5000;1000", "x", "0", "1.5", "-3"])
    def test_refused(self, text):
        with pytest.raises(ConfigError, match=re.escape(repr(text))):
            parse_levels(text)


TWO_LEVELS = """
n_levels: 2
n_iters: 30
n_clusters:
- 5000
- 1_000
n_splits:
- 1
- 1
n_resampling_steps:
- 10
- 1
sample_size:
- 10
- 3
subset_indices_path: null
checkpoint_period: 1000
dtype: float64
high_precision: float64
ngpus_per_node:
- 2
- 2
nnodes:
- 1
- 1
ncpus_per_gpu: 10
sampling_strategy: c
slurm_partition: null
"""


class TestFlatFormat:
    def test_file_as_it_is(self, tmp_path):
        config = from_text(tmp_path, TWO_LEVELS)
        # Ten steps there count the first fit, nine here do not; one step there is no resampling.
        assert config == Config(
            (Level(5000, iterations=30, resampling=Resampling(9, 10, "closest")), Level(1000, iterations=30))
        )

    def test_launch_keys_are_noted_once_and_change_nothing(self, tmp_path):
        config = from_text(tmp_path, TWO_LEVELS + "embeddings_path: /data/x.npy\nexp_dir: /out\n")
        notes = "\n".join(config.notes)
        for key in (
            "nnodes",
            "ngpus_per_node",
            "ncpus_per_gpu",
            "dtype",
            "checkpoint_period",
            "embeddings_path",
            "exp_dir",
        ):
            assert notes.count(key) == 1
        # Given without a value: there is nothing to ignore.
        assert "slurm_partition" not in notes
        assert config.identity() == from_text(tmp_path, TWO_LEVELS).identity()
        assert "notes" not in config.to_mapping()

    def test_splits(self, tmp_path):
        text = "n_levels: 2\nn_clusters: [100_000, 500_000]\nn_splits: [100, 1]\nn_resampling_steps: 1\n"
        assert from_text(tmp_path, text) == Config((Level(100_000, splits=100), Level(500_000)))

    def test_one_value_stands_for_all_levels(self, tmp_path):
        text = "n_levels: 2\nn_clusters: [9, 3]\nn_resampling_steps: 3\nsample_size: 2\nsampling_strategy: r\n"
        resampling = Resampling(2, 2, "random")
        assert from_text(tmp_path, text).levels == (Level(9, resampling=resampling), Level(3, resampling=resampling))

    def test_levels_are_counted_where_not_given(self, tmp_path):
        assert from_text(tmp_path, "n_clusters: [9, 3]").levels == (Level(9), Level(3))
        assert from_text(tmp_path, "n_clusters: 9").levels == (Level(9),)

    def test_subset_metric_and_seed(self, tmp_path):
        text = "n_clusters: 9\nsubset_indices_path: rows.npy\nmetric: cosine\nseed: 4\n"
        assert from_text(tmp_path, text) == Config((Level(9),), metric="cosine", seed=4, subset="rows.npy")

    def test_surplus_values_are_noted(self, tmp_path):
        config = from_text(tmp_path, "n_levels: 1\nn_clusters: [9, 3]\n")
        assert config.levels == (Level(9),)
        assert "n_clusters: 2 values for 1 levels" in config.notes[0]

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("n_levels: 2\nn_clusters: [9]", ["n_clusters: 1 values for 2 levels"]),
            ("n_levels: 2\nn_clusters: [9, 0]", ["levels.yaml: n_clusters[1]: 0"]),
            ("n_levels: 0\nn_clusters: [9]", ["n_levels: 0"]),
            ("n_levels: 2", ["n_clusters: is missing"]),
            ("n_clusters: 9\nn_resampling_steps: 0", ["n_resampling_steps: 0", "counts the first fit"]),
            ("n_clusters: 9\nn_resampling_steps: 2", ["sample_size: None", "kept of each cluster"]),
            (
                "n_clusters: 9\nn_resampling_steps: 2\nsample_size: 1\nsampling_strategy: x",
                ["sampling_strategy: 'x'", "c or r or closest or random"],
            ),
            ("n_clusters: 9\nn_cluster: 3", ["n_cluster: unknown key", "did you mean n_clusters?"]),
            ("n_clusters: 9\nlevels: [{clusters: 9}]", ["n_clusters: unknown key"]),
            ("n_clusters: [9, 9]", ["levels[1].clusters", "fewer"]),
            ("n_clusters: true", ["n_clusters: True"]),
        ],
    )
    def test_refused(self, tmp_path, text, parts):
        message = refusal(tmp_path, text)
        assert [part for part in parts if part not in message] == [], message


resamplings = st.builds(Resampling, st.integers(1, 20), st.integers(1, 20), st.sampled_from(STRATEGIES))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    counts = sorted(draw(st.sets(st.integers(1, 10**6), min_size=1, max_size=4)), reverse=True)
    levels = [
        Level(
            count,
            iterations=draw(st.integers(1, 99)),
            tolerance=draw(st.floats(0, 1, exclude_max=True)),
            init=draw(st.sampled_from(SEEDINGS)),
            algorithm=draw(st.sampled_from(ALGORITHMS)),
            fit_rows=draw(st.none() | st.integers(count, 10**9)),
            resampling=draw(st.none() | resamplings),
        )
        for count in counts
    ]
    subset = draw(st.none() | st.text(min_size=1))
    return Config(tuple(levels), draw(st.sampled_from(METRICS)), draw(st.integers(0, 2**64 - 1)), subset)


@given(configs())
def test_a_configuration_survives_json(config):
    assert Config.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


@given(configs(), configs())
def test_identity_is_levels_metric_and_seed(one, other):
    same = (one.levels, one.metric, one.seed) == (other.levels, other.metric, other.seed)
    assert (one.identity() == other.identity()) == same
    assert dataclasses.replace(one, subset="elsewhere.npy").identity() == one.identity()
