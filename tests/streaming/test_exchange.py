"""States and sums that processes hand each other through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.errors import StoreError
from streamcurate.streaming.exchange import Exchange, StoredSums, add_slices


@pytest.fixture
def exchange(tmp_path) -> Exchange:
    return Exchange(tmp_path / "exchange")


def test_a_state_comes_back(exchange):
    state = {
        "centroids": np.arange(12, dtype=np.float32).reshape(4, 3),
        "bucket-of": np.array([1 << 62, -5]),
        "none": np.empty((0, 3)),
    }
    reference = exchange.put(state)
    found = reference.load()
    assert found.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert exchange.put({name: state[name] for name in reversed(state)}) == reference
    assert exchange.put({**state, "centroids": state["centroids"] + 1}) != reference
    assert exchange.put({"bucket-of": state["centroids"], "centroids": state["bucket-of"]}) != reference


def test_no_state_is_no_file(exchange):
    assert exchange.put({}) is None
    exchange.drop(None)
    assert list((exchange.folder / "states").iterdir()) == []


def test_a_state_that_is_damaged_or_gone_is_told(exchange):
    reference = exchange.put({"centroids": np.arange(100, dtype=np.float32)})
    for path in Path(reference.folder).glob("*.npy"):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    with pytest.raises(StoreError, match="is gone or damaged; give the same command again"):
        reference.load()
    exchange.drop(reference)
    assert list(Path(reference.folder).iterdir()) == []
    with pytest.raises(StoreError, match="is gone or damaged"):
        reference.load()


def arrays(rows: int, seed: int, share: float) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    touched = generator.random(rows) < share
    made = {
        "limb-0": generator.integers(-(1 << 60), 1 << 60, (rows, 3)),
        "counts": generator.integers(0, 9, (rows, 1)),
    }
    return {name: array * touched[:, None] for name, array in made.items()}


@given(
    rows=st.integers(1, 60),
    slice_rows=st.integers(1, 70),
    parts=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_slices_add_up_to_the_whole(tmp_path_factory, rows, slice_rows, parts, share):
    folder = tmp_path_factory.mktemp("sums")
    made = [arrays(rows, seed, share) for seed in range(parts)]
    stored = [StoredSums.write(folder / f"{number}.bin", one, slice_rows) for number, one in enumerate(made)]
    found = [add_slices(stored, number) for number in range(-(-rows // slice_rows))]
    for name in made[0]:
        whole = np.concatenate([one[name] for one in found])
        np.testing.assert_array_equal(whole, sum(one[name] for one in made))
        assert whole.dtype == np.int64
    # What was not touched is not there.
    rows_there = sum(int((one["limb-0"].any(axis=1) | one["counts"].any(axis=1)).sum()) for one in made)
    assert sum(path.stat().st_size for path in folder.iterdir()) == rows_there * 8 * (1 + 3 + 1)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damaged_sums_are_told(tmp_path, damage):
    path = tmp_path / "sums.bin"
    stored = StoredSums.write(path, arrays(40, 1, 1.0), 10)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[8 * 40 + 8 * 3 * 25] ^= 4  # row 25 of limb-0
        path.write_bytes(content)
        assert add_slices([stored], 1)["counts"].shape == (10, 1)  # other slices are sound
    elif damage == "cut":
        path.write_bytes(content[:-8])
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"sums\.bin: scratch is gone or damaged"):
        add_slices([stored], 2 if damage == "flipped" else 3)


def test_an_exchange_begins_and_ends_empty(tmp_path):
    left = tmp_path / "exchange" / "sums" / "of-an-earlier-process.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    exchange = Exchange(tmp_path / "exchange")
    assert not left.exists()
    stored = StoredSums.write(exchange.sums / "1.bin", arrays(5, 1, 1.0), 2)
    exchange.drop_sums([stored, stored])
    assert list(exchange.sums.iterdir()) == []
    exchange.close()
    assert not exchange.folder.exists()
    exchange.close()
