"""Choose what to train on: from many sampled answers, the verified ones that teach most.

Rejection sampling (Yuan et al. 2023, Scaling relationship on learning mathematical reasoning, arXiv 2308.01825,
section 3.3) with four additions.  Of replies that say the same, the shortest stays: length is no virtue.  A case that
is right nearly always gives one lesson, a hard one as many as it has verified replies, so that what is known already
does not drown what is not.  No answer may make up more than a share of the lessons of its kind of question: what is
right most often by chance (the usual label, the number 1) would otherwise be learned as the answer to everything.  And
of a kind that seldom comes right each lesson is learned several times, and no kind may make up more than a share of
what is learned then.

Nothing here trains, asks a model or reads an answer key: whoever sampled has judged.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from gainful.core import Attempt, Case, Demo, Rollout, Value, canonical
from gainful.learners.duplicates import near_duplicates
from gainful.learners.kinds import OTHER
from gainful.train import Lesson, Material, Preference, Question

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
    [0, 1].  ``copied`` counts those that repeat a demo which questions of its kind were shown with: the same answer to
    nearly the same question.  ``echoes`` are right answers beside the ``verified`` ones that were left out because they
    only repeat their question (``echoes.py``).
    """

    cases: int
    sampled: int
    verified: int
    solved_cases: int
    chosen: int
    usual_share: float
    copied: int
    echoes: int = 0


class Choosing(Value, frozen=True):
    """``per_case``: the most lessons of one case.

    ``most_usual``: the largest share of the lessons of one kind of question with one answer.  ``repeated``: how often
    the lessons of a kind with few are learned at most.  ``most_kind``: how many times its even share one kind may have,
    where each lesson counts as often as it may be learned.
    """

    per_case: int = 2
    most_usual: float = 2 / 3
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
    return _capped(varied, lambda one: one.kind, how.most_kind / max(1, len(of_kind)), how.repeated)


def evened(
    lessons: Sequence[Lesson], kinds: Kinds, most: int, new: Collection[str] = (), times: int = 1
) -> list[Lesson]:
    """Return the lessons, those of kinds that have few *most* times, or as often as the largest kind has more.

    Those of the cases in *new* are there *times* at least.
    """
    sizes = Counter(kinds.get(one.case, OTHER) for one in lessons)
    largest = max(sizes.values(), default=0)
    often = {kind: max(1, min(most, largest // size)) for kind, size in sizes.items()}
    return [
        one for one in lessons for _ in range(max(often[kinds.get(one.case, OTHER)], times if one.case in new else 1))
    ]


def _capped(
    candidates: Sequence[Chosen], key: Callable[[Chosen], Key], share: float, repeated: int = 1
) -> list[Chosen]:
    """Return the first of *candidates* of each *key*, as many that none exceeds *share* of what is returned.

    Those of a key with few are *repeated* times among that at most, until they are as many as of the largest.
    """
    seen = Counter[Key]()
    most = _cap(Counter(map(key, candidates)), share, repeated)
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


def _cap(counts: Counter[Key], share: float, repeated: int) -> int:
    """Return the most lessons of one key so that none exceeds *share* of what is kept; all where too few differ."""
    if len(counts) * share <= 1.0:
        return max(counts.values(), default=0)
    low, high = 1, max(counts.values())
    while low < high:  # the larger the cap, the larger the usual answer's share: find the largest that is allowed
        middle = (low + high + 1) // 2
        kept = [min(count * repeated, middle) for count in counts.values()]
        low, high = (middle, high) if max(kept) <= share * sum(kept) else (low, middle - 1)
    return low


def tally(
    rollouts: Sequence[Rollout], chosen: Sequence[Chosen], shown: Mapping[int, Iterable[Demo]], echoes: int = 0
) -> Counts:
    """Return what became of the samples; questions of each kind were *shown* with demos, and *echoes* left out."""
    answers = Counter(one.answer for one in chosen)
    return Counts(
        cases=len(rollouts),
        sampled=sum(len(rollout.attempts) for rollout in rollouts) + echoes,
        verified=sum(len(rollout.verified) for rollout in rollouts),
        solved_cases=sum(bool(rollout.verified) for rollout in rollouts),
        chosen=len(chosen),
        usual_share=max(answers.values(), default=0) / len(chosen) if chosen else 0.0,
        copied=sum(_copied([one for one in chosen if one.kind == kind], demos) for kind, demos in shown.items()),
        echoes=echoes,
    )


def _copied(chosen: Sequence[Chosen], demos: Iterable[Demo]) -> int:
    """Return how many lessons of one kind give a demo's answer to almost its question; none is shown to its own."""
    asked_for: dict[bytes, list[Case]] = {}
    for demo in demos:
        asked_for.setdefault(canonical(demo.value), []).append(demo.case)
    among, found = [one.case for one in chosen], 0
    for one in chosen:
        others = [case for case in asked_for.get(one.answer, ()) if case.id != one.case.id]
        found += bool(near_duplicates([one.case], others, among))
    return found


def shuffle(material: Sequence[Material], kinds: Kinds, seed: int) -> list[Material]:
    """Return *material* with what is to be learned from each case given to another one of its kind.

    The form stays, and there is nothing to know.  Lessons and preferences swap their replies, questions the case by
    which replies are judged; what is learned several times goes the same way each time, and what is of no case in
    *kinds* stays as it is.
    """
    draw = random.Random(seed)
    of_kind: dict[int, dict[tuple[str, ...], Material]] = {}
    for one in material:
        if one.case in kinds:
            of_kind.setdefault(kinds[one.case], {})[_taught_by(one)] = one
    taken: dict[tuple[str, ...], Material] = {}
    for known in of_kind.values():
        others = list(known.values())
        draw.shuffle(others)
        taken |= dict(zip(known, others, strict=True))
    return [_with_replies_of(one, taken[_taught_by(one)]) if one.case in kinds else one for one in material]


def _taught_by(one: Material) -> tuple[str, ...]:
    """Return what tells two pieces apart."""
    match one:
        case Lesson():
            return one.case, one.reply
        case Preference():
            return one.case, one.chosen, one.rejected
        case Question():
            return (one.case,)


def _with_replies_of(one: Material, other: Material) -> Material:
    match one, other:
        case Lesson(), Lesson():
            return replace(one, reply=other.reply)
        case Preference(), Preference():
            return replace(one, chosen=other.chosen, rejected=other.rejected)
    return replace(one, case=other.case)


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
