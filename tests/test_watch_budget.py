"""What learning may spend in a day: calls counted when they are made, money when a reply comes, by the hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from street import Clock
from worlds import sums

from gainful.core import JsonObject, ModelError, Policy, Reply, TaskError, Usage
from gainful.models import ScriptedModel
from gainful.store import MemoModel, SQLiteStore, Tally
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.watch.budget import BUDGET, Budget, MeteredModel, is_spent, require_price

HOUR_S = 3600.0
BODY: JsonObject = {"messages": [{"role": "user", "content": "What is 2 and 2?"}]}
MOST = 100


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "gainful.db") as store:
        yield store


class Priced(ScriptedModel):
    """Takes a quarter of a dollar a call."""

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        return structs.replace(await super().complete(body, sample=sample), cost_usd=0.25)


def task(**improving: object) -> Task:
    return replace(sums(), improving=Improving(**{"calls_per_day": MOST, **improving}))  # type: ignore[arg-type]


def echo(body: JsonObject, sample: int) -> str:
    return f"{sample}"


def calls_left(store: SQLiteStore, clock: Clock) -> int | None:
    return Budget(store, task(), clock).left().calls


async def test_a_call_is_charged_although_it_fails_or_its_process_dies(store: SQLiteStore, clock: Clock) -> None:
    """The model looks into the store while it is asked: whoever kills it now finds the call there."""
    seen = []

    def watching(body: JsonObject, sample: int) -> str:
        seen.append(calls_left(store, clock))
        raise ModelError("down")

    metered = MeteredModel(ScriptedModel(watching), Budget(store, task(), clock))
    with pytest.raises(ModelError, match="down"):
        await metered.complete(BODY)

    assert seen == [MOST - 1]
    assert calls_left(store, clock) == MOST - 1


async def test_what_the_memo_knows_is_no_call(store: SQLiteStore, clock: Clock) -> None:
    memo = MemoModel(MeteredModel(ScriptedModel(echo), Budget(store, task(), clock)), store)

    for sample in (0, 0, 1, 0):
        await memo.complete(BODY, sample=sample)

    assert calls_left(store, clock) == MOST - 2


async def test_a_call_counts_for_a_day_from_when_it_was_made(store: SQLiteStore, clock: Clock) -> None:
    metered = MeteredModel(ScriptedModel(echo), Budget(store, task(), clock))
    left = []
    for _ in range(3):
        await metered.complete(BODY)
        clock.now += 10 * HOUR_S
    for _ in range(4):
        left.append(calls_left(store, clock))
        clock.now += 10 * HOUR_S

    assert left == [MOST - 2, MOST - 1, MOST, MOST]


async def test_where_nothing_is_left_the_model_is_not_asked(store: SQLiteStore, clock: Clock) -> None:
    model = ScriptedModel(echo)
    metered = MeteredModel(model, Budget(store, task(calls_per_day=2), clock))
    for _ in range(2):
        await metered.complete(BODY)

    with pytest.raises(ModelError, match="'scripted' was not asked: the day's calls are spent"):
        await metered.complete(BODY)
    assert len(model.calls) == 2
    clock.now += 26 * HOUR_S
    await metered.complete(BODY)


async def test_money_is_counted_as_calls_are_with_what_shadows_took(store: SQLiteStore, clock: Clock) -> None:
    budget = Budget(store, task(usd_per_day=1.5), clock)
    metered = MeteredModel(Priced(echo), budget)
    hour = int(clock.now // HOUR_S)
    shadow = Tally(hour, Policy().id, "shadow", requests=3, calls=4, cost_usd=0.75)
    heard = Tally(hour, Policy().id, "champion", requests=3, calls=30, cost_usd=30.0)
    store.take_in("sums", "intake", 1, (), [shadow, heard])

    for _ in range(3):
        await metered.complete(BODY)

    assert budget.left() == (MOST - 7, 0.0)
    assert budget.left().why == "the day's money is spent"
    with pytest.raises(ModelError, match="the day's money is spent"):
        await metered.complete(BODY)


async def test_without_limits_nothing_is_ever_spent(store: SQLiteStore, clock: Clock) -> None:
    budget = Budget(store, task(calls_per_day=None), clock)
    await MeteredModel(ScriptedModel(echo), budget).complete(BODY)

    assert budget.left() == (None, None)
    assert not budget.left().is_spent


async def test_what_a_run_took_is_kept_apart_from_probes_and_from_the_run_before(
    store: SQLiteStore, clock: Clock
) -> None:
    budget = Budget(store, task(), clock)
    metered, probing = MeteredModel(ScriptedModel(echo), budget), MeteredModel(ScriptedModel(echo), budget)
    for run in ("first", "second", "second"):
        metered.run = run
        await metered.complete(BODY)
        await probing.complete(BODY)

    assert budget.of_run("second").calls == 2
    assert budget.of_run("second").prompt_tokens == 10
    assert budget.of_run("first") == Usage()
    assert calls_left(store, clock) == MOST - 6


def test_servers_are_told_whether_all_is_spent(store: SQLiteStore) -> None:
    told = [is_spent(store, "sums")]
    for spent in (True, False):
        store.put_standing("sums", BUDGET, 0.0, {"is_spent": spent})
        told.append(is_spent(store, "sums"))

    assert told == [False, True, False]


def test_a_limit_on_money_that_nobody_could_keep_is_refused() -> None:
    limited = task(usd_per_day=5.0)
    require_price(limited, is_known=True)
    require_price(task(), is_known=False)

    with pytest.raises(TaskError, match=r"'sums': improve.usd_per_day limits money.*give --price"):
        require_price(limited, is_known=False)


@pytest.mark.parametrize("usd", [-1.0, float("inf"), float("nan")])
def test_an_amount_that_is_none_is_one_sentence(usd: float) -> None:
    with pytest.raises(TaskError, match=r"usd_per_day is .*; it must be an amount of dollars from 0 on"):
        Improving(usd_per_day=usd)
