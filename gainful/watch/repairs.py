"""Errors that were corrected: shown to learners, asked of every challenger, and asked again of every champion.

Guarantees: learners are shown repairs of the dev side alone, in the shares that selection allows a key and a template,
none that the screen objects to; a rate counts answers to the same cases under two policies, by trusted checks alone;
where nothing was asked it is unknown.  Nothing here promotes: a repair was once wrong, so as a test it says what must
stay right, and no more.  It may keep a challenger out, which no error budget has to pay for: that bounds the chance to
let in what is no better, and whoever is turned away adds nothing to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from msgspec.structs import replace

from gainful.core import Answer, Attempt, Case, CheckError, Demo, Model, Policy, judge, lowest
from gainful.engine.local import Engine
from gainful.gate.sign_test import fewest_wins
from gainful.loop.attempts import kept_attempts
from gainful.store import Banked, Repair, Store
from gainful.tasks import Task
from gainful.watch.screen import screen
from gainful.watch.selection import select
from gainful.watch.traffic_task import needs_targets, proof_checks

ASKED_AGAIN = 60  # latest repairs, of every challenger and every new champion
SHOWN = 20  # repairs that a run's learners may choose examples from
LATEST = 1000  # repairs that are looked at
HARM_LEVEL = Fraction(1, 20)  # chance to turn a challenger away that breaks as many repaired cases as it mends


class Share(NamedTuple):
    """So many errors in ``n`` answers; unknown where ``n`` is 0."""

    errors: int
    n: int


class Rates(NamedTuple):
    """Of errors once corrected, how many came back; of what was right under the champion before, how much is wrong."""

    repeated: Share
    forgotten: Share


class Kept(NamedTuple):
    """What a challenger makes of ``n`` repaired cases that the champion answered too.

    It gets ``broken`` wrong that the champion gets right, and ``mended`` right that the champion gets wrong.
    """

    n: int
    broken: int
    mended: int

    @property
    def is_harm(self) -> bool:
        """Whether so many are broken as chance alone would not do: an exact one-sided sign test.

        >>> Kept(60, broken=4, mended=0).is_harm, Kept(60, broken=5, mended=0).is_harm, Kept(60, 9, 5).is_harm
        (False, True, False)
        """
        fewest = fewest_wins(self.broken + self.mended, HARM_LEVEL)
        return fewest is not None and self.broken >= fewest


def proven(attempt: Attempt) -> float | None:
    """Return what trusted checks say of an attempt, ``None`` where they say nothing: others prove nothing."""
    return lowest(verdict for verdict in attempt.verdicts if verdict.trusted)


def repaired(
    task: Task, before: Sequence[Attempt], after: Sequence[Attempt], cases: Sequence[Banked], at: float
) -> list[Repair]:
    """Return what a new champion answers rightly and the one before did not, on the dev cases that both answered.

    No target is kept with it: who told it may tell another, or be forgotten.
    """
    wrong = {attempt.case: attempt for attempt in before if (score := proven(attempt)) is not None and score < 1.0}
    right = {attempt.case: attempt for attempt in after if proven(attempt) == 1.0}
    return [
        Repair(
            id=banked.id,
            case=replace(banked.case, target=None),
            wrong=wrong[banked.case.id].answer.value,
            right=right[banked.case.id].answer.value,
            signal="feedback" if needs_targets(task) else "check",
            at=at,
            key=banked.key,
            policy=right[banked.case.id].policy,
        )
        for banked in cases
        if banked.case.id in wrong and banked.case.id in right
    ]


# --- what learners are shown


def choose(store: Store, task: Task, seed: int) -> list[str]:
    """Return the ids of the repairs from which a run's learners may take examples, as ``select`` takes dev cases."""
    known = store.find_banked(task.name, _right_answers(store, task))
    return [banked.id for banked in select(known, task.improving, SHOWN, seed)]


def examples(store: Store, task: Task, ids: Iterable[str]) -> tuple[Demo, ...]:
    """Return the repairs with these ids as worked examples, as far as they may still be shown."""
    right = _right_answers(store, task)
    found = [(banked.case, right[banked.id]) for banked in store.find_banked(task.name, ids) if banked.id in right]
    return tuple(Demo(replace(case, target=None), value) for case, value in found if _may_be_shown(task, case, value))


def _right_answers(store: Store, task: Task) -> dict[str, object]:
    return {repair.id: repair.right for repair in store.repairs(task.name, limit=LATEST)}


def _may_be_shown(task: Task, case: Case, right: object) -> bool:
    """Whether the screen lets an answer pass, and where callers are the proof, what they have told since."""
    if screen(replace(case, target=None), right, kind=task.kind, canaries=task.improving.canaries):
        return False
    if not needs_targets(task):
        return True
    try:
        return lowest(judge(proof_checks(task), case, Answer(text="", value=right))) == 1.0
    except CheckError:  # a caller's target can be anything
        return False


# --- what must stay right


def repaired_cases(store: Store, task: Task, upto: float) -> list[Case]:
    """Return the latest cases that were repaired up to Unix time *upto*, with the targets that are told of them now."""
    repairs = [repair for repair in store.repairs(task.name, limit=LATEST) if repair.at <= upto][:ASKED_AGAIN]
    targets = {one.id: one.case.target for one in store.find_banked(task.name, [repair.id for repair in repairs])}
    return [replace(repair.case, target=targets.get(repair.id)) for repair in repairs]


async def ask_again(store: Store, task: Task, model: Model, policy: Policy, cases: Sequence[Case]) -> None:
    """Answer *cases* under *policy*, those that it has not answered yet."""
    done = {attempt.case for attempt in store.attempts(task.name, policy.id)}
    left = [case for case in cases if case.id not in done]
    checks = task.checks if needs_targets(task) else task.keyless
    consult = tuple(check for check in task.checks if not check.needs_target)
    engine = Engine(model=model, kind=task.kind, consult=consult)
    async for _ in kept_attempts(store, task.name, engine, policy, left, checks):
        continue


def compared(store: Store, task: str, champion: str, challenger: str, cases: Sequence[Case]) -> Kept:
    """Return what *challenger* makes of repaired *cases*, from stored attempts alone."""
    ours, theirs = (
        {attempt.case: score for attempt in store.attempts(task, policy) if (score := proven(attempt)) is not None}
        for policy in (challenger, champion)
    )
    pairs = [(ours[case.id] == 1.0, theirs[case.id] == 1.0) for case in cases if case.id in ours and case.id in theirs]
    return Kept(len(pairs), pairs.count((False, True)), pairs.count((True, False)))


def rates(store: Store, task: str, champion: str, former: str | None) -> Rates:
    """Return both rates of *champion*, from stored attempts alone."""
    scores = {attempt.case: proven(attempt) for attempt in store.attempts(task, champion)}
    repairs = [scores[repair.case.id] for repair in store.repairs(task) if scores.get(repair.case.id) is not None]
    before = store.attempts(task, former) if former else []
    kept = [scores[old.case] for old in before if proven(old) == 1.0 and scores.get(old.case) is not None]
    return Rates(Share(_wrong(repairs), len(repairs)), Share(_wrong(kept), len(kept)))


def _wrong(scores: Sequence[float | None]) -> int:
    return sum(score is not None and score < 1.0 for score in scores)
