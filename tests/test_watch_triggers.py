"""When a run begins: something new to learn, enough to prove it by, and money left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import case, sums

from gainful.core import Answer, Policy
from gainful.store import Banked, Probe, SQLiteStore, Tally
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.tasks.split import content
from gainful.watch.triggers import DAY_S, reason_to_try

NOW = 1.79e9
CHAMPION = sums().baseline


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "gainful.db") as store:
        yield store


def fill(store: SQLiteStore, errors: int, held_out: int = 120, group: str = "not JSON") -> None:
    """Bank so many errors of the champion to learn from, 40 right answers, and so many held-out cases."""
    store.set_champion("sums", CHAMPION, "baseline")
    sides = [("dev", n < errors) for n in range(errors + 40)] + [("held-out", False)] * held_out
    cases = [
        Banked(
            content(case(n)),
            case(n),
            side,
            NOW,
            NOW,
            score=float(not wrong),
            group=group if wrong else "",
            policy=CHAMPION.id,
        )  # type: ignore[arg-type]
        for n, (side, wrong) in enumerate(sides)
    ]
    store.take_in("sums", "test", len(cases), cases)


def task(**improving: object) -> Task:
    return replace(sums(), improving=Improving(**improving))  # type: ignore[arg-type]


def test_enough_new_errors_of_one_group_are_a_reason(store: SQLiteStore) -> None:
    fill(store, errors=20)

    found = reason_to_try(store, task(after_errors=20), NOW, [])
    assert found is not None
    assert found.why == "20 new errors: not JSON"
    assert found.budget_calls == 20_000
    assert reason_to_try(store, task(after_errors=21), NOW, []) is None


def test_errors_of_another_policy_are_none(store: SQLiteStore) -> None:
    fill(store, errors=40)
    store.set_champion("sums", Policy(instructions="Better."), "confirmed")

    assert reason_to_try(store, task(), NOW, []) is None


@pytest.mark.parametrize(("errors", "held_out"), [(20, 99), (0, 120)])
def test_too_little_to_prove_by_or_to_learn_from_is_none(store: SQLiteStore, errors: int, held_out: int) -> None:
    fill(store, errors, held_out)

    assert reason_to_try(store, task(), NOW, []) is None


def test_a_schedule_and_an_alarm_need_no_errors(store: SQLiteStore) -> None:
    fill(store, errors=0)

    assert reason_to_try(store, task(every_hours=2.0), NOW, []) is not None
    assert reason_to_try(store, task(), NOW, ["quality has fallen"]) == ("quality has fallen", 20_000)


def test_without_a_trusted_check_nothing_is_begun(store: SQLiteStore) -> None:
    fill(store, errors=30)
    blind = task()

    assert reason_to_try(store, replace(blind, checks=blind.checks[1:]), NOW, []) is None


def test_shadows_and_probes_of_today_are_spent_from_the_day_s_budget(store: SQLiteStore) -> None:
    fill(store, errors=30)
    answers, scores = (Answer("x"),) * 3, (1.0,) * 3
    store.put_probes("sums", [Probe("i", case(1), "p", "m", answers, scores, (NOW - DAY_S - 1, NOW - 120, NOW - 60))])
    store.take_in("sums", "other", 1, (), [Tally(int(NOW // 3600), "p", "shadow", requests=5, calls=7)])

    found = reason_to_try(store, task(calls_per_day=100), NOW, [])
    assert found is not None
    assert found.budget_calls == 100 - 7 - 2
    assert reason_to_try(store, task(calls_per_day=9), NOW, []) is None
    assert reason_to_try(store, task(calls_per_day=9), NOW + 90_000, []) is not None
