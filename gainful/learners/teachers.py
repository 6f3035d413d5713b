"""Find the policy to sample under: a small model is right far more often beside the right examples.

Which examples are the right ones cannot be told by looking at them.  Beside one set of eight right answers to five
kinds of questions 14 % of samples were right, beside another 3 %.  So several sets are tried on the same few cases,
each drawn from all that has come right so far, and what teaches most is kept.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from gainful.core import Attempt, Case, Choice, Demo, Evidence, Format, Number, Policy, Rollout, Text, canonical

SHOWN = 8  # examples at once; they are read once for all samples, so more cost little
SETS = 4  # of examples that are tried
MOST_CHARACTERS = 500  # of one example: many are shown

Sample = Callable[[Policy, Sequence[Case]], Awaitable[list[Rollout]]]
Worth = Callable[[Sequence[Rollout]], int]


async def find_teacher(
    head: Policy, evidence: Evidence, cases: Sequence[Case], sample: Sample, worth: Worth
) -> tuple[Policy, list[Rollout], int]:
    """Return the policy whose samples on *cases* are worth most, all that was sampled to find it, and what it is worth.

    Tried are *head* and, where it is asked for words and has learned nothing yet, the head in free words with examples
    as turns of the conversation.  A schema makes single answers right, and samples dull; what comes right in words can
    be learned in words.  Samples of all tries of a case are one rollout.
    """
    draw = random.Random(f"teacher {evidence.seed} {head.id}")
    best, rollouts = head, await sample(head, cases)
    most, all_rollouts = worth(rollouts), rollouts
    if head.adapter is not None or not isinstance(evidence.kind, Text | Number | Choice):
        return best, all_rollouts, most
    right, tried = evidence.verified(), {head.id}
    for _ in range(SETS):
        examples = _draw(right + [(one.case, one.verified[0]) for one in all_rollouts if one.verified], draw)
        teacher = replace(head, demos=examples, format=Format(turns=bool(examples)))
        if teacher.id in tried:
            continue  # too little has come right to draw another set
        tried.add(teacher.id)
        rollouts = await sample(teacher, cases)
        found = worth(rollouts)
        if found > most:
            best, most = teacher, found
        all_rollouts = [_together(*both) for both in zip(all_rollouts, rollouts, strict=True)]
    return best, all_rollouts, most


def _draw(right: Sequence[tuple[Case, Attempt]], draw: random.Random) -> tuple[Demo, ...]:
    """Return examples of the pairs in *right*, in an order drawn anew: those first whose answers differ."""
    first: list[Demo] = []
    again: list[Demo] = []
    seen: set[bytes] = set()
    for case, attempt in draw.sample(right, len(right)):
        answer = attempt.answer.value
        if len(canonical([case.messages, answer])) <= MOST_CHARACTERS:
            (again if canonical(answer) in seen else first).append(Demo(case=replace(case, target=None), value=answer))
            seen.add(canonical(answer))
    shown = (first + again)[:SHOWN]
    draw.shuffle(shown)
    return tuple(shown)


def _together(one: Rollout, other: Rollout) -> Rollout:
    return replace(one, attempts=one.attempts + other.attempts)
