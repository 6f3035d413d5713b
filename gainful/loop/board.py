"""The dev board: every policy's attempts on the same dev cases, in one fixed order, each answered once.

Races, baselines and learners read their numbers here.  A policy that has answered the first n cases is never asked
again for them, which is what makes a paired race against the head cheap.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from gainful.core import Attempt, Case, Evidence, Policy, Usage, judge, lowest
from gainful.gate import interval, mean_interval, proportion_interval
from gainful.learners.duplicates import near_duplicates
from gainful.learners.kinds import kinds
from gainful.loop.attempts import RIGHT
from gainful.loop.controls import Comparison
from gainful.loop.events import Controls, ErrorGroup, Errors, Example, Interval, OfKind
from gainful.loop.run import Run

EXAMPLES = 3  # shown of each error group
EXAMPLE_CHARACTERS = 300  # of a question or an answer in an example


class Board:
    """Attempts by policy on the dev cases of the run's task, shuffled once by its seed."""

    def __init__(self, run: Run):
        self._run = run
        self._task = run.task
        self._seed = seed = run.settings.seed
        self._attempts: dict[str, list[Attempt]] = {}
        self.cases = tuple(sorted(run.task.dev, key=lambda c: hashlib.sha256(f"{seed} {c.id}".encode()).digest()))
        self._raced = run.settings.halving.rungs[-1]

    @property
    def usage(self) -> Usage:
        """All that was spent on dev, summed policy by policy so that a resumed run gets the same sum."""
        return sum((a.usage for attempts in self._attempts.values() for a in attempts), Usage())

    def affords(self, policies: Sequence[Policy], n: int) -> bool:
        """Whether searching may bring *policies* to *n* cases each: half of the call budget is the confirmation's."""
        budget = self._run.settings.budget_calls
        missing = ((n - min(n, len(self.answered(policy)))) * policy.most_calls for policy in policies)
        return budget is None or self.usage.calls + sum(missing) <= budget // 2

    async def fill(self, policy: Policy, n: int, tick: Callable[[], None]) -> list[Attempt]:
        """Return the attempts of *policy* on the first *n* cases, answering those that are missing."""
        attempts = self._attempts.setdefault(policy.id, [])
        async for attempt in self._run.attempts(policy, self.cases[len(attempts) : n], self._task.checks):
            attempts.append(attempt)
            tick()
        return attempts[:n]

    def answered(self, policy: Policy) -> list[Attempt]:
        """Return all attempts of *policy* so far, in the board's order."""
        return list(self._attempts.get(policy.id, ()))

    def paired(self, challenger: Policy, champion: Policy) -> Interval:
        """Return the mean difference on the dev cases that both have answered, with its interval."""
        pairs = list(zip(self.answered(challenger), self.answered(champion), strict=False))
        gains = [difference(ours, theirs) for ours, theirs in pairs]
        low, high = interval(gains, 0.05, len(gains), -1.0, 1.0)
        return Interval(mean=sum(gains) / len(gains), low=low, high=high, n=len(gains))

    def evidence(self, policy: Policy) -> Evidence:
        """Return what learners may see: dev cases as the task shows them, and the attempts of *policy*."""
        attempts = self.answered(policy)
        shown = {case.id: case for case in self._task.shown}
        cases = tuple(shown[case.id] for case in self.cases[: len(attempts)])
        practice = {case.id: case for case in (*self.cases[self._raced :], *self._task.practice)}
        seen = {case.id: case for case in (*shown.values(), *self._task.practice_shown)}
        left = tuple(seen[case] for case in practice if case not in self._repeated)
        repairs, left_out = self._task.repairs, len(practice) - len(left)
        return Evidence(self._task.kind, cases, tuple(attempts), self._seed, left, repairs, left_out)

    @cached_property
    def _repeated(self) -> frozenset[str]:
        """The practice cases that nearly repeat one which is raced or held out: learned by heart, they would win it."""
        practice = (*self.cases[self._raced :], *self._task.practice)
        held_out = self._task.holdout.repeated(practice, near_duplicates)
        return held_out | near_duplicates(practice, self.cases[: self._raced])

    def errors(self, lineage: Sequence[Policy]) -> Errors:
        """Return what the last of *lineage* gets wrong that one before it got right, on the cases all have answered.

        Former champions come before them, as far as they have answered a case.
        """
        answered = [self._attempts.get(policy.id, ()) for policy in lineage]
        worked, broken, corrected, repeated = Counter[int](), Counter[int](), 0, 0
        kind_of = kinds(self.cases)
        examples: dict[int, str] = {}
        for case, *attempts in zip(self.cases, *answered, strict=False):
            if any(attempt.score is None for attempt in attempts):
                continue
            *in_run, now = (attempt.score == 1.0 for attempt in attempts)
            earlier = [mark == RIGHT for mark in self._run.earlier.get(case.id, "")] + in_run
            kind, once_right = kind_of[case.id], True in earlier
            once_corrected = False in earlier and True in earlier[earlier.index(False) :]
            worked[kind] += once_right
            broken[kind] += once_right and not now
            corrected, repeated = corrected + once_corrected, repeated + (once_corrected and not now)
            examples.setdefault(kind, case.text[:EXAMPLE_CHARACTERS])
        of_kind = [OfKind(examples[kind], worked[kind], broken[kind]) for kind in sorted(worked) if worked[kind]]
        return Errors(worked.total(), broken.total(), corrected, repeated, tuple(of_kind))

    def controls(self, label: str, challenger: Policy, control: Policy, errors: Errors) -> Controls | None:
        """Return what tells knowledge from form on the dev cases that both have answered; ``None`` where none is known.

        For the report, once the search is over: no learner sees it.
        """
        found = Comparison(self._task, self.cases, self.answered(control), self.answered(challenger))
        return found.controls(label, challenger, control, errors) if found.n else None

    def true_gain(self, challenger: Policy, head: Policy) -> float | None:
        """Return the mean paired difference by the proof checks, from stored answers alone; no model is asked.

        For the report, once the search is over: no learner sees it.  ``None`` where a dev case has no target.
        """
        pairs = list(zip(self.cases, self.answered(challenger), self.answered(head), strict=False))
        if not pairs or any(case.target is None for case, _, _ in pairs):
            return None
        gains = [self._proof(case, ours) - self._proof(case, theirs) for case, ours, theirs in pairs]
        return sum(gains) / len(gains)

    def _proof(self, case: Case, attempt: Attempt) -> float:
        return lowest(judge(self._task.proof, case, attempt.answer)) or 0.0


