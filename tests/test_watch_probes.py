"""Probes: the model behind a name stays the same or does not, asked through the real engine and store."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gainful.checks import Regex
from gainful.core import Case, Policy, Text, Vote, digest
from gainful.models import ScriptedModel
from gainful.models.scripted import Script
from gainful.store import Banked, MemoModel, SQLiteStore, Store
from gainful.tasks import Task, divide, make_task
from gainful.tasks.improving import Improving
from gainful.watch.probes import ABOUT, CALLS_A_ROUND, PAUSE_S, ProbeReport, Probes, judge_probes
from gainful.watch.service import service_key

HOUR_S = 3600.0
PERIOD_S = 6 * HOUR_S
START = 1000 * PERIOD_S


def case(number: int) -> Case:
    return Case(messages=({"role": "user", "content": f"Is {number} even?"},))


def world(probes: int = 40) -> Task:
    task = make_task("even", divide([case(n) for n in range(8)]), Text(), [Regex("yes|no|maybe")])
    return replace(task, improving=Improving(probes=probes))


CHAMPION = Policy(instructions="Answer yes or no.", strategy=Vote(samples=5))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with SQLiteStore(tmp_path / "store.db") as store:
        yield store


def fill(store: Store, cases: int = 60, score: Callable[[int], float | None] = lambda n: 1.0) -> None:
    """Bank *cases* and put a champion into service."""
    banked = [
        Banked(id=digest(n), case=case(n), side="dev", at=float(n), last_at=float(n), score=score(n), signal="check")
        for n in range(cases)
    ]
    store.take_in("even", "intake", 1, banked)
    store.set_champion("even", CHAMPION, "baseline")


def steady(share: float = 0.0) -> Script:
    """The same answer to a case always; to a *share* of cases another one than the model it replaces."""

    def answer(body: dict, sample: int) -> str:  # type: ignore[type-arg]
        number = int(body["messages"][-1]["content"].split()[1])
        is_changed = int(digest(number)[:8], 16) / 2**32 < share
        return "yes" if (number % 2 == 0) != is_changed else "no"

    return answer


def wavering(seed: int, chances: tuple[float, float, float]) -> Script:
    luck = random.Random(seed)
    return lambda body, sample: luck.choices(("yes", "no", "maybe"), chances)[0]


async def periods(probes: Probes, count: int, start: float = START) -> list[ProbeReport]:
    """Let a watcher run for so many periods, a round a minute; return what it was told."""
    reports = []
    for period in range(count):
        for minute in range(45):
            report = await probes.round(start + period * PERIOD_S + minute * (PAUSE_S + 1))
            reports += [report] if report else []
    return reports


async def swapped(store: Store, before: Script, after: Script, task: Task | None = None) -> list[ProbeReport]:
    """Ask one model for a period and another one, under the same name, in the next; return the reports of that."""
    task = task or world()
    assert await periods(Probes(store, task, ScriptedModel(before)), 1) == []
    return await periods(Probes(store, task, ScriptedModel(after)), 1, START + PERIOD_S)


async def test_a_random_model_that_stays_the_same_is_not_accused_in_120_probes(store: Store) -> None:
    """The rate is that of the detectors: one in 10,000 probes or fewer; here 120 of a model at 70, 20 and 10 %."""
    fill(store)
    model = ScriptedModel(wavering(3, (0.7, 0.2, 0.1)))

    reports = await periods(Probes(store, world(), model), 4)

    assert reports[-1].finished == 120
    assert 40 < reports[-1].telling < 90
    assert reports[-1].late / reports[-1].telling == pytest.approx(1 / 3, abs=0.12)
    assert not any(report.is_alarm for report in reports)


async def test_a_steady_model_that_answers_3_in_10_cases_otherwise_is_noticed_within_40_probes(store: Store) -> None:
    fill(store)

    reports = await swapped(store, steady(), steady(0.3))

    noticed = next(report for report in reports if report.is_alarm)
    assert noticed.finished <= 40
    assert (noticed.is_other, noticed.is_worse) == (True, False)
    assert noticed.telling == noticed.late >= 10


async def test_a_random_model_that_prefers_another_answer_is_noticed_within_40_probes(store: Store) -> None:
    fill(store)

    reports = await swapped(store, wavering(1, (0.9, 0.1, 0.0)), wavering(2, (0.1, 0.9, 0.0)))

    assert any(report.is_other for report in reports)


async def test_a_model_that_gives_the_same_answers_faster_is_not_noticed(store: Store) -> None:
    fill(store)
    task = world(probes=4)
    await periods(Probes(store, task, ScriptedModel(steady(), delay_s=0.001)), 1)

    reports = await periods(Probes(store, task, ScriptedModel(steady())), 1, START + PERIOD_S)

    assert (reports[-1].finished, reports[-1].telling, reports[-1].evidence_odd) == (4, 0, 0.0)


async def test_a_model_that_never_says_the_same_twice_is_found_by_its_scores(store: Store) -> None:
    """No two answers are alike, so none is odd; that they fail the check all of a sudden is harm."""
    fill(store)
    luck = random.Random(5)
    right: Script = lambda body, sample: "yes"  # noqa: E731
    task = world()

    reports = await swapped(store, right, lambda body, sample: f"as {luck.random()}", task)

    assert reports[-1].is_worse
    assert reports[-1].change == -1.0


async def test_after_an_alarm_only_what_was_asked_after_it_counts(store: Store) -> None:
    fill(store)
    reports = await swapped(store, steady(), steady(0.5))
    noticed = next(report for report in reports if report.is_alarm)
    store.append_ledger(service_key("even"), "alarm", {"about": ABOUT, "evidence": noticed.told})

    assert judge_probes(store, world(), "scripted") is None
    later = await periods(Probes(store, world(), ScriptedModel(steady(0.5))), 2, START + 2 * PERIOD_S)

    assert later
    assert not any(report.is_alarm or report.telling for report in later)


async def test_whether_a_case_was_right_has_no_say_in_whether_it_is_asked(tmp_path: Path) -> None:
    chosen = []
    for number, score in enumerate((lambda n: 1.0, lambda n: float(n % 2), lambda n: None)):
        with SQLiteStore(tmp_path / f"{number}.db") as store:
            fill(store, score=score)  # type: ignore[arg-type]
            chosen.append([one.id for one in Probes(store, world(10), ScriptedModel([])).choose([], START)])
            others = [one.id for one in Probes(store, world(10), ScriptedModel([])).choose([], START + PERIOD_S)]

    assert chosen[0] == chosen[1] == chosen[2]
    assert len(chosen[0]) == 10
    assert set(chosen[0]) != set(others)


async def test_a_probe_takes_three_calls_of_one_request_and_a_round_few(store: Store) -> None:
    fill(store, cases=10)
    model = ScriptedModel(steady())
    probes = Probes(store, world(10), model)

    await probes.round(START)
    assert len(model.calls) == CALLS_A_ROUND
    await periods(probes, 1)
    assert len(model.calls) == 2 * 10
    await periods(probes, 1, START + PERIOD_S)

    assert len(model.calls) == 3 * 10 + 2 * 10
    assert set(Counter(map(digest, model.calls)).values()) == {3 + 2}


async def test_another_process_goes_on_where_one_died(store: Store) -> None:
    fill(store)
    model = ScriptedModel(steady())
    for round_ in range(5):
        await Probes(store, world(10), model).round(START + round_)

    assert len(store.probes("even")) == 10
    assert await Probes(store, world(10), model).round(START + 6) is None
    assert len(model.calls) == 20


async def test_a_model_that_does_not_answer_is_left_alone_and_asked_again_later(store: Store) -> None:
    fill(store)
    model = ScriptedModel(steady(), failing=range(3))
    probes = Probes(store, world(2), model)

    await probes.round(START)
    await probes.round(START + 1)
    assert (len(model.calls), store.probes("even")) == (1, [])
    await periods(probes, 1)

    assert len(store.probes("even")) == 2


async def test_a_probe_of_a_forgotten_policy_is_left(store: Store) -> None:
    fill(store)
    probes = Probes(store, world(2), ScriptedModel(steady()))
    await probes.round(START)
    store.set_champion("even", Policy(instructions="Otherwise."), "changed")
    store.forget_key("ann", [CHAMPION.id])

    assert await periods(probes, 1, START + PERIOD_S) == []
    assert [probe.policy for probe in store.probes("even")][-1] != CHAMPION.id


async def test_nothing_is_asked_without_a_champion_or_where_probes_are_switched_off(store: Store) -> None:
    model = ScriptedModel([])
    assert await Probes(store, world(), model).round(START) is None
    fill(store)
    assert await Probes(store, world(0), model).round(START) is None

    assert model.calls == []


def test_a_memo_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="were given a memo"):
        Probes(store, world(), MemoModel(ScriptedModel([]), store))


async def test_what_has_waited_too_long_for_its_last_answer_is_left(store: Store) -> None:
    fill(store, cases=2)
    model = ScriptedModel(steady())
    await Probes(store, world(2), model).round(START)

    await periods(Probes(store, world(2), model), 1, START + 5 * PERIOD_S)

    assert [probe.after for probe in store.probes("even")] == [None] * 4
