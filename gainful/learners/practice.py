"""Have practice cases answered at random, the hard ones more often: what is to be learned from has to come right first.

Each case is answered a few times, and many times more where none of that was right.  While a kind of question has
hardly come right at all, and nothing has been learned yet, its cases are asked on, beside examples of what has: of
three letters backwards one sample in a thousand was right, and with 30 lessons one in sixteen.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from gainful.core import Attempt, Case, Evidence, Policy, Rollout
from gainful.learners.kinds import OTHER
from gainful.learners.lessons import choose
from gainful.learners.teachers import SHOWN, Teachers, find_teachers, verified
from gainful.learners.teaching import Teaching, Workshop

PILOT = 60  # cases that are answered first, a quarter of all at most, to see under which policies to sample the rest
TRIED = 8  # samples of a case at first
MOST_OF_A_KIND = 2.0  # times its even share of the cases: a kind that never comes right leaves some to the others
PASSES = 4  # in which a kind that hardly comes right is asked on


class Practice:
    """Answers practice cases in *workshop*; a case's kind is looked up in *kinds* by its id."""

    def __init__(self, workshop: Workshop, teaching: Teaching, evidence: Evidence, kinds: Mapping[str, int]) -> None:
        self._workshop = workshop
        self._teaching = teaching
        self._evidence = evidence
        self._kinds = kinds
        self._asked, self._right = Counter[int](), Counter[int]()  # cases of each kind so far

    def draw(self, head: Policy, number: int, known: Collection[str]) -> list[Case]:
        """Return the cases of round *number*, drawn anew, none of which is *known*; alike ones together.

        Of a kind that comes right half as often there are twice as many, so that all come to as many lessons.
        """
        draw = random.Random(f"{self._evidence.seed} {head.id} {number}")
        left: dict[int, list[Case]] = {}
        for case in self._evidence.practice:
            if case.id not in known:
                left.setdefault(self._kind(case), []).append(case)
        size = min(self._teaching.cases, sum(map(len, left.values())))
        hardness = {kind: (self._asked[kind] + 2) / (self._right[kind] + 1) for kind in sorted(left)}
        sizes = shares(size, {kind: (hardness[kind], len(left[kind])) for kind in hardness})
        return [case for kind in hardness for case in draw.sample(left[kind], sizes[kind])]

    async def answered(self, head: Policy, cases: Sequence[Case]) -> tuple[Teachers, list[Rollout]]:
        """Return under which policies *cases* were answered, those which the first of them teach most by, and how.

        Where those show that all are too few, the first alone are answered.
        """
        few = range(min(TRIED, self._teaching.samples))
        many = range(few.stop, self._teaching.samples)

        async def sample(asked: Sequence[tuple[Policy, Case]]) -> list[Rollout]:
            return await self._sampled(asked, few)

        first = self._first(cases)
        teachers, rollouts, most = await find_teachers(head, self._evidence, self._kinds, first, sample, self._worth)
        if (most + 1) * len(cases) < self._teaching.least * len(first):
            return teachers, rollouts
        found = {rollout.case.id: rollout for rollout in rollouts}
        await self._ask(found, teachers, [case for case in cases if case.id not in found], few)
        await self._ask(found, teachers, _unsolved(found), many)
        draw = random.Random(f"passes {self._evidence.seed} {head.id}")
        for number in range(PASSES if teachers.of_kind else 0):
            right = Counter(self._kind(one.case) for one in found.values() if one.verified)
            poor = [case for case in _unsolved(found) if right[self._kind(case)] < SHOWN]
            teachers = teachers.showing(
                self._evidence.verified() + verified(found.values()), self._kinds, set(map(self._kind, poor)), draw
            )
            start = many.stop + number * len(many)
            await self._ask(found, teachers, poor, range(start, start + len(many)))
        self._asked.update(self._kind(rollout.case) for rollout in found.values())
        self._right.update(self._kind(rollout.case) for rollout in found.values() if rollout.verified)
        return teachers, list(found.values())

    async def _ask(self, found: dict[str, Rollout], teachers: Teachers, cases: Sequence[Case], samples: range) -> None:
        """Add *samples* of *cases* to what was *found*; cases of a kind are asked together, for what they share."""
        asked = [(teachers.under(self._kind(case)), case) for case in sorted(cases, key=self._kind)]
        for rollout in await self._sampled(asked, samples):
            before: tuple[Attempt, ...] = found[rollout.case.id].attempts if rollout.case.id in found else ()
            found[rollout.case.id] = replace(rollout, attempts=before + rollout.attempts)

    async def _sampled(self, asked: Sequence[tuple[Policy, Case]], samples: range) -> list[Rollout]:
        return await self._workshop.sample(asked, samples, self._teaching.temperature) if asked and samples else []

    def _worth(self, rollouts: Sequence[Rollout]) -> int:
        """Return how many lessons *rollouts* bring."""
        return len(choose(rollouts, reply, self._teaching.choosing, self._evidence.seed, self._kinds))

    def _kind(self, case: Case) -> int:
        return self._kinds.get(case.id, OTHER)

    def _first(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that are answered first: as many of each kind."""
        of_kind: dict[int, list[Case]] = {}
        for case in cases:
            of_kind.setdefault(self._kind(case), []).append(case)
        most = max(1, min(PILOT, math.ceil(len(cases) / 4)) // max(1, len(of_kind)))
        return [case for some in of_kind.values() for case in some[:most]]


def reply(case: Case, attempt: Attempt) -> str:
    """Return the words of an attempt, as they are learned."""
    return attempt.answer.text.strip()


def _unsolved(found: Mapping[str, Rollout]) -> list[Case]:
    return [rollout.case for rollout in found.values() if not rollout.verified]


def shares(size: int, parts: Mapping[int, tuple[float, int]]) -> dict[int, int]:
    """Divide *size* among *parts*, each by its weight, but for no more than it has or twice its even share.

    What one cannot take the others do.

    >>> shares(40, {1: (1.0, 99), 2: (2.0, 99), 3: (9.0, 99), 4: (1.0, 3)})
    {1: 6, 2: 11, 3: 20, 4: 3}
    """
    most = {part: min(has, math.ceil(MOST_OF_A_KIND * size / len(parts))) for part, (_, has) in parts.items()}
    found = dict.fromkeys(parts, 0)
    for _ in range(min(size, sum(most.values()))):  # one by one to whoever has least for its weight
        part = min((p for p in parts if found[p] < most[p]), key=lambda p: (found[p] + 1) / parts[p][0])
        found[part] += 1
    return found