def difference(challenger: Attempt, champion: Attempt) -> float:
    """Return the paired difference of two attempts on one case, in [-1, 1]; 0 where either score is unknown."""
    if challenger.score is None or champion.score is None:
        return 0.0
    return challenger.score - champion.score


def score(attempts: Iterable[Attempt], confidence: float = 0.95) -> Interval:
    """Return the mean of the known scores with its interval for a fixed number of cases; exact for pass/fail."""
    known = [a.score for a in attempts if a.score is not None]
    if not known:
        return Interval(mean=0.0, low=0.0, high=1.0, n=0, confidence=confidence)
    level = round(1.0 - confidence, 12)
    if set(known) <= {0.0, 1.0}:
        low, high = proportion_interval(int(sum(known)), len(known), level)
    else:
        low, high = mean_interval(known, level)
    return Interval(mean=sum(known) / len(known), low=low, high=high, n=len(known), confidence=confidence)


def error_groups(cases: Iterable[Case], attempts: Iterable[Attempt]) -> tuple[ErrorGroup, ...]:
    """Group the attempts that failed a check by what the check called the error, most frequent first."""
    by_id = {case.id: case for case in cases}
    counts: Counter[str] = Counter()
    examples: dict[str, list[Example]] = {}
    for attempt in attempts:
        error = attempt.error
        if error is None:
            continue
        group = error.group or error.check
        counts[group] += 1
        shown = examples.setdefault(group, [])
        if len(shown) < EXAMPLES:
            case = by_id[attempt.case]
            shown.append(
                Example(
                    case=case.name or case.id[:12],
                    question=case.text[:EXAMPLE_CHARACTERS],
                    answer=attempt.answer.text[:EXAMPLE_CHARACTERS],
                    feedback=error.feedback,
                )
            )
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ErrorGroup(group=group, count=count, examples=tuple(examples[group])) for group, count in ranked)
