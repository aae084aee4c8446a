"""Weighted water-filling against exact fractions."""

from __future__ import annotations

from decimal import Decimal, getcontext
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.sampling import quotas as module
from streamcurate.sampling.quotas import fill
from streamcurate.sampling.weighted import (
    LARGEST_TARGET,
    LARGEST_WEIGHT,
    SMALLEST_WEIGHT,
    in_order_of_steps,
    powers,
    rounded_weights,
)

KEYS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
# Neighbours in the last bit, multiples whose steps tie exactly, thirds that do not, and what lies far apart.
WEIGHTS = st.one_of(
    st.integers(1, 12).map(float),
    st.integers(1, 9).map(lambda number: number / 3),
    st.integers(-3, 3).map(lambda steps: 1 + steps * 2.0**-47),
    st.floats(1e-3, 1e3),
    st.sampled_from([SMALLEST_WEIGHT, LARGEST_WEIGHT]),
)


def one_unit_at_a_time(target, capacities, keys, lower, weights):
    """Oracle: every unit goes to the child whose next step comes first, in exact fractions; ties by (key, position)."""
    quotas = list(lower)
    for _ in range(target - sum(lower)):
        open_children = [i for i in range(len(quotas)) if quotas[i] < capacities[i]]
        quotas[min(open_children, key=lambda i: (Fraction(quotas[i] + 1) / Fraction(weights[i]), keys[i], i))] += 1
    return quotas


@st.composite
def parents(draw, largest=12):
    cases = []
    for _ in range(draw(st.integers(1, 4))):
        family = draw(st.lists(st.tuples(st.integers(0, largest), KEYS, st.integers(0, largest), WEIGHTS), max_size=6))
        lower = [min(low, cap) for cap, _, low, _ in family]
        capacities = [cap for cap, *_ in family]
        target = draw(st.integers(sum(lower), max(sum(lower), min(sum(capacities), LARGEST_TARGET))))
        weights = rounded_weights(np.array([weight for *_, weight in family])).tolist()
        cases.append((target, capacities, [key for _, key, *_ in family], lower, weights))
    return cases


def flat(cases):
    return (
        np.array([case[0] for case in cases], dtype=np.int64),
        np.array([c for case in cases for c in case[1]], dtype=np.int64),
        np.cumsum([0] + [len(case[1]) for case in cases]).astype(np.int64),
        np.array([key for case in cases for key in case[2]], dtype=np.uint64),
        np.array([low for case in cases for low in case[3]], dtype=np.int64),
        np.array([weight for case in cases for weight in case[4]], dtype=np.float64),
    )


@given(parents())
def test_quotas_are_those_of_handing_out_one_unit_at_a_time(cases):
    expected = [quota for case in cases for quota in one_unit_at_a_time(*case)]
    assert fill(*flat(cases)).quotas.tolist() == expected


@given(parents(largest=2**45))
def test_large_quotas_are_in_the_exact_order_of_their_steps(cases):
    quotas = fill(*flat(cases)).quotas.tolist()
    for target, capacities, keys, lower, weights in cases:
        mine, quotas = quotas[: len(capacities)], quotas[len(capacities) :]
        assert sum(mine) == target
        assert all(low <= quota <= cap for low, quota, cap in zip(lower, mine, capacities, strict=True))
        steps = range(len(mine))
        last = [(Fraction(mine[i]) / Fraction(weights[i]), keys[i], i) for i in steps if mine[i] > lower[i]]
        following = [
            (Fraction(mine[i] + 1) / Fraction(weights[i]), keys[i], i) for i in steps if mine[i] < capacities[i]
        ]
        assert not last or not following or max(last) < min(following)


