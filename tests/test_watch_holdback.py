"""When a champion is taken back: what its requests say of it, beside the former one's, and beside what was before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from worlds import sums

from gainful.core import Exchange, Policy, Seat, Usage, Verdict, VerdictWord
from gainful.store import SQLiteStore, encode_exchange
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.watch.canary import LEAST_CRITICAL, CanaryWatch
from gainful.watch.evidence import quality_of
from gainful.watch.holdback import LEAST_BEFORE, REFERENCE, Former, HoldbackWatch, Inquest
from gainful.watch.service import ALONE, Helm, Stage

NEW, OLD = Policy(instructions="New."), Policy(instructions="Old.")
HELD = Stage("held", "holdback", OLD.id, NEW.id, 0.5, "5eed", 0.0)

Outcome = tuple[float | None, int, VerdictWord]
"""What a trusted check says, the status, and the verdict."""

RIGHT: Outcome = (1.0, 200, "verified")
WRONG: Outcome = (0.0, 200, "unverified")
REFUSED: Outcome = (None, 400, "unverified")
FAILED_OPEN: Outcome = (None, 200, "failed-open")
OUT_OF_REACH: Outcome = (None, 503, "unverified")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "store.db", clock=lambda: 100.0) as store:
        yield store


@pytest.fixture
def task() -> Task:
    return replace(sums(), name="task")


class Street:
    """Stores what was answered, one request after the other."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._asked = 0

    def answer(self, policy: Policy, outcomes: Iterable[Outcome], seat: Callable[[int], Seat] | None = None) -> None:
        self._store.put_encoded([encode_exchange(self._exchange(policy, one, seat)) for one in outcomes])

    def in_turns(self, ours: Iterable[Outcome], theirs: Iterable[Outcome]) -> None:
        """Blocks of two: the champion's request, and the former one's."""
        for one, other in zip(ours, theirs, strict=True):
            self.answer(NEW, [one], lambda n: Seat("champion", "w", n, holdback=HELD.id))
            self.answer(OLD, [other], lambda n: Seat("former", "w", n, holdback=HELD.id))

    def _exchange(self, policy: Policy, outcome: Outcome, seat: Callable[[int], Seat] | None) -> Exchange:
        score, status, verdict = outcome
        number, self._asked = self._asked, self._asked + 1
        return Exchange(
            id=f"r{number}",
            at=float(number),
            task="task",
            policy=policy.id,
            model="m",
            verdict=verdict,
            status=status,
            verdicts=() if score is None else (Verdict(check="c", trusted=True, score=score),),
            seat=None if seat is None else seat(number),
        )


@pytest.fixture
def street(store: SQLiteStore) -> Street:
    return Street(store)


def watched(store: SQLiteStore, task: Task, stage: Stage | None, former: Former | None = None) -> HoldbackWatch:
    watch = HoldbackWatch(store, task, NEW.id, stage, 0, quality_of(store, task), former)
    watch.read(1e9)
    return watch


@pytest.mark.parametrize("broken", [REFUSED, FAILED_OPEN, OUT_OF_REACH])
def test_a_champion_of_which_every_request_fails_is_taken_back(
    store: SQLiteStore, task: Task, street: Street, broken: Outcome
) -> None:
    street.in_turns([broken] * 40, [RIGHT] * 40)

    watch = watched(store, task, HELD)

    assert watch.takes_back == "requests fail more often than the former champion's, on 40 comparisons in the hold-back"
    assert watch.told["compared"] == 0  # of their quality nobody knows anything
    assert watch.told["errors"]["gain"] == -1.0


def test_a_model_that_is_out_of_reach_for_both_takes_nobody_back_and_is_no_alarm(
    store: SQLiteStore, task: Task, street: Street
) -> None:
    street.answer(OLD, [RIGHT] * 50)
    came_in = store.last_exchange_row()
    street.in_turns([OUT_OF_REACH] * 200, [OUT_OF_REACH] * 200)

    watch = watched(store, task, HELD, Former(OLD.id, came_in))

    assert (watch.takes_back, watch.drifts) == ("", "")


