"""Have practice cases answered at random, the hard ones more often: what is to be learned from has to come right first.

Each case is answered a few times, and many times more where none of that was right and nothing new of its kind is left:
one of the first eight samples brought a lesson three to nine times as often as one more of a case that was asked in
vain.  Right answers that only repeat their question are left out as far as such answers are wrong (``echoes.py``),
from what is learned and from what is shown as an example alike.  While a kind of question has hardly come right at all,
and nothing has been learned yet, its cases are asked on, beside examples of what has: of three letters backwards,
palindromes apart, three samples in a thousand were right, and after 13, 50 and 200 lessons 11, 23 and 153.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from gainful.core import Attempt, Case, Evidence, Policy, Rollout
from gainful.learners.echoes import Echoes
from gainful.learners.kinds import OTHER
from gainful.learners.lessons import choose
from gainful.learners.teachers import SHOWN, Teachers, find_teachers, verified
from gainful.learners.teaching import Teaching, Workshop

PILOT = 60  # cases that are answered first, a quarter of all at most, to see under which policies to sample the rest
TRIED = 8  # samples of a case at first
LEFT_TO_OTHERS = 0.5  # of their even shares of the cases: as much a kind that never comes right leaves to them
PASSES = 4  # in which a kind that hardly comes right is asked on


class Practice:
    """Answers practice cases in *workshop*; a case's kind is looked up in *kinds* by its id."""

    def __init__(self, workshop: Workshop, teaching: Teaching, evidence: Evidence, kinds: Mapping[str, int]) -> None:
        self._workshop = workshop
        self._teaching = teaching
        self._echoes = Echoes((*evidence.cases, *evidence.practice), kinds)
        self._evidence = replace(evidence, attempts=_sifted(evidence, self._echoes))
        self._kinds = kinds
        self._echoes_before = 0  # the last round
        self._known: set[str] = set()  # ids of cases that were asked
        self._asked, self._right = Counter[int](), Counter[int]()  # cases of each kind so far

    @property
    def echoes(self) -> int:
        """Right answers of the last round that only repeated their question, and were left out."""
        return self._echoes.left_out - self._echoes_before

    def draw(self, head: Policy, number: int, solved: Collection[str]) -> list[Case]:
        """Return the cases of round *number*, drawn anew, none of which is *solved*; alike ones together."""
        left = self._left(head, number, solved)
        return self._hard(left, min(self._teaching.cases, sum(map(len, left.values()))))

    async def answered(self, head: Policy, number: int, solved: Collection[str]) -> tuple[Teachers, list[Rollout]]:
        """Return under which policies the cases of round *number* were answered, and how; none of them is *solved*.

        The first ones, as many of each kind, show which policies teach most, and which kinds are hard.  Where they show
        that all would bring too few lessons, they alone are answered.
        """
        few = range(min(TRIED, self._teaching.samples))
        many = range(few.stop, self._teaching.samples)

        async def sample(asked: Sequence[tuple[Policy, Case]]) -> list[Rollout]:
            return await self._sampled(asked, few)

        self._echoes_before = self._echoes.left_out
        left = self._left(head, number, solved)
        size = min(self._teaching.cases, sum(map(len, left.values())))
        first = _first(left, size)
        teachers, rollouts, most = await find_teachers(head, self._evidence, self._kinds, first, sample, self._worth)
        if (most + 1) * size < self._teaching.least * len(first):
            return teachers, rollouts
        found = {rollout.case.id: rollout for rollout in rollouts if rollout.attempts}
        left = {kind: [case for case in some if case.id not in found] for kind, some in left.items()}
        await self._ask(found, teachers, self._hard(left, size - len(found), list(found.values())), few)
        known = self._known | found.keys()
        is_spent = {kind for kind, some in left.items() if all(case.id in known for case in some)}
        await self._ask(found, teachers, [case for case in _unsolved(found) if self._kind(case) in is_spent], many)
        draw = random.Random(f"passes {self._evidence.seed} {head.id}")
        for start in range(many.stop, many.stop + PASSES * len(few), len(few)) if teachers.of_kind else ():
            right = Counter(self._kind(one.case) for one in found.values() if one.verified)
            poor = [case for case in _unsolved(found) if right[self._kind(case)] < SHOWN]
            teachers = teachers.showing(
                self._evidence.verified() + verified(found.values()), self._kinds, set(map(self._kind, poor)), draw
            )
            await self._ask(found, teachers, poor, range(start, start + len(few)))
        self._known = known
        self._asked, self._right = self._with(found.values())
        return teachers, list(found.values())

    def _left(self, head: Policy, number: int, solved: Collection[str]) -> dict[int, list[Case]]:
        """Return by kind the cases that round *number* may ask, in an order drawn anew: first what is new."""
        draw = random.Random(f"{self._evidence.seed} {head.id} {number}")
        left: dict[int, list[Case]] = {}
        for case in self._evidence.practice:
            if case.id not in solved:
                left.setdefault(self._kind(case), []).append(case)
        for kind in sorted(left):
            draw.shuffle(left[kind])
            left[kind].sort(key=lambda case: case.id in self._known)
        return dict(sorted(left.items()))

    def _hard(self, left: Mapping[int, Sequence[Case]], size: int, rollouts: Collection[Rollout] = ()) -> list[Case]:
        """Return *size* of those which are *left*, of a kind that comes right half as often twice as many.

        So all come to as many lessons.  *rollouts* have been answered in this round.
        """
        asked, right = self._with(rollouts)
        hardness = {kind: (asked[kind] + 2) / (right[kind] + 1) for kind in left}
        sizes = shares(size, {kind: (hardness[kind], len(left[kind])) for kind in left})
        return [case for kind in left for case in left[kind][: sizes[kind]]]

    def _with(self, rollouts: Collection[Rollout]) -> tuple[Counter[int], Counter[int]]:
        """Return how many cases of each kind have been asked and have come right so far, those of *rollouts* too."""
        asked = Counter(self._kind(rollout.case) for rollout in rollouts)
        right = Counter(self._kind(rollout.case) for rollout in rollouts if rollout.verified)
        return self._asked + asked, self._right + right

    async def _ask(self, found: dict[str, Rollout], teachers: Teachers, cases: Sequence[Case], samples: range) -> None:
        """Add *samples* of *cases* to what was *found*; cases of a kind are asked together, for what they share."""
        asked = [(teachers.under(self._kind(case)), case) for case in sorted(cases, key=self._kind)]
        for rollout in await self._sampled(asked, samples):
            before: tuple[Attempt, ...] = found[rollout.case.id].attempts if rollout.case.id in found else ()
            found[rollout.case.id] = replace(rollout, attempts=before + rollout.attempts)

    async def _sampled(self, asked: Sequence[tuple[Policy, Case]], samples: range) -> list[Rollout]:
        if not asked or not samples:
            return []
        return self._echoes.sift(await self._workshop.sample(asked, samples, self._teaching.temperature))

    def _worth(self, rollouts: Sequence[Rollout]) -> int:
        """Return how many lessons *rollouts* bring."""
        return len(choose(rollouts, reply, self._teaching.choosing, self._evidence.seed, self._kinds))

    def _kind(self, case: Case) -> int:
        return self._kinds.get(case.id, OTHER)


