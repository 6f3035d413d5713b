"""Intervals: their coverage, by enumeration where it can be enumerated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.gate.intervals import interval, lower_bound, mean_interval, proportion_interval

RATES = [0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99]


def tail(n: int, k: int, p: float) -> float:
    return sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


@pytest.mark.parametrize("level", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_a_proportion_interval_misses_on_either_side_no_more_often_than_half_its_level(n: int, level: float) -> None:
    intervals = [proportion_interval(k, n, level) for k in range(n + 1)]

    for p in RATES:
        chance = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        assert sum(c for c, (low, _) in zip(chance, intervals, strict=True) if low > p) <= level / 2
        assert sum(c for c, (_, high) in zip(chance, intervals, strict=True) if high < p) <= level / 2


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.data())
def test_the_ends_of_a_proportion_interval_are_where_the_tails_hold_half_the_level(n: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, n))

    low, high = proportion_interval(passed, n, 0.05)

    assert low == 0.0 if passed == 0 else tail(n, passed, low) == pytest.approx(0.025, rel=1e-6)
    assert high == 1.0 if passed == n else tail(n, n - passed, 1 - high) == pytest.approx(0.025, rel=1e-6)
    assert low <= passed / n <= high


def test_none_of_ten_has_the_closed_form() -> None:
    assert proportion_interval(0, 10, 0.05) == (0.0, pytest.approx(1 - 0.025**0.1, abs=1e-9))
    assert proportion_interval(10, 10, 0.05) == (pytest.approx(0.025**0.1, abs=1e-9), 1.0)


def test_proportions_of_large_numbers_are_computed_too() -> None:
    low, high = proportion_interval(3000, 10_000, 0.05)

    assert (low, high) == (pytest.approx(0.291, abs=2e-4), pytest.approx(0.3091, abs=2e-4))
    assert proportion_interval(1, 10**6, 0.05)[1] == pytest.approx(5.5716e-6, rel=1e-3)


DIFFERENCES: list[tuple[Sequence[float], Sequence[float]]] = [
    ((-1, 0, 1), (0.2, 0.5, 0.3)),
    ((-1, 0, 1), (0.0, 0.9, 0.1)),
    ((-1, 0, 1), (0.5, 0.0, 0.5)),
    ((-0.5, 0.1, 1), (0.3, 0.3, 0.4)),
    ((-1, 0.9, 1), (0.1, 0.5, 0.4)),
]


@pytest.mark.parametrize(("values", "chances"), DIFFERENCES)
@pytest.mark.parametrize("level", [0.5, 0.2])
def test_the_lower_bound_is_ever_above_the_mean_no_more_often_than_its_level(
    values: Sequence[float], chances: Sequence[float], level: float
) -> None:
    """All 3^5 games; bounds never fall, so the one at the end is the highest of the game."""
    mean = sum(v * c for v, c in zip(values, chances, strict=True))

    missed = 0.0
    for game in product(range(3), repeat=5):
        if lower_bound([values[i] for i in game], level, 5) > mean:
            missed += prod(chances[i] for i in game)

    assert missed <= level


def test_a_mean_interval_misses_no_more_often_than_its_level() -> None:
    """All 2^8 samples of pass or fail, each in its order, at eleven pass rates."""
    intervals = [(sum(scores), mean_interval(scores, 0.3)) for scores in product((0.0, 1.0), repeat=8)]

    for p in RATES:
        missed = sum(p**k * (1 - p) ** (8 - k) for k, (low, high) in intervals if not low <= p <= high)
        assert missed <= 0.3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_a_lower_bound_is_never_loosened_by_more_cases(game: list[float]) -> None:
    bounds = [lower_bound(game[:n], 0.2, 30) for n in range(1, len(game) + 1)]

    assert bounds == sorted(bounds)
    assert all(-1.0 <= bound <= 1.0 for bound in bounds)


def test_the_stake_on_a_case_does_not_look_at_it() -> None:
    """Of ten cases the first has horizon (1 + 0.3 * 10)/1.3, variance 1/4; a win doubles the money at 1 - 1/stake."""
    stake = (2 * 0.6931471805599453 / (0.25 * (1 + 3) / 1.3)) ** 0.5

    assert lower_bound([1.0], 0.5, 10) == pytest.approx(2 * (1 - 1 / stake) - 1, abs=1e-9)


def test_the_money_at_the_bound_is_one_over_the_level_by_the_formula() -> None:
    """The formula of the module, written out for one game of six planned as ten, level 1/2."""
    values = [1.0, 0.6, 1.0, 0.9, 0.3, 1.0]
    mean = (lower_bound([2 * y - 1 for y in values], 0.5, 10) + 1) / 2

    money = [1.0]
    for i, value in enumerate(values, start=1):
        running = [(0.5 + sum(values[:j])) / (j + 1) for j in range(1, i)]
        variance = (0.25 + sum((y - m) ** 2 for y, m in zip(values, running, strict=False))) / i
        stake = (2 * 0.6931471805599453 / (variance * (i + 0.3 * 10) / 1.3)) ** 0.5
        money.append(money[-1] * (1 + min(stake, 0.75 / mean) * (value - mean)))

    assert max(money) == pytest.approx(2.0, rel=1e-9)


def test_a_longer_run_of_the_same_gain_is_known_more_closely() -> None:
    game = [1, 0, 0, 1, 0, -1, 0, 0, 1, 0]

    bounds = [lower_bound(game * k, 0.05, 10 * k) for k in (2, 8, 32, 128)]

    assert bounds == sorted(bounds)
    assert bounds[-1] > 0.15
    assert all(bound < 0.2 for bound in bounds)


def test_an_interval_holds_the_mean_and_follows_the_scale() -> None:
    scores = [0.2, 0.9, 0.5, 0.7] * 20

    low, high = interval(scores, 0.05, 100)
    wide_low, wide_high = interval([10 * s - 5 for s in scores], 0.05, 100, -5.0, 5.0)

    assert low < 0.575 < high
    assert (wide_low, wide_high) == (pytest.approx(10 * low - 5, abs=1e-9), pytest.approx(10 * high - 5, abs=1e-9))
    assert mean_interval([1 - s for s in scores], 0.05) == pytest.approx(
        tuple(1 - end for end in reversed(mean_interval(scores, 0.05))), abs=1e-9
    )


def test_a_two_sided_interval_is_two_bounds_at_half_the_level() -> None:
    game = [1.0, 0.0, -1.0, 1.0, 0.5] * 10

    low, high = interval(game, 0.1, 60, -1.0, 1.0)

    assert low == pytest.approx(lower_bound(game, 0.05, 60), abs=1e-9)
    assert high == pytest.approx(-lower_bound([-d for d in game], 0.05, 60), abs=1e-9)


def test_constant_scores_keep_their_ends() -> None:
    assert mean_interval([0.0] * 50, 0.05)[0] == 0.0
    assert mean_interval([1.0] * 50, 0.05)[1] == 1.0
    assert mean_interval([1.0] * 50, 0.05)[0] > 0.85


def test_numbers_that_make_no_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="11 passed of 10; give"):
        proportion_interval(11, 10, 0.05)
    with pytest.raises(ValueError, match="0 passed of 0; give"):
        proportion_interval(0, 0, 0.05)
    with pytest.raises(ValueError, match="0 values of 10 planned; give"):
        lower_bound([], 0.05, 10)
    with pytest.raises(ValueError, match="3 values of 2 planned; give"):
        lower_bound([0, 0, 0], 0.05, 2)
    with pytest.raises(ValueError, match=r"value 1: 1.2 is outside \[0, 1\]; scores"):
        mean_interval([0.0, 1.2], 0.05)
    with pytest.raises(ValueError, match=r"level 2\.0 is outside"):
        mean_interval([0.0, 1.0], 2.0)
