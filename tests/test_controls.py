"""Is it knowledge?  What form, copying and constant answers look like beside a gain."""

from __future__ import annotations

from typing import Any

import pytest

from gainful.checks import Exact
from gainful.core import (
    Adapter,
    Answer,
    Attempt,
    Case,
    Check,
    Choice,
    Demo,
    Policy,
    Text,
    ToolCall,
    Verdict,
    judge,
    lowest,
)
from gainful.loop.controls import Comparison
from gainful.loop.events import Controls, Errors
from gainful.report.training import comparison, flags
from gainful.tasks import Holdout, Task

ADAPTED = Policy(adapter=Adapter(sha256="a" * 64, base="b", rank=1, alpha=1.0))
CHECK: Check = Exact()
PLAIN = Policy()


def case(words: str, target: Any) -> Case:
    return Case(messages=({"role": "user", "content": words},), target=target)


def attempt(case: Case, text: str, value: Any) -> Attempt:
    answer = Answer(text=text, value=value)
    verdicts = judge((CHECK,), case, answer)
    return Attempt(case.id, "", answer, verdicts, lowest(verdicts))


def compared(cases: list[Case], before: list[str], after: list[str], control: Policy = PLAIN) -> Controls:
    task = Task(
        name="t", kind=Text(), dev=tuple(cases), holdout=Holdout("h", ()), checks=(CHECK,), proof=(CHECK,),
        baseline=Policy(), spec={},
    )  # fmt: skip
    rows = [[attempt(one, text, text) for one, text in zip(cases, said, strict=True)] for said in (before, after)]
    return Comparison(task, cases, *rows).controls("c7", ADAPTED, control, Errors())


SUMS = [case(f"What is the sum of {n} and {n + 1}?", str(2 * n + 1)) for n in range(10)]
LETTERS = [case(f'How often is "{letter}" in the word "banana"?', "3" if letter == "a" else "1") for letter in "abnxyz"]


def test_what_is_gained_in_form_alone_shows_where_replies_are_read_leniently() -> None:
    wordy = [f"The sum is {one.target}" for one in SUMS]
    bare = [str(one.target) for one in SUMS]

    found = compared(SUMS, wordy, bare)

    assert (found.before.strict.mean, found.after.strict.mean) == (0.0, 1.0)
    assert found.before.lenient is not None
    assert found.before.lenient.mean == 1.0
    assert (found.before.characters, found.after.characters) == (pytest.approx(12.5), pytest.approx(1.5))
    assert "Of +100.0 points strictly, +100.0 points are form: read leniently it gains 0.0 points." in flags(found)


def test_a_constant_answer_is_told_by_kind_beside_what_the_most_frequent_target_would_get() -> None:
    cases = SUMS + LETTERS
    said = [str(one.target) for one in SUMS] + ["3"] * len(LETTERS)

    found = compared(cases, ["?"] * len(cases), said)

    sums, letters = found.kinds
    assert (sums.n, sums.right_after, sums.constant) == (10, 10, 0.1)
    assert (letters.after, letters.answer, letters.constant) == (1.0, "3", pytest.approx(5 / 6))
    assert found.constant is not None
    assert found.constant.mean == 6 / 16
    assert not any("banana" in flag for flag in flags(found))  # it is hardly oftener than the usual target
    worse = compared(cases, ["?"] * len(cases), ["7"] * len(cases))
    assert any("It answers “7” to 100 % of questions like “What is the sum" in flag for flag in flags(worse))
    assert "It is not clearly ahead of the best constant answers." in flags(worse)


def test_wrong_answers_that_are_a_demos_and_replies_that_grow_are_flagged() -> None:
    control = Policy(demos=(Demo(case=case("another", None), value="42"),))

    found = compared(SUMS, ["?"] * 10, ["42"] * 4 + ["the answer is not known"] * 6, control=control)

    assert (found.before.copied, found.after.copied) == (0, 4)
    said = " ".join(flags(found))
    assert "It gives a demo's answer to 4 cases where that is wrong." in said
    assert "times as long as before." in said


def test_a_label_in_a_sentence_is_right_leniently_and_not_strictly() -> None:
    cases = [case(f"mood {n}", "good") for n in range(2)]
    task_kind = Choice(("good", "bad"))
    rows = [[attempt(one, text, "good") for one in cases] for text in ("It is good.", "Good")]
    task = Task("t", task_kind, tuple(cases), Holdout("h", ()), (CHECK,), (CHECK,), Policy(), {})

    found = Comparison(task, cases, *rows).controls("c", ADAPTED, Policy(), Errors())

    assert (found.before.strict.mean, found.after.strict.mean) == (0.0, 1.0)
    assert (found.before.lenient, found.after.lenient) == (found.after.strict, found.after.strict)


def test_a_call_is_strict_where_its_json_stands_alone_or_in_the_protocols_field() -> None:
    one, call = case("add", {"name": "add", "arguments": {}}), {"name": "add", "arguments": {}}
    task = Task("t", ToolCall(), (one,), Holdout("h", ()), (CHECK,), (CHECK,), Policy(), {})
    right = (Verdict("key", True, 1.0),)

    def strict(text: str) -> float:
        tried = [Attempt(one.id, "", Answer(text, call), right, 1.0)]
        return Comparison(task, [one], tried, tried).controls("c", ADAPTED, Policy(), Errors()).after.strict.mean

    assert [strict(text) for text in ('{"name": "add"}', "", 'I call {"name": "add"}')] == [1.0, 1.0, 0.0]


def test_without_targets_no_constant_and_nothing_lenient_is_claimed() -> None:
    cases = [case(f"question {n}", None) for n in range(3)]
    right = (Verdict("shape", True, 1.0),)
    attempts = [Attempt(one.id, "", Answer("x", "x"), right, 1.0) for one in cases]
    unknown = [Attempt(one.id, "", Answer("x", "x")) for one in cases]
    task = Task("t", Text(), tuple(cases), Holdout("h", ()), (CHECK,), (CHECK,), Policy(), {})

    found = Comparison(task, cases, attempts, attempts).controls("c", ADAPTED, Policy(), Errors())

    assert (found.constant, found.before.lenient, found.kinds[0].constant) == (None, None, None)
    assert [row.name for row in comparison(found, [])] == [
        "without these weights",
        "c, with them",
    ]
    assert Comparison(task, cases, attempts, unknown).n == 0


def test_a_check_that_scores_in_parts_counts_as_right_where_it_is_whole() -> None:
    cases = SUMS[:2]
    half = [Attempt(one.id, "", Answer("9", "9"), (Verdict("gym", True, 0.5),), 0.5) for one in cases]
    task = Task("t", Text(), tuple(cases), Holdout("h", ()), (CHECK,), (CHECK,), Policy(), {})

    assert Comparison(task, cases, half, half).controls("c", ADAPTED, Policy(), Errors()).after.strict.mean == 0.0
