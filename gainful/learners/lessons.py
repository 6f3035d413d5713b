"""Choose what to train on: from many sampled answers, the verified ones that teach most.

Rejection sampling (Yuan et al. 2023, Scaling relationship on learning mathematical reasoning, arXiv 2308.01825,
section 3.3) with three additions.  Of replies that say the same, the shortest stays: length is no virtue.  A case that
is right nearly always gives one lesson, a hard one as many as it has verified replies, so that what is known already
does not drown what is not.  And no answer may make up more than a share of all lessons: what is right most often by
chance (the usual label, the number 1) would otherwise be learned as the answer to everything.

Nothing here trains, asks a model or reads an answer key: whoever sampled has judged.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from gainful.core import Attempt, Case, Demo, Rollout, Value, canonical

Reply = Callable[[Case, Attempt], str]
"""How the answer of an attempt is worded in the reply to learn."""


class Chosen(Value, frozen=True):
    """A case, the reply to learn for it, and the answer in that reply."""

    case: Case
    reply: str
    answer: bytes


class Counts(Value, frozen=True):
    """What became of the samples: for the report, and to see at once what is not knowledge.

    ``usual_share`` is the share of the most frequent answer among the chosen, in [0, 1].  ``copied`` counts those whose
    answer stands word for word among the demos of the policy that gave it.
    """

    cases: int
    sampled: int
    verified: int
    solved_cases: int
    chosen: int
    usual_share: float
    copied: int


class Choosing(Value, frozen=True):
    """``per_case``: the most lessons of one case; ``most_usual``: the largest share of lessons with one answer."""

    per_case: int = 2
    most_usual: float = 0.25


USUAL = Choosing()


def choose(rollouts: Iterable[Rollout], word: Reply, how: Choosing = USUAL, seed: int = 0) -> list[Chosen]:
    """Return what to learn, in an order drawn by *seed*; equal rollouts and seed give equal lessons."""
    candidates = [chosen for rollout in rollouts for chosen in _of_case(rollout, word, how.per_case)]
    draw = random.Random(seed)
    draw.shuffle(candidates)
    kept, seen = [], Counter[bytes]()
    most = _cap(Counter(one.answer for one in candidates), how.most_usual)
    for one in candidates:
        seen[one.answer] += 1
        if seen[one.answer] <= most:
            kept.append(one)
    return kept


def _of_case(rollout: Rollout, word: Reply, per_case: int) -> list[Chosen]:
    """Return the lessons of one case: the shortest wording of each verified answer, the more the harder it is."""
    shortest: dict[bytes, str] = {}
    for attempt in rollout.verified:
        answer, reply = canonical(attempt.answer.value), word(rollout.case, attempt)
        if reply and (answer not in shortest or (len(reply), reply) < (len(shortest[answer]), shortest[answer])):
            shortest[answer] = reply
    most = max(1, math.ceil(per_case * (1.0 - rollout.pass_rate)))
    ranked = sorted(shortest.items(), key=lambda item: (len(item[1]), item[1]))[:most]
    return [Chosen(case=rollout.case, reply=reply, answer=answer) for answer, reply in ranked]


def _cap(counts: Counter[bytes], share: float) -> int:
    """Return the most lessons of one answer so that none exceeds *share* of what is kept; all where too few differ."""
    if len(counts) * share <= 1.0:
        return max(counts.values(), default=0)
    low, high = 1, max(counts.values())
    while low < high:  # the larger the cap, the larger the usual answer's share: find the largest that is allowed
        middle = (low + high + 1) // 2
        kept = [min(count, middle) for count in counts.values()]
        low, high = (middle, high) if max(kept) <= share * sum(kept) else (low, middle - 1)
    return low


def count(rollouts: Sequence[Rollout], chosen: Sequence[Chosen], demos: Iterable[Demo]) -> Counts:
    """Return what became of the samples, which were made under *demos*."""
    shown = {canonical(demo.value) for demo in demos}
    answers = Counter(one.answer for one in chosen)
    return Counts(
        cases=len(rollouts),
        sampled=sum(len(rollout.attempts) for rollout in rollouts),
        verified=sum(len(rollout.verified) for rollout in rollouts),
        solved_cases=sum(bool(rollout.verified) for rollout in rollouts),
        chosen=len(chosen),
        usual_share=max(answers.values(), default=0) / len(chosen) if chosen else 0.0,
        copied=sum(one.answer in shown for one in chosen),
    )


def pairs(rollouts: Iterable[Rollout], word: Reply, per_case: int, seed: int = 0) -> list[tuple[Case, str, str]]:
    """Return (case, right reply, wrong reply) of cases that were answered both ways, *per_case* each at most.

    The shortest right reply is set against wrong ones of different answers, the most frequent first: those are the
    mistakes that the model would make (Rafailov et al. 2023, Direct preference optimization, arXiv 2305.18290).
    """
    found = []
    for rollout in rollouts:
        right = min((word(rollout.case, one) for one in rollout.verified), key=lambda r: (len(r), r), default="")
        wrong = Counter(word(rollout.case, one) for one in rollout.failed)
        ranked = sorted(((-n, reply) for reply, n in wrong.items() if reply and reply != right))
        found += [(rollout.case, right, reply) for _, reply in ranked[:per_case] if right]
    random.Random(seed).shuffle(found)
    return found
