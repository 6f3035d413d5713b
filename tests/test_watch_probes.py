"""Probes: the model behind a name stays the same or does not, asked through the real engine and store."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from gainful.checks import Regex
from gainful.core import Answer, Case, Policy, Text, Vote, digest
from gainful.models import ScriptedModel
from gainful.models.scripted import Script
from gainful.store import Banked, MemoModel, Probe, SQLiteStore, Store
from gainful.tasks import Task, divide, make_task
from gainful.tasks.improving import Improving
from gainful.watch.probes import ABOUT, CALLS_A_ROUND, ProbeReport, Probes, judge_probes
from gainful.watch.service import service_key

HOUR_S = 3600.0
PERIOD_S = 6 * HOUR_S
START = 1000 * PERIOD_S
ROUNDS = 40  # in a period: one for each of 40 probes


class Clock:
    """The time of the round that is being made."""

    now = START


def case(number: int) -> Case:
    return Case(messages=({"role": "user", "content": f"Is {number} even?"},))


def world(probes: int = 40) -> Task:
    task = make_task("even", divide([case(n) for n in range(8)]), Text(), [Regex("yes|no|maybe")])
    return replace(task, improving=Improving(probes=probes, probe_hours=PERIOD_S / HOUR_S))


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
        is_changed = chance(number) < share
        return "yes" if (number % 2 == 0) != is_changed else "no"

    return answer


def wavering(seed: int, chances: tuple[float, float, float]) -> Script:
    luck = random.Random(seed)
    return lambda body, sample: luck.choices(("yes", "no", "maybe"), chances)[0]


def noisy(clock: Clock, moment_s: float, share: float = 0.36, *, is_shared: bool = False) -> Script:
    """The same model, asked by a server whose batches and caches move a *share* of the answers, alike for a moment.

    A moment moves each case by itself, or, where *is_shared*, the same cases at once: all that are easily moved.
    """

    def answer(body: dict, sample: int) -> str:  # type: ignore[type-arg]
        number, moment = int(body["messages"][-1]["content"].split()[1]), clock.now // moment_s
        luck = chance(moment) < 0.5 and chance(number) < share if is_shared else chance([number, moment]) < share
        return "maybe" if luck else "yes"

    return answer


def chance(seed: object) -> float:
    return int(digest(seed)[:8], 16) / 2**32


async def periods(probes: Probes, count: int, start: float = START, clock: Clock | None = None) -> list[ProbeReport]:
    """Let a watcher run for so many periods; return what it was told."""
    reports, clock = [], clock or Clock()
    for round_ in range(count * ROUNDS):
        clock.now = start + round_ * PERIOD_S / ROUNDS
        report = await probes.round(clock.now)
        reports += [report] if report else []
    return reports


async def swapped(store: Store, before: Script, after: Script, task: Task | None = None) -> list[ProbeReport]:
    """Ask one model for two periods and another one, under the same name, in the next; return the reports of that."""
    task = task or world()
    assert await periods(Probes(store, task, ScriptedModel(before)), 2) == []
    return await periods(Probes(store, task, ScriptedModel(after)), 1, START + 2 * PERIOD_S)


async def test_a_probe_keeps_no_target_for_it_may_be_told_anew_and_be_forgotten(store: Store) -> None:
    fill(store, cases=1)
    told = Banked(digest(0), structs.replace(case(0), target="666"), "dev", 1.0, 1.0, target_key="eve")
    store.take_in("even", "told", 1, [told])

    await Probes(store, world(), ScriptedModel(steady())).round(START)

    (probe,) = store.probes("even")
    assert probe.case == case(0)


@pytest.mark.slow
async def test_a_random_model_that_stays_the_same_is_not_accused_in_120_probes(store: Store) -> None:
    """The rate is that of the detectors: one in 10,000 probes or fewer; here 120 of a model at 70, 20 and 10 %."""
    fill(store)
    model = ScriptedModel(wavering(3, (0.7, 0.2, 0.1)))

    reports = await periods(Probes(store, world(), model), 5)

    assert reports[-1].finished == 120
    assert 20 < reports[-1].telling < 60
    assert reports[-1].last / reports[-1].telling == pytest.approx(1 / 2, abs=0.15)
    assert not any(report.is_alarm for report in reports)


@pytest.mark.slow  # 400 probes in each case
@pytest.mark.parametrize(("moment_s", "is_shared"), [(PERIOD_S, False), (PERIOD_S / 40, True)])
async def test_answers_that_are_alike_for_being_near_in_time_accuse_nobody(
    store: Store, moment_s: float, is_shared: bool
) -> None:
    """A server's noise that lasts a period, for each case by itself; and one that passes by the next probe, for all."""
    fill(store)
    clock = Clock()
    model = ScriptedModel(noisy(clock, moment_s, is_shared=is_shared))

    reports = await periods(Probes(store, world(), model), 12, clock=clock)

    assert reports[-1].finished >= 390
    assert reports[-1].telling > 50
    assert not any(report.is_alarm for report in reports)


