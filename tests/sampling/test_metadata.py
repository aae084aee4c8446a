"""Columns of source metadata beside drawn rows: by position and by key, into every format that takes them."""

from __future__ import annotations

import csv
import datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import ConfigError, DataError, InputError, MemoryLimitError
from streamcurate.sampling import export, formats, keyed, lines, metadata, sample, selection

ROWS = 60
IDS = np.array([f"key-{row * 7 % ROWS:03}" for row in range(ROWS)], dtype=np.dtypes.StringDType())
INTEGER_IDS = (np.arange(ROWS, dtype=np.int64) * 7 % ROWS) * 10**12


def every_type():
    """A table of a column of every kind of type, with nulls where that can be."""
    numbers = range(ROWS)

    def some(values):
        return [None if row % 5 == 0 else value for row, value in enumerate(values)]

    return pa.table(
        {
            "key": pa.array(IDS.tolist()),
            "caption": pa.array(some(f'é "{row}", {"x" * (row % 4)}' for row in numbers)),
            "large": pa.array([f"large {row}" for row in numbers], pa.large_string()),
            "bytes": pa.array(some(bytes([row]) for row in numbers)),
            "half": pa.array(np.arange(ROWS, dtype=np.float16) / 8),
            "single": pa.array(some(row / 10 for row in numbers), pa.float32()),
            "double": pa.array([float("nan") if row % 3 else row / 7 for row in numbers]),
            "small": pa.array(some(numbers), pa.int8()),
            "huge": pa.array([2**64 - 1 - row for row in numbers], pa.uint64()),
            "flag": pa.array(some(row % 2 == 0 for row in numbers)),
            "time": pa.array(some(numbers), pa.timestamp("ns", "UTC")),
            "day": pa.array([datetime.date(2000, 1, 1 + row % 28) for row in numbers]),
            "money": pa.array(some(numbers), pa.decimal128(12, 2)),
            "category": pa.array(["abc"[row % 3] for row in numbers]).dictionary_encode(),
            "tags": pa.array(some([str(tag) for tag in range(row % 4)] for row in numbers)),
            "box": pa.array(some({"x": row, "of": [{"y": row / 2}]} for row in numbers)),
            "vector": pa.array([[row, row + 1] for row in numbers], pa.list_(pa.float32(), 2)),
            "pairs": pa.array([[("a", row)] for row in numbers], pa.map_(pa.string(), pa.int64())),
        }
    )


