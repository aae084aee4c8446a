"""Integer potentials of k-means++: what candidates are drawn by."""

from __future__ import annotations

import numpy as np

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Int32, Int64, UInt64


@compiled
def _shares(bits: UInt64, wholes: Int64, shares: Int64) -> None:
    # The upper half of a 128-bit product, from four products of 32 bits each.
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(len(bits)):
        whole = np.uint64(wholes[i])
        low_bits, high_bits = bits[i] & mask, bits[i] >> shift
        low, high = whole & mask, whole >> shift
        one, two = low_bits * high, high_bits * low
        middle = ((low_bits * low) >> shift) + (one & mask) + (two & mask)
        shares[i] = np.int64(high_bits * high + (one >> shift) + (two >> shift) + (middle >> shift))


@compiled
def _running_sums(potentials: Int64, places: Int32, weights: Int64, running: Int64) -> None:
    total = np.int64(0)
    for row in range(len(running)):
        potential = potentials[places[row]] if places.size else potentials[row]
        total += potential * weights[row] if weights.size else potential
        running[row] = total


def shares(bits: UInt64, wholes: Int64) -> Int64:
    """floor(bits wholes / 2^64): random bits as a share of each whole, which is not negative; (m,) int64."""
    found = np.empty(len(bits), dtype=np.int64)
    _shares(bits, np.ascontiguousarray(np.broadcast_to(wholes, bits.shape), dtype=np.int64), found)
    return found


def running_sums(potentials: Int64, places: Int32, weights: Int64) -> Int64:
    """Running sums of weight times potential over the rows.

    Parameters
    ----------
    potentials : (n,) int64
    places : (n,) or (0,) int32
        Where each row's potential lies; empty where it is at the row's own number.
    weights : (n,) or (0,) int64
        Empty: every row weighs one.

    Returns
    -------
    (n,) int64
    """
    running = np.empty(len(potentials), dtype=np.int64)
    _running_sums(potentials, places, weights, running)
    return running
