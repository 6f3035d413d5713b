"""Find the policies to sample under: a small model is right far more often beside the right examples.

Which examples are the right ones cannot be told by looking at them.  Beside one set of eight right answers to five
kinds of questions 14 % of samples were right, beside another 3 %; beside answers to questions of their own kind alone,
of one kind 38 % where it had been 7.  Two of its own kind are better than one among seven others: of 80 words backwards
nine came right in 24 samples each, and four.  So for each kind of question several sets are tried on the same few
cases, each drawn from what of the kind has come right so far, and what teaches most is kept.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from gainful.core import Attempt, Case, Choice, Demo, Evidence, Format, Number, Policy, Rollout, Text, canonical
from gainful.learners.kinds import OTHER

SHOWN = 8  # examples at once; they are read once for all samples, so more cost little
SETS = 4  # of examples that are tried for each kind
MOST_CHARACTERS = 500  # of one example: many are shown

Sample = Callable[[Sequence[tuple[Policy, Case]]], Awaitable[list[Rollout]]]
Worth = Callable[[Sequence[Rollout]], int]


@dataclass(frozen=True)
class Teachers:
    """Under which policy questions are sampled: that of their kind, else the head."""

    head: Policy
    of_kind: Mapping[int, Policy] = field(default_factory=dict)

    def under(self, kind: int) -> Policy:
        """Return the policy for questions of *kind*."""
        return self.of_kind.get(kind, self.head)

    def showing(
        self,
        right: Sequence[tuple[Case, Attempt]],
        kinds: Mapping[str, int],
        which: Collection[int],
        draw: random.Random,
    ) -> Teachers:
        """Return these, with examples drawn anew from what is *right* by now for the kinds *which*."""
        shown = {
            kind: replace(policy, demos=_draw(right, kinds, kind, draw)) if kind in which else policy
            for kind, policy in self.of_kind.items()
        }
        return Teachers(self.head, shown)

    @property
    def format(self) -> Format:
        """How answers are asked for, which is the same under all of them but for the examples."""
        return Format() if self.of_kind else self.head.format


async def find_teachers(
    head: Policy, evidence: Evidence, kinds: Mapping[str, int], cases: Sequence[Case], sample: Sample, worth: Worth
) -> tuple[Teachers, list[Rollout], int]:
    """Return under which policies to sample, what was sampled under them to find them, and what that is worth.

    Tried are *head* and, where it is asked for words and has learned nothing yet, the head in free words with examples
    as turns of the conversation.  A schema makes single answers right, and samples dull; what comes right in words can
    be learned in words.  A case that a set shows is not asked beside it: it would have to be left out of the examples,
    and nothing of its prompt would be shared.  Samples of a case beside several sets of examples are one rollout.
    """
    rollouts = await sample([(head, case) for case in cases])
    most = worth(rollouts)
    if head.adapter is not None or not isinstance(evidence.kind, Text | Number | Choice):
        return Teachers(head), rollouts, most
    right = {case.id: (case, attempt) for case, attempt in evidence.verified() + verified(rollouts)}
    draw = random.Random(f"teacher {evidence.seed} {head.id}")
    trials = _trials(head, cases, kinds)
    for _ in range(SETS):
        for one in trials:
            one.show(head, _draw(list(right.values()), kinds, one.kind, draw))
        beginning = [one for one in trials if one.is_new]
        drawn = await sample([(one.policy, case) for one in beginning for case in one.asked])
        by_case = {rollout.case.id: rollout for rollout in drawn}
        for one in beginning:
            of_it = [by_case.get(case.id, Rollout(case=case, attempts=())) for case in one.cases]
            right = {case.id: (case, attempt) for case, attempt in verified(of_it)} | right
            one.note(of_it, worth)
    total = sum(one.most for one in trials)
    if total <= most:
        return Teachers(head), rollouts, most
    teachers = Teachers(head, {one.kind: one.best or one.policy for one in trials})
    return teachers, [rollout for one in trials for rollout in one.rollouts], total


@dataclass
class _Trials:
    """What is tried on the cases of one kind; ``best`` is ``None`` while nothing has come right."""

    kind: int
    cases: list[Case]
    policy: Policy
    tried: set[str]
    is_new: bool = False
    rollouts: list[Rollout] = field(default_factory=list)
    best: Policy | None = None
    most: int = 0

    @property
    def asked(self) -> list[Case]:
        """Those of the cases that are not shown."""
        shown = {demo.case.id for demo in self.policy.demos}
        return [case for case in self.cases if case.id not in shown]

    def show(self, head: Policy, examples: tuple[Demo, ...]) -> None:
        """Try next how *head* answers beside *examples*, unless too little has come right to draw a new set."""
        self.policy = replace(head, demos=examples, format=Format(turns=bool(examples)))
        self.is_new = self.policy.id not in self.tried
        self.tried.add(self.policy.id)

    def note(self, rollouts: list[Rollout], worth: Worth) -> None:
        """Keep what was sampled beside the examples shown last, and what all cases would have been worth so."""
        self.rollouts = [_together(*both) for both in zip(self.rollouts or rollouts, rollouts, strict=True)]
        found = round(worth(rollouts) * len(self.cases) / max(1, len(self.asked)))
        if found > self.most:
            self.best, self.most = self.policy, found


def _together(one: Rollout, other: Rollout) -> Rollout:
    return one if one is other else replace(one, attempts=one.attempts + other.attempts)


def _trials(head: Policy, cases: Sequence[Case], kinds: Mapping[str, int]) -> list[_Trials]:
    of_kind: dict[int, list[Case]] = {}
    for case in cases:
        of_kind.setdefault(kinds.get(case.id, OTHER), []).append(case)
    return [_Trials(kind, some, head, tried={head.id}) for kind, some in sorted(of_kind.items())]


def verified(rollouts: Iterable[Rollout]) -> list[tuple[Case, Attempt]]:
    """Return each case of *rollouts* that came right, with its first right answer."""
    return [(one.case, one.verified[0]) for one in rollouts if one.verified]


def _draw(
    right: Sequence[tuple[Case, Attempt]], kinds: Mapping[str, int], kind: int, draw: random.Random
) -> tuple[Demo, ...]:
    """Return examples of the pairs in *right*, in an order drawn anew: those of that kind alone, where there are any.

    Those whose answers differ come first.
    """
    ranked: list[tuple[bool, bool, int, Demo]] = []
    seen: set[bytes] = set()
    for case, attempt in draw.sample(right, len(right)):
        answer = attempt.answer.value
        if len(canonical([case.messages, answer])) <= MOST_CHARACTERS:
            demo = Demo(case=replace(case, target=None), value=answer)
            is_alike = kinds.get(case.id, OTHER) == kind
            ranked.append((not is_alike, canonical(answer) in seen, len(ranked), demo))
            if is_alike:
                seen.add(canonical(answer))
    first = min((is_other for is_other, *_ in ranked), default=False)
    shown = [demo for is_other, *_, demo in sorted(ranked, key=lambda one: one[:3]) if is_other == first][:SHOWN]
    draw.shuffle(shown)
    return tuple(shown)
