"""The e-detector: late alarms where nothing is wrong, soon ones where something is."""

from __future__ import annotations

import random
from itertools import product

import pytest

from gainful.gate import evidence_of_harm


@pytest.mark.parametrize(("values", "margin"), [((-1.0, 1.0), 0.0), ((-0.2, 0.0), 0.1), ((-1.0, -0.5, 0.5, 1.0), 0.0)])
def test_evidence_grows_by_1_a_value_on_average_where_nothing_is_wrong(
    values: tuple[float, ...], margin: float
) -> None:
    """Every game of 6 enumerated: the mean of M after t values is t exactly, whence the average run length."""
    games = list(product(values, repeat=6))

    for t in range(7):
        assert sum(evidence_of_harm(game[:t], margin) for game in games) / len(games) == pytest.approx(t)


def test_an_alarm_at_1000_comes_late_without_harm_and_soon_with_it() -> None:
    luck = random.Random(0)

    def delay(weights: list[float]) -> int:
        seen: list[float] = []
        while evidence_of_harm(seen) < 1000 and len(seen) < 1500:
            seen += luck.choices((-1.0, 0.0, 1.0), weights, k=10)
        return len(seen)

    calm = [delay([0.15, 0.7, 0.15]) for _ in range(20)]
    harmed = [delay([0.3, 0.6, 0.1]) for _ in range(20)]

    assert sum(calm) / 20 > 1000
    assert sum(harmed) / 20 < 150


def test_a_long_bad_time_is_forgiven_by_good_values() -> None:
    assert evidence_of_harm([-1.0] * 5000) > 1000
    assert evidence_of_harm([-1.0] * 5000 + [1.0] * 500) < 1000


def test_what_is_no_difference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pair 1: difference 1.5 is outside"):
        evidence_of_harm([0.0, 1.5])