@pytest.mark.parametrize(("broken", "what"), [(WRONG, "quality"), (REFUSED, "the share of requests that do not fail")])
def test_without_a_hold_back_a_champion_is_held_against_what_the_former_one_was(
    store: SQLiteStore, task: Task, street: Street, broken: Outcome, what: str
) -> None:
    street.answer(OLD, [RIGHT, RIGHT, RIGHT, WRONG] * 50)
    came_in = store.last_exchange_row()
    street.answer(NEW, [broken] * 60)

    watch = watched(store, task, None, Former(OLD.id, came_in))

    assert watch.takes_back.startswith(f"{what} fell below 0.")
    assert watch.takes_back.endswith(", and nothing is held back to compare with")
    assert watch.served == 60
    assert watched(store, task, None).takes_back == ""  # nobody knows what was before


def test_what_was_before_is_read_from_the_former_champions_last_requests_alone(
    store: SQLiteStore, task: Task, street: Street
) -> None:
    """It was bad at first, good for as long as is looked back, and another policy was bad meanwhile and afterwards."""
    street.answer(OLD, [WRONG] * 300)
    street.answer(OLD, [RIGHT] * REFERENCE)
    street.answer(Policy(instructions="Another."), [WRONG] * 100)
    came_in = store.last_exchange_row()
    street.answer(OLD, [WRONG] * 100)

    watch = watched(store, task, None, Former(OLD.id, came_in))

    assert watch.told["before"] == pytest.approx(0.025 ** (1 / REFERENCE))  # exact, for all of them right


def test_a_former_champion_of_whom_little_is_known_is_no_measure(
    store: SQLiteStore, task: Task, street: Street
) -> None:
    street.answer(OLD, [RIGHT] * (LEAST_BEFORE - 1))
    came_in = store.last_exchange_row()
    street.answer(NEW, [WRONG] * 60)

    watch = watched(store, task, None, Former(OLD.id, came_in))

    assert (watch.takes_back, watch.told["before"]) == ("", None)


@pytest.mark.parametrize(
    ("theirs", "taken_back", "drifts"), [([RIGHT, WRONG], True, ""), ([WRONG, WRONG], False, "quality")]
)
def test_where_quality_fell_the_hold_back_says_whether_the_champion_is_to_blame(
    store: SQLiteStore, task: Task, street: Street, theirs: list[Outcome], taken_back: bool, drifts: str
) -> None:
    """All was right before; now all fails that the new one answers, and half of what the former one does, or all."""
    street.answer(OLD, [RIGHT] * 200)
    came_in = store.last_exchange_row()
    street.in_turns([WRONG, WRONG] * 25, theirs * 25)

    watch = watched(store, task, HELD, Former(OLD.id, came_in))

    assert bool(watch.takes_back) is taken_back
    assert watch.drifts == drifts


def test_it_waits_while_it_is_too_early_to_say_who_is_to_blame(store: SQLiteStore, task: Task, street: Street) -> None:
    street.answer(OLD, [RIGHT] * 200)
    came_in = store.last_exchange_row()
    street.in_turns([WRONG] * 20, [RIGHT, WRONG] * 10)

    watch = watched(store, task, HELD, Former(OLD.id, came_in))

    assert watch.as_before["quality"].alarm.rings
    assert (watch.takes_back, watch.drifts) == ("", "")


@pytest.mark.parametrize(("former", "blamed"), [(0.8, "champion"), (0.6, "callers")])
def test_an_inquest_errs_about_as_seldom_as_it_says(former: float, blamed: str) -> None:
    """The champion fell from 80 to 60 %, alone or as the former one did; blocks of 20, 200 of each, by a seed."""
    draw, wrong = random.Random(7), 0
    for _ in range(200):
        inquest = Inquest(0.8, 0.02, 0.25 * (1 + 1 / 19))
        while not inquest.verdict and inquest.n < 2000:
            ours = [float(draw.random() < 0.6) for _ in range(19)]
            for score in ours:
                inquest.see(score)
            inquest.compare(sum(ours) / 19 - float(draw.random() < former))
        wrong += inquest.verdict != blamed

    assert wrong <= 20


def test_a_fall_that_is_over_is_nobodys() -> None:
    inquest = Inquest(0.8, 0.02, 0.5)
    for number in range(40):
        inquest.see(float(number % 5 != 0))
        inquest.compare(-1.0)

    assert inquest.verdict == "callers"


@pytest.mark.parametrize(("difference", "blamed"), [(-0.5, "champion"), (0.0, "callers")])
def test_what_an_inquest_decided_stays(difference: float, blamed: str) -> None:
    inquest = Inquest(0.8, 0.02, 0.25)
    for _ in range(LEAST_BEFORE):
        inquest.see(0.3)
    while not inquest.verdict:
        inquest.compare(difference)
    for _ in range(1000):
        inquest.see(1.0)
        inquest.compare(-0.5 - difference)

    assert inquest.verdict == blamed


