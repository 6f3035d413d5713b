"""Choose what to train on: from many sampled answers, the verified ones that teach most.

Rejection sampling (Yuan et al. 2023, Scaling relationship on learning mathematical reasoning, arXiv 2308.01825,
section 3.3) with four additions.  Of replies that say the same, the shortest stays: length is no virtue.  A case that
is right nearly always gives one lesson, a hard one as many as it has verified replies, so that what is known already
does not drown what is not.  No answer may make up more than a share of the lessons of its kind of question: what is
right most often by chance (the usual label, the number 1) would otherwise be learned as the answer to everything.  And
no kind may make up more than a share of all; of a kind that seldom comes right each lesson is learned several times.

Nothing here trains, asks a model or reads an answer key: whoever sampled has judged.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from gainful.core import Attempt, Case, Demo, Rollout, Value, canonical
from gainful.learners.kinds import OTHER
from gainful.train import Lesson

Kinds = Mapping[str, int]
"""The kind of each case by its id (``kinds``); a case that is missing is ``OTHER``."""
Key = TypeVar("Key", bound=Hashable)

Reply = Callable[[Case, Attempt], str]
"""How the answer of an attempt is worded in the reply to learn."""


class Chosen(Value, frozen=True):
    """A case, its kind, the reply to learn for it, and the answer in that reply."""

    case: Case
    reply: str
    answer: bytes
    kind: int = OTHER


class Counts(Value, frozen=True):
    """What became of the samples: for the report, and to see at once what is not knowledge.

    ``chosen`` may be from earlier rounds too.  ``usual_share`` is the share of the most frequent answer among them, in
    [0, 1].  ``copied`` counts those whose answer stands word for word among the demos that questions of its kind were
    shown with.
    """

    cases: int
    sampled: int
    verified: int
    solved_cases: int
    chosen: int
    usual_share: float
    copied: int


class Choosing(Value, frozen=True):
    """``per_case``: the most lessons of one case.

    ``most_usual``: the largest share of the lessons of one kind of question with one answer.  ``most_kind``: how many
    times its even share one kind may have.  ``repeated``: how often the lessons of a kind with few are learned at most.
    """

    per_case: int = 2
    most_usual: float = 0.5
    most_kind: float = 1.5
    repeated: int = 4


USUAL = Choosing()
UNKNOWN: Kinds = {}


def choose(
    rollouts: Iterable[Rollout], word: Reply, how: Choosing = USUAL, seed: int = 0, kinds: Kinds = UNKNOWN
) -> list[Chosen]:
    """Return what to learn, in an order drawn by *seed*; equal rollouts and seed give equal lessons."""
    draw = random.Random(seed)
    of_kind: dict[int, list[Chosen]] = {}
    for rollout in rollouts:
        kind = kinds.get(rollout.case.id, OTHER)
        of_kind.setdefault(kind, []).extend(_of_case(rollout, word, how.per_case, kind))
    varied: list[Chosen] = []
    for candidates in of_kind.values():
        draw.shuffle(candidates)
        varied += _capped(candidates, lambda one: one.answer, how.most_usual)
    draw.shuffle(varied)
    return _capped(varied, lambda one: one.kind, how.most_kind / max(1, len(of_kind)))


def evened(lessons: Sequence[Lesson], kinds: Kinds, most: int) -> list[Lesson]:
    """Return the lessons, those of kinds that have few *most* times, or as often as the largest kind has more."""
    sizes = Counter(kinds.get(one.case, OTHER) for one in lessons)
    largest = max(sizes.values(), default=0)
    return [one for one in lessons for _ in range(max(1, min(most, largest // sizes[kinds.get(one.case, OTHER)])))]


def _capped(candidates: Sequence[Chosen], key: Callable[[Chosen], Key], share: float) -> list[Chosen]:
    """Return the first of *candidates* of each *key*, as many that none exceeds *share* of what is returned."""
    seen = Counter[Key]()
    most = _cap(Counter(map(key, candidates)), share)
    kept = []
    for one in candidates:
        seen[key(one)] += 1
        if seen[key(one)] <= most:
            kept.append(one)
    return kept


def _of_case(rollout: Rollout, word: Reply, per_case: int, kind: int) -> list[Chosen]:
    """Return the lessons of one case: the shortest wording of each verified answer, the more the harder it is."""
    shortest: dict[bytes, str] = {}
    for attempt in rollout.verified:
        answer, reply = canonical(attempt.answer.value), word(rollout.case, attempt)
        if reply and (answer not in shortest or (len(reply), reply) < (len(shortest[answer]), shortest[answer])):
            shortest[answer] = reply
    most = max(1, math.ceil(per_case * (1.0 - rollout.pass_rate)))
    ranked = sorted(shortest.items(), key=lambda item: (len(item[1]), item[1]))[:most]
    return [Chosen(case=rollout.case, reply=reply, answer=answer, kind=kind) for answer, reply in ranked]


def _cap(counts: Counter[Key], share: float) -> int:
    """Return the most lessons of one key so that none exceeds *share* of what is kept; all where too few differ."""
    if len(counts) * share <= 1.0:
        return max(counts.values(), default=0)
    low, high = 1, max(counts.values())
    while low < high:  # the larger the cap, the larger the usual answer's share: find the largest that is allowed
        middle = (low + high + 1) // 2
        kept = [min(count, middle) for count in counts.values()]
        low, high = (middle, high) if max(kept) <= share * sum(kept) else (low, middle - 1)
    return low


def count(rollouts: Sequence[Rollout], chosen: Sequence[Chosen], shown: Mapping[int, Iterable[Demo]]) -> Counts:
    """Return what became of the samples; questions of each kind were *shown* with demos."""
    demos = {kind: {canonical(demo.value) for demo in of_kind} for kind, of_kind in shown.items()}
    answers = Counter(one.answer for one in chosen)
    return Counts(
        cases=len(rollouts),
        sampled=sum(len(rollout.attempts) for rollout in rollouts),
        verified=sum(len(rollout.verified) for rollout in rollouts),
        solved_cases=sum(bool(rollout.verified) for rollout in rollouts),
        chosen=len(chosen),
        usual_share=max(answers.values(), default=0) / len(chosen) if chosen else 0.0,
        copied=sum(one.answer in demos.get(one.kind, ()) for one in chosen),
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