def _first(left: Mapping[int, Sequence[Case]], size: int) -> list[Case]:
    """Return the cases that are answered first, as many of each kind, of *size* that are asked in all."""
    most = max(1, min(PILOT, math.ceil(size / 4)) // max(1, len(left)))
    return [case for some in left.values() for case in some[:most]]


def reply(case: Case, attempt: Attempt) -> str:
    """Return the words of an attempt, as they are learned."""
    return attempt.answer.text.strip()


def _sifted(evidence: Evidence, echoes: Echoes) -> tuple[Attempt, ...]:
    """Return the attempts of *evidence* without right echoes that are too many."""
    attempts: dict[str, list[Attempt]] = {}
    for attempt in evidence.attempts:
        attempts.setdefault(attempt.case, []).append(attempt)
    tried = [Rollout(case=case, attempts=tuple(attempts.get(case.id, ()))) for case in evidence.cases]
    return tuple(attempt for rollout in echoes.sift(tried) for attempt in rollout.attempts)


def _unsolved(found: Mapping[str, Rollout]) -> list[Case]:
    return [rollout.case for rollout in found.values() if not rollout.verified]


def shares(size: int, parts: Mapping[int, tuple[float, int]]) -> dict[int, int]:
    """Divide *size* among *parts*, each by its weight, but for no more than it has, and half of what is not its own.

    What one cannot take the others do.

    >>> shares(40, {1: (1.0, 99), 2: (2.0, 99), 3: (9.0, 99), 4: (1.0, 3)})
    {1: 4, 2: 8, 3: 25, 4: 3}
    """
    even = size / max(1, len(parts))
    limit = math.ceil(even + (1 - LEFT_TO_OTHERS) * (size - even))
    most = {part: min(has, limit) for part, (_, has) in parts.items()}
    found = dict.fromkeys(parts, 0)
    for _ in range(min(size, sum(most.values()))):  # one by one to whoever has least for its weight
        part = min((p for p in parts if found[p] < most[p]), key=lambda p: (found[p] + 1) / parts[p][0])
        found[part] += 1
    return found
