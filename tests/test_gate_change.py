"""The e-detector: late alarms where nothing is wrong, soon ones where something is."""

from __future__ import annotations

import random
from itertools import product

import pytest

from gainful.gate import Alarm, evidence_of_harm


@pytest.mark.parametrize(("values", "margin"), [((-1.0, 1.0), 0.0), ((-0.2, 0.0), 0.1), ((-1.0, -0.5, 0.5, 1.0), 0.0)])
def test_evidence_grows_by_1_a_value_on_average_where_nothing_is_wrong(
    values: tuple[float, ...], margin: float
) -> None:
    """Every game of 6 enumerated: the mean of M after t values is t exactly, whence the average run length."""
    games = list(product(values, repeat=6))

    for t in range(7):
        assert sum(evidence_of_harm(game[:t], margin) for game in games) / len(games) == pytest.approx(t)


def test_an_alarm_at_200_comes_late_without_harm_and_soon_with_it() -> None:
    """Means of 100 alarms, with errors of about 25 and 3."""
    luck = random.Random(0)

    def delay(weights: list[float]) -> int:
        alarm = Alarm(0.0, 200)
        while not alarm.rings:
            alarm.see(luck.choices((-1.0, 0.0, 1.0), weights)[0])
        return alarm.n

    calm = [delay([0.15, 0.7, 0.15]) for _ in range(100)]
    harmed = [delay([0.3, 0.6, 0.1]) for _ in range(100)]

    assert sum(calm) / 100 >= 200
    assert sum(harmed) / 100 < 100


def test_a_long_bad_time_is_forgiven_by_good_values() -> None:
    assert evidence_of_harm([-1.0] * 5000) > 1000
    assert evidence_of_harm([-1.0] * 5000 + [1.0] * 500) < 1000


def test_what_is_no_difference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pair 1: difference 1.5 is outside"):
        evidence_of_harm([0.0, 1.5])


def test_an_alarm_fed_one_by_one_has_the_evidence_of_all_at_once_and_remembers_that_it_rang() -> None:
    alarm = Alarm(margin=0.1, threshold=1000)
    game = [0.5, -1.0, 0.0, -0.3] * 5 + [-1.0] * 30
    for n, difference in enumerate(game, start=1):
        alarm.see(difference)
        assert alarm.evidence == evidence_of_harm(game[:n], 0.1)
    assert alarm.rings

    for _ in range(500):
        alarm.see(1.0)

    assert alarm.evidence < 1000
    assert alarm.rings


def test_quality_that_falls_below_a_reference_rings() -> None:
    """Means of 100 alarms; at the margin exactly, where the promise is tightest, and 20 points below the reference."""
    luck = random.Random(2)

    def delay(quality: float) -> int:
        alarm = Alarm(margin=0.02, threshold=100)
        while not alarm.rings:
            alarm.see((luck.random() < quality) - 0.8)
        return alarm.n

    assert sum(delay(0.78) for _ in range(100)) / 100 >= 100
    assert sum(delay(0.6) for _ in range(100)) / 100 < 50


def test_a_margin_or_threshold_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"margin -0.1 is outside"):
        Alarm(-0.1, 1000)
    with pytest.raises(ValueError, match=r"threshold 0.5 is outside"):
        Alarm(0.0, 0.5)


def test_no_stake_can_lose_more_than_it_holds() -> None:
    alarm = Alarm(margin=0.9, threshold=1000)
    for difference in (-1.0, 1.0, 1.0):
        alarm.see(difference)

        assert alarm.evidence > 0.0
