"""Leave out right answers that only repeat their question, as far as the like of them are wrong.

A model that cannot spell a word backwards says it as it is, and a check finds it right about every palindrome.  Of the
first 33 lessons that one run drew from such words 30 were palindromes: what they taught was to repeat the word.

How far to believe in echoes can be told from their own verdicts: of the cases that were answered by an echo, some share
was right.  No larger share of what is learned of a kind of question may be echoes.  So a task that consists in
repeating keeps all of its lessons, and one of which a third of the cases need no change keeps a third.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from gainful.core import Attempt, Case, Rollout
from gainful.learners.kinds import OTHER

WORD = re.compile(r"\w+")
WORDING = 0.5  # of the cases of a kind: what as many of them hold says what to do, and is not what is asked about


class Echoes:
    """Tells echoes in answers to *cases*, whose *kinds* are looked up by id, and remembers what checks said of them.

    An echo says all that its question asks about and nothing else, apart from words that most questions of its kind
    hold.  Upper case and punctuation do not matter.
    """

    def __init__(self, cases: Iterable[Case], kinds: Mapping[str, int]) -> None:
        self._kinds = kinds
        sizes, counts = Counter[int](), defaultdict[int, Counter[str]](Counter)
        for case in cases:
            sizes[self._kind(case)] += 1
            counts[self._kind(case)].update(set(_words(case.text)))
        self._wording = {
            kind: {word for word, count in counts[kind].items() if count >= WORDING * size}
            for kind, size in sizes.items()
        }
        self.left_out = 0  # right echoes
        self._tried, self._right = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)
        self._kept, self._others = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)

    def is_echo(self, case: Case, attempt: Attempt) -> bool:
        """Say whether *attempt* says what *case* asks about, and nothing else."""
        asked = self._about(case, case.text)
        return bool(asked) and self._about(case, attempt.answer.text) == asked

    def sift(self, rollouts: Iterable[Rollout]) -> list[Rollout]:
        """Return *rollouts* without the right echoes that are too many; later ones are judged by earlier ones too."""
        sifted = [
            (rollout, [one for one in rollout.attempts if self.is_echo(rollout.case, one)]) for rollout in rollouts
        ]
        for rollout, echoes in sifted:
            kind, case = self._kind(rollout.case), rollout.case.id
            if any(one.is_verified or one.is_refuted for one in echoes):
                self._tried[kind].add(case)
            if any(one.is_verified for one in echoes):
                self._right[kind].add(case)
            if any(one not in echoes for one in rollout.verified):
                self._others[kind].add(case)
        return [self._without(rollout, echoes) for rollout, echoes in sifted]

    def _without(self, rollout: Rollout, echoes: Sequence[Attempt]) -> Rollout:
        right = [one for one in echoes if one.is_verified]
        if not right or self._has_room(self._kind(rollout.case), rollout.case.id):
            return rollout
        self.left_out += len(right)
        return replace(rollout, attempts=tuple(one for one in rollout.attempts if one not in right))

    def _has_room(self, kind: int, case: str) -> bool:
        """Say whether the echo to *case* is kept, and remember it."""
        kept, wrong = self._kept[kind] | {case}, len(self._tried[kind]) - len(self._right[kind])
        if len(kept) * wrong > len(self._others[kind]) * len(self._right[kind]):  # kept / all of them > right / tried
            return False
        self._kept[kind] = kept
        return True

    def _about(self, case: Case, said: str) -> list[str]:
        wording = self._wording.get(self._kind(case), set())
        return [word for word in _words(said) if word not in wording]

    def _kind(self, case: Case) -> int:
        return self._kinds.get(case.id, OTHER)


def _words(said: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFKC", said).casefold())