def write_parts(folder, table, cuts, group=4):
    """The table as several files, in natural order only."""
    folder.mkdir(exist_ok=True)
    edges = [0, *cuts, len(table)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        pq.write_table(table.slice(start, stop - start), folder / f"part-{number}.parquet", row_group_size=group)
    return str(folder / "part-*.parquet")


def oracle(table, picked):
    return table.take(pa.array(picked.unique_rows))


def same(found, expected):
    assert found.schema.equals(expected.schema)
    assert found.combine_chunks().to_pydict().__repr__() == expected.combine_chunks().to_pydict().__repr__()


@pytest.fixture(autouse=True, scope="module")
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in [
            (formats, "BATCH", 5),
            (lines, "BATCH", 5),
            (selection, "BATCH", 5),
            (metadata, "_BATCH", 3),
            (metadata, "_KEYS", 6),
            (keyed, "_SMALLEST_PIECE", 5),
            (keyed, "_LARGEST_PIECE", 20),
            (keyed, "_STEP_ROWS", 3),
            (keyed, "BUCKET_LINES", 4),
            (keyed, "_PENDING_BYTES", 500),
        ]:
            patch.setattr(module, name, value)
        yield


@pytest.fixture
def picked(random_tree):
    return sample(random_tree(2, ROWS, [8, 5, 3], ids=IDS), 60, multiplier=3, seed=1)


@pytest.fixture
def pattern(tmp_path):
    return write_parts(tmp_path / "meta", every_type(), [7, 7, 30])


@pytest.mark.parametrize("key", [None, "key"])
def test_every_type_comes_through_as_it_is(picked, pattern, tmp_path, key):
    picked.save(tmp_path / "plain.parquet")
    picked.save(tmp_path / "curated.parquet", metadata=pattern, metadata_key=key)
    found, plain = pq.read_table(tmp_path / "curated.parquet"), pq.read_table(tmp_path / "plain.parquet")
    # As one file of the source's writer would come back.
    pq.write_table(oracle(every_type(), picked), tmp_path / "oracle.parquet")
    expected = pq.read_table(tmp_path / "oracle.parquet")
    assert found.column_names == plain.column_names + expected.column_names
    assert found.select(plain.column_names).equals(plain)
    same(found.select(expected.column_names), expected)


@settings(max_examples=40)
@given(data=st.data(), size=st.integers(1, 40), key=st.booleans(), seed=st.integers(0, 1000))
def test_any_draw_meets_any_cut_of_the_files(random_tree, tmp_path_factory, data, size, key, seed):
    folder = tmp_path_factory.mktemp("meta")
    ids = data.draw(st.sampled_from([IDS, INTEGER_IDS]))
    picked = sample(random_tree(seed, ROWS, [8, 3], ids=ids), size, seed=seed)
    table = pa.table({"name": pa.array(ids.tolist()), "value": np.arange(ROWS)})
    order = np.array(data.draw(st.permutations(range(ROWS)))) if key else np.arange(ROWS)
    cuts = sorted(data.draw(st.lists(st.integers(0, ROWS), max_size=4)))
    pattern = write_parts(folder / "parts", table.take(order), cuts, group=data.draw(st.integers(1, 20)))
    picked.save(folder / "a.parquet", metadata=pattern, metadata_key="name" if key else None)
    assert pq.read_table(folder / "a.parquet")["value"].to_pylist() == picked.unique_rows.tolist()
    assert not [path for path in folder.iterdir() if path.name not in ("parts", "a.parquet")]


def test_columns_come_in_the_order_asked_for(picked, pattern, tmp_path):
    for columns in ("large, caption", ["large", "caption"]):
        picked.save(tmp_path / "a.parquet", metadata=pattern, columns=columns)
        assert pq.read_table(tmp_path / "a.parquet").column_names[-2:] == ["large", "caption"]
    with pytest.raises(InputError, match="name each column once"):
        picked.save(tmp_path / "b.parquet", metadata=pattern, columns="large,large")


def test_row_groups_without_a_drawn_row_are_not_read(make_tree, tmp_path):
    table = pa.table({"value": np.arange(40), "heavy": ["x" * 1000] * 40})
    pq.write_table(table, tmp_path / "meta.parquet", row_group_size=10)
    data = bytearray((tmp_path / "meta.parquet").read_bytes())
    footer = pq.read_metadata(tmp_path / "meta.parquet")
    for group in (0, 2, 3):
        place = footer.row_group(group).column(0)
        start = place.dictionary_page_offset or place.data_page_offset
        data[start : start + place.total_compressed_size] = bytes(place.total_compressed_size)
    (tmp_path / "meta.parquet").write_bytes(data)
    picked = sample(make_tree([0] * 40), 5, eligible=np.arange(12, 17))
    picked.save(tmp_path / "a.parquet", metadata=tmp_path / "meta.parquet", columns="value")
    assert pq.read_table(tmp_path / "a.parquet")["value"].to_pylist() == [12, 13, 14, 15, 16]
    with pytest.raises(DataError, match=r"meta\.parquet: damaged"):
        sample(make_tree([0] * 40), 40).save(tmp_path / "b.parquet", metadata=tmp_path / "meta.parquet")
    assert not (tmp_path / "b.parquet").exists()


def test_csv_holds_what_text_can_hold(picked, pattern, tmp_path):
    names = ["caption", "half", "single", "small", "huge", "flag", "time", "day", "money", "category"]
    picked.save(tmp_path / "a.csv", metadata=pattern, columns=names)
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    expected = oracle(every_type(), picked).to_pydict()
    for number, line in enumerate(found):
        value = {name: expected[name][number] for name in names}
        assert line["caption"] == (value["caption"] or "")
        assert np.float16(line["half"]) == value["half"]
        assert line["single"] == ("" if value["single"] is None else str(np.float32(value["single"])))
        assert line["small"] == ("" if value["small"] is None else str(value["small"]))
        assert line["huge"] == str(value["huge"])
        assert line["flag"] == ("" if value["flag"] is None else str(value["flag"]).lower())
        assert line["day"] == str(value["day"])
        assert line["category"] == value["category"]
        assert line["money"] == ("" if value["money"] is None else str(value["money"]))
    for name in ("bytes", "tags", "box"):
        with pytest.raises(InputError, match=f"column '{name}' holds .*, which text cannot hold; leave it out"):
            picked.save(tmp_path / "b.csv", metadata=pattern, columns=[name])
    assert not (tmp_path / "b.csv").exists()


def test_txt_holds_the_one_column(picked, pattern, tmp_path):
    picked.save(tmp_path / "a.txt", metadata=pattern, columns="large")
    assert (tmp_path / "a.txt").read_text().split("\n")[:-1] == [f"large {row}" for row in picked.rows]
    with pytest.raises(DataError, match=r"a\.txt: the 'caption' of row \d+ is missing; choose another column"):
        picked.save(tmp_path / "a.txt", metadata=pattern, columns="caption")
    with pytest.raises(ConfigError, match=r"holds one column, and .* choose one with --columns"):
        picked.save(tmp_path / "a.txt", metadata=pattern)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"columns": "large"}, ConfigError, "columns: 'large' is of the metadata; name its files with --metadata"),
        ({"metadata_key": "key"}, ConfigError, "metadata-key: 'key' is of the metadata"),
        ({"metadata": "absent-*.parquet"}, InputError, "absent-.*: no file matches"),
        ({"metadata": "P", "columns": "nothing"}, InputError, "part-0.parquet: no column 'nothing'; it has 'key'"),
        ({"metadata": "P", "metadata_key": "nothing"}, InputError, "no column 'nothing'"),
        ({"metadata": "P", "metadata_key": "double"}, InputError, "'double': holds double, and ids are strings or"),
    ],
)
def test_what_cannot_be_joined(picked, pattern, tmp_path, options, error, said):
    if options.get("metadata") == "P":
        options = {**options, "metadata": pattern}
    with pytest.raises(error, match=said):
        picked.save(tmp_path / "a.parquet", **options)
    assert not list(tmp_path.glob("a.parquet*"))


