"""Seats are drawn fairly, from the seed alone; the argument of the module, enumerated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

import pytest

from gainful.core import Seat
from gainful.proxy.seating import Seated, Seating, position
from gainful.watch.service import Stage

CHAMPION, CHALLENGER, FORMER = "champion's id", "challenger's id", "former's id"
SCORES = (Fraction(1, 3), Fraction(1), Fraction(0), Fraction(4, 7))  # of four requests, whoever answers them


def canary(share: float, mode: Literal["canary", "shadow"] = "canary", champion: str = CHAMPION) -> Stage:
    return Stage("canary's id", mode, CHALLENGER, champion, share, "aa" * 32, 0.0)


def holdback(share: float, champion: str = CHAMPION) -> Stage:
    return Stage("hold-back's id", "holdback", FORMER, champion, share, "bb" * 32, 0.0)


def seated(requests: int, *stages: Stage | None, lane: str = "lane") -> list[Seated]:
    seating = Seating(CHAMPION, lane, *stages)
    return [seating.take() for _ in range(requests)]


def seats(requests: int, *stages: Stage | None, lane: str = "lane") -> list[Seat]:
    return [found.seat for found in seated(requests, *stages, lane=lane) if found.seat]


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.03, 0.01])
def test_every_whole_block_has_exactly_one_request_of_the_stages_policy(share: float) -> None:
    stage = canary(share)
    found = seats(40 * stage.block, stage)

    blocks = Counter(seat.number // stage.block for seat in found if seat.arm == "challenger")
    assert [seat.number for seat in found] == list(range(40 * stage.block))
    assert blocks == dict.fromkeys(range(40), 1)


@pytest.mark.parametrize("block", [2, 3, 20, 33])
def test_all_positions_are_drawn_alike(block: int) -> None:
    """Pearson's statistic on 20,000 draws lies within six standard deviations of its mean, on both sides."""
    draws = Counter(position("cc" * 32, "lane", number, block) for number in range(20_000))
    expected = 20_000 / block

    statistic = sum((draws[place] - expected) ** 2 / expected for place in range(block))
    assert set(draws) == set(range(block))
    assert abs(statistic - (block - 1)) < 6 * (2 * (block - 1)) ** 0.5


def test_a_seat_follows_from_seed_and_lane_and_nothing_else() -> None:
    both = canary(0.05), holdback(0.03)

    assert seated(500, *both) == seated(500, *both)
    assert seated(500, *both) != seated(500, *both, lane="another")
    drawn = {20 * k + position(both[0].seed, "lane", k, 20) for k in range(25)}
    taken = {33 * k + position(both[1].seed, "lane", k, 33) for k in range(16)}
    found = seats(500, *both)
    assert {s.number for s in found if s.arm == "challenger"} == drawn - taken
    assert {s.number for s in found if s.arm == "former"} == {number for number in taken if number < 500}


def test_each_answer_is_the_arms_own() -> None:
    found = seated(400, canary(0.2), holdback(0.1))

    arms = {(one.seat.arm if one.seat else "", one.policy, one.shadow) for one in found}
    assert arms == {("champion", CHAMPION, None), ("challenger", CHALLENGER, None), ("former", FORMER, None)}
    assert {(s.canary, s.holdback) for s in seats(400, canary(0.2), holdback(0.1))} == {
        ("canary's id", "hold-back's id")
    }


def test_in_a_shadow_the_champion_answers_and_the_challenger_answers_too() -> None:
    found = seated(400, canary(0.25, "shadow"), holdback(0.1))

    heard = {(one.seat.arm if one.seat else "", one.policy) for one in found}
    assert heard == {("champion", CHAMPION), ("former", FORMER)}
    shadows = [one for one in found if one.shadow]
    assert {(one.shadow, one.policy) for one in shadows} == {(CHALLENGER, CHAMPION)}
    former = sum(one.policy == FORMER for one in found)
    assert 100 - former <= len(shadows) < 100  # the hold-back took some that the shadow drew


def test_a_stage_that_began_against_another_champion_seats_nobody() -> None:
    alone = Seated(CHAMPION)

    assert seated(50) == [alone] * 50
    assert seated(50, canary(0.5, champion="another"), holdback(0.5, champion="another")) == [alone] * 50


# --- the argument: over all draws, two policies that are equally good differ by nothing


@pytest.mark.parametrize("block", [2, 4])
def test_over_all_draws_the_comparisons_of_equal_policies_cancel_exactly(block: int) -> None:
    found = all_draws(canary(1 / block), holdback(1 / 4))

    former = differences(found, "former", 4)
    assert (any(former), sum(former)) == (True, 0)
    for held in range(4):  # the canary's cancel even given where the hold-back sits
        given = differences([arms for arms in found if arms[held] == "former"], "challenger", block)
        assert (any(given), sum(given)) == (True, 0)


def all_draws(canary: Stage, holdback: Stage) -> list[tuple[str, ...]]:
    """The arms of four requests for each possible draw, as it comes in some lane; all draws are equally likely."""
    found: dict[tuple[int, ...], tuple[str, ...]] = {}
    for number in range(2000):
        lane = f"lane {number}"
        draw = [position(s.seed, lane, k, s.block) for s in (canary, holdback) for k in range(4 // s.block)]
        found[tuple(draw)] = tuple(seat.arm for seat in seats(4, canary, holdback, lane=lane))
    assert len(found) == 16
    return list(found.values())


def differences(draws: Iterable[tuple[str, ...]], arm: str, block: int) -> list[Fraction]:
    """D of each block that has a request of *arm* and one of the champion's."""
    found = []
    for arms in draws:
        for start in range(0, 4, block):
            scored = list(zip(arms, SCORES, strict=True))[start : start + block]
            champions = [score for who, score in scored if who == "champion"]
            found += [score - sum(champions) / len(champions) for who, score in scored if who == arm and champions]
    return found
