"""Plans from fixed rates: the verdict, the sums, what is advised and what is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_plans import FIT, fixed_rates, planned

import streamcurate as sc
from streamcurate.errors import DataError, MemoryLimitError
from streamcurate.pipeline.plan import plan
from streamcurate.storage import create_array

MIB = 1 << 20


def kinds(found) -> list[tuple[str, int | None]]:
    return [(one.kind, one.level) for one in found.suggestions if one.kind != "disk"]


def stage(found, name, level=1):
    return next(one for one in found.levels[level - 1].stages if one.name == name)


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "levels",
    [
        [sc.Level(100, init="k-means++")],
        [sc.Level(500_000, init="k-means||")],
        [sc.Level(500_000, resampling=sc.Resampling(1, 100))],
        [sc.Level(400_000, init="random"), sc.Level(300_000, init="k-means++")],
        [sc.Level(100_000, splits=100)],
        [sc.Level(100_000, init="random", algorithm="minibatch")],
    ],
)
def test_the_verdict_is_the_refusal_of_cluster(tmp_path, levels):
    create_array(tmp_path / "rows", (10**9, 768), "float16", 1 << 16)  # no chunk is ever read
    rates = fixed_rates(len(levels))
    found = plan(tmp_path / "rows", levels=levels, memory_limit="512MiB", threads=2, rates=rates, scratch=tmp_path)
    assert found.refusal is not None
    with pytest.raises(MemoryLimitError) as refused:
        sc.cluster(tmp_path / "rows", tmp_path / "run", levels=levels, memory_limit="512MiB", threads=2)
    assert found.refusal == str(refused.value)
    assert found.refusal in str(found)
    assert found.to_mapping()["memory"] | {"refusal": found.refusal, "fits": False} == found.to_mapping()["memory"]
    # The limit it names is enough for the plan, too.
    enough = found.refusal.split("--memory-limit ")[1].split(" ")[0]
    larger = plan(tmp_path / "rows", levels=levels, memory_limit=enough, threads=2, rates=rates, scratch=tmp_path)
    assert larger.refusal is None or larger.refusal.split(":")[0:2] != found.refusal.split(":")[0:2]


@given(
    st.integers(1, 10**7),
    st.integers(2, 2000),
    st.integers(1, 100_000),
    st.sampled_from([512, 600, 1024, 8192]),
    st.integers(1, 9),
)
def test_what_fits_works_within_the_limit(rows, dims, clusters, limit, threads):
    found = planned([sc.Level(min(clusters, rows))], rows, dims, limit=limit * MIB)
    if found.refusal is None:
        for one in found.levels[0].stages:
            assert 0 <= one.memory_bytes <= limit * MIB
    assert 0 <= found.expected <= found.most


def test_more_clusters_than_rows_are_an_error():
    with pytest.raises(DataError, match=r"levels\[0\]\.clusters: 11 clusters from the 10 rows"):
        planned([sc.Level(11)], 10, 4)


# -- times -------------------------------------------------------------------------------------------------------------


def test_times_follow_from_rates():
    found = planned([sc.Level(1000, iterations=50)], 1_000_000, 100)
    flop = 2 * 1e6 * 1000 * 100
    iterations = stage(found, "iterations")
    assert iterations.repeats == 10
    assert iterations.times.parts["compute"] == pytest.approx(flop / 1e11 * (1 + 9 * 0.5) + 10 * 0.001)
    share = (1 + 49 * 0.5) / (1 + 9 * 0.5)
    assert iterations.times.most == pytest.approx(iterations.times.expected * share, rel=0.2)
    assert iterations.times.bound_by == "compute"
    labels = stage(found, "labels")
    assert labels.times.parts["compute"] == pytest.approx(0.25 * flop / 1e11 + 0.001)
    assert stage(found, "members").times.expected == pytest.approx(1e6 / 1e7 + 0.25)
    assert stage(found, "members").times.bound_by == "driver"
    assert stage(found, "statistics").times.parts["reading"] == pytest.approx(1e6 * 200 / 1e9)
    assert found.expected == pytest.approx(0.5 + sum(one.times.expected for one in found.levels[0].stages))


def test_a_fit_of_fewer_iterations_than_expected_is_planned_with_those():
    found = planned([sc.Level(1000, iterations=4)], 1_000_000, 100)
    assert stage(found, "iterations").repeats == 4
    assert found.expected == pytest.approx(found.most)


def test_labels_of_rows_that_were_not_fitted_are_searched_anew():
    fitted = planned([sc.Level(1000, fit_rows=10_000)], 1_000_000, 100)
    flop = 2 * 1e6 * 1000 * 100
    assert stage(fitted, "labels").times.parts["compute"] == pytest.approx(flop / FIT.label + 0.001)


def test_named_hardware_is_never_said_to_be_measured():
    found = planned([sc.Level(50_000), sc.Level(100)], 10**8, 1024, on="8xH100")
    nearest = found.rates["nearest"]
    assert nearest.origin == "assumed" or nearest.source.startswith("gpu-")
    for line in str(found).splitlines():
        if "nearest" in line:
            assert "assumed" in line
    assert stage(found, "iterations").times.bound_by == "compute"
    few = planned([sc.Level(50_000), sc.Level(100)], 10**8, 1024, on="64xH100")
    assert few.expected < found.expected
    nodes = planned([sc.Level(50_000), sc.Level(100)], 10**8, 1024, on="16x500GFLOPS")
    assert nodes.expected > found.expected


# -- advice ------------------------------------------------------------------------------------------------------------

QUIET = {
    "flat": ([sc.Level(1000)], 100_000, 384),
    "usual": (
        [sc.Level(2000, resampling=sc.Resampling(9, 5)), sc.Level(400, resampling=sc.Resampling(9, 3))],
        20_000,
        384,
    ),
    "two dims": (
        [sc.Level(3000, resampling=sc.Resampling(9, 2)), sc.Level(1000, resampling=sc.Resampling(9, 1)), sc.Level(300)],
        9000,
        2,
    ),
    "not resampled": ([sc.Level(2000), sc.Level(400), sc.Level(80)], 20_000, 384),
    "split": ([sc.Level(1000, splits=50), sc.Level(1000)], 1_000_000, 64),
    "one cluster": ([sc.Level(1)], 5, 3),
}


@pytest.mark.parametrize("case", QUIET)
def test_nothing_is_advised_where_nothing_is_unwise(case):
    levels, rows, dims = QUIET[case]
    assert kinds(planned(levels, rows, dims)) == []


def test_a_level_too_near_the_one_below():
    found = planned([sc.Level(1000), sc.Level(600)], 50_000, 64)
    assert kinds(found) == [("few-points", 2)]
    one = found.suggestions[0]
    assert one.numbers == {
        "points": 1000, "clusters": 600, "points_a_cluster": pytest.approx(1.667, abs=1e-3), "advised": 250,
    }  # fmt: skip
    assert "(clusters: 250)" in one.text
    # What is advised is not advised against, nor is what helped in notebooks/choosing_levels.md.
    for clusters in (250, 400, 500):
        assert kinds(planned([sc.Level(1000), sc.Level(clusters)], 50_000, 64)) == []


def test_resampling_that_keeps_everything():
    level = sc.Level(1000, resampling=sc.Resampling(3, 50))
    found = planned([level], 20_000, 64)
    assert kinds(found) == [("resampling", 1)]
    assert found.suggestions[0].numbers["advised"] == 10
    assert "rows_per_cluster: 10" in found.suggestions[0].text


def test_resampling_that_keeps_no_more_points_than_clusters():
    found = planned([sc.Level(1000, resampling=sc.Resampling(3, 1))], 20_000, 64)
    assert kinds(found) == [("resampling", 1)]
    assert "rows_per_cluster: 10" in found.suggestions[0].text
    # Of clusters of three points, one is half.
    assert kinds(planned([sc.Level(1000, resampling=sc.Resampling(3, 1))], 3000, 64)) == []


def test_fewer_resampling_steps_where_they_cost_much():
    def level(steps):
        return sc.Level(1000, iterations=5, resampling=sc.Resampling(steps, 5_000))

    found = planned([level(9)], 10_000_000, 256)
    (one,) = (one for one in found.suggestions if one.kind == "resampling-steps")
    assert "steps: 3" in one.text
    fewer = planned([level(3)], 10_000_000, 256)
    assert one.numbers["fewer_seconds"] == pytest.approx(fewer.levels[0].expected)
    assert one.numbers["seconds"] == pytest.approx(found.levels[0].expected)
    assert one.numbers["seconds"] >= 2 * one.numbers["fewer_seconds"]
    assert not [one for one in fewer.suggestions if one.kind == "resampling-steps"]


def test_a_level_that_will_degenerate():
    resampled = sc.Resampling(10, 3)
    levels = [sc.Level(2000, resampling=resampled), sc.Level(400, resampling=resampled), sc.Level(80)]
    (found,) = (one for one in planned(levels, 20_000, 384).suggestions if one.kind == "degenerate")
    assert found.level == 3
    assert "rows_per_cluster" not in found.text
    kept = [*levels[:2], sc.Level(40, resampling=sc.Resampling(10, 2))]
    (found,) = (one for one in planned(kept, 20_000, 384).suggestions if one.kind == "degenerate")
    assert "(rows_per_cluster: 5)" in found.text
    assert kinds(planned(levels, 20_000, 16)) == []
    assert kinds(planned([sc.Level(level.clusters) for level in levels], 20_000, 384)) == []


def test_splits_where_they_are_cheaper():
    found = planned([sc.Level(100_000)], 5_000_000, 768)
    advice = [one for one in found.suggestions if one.kind == "splits"]
    assert [one.level for one in advice] == [1]
    numbers = advice[0].numbers
    assert numbers["split_seconds"] < numbers["seconds"] / 2
    assert numbers["clusters"] * numbers["splits"] >= 100_000
    advised = planned([sc.Level(numbers["clusters"], splits=numbers["splits"])], 5_000_000, 768)
    assert advised.levels[0].expected == pytest.approx(numbers["split_seconds"])


def test_a_fit_on_fewer_rows_where_it_is_worthwhile():
    found = planned([sc.Level(1000)], 100_000_000, 64)
    advice = [one for one in found.suggestions if one.kind == "fit-rows"]
    assert [one.level for one in advice] == [1]
    assert advice[0].numbers["fit_rows"] == 256_000
    advised = planned([sc.Level(1000, fit_rows=256_000)], 100_000_000, 64)
    assert advised.levels[0].expected == pytest.approx(advice[0].numbers["sampled_seconds"])
    assert "fit-rows" not in dict(kinds(advised))


def test_tiles_and_the_limit_without_them():
    level = sc.Level(200_000, init="random")
    found = planned([level], 10**6, 1024, limit=1024 * MIB)
    advice = next(one for one in found.suggestions if one.kind == "tiles")
    assert advice.numbers["tiles"] == max(one.stage.tiles for one in found.levels[0].stages) > 1
    larger = planned([level], 10**6, 1024, limit=advice.numbers["enough_bytes"])
    assert max(one.stage.tiles for one in larger.levels[0].stages) == 1
    assert "tiles" not in dict(kinds(larger))


def test_small_blocks():
    found = planned([sc.Level(4000, init="random")], 10**6, 8000, limit=512 * MIB)
    advice = [one for one in found.suggestions if one.kind == "small-blocks"]
    assert advice
    assert advice[0].numbers["block_rows"] < 256


def test_chunks_that_are_decoded_whole():
    found = planned([sc.Level(100)], 10**6, 1024, chunk=1 << 18, overhead=1 << 29)
    assert ("chunks", None) in kinds(found)
    assert "ingest" in next(one.text for one in found.suggestions if one.kind == "chunks")
    assert kinds(planned([sc.Level(100)], 10**6, 1024, chunk=1 << 10, overhead=1 << 21)) == []


def test_a_disk_that_is_too_small():
    found = planned([sc.Level(1000)], 10**13, 64)
    one = next(one for one in found.suggestions if one.kind == "disk")
    assert one.numbers["needed_bytes"] == found.tree_bytes + found.scratch_bytes > one.numbers["free_bytes"]


# -- what programs and people get --------------------------------------------------------------------------------------

SCHEMA = {
    "store": {"name", "rows", "dims", "dtype", "chunk_rows", "read_overhead_bytes", "count", "on_disk", "bytes"},
    "memory": {"limit_bytes", "threads", "workers", "working_bytes", "fits", "refusal"},
    "disk": {"tree_bytes", "scratch_peak_bytes", "place", "free_bytes"},
    "seconds": {"start", "expected", "most"},
}
STAGE = {
    "name", "points", "clusters", "repeats", "passes", "read_bytes", "written_bytes", "flop", "tiles", "memory_bytes",
    "block_rows", "seconds", "bound_by",
}  # fmt: skip


@pytest.mark.parametrize("on", ["this", "8xH100"])
def test_the_mapping(on):
    level = sc.Level(500, resampling=sc.Resampling(2, 50))
    found = planned([level, sc.Level(50, splits=2)], 100_000, 64, on=on, count=90_000, subset="rows.npy")
    mapping = json.loads(json.dumps(found.to_mapping(), allow_nan=False))
    assert set(mapping) == {*SCHEMA, "config", "on", "bound_by", "levels", "rates", "suggestions"}
    for key, names in SCHEMA.items():
        assert set(mapping[key]) == names
    assert mapping["config"] == found.config.to_mapping()
    for number, level_mapping in enumerate(mapping["levels"], start=1):
        assert level_mapping["level"] == number
        for one in level_mapping["stages"]:
            assert set(one) == STAGE
            for key in ("repeats", "read_bytes", "written_bytes", "flop", "seconds"):
                assert 0 <= one[key]["expected"] <= one[key]["most"] * (1 + 1e-12)
            assert one["bound_by"] in ("compute", "reading", "writing", "sums", "driver")
    assert {rate["origin"] for rate in mapping["rates"].values()} <= {"measured", "assumed", "published"}
    expected = sum(level_mapping["seconds"]["expected"] for level_mapping in mapping["levels"])
    assert mapping["seconds"]["expected"] == pytest.approx(expected + mapping["seconds"]["start"])
    text = str(found)
    assert "100,000 rows, 90,000 of them used" in text
    assert "split fits" in text
    assert max(map(len, text.split("\nlevel")[0].splitlines())) < 200
