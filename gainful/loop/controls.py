"""Is it knowledge?  What a policy with new weights says to dev, beside what form and constant answers are worth.

The control is the best policy without weights, which shows the model's own verified answers as demos: what it gets
right, form and examples alone bring.  A gain that is only form shows where strict verdicts rise and lenient ones do
not; a policy that has learned the usual answer, where it gives that far oftener than it is right.  Everything comes
from stored answers: no model is asked, and nothing that learns reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from gainful.answers.extract import NUMBER, json_values
from gainful.core import Answer, Attempt, Case, Check, Policy, Text, canonical, judge, lowest
from gainful.gate import proportion_interval
from gainful.learners.kinds import OTHER, kinds
from gainful.loop.events import Controls, Errors, Interval, Replies, Usual
from gainful.tasks import Task

EXAMPLE_CHARACTERS = 300
ANSWER_CHARACTERS = 60
WORD = re.compile(r"[^\W\d_]+")

Loose: TypeAlias = Callable[[str], str]
"""The last part of a reply that may be its answer; empty where there is none."""


class Comparison:
    """Two policies on *cases* of *task*, as far as both have answered them, in this order, and a check could tell."""

    def __init__(self, task: Task, cases: Sequence[Case], before: Sequence[Attempt], after: Sequence[Attempt]) -> None:
        rows = [row for row in zip(cases, before, after, strict=False) if None not in (row[1].score, row[2].score)]
        self.n = len(rows)
        self._task = task
        self._rows = rows
        self._kind_of = kinds(cases)
        self._cases = [case for case, *_ in rows]
        self._before, self._after = [one for _, one, _ in rows], [one for _, _, one in rows]
        self._loose = {kind: _loose(some) for kind, some in self._of_kind(self._cases).items()}

    def controls(self, label: str, challenger: Policy, control: Policy, errors: Errors) -> Controls:
        """Return what there is to say of *challenger*; *errors* are what its lineage has unlearned."""
        of_kind = sorted(self._of_kind(self._cases), key=lambda kind: (kind == OTHER, kind))
        usual = tuple(self._usual(kind) for kind in of_kind)
        constants = [one.constant for one in usual]
        constant = sum(round(one.constant * one.n) for one in usual if one.constant is not None)
        return Controls(
            label=label,
            adapter=challenger.adapter.sha256 if challenger.adapter else "",
            control=control.id,
            n=self.n,
            before=self._replies(self._before, control),
            after=self._replies(self._after, control),
            constant=None if None in constants else _share(constant, self.n),
            kinds=usual,
            errors=errors,
        )

    def _of_kind(self, cases: Iterable[Case]) -> dict[int, list[Case]]:
        found: dict[int, list[Case]] = {}
        for case in cases:
            found.setdefault(self._kind_of[case.id], []).append(case)
        return found

    def _replies(self, attempts: Sequence[Attempt], control: Policy) -> Replies:
        judged = [self._judged(case, attempt) for case, attempt in zip(self._cases, attempts, strict=True)]
        shown = {canonical(demo.value) for demo in control.demos}
        wrong = [attempt for attempt, (_, lenient) in zip(attempts, judged, strict=True) if not lenient]
        strict, lenient = (sum(column) for column in zip(*judged, strict=True))
        has_loose = not isinstance(self._task.kind, Text) or any(self._loose.values())
        return Replies(
            strict=_share(strict, self.n),
            lenient=_share(lenient, self.n) if has_loose else None,
            characters=fmean(len(attempt.answer.text.strip()) for attempt in attempts),
            copied=sum(canonical(attempt.answer.value) in shown for attempt in wrong),
        )

    def _judged(self, case: Case, attempt: Attempt) -> tuple[bool, bool]:
        """Return whether an answer is right, strictly and leniently."""
        if attempt.score == 1.0:
            return _is_bare(attempt.answer), True
        loose = self._loose[self._kind_of[case.id]]
        last = loose(attempt.answer.text) if loose and isinstance(self._task.kind, Text) else ""
        return False, bool(last) and _passes(self._task.checks, case, last)

    def _usual(self, kind: int) -> Usual:
        rows = [row for row in self._rows if self._kind_of[row[0].id] == kind]
        _, before = _mode([one.answer.value for _, one, _ in rows])
        answer, after = _mode([one.answer.value for _, _, one in rows])
        targets = [case.target for case, *_ in rows]
        return Usual(
            example=rows[0][0].text[:EXAMPLE_CHARACTERS],
            n=len(rows),
            right_before=sum(one.score == 1.0 for _, one, _ in rows),
            right_after=sum(one.score == 1.0 for _, _, one in rows),
            before=before,
            after=after,
            answer=answer[:ANSWER_CHARACTERS],
            constant=None if None in targets else _mode(targets)[1],
        )


def _loose(cases: Sequence[Case]) -> Loose | None:
    """Return how an answer to *cases* is read leniently: as a number or a word where all targets are such."""
    targets = [str(case.target).strip() for case in cases if case.target is not None]
    for pattern in (NUMBER, WORD):
        if len(targets) == len(cases) and all(pattern.fullmatch(target) for target in targets):
            return lambda text, pattern=pattern: next(reversed(pattern.findall(text)), "")  # type: ignore[misc]
    return None


def _is_bare(answer: Answer) -> bool:
    """Whether a reply is its answer, or one JSON value that holds it, and nothing else."""
    text = answer.text.strip()
    if not text or text == str(answer.value) or text.casefold() == str(answer.value).casefold():
        return True  # a call in the protocol's own field has no words
    if text[:1] not in ("{", "["):
        return False
    found = next(json_values(text), None)
    return found is not None and text[-1:] in ("}", "]")


def _passes(checks: Sequence[Check], case: Case, last: str) -> bool:
    return lowest(judge(checks, case, Answer(text=last, value=last))) == 1.0


def _mode(values: Sequence[Any]) -> tuple[str, float]:
    """Return the most frequent of *values* as text, and its share; of equals the one that comes first."""
    counts = Counter(map(canonical, values))
    most, count = max(counts.items(), key=lambda item: item[1])
    return most.decode().strip('"'), count / len(values)


def _share(right: int, n: int) -> Interval:
    low, high = proportion_interval(right, n, 0.05)
    return Interval(mean=right / n, low=low, high=high, n=n)