@pytest.mark.parametrize("name", ["a.npy", "a.arrow", "a.zarr"])
def test_formats_without_a_place_for_metadata_say_so(picked, pattern, tmp_path, name):
    with pytest.raises(ConfigError, match=rf"{name}: has no place for metadata; write \.parquet"):
        picked.save(tmp_path / name, metadata=pattern)


def test_files_of_another_length_are_refused_with_both_numbers(picked, tmp_path):
    pattern = write_parts(tmp_path / "meta", every_type().slice(0, 59), [20])
    with pytest.raises(
        InputError, match=r"and 1 more: the metadata has 59 rows, and the tree is of 60; .*metadata-key"
    ):
        picked.save(tmp_path / "a.parquet", metadata=pattern)


@pytest.mark.parametrize("key", [None, "key"])
def test_few_rows_of_images_are_held_together(picked, tmp_path, monkeypatch, key):
    monkeypatch.setattr(metadata, "_HELD_BYTES", 14_000)
    images = [bytes([row]) * 3000 for row in range(ROWS)]
    table = pa.table({"key": IDS.tolist(), "jpg": images})
    pattern = write_parts(tmp_path / "meta", table, [20], group=10)
    held = []
    for columns in (metadata.AlignedColumns, keyed.JoinedColumns):
        take = columns.take

        def taken(self, start, stop, take=take):
            held.append(stop - start)
            return take(self, start, stop)

        monkeypatch.setattr(columns, "take", taken)
    # Statistics of such values count too, so that 3 is the most.
    for names, most in (("key", {5}), ("key,jpg", {1, 2, 3})):
        picked.save(tmp_path / "a.parquet", metadata=pattern, metadata_key=key, columns=names)
        assert max(held) in most
        held.clear()
    found = pq.read_table(tmp_path / "a.parquet")
    assert found["jpg"].to_pylist() == oracle(table, picked)["jpg"].to_pylist()
    assert found["row"].to_pylist() == picked.unique_rows.tolist()


