"""Arrays in memory: NumPy of any order, Dask in any blocks, CuPy by its interface."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings.store import as_embeddings
from streamcurate.errors import DataError, InputError

VALUES = np.random.default_rng(5).standard_normal((12, 3))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy(dtype, order):
    values = np.asarray(VALUES.astype(dtype), order=order)
    embeddings = as_embeddings(values)
    expected = values.astype(np.float16 if dtype == "float16" else np.float32)
    assert embeddings.dtype == expected.dtype
    assert embeddings.dtype.isnative
    read = embeddings.read(3, 9)
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, expected[3:9])
    assert (embeddings.path, embeddings.array, embeddings.ids) == (None, None, None)
    assert embeddings.take_ids(np.array([0])) is None
    assert embeddings.description()["path"] is None


@settings(max_examples=50)
@given(
    heights=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    width=st.integers(1, 3),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    data=st.data(),
)
def test_dask(heights, width, dtype, data):
    if not sum(heights):
        heights[0] = 1
    rows = sum(heights)
    values = np.random.default_rng(rows).standard_normal((rows, 3)).astype(dtype)
    array = da.concatenate([da.from_array(part) for part in np.split(values, np.cumsum(heights)[:-1])])
    array = array.rechunk((tuple(heights), width))
    embeddings = as_embeddings(array)
    expected = values.astype(np.float16 if dtype == "float16" else np.float32)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    read = embeddings.read(start, stop)
    assert read.dtype == embeddings.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected[start:stop])
    chosen = np.array(sorted(data.draw(st.lists(st.integers(0, rows - 1), max_size=9))), dtype=np.int64)
    np.testing.assert_array_equal(embeddings.take(chosen), expected[chosen])


def test_dask_blocks_are_computed_once_for_a_run_of_reads():
    computed = []

    def block(block_id: tuple[int, ...] | None = None) -> np.ndarray:
        computed.append(block_id[0])
        return np.full((4, 2), block_id[0], dtype=np.float32)

    embeddings = as_embeddings(da.map_blocks(block, chunks=((4, 4, 4), (2,)), dtype="f4", meta=np.empty((0, 0), "f4")))
    computed.clear()
    for start in range(12):
        assert embeddings.read(start, start + 1)[0, 0] == start // 4
    assert computed == [0, 1, 2]
    embeddings.read(0, 1)
    assert computed == [0, 1, 2, 0]


def test_dask_pickles():
    embeddings = as_embeddings(da.from_array(VALUES, chunks=(5, 3)))
    embeddings.read(0, 12)
    again = pickle.loads(pickle.dumps(embeddings))
    np.testing.assert_array_equal(again.read(4, 11), VALUES[4:11].astype(np.float32))


def test_dask_of_unknown_chunks():
    array = da.from_array(VALUES)
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        as_embeddings(array[array[:, 0] > 0])


class OnDevice:
    """What a CuPy array looks like from here."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.__cuda_array_interface__ = {"shape": values.shape}

    def __array__(self) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self) -> np.ndarray:
        return self._values


def test_cupy():
    np.testing.assert_array_equal(as_embeddings(OnDevice(VALUES)).read(0, 12), VALUES.astype(np.float32))


def test_values_beyond_float32_are_refused_and_infinite_ones_kept():
    values = VALUES.copy()
    values[7, 1], values[9, 0], values[2, 2] = 1e39, -1e300, np.inf
    for array in (values, da.from_array(values, chunks=(5, 3))):
        with pytest.raises(DataError, match=r"float64 values beyond float32 \(first: row 7\)"):
            as_embeddings(array).read(0, 12)
    finite = VALUES.copy()
    finite[2, 2] = np.inf
    assert as_embeddings(finite).read(2, 3)[0, 2] == np.inf


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (VALUES[0], "1 dimensions"),
        (da.from_array(VALUES)[0], "1 dimensions"),
        (VALUES.astype(int), "holds int64"),
        (da.from_array(VALUES.astype(int)), "holds int64"),
        (VALUES[:0], "has no rows"),
        (VALUES[:, :0], "rows are empty"),
        ([[1.0, 2.0]], "list object: no embeddings"),
        (None, "NoneType object: no embeddings"),
    ],
)
def test_what_are_no_embeddings(value, message):
    with pytest.raises(InputError, match=message):
        as_embeddings(value)
