"""Weighted water levels: the largest c with Σ clamp(⌊c · weight⌋, lower, capacity) ≤ target, exactly.

Only products, quotients, square roots and roundings of float64 are used, which IEEE 754 defines to the last bit, so
that every machine decides the same. A bisection over float64 numbers brackets c up to rounding; the few children whose
next step m / weight lies inside the bracket are then ordered by their exact quotients. Weights have 48 significant bits
and targets at most 2^48, so that two different quotients differ by more than 2^-97 of their size, and the rounded
quotient together with its rounded rest (about 106 bits) tells them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcurate.sampling.hierarchy import segment_sums

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]

# Larger targets cannot be shared by weights; no store has as many rows.
LARGEST_TARGET = 2**48
# Weights of one parent may differ by this much without c · weight leaving float64.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-50, 1e50
_WEIGHT_BITS = 48
# Exponents are rounded to so many bits after the point.
EXPONENT_BITS = 24
# Wider than two roundings to each side: what steps at the exact c lies in between.
_SLACK = 2.0**-50
_SPLITTER = 2.0**27 + 1


def powers(sizes: Int64, exponent: float) -> Float64:
    """Sizes to a power between 0 and 1, the same on every machine; 1 for a size of 0.

    The exponent is rounded to a multiple of 2^-24. With its binary digits b_1 b_2 .. after the point, size^exponent is
    the product of the size's repeated square roots, size^(1/2^i), with b_i = 1: libraries do not agree on ``pow``, but
    square roots and products are rounded correctly everywhere.
    """
    digits = round(exponent * 2**EXPONENT_BITS)
    root = np.maximum(sizes, 1).astype(np.float64)
    if digits >= 1 << EXPONENT_BITS:
        return root
    power = np.ones(len(sizes))
    for place in range(EXPONENT_BITS - 1, -1, -1):
        if not digits & ((2 << place) - 1):
            break  # no digits left
        np.sqrt(root, out=root)
        if digits >> place & 1:
            power *= root
    return power


def rounded_weights(weights: Float64) -> Float64:
    """Weights above 0 rounded to 48 significant bits."""
    mantissas, exponents = np.frexp(weights)
    rounded: Float64 = np.ldexp(np.rint(np.ldexp(mantissas, _WEIGHT_BITS)), exponents - _WEIGHT_BITS)
    return rounded


def weighted_levels(
    targets: Int64, capacities: Int64, offsets: Int64, lower: Int64, weights: Float64
) -> tuple[Float64, Int64, NDArray[np.bool_]]:
    """The level of every parent, what each child gives just below it, and which children may step there.

    Parameters
    ----------
    targets : ndarray of int64, shape (p,)
        Between the sums of ``lower`` and of ``capacities``, at most 2**48.
    capacities, lower : ndarray of int64, shape (c,)
    offsets : ndarray of int64, shape (p + 1,)
    weights : ndarray of float64, shape (c,)
        Above 0, of 48 significant bits.

    Returns
    -------
    levels : ndarray of float64, shape (p,)
    quotas : ndarray of int64, shape (c,)
        Together not above the targets.
    steps : ndarray of bool, shape (c,)
        Children that give one more at a level that is larger by rounding; with all of them the targets are reached.
    """
    if len(targets) and int(targets.max()) > LARGEST_TARGET:
        raise ValueError(f"a target above {LARGEST_TARGET} cannot be shared by weights")
    low, high = _bracket(targets, capacities, offsets, lower, weights)
    counts = np.diff(offsets)
    low, high = low * (1 - _SLACK), high * (1 + _SLACK)
    quotas = _given(np.repeat(low, counts), weights, lower, capacities)
    steps = _given(np.repeat(high, counts), weights, lower, capacities) > quotas
    return low, quotas, steps


def _bracket(
    targets: Int64, capacities: Int64, offsets: Int64, lower: Int64, weights: Float64
) -> tuple[Float64, Float64]:
    """Neighbouring float64 numbers with Σ clamp(⌊c · weight⌋) ≤ target at the first and above it at the second.

    Where the target is all that the children hold, both are a number at which all are full.
    """
    parents = len(targets)
    active = np.flatnonzero(capacities > lower)
    owner = np.repeat(np.arange(parents, dtype=np.int64), np.diff(offsets))[active]
    weight, least, most = weights[active], lower[active], capacities[active]
    # The sum of those that have no choice, or no longer: the others shrink to a few after some twenty halvings.
    settled = segment_sums(np.where(capacities > lower, 0, lower), offsets)
    bounds = np.searchsorted(owner, np.arange(parents + 1))
    filled = np.flatnonzero(np.diff(bounds))
    total, full = np.ones(parents), np.zeros(parents)
    if len(filled):
        total[filled] = np.add.reduceat(weight, bounds[filled])
        full[filled] = np.maximum.reduceat((most + 1.0) / weight, bounds[filled])
    # All of the free part shared out without bounds, a little less for the rounding of the sum: not above the target.
    free = targets - segment_sums(lower, offsets)
    # The bits of floats that are not negative are ordered as the floats are, so that halving goes over whole numbers.
    high = (full * (1 + 2.0**-20)).view(np.int64)
    low = np.minimum((free / total * (1 - 2.0**-20)).view(np.int64), np.maximum(high - 1, 0))
    at_low, at_high = least, most
    while len(owner):
        middle = low + (high - low) // 2
        given = _given(middle.view(np.float64)[owner], weight, least, most)
        enough = settled + segment_sums(given, bounds) <= targets
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
        below = enough[owner]
        at_low, at_high = np.where(below, given, at_low), np.where(below, at_high, given)
        open_ = (at_low < at_high) & (high - low > 1)[owner]
        if np.count_nonzero(open_) <= 0.75 * len(owner):
            settled += segment_sums(np.where(open_, 0, at_low), bounds)
            owner, weight, least, most = owner[open_], weight[open_], least[open_], most[open_]
            at_low, at_high = at_low[open_], at_high[open_]
            bounds = np.searchsorted(owner, np.arange(parents + 1))
    # Where all are full there is no level above: how far the halving came would depend on the other parents.
    low = np.where(targets == segment_sums(capacities, offsets), high, low)
    return low.view(np.float64), high.view(np.float64)


def in_order_of_steps(steps: Int64, weights: Float64, keys: UInt64, segments: Int64) -> UInt64:
    """Keys that order children by the exact value of step / weight, and those of equal value by their own keys.

    Parameters
    ----------
    steps : ndarray of int64, shape (m,)
        What each would give next.
    weights : ndarray of float64, shape (m,)
    keys : ndarray of uint64, shape (m,)
    segments : ndarray of int64, shape (m,)
        Ascending: only children of one segment are compared.
    """
    if len(steps) < 2:
        return keys
    quotient, rest = _quotients(steps.astype(np.float64), weights)
    differs = (quotient[1:] != quotient[:-1]) | (rest[1:] != rest[:-1])
    differs &= segments[1:] == segments[:-1]
    if not differs.any():
        return keys
    mixed = np.zeros(int(segments[-1]) + 1, dtype=bool)
    mixed[segments[1:][differs]] = True
    index = np.flatnonzero(mixed[segments])
    order = index[np.lexsort((keys[index], rest[index], quotient[index], segments[index]))]
    ordered = keys.copy()
    ordered[order] = np.arange(len(order), dtype=np.uint64)
    return ordered


def _given(levels: Float64, weights: Float64, lower: Int64, capacities: Int64) -> Int64:
    given = levels * weights
    np.floor(given, out=given)
    whole = np.minimum(given, 2.0**62, out=given).astype(np.int64)
    np.minimum(whole, capacities, out=whole)
    return np.maximum(whole, lower, out=whole)


def _quotients(steps: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """step / weight as a rounded quotient and the rounded rest of it.

    step − quotient · weight is a float64 number for a correctly rounded quotient; the rounding error of the product is
    found by splitting both factors into halves (Dekker, Numerische Mathematik 18, 1971).
    """
    # Powers of two take nothing from the digits, and keep every product within range.
    mantissas, exponents = np.frexp(weights)
    quotient = steps / mantissas
    product = quotient * mantissas
    q_high, q_low = _halves(quotient)
    m_high, m_low = _halves(mantissas)
    error = ((q_high * m_high - product) + q_high * m_low + q_low * m_high) + q_low * m_low
    rest = ((steps - product) - error) / mantissas
    return np.ldexp(quotient, -exponents), np.ldexp(rest, -exponents)


def _halves(values: Float64) -> tuple[Float64, Float64]:
    scaled = values * _SPLITTER
    high = scaled - (scaled - values)
    return high, values - high
