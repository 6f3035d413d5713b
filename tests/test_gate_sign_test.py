"""The sign test: small games enumerated exactly, the rest as properties."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.gate.level import exact
from gainful.gate.sign_test import SignTest, critical_values, fewest_wins

differences = st.lists(st.sampled_from((-1, 0, 1)), max_size=60)
tests_of_60 = st.builds(SignTest, size=st.just(60), level=st.sampled_from((0.0127, 0.05, 0.2, 0.5)))


@pytest.mark.parametrize("level", [0.9, 0.5, 0.2, 0.05, 0.0127])
@pytest.mark.parametrize("ties", [(), (0, 1, 2), (1, 5, 6), tuple(range(4, 9))])
def test_a_fair_game_promotes_exactly_as_often_as_was_spent_and_never_more_than_the_level(
    level: float, ties: tuple[int, ...]
) -> None:
    """All 2^d games that share the places of their ties: the test is conditional, so each set is one experiment."""
    test = SignTest(9, level)
    choices = [(0,) if i in ties else (1, -1) for i in range(test.size)]
    at_looks = [n - sum(i < n for i in ties) for n in test.looks]
    criticals, spent = critical_values(at_looks, test.spending)

    crossed = promoted = 0
    for game in product(*choices):
        crossed += crosses(game, test.looks, criticals)
        promoted += test.judge(game).decision == "promote"

    games = 2 ** at_looks[-1]
    assert Fraction(promoted, games) <= Fraction(crossed, games) == spent[-1] <= exact(level)


def crosses(game: Sequence[int], looks: Sequence[int], criticals: Sequence[int | None]) -> bool:
    """Whether the wins ever reach their boundary."""
    return any(c is not None and game[:n].count(1) >= c for n, c in zip(looks, criticals, strict=True))


@pytest.mark.parametrize("win", [Fraction(1, 2), Fraction(2, 5), Fraction(1, 10)])
def test_a_worse_challenger_is_promoted_no_more_often_than_the_level(win: Fraction) -> None:
    test = SignTest(9, 0.2)

    promoted = Fraction(0)
    for game in product((1, -1), repeat=9):
        if test.judge(game).decision == "promote":
            promoted += win ** game.count(1) * (1 - win) ** game.count(-1)

    assert promoted <= Fraction(1, 5)


def test_critical_values_are_the_smallest_that_the_budget_allows() -> None:
    """Against a second way of counting: paths one by one rather than by convolution."""
    discordant, allowed = [3, 5, 9, 11], [Fraction(1, 8), Fraction(1, 4), Fraction(1, 3), Fraction(2, 5)]
    criticals, spent = critical_values(discordant, allowed)

    for look, (d, critical) in enumerate(zip(discordant, criticals, strict=True)):
        assert critical is not None

        def spent_with(last: int, look: int = look, d: int = d) -> Fraction:
            boundaries = [*criticals[:look], last]
            crossed = sum(
                any(sum(path[:n]) >= c for n, c in zip(discordant, boundaries, strict=False) if c is not None)
                for path in product((0, 1), repeat=d)
            )
            return Fraction(crossed, 2**d)

        assert spent_with(critical) == spent[look] <= allowed[look] < spent_with(critical - 1)


def test_looks_without_discordant_pairs_have_no_boundary_and_go_on() -> None:
    judgement = SignTest(240, 0.0127).judge([0] * 48)

    assert [look.boundary for look in judgement.looks] == [None, None, None]
    assert judgement.decision == "continue"


def test_a_boundary_out_of_reach_is_none() -> None:
    judgement = SignTest(100, 0.01).judge([1] * 10)

    assert [look.boundary for look in judgement.looks] == [None, None]
    assert judgement.decision == "continue"


def test_a_huge_gain_is_promoted_early() -> None:
    judgement = SignTest(240, 0.0127).judge([1, 0] * 120)

    assert judgement.decision == "promote"
    assert judgement.looks[-1].n <= 72


def test_futility_stops_a_losing_challenger_early() -> None:
    judgement = SignTest(240, 0.0127).judge([-1, 0, 1, 0, 0, -1] * 40)

    assert judgement.decision == "stop"
    assert judgement.looks[-1].n < 240
    assert judgement.looks[-1].conditional_power < 0.1


def test_futility_never_stops_at_the_first_look_of_a_quiet_start() -> None:
    assert all(SignTest(size, 0.0127).judge([0] * -(-size // 20)).decision == "continue" for size in range(60, 600, 7))


@pytest.mark.parametrize("level", [0.2, 0.0127, 1e-6])
def test_an_unbroken_row_of_wins_is_never_given_up(level: float) -> None:
    for size in (20, 21, 37, 60, 240):
        for n in range(size):
            assert SignTest(size, level).judge([1] * n).decision in ("continue", "promote"), (size, n)


def test_the_last_look_decides() -> None:
    close = [1, 1, -1, 1, 0] * 12

    judgement = SignTest(60, 0.0001).judge(close)

    assert judgement.decision == "stop"
    assert SignTest(2, 0.01).judge([1, 1]).decision == "stop"


@settings(max_examples=40, deadline=None)
@given(tests_of_60, differences)
def test_judging_a_prefix_gives_a_prefix_of_the_looks(test: SignTest, game: list[int]) -> None:
    whole = test.judge(game)

    for n in range(len(game)):
        looks = test.judge(game[:n]).looks
        assert looks == whole.looks[: len(looks)]
        assert len(looks) == min(len(whole.looks), sum(look <= n for look in test.looks))


@settings(max_examples=40, deadline=None)
@given(tests_of_60, differences)
def test_every_look_obeys_its_boundary(test: SignTest, game: list[int]) -> None:
    for look in test.judge(game).looks:
        assert (look.wins, look.losses) == (game[: look.n].count(1), game[: look.n].count(-1))
        assert look.statistic == look.wins
        assert (look.decision == "promote") == (look.boundary is not None and look.wins >= look.boundary)
        assert look.boundary is None or look.wins + look.losses >= look.boundary > (look.wins + look.losses) / 2 - 1


@settings(max_examples=40, deadline=None)
@given(tests_of_60, st.lists(st.sampled_from((-1, 0, 1)), min_size=60, max_size=60), st.data())
def test_turning_losses_into_wins_never_leaves_the_promoting_side(
    test: SignTest, game: list[int], data: st.DataObject
) -> None:
    losses = [i for i, difference in enumerate(game) if difference == -1]
    turned = data.draw(st.sets(st.sampled_from(losses))) if losses else set()
    better = [1 if i in turned else difference for i, difference in enumerate(game)]

    criticals, _ = critical_values([n - game[:n].count(0) for n in test.looks], test.spending)

    assert crosses(better, test.looks, criticals) >= crosses(game, test.looks, criticals)


@settings(max_examples=40, deadline=None)
@given(tests_of_60, st.integers(0, 60), st.integers(0, 60))
def test_more_wins_among_as_many_pairs_promote_the_sooner(test: SignTest, wins: int, fewer: int) -> None:
    """Wins first, then losses: the prefix of the winner dominates at every look."""
    few, many = sorted((wins, fewer))
    decisions = [test.judge([1] * w + [-1] * (60 - w)) for w in (few, many)]

    assert (decisions[0].decision == "promote") <= (decisions[1].decision == "promote")


def test_pairs_after_the_deciding_look_change_nothing() -> None:
    test = SignTest(60, 0.05)
    decided = test.judge([1] * 18)

    assert decided.decision == "promote"
    assert test.judge([1] * 18 + [-1] * 42) == decided


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.floats(1e-6, 0.99))
def test_spending_never_falls_and_ends_at_the_level(size: int, level: float) -> None:
    spending = SignTest(size, level).spending

    assert list(spending) == sorted(spending)
    assert len(spending) == len(SignTest(size, level).looks)
    assert spending[-1] == exact(level)


def test_spending_is_that_of_lan_and_demets() -> None:
    """2 (1 - Phi(2.2414 / sqrt(t))) at level 0.025: 0.00153 at half of the cases, 0.00965 at three quarters."""
    spending = dict(zip(SignTest(200, 0.025).looks, SignTest(200, 0.025).spending, strict=True))

    assert float(spending[100]) == pytest.approx(0.001525, abs=1e-6)
    assert float(spending[140]) == pytest.approx(0.0073838, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.fractions(Fraction(1, 10**6), Fraction(1, 2)))
def test_fewest_wins_is_the_binomial_quantile(d: int, level: Fraction) -> None:
    fits = [c for c in range(d + 1) if Fraction(sum(comb(d, k) for k in range(c, d + 1)), 2**d) <= level]

    assert fewest_wins(d, level) == min(fits, default=None)


@pytest.mark.parametrize(
    ("game", "words"),
    [
        ([1, 0.5], "pair 1: difference 0.5 is not -1, 0 or 1; use EProcess"),
        ([float("nan")], "pair 0: difference nan"),
        ([0] * 11, "11 differences for a test of size 10; give at most"),
    ],
)
def test_differences_that_are_no_game_are_refused(game: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SignTest(10, 0.05).judge(game)


@pytest.mark.parametrize(("size", "level"), [(0, 0.05), (-3, 0.05), (10, 0.0), (10, 1.0), (10, float("nan"))])
def test_a_test_that_cannot_be_is_refused(size: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"; (give it at least one|a level is a probability)"):
        SignTest(size, level)


def test_reasons_are_sentences_for_people() -> None:
    test = SignTest(40, 0.05)

    assert test.judge([]).reason == "no look yet; the first comes after 2 of 40 cases"
    assert test.judge([0, 1]).reason == "undecided after 2 of 40 cases: 1 wins, 0 losses"
    assert test.judge([1, 0] * 10).reason.startswith("promoted after 20 of 40 cases: 10 wins, 0 losses; ")
    assert "the chance that the rest would promote is " in test.judge([-1] * 40).reason
    assert SignTest(1, 0.01).judge([1]).reason == (
        "not promoted after 1 of 1 cases: 1 wins, 0 losses; the cases are used up"
    )
