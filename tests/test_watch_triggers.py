"""When a run begins: something new to learn, enough to prove it by, and money left; and else what it waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import case, sums

from gainful.core import Policy, Usage
from gainful.store import Banked, SQLiteStore, Tally
from gainful.store.bank import Signal
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.tasks.split import content
from gainful.watch.budget import Budget
from gainful.watch.service import Helm
from gainful.watch.triggers import Reason, Waiting, reason_to_try, watch_runs

NOW = 1.79e9
CHAMPION = sums().baseline


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "gainful.db") as store:
        yield store


def fill(store: SQLiteStore, errors: int, held_out: int = 120, signal: Signal = "check") -> None:
    """Bank so many errors of the champion to learn from, 40 right answers, and so many held-out cases."""
    store.set_champion("sums", CHAMPION, "baseline")
    sides = [("dev", n < errors) for n in range(errors + 40)] + [("held-out", False)] * held_out
    cases = [
        Banked(
            content(case(n)),
            case(n),
            side,  # type: ignore[arg-type]
            NOW,
            NOW,
            signal=signal,
            score=float(not wrong),
            group="not JSON" if wrong else "",
            policy=CHAMPION.id,
        )
        for n, (side, wrong) in enumerate(sides)
    ]
    store.take_in("sums", "test", len(cases), cases)


def task(**improving: object) -> Task:
    return replace(sums(), improving=Improving(**improving))  # type: ignore[arg-type]


def tried(store: SQLiteStore, task: Task, now: float = NOW) -> Reason | Waiting:
    """What a watcher finds that looks at *now*."""
    return reason_to_try(store, task, now, Budget(store, task, lambda: now).left())


def begun(store: SQLiteStore, at: float) -> None:
    """Enter a run that a watcher began."""
    store.start_run(f"run {at}", "sums", {"watch": {"at": at}})
    assert watch_runs(store, "sums")


def test_enough_new_errors_of_one_group_are_a_reason(store: SQLiteStore) -> None:
    fill(store, errors=20)

    assert tried(store, task(after_errors=20)) == Reason("20 new errors: not JSON", 20_000)
    assert tried(store, task(after_errors=21)) == Waiting(
        "nothing new", "nothing new to learn: 20 of 21 errors of one group"
    )


@pytest.mark.parametrize(
    ("signal", "trust_feedback", "is_reason"),
    [("feedback", False, False), ("feedback", True, True), ("judged", False, False), ("judged", True, False)],
)
def test_only_errors_that_are_proven_are_a_reason(
    store: SQLiteStore, signal: Signal, trust_feedback: bool, is_reason: bool
) -> None:
    fill(store, errors=25, signal=signal)

    assert isinstance(tried(store, task(trust_feedback=trust_feedback)), Reason) is is_reason


def test_what_a_trusted_check_passes_and_another_objects_to_is_none(store: SQLiteStore) -> None:
    fill(store, errors=0)
    passed = [
        Banked(content(case(n)), case(n), "dev", NOW, NOW, "", "check", 1.0, "ungrounded value", CHAMPION.id)
        for n in range(500, 525)
    ]
    store.take_in("sums", "more", 1, passed)

    assert tried(store, task()) == Waiting("nothing new", "nothing new to learn: 0 of 20 errors of one group")


def test_errors_of_another_policy_are_none(store: SQLiteStore) -> None:
    fill(store, errors=40)
    store.set_champion("sums", Policy(instructions="Better."), "confirmed")

    assert tried(store, task()) == Waiting("nothing new", "nothing new to learn: 0 of 20 errors of one group")


@pytest.mark.parametrize(("held_out", "said"), [(99, 99), (40, 40), (0, 0)])
def test_too_little_to_prove_by_is_waited_for(store: SQLiteStore, held_out: int, said: int) -> None:
    fill(store, 20, held_out)

    found = tried(store, task())
    assert found == Waiting("cases", f"20 of 20 dev cases and {said} of 100 held-out cases so far")


def test_a_schedule_needs_no_errors_and_says_when_it_is_not_yet_time(store: SQLiteStore) -> None:
    fill(store, errors=0)
    begun(store, NOW)

    assert tried(store, task(every_hours=2.0), NOW + 7200) == Reason("2 hours since the last run", 20_000)
    waits = tried(store, task(every_hours=2.0, after_errors=0), NOW + 7199)
    assert waits == Waiting("nothing new", "nothing new to learn: not yet 2 hours since the last run")


@pytest.mark.parametrize(
    ("about", "why"),
    [("quality", "quality has fallen"), ("model", "another model answers behind the name"), ("other", "other")],
)
def test_an_alarm_is_a_reason_until_a_run_begins_whoever_looks(store: SQLiteStore, about: str, why: str) -> None:
    fill(store, errors=0)
    Helm(store, "sums", lambda: NOW - 60).alarm(about, {})

    for _ in range(2):
        assert tried(store, task()) == Reason(why, 20_000)
    begun(store, NOW)
    assert isinstance(tried(store, task(), NOW + 1), Waiting)
    Helm(store, "sums", lambda: NOW + 60).alarm(about, {})
    assert tried(store, task(), NOW + 61) == Reason(why, 20_000)


def test_what_a_watcher_took_back_is_a_reason_and_what_a_person_did_is_none(store: SQLiteStore) -> None:
    fill(store, errors=0)
    others = [Policy(instructions=word) for word in ("One.", "Two.")]
    lease = store.take_lease("watch", "one", 60.0)
    for other in others:
        store.put_policy(other)
    Helm(store, "sums", lambda: NOW - 60).force(others[0].id)
    Helm(store, "sums", lambda: NOW - 50).roll_back("I know better")

    assert isinstance(tried(store, task()), Waiting)
    Helm(store, "sums", lambda: NOW - 40).force(others[1].id)
    Helm(store, "sums", lambda: NOW - 30, lease).roll_back("worse in the hold-back")
    assert tried(store, task()) == Reason("worse in the hold-back", 20_000)


def test_a_person_s_wish_is_a_reason_that_needs_cases_and_budget_as_any_other(store: SQLiteStore) -> None:
    fill(store, errors=0, held_out=99)
    Helm(store, "sums", lambda: NOW - 60).ask()

    assert tried(store, task()) == Waiting("cases", "20 of 20 dev cases and 99 of 100 held-out cases so far")
    fill_held_out(store)
    assert tried(store, task()) == Reason("a person asked for it", 20_000)
    assert tried(store, task(calls_per_day=0)) == Waiting("spent", "the day's calls are spent")
    begun(store, NOW)
    assert isinstance(tried(store, task(), NOW + 1), Waiting)


def fill_held_out(store: SQLiteStore) -> None:
    """Bank one more held-out case."""
    store.take_in("sums", "more", 1, [Banked(content(case(999)), case(999), "held-out", NOW, NOW)])


def test_without_a_trusted_check_nothing_is_begun(store: SQLiteStore) -> None:
    fill(store, errors=30)
    blind = task()

    found = tried(store, replace(blind, checks=blind.checks[1:]))
    assert found == Waiting("unprovable", "no trusted check can judge traffic")


def test_what_was_spent_today_is_not_there_for_a_run(store: SQLiteStore) -> None:
    fill(store, errors=30)
    Budget(store, task(), lambda: NOW).charge(Usage(calls=2))
    store.take_in("sums", "other", 1, (), [Tally(int(NOW // 3600), "p", "shadow", requests=5, calls=7)])

    assert tried(store, task(calls_per_day=100)) == Reason("30 new errors: not JSON", 100 - 7 - 2)
    assert tried(store, task(calls_per_day=9)) == Waiting("spent", "the day's calls are spent")
    assert isinstance(tried(store, task(calls_per_day=9), NOW + 90_000), Reason)
