"""Filling an array from front to back in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.storage import SequentialWriter, create_array


@settings(max_examples=50)
@given(pieces=st.lists(st.integers(0, 17), min_size=1, max_size=8).filter(sum), chunk_rows=st.integers(1, 20))
def test_any_pieces(tmp_path_factory, pieces, chunk_rows):
    values = np.arange(2 * sum(pieces), dtype=np.float32).reshape(-1, 2)
    array = create_array(tmp_path_factory.mktemp("append") / "x", values.shape, np.float32, chunk_rows)
    with SequentialWriter(array) as writer:
        for piece in np.split(values, np.cumsum(pieces)[:-1]):
            writer.append(piece)
    np.testing.assert_array_equal(array.read(0, len(values)), values)


def test_too_few_and_too_many_rows(tmp_path):
    array = create_array(tmp_path / "x", (5,), np.int64, 2)
    with pytest.raises(ValueError, match="written up to row 4 of 5"), SequentialWriter(array) as writer:
        writer.append(np.arange(4))
    with pytest.raises(ValueError, match="more rows than up to 5"), SequentialWriter(array) as writer:
        writer.append(np.arange(6))


def test_an_error_inside_is_not_hidden(tmp_path):
    array = create_array(tmp_path / "x", (5,), np.int64, 2)
    with pytest.raises(ZeroDivisionError), SequentialWriter(array):
        raise ZeroDivisionError
