"""Kinds of questions, told by their wording."""

from __future__ import annotations

import random

from gainful.core import Case
from gainful.learners.kinds import OTHER, kinds

WORDS = ("kettle", "lamp", "jacket", "novel", "hotel", "pizza", "taxi", "headset", "garden", "chair", "museum", "soup")


def case(text: str) -> Case:
    return Case(messages=({"role": "user", "content": text},))


def test_questions_worded_alike_are_of_one_kind_whatever_they_ask_about() -> None:
    draw = random.Random(1)
    sums = [case(f"What is the sum of {draw.random()} and {n}? Say the number alone.") for n in range(40)]
    letters = [case(f'How often is the letter "{w[0]}" in the text "{w} {v}"?') for w in WORDS for v in WORDS[:2]]

    found = kinds([*letters, *sums])

    assert {found[one.id] for one in sums} == {1}
    assert {found[one.id] for one in letters} == {2}


def test_two_templates_of_one_task_are_one_kind_where_most_of_their_wording_is_the_same() -> None:
    cases = [case(f"Please calculate {n} + {n + 1} and say the number alone.") for n in range(30)]
    cases += [case(f"Calculate {n} - {n + 1} and say the number alone.") for n in range(10)]

    assert set(kinds(cases).values()) == {1}


def test_what_is_like_too_few_others_is_of_no_kind() -> None:
    sums = [case(f"What is the sum of {n} and 7?") for n in range(60)]
    single = case("Where did I leave the blue kettle yesterday evening?")

    found = kinds([*sums, single])

    assert found[single.id] == OTHER
    assert found[sums[0].id] == 1


def test_free_text_that_shares_no_wording_is_all_of_no_kind() -> None:
    draw = random.Random(2)
    letters = "abcdefghijklmnopqrstuvwxyz"
    cases = [case(" ".join("".join(draw.choices(letters, k=6)) for _ in range(8))) for _ in range(50)]

    assert len(set(kinds(cases).values())) == 1


def test_questions_without_words_are_of_one_kind_and_none_give_none() -> None:
    numbers = [case(f"{n} + {n}") for n in range(5)]

    assert set(kinds(numbers).values()) == {1}
    assert kinds([]) == {}
