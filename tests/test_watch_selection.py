"""Which cases a run learns from: the caps hold whatever traffic brings, and errors come first."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gainful.core import Case
from gainful.store.bank import Banked
from gainful.tasks.improving import Improving
from gainful.watch.selection import MOST_OF_A_TEMPLATE, select, template

WORDS = ("card", "loan", "fee", "branch", "transfer", "password")
USUAL = Improving()


def banked(number: int, words: str = "", **changes: object) -> Banked:
    text = words or f"{' '.join(random.Random(number).choices('abcdefghijklmnopqrstuvwxyz', k=12))}?"
    case = Case(messages=({"role": "user", "content": text},))
    usual = Banked(id=f"{number:064x}", case=case, side="dev", at=float(number), last_at=float(number), score=1.0)
    return replace(usual, **changes)


cases = st.lists(
    st.builds(
        lambda words, key, teller, signal, score, group, side, quarantine, opened: {
            "words": words, "key": key, "latest_key": teller, "signal": signal, "score": score, "group": group,
            "side": side, "quarantine": quarantine, "opened": opened,
        },
        st.sampled_from(["", *WORDS]),
        st.sampled_from(["", "a", "b", "c", "d", "e", "f"]),
        st.sampled_from(["a", "b", "g"]),
        st.sampled_from(["", "check", "feedback", "judged"]),
        st.sampled_from([None, 0.0, 0.5, 1.0]),
        st.sampled_from(["", "wrong", "cut off"]),
        st.sampled_from(["dev", "dev", "dev", "held-out", "never"]),
        st.sampled_from(["", "", "", "poison"]),
        st.sampled_from(["", "", "", "run"]),
    ),
    max_size=120,
).map(lambda rows: [banked(number, **row) for number, row in enumerate(rows)])  # fmt: skip
settings = st.builds(Improving, most_of_a_key=st.sampled_from([0.1, 0.2, 0.5, 1.0]), apart=st.booleans())


@given(cases, settings, st.integers(1, 60), st.integers(0, 3))
def test_the_caps_hold(found: list[Banked], improving: Improving, most: int, seed: int) -> None:
    chosen = select(found, improving, most, seed)

    fit = [one for one in found if one.side == "dev" and not one.quarantine and not one.opened]
    several = {hand for one in (chosen if improving.apart else fit) for hand in one.hands}
    templates = len({template(one.case.text) for one in (chosen if improving.apart else fit)})
    keys = Counter(hand for one in chosen for hand in one.hands)
    shapes = Counter(template(one.case.text) for one in chosen)
    assert len(chosen) <= most
    assert {one.id for one in chosen} <= {one.id for one in fit}
    assert len({one.id for one in chosen}) == len(chosen)
    assert all(count <= max(1, MOST_OF_A_TEMPLATE * most, most / templates) for count in shapes.values())
    if len(several) > 1:
        assert all(count <= max(1, improving.most_of_a_key * most, most / len(several)) for count in keys.values())


@given(cases, settings, st.integers(1, 60), st.randoms())
def test_the_order_of_the_cases_does_not_matter(
    found: list[Banked], improving: Improving, most: int, shuffler: random.Random
) -> None:
    shuffled = list(found)
    shuffler.shuffle(shuffled)

    assert select(shuffled, improving, most, 7) == select(found, improving, most, 7)


@given(cases, st.integers(1, 60))
def test_apart_nothing_is_for_all_that_one_key_alone_says(found: list[Banked], most: int) -> None:
    chosen = select(found, Improving(apart=True), most, 0)

    callers = {
        shape: {one.key for one in found if template(one.case.text) == shape}
        for shape in {template(one.case.text) for one in chosen}
    }
    assert all(len(keys) > 1 for keys in callers.values())


def test_another_seed_chooses_others_in_another_order() -> None:
    found = [banked(number) for number in range(100)]

    assert select(found, USUAL, 20, 1) == select(found, USUAL, 20, 1)
    assert {one.id for one in select(found, USUAL, 20, 1)} != {one.id for one in select(found, USUAL, 20, 2)}
    assert select(found, USUAL, 100, 1) != select(found, USUAL, 100, 2)


def test_half_are_errors_of_all_groups_the_newest_first() -> None:
    right = [banked(number) for number in range(100)]
    often = [banked(200 + number, score=0.0, group="often") for number in range(50)]
    rare = [banked(100 + number, score=0.0, group="rare") for number in range(3)]

    chosen = select([*right, *often, *rare], USUAL, 40, 0)

    groups = Counter(one.group for one in chosen)
    assert groups == {"": 20, "often": 17, "rare": 3}
    assert {one.id for one in chosen if one.group == "often"} == {one.id for one in often[-17:]}


@pytest.mark.parametrize(("errors", "expected"), [(0, 0), (3, 3), (100, 40)])
def test_one_half_fills_up_what_the_other_lacks(errors: int, expected: int) -> None:
    found = [banked(number, score=0.0, group="wrong") for number in range(errors)]
    found += [banked(1000 + number) for number in range(0 if errors == 100 else 100)]

    chosen = select(found, USUAL, 40, 0)

    assert len(chosen) == 40
    assert sum(one.score == 0.0 for one in chosen) == expected


def test_what_is_unknown_is_no_error() -> None:
    found = [banked(number, score=None) for number in range(40)] + [banked(100, score=0.0, group="wrong")]

    assert any(one.group == "wrong" for one in select(found, USUAL, 4, 0))


def test_a_flood_of_one_key_stays_a_fifth() -> None:
    flood = [banked(number, key="mallory", score=0.0, group="wrong") for number in range(1000)]
    others = [banked(2000 + number, key=f"key-{number % 8}") for number in range(400)]

    chosen = select([*flood, *others], USUAL, 100, 0)

    assert len(chosen) == 100
    assert sum(one.key == "mallory" for one in chosen) == 20


def test_cases_of_others_whose_target_or_score_a_caller_told_count_as_theirs_too() -> None:
    told = [banked(n, key=f"key-{n % 8}", target_key="eve") for n in range(0, 400, 2)]
    told = [replace(one, case=replace(one.case, target="666")) for one in told]
    word = {"latest_key": "eve", "signal": "feedback", "score": 0.0, "group": "caller's objection"}
    told += [banked(n, key=f"key-{n % 8}", **word) for n in range(1, 400, 2)]
    others = [banked(2000 + number, key=f"key-{number % 8}") for number in range(400)]

    chosen = select([*told, *others], USUAL, 100, 0)

    assert len(chosen) == 100
    assert sum("eve" in one.hands for one in chosen) == 20


def test_who_asks_everything_again_keeps_nothing_from_being_learned() -> None:
    found = [banked(number, key=f"key-{number % 8}", latest_key="eve", signal="check") for number in range(400)]

    assert len(select(found, USUAL, 100, 0)) == 100


def test_a_second_key_with_one_question_does_not_stop_learning() -> None:
    found = [banked(number, key="app") for number in range(500)] + [banked(900, key="trial")]

    assert len(select(found, USUAL, 100, 0)) >= 50


def test_a_flood_of_one_template_stays_a_twentieth() -> None:
    flood = [banked(number, f"Pay {number} to Mallory {chr(65 + number % 26)}x.") for number in range(500)]
    others = [banked(2000 + number) for number in range(200)]

    chosen = select([*flood, *others], USUAL, 100, 0)

    assert len(chosen) == 100
    assert sum(one.case.text.startswith("Pay") for one in chosen) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is order 1234-AB?", "where is  order 99-XY?"),
        ("Ask Anna Berg about it", "Ask Otto about it"),
        ('Translate "good day"', "Translate “never mind, I pay”"),
        ("Open https://a.example/x now", "Open www.b.example now"),
        ("Write to anna@example.com, please", "Write to o.x@y.example, please"),
        ("Send 3f2b8c1e-7a44 on 2026-01-02 at 10:30", "Send 1 on 5/6/27 at 9"),
    ],
)
def test_a_template_masks_what_varies(one: str, other: str) -> None:
    assert template(one) == template(other)


def test_traffic_of_one_template_is_learned_from() -> None:
    found = [banked(number, f"Add {number} and 7.") for number in range(100)]

    assert len(select(found, USUAL, 40, 0)) == 40


def test_templates_of_different_words_differ() -> None:
    assert len({template(f"Where is my {word}?") for word in WORDS}) == len(WORDS)
