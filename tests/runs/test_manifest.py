from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from streamcurate.config import Config, Level, Resampling
from streamcurate.errors import RunError
from streamcurate.runs import (
    ExtensionRecord,
    LevelRecord,
    Manifest,
    NoveltyRecord,
    Sizes,
    StoreRecord,
    SubsetRecord,
    check_engine,
    check_resumable,
    differences,
    levels_in_common,
)
from streamcurate.version import __version__

STORE = StoreRecord(path="emb.zarr", rows=1000, dims=8, dtype="float16", fingerprint="5c0f")
CONFIG = Config((Level(40, resampling=Resampling(3, 2)), Level(10), Level(3)), seed=2**63)
LEVEL = LevelRecord(
    clusters=40,
    rows=1000,
    inertia=0.1 + 0.2,
    empty=1,
    sizes=Sizes(min=0, median=24.5, max=99),
    seeding="k-means++",
    iterations=17,
    digest="ab12",
    warnings=("one cluster ended empty",),
)


@pytest.fixture
def manifest():
    return Manifest.begin(CONFIG, STORE, SubsetRecord("rows.npy", 900, "77")).with_level(LEVEL)


def test_round_trip(tmp_path, manifest):
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    manifest.finished("cd34").write(tmp_path)
    assert Manifest.read(tmp_path) == dataclasses.replace(manifest, complete=True, digest="cd34")
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_run_json_for_any_reader(tmp_path, manifest):
    manifest.write(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["seed"] == 2**63
    assert content["format_version"] == 1
    assert content["engine"] == __version__
    assert content["versions"].keys() == {"python", "numpy", "zarr", "numba"}
    assert content["config"] == CONFIG.to_mapping()
    assert content["store"] == dataclasses.asdict(STORE)
    assert content["levels"][0]["sizes"] == {"min": 0, "median": 24.5, "max": 99}
    assert (content["complete"], content["digest"]) == (False, None)


def test_configuration_comes_back(tmp_path, manifest):
    manifest.write(tmp_path)
    read = Manifest.read(tmp_path)
    assert Config.from_mapping(read.config) == CONFIG
    assert (read.metric, read.seed) == ("l2", 2**63)


def test_numpy_numbers_are_written_as_plain_ones(tmp_path, manifest):
    level = dataclasses.replace(
        LEVEL, clusters=np.int32(40), inertia=np.float32(0.5), sizes=Sizes(np.int64(0), 1, np.int64(9))
    )
    dataclasses.replace(manifest, levels=(level,)).write(tmp_path)
    read = Manifest.read(tmp_path).levels[0]
    assert read == dataclasses.replace(LEVEL, inertia=0.5, sizes=Sizes(0, 1.0, 9))


def test_exists(tmp_path, manifest):
    assert not Manifest.exists(tmp_path)
    assert not Manifest.exists(tmp_path / "absent")
    manifest.write(tmp_path)
    assert Manifest.exists(tmp_path)


@pytest.fixture
def extended(manifest):
    finished = dataclasses.replace(manifest, complete=True, digest="cd34")
    other = dataclasses.replace(STORE, path="new.zarr", rows=500, dtype="float32", fingerprint="77aa")
    return Manifest.begin_extension(finished, ExtensionRecord("run", "cd34", (STORE, other)))


def test_an_extended_run(tmp_path, manifest, extended):
    assert (extended.command, manifest.command) == ("extend", "cluster")
    assert (extended.store.rows, extended.store.dtype, extended.store.ids) == (1500, "float32", False)
    assert [store.rows for store in extended.stores] == [1000, 500]
    assert manifest.stores == (STORE,)
    assert (extended.config, extended.subset) == (manifest.config, manifest.subset)
    for one in (extended, extended.with_novelty(NoveltyRecord(99, np.float32(0.1).item(), 500, 20, 1))):
        one.write(tmp_path)
        assert Manifest.read(tmp_path) == one
        # Versions that know nothing of extensions say so.
        assert json.loads((tmp_path / "run.json").read_text())["format_version"] == 2
    manifest.write(tmp_path)
    assert "extension" not in json.loads((tmp_path / "run.json").read_text())


def test_what_tells_extended_runs_apart(manifest, extended):
    assert differences(extended, dataclasses.replace(extended, complete=True)) == []
    assert "extends: none → cd34" in differences(manifest, extended)
    swapped = dataclasses.replace(extended.extension, stores=extended.extension.stores[::-1])
    other = Manifest.begin_extension(manifest, swapped)
    assert [line.partition(":")[0] for line in differences(extended, other)] == [
        "store.fingerprint", "stores[0]", "stores[1]",
    ]  # fmt: skip
    assert levels_in_common(dataclasses.replace(extended, levels=(LEVEL,)), manifest) == 0
    with pytest.raises(RunError, match=r"here: is the run run extended by more rows.*give cluster another"):
        check_resumable(extended, "here")
    check_engine(extended, "here")
    with pytest.raises(RunError, match=r"begun by streamcurate 0.0.1"):
        check_engine(dataclasses.replace(extended, engine="0.0.1"), "here")
    with pytest.raises(ValueError, match="dims"):
        Manifest.begin_extension(manifest, ExtensionRecord("run", "cd34", (STORE, dataclasses.replace(STORE, dims=9))))


@pytest.mark.parametrize(("key", "value"), [("run", 3), ("stores", [{"path": "x"}]), ("novelty", {"rows": 3})])
def test_an_unreadable_extension(tmp_path, extended, key, value):
    mapping = extended.to_mapping()
    mapping["extension"][key] = value
    with pytest.raises(RunError, match=rf"run.json: extension\.{key}.* is missing or unreadable"):
        Manifest.from_mapping(mapping, "run.json")


class TestUnreadable:
    def test_no_run(self, tmp_path):
        with pytest.raises(RunError, match=r"is no run directory \(no run\.json in it\)"):
            Manifest.read(tmp_path)
        with pytest.raises(RunError, match=r"gone: is no run directory, there is no such file or folder; check"):
            Manifest.read(tmp_path / "gone")

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
    def test_no_json(self, tmp_path, content):
        (tmp_path / "run.json").write_bytes(content)
        with pytest.raises(RunError, match=r"run\.json: is no JSON"):
            Manifest.read(tmp_path)

    @pytest.mark.parametrize("content", ["[]", "3", "null", "{}"])
    def test_no_manifest(self, tmp_path, content):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match="missing or unreadable"):
            Manifest.read(tmp_path)

    def test_newer_format(self, tmp_path, manifest):
        dataclasses.replace(manifest, format_version=3).write(tmp_path)
        with pytest.raises(RunError, match=r"format 3 is newer .* \(up to 2\); upgrade"):
            Manifest.read(tmp_path)

    def test_every_missing_key_is_named(self, manifest):
        def keys(value, where=""):
            if isinstance(value, dict):
                for key, inner in value.items():
                    yield value, key, where + key
                    # What the configuration and the versions hold is not the manifest's business.
                    if key not in ("config", "versions"):
                        yield from keys(inner, f"{where}{key}.")
            elif isinstance(value, list):
                for index, inner in enumerate(value):
                    yield from keys(inner, f"{where.rstrip('.')}[{index}].")

        mapping = manifest.to_mapping()
        for inside, key, where in list(keys(mapping)):
            if where == "seed":
                continue
            for bad in ("absent", object()):
                kept = inside.pop(key)
                if bad != "absent":
                    inside[key] = bad
                with pytest.raises(
                    RunError, match=rf"run\.json: {where.replace('[', '.').replace(']', '.')} is missing"
                ):
                    Manifest.from_mapping(mapping, "run.json")
                inside[key] = kept
        assert Manifest.from_mapping(mapping, "run.json") == manifest

    def test_unknown_keys_are_no_obstacle(self, manifest):
        mapping = manifest.to_mapping()
        mapping["later"] = mapping["store"]["later"] = mapping["levels"][0]["later"] = 1
        assert Manifest.from_mapping(mapping, "run.json") == manifest