def test_rows_dropped_by_ingest_are_told(picked, tmp_path):
    picked.tree.store.attributes = {"rows_dropped": 2}
    pattern = write_parts(tmp_path / "meta", pa.table({"url": list(map(str, range(62)))}), [20])
    with pytest.raises(InputError, match=r"has 62 rows, and the tree is of 60; 2 bad rows were dropped"):
        picked.save(tmp_path / "a.parquet", metadata=pattern)


def test_files_in_another_order_than_they_were_ingested_are_refused(picked, tmp_path):
    table = pa.table({"key": IDS.tolist()})
    pattern = write_parts(tmp_path / "meta", table, [20, 30])
    files = [str(tmp_path / "meta" / f"part-{number}.parquet") for number in (2, 0, 1)]
    given = [tmp_path / "text.npy", files[0], files[1], tmp_path / "more.npy", files[2]]
    picked.tree.store.attributes = {"sources": [{"path": str(path)} for path in given]}
    with pytest.raises(InputError, match=r"part-2\.parquet: its rows come before those of .*part-1\.parquet"):
        picked.save(tmp_path / "a.parquet", metadata=pattern)
    picked.save(tmp_path / "a.parquet", metadata=pattern, metadata_key="key")
    picked.save(tmp_path / "a.parquet", metadata=files)
    expected = pa.concat_tables([table.slice(30), table.slice(0, 20), table.slice(20, 10)])
    assert pq.read_table(tmp_path / "a.parquet")["key"].to_pylist() == oracle(expected, picked)["key"].to_pylist()
    # Ingested into two stores of the tree, so that nothing can be said.
    picked.tree.store.attributes["sources"].append({"path": files[0]})
    picked.save(tmp_path / "a.parquet", metadata=pattern)


def test_columns_called_as_our_own_are_refused(picked, tmp_path):
    table = pa.table({"id": IDS.tolist(), "copies": np.arange(ROWS), "url": IDS.tolist()})
    pattern = write_parts(tmp_path / "meta", table, [])
    with pytest.raises(InputError, match=r"columns 'id', 'copies' would stand .* name the others: --columns url"):
        picked.save(tmp_path / "a.parquet", metadata=pattern)
    picked.save(tmp_path / "a.parquet", metadata=pattern, columns="url", metadata_key="id")
    with pytest.raises(InputError, match=r"'copies' would stand .* rename them in the files"):
        picked.save(tmp_path / "a.parquet", metadata=pattern, columns="copies")


def test_files_of_other_columns_or_types_are_refused(picked, tmp_path):
    (tmp_path / "meta").mkdir()
    for number, table in enumerate([{"a": [1], "b": ["x"]}, {"a": [1.5], "b": ["x"]}, {"a": [1], "c": ["x"]}]):
        pq.write_table(pa.table(table), tmp_path / "meta" / f"{number}.parquet")
    files = [str(tmp_path / "meta" / f"{number}.parquet") for number in range(3)]
    with pytest.raises(InputError, match=r"1\.parquet: column 'a' is double, and int64 in .*0\.parquet; leave"):
        export.make_options(metadata=files[:2])
    with pytest.raises(InputError, match=r"2\.parquet: column 'b' is absent, and string in"):
        export.make_options(metadata=[files[0], files[2]])
    assert export.make_options(metadata=files[:2], columns="b").metadata.rows == 2


