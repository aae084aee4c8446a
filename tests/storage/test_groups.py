"""Groups, their attributes, and what a killed writer leaves in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from streamcurate.errors import InputError, StoreError
from streamcurate.storage import (
    create_array,
    create_group,
    list_arrays,
    node_kind,
    open_array,
    open_group_attributes,
    remove_leftovers,
    sync_metadata,
    update_group_attributes,
)


def test_node_kinds(tmp_path):
    create_group(tmp_path / "g3")
    create_array(tmp_path / "a3", (2,), "int32", 2)
    zarr.create_group(tmp_path / "g2", zarr_format=2)
    zarr.create_array(tmp_path / "a2", shape=(2,), dtype="i4", zarr_format=2)
    (tmp_path / "plain").mkdir()
    names = ["g3", "a3", "g2", "a2", "plain", "absent"]
    expected = ["group", "array", "group", "array", None, None]
    assert [node_kind(tmp_path / name) for name in names] == expected


def test_unreadable_metadata_is_an_error(tmp_path):
    create_group(tmp_path / "g")
    (tmp_path / "g" / "zarr.json").write_text('{"zarr_format": 3')
    with pytest.raises(StoreError, match="not a readable Zarr"):
        node_kind(tmp_path / "g")


def test_attributes(tmp_path):
    create_group(tmp_path / "g", {"format": 1})
    update_group_attributes(tmp_path / "g", {"fingerprint": "abc"})
    assert open_group_attributes(tmp_path / "g") == {"format": 1, "fingerprint": "abc"}
    create_group(tmp_path / "bare")
    assert open_group_attributes(tmp_path / "bare") == {}
    # What others keep beside ours stays.
    zarr.open_group(tmp_path / "g", mode="r+").attrs["other"] = 5
    update_group_attributes(tmp_path / "g", {"format": 2})
    assert zarr.open_group(tmp_path / "g", mode="r").attrs["other"] == 5


def test_foreign_attributes_under_our_key_are_not_taken(tmp_path):
    create_group(tmp_path / "g")
    zarr.open_group(tmp_path / "g", mode="r+").attrs["streamcurate"] = "text"
    assert open_group_attributes(tmp_path / "g") == {}


def test_create_refuses_what_exists(tmp_path):
    create_group(tmp_path / "g")
    with pytest.raises(InputError, match="already exists"):
        create_group(tmp_path / "g")


def test_list_arrays(tmp_path):
    create_group(tmp_path / "g")
    create_array(tmp_path / "g" / "b", (4, 2), "float16", 2)
    create_array(tmp_path / "g" / "a", (4,), "int64", 2)
    assert list_arrays(tmp_path / "g") == {"a": ((4,), np.dtype("int64")), "b": ((4, 2), np.dtype("float16"))}
    assert list(list_arrays(tmp_path / "g")) == ["a", "b"]
    assert list_arrays(tmp_path / "g" / "a") == {}
    # What else lies in the folder does no harm.
    (tmp_path / "g" / "README.txt").write_text("x")
    (tmp_path / "g" / "pictures").mkdir()
    assert list(list_arrays(tmp_path / "g")) == ["a", "b"]


def test_leftovers_of_a_killed_writer_are_removed_and_nothing_else(tmp_path):
    create_group(tmp_path / "g")
    array = create_array(tmp_path / "g" / "a", (4,), "int64", 2)
    array.write(0, np.arange(4))
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "g" / "a" / "c" / "0.77.writing").write_bytes(b"x")
    (tmp_path / "g" / "a" / "c" / "1.0f3a.partial").write_bytes(b"x")
    remove_leftovers(tmp_path / "g")
    sync_metadata(tmp_path / "g")
    assert sorted(tmp_path.rglob("*")) == before
    np.testing.assert_array_equal(open_array(tmp_path / "g" / "a").read(0, 4), np.arange(4))


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    create_group(tmp_path / "g")

    def refused(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        with pytest.raises(InputError, match=r"g: cannot be read \(Permission denied\); check its permissions"):
            list_arrays(tmp_path / "g")
    monkeypatch.setattr(Path, "is_file", refused)
    with pytest.raises(InputError, match=r"g: cannot be read \(Permission denied\); check its permissions"):
        node_kind(tmp_path / "g")