class TestEngine:
    def test_half_finished_run_of_another_version_is_refused(self, manifest):
        check_resumable(manifest, "run")
        with pytest.raises(RunError, match=r"run: was begun by streamcurate 0\.0\.1 and is half-finished"):
            check_resumable(dataclasses.replace(manifest, engine="0.0.1"), "run")

    def test_finished_one_passes(self, manifest):
        check_resumable(dataclasses.replace(manifest, engine="0.0.1").finished("cd"), "run")


class TestDifferences:
    def test_none(self, tmp_path, manifest):
        again = Manifest.begin(CONFIG, STORE, SubsetRecord("rows.npy", 900, "77"))
        manifest.write(tmp_path)
        assert differences(Manifest.read(tmp_path), again) == []

    @pytest.mark.parametrize(
        ("changes", "lines"),
        [
            ({"seed": 3}, [f"seed: {2**63} → 3"]),
            ({"metric": "cosine"}, ["metric: l2 → cosine"]),
            (
                {"levels": (Level(40, resampling=Resampling(3, 2)), Level(11), Level(3))},
                ["levels[1].clusters: 10 → 11"],
            ),
            (
                {"levels": (Level(40, tolerance=0), Level(10), Level(3))},
                [
                    "levels[0].tolerance: 0.0001 → 0.0",
                    "levels[0].resampling.steps: 3 → none",
                    "levels[0].resampling.rows_per_cluster: 2 → none",
                    "levels[0].resampling.strategy: closest → none",
                ],
            ),
        ],
    )
    def test_of_configuration(self, manifest, changes, lines):
        new = Manifest.begin(dataclasses.replace(CONFIG, **changes), STORE, manifest.subset)
        assert differences(manifest, new) == lines

    def test_of_the_number_of_levels(self, manifest):
        new = Manifest.begin(Config(CONFIG.levels[:2], seed=CONFIG.seed), STORE, manifest.subset)
        assert "levels[2].clusters: 3 → none" in differences(manifest, new)
        assert "levels[2].clusters: none → 3" in differences(new, manifest)

    def test_of_store_and_subset(self, manifest):
        store = dataclasses.replace(STORE, path="elsewhere.zarr", rows=1001, fingerprint="5c10")
        assert differences(manifest, dataclasses.replace(manifest, store=store)) == [
            "store.rows: 1000 → 1001",
            "store.fingerprint: 5c0f → 5c10",
        ]
        moved = dataclasses.replace(manifest, store=dataclasses.replace(STORE, path="elsewhere.zarr"))
        assert differences(manifest, moved) == []
        assert differences(manifest, dataclasses.replace(manifest, subset=None)) == [
            "subset.rows: 900 → none",
            "subset.digest: 77 → none",
        ]


class TestLevelsInCommon:
    def test_finished_levels_that_are_asked_for_again(self, manifest):
        two = manifest.with_level(LEVEL)
        other_top = Manifest.begin(
            dataclasses.replace(CONFIG, levels=(*CONFIG.levels[:2], Level(5))), STORE, manifest.subset
        )
        assert levels_in_common(two, other_top) == 2
        # The second was asked for, but never finished.
        assert levels_in_common(manifest, other_top) == 1

    def test_stops_at_the_first_difference(self, manifest):
        two = manifest.with_level(LEVEL)
        other_low = Manifest.begin(
            dataclasses.replace(CONFIG, levels=(Level(41), *CONFIG.levels[1:])), STORE, manifest.subset
        )
        assert levels_in_common(two, other_low) == 0

    def test_none_of_another_seed_or_store(self, manifest):
        other_seed = Manifest.begin(dataclasses.replace(CONFIG, seed=1), STORE, manifest.subset)
        assert levels_in_common(manifest, other_seed) == 0
        other_store = Manifest.begin(CONFIG, dataclasses.replace(STORE, fingerprint="x"), manifest.subset)
        assert levels_in_common(manifest, other_store) == 0
