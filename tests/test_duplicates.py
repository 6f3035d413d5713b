"""Questions that nearly repeat another one, and those that only look like it."""

from __future__ import annotations

import pytest

from gainful.core import Case
from gainful.learners.duplicates import near_duplicates

WORDS = ("kettle", "lamp", "jacket", "novel", "hotel", "pizza", "taxi", "headset", "garden", "chair", "museum", "soup")


def case(text: str) -> Case:
    return Case(messages=({"role": "user", "content": text},))


OTHERS = [
    *(case(f"Spell this word backward (example: sun -> nus): {word}") for word in WORDS),
    *(case(f"What is {a} + {b}?") for a in range(8) for b in range(8)),
    *(case(f"When does the {word} on the corner of the market square open on a Sunday morning?") for word in WORDS),
]


@pytest.mark.parametrize(
    ("text", "is_near"),
    [
        ("What is 3 + 4?", True),
        ("what is  3 + 4", True),
        ("What is ( 3 + 4 )?", True),
        ("What is 3 + 9?", False),
        ("What is 4 - 3?", False),
        ("What is 3 - 4?", False),
        ("What is 34?", False),
        ("Spell this word backward (example: sun -> nus): Lamp", True),
        ("Spell this word backward (example: sun -> nus): ship", False),
        ("When does the museum on the corner of the market square open on Sunday morning?", True),
        ("When does the museum on the corner of the market open on a Sunday morning?", True),
        ("When does the bakery on the corner of the market square open on a Sunday morning?", False),
        ("When does the museum open?", False),
        ("", False),
    ],
)
def test_near_duplicates_share_numbers_signs_and_nearly_all_words(text: str, is_near: bool) -> None:
    asked = case(text)

    assert near_duplicates([asked], OTHERS) == ({asked.id} if is_near else frozenset())


def test_a_long_question_may_differ_in_a_word_that_is_asked_about() -> None:
    letter = " ".join(f"{word}ish" for word in WORDS)
    one, other, third = (case(f"Is this mood good? {letter} {last}") for last in ("indeed", "really", "no one two six"))

    assert near_duplicates([one, third], [other, *OTHERS]) == {one.id}


def test_each_case_is_found_once_and_none_among_nothing() -> None:
    assert near_duplicates([OTHERS[0], OTHERS[0]], OTHERS) == {OTHERS[0].id}
    assert near_duplicates(OTHERS, []) == frozenset()
    assert near_duplicates([], OTHERS) == frozenset()
