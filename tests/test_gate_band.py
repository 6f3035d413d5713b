"""The band over time: its coverage at all moments at once, computed path by path."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from gainful.gate import Band, running_band

LONG = 80  # scores of the enumerated games
STILL: list[Callable[[int], float]] = [lambda _, p=p: p for p in (0.02, 0.2, 0.5, 0.8, 0.99)]  # type: ignore[misc]
MOVING: list[Callable[[int], float]] = [
    lambda i: 0.95 - 0.9 * i / LONG,
    lambda i: 0.2 if i % 20 < 10 else 0.9,
    lambda i: 1.0 if i < 40 else 0.0,
]


def at(n: int, passed: int, level: float) -> Band:
    (band,) = running_band([(n, passed)], level)
    return band


@pytest.mark.parametrize("level", [0.5, 0.05])
def test_the_mean_so_far_is_ever_outside_no_more_often_than_the_level_though_it_moves(level: float) -> None:
    """Every path of 80 pass/fail scores, counted exactly: what has not missed yet, by number passed."""
    bands = [[at(n, k, level) for k in range(n + 1)] for n in range(1, LONG + 1)]

    for rate in STILL + MOVING:
        held, total, missed = [1.0], 0.0, 0.0
        for i in range(LONG):
            p, total = rate(i), total + rate(i)
            reached = [
                (held[k] * (1 - p) if k < len(held) else 0.0) + (held[k - 1] * p if k else 0.0) for k in range(i + 2)
            ]
            outside = [not b.low - 1e-12 <= total / (i + 1) <= b.high + 1e-12 for b in bands[i]]
            missed += sum(r for r, is_out in zip(reached, outside, strict=True) if is_out)
            held = [0.0 if is_out else r for r, is_out in zip(reached, outside, strict=True)]
        assert missed <= level


def test_the_band_is_no_idle_promise() -> None:
    """At 80 %: half as wide again as a bound for 100 scores fixed beforehand, twice as wide at 10,000."""
    assert at(100, 80, 0.05).high - at(100, 80, 0.05).low < 0.28
    assert at(10_000, 8_000, 0.05).high - at(10_000, 8_000, 0.05).low < 0.033
    assert at(10**6, 800_000, 0.05).high - at(10**6, 800_000, 0.05).low < 0.0045


def test_buckets_say_no_more_and_no_less_than_their_sums() -> None:
    one_by_one = list(running_band([(1, float(i % 3 > 0)) for i in range(90)]))
    in_buckets = list(running_band([(30, 20.0)] * 3))

    assert [one_by_one[29], one_by_one[59], one_by_one[89]] == in_buckets


def test_a_thousand_buckets_are_quick_and_hold_their_mean() -> None:
    luck = random.Random(1)
    buckets = [(50, sum(luck.random() for _ in range(50))) for _ in range(1000)]

    began = time.perf_counter()
    bands = list(running_band(buckets))
    took_s = time.perf_counter() - began

    assert took_s < 0.5  # 0.01 s on a quiet machine
    assert all(b.mean is not None and 0 <= b.low < b.mean < b.high <= 1 for b in bands)


def test_before_the_first_score_nothing_is_known() -> None:
    assert list(running_band([(0, 0.0)])) == [Band(0, None, 0.0, 1.0)]
    assert list(running_band([])) == []


@pytest.mark.parametrize("bucket", [(3, 3.5), (0, 0.1), (-1, 0.0), (2, -0.1), (2, float("nan"))])
def test_sums_that_scores_cannot_have_are_refused(bucket: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="bucket 1: "):
        list(running_band([(5, 2.0), bucket]))
