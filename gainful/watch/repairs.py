"""Errors that were corrected, and whether they stay so: the repeat-error rate and the forgetting rate.

Guarantees: a rate counts answers to the same cases under two policies, by the same checks; where nothing was asked it
is unknown.  Nothing here promotes: a repair was once wrong, so as a test it says what must stay right, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gainful.core import Attempt, Case, Model, Policy
from gainful.engine.local import Engine
from gainful.loop.attempts import kept_attempts
from gainful.store import Repair, Store
from gainful.tasks import Task
from gainful.tasks.split import content

ASKED_AGAIN = 60  # latest repairs, under every new champion


class Share(NamedTuple):
    """So many errors in ``n`` answers; unknown where ``n`` is 0."""

    errors: int
    n: int


class Rates(NamedTuple):
    """Of errors once corrected, how many came back; of what was right under the champion before, how much is wrong."""

    repeated: Share
    forgotten: Share


def repaired(before: Sequence[Attempt], after: Sequence[Attempt], cases: Sequence[Case], at: float) -> list[Repair]:
    """Return what a new champion answers rightly and the one before did not, on the dev cases that both answered."""
    wrong = {attempt.case: attempt for attempt in before if attempt.score is not None and attempt.score < 1.0}
    right = {attempt.case: attempt for attempt in after if attempt.score == 1.0}
    return [
        Repair(
            id=content(case),
            case=case,
            wrong=wrong[case.id].answer.value,
            right=right[case.id].answer.value,
            signal="check",
            at=at,
            policy=right[case.id].policy,
        )
        for case in cases
        if case.id in wrong and case.id in right
    ]


async def ask_again(store: Store, task: Task, model: Model, champion: Policy) -> None:
    """Answer the latest repairs under *champion*, those that it has not answered yet."""
    done = {attempt.case for attempt in store.attempts(task.name, champion.id)}
    cases = [repair.case for repair in store.repairs(task.name, limit=ASKED_AGAIN) if repair.case.id not in done]
    consult = tuple(check for check in task.checks if not check.needs_target)
    engine = Engine(model=model, kind=task.kind, consult=consult)
    async for _ in kept_attempts(store, task.name, engine, champion, cases, task.keyless):
        continue


def rates(store: Store, task: str, champion: str, former: str | None) -> Rates:
    """Return both rates of *champion*, from stored attempts alone."""
    scores = {attempt.case: attempt.score for attempt in store.attempts(task, champion)}
    repairs = [scores[repair.case.id] for repair in store.repairs(task) if scores.get(repair.case.id) is not None]
    before = store.attempts(task, former) if former else []
    kept = [scores[old.case] for old in before if old.score == 1.0 and scores.get(old.case) is not None]
    return Rates(Share(_wrong(repairs), len(repairs)), Share(_wrong(kept), len(kept)))


def _wrong(scores: Sequence[float | None]) -> int:
    return sum(score is not None and score < 1.0 for score in scores)
