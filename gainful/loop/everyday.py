"""What a model says and knows that no task asks for: it is to be the same after a training."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple


class Fact(NamedTuple):
    """A question that everybody can answer, and the words by which a right answer is known."""

    question: str
    words: re.Pattern[str]

    def is_in(self, reply: str) -> bool:
        """Whether *reply* names it."""
        return self.words.search(reply) is not None


def unrelated() -> list[str]:
    """Return everyday questions of many kinds, by which harm is seen; none of them is rehearsed."""
    return _lines("everyday.txt")[1::2]


def rehearsed() -> list[str]:
    """Return others, and questions as short as those for facts, none of which is for one of ``facts``.

    Whoever has learned to answer `How many times is e in tree?` says 2 to any question how many, unless others are
    learned along.
    """
    return [*_lines("everyday.txt")[::2], *_lines("rehearsal.txt")]


def facts() -> list[Fact]:
    """Return the facts that a model may have known before a training.

    >>> facts()[0].is_in("It is paris."), facts()[0].is_in("The Parisians say so.")
    (True, False)
    """
    found = []
    for line in _lines("facts.txt"):
        question, words = line.split("\t")
        found.append(Fact(question, re.compile(rf"(?<!\w)(?:{words})(?:s|es|ing)?(?!\w)", re.IGNORECASE)))
    return found


def _lines(name: str) -> list[str]:
    return files("gainful.loop").joinpath(name).read_text(encoding="utf-8").splitlines()
