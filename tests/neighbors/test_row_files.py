"""Lists of rows as files: the same bytes however they come, and whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from frozen_trees import store_of

from streamcurate.embeddings.rowlist import open_list
from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings
from streamcurate.errors import DataError, InputError
from streamcurate.neighbors import row_files
from streamcurate.neighbors.excluded import Excluded
from streamcurate.neighbors.row_files import Columns, Near, check_destination, write_near, write_row_mask, write_rows

ROWS = np.arange(3, 500, 3)


@pytest.fixture
def source(tmp_path) -> Embeddings:
    return open_embeddings(store_of(tmp_path / "rows.zarr", np.ones((500, 2), np.float32), np.arange(500) * 7))


def near(step: int) -> Iterator[Near]:
    for start in range(0, len(ROWS), step):
        rows = ROWS[start : start + step]
        yield Near(rows, rows % 10, (rows / 3).astype(np.float32))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npy", ".txt"])
def test_pieces_leave_no_trace(source, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "_BATCH", 32)
    columns = Columns(source, as_embeddings(np.ones((10, 2), np.float32)), "seed")
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    for write in ("near", "rows"):
        for place, step in ((one, 1000), (two, 7)):
            if write == "near":
                write_near(place, near(step), len(ROWS), columns)
            else:
                write_rows(place, (piece.rows for piece in near(step)), len(ROWS), source)
        assert one.read_bytes() == two.read_bytes()
        listed = open_list(one, True)
        found = np.concatenate([np.asarray(piece) for piece in listed.pieces()])
        np.testing.assert_array_equal(found.astype(np.int64), ROWS * 7 if suffix == ".txt" else ROWS)


def test_a_mask(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, 100).astype(bool)
    rows = np.flatnonzero(mask)
    write_row_mask(tmp_path / "mask.npy", iter((rows[:30], rows[30:])), len(rows), 100)
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), mask)
    assert open_list(tmp_path / "mask.npy", False).kind == "mask"


def test_text_holds_no_line_break(tmp_path):
    names = np.array(["a", "b\nc", "d"])
    source = open_embeddings(store_of(tmp_path / "rows.zarr", np.ones((3, 2), np.float32), names))
    with pytest.raises(DataError, match=r"the id of row 1 contains a line break \('b\\nc'\).* write .parquet"):
        write_rows(tmp_path / "rows.txt", iter([np.arange(3)]), 3, source)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.zarr"]
    write_rows(tmp_path / "rows.parquet", iter([np.arange(3)]), 3, source)
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet")["id"].to_pylist() == names.tolist()


def test_an_interrupted_write_leaves_what_was_there(source, tmp_path):
    place = tmp_path / "near.npy"
    place.write_bytes(b"before")

    def broken() -> Iterator[np.ndarray]:
        yield ROWS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(place, broken(), len(ROWS), source)
    assert place.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["near.npy", "rows.zarr"]


def test_places_that_cannot_be(tmp_path):
    assert check_destination(tmp_path / "x.PARQUET") == ".parquet"
    assert check_destination("s3://bucket/x.csv") == ".csv"
    (tmp_path / "folder.npy").mkdir()
    for place, text in (
        (tmp_path / "x", "it has no suffix; a list of rows is written as .parquet, .csv, .npy, .txt"),
        (tmp_path / "x.zarr", "its suffix is '.zarr'"),
        (tmp_path / "folder.npy", "a folder lies there"),
        (tmp_path / "gone" / "x.npy", "does not exist; create it first"),
        (Path("http://host/x.npy").as_posix().replace(":/", "://"), "a web server cannot be written to"),
    ):
        with pytest.raises(InputError, match=text):
            check_destination(place)
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="no permission"):
            check_destination(tmp_path / "x.npy")
        tmp_path.chmod(0o700)


def test_what_is_left():
    left = Excluded(2, 1, 3, _mask=np.array([True, False, True]))
    assert left.unique_rows.tolist() == [0, 2]
    assert repr(left) == "Excluded(2 of 3 rows kept, 1 removed)"
    written = Excluded(2, 1, 3, "kept.npy", "removed.csv")
    assert repr(written) == "Excluded(2 of 3 rows kept, 1 removed, 'kept.npy')"
    with pytest.raises(InputError, match=r"because files were asked for; read kept.npy"):
        _ = written.mask
