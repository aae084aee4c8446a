"""Subsets: row numbers in any order, or a mask, in memory or in a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings import subset
from streamcurate.embeddings.subset import read_subset
from streamcurate.errors import DataError, InputError

MEMORY = 1 << 20


@settings(max_examples=40)
@given(
    rows=st.integers(1, 60),
    data=st.data(),
    form=st.sampled_from(["int64", "int32", "uint8", "uint64", ">i8", "bool"]),
    from_file=st.booleans(),
    piece=st.integers(1, 20),
    chunk=st.integers(1, 20),
)
def test_any_form_of_the_same_subset(tmp_path_factory, rows, data, form, from_file, piece, chunk):
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, unique=True))
    mask = np.zeros(rows, dtype=bool)
    mask[chosen] = True
    value = mask if form == "bool" else np.array(chosen, dtype=form)
    folder = tmp_path_factory.mktemp("subset")
    if from_file:
        np.save(folder / "rows.npy", value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset, "_PIECE", piece)
        patch.setattr(subset, "_MASK_CHUNK_ROWS", chunk)
        made = read_subset(folder / "rows.npy" if from_file else value, rows, folder / "scratch", MEMORY)
        assert made.mask.read(0, rows).tolist() == mask.astype(int).tolist()
    assert made.rows == len(chosen)
    same = read_subset(np.flatnonzero(mask), rows, folder / "scratch", MEMORY)
    assert made.digest == same.digest


def test_other_subsets_have_other_digests(tmp_path):
    first, second = (read_subset(np.array(rows), 9, tmp_path, MEMORY).digest for rows in ([1, 5], [1, 6]))
    assert first != second


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([3, 9], "row 9 is not among the 9 rows"),
        ([-1, 3], "row -1 is not among"),
        ([3, 5, 3], "names row 3 more than once"),
        ([], "names no row"),
        ([False] * 9, "names no row"),
        ([True] * 8, "a mask of 8 entries for 9 rows"),
        ([0.5], "holds float64"),
        ([[1], [2]], r"of shape \(2, 1\)"),
    ],
)
def test_what_is_no_subset(tmp_path, value, message):
    array = np.array(value, dtype=np.int64 if value == [] else None)
    np.save(tmp_path / "rows.npy", array)
    for chosen in (array, tmp_path / "rows.npy"):
        with pytest.raises((InputError, DataError), match=message):
            read_subset(chosen, 9, tmp_path / "scratch", MEMORY)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_subset(tmp_path / "absent.npy", 9, tmp_path, MEMORY)
    (tmp_path / "x.npy").write_bytes(b"1\n2\n")
    with pytest.raises(InputError, match=r"not a readable \.npy file"):
        read_subset(tmp_path / "x.npy", 9, tmp_path, MEMORY)
    np.save(tmp_path / "y.npy", np.arange(9))
    data = (tmp_path / "y.npy").read_bytes()
    (tmp_path / "y.npy").write_bytes(data[:-8])
    with pytest.raises(InputError, match="truncated"):
        read_subset(tmp_path / "y.npy", 9, tmp_path, MEMORY)
