"""Random numbers: published vectors, independence of splits, uniformity."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.kernels import philox4x32, random_below, random_bits


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, words):
    assert philox4x32(counter, key) == words


@pytest.mark.parametrize(("seed", "stream"), [(0, ()), (2**40 + 5, (1, 2**63 + 9)), (7, (0, 0, 3))])
def test_bits_follow_the_documented_layout(seed, stream):
    mask = 2**32 - 1
    state = (len(stream), 0x73747265)
    for element in stream:
        key = (seed & mask, (seed >> 32) ^ mask)
        state = philox4x32((element & mask, element >> 32, *state), key)[:2]
    for counter in (0, 1, 2**32 + 3, 2**63 + 1):
        words = philox4x32((counter & mask, counter >> 32, *state), (seed & mask, seed >> 32))
        assert random_bits(seed, stream, np.array([counter], np.uint64))[0] == words[0] | words[1] << 32


def test_numbers_belong_to_their_counters():
    counters = np.arange(1000, dtype=np.int64)
    whole = random_bits(3, (1, 2), counters)
    assert whole.dtype == np.uint64
    np.testing.assert_array_equal(random_bits(3, (1, 2), counters[::-1][:400]), whole[::-1][:400])
    np.testing.assert_array_equal(random_bits(3, (1, 2), counters.reshape(10, 100)), whole.reshape(10, 100))


def test_seeds_streams_and_counters_all_matter():
    counters = np.arange(200)
    streams = [(3, ()), (4, ()), (3, (0,)), (3, (0, 0)), (3, (1,)), (3, (2**32,)), (3 + 2**32, (0,))]
    drawn = np.concatenate([random_bits(seed, stream, counters) for seed, stream in streams])
    assert len(np.unique(drawn)) == len(drawn)


def test_bits_are_balanced():
    drawn = random_bits(11, (5,), np.arange(20_000))
    ones = np.unpackbits(drawn.view(np.uint8)).reshape(20_000, 64).sum(axis=0, dtype=np.int64)
    assert np.abs(ones - 10_000).max() < 5 * np.sqrt(5000)


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 2**64, 2**64 + 1, 10**30, 2**100])
def test_numbers_below_a_bound(bound):
    drawn = [random_below(1, (9, step), bound) for step in range(60)]
    assert all(0 <= number < bound for number in drawn)
    assert len(set(drawn)) == min(bound, len(set(drawn)))
    if bound > 10**6:
        assert len(set(drawn)) == 60
        assert max(drawn) > bound * 0.9
        assert min(drawn) < bound * 0.1


def test_numbers_below_ten_are_even():
    counts = np.bincount([random_below(2, (step,), 10) for step in range(3000)], minlength=10)
    assert ((counts - 300) ** 2 / 300).sum() < 33.7  # chi squared, 9 degrees of freedom: p = 1e-4


def test_refused():
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed is"):
            random_bits(seed, (), np.arange(1))
    with pytest.raises(ValueError, match="stream holds -1"):
        random_bits(0, (-1,), np.arange(1))
    with pytest.raises(ValueError, match="bound is 0"):
        random_below(0, (), 0)
