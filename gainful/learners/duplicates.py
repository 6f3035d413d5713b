"""Find questions that nearly repeat another one: what was learned by heart on the one would shine on the other.

Two questions are near-duplicates if they hold the same numbers and signs in the same order, and share nearly all of
their words, and of those that are asked about (``kinds``) as well, after folding: Jaccard's index of either is at
least ``ALIKE`` (Broder 1997, On the resemblance and containment of documents, section 2, with single words for
shingles, since questions are short).  Problems that differ in one number are different problems, and so are those that
ask in one sentence about two words.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gainful.core import Case
from gainful.learners.kinds import COMMON, likeness

ALIKE = 0.8
TOKEN = re.compile(r"\w*\d\w*(?:[.,]\d+)*|[^\W\d]+|[+\-*/=<>^%×÷−]")
SIGN_OR_NUMBER = re.compile(r"\d|[^\w\s]")


class _Question(NamedTuple):
    """The numbers and signs of a case in their order, its other words, and those of them that are asked about."""

    figures: tuple[str, ...]
    words: frozenset[str]
    about: frozenset[str] = frozenset()

    def is_near(self, other: _Question) -> bool:
        return likeness(self.about, other.about) >= ALIKE and likeness(self.words, other.words) >= ALIKE


def near_duplicates(cases: Iterable[Case], others: Sequence[Case], among: Sequence[Case] = ()) -> frozenset[str]:
    """Return the ids of those *cases* that nearly repeat one of *others*.

    Words that many of all these have, and of those they are *among*, are wording; the others are asked about.
    """
    asked, known = ({case.id: _read(case) for case in some} for some in (cases, others))
    everything = {**asked, **known, **{case.id: _read(case) for case in among}}
    counts = Counter(word for question in everything.values() for word in question.words)
    common = {word for word, count in counts.items() if count >= max(2.0, COMMON * len(everything))}
    by_word: defaultdict[tuple[tuple[str, ...], str], list[_Question]] = defaultdict(list)
    for question in (one._replace(about=one.words - common) for one in known.values()):
        for word in question.about or {""}:
            by_word[question.figures, word].append(question)
    found = set[str]()
    for case, question in asked.items():
        question = question._replace(about=question.words - common)
        keys = ((question.figures, word) for word in _shared(question.about, counts))
        if any(question.is_near(other) for key in keys for other in by_word.get(key, ())):
            found.add(case)
    return frozenset(found)


def _shared(about: frozenset[str], counts: Counter[str]) -> list[str]:
    """Return words of which a near-duplicate has at least one, the seldom ones: they lead to few questions."""
    if not about:
        return [""]
    missing = len(about) - math.ceil(ALIKE * len(about))
    return sorted(about, key=lambda word: (counts[word], word))[: missing + 1]


def _read(case: Case) -> _Question:
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", case.text).casefold())
    figures = tuple(token for token in tokens if SIGN_OR_NUMBER.search(token))
    return _Question(figures, frozenset(tokens) - frozenset(figures))