async def test_a_steady_model_that_answers_half_the_cases_otherwise_is_noticed_within_a_period(store: Store) -> None:
    fill(store)

    reports = await swapped(store, steady(), steady(0.5))

    noticed = next(report for report in reports if report.is_alarm)
    assert noticed.finished <= 40
    assert (noticed.is_other, noticed.is_worse) == (True, False)
    assert noticed.telling == noticed.last >= 15


async def test_a_period_with_too_few_probes_notices_nothing(store: Store) -> None:
    """Evidence for a swap grows for one period: 10 changed answers in 20 probes are too few, and later ones deny it."""
    fill(store)

    reports = await swapped(store, steady(), steady(0.5), world(20))

    assert reports[-1].finished == 20
    assert not any(report.is_other for report in reports)


async def test_a_random_model_that_prefers_another_answer_is_noticed_within_40_probes(store: Store) -> None:
    fill(store)

    reports = await swapped(store, wavering(1, (0.9, 0.1, 0.0)), wavering(2, (0.1, 0.9, 0.0)))

    assert any(report.is_other for report in reports)


async def test_a_swap_is_noticed_before_the_probes_that_argue_against_it_come_in(store: Store) -> None:
    fill(store)
    noticed = next(report for report in await swapped(store, steady(), steady(0.5)) if report.is_alarm)

    later = await periods(Probes(store, world(), ScriptedModel(steady(0.5))), 1, START + 3 * PERIOD_S)

    assert noticed.telling == noticed.last
    assert later[-1].telling - later[-1].last == later[-1].last  # as many with the first one odd
    assert all(report.is_other for report in later)


async def test_a_model_that_gives_the_same_answers_faster_is_not_noticed(store: Store) -> None:
    fill(store)
    task = world(probes=4)
    await periods(Probes(store, task, ScriptedModel(steady(), delay_s=0.001)), 2)

    reports = await periods(Probes(store, task, ScriptedModel(steady())), 1, START + 2 * PERIOD_S)

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


def test_the_change_is_the_last_score_less_the_mean_of_the_two_before(store: Store) -> None:
    scores = [(1.0, 0.0, 0.0), (1.0, 1.0, 0.5), (None, 1.0, 0.0), (1.0, None, 0.0), (1.0, 1.0, None)]
    asked = (START, START + PERIOD_S, START + 2 * PERIOD_S)
    three = (Answer(text="yes"),) * 3
    store.put_probes("even", [Probe(digest(n), case(n), "", "m", three, s, asked) for n, s in enumerate(scores)])

    report = judge_probes(store, world(), "m")

    assert report
    assert (report.finished, report.scored, report.change, report.upto) == (5, 2, -0.5, asked[-1])


@pytest.mark.slow
async def test_after_an_alarm_only_what_was_asked_after_it_counts(store: Store) -> None:
    fill(store)
    reports = await swapped(store, steady(), steady(0.5))
    noticed = next(report for report in reports if report.is_alarm)
    store.append_ledger(service_key("even"), "alarm", {"about": ABOUT, "evidence": noticed.told})

    assert judge_probes(store, world(), "scripted") is None
    later = await periods(Probes(store, world(), ScriptedModel(steady(0.5))), 3, START + 3 * PERIOD_S)

    assert later
    assert not any(report.is_alarm or report.telling for report in later)


