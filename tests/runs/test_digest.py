from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamcurate.runs import Digest, combine_digests

arrays = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.int32, np.int64, np.bool_]), hnp.array_shapes(max_dims=2, min_side=0)
)


def digest(*values) -> str:
    state = Digest()
    for value in values:
        state.add(value)
    return state.hexdigest()


def test_known_value():
    # Of the bytes b"<f4 2x2\n" and the four values, little-endian: what is written in run directories must not change.
    assert digest(np.array([[0, 1], [2, 3]], np.float32)) == "36b9b92878e2233a06db69335737e186"


@given(arrays, st.data())
def test_blocks_do_not_matter(array, data):
    state = Digest().begin(array.shape, array.dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(array)), max_size=4)))
    for start, stop in zip([0, *cuts], [*cuts, len(array)], strict=True):
        state.update(array[start:stop])
    assert state.hexdigest() == digest(array)


@given(arrays)
def test_memory_layout_and_byte_order_do_not_matter(array):
    assert digest(np.asfortranarray(array)) == digest(array)
    assert digest(array.astype(array.dtype.newbyteorder(">"))) == digest(array)
    assert digest(np.repeat(array, 2, axis=0)[::2]) == digest(array)


def test_dtype_shape_order_and_boundaries_do():
    zeros = np.zeros(4, np.int32)
    digests = [
        digest(zeros),
        digest(zeros.reshape(2, 2)),
        digest(zeros.reshape(4, 1)),
        digest(zeros.astype(np.float32)),
        digest(zeros.astype(np.int64)),
        digest(zeros[:2], zeros[:2]),
        digest(zeros, zeros[:0]),
        digest(np.arange(4, dtype=np.int32)),
        digest(np.arange(4, dtype=np.int32)[::-1]),
        digest(zeros, np.arange(4, dtype=np.int32)),
        digest(np.arange(4, dtype=np.int32), zeros),
    ]
    assert len(set(digests)) == len(digests)


def test_misuse_is_noticed():
    with pytest.raises(ValueError, match="2 values of the last array are missing"):
        Digest().begin((4,), np.int32).update(np.zeros(2, np.int32)).hexdigest()
    with pytest.raises(ValueError, match="are missing"):
        Digest().begin((4,), np.int32).begin((1,), np.int32)
    with pytest.raises(ValueError, match="5 values where 4 are missing"):
        Digest().begin((4,), np.int32).update(np.zeros(5, np.int32))
    with pytest.raises(ValueError, match="dtype"):
        Digest().begin((4,), np.int32).update(np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="no digest of dtype"):
        Digest().add(np.array([{}]))


def test_combination_keeps_order():
    one, other = digest(np.zeros(1)), digest(np.ones(1))
    assert combine_digests([one, other]) != combine_digests([other, one])
    assert combine_digests([one]) != combine_digests([one, one])
    assert len(combine_digests([])) == 32
