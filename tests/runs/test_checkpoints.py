from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamcurate.errors import DiskFullError
from streamcurate.runs import Checkpoints

NAME = "level-1/step-0/iteration-3"
ARRAYS = {"centroids": np.arange(12, dtype=np.float32).reshape(4, 3), "counts": np.array([3, 0, 1, 2])}
VALUES = {"inertia": 0.1 + 0.2, "history": [3.5, 2.5], "note": "→", "none": None}


@pytest.fixture(params=[True, False], ids=["durable", "scratch"])
def checkpoints(tmp_path, request):
    return Checkpoints(tmp_path / "checkpoints", durable=request.param)


def same(result, arrays, values) -> bool:
    return (
        result is not None
        and result[1] == values
        and result[0].keys() == arrays.keys()
        and all(
            result[0][key].dtype == array.dtype and np.array_equal(result[0][key], array)
            for key, array in arrays.items()
        )
    )


def test_round_trip(checkpoints):
    checkpoints.save(NAME, ARRAYS, VALUES)
    assert same(checkpoints.load(NAME), ARRAYS, VALUES)
    result = Checkpoints(checkpoints.folder).load(NAME)
    assert same(result, ARRAYS, VALUES)
    # Whoever goes on may compute in place.
    assert result[0]["centroids"].flags.writeable


@given(
    hnp.arrays(
        st.sampled_from(["<f2", "<f4", "<f8", ">f4", "<i4", "<i8", ">i8", "<u8", "i1", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ),
    st.booleans(),
)
def test_any_array_comes_back_bit_by_bit(tmp_path_factory, array, fortran):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoints"), durable=False)
    checkpoints.save("x", {"a": np.asarray(array, order="F" if fortran else "C")})
    arrays, values = checkpoints.load("x")
    assert values == {}
    assert arrays["a"].shape == array.shape
    assert arrays["a"].dtype == array.dtype.newbyteorder("=")
    assert arrays["a"].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_files_are_npy_and_json_for_any_reader(checkpoints):
    checkpoints.save(NAME, ARRAYS, VALUES)
    files = sorted(checkpoints.folder.iterdir())
    assert [file.suffix for file in files] == [".npy", ".npy", ".json"]
    np.testing.assert_array_equal(np.load(files[0], allow_pickle=False), ARRAYS["centroids"])
    assert json.loads(files[2].read_text())["values"] == VALUES


def test_absent(checkpoints):
    assert checkpoints.load(NAME) is None
    checkpoints.discard(NAME)
    checkpoints.save("level-1/step-0", ARRAYS)
    assert checkpoints.load(NAME) is None


def test_a_later_result_takes_the_place_of_the_earlier(checkpoints):
    checkpoints.save(NAME, ARRAYS, VALUES)
    arrays = {"centroids": ARRAYS["centroids"] + 1}
    checkpoints.save(NAME, arrays, {})
    assert same(checkpoints.load(NAME), arrays, {})
    assert len(list(checkpoints.folder.iterdir())) == 2


def test_discard_takes_one_result_only(checkpoints):
    for name in ("level-1", "level-1/step-0", "level-1/step-0/iteration-3", "level-11"):
        checkpoints.save(name, ARRAYS, {"name": name})
    checkpoints.discard("level-1/step-0")
    assert checkpoints.load("level-1/step-0") is None
    for name in ("level-1", "level-1/step-0/iteration-3", "level-11"):
        assert same(checkpoints.load(name), ARRAYS, {"name": name})
    for name in ("level-1", "level-1/step-0/iteration-3", "level-11"):
        checkpoints.discard(name)
    assert list(checkpoints.folder.iterdir()) == []


def test_every_corruption_is_noticed(tmp_path):
    checkpoints = Checkpoints(tmp_path, durable=False)
    checkpoints.save(NAME, {"a": np.array([1.5, 2.5], np.float32)}, {"step": 3})
    header = 128
    for file in tmp_path.iterdir():
        whole = file.read_bytes()
        for place in range(len(whole)):
            if file.suffix == ".npy" and place < header:
                continue
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert checkpoints.load(NAME) is None, (file.name, place)
        for length in range(len(whole)):
            # The newline that ends the JSON says nothing.
            if file.suffix == ".json" and length == len(whole) - 1:
                continue
            file.write_bytes(whole[:length])
            assert checkpoints.load(NAME) is None, (file.name, length)
        file.write_bytes(whole + b" " if file.suffix == ".npy" else b"")
        assert checkpoints.load(NAME) is None
        file.unlink()
        assert checkpoints.load(NAME) is None
        file.write_bytes(whole)
        assert checkpoints.load(NAME) is not None


def test_sidecar_is_the_commit_point(checkpoints, monkeypatch):
    """However few of the file replacements happen, the earlier result or the later one is there, whole."""
    later = {key: array + 1 for key, array in ARRAYS.items()}
    replace = os.replace
    for allowed in range(4):
        checkpoints.save(NAME, ARRAYS, VALUES)
        done = 0

        def counted(source, target, allowed=allowed):
            nonlocal done
            if done == allowed:
                raise KeyboardInterrupt
            done += 1
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", counted)
            if allowed < 3:
                with pytest.raises(KeyboardInterrupt):
                    checkpoints.save(NAME, later, {})
            else:
                checkpoints.save(NAME, later, {})
        assert same(checkpoints.load(NAME), *((ARRAYS, VALUES) if allowed < 3 else (later, {})))
    checkpoints.save(NAME, ARRAYS, VALUES)
    # What the interrupted ones left is swept up by the next.
    assert len(list(checkpoints.folder.iterdir())) == 3


SAVE_FOREVER = """
import sys
import numpy as np
from streamcurate.runs import Checkpoints
checkpoints = Checkpoints(sys.argv[1], durable=False)
for count in range(10**9):
    checkpoints.save("x", {"a": np.full(5000, count), "b": np.full(5000, count)}, {"count": count})
    if count == 0:
        print("begun", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.033])
def test_killed_writer_leaves_a_whole_result(tmp_path, delay):
    with subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"begun\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(delay)
        finally:
            process.kill()
    arrays, values = Checkpoints(tmp_path).load("x")
    assert set(arrays["a"]) == set(arrays["b"]) == {values["count"]}


def test_full_disk_is_said_and_leaves_no_part(checkpoints, monkeypatch):
    checkpoints.save(NAME, ARRAYS, VALUES)
    before = sorted(checkpoints.folder.iterdir())

    def full(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(DiskFullError, match="no space left"):
            checkpoints.save(NAME, {"centroids": np.zeros(3)})
    assert sorted(checkpoints.folder.iterdir()) == before
    assert same(checkpoints.load(NAME), ARRAYS, VALUES)


def test_no_pickle(checkpoints):
    with pytest.raises(ValueError, match="dtype"):
        checkpoints.save(NAME, {"a": np.array([{}])})
    assert checkpoints.load(NAME) is None


@pytest.mark.parametrize("name", ["", "/", "a/", "../a", "a.b", "a+b", "A", "a//b"])
def test_names_that_could_meet_are_refused(checkpoints, name):
    with pytest.raises(ValueError, match="no name"):
        checkpoints.save(name, ARRAYS)
    with pytest.raises(ValueError, match="no key"):
        checkpoints.save("a", {f"{name}/": np.zeros(1)})
