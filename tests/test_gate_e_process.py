"""The e-process: a supermartingale, checked branch by branch."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.gate.e_process import EProcess, beta_binomial_e_value
from gainful.gate.sign_test import SignTest

graded = st.lists(st.floats(-1, 1), max_size=40)
E_40 = EProcess(40, 0.0127)


def evidence(game: list[float], margin: float) -> float:
    """The evidence after all of *game*: the first look of a test of twenty times the size comes right there."""
    (look,) = EProcess(20 * len(game), 1e-9, margin).judge(game).looks
    assert look.n == len(game)
    return look.statistic


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.1])
@pytest.mark.parametrize("start", [[], [1.0], [0.5, -1.0, 0.2], [-1.0] * 4, [1.0, 1.0, 0.0, 1.0]])
def test_no_bet_on_a_challenger_at_the_margin_is_expected_to_win(margin: float, start: list[float]) -> None:
    """Two outcomes with mean at the margin exactly: the next evidence averages to the present one."""
    held = evidence(start, margin) if start else 1.0

    for low, high in [(-1.0, 1.0), (-0.5, 1.0), (-1.0, 0.4)]:
        up = (margin - low) / (high - low)
        expected = up * evidence([*start, high], margin) + (1 - up) * evidence([*start, low], margin)
        assert expected == pytest.approx(held, rel=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.3, 0.2])
def test_fair_games_are_promoted_no_more_often_than_the_level(level: float) -> None:
    """All 3^6 games of a third each."""
    test = EProcess(6, level)

    promoted = sum(test.judge(game).decision == "promote" for game in product((-1.0, 0.0, 1.0), repeat=6))

    assert promoted / 3**6 <= level
    assert promoted > 0


def test_evidence_is_the_mean_over_stakes_of_the_products() -> None:
    game = [0.5, -0.25, 1.0, 0.0, -1.0]
    stakes = [stake / 1.1 for stake in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)]

    by_hand = sum(math.prod(1 + stake * (d - 0.1) for d in game) for stake in stakes) / 6

    assert evidence(game, 0.1) == pytest.approx(by_hand, rel=1e-12)


def test_a_gain_above_the_margin_is_promoted_and_the_margin_itself_is_not() -> None:
    test = EProcess(400, 0.0127, margin=0.05)

    assert test.judge([0.4, 0.1, -0.1, 0.2] * 100).decision == "promote"
    assert test.judge([0.1, 0.0] * 200).decision == "stop"


def test_non_inferiority_is_a_negative_margin() -> None:
    equal = [0.1, -0.1] * 200

    assert EProcess(400, 0.0127, margin=-0.1).judge(equal).decision == "promote"
    assert EProcess(400, 0.0127).judge(equal).decision == "stop"


@pytest.mark.parametrize("step", range(1, 21))
def test_promotion_comes_at_the_first_look_whose_evidence_is_one_over_the_level(step: int) -> None:
    looks = EProcess(200, 0.05).judge([step / 20] * 200).looks

    assert {look.boundary for look in looks} == {20.0}
    assert [look.decision == "promote" for look in looks] == [look.statistic >= 20.0 for look in looks]


def test_evidence_stays_a_finite_number_however_long_the_row_of_wins() -> None:
    look = EProcess(5000, 1e-290).judge([1.0] * 2500).looks[-1]

    assert look.decision == "promote"
    assert math.isfinite(look.statistic)


def test_evidence_against_stays_a_number_however_long_the_row_of_losses() -> None:
    looks = EProcess(20000, 0.05).judge([-1.0] * 20000).looks

    assert looks[-1].decision == "stop"
    assert 0.0 <= looks[-1].statistic < 1.0


def test_futility_stops_a_losing_challenger_but_not_a_quiet_start() -> None:
    assert E_40.judge([-0.5] * 40).looks[-1].n < 40
    assert EProcess(240, 0.0127).judge([0.0] * 12).decision == "continue"


def test_a_clear_lead_is_never_given_up() -> None:
    for n in range(240):
        assert EProcess(240, 0.0127).judge([0.6, 0.2, 0.0, 0.4] * 60).decision == "promote"
        assert EProcess(240, 0.0127).judge(([0.3, 0.1, 0.0, 0.2] * 60)[:n]).decision in ("continue", "promote")


@settings(max_examples=40, deadline=None)
@given(graded)
def test_judging_a_prefix_gives_a_prefix_of_the_looks(game: list[float]) -> None:
    whole = E_40.judge(game)

    for n in range(len(game)):
        looks = E_40.judge(game[:n]).looks
        assert looks == whole.looks[: len(looks)]
        assert len(looks) == min(len(whole.looks), sum(look <= n for look in E_40.looks))


@settings(max_examples=40, deadline=None)
@given(graded, st.data())
def test_a_better_game_has_more_evidence(game: list[float], data: st.DataObject) -> None:
    better = [data.draw(st.floats(difference, 1)) for difference in game]

    for look, more in zip(E_40.judge(game).looks, E_40.judge(better).looks, strict=False):
        assert more.statistic >= look.statistic * (1 - 1e-12)


def test_both_tests_look_at_the_same_moments() -> None:
    assert all(EProcess(size, 0.05).looks == SignTest(size, 0.05).looks for size in range(1, 300))


def test_the_pass_fail_evidence_is_a_martingale_in_exact_fractions() -> None:
    for wins, losses in product(range(12), repeat=2):
        up, down = beta_binomial_e_value(wins + 1, losses), beta_binomial_e_value(wins, losses + 1)

        assert (up + down) / 2 == beta_binomial_e_value(wins, losses)
        assert up > down


def test_the_pass_fail_evidence_is_the_integral_it_stands_for() -> None:
    """The midpoint rule on 2^d p^w (1-p)^l against Beta(10, 10) on [1/2, 1], 4,000 steps."""
    points = [0.5 + (i + 0.5) / 8000 for i in range(4000)]
    prior = [p**9 * (1 - p) ** 9 for p in points]
    integral = sum(w * 2**15 * p**11 * (1 - p) ** 4 for w, p in zip(prior, points, strict=True)) / sum(prior)

    assert float(beta_binomial_e_value(11, 4)) == pytest.approx(integral, rel=1e-6)


def test_no_evidence_is_one() -> None:
    assert beta_binomial_e_value(0, 0) == Fraction(1)


@pytest.mark.parametrize(
    ("game", "words"),
    [
        ([0.1, 1.5], r"pair 1: difference 1.5 is outside \[-1, 1\]; scores must"),
        ([float("nan")], "pair 0: difference nan"),
        ([0.0] * 41, "41 differences for a test of size 40; give at most"),
    ],
)
def test_differences_that_are_no_game_are_refused(game: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        E_40.judge(game)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"margin 1.0 is outside \(-1, 1\); it is"):
        EProcess(40, 0.05, 1.0)
    with pytest.raises(ValueError, match="a test of size 0 has no cases; give"):
        EProcess(0, 0.05)
    with pytest.raises(ValueError, match=r"level 2\.0 is outside"):
        EProcess(10, 2.0)
    with pytest.raises(ValueError, match="-1 wins and 0 losses; counts are not negative"):
        beta_binomial_e_value(-1, 0)
