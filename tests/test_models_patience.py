"""Waiting, backing off, and how many calls run at once."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gainful.models.patience import Pace, Patience, retry_after_s

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "Thu, 01 Jan 2026 12:01:30 GMT"}, 90.0),
        ({"Retry-After": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 2026 12:01:30 -0000"}, 90.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "later"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(CIMultiDict(headers), NOON) == seconds


@given(st.integers(1, 9), st.one_of(st.none(), st.floats(0, 300)))
def test_a_wait_keeps_its_bounds(tried: int, asked_s: float | None) -> None:
    patience = Patience(attempts=8, base_s=1.0, cap_s=10.0, longest_s=100.0)
    wait_s = patience.wait_s(tried, asked_s)

    if tried >= 8 or (asked_s is not None and asked_s > 100.0):
        assert wait_s is None
    elif asked_s is None:
        assert wait_s is not None
        assert 0.0 <= wait_s <= min(10.0, 2.0 ** (tried - 1))
    else:
        assert wait_s is not None
        assert asked_s <= wait_s <= asked_s + 1.0


def test_backoff_is_spread_over_its_whole_range() -> None:
    patience = Patience(base_s=1.0)
    waits = [patience.wait_s(1, None) or 0.0 for _ in range(1000)]

    assert min(waits) < 0.1
    assert max(waits) > 0.9


async def end(pace: Pace, *went_well: bool | None) -> None:
    """Run calls that are all under way together and end so, in this order."""
    under_way = asyncio.Barrier(len(went_well))

    async def call(outcome: bool | None) -> None:
        async with pace.turn() as turn:
            await under_way.wait()
            turn.went_well = outcome

    await asyncio.gather(*map(call, went_well))


async def test_a_burst_of_refusals_halves_the_limit_once() -> None:
    pace = Pace(8)
    await end(pace, *[False] * 8)

    assert pace.limit == 4


async def test_the_limit_never_falls_below_one() -> None:
    pace = Pace(2)
    for _ in range(5):
        await end(pace, False)

    assert pace.limit == 1


async def test_a_round_of_successes_adds_one_up_to_the_most() -> None:
    pace = Pace(4)
    await end(pace, False)
    limits = []
    for _ in range(9):
        await end(pace, True)
        limits.append(pace.limit)

    assert limits == [2, 3, 3, 3, 4, 4, 4, 4, 4]


async def test_an_outcome_that_says_nothing_changes_nothing() -> None:
    pace = Pace(4)
    await end(pace, None, None, None, None)

    assert pace.limit == 4


async def test_no_more_run_than_the_limit_and_first_come_first_served() -> None:
    pace, started, running, most = Pace(3), [], 0, 0

    async def call(number: int) -> None:
        nonlocal running, most
        async with pace.turn():
            started.append(number)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*map(call, range(20)))

    assert most == 3
    assert started == list(range(20))


async def test_a_cancelled_wait_gives_its_turn_to_the_next() -> None:
    pace = Pace(1)

    async def wait() -> str:
        async with pace.turn():
            return "done"

    async with pace.turn():
        second, third = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
    second.cancel()  # it has been handed the turn and does not know it yet

    assert await asyncio.wait_for(third, 1) == "done"
    assert second.cancelled()