def test_a_file_that_promises_no_nulls_may_stand_beside_one_that_does_not(make_tree, tmp_path):
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False, metadata={"note": "x"})])
    pq.write_table(pa.table({"a": [1, 2]}, schema=schema), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": pa.array([None, 4], pa.int64())}), tmp_path / "1.parquet")
    picked = sample(make_tree([0] * 4), 4)
    picked.save(tmp_path / "a.parquet", metadata=str(tmp_path / "[01].parquet"))
    assert pq.read_table(tmp_path / "a.parquet")["a"].to_pylist() == [1, 2, None, 4]


def test_rows_of_one_id_share_its_line(make_tree, tmp_path):
    picked = sample(make_tree([0] * 5, ids=np.array(["a", "b", "a", "c", "a"], dtype=np.dtypes.StringDType())), 5)
    pq.write_table(pa.table({"key": ["c", "a", "b"], "value": [3, 1, 2]}), tmp_path / "meta.parquet")
    picked.save(tmp_path / "a.parquet", metadata=tmp_path / "meta.parquet", metadata_key="key")
    assert pq.read_table(tmp_path / "a.parquet")["value"].to_pylist() == [1, 2, 1, 3, 1]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["a", "b", None, "x"], r'id "c" has no line with that in column .key.; name all metadata files'),
        (["b", None, "x", "y"], r'id "a" and 1 more drawn ids have no line'),
        (["a", "b", "c", "a"], r'meta\.parquet: "a" comes more than once in column .key.'),
    ],
)
def test_ids_without_a_line_or_with_two_are_named(make_tree, tmp_path, keys, said):
    picked = sample(make_tree([0] * 3, ids=np.array(["a", "b", "c"], dtype=np.dtypes.StringDType())), 3)
    pq.write_table(pa.table({"key": keys}), tmp_path / "meta.parquet")
    with pytest.raises(DataError, match=said):
        picked.save(tmp_path / "a.parquet", metadata=tmp_path / "meta.parquet", metadata_key="key", scratch=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["meta.parquet"]


def test_a_join_that_does_not_fit_is_refused_with_the_numbers(make_tree, tmp_path):
    picked = sample(make_tree([0] * 3, ids=INTEGER_IDS[:3]), 3)
    pq.write_table(pa.table({"key": INTEGER_IDS[:3]}), tmp_path / "meta.parquet")
    options = {"metadata": tmp_path / "meta.parquet", "metadata_key": "key", "memory_limit": "512MiB"}
    picked.save(tmp_path / "a.parquet", **options)
    many = np.arange(10**6)
    large = selection.Selection(many, np.ones_like(many), "random", 1, 0, picked.tree)
    with pytest.raises(
        MemoryLimitError, match=r"b\.parquet: joining 1,000,000 rows by 'key' needs 382 MiB .* by position"
    ):
        large.save(tmp_path / "b.parquet", **options)


def test_scratch_that_does_not_exist(picked, pattern, tmp_path):
    with pytest.raises(InputError, match=r"absent: no folder for scratch can be made .*; choose another"):
        picked.save(tmp_path / "a.parquet", metadata=pattern, metadata_key="key", scratch=tmp_path / "absent")
    assert not (tmp_path / "a.parquet").exists()


def test_a_store_without_ids_cannot_be_joined_by_key(make_tree, tmp_path):
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "meta.parquet")
    with pytest.raises(InputError, match=r"'key' cannot be matched: the store has no ids; leave --metadata-key out"):
        sample(make_tree([0]), 1).save(tmp_path / "a.parquet", metadata=tmp_path / "meta.parquet", metadata_key="key")