async def test_whether_a_case_was_right_has_no_say_in_whether_it_is_asked(tmp_path: Path) -> None:
    chosen = []
    for number, score in enumerate((lambda n: 1.0, lambda n: float(n % 2), lambda n: None)):
        with SQLiteStore(tmp_path / f"{number}.db") as store:
            fill(store, score=score)  # type: ignore[arg-type]
            await periods(Probes(store, world(10), ScriptedModel(steady())), 2)
            chosen.append([probe.id for probe in store.probes("even")])

    assert chosen[0] == chosen[1] == chosen[2]
    assert len(chosen[0]) == 20
    assert set(chosen[0][:10]) != set(chosen[0][10:])


async def test_a_probe_is_one_request_asked_three_times_as_far_apart_as_each_other(store: Store) -> None:
    fill(store, cases=10)
    model = ScriptedModel(steady())
    probes = Probes(store, world(10), model)

    made = []
    for period in range(4):
        await periods(probes, 1, START + period * PERIOD_S)
        made.append(len(model.calls))

    assert made == [10, 30, 60, 90]
    assert set(Counter(map(digest, model.calls)).values()) == {9}
    finished = [probe.asked for probe in store.probes("even") if len(probe.asked) == 3]
    assert {(round(b - a), round(c - b)) for a, b, c in finished} == {(PERIOD_S, PERIOD_S)}


@pytest.mark.parametrize(("cases", "begun"), [(60, 40), (10, 10)])
async def test_probes_are_begun_evenly_over_the_period(store: Store, cases: int, begun: int) -> None:
    fill(store, cases=cases)

    await periods(Probes(store, world(40), ScriptedModel(steady())), 1)

    at = [probe.at - START for probe in store.probes("even")]
    assert at == pytest.approx([PERIOD_S / begun * n for n in range(begun)])


async def test_after_a_pause_what_is_due_is_asked_in_small_rounds(store: Store) -> None:
    fill(store)
    await periods(Probes(store, world(), ScriptedModel(steady())), 1)
    model = ScriptedModel(steady())

    await Probes(store, world(), model).round(START + 1.4 * PERIOD_S)

    assert len(model.calls) == CALLS_A_ROUND
    assert [len(probe.answers) for probe in store.probes("even")].count(2) == CALLS_A_ROUND - 1


async def test_another_process_goes_on_where_one_died(store: Store) -> None:
    fill(store)
    model = ScriptedModel(steady())
    for period in range(3):
        for round_ in range(ROUNDS):
            now = START + period * PERIOD_S + round_ * PERIOD_S / ROUNDS
            await Probes(store, world(10), model).round(now)

    assert len(store.probes("even")) == 30
    assert len(model.calls) == 10 + 20 + 30


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
    await periods(probes, 1)
    store.set_champion("even", Policy(instructions="Otherwise."), "changed")
    store.forget_key("ann", [CHAMPION.id])

    await periods(probes, 1, START + PERIOD_S)

    assert [len(probe.answers) for probe in store.probes("even")] == [1] * 4


async def test_nothing_is_asked_without_a_champion_or_where_probes_are_switched_off(store: Store) -> None:
    model = ScriptedModel([])
    assert await Probes(store, world(), model).round(START) is None
    fill(store)
    assert await Probes(store, world(0), model).round(START) is None

    assert model.calls == []


def test_a_memo_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="were given a memo"):
        Probes(store, world(), MemoModel(ScriptedModel([]), store))


@pytest.mark.parametrize(("late", "asked"), [(1.5, 2), (1.6, 1)])
async def test_what_has_waited_too_long_for_its_next_answer_is_left(store: Store, late: float, asked: int) -> None:
    """Its times would not be equally spaced, and two neighbours not as near as the other two."""
    fill(store)
    await Probes(store, world(2), ScriptedModel(steady())).round(START)

    await Probes(store, world(2), ScriptedModel(steady())).round(START + late * PERIOD_S)

    assert len(store.probes("even")[0].answers) == asked
