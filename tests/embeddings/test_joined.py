"""Several stores read as one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from frozen_trees import store_of
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.embeddings import as_embeddings, open_embeddings
from streamcurate.embeddings.joined import JoinedIds, join_embeddings
from streamcurate.errors import InputError

COUNTS = (70, 1, 33)


def values(dtypes=(np.float16, np.float32, np.float16)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((count, 3)).astype(dtype) for count, dtype in zip(COUNTS, dtypes, strict=True)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    place = tmp_path_factory.mktemp("stores")
    return [
        open_embeddings(store_of(place / f"{number}.zarr", part, np.arange(len(part)) + 1000 * number, 16))
        for number, part in enumerate(values())
    ]


@given(st.integers(0, 104), st.integers(0, 104), st.lists(st.integers(0, 103), max_size=40))
def test_reads_across_the_seams(parts, one, other, rows):
    joined = join_embeddings(parts)
    whole = np.concatenate(values()).astype(np.float32)
    start, stop = sorted((one, other))
    found = joined.read(start, stop)
    np.testing.assert_array_equal(found, whole[start:stop])
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    ascending = np.unique(np.array(rows, dtype=np.int64))
    np.testing.assert_array_equal(joined.take(ascending), whole[ascending])
    ids = np.concatenate([np.arange(count) + 1000 * number for number, count in enumerate(COUNTS)])
    np.testing.assert_array_equal(joined.take_ids(np.array(rows, dtype=np.int64)), ids[np.array(rows, dtype=np.int64)])
    np.testing.assert_array_equal(joined.ids.read(start, stop), ids[start:stop])


def test_is_like_one_store(parts):
    joined = join_embeddings(parts)
    assert (joined.rows, joined.dims, joined.dtype, joined.travels) == (104, 3, np.float32, True)
    assert joined.path is None
    assert joined.name.count(" + ") == 2
    np.testing.assert_array_equal(np.asarray(joined), np.concatenate(values()).astype(np.float32))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(joined)).read(60, 80), joined.read(60, 80))
    assert isinstance(joined.ids, JoinedIds)
    assert (joined.ids[69], joined.ids[70], joined.ids[-1], len(joined.ids)) == (69, 1000, 2032, 104)
    np.testing.assert_array_equal(joined.ids[68:72], [68, 69, 1000, 2000])
    assert join_embeddings(parts[::2]).dtype == np.float16
    for rows in ([-1], [104]):
        with pytest.raises(IndexError):
            joined.take(np.array(rows))
    with pytest.raises(IndexError):
        joined.ids[104]
    with pytest.raises(TypeError):
        joined.ids[::2]
    with pytest.raises(IndexError):
        joined.read(0, 105)


def test_chunks_of_ids_are_those_of_the_parts(parts):
    ids = join_embeddings(parts).ids
    arrays = [part.ids for part in parts]
    assert ids.stamps() == [stamp for array in arrays for stamp in array.stamps()]
    assert len(ids.stamps()) == 5 + 1 + 3
    expected = [array.stored_digest(chunk) for array in arrays for chunk in range(len(array.stamps()))]
    assert [ids.stored_digest(chunk) for chunk in range(9)] == expected
    with pytest.raises(IndexError):
        ids.stored_digest(9)


def test_strings_stay_strings(tmp_path):
    names = [np.array([f"{letter}{row}" for row in range(40)], dtype=object) for letter in "äb"]
    stores = [store_of(tmp_path / f"{at}.zarr", np.ones((40, 2), np.float32), own, 16) for at, own in enumerate(names)]
    joined = join_embeddings([open_embeddings(store) for store in stores])
    rows = np.array([79, 0, 40, 39, 0])
    found = joined.take_ids(rows)
    np.testing.assert_array_equal(found, np.concatenate(names)[rows])
    assert all(type(one) is str for one in found)
    assert joined.ids[38:42].tolist() == ["ä38", "ä39", "b0", "b1"]


def test_without_ids(parts):
    plain = [as_embeddings(part) for part in values()]
    joined = join_embeddings(plain)
    assert joined.ids is None
    assert joined.take_ids(np.array([3])) is None
    assert not joined.travels
    np.testing.assert_array_equal(joined.read(60, 80), np.concatenate(values())[60:80])


def test_what_does_not_belong_together(parts, tmp_path):
    with pytest.raises(InputError, match=r"has 2 dims, .*0.zarr has 3; give"):
        join_embeddings([parts[0], as_embeddings(np.ones((5, 2), np.float32))])
    with pytest.raises(InputError, match=r"has no ids, .*0.zarr has ids that are integers; .*\(--ids\)"):
        join_embeddings([parts[0], as_embeddings(np.ones((5, 3), np.float32))])
    named = store_of(tmp_path / "n.zarr", np.ones((2, 3), np.float32), np.array(["a", "b"], dtype=object))
    with pytest.raises(InputError, match=r"n.zarr: has ids that are strings, .*1.zarr has ids that are integers"):
        join_embeddings([parts[1], open_embeddings(named)])
