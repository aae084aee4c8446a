"""Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, SC 2011).

The number for (seed, stream, counter) depends on those alone, so any device and any split of the work draws the same.
Key: the seed's low and high 32 bits. Counter words: the counter's low and high 32 bits, then 64 bits made of the
stream: starting from (length of the stream, 0x73747265), each element e, split into low and high 32 bits, replaces the
pair (s0, s1) by the first two words of Philox(counter = (e_low, e_high, s0, s1), key = seed's, its high word flipped).
The draw itself uses the key unflipped, so that no draw repeats a step of the mixing. 64 bits: word 0 + 2^32 word 1.
"""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Int64, UInt64

_WORD = 0xFFFFFFFF
_DOMAIN = 0x73747265


@compiled
def _philox(counters: UInt64, key0: np.uint64, key1: np.uint64, words: UInt64) -> None:
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    w0, w1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
    for i in range(len(counters)):
        c0, c1, c2, c3 = counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3]
        k0, k1 = np.uint64(key0), np.uint64(key1)
        for _ in range(10):
            p0, p1 = m0 * c0, m1 * c2
            c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & mask, (p0 >> shift) ^ c3 ^ k1, p0 & mask
            k0, k1 = (k0 + w0) & mask, (k1 + w1) & mask
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = c0, c1, c2, c3


@compiled
def _draw(counters: UInt64, word2: np.uint64, word3: np.uint64, key0: np.uint64, key1: np.uint64, bits: UInt64) -> None:
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    w0, w1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
    for i in range(len(counters)):
        c0, c1, c2, c3 = counters[i] & mask, counters[i] >> shift, np.uint64(word2), np.uint64(word3)
        k0, k1 = np.uint64(key0), np.uint64(key1)
        for _ in range(10):
            p0, p1 = m0 * c0, m1 * c2
            c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & mask, (p0 >> shift) ^ c3 ^ k1, p0 & mask
            k0, k1 = (k0 + w0) & mask, (k1 + w1) & mask
        bits[i] = c0 | (c1 << shift)


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One Philox4x32-10 block: four 32-bit words from four counter words and two key words."""
    words = np.empty((1, 4), dtype=np.uint64)
    _philox(np.array([counter], dtype=np.uint64), np.uint64(key[0]), np.uint64(key[1]), words)
    one, two, three, four = (int(word) for word in words[0])
    return one, two, three, four


def _stream_words(seed: int, stream: tuple[int, ...]) -> tuple[int, int]:
    key = (seed & _WORD, (seed >> 32) ^ _WORD)
    state = (len(stream), _DOMAIN)
    for element in stream:
        if not 0 <= element < 2**64:
            raise ValueError(f"stream holds {element}; its elements are integers from 0 to 2^64 - 1")
        first, second, _, _ = philox4x32((element & _WORD, element >> 32, *state), key)
        state = (first, second)
    return state


def random_bits(seed: int, stream: tuple[int, ...], counters: Int64 | UInt64) -> UInt64:
    """64 random bits for each counter.

    Parameters
    ----------
    seed : int
        0 to 2^64 - 1.
    stream : tuple of int
        What the numbers are for: (level, stage, step, ...), each 0 to 2^64 - 1. Different streams are independent.
    counters : integers of any shape
        Row numbers, for example.

    Returns
    -------
    uint64, the shape of ``counters``
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must lie between 0 and 2^64 - 1")
    word2, word3 = _stream_words(seed, stream)
    flat = np.ascontiguousarray(counters).astype(np.uint64, copy=False).ravel()
    bits = np.empty(len(flat), dtype=np.uint64)
    _draw(flat, np.uint64(word2), np.uint64(word3), np.uint64(seed & _WORD), np.uint64(seed >> 32), bits)
    return bits.reshape(np.shape(counters))


def random_below(seed: int, stream: tuple[int, ...], bound: int) -> int:
    """A uniform integer from 0 to ``bound`` - 1, for a bound up to 2^128.

    As many random bits as ``bound`` - 1 has are drawn until they make a number below the bound: no number is favoured.
    """
    if not 1 <= bound <= 2**128:
        raise ValueError(f"bound is {bound}; it must lie between 1 and 2^128")
    width = (bound - 1).bit_length()
    attempt = 0
    while True:
        # Each attempt fails with a chance below one half; a batch of eight saves calls.
        words = random_bits(seed, stream, np.arange(2 * attempt, 2 * attempt + 16, dtype=np.int64)).tolist()
        for low, high in zip(words[0::2], words[1::2], strict=True):
            number = int((low | (high << 64)) >> (128 - width)) if width else 0
            if number < bound:
                return number
        attempt += 8