@settings(max_examples=30)
@given(parents(), st.integers(1, 9))
def test_the_pieces_filled_together_do_not_matter(cases, piece):
    arguments = flat(cases)
    whole = fill(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", piece)
        parts = fill(*arguments)
    for name in ("quotas", "levels", "remainders", "takers"):
        assert getattr(parts, name).tolist() == getattr(whole, name).tolist()


@settings(max_examples=30)
@given(parents(largest=40), st.floats(SMALLEST_WEIGHT, LARGEST_WEIGHT))
def test_equal_weights_are_none(cases, weight):
    *arguments, weights = flat(cases)
    equal = rounded_weights(np.full(len(weights), weight))
    assert fill(*arguments, equal).quotas.tolist() == fill(*arguments).quotas.tolist()


@settings(max_examples=30)
@given(parents(largest=40))
def test_a_larger_target_takes_nothing_from_a_child(cases):
    targets, capacities, offsets, keys, lower, weights = flat(cases)
    sums = np.array([sum(case[1]) for case in cases])
    before = fill(targets, capacities, offsets, keys, lower, weights).quotas
    after = fill(np.minimum(targets + 1, sums), capacities, offsets, keys, lower, weights).quotas
    assert (after >= before).all()


@settings(max_examples=30)
@given(parents(largest=40))
def test_levels_and_remainders_say_how_the_quotas_come_about(cases):
    targets, capacities, offsets, keys, lower, weights = flat(cases)
    found = fill(targets, capacities, offsets, keys, lower, weights)
    levels = np.repeat(found.levels, np.diff(offsets))
    given_ = np.clip(np.minimum(np.floor(levels * weights), 1e15).astype(np.int64), lower, capacities)
    assert set((found.quotas - given_).tolist()) <= {0, 1}
    assert [int((found.quotas - given_)[a:b].sum()) for a, b in pairwise(offsets.tolist())] == (
        found.remainders.tolist()
    )
    assert (found.remainders <= found.takers).all() or (found.takers == 0).all()


def test_equal_quotients_are_ties_and_others_are_not():
    # 1/3 and 2/6 are equal; 1/(3 − 2⁻⁴⁶) is a little more.
    weights = np.array([3.0, 6.0, 3.0 - 2.0**-46])
    order = in_order_of_steps(np.array([1, 2, 1]), weights, np.array([9, 5, 0], np.uint64), np.zeros(3, np.int64))
    assert np.argsort(order).tolist() == [1, 0, 2]


def test_targets_too_large_for_weights_are_refused():
    sizes = np.array([2**60])
    with pytest.raises(ValueError, match="cannot be shared by weights"):
        fill(np.array([LARGEST_TARGET + 1]), sizes, np.array([0, 1]), np.zeros(1, np.uint64), None, np.ones(1))


@given(st.integers(1, 2**60), st.floats(0, 1))
def test_powers_are_powers(size, exponent):
    getcontext().prec = 40
    rounded = Decimal(round(exponent * 2**24)) / 2**24
    expected = Decimal(size) ** rounded
    assert abs(Decimal(float(powers(np.array([size]), exponent)[0])) / expected - 1) < Decimal("1e-14")


def test_powers_of_the_ends_are_exact():
    sizes = np.array([0, 1, 7, 2**50 + 1])
    assert powers(sizes, 0).tolist() == [1, 1, 1, 1]
    assert powers(sizes, 1).tolist() == [1, 1, 7, 2**50 + 1]
    assert powers(np.array([4, 49]), 0.5).tolist() == [2, 7]
    # The very bits, for every machine: only square roots and products of float64 are used.
    assert [value.hex() for value in powers(np.array([10, 12345]), 0.3).tolist()] == [
        "0x1.fec983c0f5722p+0",
        "0x1.0e206928fc539p+4",
    ]


@given(st.floats(SMALLEST_WEIGHT, LARGEST_WEIGHT))
def test_weights_are_rounded_to_48_bits(weight):
    rounded = float(rounded_weights(np.array([weight]))[0])
    mantissa = Fraction(rounded)
    while mantissa.denominator > 1 or mantissa.numerator % 2 == 0:
        mantissa *= 2 if mantissa.denominator > 1 else Fraction(1, 2)
    assert mantissa.numerator < 2**48
    assert abs(Fraction(rounded) / Fraction(weight) - 1) <= Fraction(1, 2**48)
