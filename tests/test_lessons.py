"""What is chosen to train on: verified, short, hard first, and no answer too often."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainful.core import Answer, Attempt, Case, Demo, Rollout, Verdict, lowest
from gainful.learners.kinds import OTHER
from gainful.learners.lessons import Choosing, choose, evened, pairs, shuffle, tally
from gainful.train import Lesson, Material, Preference, Question


def case(number: int) -> Case:
    return Case(messages=({"role": "user", "content": f"question {number}"},))


def attempt(value: object, *, right: bool | None = True, text: str | None = None) -> Attempt:
    score = None if right is None else float(right)
    answer = Answer(text=str(value) if text is None else text, value=value)
    return Attempt(case="", policy="", answer=answer, verdicts=(Verdict("key", True, score),), score=score)


def rollout(number: int, *attempts: Attempt) -> Rollout:
    return Rollout(case=case(number), attempts=attempts)


def word(_: Case, one: Attempt) -> str:
    return one.answer.text


def test_only_what_every_check_passed_is_learned() -> None:
    rollouts = [
        rollout(1, attempt(3), attempt(4, right=False), attempt(5, right=None)),
        rollout(2, attempt(6, right=False)),
    ]

    assert [(one.case, one.reply) for one in choose(rollouts, word)] == [(case(1), "3")]


def test_what_a_judge_alone_passed_is_neither_learned_nor_held_against_what_is() -> None:
    """The trusted check could not tell of the first two, and passed the third, to which the judge objects."""
    unknown, passed = Verdict("schema", True), Verdict("schema", True, 1.0)
    praised, objected = Verdict("judge", False, 1.0), Verdict("judge", False, 0.0)
    verdicts = [(unknown, praised), (unknown, objected), (passed, objected), (passed, praised)]
    attempts = [Attempt("", "", Answer(f"{n}", f"{n}"), pair, lowest(pair)) for n, pair in enumerate(verdicts)]

    assert [one.reply for one in choose([rollout(1, *attempts)], word)] == ["3"]
    assert pairs([rollout(1, *attempts)], word, per_case=4) == []


def test_of_replies_that_say_the_same_the_shortest_is_learned() -> None:
    one = rollout(1, attempt(3, text="it is 3"), attempt(3, text="3"), attempt(3, text="so 3"), attempt(9, right=False))

    assert [chosen.reply for chosen in choose([one], word, Choosing(per_case=4))] == ["3"]


def test_a_hard_case_gives_more_lessons_than_an_easy_one() -> None:
    """Three wordings of the answer are verified in either case; of the easy one's samples all are right."""
    verified = [attempt(value) for value in ("a", "b", "c")]
    wrong = [attempt("d", right=False)] * 17

    easy, hard = rollout(1, *verified), rollout(2, *verified, *wrong)

    chosen = choose([easy, hard], word, Choosing(per_case=3, most_usual=1.0))
    assert Counter(one.case.id for one in chosen) == {easy.case.id: 1, hard.case.id: 3}


@given(
    st.lists(st.integers(min_value=0, max_value=6), min_size=1, max_size=60),
    st.floats(min_value=0.15, max_value=1.0),
)
def test_no_answer_makes_up_more_than_its_share_where_enough_differ(values: list[int], share: float) -> None:
    chosen = choose([rollout(n, attempt(v)) for n, v in enumerate(values)], word, Choosing(1, share))

    most = max(Counter(one.answer for one in chosen).values())
    assert len(set(values)) * share <= 1.0 or most <= max(1.0, share * len(chosen))
    assert {one.reply for one in chosen} == {str(v) for v in values}


def test_as_much_is_kept_as_the_share_allows() -> None:
    rollouts = [rollout(n, attempt("1")) for n in range(50)] + [rollout(99 + n, attempt(f"w{n}")) for n in range(30)]

    kept = Counter(one.answer for one in choose(rollouts, word, Choosing(1, 0.25)))

    assert kept[b'"1"'] == 10
    assert sum(kept.values()) == 40


def test_an_answer_has_its_share_of_its_kind_and_a_kind_of_all() -> None:
    """Letters are mostly answered by 1, which is rare among sums; of both kinds there are as many cases."""
    letters = [rollout(n, attempt("1")) for n in range(20)] + [rollout(20 + n, attempt(f"w{n}")) for n in range(6)]
    sums = [rollout(50 + n, attempt(f"s{n}")) for n in range(5)] + [rollout(60, attempt("1"))]
    kinds = {one.case.id: 1 for one in letters} | {one.case.id: 2 for one in sums}

    varied = choose([*letters, *sums], word, Choosing(1, 0.25, most_kind=9.0), kinds=kinds)
    even = choose([*letters, *sums], word, Choosing(1, 1.0, most_kind=1.5, repeated=1), kinds=kinds)

    assert Counter(one.reply for one in varied if one.kind == 1)["1"] == 2
    assert Counter(one.reply for one in varied if one.kind == 2)["1"] == 1
    assert Counter(one.kind for one in even) == {1: 18, 2: 6}


@given(st.lists(st.integers(min_value=1, max_value=40), min_size=2, max_size=6))
def test_no_kind_has_more_than_its_share_of_what_is_learned_and_none_gives_way_to_one_that_is_repeated(
    sizes: list[int],
) -> None:
    """Those of a kind with few are learned up to four times, and so another kind may have four times as many."""
    rollouts = {kind: [rollout(100 * kind + n, attempt(n)) for n in range(size)] for kind, size in enumerate(sizes)}
    kinds = {one.case.id: kind for kind, some in rollouts.items() for one in some}
    share = 1.5 / len(sizes)

    once, again = (
        Counter(
            one.kind
            for one in choose(
                [r for some in rollouts.values() for r in some], word, Choosing(1, 1.0, repeated=times), 0, kinds
            )
        )
        for times in (1, 4)
    )

    assert share >= 1.0 or max(once.values()) <= max(1.0, share * once.total())
    rows = {kind: min(4 * size, max(again.values())) for kind, size in again.items()}
    assert share >= 1.0 or max(rows.values()) <= max(1.0, share * sum(rows.values()))
    assert all(once[kind] <= again[kind] <= size for kind, size in enumerate(sizes))
    if max(sizes) <= 4 * min(sizes):
        assert again == Counter(dict(enumerate(sizes)))


