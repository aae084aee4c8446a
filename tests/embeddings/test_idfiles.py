"""Files of ids: all formats, from any row on, as many as rows."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings.sources import idfiles
from streamcurate.embeddings.sources.idfiles import IdsStream, open_ids
from streamcurate.errors import DataError, InputError

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(
    lambda text: text[0] != "\ufeff"
)


def write(path, ids, kind) -> str:
    target = str(path / f"ids.{kind.split()[0]}")
    if kind == "txt":
        (path / "ids.txt").write_text("".join(f"{one}\n" for one in ids), newline="")
    elif kind == "txt crlf":
        (path / "ids.txt").write_text("\r\n".join(map(str, ids)), newline="")
    elif kind == "npy":
        np.save(target, np.array(ids))
    elif kind == "npy bytes":
        np.save(target, np.array([str(one).encode() for one in ids]))
    elif kind == "parquet":
        pq.write_table(pa.table({"name": ids}), target, row_group_size=3)
    else:
        with open(target, "w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([["name"]] * (kind == "csv header"))
            writer.writerows([[one] for one in ids])
    return target


def read(ids, start, pieces) -> list:
    stream, out, left = IdsStream(ids, start), [], ids.count() - start
    while left:
        count = min(pieces, left)
        piece = stream.next(count)
        assert len(piece) == count
        out += piece.tolist()
        left -= count
    return out


@settings(max_examples=60)
@given(
    ids=st.one_of(
        st.lists(TEXTS, min_size=1, max_size=20), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)
    ),
    kind=st.sampled_from(["txt", "txt crlf", "npy", "npy bytes", "parquet", "csv", "csv header"]),
    batch=st.integers(1, 8),
    pieces=st.integers(1, 8),
    data=st.data(),
)
def test_round_trip(tmp_path_factory, ids, kind, batch, pieces, data):
    path = write(tmp_path_factory.mktemp("ids"), ids, kind)
    start = data.draw(st.integers(0, len(ids)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idfiles, "_BATCH", batch)
        opened = open_ids(path, len(ids))
        got = read(opened, start, pieces)
    # Text formats do not tell numbers from strings: 007 must not become 7.
    typed = kind in ("npy", "parquet")
    # NumPy's own strings end before trailing zeros, and its bytes likewise; neither occurs in these texts.
    assert got == [one if typed else str(one) for one in ids][start:]
    assert opened.dtype.kind == ("i" if typed and isinstance(ids[0], int) else "T")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ids.txt", b"a\nb\n", "holds 2 ids, and the sources hold 3 rows"),
        ("ids.txt", b"a\nb\nc\nd\n", "holds 4 ids"),
        ("ids.csv", b"h\na\nb\nc\nd\n", "holds 5 ids"),
        ("ids.csv", b"a,b\nc,d\ne,f\n", "not a CSV file of a single column"),
        # As many lines as rows, and a header among them.
        ("ids.csv", b"id\na\n\nc\n", "1 of its lines are empty"),
        ("ids.csv", b"a\nb\nc\n\n\n", "2 of its lines are empty"),
        ("ids.csv", b"11\n12\n13\n14\n", "holds 4 ids, of which the first, 11, is no name of a column, for 3 rows"),
        ("ids.json", b"[]", r"files of ids are \.txt, \.npy, \.parquet, \.csv, not \.json"),
        ("ids.npy", b"x", "not an NPY file"),
        ("absent.txt", None, "no such file of ids"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_ids(str(tmp_path / name), 3)


def test_other_arrays_and_columns(tmp_path):
    for values, message in ((np.zeros((3, 1), int), r"shape \(3, 1\)"), (np.zeros(3), "of float64")):
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(InputError, match=message):
            open_ids(str(tmp_path / "x.npy"), 3)
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"single column; this one has 'a', 'b'; name one .*x\.parquet:COLUMN'"):
        open_ids(str(tmp_path / "x.parquet"), 1)
    assert read(open_ids(str(tmp_path / "x.parquet"), 1, "b"), 0, 1) == [2]
    with pytest.raises(InputError, match="no column 'c'; it has 'a', 'b'"):
        open_ids(str(tmp_path / "x.parquet"), 1, "c")
    (tmp_path / "x.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"has no columns, only Parquet has; leave out ':c'"):
        open_ids(str(tmp_path / "x.txt"), 1, "c")


def test_empty_ids_and_headers_of_pandas_in_csv(tmp_path):
    for text, expected in (('id\na\n""\nc\n', ["a", "", "c"]), ("0\n11\n12\n13\n", ["11", "12", "13"])):
        (tmp_path / "x.csv").write_text(text)
        assert read(open_ids(str(tmp_path / "x.csv"), 3), 0, 3) == expected


def test_bfloat16_is_no_integer(tmp_path):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<V2", "fortran_order": False, "shape": (3,)})
        file.write(b"\x80\x3f" * 3)
    with pytest.raises(InputError, match=r"shape \(3,\) of bfloat16; ids are strings or integers"):
        open_ids(str(tmp_path / "x.npy"), 3)


def test_a_damaged_column_is_said_to_be(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"id": [f"name-{row:08d}" for row in range(4000)]})
    pq.write_table(table, path, use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.parquet: damaged"):
        read(open_ids(str(path), 4000), 0, 4000)


def test_ids_that_cannot_be_used(tmp_path):
    np.save(tmp_path / "x.npy", np.array([1, 2**63], np.uint64))
    with pytest.raises(DataError, match="beyond 64-bit"):
        read(open_ids(str(tmp_path / "x.npy"), 2), 0, 2)
    pq.write_table(pa.table({"a": pa.array(["x", None])}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="row 1 has no id"):
        read(open_ids(str(tmp_path / "x.parquet"), 2), 0, 2)
    np.save(tmp_path / "x.npy", np.array([b"x", b"\xff"]))
    with pytest.raises(DataError, match="not UTF-8"):
        read(open_ids(str(tmp_path / "x.npy"), 2), 0, 2)
    (tmp_path / "x.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        read(open_ids(str(tmp_path / "x.txt"), 2), 0, 2)


@pytest.mark.parametrize("kind", ["txt", "npy", "parquet", "csv", "csv header"])
def test_no_ids_for_no_rows(tmp_path, kind):
    ids = np.array([], dtype=str) if kind == "npy" else pa.array([], pa.string()) if kind == "parquet" else []
    assert read(open_ids(write(tmp_path, ids, kind), 0), 0, 1) == []


def test_long_strings_come_in_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(idfiles, "_BATCH_BYTES", 8000)
    np.save(tmp_path / "x.npy", np.array([str(number).rjust(1000) for number in range(7)]))
    opened = open_ids(str(tmp_path / "x.npy"), 7)
    assert [len(batch) for batch in opened.batches(0)] == [2, 2, 2, 1]
    assert read(opened, 3, 2) == [str(number).rjust(1000) for number in range(3, 7)]


def test_cut_short_while_being_read(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("a\nb\n")
    opened = open_ids(str(path), 2)
    path.write_text("a\n")
    with pytest.raises(DataError, match="cut short"):
        IdsStream(opened, 0).next(2)
