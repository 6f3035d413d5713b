"""What can be shown, before and during a confirmation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.gate.budget import Budget
from gainful.gate.power import cases_for, certifiable_gain, conditional_power, outlook
from gainful.gate.sign_test import SignTest

FIRST = Budget().level


def test_cases_for_a_gain_at_the_first_level_are_those_of_the_design() -> None:
    """+10 points need about 370 cases, +5 about 1,465, +2 about 9,200, at a discordance of 0.3."""
    assert cases_for(0.10, FIRST) == pytest.approx(370, rel=0.015)
    assert cases_for(0.05, FIRST) == pytest.approx(1465, rel=0.015)
    assert cases_for(0.02, FIRST) == pytest.approx(9200, rel=0.015)


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 10_000), st.floats(1e-6, 0.2), st.floats(0.05, 1.0))
def test_the_certifiable_gain_is_the_smallest_that_the_cases_suffice_for(
    size: int, level: float, discordance: float
) -> None:
    gain = certifiable_gain(size, level, discordance=discordance)

    if gain is None:
        assert cases_for(1.0, level, discordance=discordance) > size
    else:
        assert cases_for(gain, level, discordance=discordance) <= size
        assert gain <= 0.001 or cases_for(gain - 0.001, level, discordance=discordance) > size


def test_a_hold_out_too_small_to_certify_anything_is_known() -> None:
    """At level 1/64 six wins in a row are just enough, five are not."""
    assert certifiable_gain(5, 1 / 64) is None
    assert certifiable_gain(6, 1 / 64) is not None
    assert SignTest(6, 1 / 64).judge([1] * 6).decision == "promote"
    assert SignTest(5, 1 / 64).judge([1] * 5).decision == "stop"


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "discordance"), [(0.10, 0.3), (0.15, 0.3), (0.37, 0.37), (0.05, 0.1)])
def test_the_real_test_has_the_power_that_was_planned(gain: float, discordance: float) -> None:
    """1,500 seeded confirmations: the share promoted lies within 4 points of 90 %."""
    rng = random.Random(7)
    size = cases_for(gain, FIRST, discordance=discordance)
    test = SignTest(size, FIRST)
    weights = ((discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance)

    promoted = sum(test.judge(rng.choices((1, -1, 0), weights, k=size)).decision == "promote" for _ in range(1500))

    assert promoted / 1500 == pytest.approx(0.9, abs=0.04)


def test_conditional_power_is_the_chance_of_a_sum() -> None:
    assert conditional_power(0.0, 100, 0.0, 0.3) == pytest.approx(0.5)
    assert conditional_power(10.0, 100, 0.0, 0.3) == pytest.approx(0.0339, abs=1e-4)
    assert conditional_power(-1.0, 0, 0.0, 0.3) == 1.0
    assert conditional_power(1.0, 0, 0.0, 0.3) == 0.0


def test_the_outlook_is_optimistic_and_never_below_the_margin() -> None:
    assert outlook(100, total=10, squares=30).drift == pytest.approx(0.1 + 2 * (((31 / 101) - 0.01) / 100) ** 0.5)
    assert outlook(100, total=-80, squares=90).drift == 0.0
    assert outlook(100, total=-80, squares=90, margin=0.05).drift == 0.05
    assert outlook(3, total=3, squares=3).drift == 1.0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.data())
def test_the_outlook_is_a_possible_distribution(n: int, data: st.DataObject) -> None:
    wins = data.draw(st.integers(0, n))
    losses = data.draw(st.integers(0, n - wins))

    belief = outlook(n, wins - losses, wins + losses)

    assert 0.0 <= belief.drift <= belief.square <= 1.0
    assert belief.variance >= 0.0


@pytest.mark.parametrize(
    ("gain", "power", "discordance", "words"),
    [
        (0.0, 0.9, 0.3, "gain 0.0 is outside"),
        (5.0, 0.9, 0.3, "give it as a share, 0.05 for 5 points"),
        (0.1, 1.0, 0.3, "power 1.0 is outside"),
        (0.1, 0.9, 1.3, "discordance 1.3 is outside"),
    ],
)
def test_plans_that_cannot_be_are_refused(gain: float, power: float, discordance: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cases_for(gain, 0.05, power, discordance)


def test_a_hold_out_without_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="a hold-out of size 0 has no cases"):
        certifiable_gain(0, 0.05)
