"""Right answers that only repeat their question: no more is learned from them than such answers are worth."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gainful.core import Answer, Attempt, Case, Rollout, Verdict
from gainful.learners.echoes import Echoes

PALINDROMES = ["bob", "eve", "noon", "anna", "level", "otto"]
WORDS = ["cat", "dog", "tree", "house", "table", "plant", "green", "stone"]


def spell(word: str) -> Case:
    return Case(messages=({"role": "user", "content": f"Spell it backward (example: sun -> nus): {word}"},))


CASES = [spell(word) for word in (*PALINDROMES, *WORDS)]
KINDS = {case.id: 1 for case in CASES}


def tried(case: Case, *replies: str, target: str) -> Rollout:
    def judged(said: str) -> Attempt:
        right = float(said == target)
        return Attempt(case.id, "", Answer(text=said, value=said), (Verdict("key", True, right),), right)

    return Rollout(case=case, attempts=tuple(map(judged, replies)))


def echoed(words: Iterable[str]) -> list[Rollout]:
    return [tried(spell(word), word, word, target=word[::-1]) for word in words]


def solved(words: Iterable[str]) -> list[Rollout]:
    return [tried(spell(word), word[::-1], target=word[::-1]) for word in words]


def learned(rollouts: Iterable[Rollout]) -> list[str]:
    return [str(one.verified[0].answer.value) for one in rollouts if one.verified]


@pytest.mark.parametrize(
    ("said", "is_echo"),
    [
        ("Cat", True),
        ("cat.", True),
        ("it: cat", True),
        ("tac", False),
        ("cat cat", False),
        ("a cat", False),
        ("", False),
    ],
)
def test_an_echo_says_what_is_asked_about_and_nothing_else(said: str, is_echo: bool) -> None:
    case = spell("cat")
    attempt = Attempt(case.id, "", Answer(text=said, value=said))

    assert Echoes(CASES, KINDS).is_echo(case, attempt) is is_echo


def test_a_part_of_what_is_asked_about_is_no_echo() -> None:
    sums = [Case(messages=({"role": "user", "content": f"Calculate {n} + {n + 1}."},)) for n in range(9)]
    said = Attempt(sums[0].id, "", Answer(text="1", value="1"))

    assert not Echoes(sums, {}).is_echo(sums[0], said)


def test_a_question_that_holds_nothing_of_its_own_has_no_echo() -> None:
    alone = Case(messages=({"role": "user", "content": "Say hello."},))

    assert not Echoes([alone], {}).is_echo(alone, Attempt(alone.id, "", Answer(text="", value="")))


def test_where_echoes_are_mostly_wrong_the_right_ones_are_left_out() -> None:
    sifted = Echoes(CASES, KINDS).sift(echoed([*PALINDROMES, *WORDS]))

    assert learned(sifted) == []
    assert [len(one.attempts) for one in sifted] == [0] * len(PALINDROMES) + [2] * len(WORDS)


def test_of_what_is_learned_no_larger_share_are_echoes_than_of_these_are_right() -> None:
    """Of the echoes to twelve words six are right, so beside three others three of them are learned."""
    sifted = Echoes(CASES, KINDS).sift([*solved(WORDS[:2]), *echoed(PALINDROMES), *echoed(WORDS[2:])])

    assert learned(sifted) == ["tac", "god", "bob", "eve"]


def test_where_to_repeat_is_the_task_nothing_is_left_out() -> None:
    echoes = [tried(case, word, target=word) for case, word in zip(CASES, (*PALINDROMES, *WORDS), strict=True)]

    assert Echoes(CASES, KINDS).sift(echoes) == echoes


def test_what_earlier_answers_showed_counts_for_later_ones() -> None:
    echoes = Echoes(CASES, KINDS)
    echoes.sift(echoed(WORDS))

    assert learned(echoes.sift(echoed(PALINDROMES))) == []
    assert learned(echoes.sift(solved(WORDS))) == [word[::-1] for word in WORDS]
    assert len(learned(echoes.sift(echoed(PALINDROMES)))) == 6  # 6 of 14 are right, so beside 8 others 6 may be learned


def test_of_each_kind_its_own_echoes_decide() -> None:
    again = [Case(messages=({"role": "user", "content": f"Please repeat {word}!"},)) for word in WORDS]
    echoes = Echoes([*CASES, *again], {**KINDS, **{case.id: 2 for case in again}})
    echoes.sift(echoed(WORDS))

    assert learned(echoes.sift(tried(one, word, target=word) for one, word in zip(again, WORDS, strict=True))) == WORDS
