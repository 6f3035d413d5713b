"""The canary: both errors bounded at every moment, harm seen soon."""

from __future__ import annotations

import random
from itertools import product
from math import prod
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.gate import Canary, EProcess, proportion_interval
from gainful.gate.canary import LEAST
from gainful.watch.canary import LEVEL_QUALITY

graded = st.lists(st.floats(-1, 1), max_size=40)


def fed(differences: list[float], margin: float = 0.02, level: float = 0.05) -> Canary:
    canary = Canary(margin, level, level)
    for difference in differences:
        canary.see(difference)
    return canary


def block(luck: random.Random, quality: float, gain: float, size: int) -> float:
    """One difference of pass/fail scores from a block of *size* requests, one of them the challenger's."""
    champion = sum(luck.random() < quality for _ in range(size - 1)) / (size - 1)
    return (luck.random() < quality + gain) - champion


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("start", [[], [1.0], [0.5, -1.0, 0.2], [-1.0] * 4])
def test_no_bet_on_a_challenger_at_the_margin_is_expected_to_win(margin: float, start: list[float]) -> None:
    """Two outcomes whose mean is -margin exactly: the next evidence averages to the present one, on both sides."""
    for low, high in [(-1.0, 1.0), (-0.5, 1.0), (-1.0, 0.4)]:
        up = (-margin - low) / (high - low)
        better, worse, now = fed([*start, high], margin), fed([*start, low], margin), fed(start, margin)

        assert up * better.harm + (1 - up) * worse.harm == pytest.approx(now.harm, rel=1e-12)
        assert up * better.worth + (1 - up) * worse.worth == pytest.approx(now.worth, rel=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.3])
def test_both_errors_at_the_boundary_are_no_more_often_than_their_level(level: float) -> None:
    """All 3^7 games of a mean of -0.1; a step may come at any moment, before the least number of differences too."""
    chances = {-1.0: 0.35, 0.0: 0.4, 1.0: 0.25}
    harmful = worthy = 0.0
    for game in product(chances, repeat=7):
        chance = prod(chances[d] for d in game)
        canary, reached = Canary(0.1, level, level), False
        for difference in game:
            canary.see(difference)
            reached = reached or canary.worth >= 1 / level
        harmful += chance * (canary.judge() == "roll back")
        worthy += chance * reached

    assert 0.0 < harmful <= level
    assert 0.0 < worthy <= level


def test_worth_is_the_evidence_of_the_graded_test_with_a_negative_margin() -> None:
    game = [0.5, -0.25, 1.0, 0.0, -1.0]

    (look,) = EProcess(20 * len(game), 1e-9, margin=-0.1).judge(game).looks

    assert fed(game, 0.1).worth == pytest.approx(look.statistic, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(graded, st.data())
def test_a_better_game_has_less_harm_and_more_worth(game: list[float], data: st.DataObject) -> None:
    better = [data.draw(st.floats(difference, 1)) for difference in game]

    assert fed(better).harm <= fed(game).harm * (1 + 1e-12)
    assert fed(better).worth >= fed(game).worth * (1 - 1e-12)


@pytest.mark.parametrize(("gain", "size", "most"), [(-0.1, 20, 260), (-0.1, 5, 260), (-0.2, 20, 85), (-0.2, 2, 85)])
def test_ten_points_worse_is_found_in_260_requests_and_twenty_in_85(gain: float, size: int, most: int) -> None:
    """Medians of 81 canaries of pass/fail scores at the watcher's level; 2,000 of each stand in docs/benchmarks.md."""

    def delay(luck: random.Random) -> int:
        canary = Canary(margin=0.02, level_harm=LEVEL_QUALITY)
        while canary.judge() != "roll back" and canary.n < 2000:
            canary.see(block(luck, 0.5, gain, size))
        return canary.n

    assert median(delay(random.Random(seed)) for seed in range(81)) <= most


@pytest.mark.slow
def test_a_canary_worse_by_the_margin_exactly_is_rolled_back_in_5_percent_at_most() -> None:
    """200 canaries of 800 blocks of 5; the interval's lower end would pass 5 % only if the true rate did."""
    luck, rolled_back = random.Random(4), 0
    for _ in range(200):
        canary = fed([block(luck, 0.5, -0.02, 5) for _ in range(800)])
        rolled_back += canary.judge() == "roll back"

    assert proportion_interval(rolled_back, 200, 0.001)[0] <= 0.05
    assert rolled_back > 0  # else nothing was tried


def test_evidence_of_harm_is_not_taken_back_by_later_luck() -> None:
    canary = fed([-1.0] * 20 + [1.0] * 200)

    assert canary.harm < 1
    assert canary.judge() == "roll back"


def test_a_step_needs_present_evidence_and_the_least_number_of_differences() -> None:
    assert fed([1.0] * (LEAST - 1)).judge() == "hold"
    assert fed([1.0] * LEAST).judge() == "go on"
    assert fed([0.5, -0.2] * 40).judge() == "go on"
    assert fed([0.5, -0.2] * 40 + [-0.1] * 60).judge() == "hold"


def test_without_evidence_nothing_moves() -> None:
    canary = Canary(0.02)

    assert canary.judge() == "hold"
    assert (canary.harm, canary.worth, canary.mean) == (1.0, 1.0, None)
    assert fed([0.0] * 5, margin=0.0).mean == 0.0


@pytest.mark.parametrize("difference", [1.0, -1.0])
def test_evidence_stays_finite_however_long_a_canary_lasts(difference: float) -> None:
    canary = fed([difference] * 5000)

    assert 0.0 <= min(canary.harm, canary.worth) < 1e-100
    assert 1e100 < max(canary.harm, canary.worth) < float("inf")


def test_what_is_no_difference_no_margin_and_no_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pair 1: difference nan is outside"):
        fed([0.0, float("nan")])
    with pytest.raises(ValueError, match=r"margin 1.0 is outside \[0, 1\)"):
        Canary(1.0)
    with pytest.raises(ValueError, match=r"level 0.0 is outside"):
        Canary(0.02, level_harm=0.0)
