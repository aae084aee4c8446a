"""Mixtures of several sources, compared with what brute force takes from each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from frozen_trees import Centroids, build, store_of, unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import formula

import streamcurate as sc
from streamcurate.embeddings.joined import join_embeddings
from streamcurate.errors import CapacityError, ConfigError, DataError, InputError
from streamcurate.pipeline import mixture_parts
from streamcurate.pipeline.mixture import mix
from streamcurate.pipeline.mixture_errors import in_part
from streamcurate.sampling import mixed, sample

DIMS = 4
POOL, SMALL, SEEDS = 300, 20, 6


def points(count, seed):
    return np.random.default_rng(seed).standard_normal((count, DIMS)).astype(np.float32)


def names(prefix, count):
    return np.array([f"{prefix}-{row:03}" for row in range(count)])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """``pool.zarr`` with its run, a ``twin`` run over it, ``small.zarr``, seeds, and stores that do not fit."""
    folder = tmp_path_factory.mktemp("made")
    pool = points(POOL, 0)
    store_of(folder / "pool.zarr", pool, names("pool", POOL))
    store_of(folder / "small.zarr", points(SMALL, 1), names("small", SMALL))
    store_of(folder / "seeds.zarr", points(SEEDS, 2))
    store_of(folder / "plain.zarr", points(9, 3))
    store_of(folder / "numbers.zarr", points(7, 4).astype(np.float16), np.arange(7))
    store_of(folder / "wide.zarr", np.ones((5, DIMS + 1), dtype=np.float32), names("wide", 5))
    store_of(folder / "same-ids.zarr", points(4, 5), names("pool", 4))
    levels = [Centroids(unit(points(12, 6))), Centroids(unit(points(3, 7)))]
    build(folder / "run", folder / "pool.zarr", levels, "cosine")
    build(folder / "twin", folder / "pool.zarr", levels[:1], "cosine")
    np.save(folder / "listed.npy", np.array([7, 3, 290]))
    np.save(folder / "unwanted.npy", np.arange(0, POOL, 5))
    return folder


@pytest.fixture(autouse=True)
def here(made, monkeypatch):
    """Paths of a mixture are relative to the working directory; batches are small."""
    monkeypatch.chdir(made)
    monkeypatch.setattr("streamcurate.sampling.mixed._BATCH", 16)
    monkeypatch.setattr(mixture_parts, "_BATCH", 16)
    monkeypatch.setattr("streamcurate.embeddings.rowsets._PIECE", 32)


def part_rows(mixture):
    return {part.name: mixture.rows(part.name).tolist() for part in mixture.parts}


def near(allowed, count=None, least=None):
    """Rows of the pool by their nearest seed, brute force under cosine."""
    seeds = unit(np.asarray(sc.open_embeddings("seeds.zarr")))
    values = formula(np.asarray(sc.open_embeddings("pool.zarr")), seeds, "cosine").min(axis=1)
    found = [row for row in allowed if least is None or values[row] <= 2 * (1 - least)]
    return sorted(sorted(found, key=lambda row: ((values[row] / 2).astype(np.float32), row))[:count])


THREE = {
    "seed": 3,
    "size": 150,
    "parts": [
        {"name": "balanced", "draw": "run", "share": 0.6, "multiplier": 2},
        {"name": "near", "retrieve": "pool.zarr", "seeds": "seeds.zarr", "nearest": 60, "share": 0.4},
        {"name": "small", "all": "small.zarr", "copies": 2},
        {"name": "listed", "rows": "listed.npy", "of": "pool.zarr"},
    ],
    "exclude": [{"rows": "unwanted.npy", "of": "pool.zarr"}],
}


def test_three_sources_give_what_brute_force_takes(tmp_path):
    mixture = mix(THREE, tmp_path / "mixture.parquet")
    rows = part_rows(mixture)
    allowed = set(range(POOL)) - set(range(0, POOL, 5))
    assert rows["small"] == list(range(SMALL))
    assert rows["listed"] == [3, 7]  # 290 is excluded
    assert [part.passed_over for part in mixture.parts] == [0, 0, 0, 1]
    # 150 rows less 2 x 20 and 2: shares of 108.
    assert [part.given for part in mixture.parts] == [65, 43, 40, 2]
    assert [part.asked for part in mixture.parts] == [65, 43, None, None]
    assert len(mixture) == 150
    tree = sc.open_tree("run")
    drawn = sample(tree, 65, multiplier=2, seed=3, eligible=sorted(allowed - {3, 7}))
    assert rows["balanced"] == drawn.unique_rows.tolist()
    # The balanced part stands first, and takes its rows first of the two with a share.
    left = allowed - {3, 7} - set(rows["balanced"])
    assert rows["near"] == near(near(left, 60), 43)
    table = pyarrow.parquet.read_table(tmp_path / "mixture.parquet")
    assert table.column_names == ["part", "source", "row", "id", "copies"]
    found = table.to_pydict()
    assert found["part"] == [part.name for part in mixture.parts for _ in range(part.distinct)]
    expected = drawn.copies.tolist() + [1] * 43 + [2] * SMALL + [1, 1]
    assert found["copies"] == expected
    for part, source, row, name in zip(*(found[key] for key in ("part", "source", "row", "id")), strict=True):
        store = "small" if part == "small" else "pool"
        assert (source, name) == (str(Path(f"{store}.zarr").absolute()), f"{store}-{row:03}")
    assert [path.name for path in tmp_path.iterdir()] == ["mixture.parquet"]


def test_the_same_mixture_is_the_same_file(tmp_path):
    for out in ("one.parquet", "two.parquet"):
        mix(THREE, tmp_path / out)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    mix(THREE, tmp_path / "two.parquet", seed=4)
    assert (tmp_path / "one.parquet").read_bytes() != (tmp_path / "two.parquet").read_bytes()


def test_a_row_is_given_once_unless_asked_otherwise(tmp_path):
    parts = [
        {"name": "first", "rows": "listed.npy", "of": "run"},
        {"name": "second", "draw": "twin", "size": 200},
        {"name": "whole", "all": "pool.zarr"},
        {"name": "again", "rows": "listed.npy", "of": "pool.zarr", "repeat": True},
        {"name": "drawn", "draw": "run", "size": 300, "repeat": True},
    ]
    mixture = mix({"parts": parts}, tmp_path / "out.parquet")
    rows = part_rows(mixture)
    assert rows["first"] == rows["again"] == [3, 7, 290]
    assert len(rows["second"]) == 200
    assert rows["drawn"] == list(range(POOL))
    once = rows["first"] + rows["second"] + rows["whole"]
    assert sorted(once) == list(range(POOL))
    assert mixture.parts[2].passed_over == 203


def test_a_copy_of_a_store_is_the_same_store(made, tmp_path):
    import shutil

    np.save(tmp_path / "rows.npy", points(30, 8))
    sc.ingest(str(tmp_path / "rows.npy"), tmp_path / "one.zarr")
    shutil.copytree(tmp_path / "one.zarr", tmp_path / "two.zarr")
    parts = [
        {"name": "some", "rows": [1, 2], "of": tmp_path / "one.zarr"},
        {"name": "others", "all": str(tmp_path / "two.zarr")},
    ]
    mixture = mix({"parts": parts}, tmp_path / "out.csv")
    assert mixture.rows("others").tolist() == [0, *range(3, 30)]


def test_rows_of_an_extended_tree_are_those_of_its_stores(made, tmp_path):
    run = tmp_path / "extended"
    sc.extend(sc.open_tree("run"), "small.zarr", run)
    parts = [
        {"name": "new", "rows": [0, 5], "of": "small.zarr"},
        {"name": "old", "rows": [1, POOL - 1], "of": "pool.zarr"},
        {"name": "rest", "draw": str(run), "size": POOL + SMALL - 4},
    ]
    mixture = mix({"parts": parts}, tmp_path / "out.parquet")
    expected = (
        [row for row in range(POOL) if row not in (1, POOL - 1)],
        [row for row in range(SMALL) if row not in (0, 5)],
    )
    assert mixture.rows("rest").tolist() == expected[0] + expected[1]
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert len(set(zip(table["source"], table["row"], strict=True))) == POOL + SMALL
    joined = join_embeddings([sc.open_embeddings("pool.zarr"), sc.open_embeddings("small.zarr")])
    assert sorted(table["id"]) == sorted(joined.take_ids(np.arange(POOL + SMALL)).tolist())


def test_lists_and_options_go_on_to_each_part(tmp_path):
    np.save(tmp_path / "some.npy", np.arange(100))
    earlier = sc.open_tree("run").sample(10, seed=9)
    parts = [
        {"name": "near", "retrieve": "run", "seeds": "seeds.zarr", "cosine": 0.6, "subset": str(tmp_path / "some.npy")},
        {
            "name": "drawn",
            "draw": sc.open_tree("run"),
            "size": 50,
            "eligible": np.arange(120),
            "include": earlier,
            "strategy": "closest",
            "seed": 5,
            "repeat": True,
        },
    ]
    mixture = mix({"parts": parts}, tmp_path / "out.jsonl")
    assert mixture.rows("near").tolist() == near(range(100), least=0.6)
    tree = sc.open_tree("run")
    expected = sample(tree, 50, "closest", seed=5, eligible=np.arange(120), include=earlier)
    assert mixture.rows("drawn").tolist() == expected.unique_rows.tolist()


def test_too_few_retrieved_rows_are_made_up_for_by_another_part(tmp_path):
    parts = [
        {"name": "near", "retrieve": "run", "seeds": "seeds.zarr", "cosine": 0.9, "share": 0.5, "short": "balanced"},
        {"name": "balanced", "draw": "run", "share": 0.5},
    ]
    found = len(near(range(POOL), least=0.9))
    assert 0 < found < 100
    mixture = mix({"size": 200, "parts": parts}, tmp_path / "out.parquet")
    assert [(part.asked, part.given) for part in mixture.parts] == [(100, found), (200 - found, 200 - found)]
    assert mixture.notes == (
        f"near: {found} of the 100 rows asked for were found; balanced gives the other {100 - found}",
    )
    del parts[0]["short"]
    with pytest.raises(
        InputError, match=rf"mixture: parts\[0\] \(near\): 100 rows are asked for, and {found} are found"
    ):
        mix({"size": 200, "parts": parts}, tmp_path / "other.parquet")


def test_what_is_open_counts_first(tmp_path):
    parts = [
        {"name": "drawn", "draw": "run", "share": 1},
        {"name": "near", "retrieve": "pool.zarr", "seeds": "seeds.zarr", "per_seed": 3},
        {"name": "small", "all": "small.zarr"},
    ]
    mixture = mix({"size": 60, "parts": parts}, tmp_path / "out.parquet")
    given = {part.name: part.given for part in mixture.parts}
    assert given["drawn"] == 60 - SMALL - given["near"] > 0
    with pytest.raises(
        CapacityError,
        match=r"parts\[0\] \(drawn\): share: nothing is left for it: the parts without a share give "
        rf"{60 - given['drawn']} rows, and size is {SMALL + 1};",
    ):
        mix({"size": SMALL + 1, "parts": parts}, tmp_path / "other.parquet")
    tenth = [{**parts[0], "share": "99/100"}, {"name": "few", "draw": "run", "share": "1/100"}, parts[2]]
    with pytest.raises(
        CapacityError, match=r"parts\[1\] \(few\): share: its share of the other 2 rounds to no row: the parts without"
    ):
        mix({"size": SMALL + 2, "parts": tenth}, tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"mixture: size: 30, and the parts give 20"):
        mix({"size": 30, "parts": parts[2:]}, tmp_path / "third.parquet")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["out.parquet"]


@st.composite
def mixtures(draw):
    """Parts of every kind over the pool and the small store, none of which may take a row that another has."""
    parts, shares = [], []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["draw", "share", "rows", "retrieve"]))
        part = {"name": f"part {number}"}
        if kind == "rows":
            rows = draw(st.lists(st.integers(0, POOL - 1), min_size=30, max_size=40, unique=True))
            part |= {"rows": rows, "of": "pool.zarr", "copies": draw(st.integers(1, 2))}
        elif kind == "retrieve":
            part |= {"retrieve": "run", "seeds": "seeds.zarr", "nearest": 20, "size": draw(st.integers(1, 20))}
        elif kind == "draw":
            part |= {"draw": draw(st.sampled_from(["run", "twin"])), "size": draw(st.integers(1, 20))}
        else:
            shares.append(part | {"draw": "run", "multiplier": 3})
            part = shares[-1]
        parts.append(part)
    for part in shares:
        part["share"] = f"1/{len(shares)}"
    if draw(st.booleans()):
        parts.append({"name": "small", "all": "small.zarr"})
    size = {"size": 400} if shares else {}
    exclude = draw(st.lists(st.integers(0, POOL - 1), max_size=20))
    return {"parts": parts, "exclude": [{"rows": exclude, "of": "run"}], "seed": draw(st.integers(0, 9)), **size}


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mixtures())
def test_no_row_is_given_twice_and_sizes_add_up(tmp_path, config):
    mixture = mix(config, tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    given = list(zip(table["source"], table["row"], strict=True))
    assert len(set(given)) == len(given)
    excluded = set(config["exclude"][0]["rows"])
    assert not any(source.endswith("pool.zarr") and row in excluded for source, row in given)
    assert sum(table["copies"]) == len(mixture)
    assert len(mixture) == config.get("size", len(mixture))
    for asked, part in zip(config["parts"], mixture.parts, strict=True):
        assert part.given == asked.get("size", part.given)
    shares = [part.given for asked, part in zip(config["parts"], mixture.parts, strict=True) if "share" in asked]
    assert not shares or max(shares) - min(shares) <= 1


# -- formats -----------------------------------------------------------------------------------------------------------

MIXED = [
    {"name": "drawn", "draw": "run", "size": 50, "multiplier": 3, "eligible": np.arange(30)},
    {"name": "small, all", "all": "small.zarr"},
]


def lines(expected):
    return list(zip(*(expected[key] for key in ("part", "source", "row", "id", "copies")), strict=True))


def test_every_format_holds_the_same(tmp_path):
    read = {}
    for suffix in (".parquet", ".csv", ".jsonl", ".zarr", ".txt"):
        mixture = mix({"parts": MIXED}, tmp_path / f"out{suffix}")
        if suffix != ".txt":
            read[suffix] = {part.name: mixture.rows(part.name).tolist() for part in mixture.parts}
        assert len(mixture) == 70
    assert len({json.dumps(rows) for rows in read.values()}) == 1
    expected = lines(pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict())
    assert lines(pyarrow.csv.read_csv(tmp_path / "out.csv").to_pydict()) == expected
    texts = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [tuple(json.loads(text).values()) for text in texts] == expected
    names = [name for _, _, _, name, copies in expected for _ in range(copies)]
    assert (tmp_path / "out.txt").read_text().splitlines() == names
    with pytest.raises(InputError, match="holds ids alone"):
        mixture.rows("drawn")
    with pytest.raises(InputError, match=r"'drwn': no part of .*it has drawn, small, all"):
        mixture.rows("drwn")


def test_a_store_of_all_rows(tmp_path):
    mix({"parts": MIXED, "seed": 5}, tmp_path / "table.parquet")
    expected = lines(pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pydict())
    mix({"parts": MIXED, "seed": 5}, tmp_path / "out.zarr")
    store = sc.open_embeddings(tmp_path / "out.zarr")
    assert store.rows == len(expected)
    assert store.take_ids(np.arange(store.rows)).tolist() == [line[3] for line in expected]
    pool, small = (np.asarray(sc.open_embeddings(f"{name}.zarr")) for name in ("pool", "small"))
    values = np.stack([(pool if line[0] == "drawn" else small)[line[2]] for line in expected])
    assert np.array_equal(np.asarray(store), values)
    noted = store.attributes["mixture"]
    assert noted["parts"] == ["drawn", "small, all"]
    assert noted["seed"] == 5
    assert store.fingerprint
    from streamcurate.storage import open_array

    arrays = {name: open_array(tmp_path / "out.zarr" / name) for name in ("part", "source", "row", "copies")}
    part, source, row, copies = (array.read(0, array.rows) for array in arrays.values())
    found = zip(part, source, row, copies, strict=True)
    told = [(noted["parts"][a], noted["sources"][b], int(c), int(d)) for a, b, c, d in found]
    assert told == [(line[0], line[1], line[2], line[4]) for line in expected]
    with pytest.raises(InputError, match="already exists"):
        mix({"parts": MIXED}, tmp_path / "out.zarr")


def test_rows_without_ids_and_with_ids_of_two_kinds(tmp_path):
    parts = [{"name": name, "all": f"{name}.zarr"} for name in ("plain", "numbers", "small")]
    mix({"parts": parts}, tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")["id"].to_pylist()
    assert found == [None] * 9 + [str(number) for number in range(7)] + names("small", SMALL).tolist()
    mix({"parts": parts[:1]}, tmp_path / "out.parquet")
    assert "id" not in pyarrow.parquet.read_table(tmp_path / "out.parquet").column_names
    mix({"parts": parts[:2]}, tmp_path / "out.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [None] * 9 + list(range(7))
    mix({"parts": parts[1:]}, tmp_path / "out.zarr")  # float16 and float32, numbers and strings
    store = sc.open_embeddings(tmp_path / "out.zarr")
    assert store.dtype == np.float32
    assert store.take_ids(np.array([0, 7])).tolist() == ["0", "small-000"]


def test_ids_alone_must_tell_rows_apart(tmp_path):
    same = {"name": "same", "all": "same-ids.zarr"}
    parts = [{"name": "pool", "all": "pool.zarr"}, same]
    with pytest.raises(DataError, match=r'the id "pool-00\d" is that of row \d of .*pool.zarr and of row \d of .*same'):
        mix({"parts": parts}, tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()
    parts[1] = {"name": "again", "rows": [0, 1], "of": "pool.zarr", "repeat": True}  # the same rows, given twice
    mix({"parts": parts}, tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text().splitlines()[-2:] == ["pool-000", "pool-001"]


@pytest.mark.parametrize("run", [4, 1 << 20])
def test_ids_of_one_hash_are_compared(tmp_path, monkeypatch, run):
    monkeypatch.setattr("streamcurate.streaming.shuffle._SMALLEST_RUN", run)
    monkeypatch.setattr("streamcurate.streaming.shuffle._BYTES_IN_SORT", 1 << 40)
    monkeypatch.setattr("streamcurate.sampling.mixed.xxhash.xxh3_64_intdigest", lambda text: text[-1] % 2)
    again = {"name": "again", "all": "small.zarr", "repeat": True}
    parts = [{"name": "small", "all": "small.zarr"}, again, {"name": "numbers", "all": "numbers.zarr"}]
    mix({"parts": parts}, tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text().split() == [*names("small", SMALL).tolist() * 2, *"0123456"]
    store_of(tmp_path / "late.zarr", points(3, 9), np.array(["new", "small-004", "newer"]))
    parts[2] = {"name": "late", "all": str(tmp_path / "late.zarr")}
    with pytest.raises(DataError, match=r'"small-004" is that of row 4 of .*small.zarr and of row 1 of .*late.zarr'):
        mix({"parts": parts}, tmp_path / "other.txt")


@pytest.fixture
def compared(monkeypatch):
    """How many lines are compared together, each time."""
    counts, places = [], mixed._places

    def counted(parts, starts, lines):
        counts.append(len(lines))
        return places(parts, starts, lines)

    monkeypatch.setattr(mixed, "_places", counted)
    return counts


@pytest.mark.parametrize("run", [4, 1 << 20])
def test_one_id_for_all_rows_is_refused_after_a_few(tmp_path, monkeypatch, compared, run):
    monkeypatch.setattr("streamcurate.streaming.shuffle._SMALLEST_RUN", run)
    monkeypatch.setattr("streamcurate.streaming.shuffle._BYTES_IN_SORT", 1 << 40)
    store_of(tmp_path / "same.zarr", points(200, 1), np.array(["same"] * 200))
    with pytest.raises(DataError, match=r'"same" is that of row 0 of .*same.zarr and of row 1 of .*same.zarr'):
        mix({"parts": [{"name": "same", "all": str(tmp_path / "same.zarr")}]}, tmp_path / "out.txt")
    assert max(compared) == 2


def test_rows_given_by_two_parts_are_compared_a_few_at_a_time(tmp_path, compared):
    parts = [{"name": "pool", "all": "pool.zarr"}, {"name": "again", "all": "pool.zarr", "repeat": True}]
    assert len(mix({"parts": parts}, tmp_path / "out.txt")) == 2 * POOL
    assert sum(compared) == 2 * POOL
    assert max(compared) == 16


# -- going on ----------------------------------------------------------------------------------------------------------


class StopError(Exception):
    pass


def counting(monkeypatch, stop=None):
    """Which parts are computed; the ``stop``-th of them fails."""
    taken = []

    def wrapped(taker):
        def take(self, key, part, source, asked):
            taken.append(part.name)
            if len(taken) == stop:
                raise StopError
            return taker(self, key, part, source, asked)

        return take

    takers = {kind: wrapped(taker) for kind, taker in mixture_parts._TAKERS.items()}
    monkeypatch.setattr(mixture_parts, "_TAKERS", takers)
    return taken


@pytest.mark.parametrize(("stop", "suffix"), [(2, ".parquet"), (4, ".zarr")])
def test_finished_parts_are_not_computed_again(tmp_path, stop, suffix):
    out = tmp_path / f"out{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        taken = counting(patch, stop)
        with pytest.raises(StopError):
            mix(THREE, out)
        assert taken == ["small", "listed", "balanced", "near"][:stop]
    assert not out.exists()
    assert Path(f"{out}.partial").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        taken = counting(patch)
        mix(THREE, out)
        assert taken == ["small", "listed", "balanced", "near"][stop - 1 :]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix == ".parquet":
        mix(THREE, tmp_path / "whole.parquet")
        assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_changed_file_keeps_the_parts_that_stay_as_they_were(tmp_path):
    out = tmp_path / "out.parquet"
    with pytest.MonkeyPatch.context() as patch:
        counting(patch, 4)
        with pytest.raises(StopError):
            mix(THREE, out)
    listed = {**THREE["parts"][3], "rows": [3, 8]}
    changed = {**THREE, "parts": [*THREE["parts"][:3], listed]}
    with pytest.MonkeyPatch.context() as patch:
        taken = counting(patch)
        mix(changed, out)
        # Both of the others draw around the list.
        assert taken == ["listed", "balanced", "near"]
    mix(changed, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_damaged_part_is_computed_again(tmp_path):
    out = tmp_path / "out.parquet"
    with pytest.MonkeyPatch.context() as patch:
        counting(patch, 3)
        with pytest.raises(StopError):
            mix(THREE, out)
    for path in Path(f"{out}.partial").glob("result/*-rows.npy"):
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.MonkeyPatch.context() as patch:
        taken = counting(patch)
        assert len(mix(THREE, out)) == 150
        assert taken == ["small", "listed", "balanced", "near"]


def test_a_store_that_was_being_written_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("streamcurate.sampling.mixed_store.default_chunk_rows", lambda dims, dtype: 16)
    monkeypatch.setattr("streamcurate.sampling.mixed_store._READ_ROWS", 8)
    read = []
    with pytest.MonkeyPatch.context() as patch:

        def failing(*arguments):
            raise StopError

        patch.setattr("streamcurate.sampling.mixed_store._columns", failing)
        with pytest.raises(StopError):
            mix(THREE, tmp_path / "out.zarr")
    take = sc.Embeddings.take
    monkeypatch.setattr(sc.Embeddings, "take", lambda self, rows: read.append(len(rows)) or take(self, rows))
    mixture = mix(THREE, tmp_path / "out.zarr")
    assert sum(read) == mixture.distinct % 16  # whole chunks were kept
    mix(THREE, tmp_path / "whole.zarr")
    found = [sc.open_embeddings(tmp_path / f"{name}.zarr") for name in ("out", "whole")]
    assert found[0].fingerprint == found[1].fingerprint


def test_an_interrupted_retrieval_is_gone_on_with(tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"
    config = {"parts": [{"name": "near", "retrieve": "run", "seeds": "seeds.zarr", "nearest": 9}]}
    with pytest.MonkeyPatch.context() as patch:

        def interrupted(place, *arguments, **options):
            Path(f"{place}.partial").mkdir()
            raise KeyboardInterrupt

        patch.setattr(mixture_parts, "retrieve_to", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mix(config, out)
    left = list(Path(f"{out}.partial").glob("result/*-retrieved.parquet.partial"))
    assert len(left) == 1
    seen = []
    retrieve_to = mixture_parts.retrieve_to

    def watched(place, *arguments, **options):
        seen.append(Path(f"{place}.partial"))
        return retrieve_to(place, *arguments, **options)

    monkeypatch.setattr(mixture_parts, "retrieve_to", watched)
    assert len(mix(config, out)) == 9
    assert seen == left
    assert not Path(f"{out}.partial").exists()


def test_workers_give_the_same_bytes(tmp_path):
    distributed = pytest.importorskip("distributed")
    mix(THREE, tmp_path / "one.parquet")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    with cluster, distributed.Client(cluster) as client:
        mix(THREE, tmp_path / "two.parquet", client=client)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


# -- errors ------------------------------------------------------------------------------------------------------------

DRAW = {"name": "drawn", "draw": "run", "size": 10}
NEAR = {"name": "near", "retrieve": "pool.zarr", "seeds": "seeds.zarr", "nearest": 9}


@pytest.mark.parametrize(
    ("parts", "error", "told"),
    [
        ([{**DRAW, "draw": "absent"}], InputError, r"mixture: parts\[0\] \(drawn\): draw: absent: no such file"),
        ([{**DRAW, "draw": "pool.zarr"}], ConfigError, r"parts\[0\] \(drawn\): draw: pool.zarr is a store"),
        ([{**DRAW, "size": 301}], CapacityError, r"parts\[0\] \(drawn\): .*run: 301 rows are asked for, at most 300"),
        ([{**DRAW, "strategy": "near"}], ConfigError, r"parts\[0\] \(drawn\): "),
        ([{**DRAW, "eligible": "absent.npy"}], InputError, r"\(drawn\): eligible: absent.npy: no such file"),
        ([{**DRAW, "eligible": [500]}], DataError, r"\(drawn\): eligible: row 500 is not among the 300 rows"),
        ([NEAR, {**NEAR, "name": "b", "seeds": "wide.zarr"}], InputError, r"\(b\): seeds: wide.zarr has 5 dims"),
        ([{**NEAR, "seeds": "absent.zarr"}], InputError, r"\(near\): seeds: absent.zarr: no such file"),
        ([{key: NEAR[key] for key in ("name", "retrieve", "seeds")}], InputError, r"parts\[0\] \(near\): "),
        ([{"name": "a", "rows": [5, 5], "of": "pool.zarr"}], DataError, r"\(a\): rows: names row 5 more than once"),
        ([{"name": "a", "rows": "absent.npy", "of": "pool.zarr"}], InputError, r"\(a\): rows: absent.npy: no such"),
        ([{"name": "a", "rows": [], "of": "pool.zarr"}], InputError, r"\(a\): gives no row of pool.zarr"),
        (
            [{"name": "a", "all": "pool.zarr", "copies": 2**61}],
            InputError,
            r"\(a\): copies: .* of each of 300 rows are too",
        ),
        (
            [{"name": name, "rows": [1], "of": "pool.zarr", "copies": 2**62, "repeat": True} for name in "ab"],
            InputError,
            r"mixture: the parts give 9,223,372,036,854,775,808 rows, copies counted; at most",
        ),
        (
            [{"name": "a", "all": "pool.zarr"}, {"name": "b", "rows": [1], "of": "run"}],
            InputError,
            r"parts\[1\] \(b\): gives no row of run",
        ),
        ([{"name": "a", "all": "pool.zarr"}, DRAW], InputError, r"\(drawn\): no row of run is left.*repeat: true"),
        (
            [{"name": "a", "rows": [1], "of": "run"}, {**DRAW, "include": np.array([1, 2])}],
            InputError,
            r"parts\[1\] \(drawn\): include: row 1 of run is in the earlier draw",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path, parts, error, told):
    with pytest.raises(error, match=told):
        mix({"parts": parts}, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    if len(parts) == 1:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("late", "told"),
    [
        ({**DRAW, "strategy": "near"}, "strategy: 'near' is unknown"),
        ({**DRAW, "alpha": 0.5}, "alpha: 0.5 says nothing to the allocation 'balanced'"),
        ({**DRAW, "weights": "absent.csv"}, "absent.csv: no such file"),
        ({**NEAR, "name": "drawn", "cosine": 1.5}, "cosine: 1.5 is not allowed"),
        (
            {"name": "drawn", "retrieve": "run", "seeds": "seeds.zarr", "per_cluster": 1, "level": 3},
            "level: 3; .* levels 1",
        ),
    ],
)
def test_options_of_all_parts_are_checked_before_any_is_computed(tmp_path, monkeypatch, late, told):
    taken = counting(monkeypatch)
    with pytest.raises(InputError, match=rf"parts\[1\] \(drawn\): .*{told}"):
        mix({"parts": [NEAR, late]}, tmp_path / "out.parquet")
    assert not taken
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "sources", "told"),
    [
        ("out.npy", ["pool"], r"out.npy: its suffix is '.npy'; a mixture is written as .parquet, .csv, .jsonl"),
        ("no/out.csv", ["pool"], "does not exist; create it first"),
        ("out.zarr", ["pool", "wide"], r"wide.zarr has 5 dims, pool.zarr has 4; write .parquet"),
        ("out.zarr", ["pool", "plain"], r"plain.zarr has none, pool.zarr has some"),
        ("out.txt", ["pool", "plain"], r"holds ids alone, and plain.zarr has none"),
    ],
)
def test_sources_must_fit_the_format(tmp_path, monkeypatch, out, sources, told):
    parts = [{"name": name, "all": f"{name}.zarr"} for name in sources]
    with pytest.raises(InputError, match=told):
        mix({"parts": parts}, tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_exclusions_are_checked(tmp_path):
    for rows, of, told in (
        ("absent.npy", "pool.zarr", r"mixture: exclude\[0\]: rows: absent.npy: no such file"),
        ([999], "pool.zarr", r"mixture: exclude\[0\]: exclude\[0\]: row 999"),
        ([1], "absent.zarr", r"mixture: exclude\[0\]: of: absent.zarr: no such file or folder \(looked for at /"),
    ):
        with pytest.raises(InputError, match=told):
            mix({"parts": [DRAW], "exclude": [{"rows": rows, "of": of}]}, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


def test_an_exclusion_that_concerns_no_part_is_told(tmp_path):
    parts = [{"name": "small", "all": "small.zarr"}]
    mixture = mix({"parts": parts, "exclude": [{"rows": [1], "of": "pool.zarr"}]}, tmp_path / "out.csv")
    assert mixture.notes == ("exclude[0]: no part takes rows of pool.zarr, so that it excludes nothing",)
    assert len(mixture) == SMALL


# -- messages ----------------------------------------------------------------------------------------------------------


def test_messages_name_no_file_of_the_work_itself(tmp_path):
    first, named = {"name": "a", "draw": "twin", "size": 200}, {**DRAW, "size": 150}
    for unwanted, part, told in (
        (None, named, "(100 rows of run that no earlier part took, each up to once)"),
        ([1], {**named, "size": 500, "repeat": True}, "(299 rows of run that are not excluded, each up to once)"),
        ([1], named, "(99 rows of run that are not excluded and that no earlier part took, each up to once)"),
        (None, {**named, "eligible": list(range(290))}, " eligible rows of run that no earlier part took, each up"),
    ):
        exclude = [] if unwanted is None else [{"rows": unwanted, "of": "pool.zarr"}]
        with pytest.raises(CapacityError) as caught:
            mix({"parts": [first, part], "exclude": exclude}, tmp_path / "out.parquet")
        assert told in str(caught.value)
        assert "among" not in str(caught.value)


def test_what_is_kept_after_an_error_is_told(tmp_path, monkeypatch):
    parts = [{"name": "a", "all": "small.zarr"}, {**DRAW, "size": 301}]
    kept = tmp_path / "out.parquet.partial"
    with pytest.raises(CapacityError, match=rf"\(parts that are done are kept in {kept}, and the same command goes on"):
        mix({"parts": parts}, tmp_path / "out.parquet")
    assert kept.is_dir()
    taken = counting(monkeypatch)
    mix({"parts": [parts[0], DRAW]}, tmp_path / "out.parquet")  # as the message says: with a mended file, too
    assert len(taken) == 1
    with pytest.raises(CapacityError) as caught:
        mix({"parts": parts[1:]}, tmp_path / "out.parquet")
    assert "kept" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize(
    ("part", "absent"),
    [
        ({**DRAW, "draw": "absent"}, "absent"),
        ({**NEAR, "retrieve": "absent/"}, "absent/"),
        ({**NEAR, "seeds": "absent.zarr"}, "absent.zarr"),
        ({**DRAW, "eligible": "absent.npy"}, "absent.npy"),
        ({**DRAW, "weights": "absent.csv"}, "absent.csv"),
    ],
)
def test_what_is_absent_was_looked_for_somewhere(made, tmp_path, part, absent):
    with pytest.raises(InputError) as caught:
        mix({"parts": [part]}, tmp_path / "out.parquet")
    where = (made / absent).absolute()
    assert f"{absent}: no such file or folder (looked for at {where}); check the path: paths are relative to" in str(
        caught.value
    )


def test_options_of_retrieval_are_called_by_their_keys(tmp_path):
    with pytest.raises(ConfigError) as caught:
        mix({"parts": [{key: NEAR[key] for key in ("name", "retrieve", "seeds")}]}, tmp_path / "out.parquet")
    assert "--" not in str(caught.value)
    assert "cosine" in str(caught.value)
    assert "per_seed" in str(caught.value)
    with pytest.raises(InputError, match="choose another --scratch"), in_part("here: "):
        raise InputError("choose another --scratch")  # no key of a part


def test_one_is_one(tmp_path):
    mixture = mix({"parts": [{"name": "a", "rows": [1], "of": "pool.zarr"}]}, tmp_path / "out.parquet")
    assert repr(mixture) == f"Mixture(1 row of 1 part, {tmp_path}/out.parquet)"