def test_a_roll_back_says_how_long_the_one_that_leaves_was_in_service(tmp_path: Path) -> None:
    now = [100.0]
    with SQLiteStore(tmp_path / "store.db", clock=lambda: now[0]) as store:
        store.set_champion("task", OLD, "baseline")
        store.put_policy(NEW)
        helm = Helm(store, "task", lambda: now[0])
        helm.force(NEW.id, "5eed", 0.1)
        now[0] = 160.5
        helm.roll_back("worse")
        (came, left) = store.ledger("service:task")

    assert (came.content["row"], left.content["served_s"]) == (0, 60.5)


@pytest.mark.parametrize(("holdback", "is_alone"), [(0.1, False), (0.0, True)])
def test_who_is_forced_in_with_nothing_held_back_is_told_what_that_voids(
    store: SQLiteStore, holdback: float, is_alone: bool
) -> None:
    store.set_champion("task", OLD, "baseline")
    store.put_policy(NEW)
    Helm(store, "task", lambda: 0.0).force(NEW.id, "5eed", holdback)

    (line,) = store.ledger("service:task")
    assert line.content["void"].endswith(ALONE) is is_alone


# --- guards of a canary


CANARY = Stage("come", "canary", NEW.id, OLD.id, 0.5, "5eed", 0.0)
USUAL = Usage(calls=1, prompt_tokens=50, completion_tokens=10, elapsed_ms=100.0)


def compared(store: SQLiteStore, task: Task, usage: Usage, asked: str, pairs: int) -> CanaryWatch:
    """Pairs of requests of these words, right on both sides; those of the challenger cost *usage*."""
    request = {"messages": [{"role": "user", "content": asked}]}
    exchanges = [
        Exchange(
            id=f"r{number}",
            at=float(number),
            task="task",
            policy=OLD.id if number % 2 else NEW.id,
            model="m",
            verdict="verified",
            verdicts=(Verdict(check="c", trusted=True, score=1.0),),
            request=request,
            usage=USUAL if number % 2 else usage,
            seat=Seat("champion" if number % 2 else "challenger", "w", number, canary=CANARY.id),
        )
        for number in range(2 * pairs)
    ]
    store.put_encoded([encode_exchange(exchange) for exchange in exchanges])
    watch = CanaryWatch(store, task, [CANARY], quality_of(store, task))
    watch.read(1e9)
    return watch


@pytest.mark.parametrize(
    ("guard", "usage"),
    [
        ("latency", structs.replace(USUAL, elapsed_ms=301.0)),
        ("cost", structs.replace(USUAL, completion_tokens=251)),
    ],
)
def test_a_challenger_that_is_right_but_slow_or_dear_is_taken_back(
    store: SQLiteStore, task: Task, guard: str, usage: Usage
) -> None:
    """By more than the task allows: 3 times the usual time, 5 times the usual tokens."""
    verdict, why = compared(store, task, usage, "hello", 100).verdict()

    assert (verdict, why.split(":")[0]) == ("roll back", guard)


@pytest.mark.parametrize(("asked", "verdict"), [("a refund, please", "go on"), ("hello", "hold")])
def test_a_critical_slice_has_to_be_seen_before_a_challenger_goes_on(
    store: SQLiteStore, task: Task, asked: str, verdict: str
) -> None:
    careful = replace(task, improving=Improving(critical={"refunds": "refund"}))

    found, why = compared(store, careful, USUAL, asked, 600).verdict()

    assert found == verdict
    if verdict == "hold":
        assert why == f"critical: refunds: 0 comparisons, {LEAST_CRITICAL} are needed"


def test_a_challenger_that_is_worse_on_a_critical_slice_alone_is_taken_back(store: SQLiteStore, task: Task) -> None:
    careful = replace(task, improving=Improving(critical={"refunds": "refund"}))
    watch = compared(store, careful, USUAL, "hello", 300)
    for _ in range(60):  # where all else is right, one slice is wrong
        watch.tests["critical: refunds"].see(-1.0)
        watch.tests["quality"].see(0.0)

    assert watch.verdict()[1].startswith("critical: refunds: worse than the champion")
