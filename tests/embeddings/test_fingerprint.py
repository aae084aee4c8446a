"""Fingerprints depend on the rows alone: not on pieces, chunks, byte order or memory layout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings import fingerprint as fingerprint_module
from streamcurate.embeddings.fingerprint import (
    FingerprintBuilder,
    fingerprint,
    unit_digest,
    unit_digests_of,
    unit_rows,
)
from streamcurate.streaming.source import MemoryRows


@given(dims=st.integers(1, 1 << 23), dtype=st.sampled_from(["float16", "float32"]))
def test_units_are_the_largest_power_of_two_of_rows_that_fits(dims, dtype):
    rows, row_bytes = unit_rows(dims, dtype), dims * np.dtype(dtype).itemsize
    assert rows & (rows - 1) == 0
    assert rows == 1 or rows * row_bytes <= 4 << 20
    assert 2 * rows * row_bytes > 4 << 20


@pytest.fixture
def small_units(monkeypatch):
    """Units of 8 rows at 4 float32 dimensions, so that few rows make many units."""
    monkeypatch.setattr(fingerprint_module, "UNIT_BYTES", 8 * 4 * 4)


def matrix(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)


@settings(max_examples=60)
@given(rows=st.integers(0, 50), cuts=st.lists(st.integers(0, 50), max_size=6), resumed=st.integers(0, 5))
def test_builder_agrees_with_the_definition_for_any_pieces(rows, cuts, resumed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint_module, "UNIT_BYTES", 8 * 4 * 4)
        values = matrix(rows)
        digests = [xxhash.xxh3_128_hexdigest(values[i : i + 8].tobytes()) for i in range(0, rows, 8)]
        known = min(resumed, rows // 8)
        builder = FingerprintBuilder(4, np.float32, bytes.fromhex("".join(digests[:known])))
        edges = [known * 8, *sorted(cut for cut in cuts if known * 8 <= cut <= rows), rows]
        for start, stop in itertools.pairwise(edges):
            builder.update(values[start:stop])
        assert builder.rows == rows
        assert builder.digests == digests
        assert builder.whole_units(1).hex() == "".join(digests[: rows // 8][1:])
        assert builder.result() == fingerprint((rows, 4), np.float32, digests)


def test_units_read_again_have_the_same_digests(small_units):
    values = matrix(20)
    builder = FingerprintBuilder(4, np.float32)
    builder.update(values)
    source = MemoryRows(values)
    assert unit_digests_of(source, [2, 0]) == [builder.digests[2], builder.digests[0]]
    with pytest.raises(IndexError, match="unit 3 of 3"):
        unit_digests_of(source, [3])


def test_byte_order_and_layout_do_not_matter():
    values = matrix(9)
    assert unit_digest(values) == unit_digest(values.astype(">f4")) == unit_digest(np.asfortranarray(values))
    assert unit_digest(values) == xxhash.xxh3_128_hexdigest(values.astype("<f4").tobytes())
    assert unit_digest(values[::2]) == unit_digest(values[::2].copy())


def test_shape_dtype_and_every_value_matter():
    digests = [unit_digest(matrix(8))]
    base = fingerprint((8, 4), np.float32, digests)
    assert fingerprint((4, 8), np.float32, digests) != base
    assert fingerprint((8, 4), np.float16, digests) != base
    changed = matrix(8)
    changed[7, 3] = np.nextafter(changed[7, 3], np.float32(9))
    assert fingerprint((8, 4), np.float32, [unit_digest(changed)]) != base
