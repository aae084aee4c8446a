"""Opening embeddings in place, whatever Zarr they are in, and everything that is none."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings
from streamcurate.errors import InputError, StoreError
from streamcurate.storage import update_group_attributes

VALUES = np.random.default_rng(3).standard_normal((11, 4)).astype(np.float32)
NAMES = [f"img_{i}" for i in range(11)]


def make(path, values=VALUES, ids=None, name="embeddings", zarr_format=3, **more):
    group = zarr.create_group(path, zarr_format=zarr_format)
    arrays = {name: values, **more} | ({} if ids is None else {"ids": np.array(ids)})
    for key, value in arrays.items():
        dtype = str if value.dtype.kind == "U" else value.dtype
        array = group.create_array(key, shape=value.shape, dtype=dtype, chunks=(3, *value.shape[1:]))
        array[...] = value
    return str(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("ids", [None, NAMES, list(range(100, 111))])
def test_a_group_is_used_in_place(tmp_path, zarr_format, ids):
    path = make(tmp_path / "e.zarr", ids=ids, zarr_format=zarr_format)
    embeddings = open_embeddings(path)
    assert (embeddings.rows, embeddings.dims, embeddings.dtype, embeddings.chunk_rows) == (11, 4, np.float32, 3)
    assert (embeddings.path, embeddings.name) == (path, path)
    np.testing.assert_array_equal(embeddings.read(2, 9), VALUES[2:9])
    rows = np.array([0, 5, 10])
    np.testing.assert_array_equal(embeddings.take(rows), VALUES[rows])
    taken = embeddings.take_ids(np.array([7, 2, 7, 0]))
    if ids is None:
        assert taken is None
        assert embeddings.ids is None
    else:
        assert taken.tolist() == [ids[7], ids[2], ids[7], ids[0]]
    assert embeddings.description() == {"path": path, "rows": 11, "dims": 4, "dtype": "float32"}
    assert embeddings.fingerprint is None


def test_an_array_is_used_in_place_with_the_ids_beside_it(tmp_path):
    path = make(tmp_path / "e.zarr", ids=NAMES, name="other")
    embeddings = open_embeddings(path + "/other")
    np.testing.assert_array_equal(embeddings.read(0, 11), VALUES)
    assert embeddings.take_ids(np.array([4])).tolist() == ["img_4"]
    alone = zarr.create_array(tmp_path / "alone", shape=VALUES.shape, dtype="f2", chunks=(2, 2), zarr_format=2)
    alone[...] = VALUES
    assert open_embeddings(tmp_path / "alone").dtype == np.float16
    assert open_embeddings(tmp_path / "alone").ids is None


def test_fixed_length_strings_are_ids(tmp_path):
    path = make(tmp_path / "e.zarr", zarr_format=2)
    for dtype in (">U6", "S6"):
        ids = zarr.create_array(tmp_path / "e.zarr" / "ids", shape=(11,), dtype=dtype, zarr_format=2, overwrite=True)
        ids[...] = np.array(NAMES, dtype=dtype)
        taken = open_embeddings(path).take_ids(np.array([10, 3]))
        if taken is None:
            assert dtype == "S6"  # bytes are no text: which encoding is not known
        else:
            assert taken.tolist() == ["img_10", "img_3"]
            assert all(type(one) is str for one in taken)


def test_which_array_of_a_group(tmp_path):
    only = make(tmp_path / "a", name="vectors", labels=np.arange(11), table=np.zeros((11, 3), np.int32))
    assert open_embeddings(only).array.path == only + "/vectors"
    named = make(tmp_path / "b", other=VALUES)
    assert open_embeddings(named).array.path == named + "/embeddings"
    several = make(tmp_path / "c", name="one", two=VALUES)
    with pytest.raises(InputError, match=r"several arrays could be the embeddings: one \(11, 4\) float32, two"):
        open_embeddings(several)
    none = make(tmp_path / "d", values=np.arange(11), name="labels")
    with pytest.raises(InputError, match="without a two-dimensional array of floats"):
        open_embeddings(none)
    empty = make(tmp_path / "e", name="x")
    with pytest.raises(InputError, match="no arrays"):
        open_embeddings(zarr.create_group(tmp_path / "f").store.root)
    assert open_embeddings(empty).rows == 11


def test_foreign_ids_of_another_length_are_not_ids(tmp_path):
    path = make(tmp_path / "e.zarr", ids=NAMES[:5])
    assert open_embeddings(path).ids is None
    # A store that says it has ids must have them.
    update_group_attributes(path, {"ids": "string"})
    with pytest.raises(StoreError, match="its ids are absent"):
        open_embeddings(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 4), np.float32), r"has no rows \(shape \(0, 4\)\)"),
        (np.zeros((4, 0), np.float32), "rows are empty"),
        (np.zeros(4, np.float32), "1 dimensions"),
        (np.zeros((4, 2), np.float64), "ingest it: streamcurate ingest .*e.zarr .*e-float32.zarr"),
        (np.zeros((4, 2), np.int32), "holds int32"),
    ],
)
def test_arrays_that_are_no_embeddings(tmp_path, values, message):
    path = make(tmp_path / "e.zarr", values=values)
    with pytest.raises(InputError, match=message) as error:
        open_embeddings(path)
    assert path in str(error.value)


def test_three_dimensions(tmp_path):
    zarr.create_array(tmp_path / "x", shape=(2, 2, 2), dtype="f4")
    with pytest.raises(InputError, match="3 dimensions"):
        open_embeddings(tmp_path / "x")


def test_paths_that_are_no_store(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_embeddings(tmp_path / "absent.zarr")
    (tmp_path / "absent.zarr.partial").mkdir()
    with pytest.raises(InputError, match="its ingest is unfinished"):
        open_embeddings(str(tmp_path / "absent.zarr") + "/")
    np.save(tmp_path / "x.npy", VALUES)
    with pytest.raises(InputError, match=r"ingest it: streamcurate ingest .*x.npy .*x.zarr"):
        open_embeddings(tmp_path / "x.npy")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="neither a Zarr array nor a Zarr group"):
        open_embeddings(tmp_path / "folder")


def test_an_absent_chunk_is_an_error_not_zeros(tmp_path):
    path = make(tmp_path / "e.zarr")
    (tmp_path / "e.zarr" / "embeddings" / "c" / "1" / "0").unlink()
    with pytest.raises(StoreError, match=r"chunk 1 \(rows 3 to 5\) is absent"):
        open_embeddings(path).read(0, 11)


def test_whatever_holds_embeddings(tmp_path):
    path = make(tmp_path / "e.zarr", ids=NAMES)
    opened = open_embeddings(path)
    assert as_embeddings(opened) is opened
    array, group = zarr.open_array(path + "/embeddings", mode="r"), zarr.open(path, mode="r")
    for value in (path, tmp_path / "e.zarr", array, group, opened.array):
        embeddings = as_embeddings(value)
        assert isinstance(embeddings, Embeddings)
        np.testing.assert_array_equal(embeddings.read(0, 11), VALUES)
        assert embeddings.take_ids(np.array([1])).tolist() == ["img_1"]
    with pytest.raises(InputError, match="not a Zarr array or group on a local disk"):
        as_embeddings(zarr.create_array({}, shape=(2, 2), dtype="f4"))
    with pytest.raises(InputError, match="not a Zarr array or group on a local disk"):
        as_embeddings(zarr.create_group({}))
    assert as_embeddings(group).path == path
    with pytest.raises(InputError, match="without a two-dimensional array of floats; it holds no arrays"):
        as_embeddings(zarr.create_group(tmp_path / "empty.zarr"))


def test_as_an_array(tmp_path):
    opened = open_embeddings(make(tmp_path / "e.zarr", ids=NAMES))
    in_memory = as_embeddings(VALUES)
    for embeddings in (opened, in_memory):
        assert (len(embeddings), embeddings.shape) == (11, (11, 4))
        np.testing.assert_array_equal(np.asarray(embeddings), VALUES)
        assert np.asarray(embeddings).dtype == np.float32
        assert np.asarray(embeddings, dtype=np.float64).dtype == np.float64
        copied = np.array(embeddings)
        copied[:] = 0  # nobody else's
        np.testing.assert_array_equal(np.asarray(embeddings), VALUES)
    with pytest.raises(ValueError, match=r"e\.zarr: lies on disk"):
        np.asarray(opened, copy=False)
    assert np.shares_memory(np.asarray(in_memory, copy=False), VALUES)
    assert opened.ids[:3].tolist() == NAMES[:3]
    assert opened.ids[-1] == NAMES[-1]


def test_pickles(tmp_path):
    opened = open_embeddings(make(tmp_path / "e.zarr", ids=NAMES))
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again.read(0, 11), VALUES)
    assert again.take_ids(np.array([2])).tolist() == ["img_2"]
