"""The dev board: every policy's attempts on the same dev cases, in one fixed order, each answered once.

Races, baselines and learners read their numbers here.  A policy that has answered the first n cases is never asked
again for them, which is what makes a paired race against the head cheap.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from gainful.core import AnswerKind, Attempt, Case, Check, Evidence, Policy, Usage
from gainful.engine.local import Engine
from gainful.gate.intervals import mean_interval
from gainful.loop.events import ErrorGroup, Example, Interval

EXAMPLES = 3  # shown of each error group
EXAMPLE_CHARACTERS = 300  # of a question or an answer in an example


class Board:
    """Dev attempts by policy, over dev cases shuffled once by *seed*."""

    def __init__(self, engine: Engine, cases: Sequence[Case], checks: Sequence[Check], seed: int):
        self.engine = engine
        self.checks = tuple(checks)
        self.cases = tuple(sorted(cases, key=lambda c: hashlib.sha256(f"{seed} {c.id}".encode()).digest()))
        self.seed = seed
        self.usage = Usage()
        self._attempts: dict[str, list[Attempt]] = {}

    async def fill(self, policy: Policy, n: int, tick: Callable[[], None]) -> list[Attempt]:
        """Return the attempts of *policy* on the first *n* cases, answering those that are missing."""
        attempts = self._attempts.setdefault(policy.id, [])
        async for attempt in self.engine.attempts(policy, self.cases[len(attempts) : n], self.checks):
            attempts.append(attempt)
            self.usage += attempt.usage
            tick()
        return attempts[:n]

    def answered(self, policy: Policy) -> list[Attempt]:
        """Return all attempts of *policy* so far, in the board's order."""
        return list(self._attempts.get(policy.id, ()))

    def evidence(self, policy: Policy, kind: AnswerKind) -> Evidence:
        """Return what learners may see: the dev cases without their targets, and the attempts of *policy*."""
        attempts = self.answered(policy)
        cases = (Case(c.messages, c.tools, name=c.name, metadata=c.metadata) for c in self.cases[: len(attempts)])
        return Evidence(kind=kind, cases=tuple(cases), attempts=tuple(attempts), seed=self.seed)


def difference(challenger: Attempt, champion: Attempt) -> float:
    """Return the paired difference of two attempts on one case, in [-1, 1]; 0 where either score is unknown."""
    if challenger.score is None or champion.score is None:
        return 0.0
    return challenger.score - champion.score


def score(attempts: Iterable[Attempt], confidence: float = 0.95) -> Interval:
    """Return the mean of the known scores with its interval for a fixed number of cases."""
    known = [a.score for a in attempts if a.score is not None]
    low, high = mean_interval(known, 1.0 - confidence) if known else (0.0, 1.0)
    return Interval(
        mean=sum(known) / len(known) if known else 0.0, low=low, high=high, n=len(known), confidence=confidence
    )


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
