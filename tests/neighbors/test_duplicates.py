"""The folder that tells of duplicates."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash

from streamcurate.errors import InputError, StoreError
from streamcurate.neighbors import duplicate_files
from streamcurate.neighbors.duplicate_files import write_rows, write_skipped
from streamcurate.neighbors.duplicates import open_duplicates, summary_of_sizes, write_summary
from streamcurate.neighbors.pairs.keep import Component, Counts, Marked
from streamcurate.neighbors.pairs.plan import SKIPPED, SkippedPairs
from streamcurate.storage import create_array

ROWS = 100
GROUPS = {0: 0, 40: 0, 41: 0, 60: 60, 99: 60}
KEPT = {40, 60}
SIZES = {0: 3, 60: 2}


def ids(rows: np.ndarray) -> np.ndarray:
    return np.array([f"img_{row}" for row in rows], dtype=object)


def marked(step: int) -> Iterator[Marked]:
    for first in range(0, ROWS, step):
        last = min(first + step, ROWS)
        rows = np.array([row for row in GROUPS if first <= row < last], dtype=np.int64)
        groups = np.array([GROUPS[row] for row in rows.tolist()], dtype=np.int64)
        sizes = np.array([SIZES[group] for group in groups.tolist()], dtype=np.int64)
        yield Marked(first, last, rows, groups, sizes, np.array([row in KEPT for row in rows.tolist()], dtype=bool))


COUNTS = Counts({2: 1, 3: 1}, [Component(0, 3, 40), Component(60, 2, 60)])
REST = {
    "rows": ROWS, "kept": ROWS - 3, "removed": 3, "metric": "cosine", "threshold": 0.9, "keep": "closest",
    "pairs": {"possible": 4950, "covered": 20}, "cells": {"joined": 3, "pruned": 2, "skipped": 0},
    "warnings": ["beware"], "identity": {}, "fingerprint": "f", "stamps": None,
}  # fmt: skip


def made(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    write_rows(folder, marked(30), ROWS, None, ids)
    write_summary(folder, REST | summary_of_sizes(COUNTS, ids) | changes)
    return folder


@pytest.mark.parametrize("step", [1, 30, 1000])
def test_mask_and_lines(step, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicate_files, "_GROUP", 2)
    assert write_rows(tmp_path, marked(step), ROWS, None, ids) == (ROWS - 3, 3)
    mask = np.load(tmp_path / "keep.npy")
    assert mask.dtype == bool
    assert np.flatnonzero(~mask).tolist() == [0, 41, 99]
    table = pq.read_table(tmp_path / "duplicates.parquet")
    assert table.to_pylist() == [
        {"row": row, "id": f"img_{row}", "component": group, "size": SIZES[group], "kept": row in KEPT}
        for row, group in GROUPS.items()
    ]
    removed = np.load(tmp_path / "removed.npy")
    assert removed.dtype == np.int64
    assert removed.tolist() == [0, 41, 99]
    assert sorted(os.listdir(tmp_path)) == ["duplicates.parquet", "keep.npy", "removed.npy"]


def test_the_files_do_not_depend_on_the_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicate_files, "_GROUP", 2)
    content = set()
    for step in (1, 7, 41, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        write_rows(folder, marked(step), ROWS, None, ids)
        content.add(tuple((folder / name).read_bytes() for name in sorted(os.listdir(folder))))
    assert len(content) == 1
    assert pq.ParquetFile(folder / "duplicates.parquet").num_row_groups == 3


def test_rows_outside_the_subset_are_not_kept(tmp_path):
    labels = create_array(tmp_path / "labels", (ROWS,), np.int32, 16)
    values = np.where(np.arange(ROWS) % 7 == 3, -1, 5).astype(np.int32)
    labels.write(0, values)
    kept, removed = write_rows(tmp_path, marked(30), ROWS, labels, None)
    mask = np.load(tmp_path / "keep.npy")
    wanted = (values >= 0) & ~np.isin(np.arange(ROWS), [0, 41, 99])
    np.testing.assert_array_equal(mask, wanted)
    assert np.load(tmp_path / "removed.npy").tolist() == [0, 41, 99]  # and none of those that were not looked at
    assert (kept, removed) == (wanted.sum(), 3)
    assert pq.read_table(tmp_path / "duplicates.parquet").column_names == ["row", "component", "size", "kept"]


@pytest.mark.parametrize("numbers", [True, False])
def test_without_duplicates_the_table_is_empty(numbers, tmp_path):
    none = np.empty(0, dtype=np.int64)
    nothing = iter([Marked(0, 10, none, none, none, none.astype(bool))])
    take = (lambda rows: rows) if numbers else ids
    assert write_rows(tmp_path, nothing, 10, None, take) == (10, 0)
    assert np.load(tmp_path / "keep.npy").all()
    assert np.load(tmp_path / "removed.npy").shape == (0,)
    assert pq.read_table(tmp_path / "duplicates.parquet").num_rows == 0


def test_opened_again(tmp_path):
    found = open_duplicates(made(tmp_path / "out"))
    assert (found.rows, found.kept, found.removed, found.components) == (100, 97, 3, 2)
    assert found.sizes == {2: 1, 3: 1}
    assert [(one.component, one.size, one.kept, one.id) for one in found.largest] == [
        (0, 3, 40, "img_40"),
        (60, 2, 60, "img_60"),
    ]
    assert (found.metric, found.threshold, found.keep, found.warnings) == ("cosine", 0.9, "closest", ("beware",))
    assert np.concatenate(list(found.rows_kept())).tolist() == [row for row in range(100) if row not in (0, 41, 99)]
    assert os.fspath(found) == found.mask == str(tmp_path / "out" / "keep.npy")
    assert np.load(found.removed_rows).tolist() == [0, 41, 99]
    assert repr(found) == f"Duplicates('{tmp_path / 'out'}': 97 of 100 rows kept, 3 removed, 2 components)"
    assert found.told() == [
        "100 rows: 97 kept, 3 removed as duplicates of those (3.0 %)",
        "2 components: 1 of 2, 1 of 3 rows",
        'the largest, 3 rows, keeps row 40 (id "img_40")',
        "no duplicate is missed: 0.4 % of all pairs of rows were compared, bounds prove all others farther apart",
        "keep.npy is a mask of the rows that are kept, removed.npy lists those removed, duplicates.parquet tells which "
        "belong together",
    ]
    assert open_duplicates(found).summary == found.summary


def test_what_tells_nothing_is_not_told(tmp_path):
    pairs = {"possible": 4950, "covered": 4950}
    largest = [{"component": 0, "size": 2, "kept": 40, "id": None}]
    told = open_duplicates(made(tmp_path / "out", sizes=[[2, 2]], largest=largest, pairs=pairs)).told()
    assert told[1] == "2 components: 2 of 2 rows"
    assert told[2] == "no duplicate is missed: 100.0 % of all pairs of rows were compared"
    assert told[3].startswith("keep.npy is")


def test_sizes_are_told_in_ranges(tmp_path):
    sizes = [[2, 9], [3, 8], [4, 1], [7, 1], [8, 1], [1000, 2]]
    found = open_duplicates(made(tmp_path / "out", sizes=sizes, components=22))
    assert found.told()[1] == "22 components: 9 of 2, 8 of 3, 2 of 4-7, 1 of 8-15, 2 of 512-1,023 rows"


def test_what_was_skipped_has_lines_and_makes_the_result_incomplete(tmp_path):
    folder = made(tmp_path / "out", cells={"joined": 3, "pruned": 0, "skipped": 3})
    records = np.zeros(3, dtype=SKIPPED)
    records["low"], records["high"], records["rows_low"], records["rows_high"] = [1, 2, 3], [4, 5, 9], 30, [6, 7, 8]
    records["example_low"], records["example_high"], records["least"] = 11, [41, 51, 91], 0.25
    path = tmp_path / "skipped"
    records.tofile(path)
    pairs = SkippedPairs(str(path), 3, xxhash.xxh3_128_hexdigest(records.tobytes()))
    write_skipped(folder, pairs)
    assert pq.read_table(folder / "skipped.parquet").to_pydict() == {
        "cell_a": [1, 2, 3], "cell_b": [4, 5, 9], "rows_a": [30] * 3, "rows_b": [6, 7, 8], "row_a": [11] * 3,
        "row_b": [41, 51, 91], "least": [0.25] * 3,
    }  # fmt: skip
    found = open_duplicates(folder)
    assert not found.complete
    assert repr(found).endswith("2 components, not all that are possible were compared)")
    assert found.told()[-2] == (
        "0.4 % of all pairs of rows were compared; 3 pairs of cells that may hold duplicates were not "
        "(skipped.parquet), bounds prove all others farther apart"
    )
    write_skipped(folder, None)
    assert sorted(os.listdir(folder)) == ["dedup.json", "duplicates.parquet", "keep.npy", "removed.npy"]


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="no such folder; check the path"):
        open_duplicates(tmp_path / "gone")
    (tmp_path / "half.partial").mkdir()
    with pytest.raises(InputError, match=r"half: this dedup is unfinished .*give the same dedup command again"):
        open_duplicates(tmp_path / "half")
    with pytest.raises(InputError, match=r"holds no dedup\.json"):
        open_duplicates(tmp_path)
    folder = made(tmp_path / "out")
    for name in ("keep.npy", "removed.npy"):
        (folder / name).rename(folder / "elsewhere")
        with pytest.raises(StoreError, match=rf"{name}: is missing"):
            open_duplicates(folder)
        (folder / "elsewhere").rename(folder / name)
    whole = json.loads((folder / "dedup.json").read_text())
    short = {name: value for name, value in whole.items() if name != "largest"}
    for content, said in (
        ("{", ""),
        ("[]", ""),
        (json.dumps(whole | {"kind": "labels"}), "kind is 'labels' of format 1"),
        (json.dumps(whole | {"format": 2}), "kind is 'dedup' of format 2"),
        (json.dumps(short), "'largest' is missing"),
    ):
        (folder / "dedup.json").write_text(content)
        with pytest.raises(StoreError, match=rf"dedup\.json: unreadable \(.*{said}"):
            open_duplicates(folder)