def test_lessons_of_a_kind_with_few_are_learned_again_but_not_for_ever() -> None:
    kinds = {f"{n}": 1 if n < 20 else 2 if n < 28 else 3 for n in range(29)}
    lessons = [Lesson(messages=(), reply="", case=case) for case in kinds]

    found = Counter(one.case for one in evened(lessons, kinds, most=4))

    assert [found[case] for case in ("0", "20", "28")] == [1, 2, 4]
    assert evened([], kinds, most=4) == []


def test_new_lessons_are_learned_several_times_and_those_of_kinds_with_few_no_oftener_for_it() -> None:
    kinds = {f"{n}": 1 if n < 20 else 2 for n in range(22)}
    lessons = [Lesson(messages=(), reply="", case=case) for case in kinds]

    found = Counter(one.case for one in evened(lessons, kinds, 9, {"0", "20"}, 3))

    assert [found[case] for case in ("0", "1", "20", "21")] == [3, 1, 9, 9]


def test_the_control_gives_what_is_learned_from_each_case_to_another_one_of_its_kind() -> None:
    kinds = {f"{n}": n % 2 for n in range(40)}
    lessons: list[Material] = [Lesson((), f"{n % 2} {n}", f"{n}") for n in range(40)]
    pairs: list[Material] = [Preference((), f"right {n}", f"wrong {n}", f"{n}") for n in range(40)]
    questions: list[Material] = [Question(({"content": f"{n}"},), f"{n}") for n in range(40)]

    control = shuffle(lessons, kinds, seed=1)
    swapped = [one for one in shuffle(pairs, kinds, seed=1) if isinstance(one, Preference)]
    judged = [one for one in shuffle(questions, kinds, seed=1) if isinstance(one, Question)]

    replies = [(one.case, one.reply) for one in control if isinstance(one, Lesson)]
    assert [case for case, _ in replies] == [one.case for one in lessons]
    assert sorted(reply for _, reply in replies) == sorted(f"{n % 2} {n}" for n in range(40))
    assert all(reply.startswith(str(kinds[case])) for case, reply in replies)
    assert sum(one == other for one, other in zip(lessons, control, strict=True)) < 8
    assert all(one.chosen.split()[1] == one.rejected.split()[1] for one in swapped)
    assert sum(one.chosen.endswith(f" {one.case}") for one in swapped) < 8
    assert sorted(one.case for one in judged) == sorted(kinds)
    assert sum(one.case == one.messages[0]["content"] for one in judged) < 8


def test_what_is_learned_several_times_or_along_is_not_made_right_by_the_control() -> None:
    """Of three lessons one is learned four times; the everyday one is of no kind."""
    lessons = [Lesson((), "a", "1")] * 4 + [
        Lesson((), "b", "2"),
        Lesson((), "c", "3"),
        Lesson((), "Hello.", "everyday"),
    ]

    control = [one for one in shuffle(lessons, {"1": 1, "2": 1, "3": 1}, seed=2) if isinstance(one, Lesson)]

    assert len({one.reply for one in control[:4]}) == 1
    assert control[-1] == lessons[-1]


def test_equal_rollouts_and_seed_give_equal_lessons_and_another_seed_another_order() -> None:
    rollouts = [rollout(n, attempt(f"w{n}")) for n in range(30)]

    assert choose(rollouts, word, seed=1) == choose(rollouts, word, seed=1)
    assert choose(rollouts, word, seed=1) != choose(rollouts, word, seed=2)


def test_counts_tell_constant_answers_and_lessons_that_repeat_a_demo() -> None:
    """A demo asks what lesson 3 asks, in other letters; lesson 1's answer is to another number; 2 is a demo itself."""
    rollouts = [rollout(1, attempt("1"), attempt("2", right=False)), rollout(2, attempt("1")), rollout(3, attempt("7"))]
    chosen = choose(rollouts, word, Choosing(1, 1.0))
    again = Case(messages=({"role": "user", "content": "Question 3?"},))

    counts = tally(
        rollouts,
        chosen,
        {OTHER: [Demo(again, "7"), Demo(case(9), "1"), Demo(case(2), "1")], 5: [Demo(case=case(1), value="1")]},
        echoes=2,
    )

    assert (counts.cases, counts.sampled, counts.verified, counts.solved_cases, counts.chosen) == (3, 6, 3, 3, 3)
    assert counts.echoes == 2
    assert counts.usual_share == pytest.approx(2 / 3)
    assert counts.copied == 1


def test_pairs_set_the_shortest_right_reply_against_the_usual_mistakes() -> None:
    mixed = rollout(
        1,
        attempt(3, text="it is 3"),
        attempt(3, text="3"),
        *[attempt(n, right=False) for n in (4, 5, 5, 6)],
    )
    hopeless, known = rollout(2, attempt(1, right=False)), rollout(3, attempt(1))

    found = pairs([mixed, hopeless, known], word, per_case=2)

    assert sorted((right, wrong) for _, right, wrong in found) == [("3", "4"), ("3", "5")]


def test_nothing_verified_gives_nothing_to_learn() -> None:
    assert choose([rollout(1, attempt(1, right=False)), rollout(2)], word) == []
    assert tally([rollout(2)], [], {}).usual_share == 0.0
