"""Checks of texts, numbers, labels and JSON: each rule of their docstrings, and words that give nothing away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gainful import checks
from gainful.core import Answer, Case, Check, CheckError, Score, TaskError, judge


def scored(check: Check, target: Any, value: Any, text: str = "") -> Score | None:
    case = Case(messages=({"role": "user", "content": "?"},), target=target)
    result = check(case, Answer(text=text, value=value))
    assert result is None or isinstance(result, Score)
    return result


def value(check: Check, target: Any, answer: Any, text: str = "") -> float | None:
    score = scored(check, target, answer, text)
    return None if score is None else score.value


# --- exact ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "answer", "expected"),
    [
        (checks.Exact(), "Straße 1", 1.0),
        (checks.Exact(), "straße 1", 0.0),
        (checks.Exact(), "Straße  1", 0.0),
        (checks.Exact(), 1, 0.0),
        (checks.Exact(ignore_case=True), "STRASSE 1", 1.0),
        (checks.Exact(ignore_case=True), "STRASSE  1", 0.0),
        (checks.Exact(ignore_space=True), " Straße\t\n1 ", 1.0),
        (checks.Exact(ignore_space=True), "straße 1", 0.0),
        (checks.Exact(ignore_case=True, ignore_space=True), " strasse\u00a01", 1.0),
    ],
)
def test_exact_compares_code_points_unless_told_to_ignore_case_or_blanks(
    check: Check, answer: Any, expected: float
) -> None:
    assert value(check, "Straße 1", answer) == expected


def test_exact_takes_any_of_several_targets() -> None:
    assert value(checks.Exact(), ["NYC", "New York"], "New York") == 1.0


def test_exact_cannot_tell_without_a_target() -> None:
    assert value(checks.Exact(), None, "a") is None


def test_exact_refuses_a_target_that_is_no_text() -> None:
    with pytest.raises(CheckError, match=r"the target is 5; the check 'exact' needs a text or a list of texts"):
        scored(checks.Exact(), 5, "5")


# --- number ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tolerance", "target", "answer", "expected"),
    [
        (0.0, 1250.5, "1,250.5", 1.0),
        (0.0, "1250.50", 1250.5, 1.0),
        (0.0, -300, "-3e2", 1.0),
        (0.0, 5, 5.0, 1.0),
        (0.0, 5, " +5. ", 1.0),
        (0.0, 0.5, ".5", 1.0),
        (0.1, 0.2, 0.3, 1.0),  # as floats they are 0.1 and a bit apart
        (0.1, 0.2, 0.30000001, 0.0),
        (0.0, 1, True, 0.0),
        (0.0, 5, "5 apples", 0.0),
        (0.0, 5, "٥", 0.0),
        (0.0, 5, [5], 0.0),
        (0.0, 5, None, 0.0),
        (0.0, 5, float("nan"), 0.0),
        (1e300, 5, float("inf"), 0.0),
    ],
)
def test_numbers_are_compared_as_the_decimals_they_are_written_as(
    tolerance: float, target: Any, answer: Any, expected: float
) -> None:
    assert value(checks.Number(tolerance=tolerance), target, answer) == expected


@pytest.mark.parametrize("answer", ["1e999999999", "9" * 5000, 10**4000])
def test_a_monstrous_number_is_none_and_costs_nothing(answer: Any) -> None:
    score = scored(checks.Number(), 5, answer)

    assert score is not None
    assert (score.value, score.group) == (0.0, "no number")


def test_a_wrong_number_is_of_another_group_than_none() -> None:
    score = scored(checks.Number(), 5, 6)

    assert score is not None
    assert score.group == "wrong value"


def test_number_cannot_tell_without_a_target_and_refuses_one_that_is_none() -> None:
    assert value(checks.Number(), None, 5) is None
    with pytest.raises(CheckError, match="the target is 'five'; the check 'number' needs a number"):
        scored(checks.Number(), "five", 5)


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_must_be_a_finite_number_from_zero_up(tolerance: float) -> None:
    with pytest.raises(TaskError, match="tolerance"):
        checks.Number(tolerance=tolerance)


# --- choice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compare", "target", "answer", "expected", "group"),
    [
        (True, "yes", "yes", 1.0, ""),
        (True, "yes", "no", 0.0, "wrong value"),
        (True, "yes", "Yes", 0.0, "no choice"),
        (True, "yes", None, 0.0, "no choice"),
        (True, "yes", ["yes"], 0.0, "no choice"),
        (True, None, "maybe", 0.0, "no choice"),
        (False, "yes", "no", 1.0, ""),
        (False, None, "maybe", 0.0, "no choice"),
    ],
)
def test_a_choice_is_one_of_the_labels_and_the_target(
    compare: bool, target: Any, answer: Any, expected: float, group: str
) -> None:
    score = scored(checks.Choice(labels=("yes", "no"), compare=compare), target, answer)

    assert score is not None
    assert (score.value, score.group) == (expected, group)


def test_a_label_without_a_target_to_compare_with_is_no_pass() -> None:
    assert value(checks.Choice(labels=("yes", "no")), None, "yes") is None


def test_a_choice_needs_targets_only_where_it_compares() -> None:
    assert checks.Choice(labels=("a", "b")).needs_target
    assert not checks.Choice(labels=("a", "b"), compare=False).needs_target


def test_a_target_that_is_no_label_is_named() -> None:
    with pytest.raises(CheckError, match="the target is 'perhaps'; the check 'choice' needs one of yes, no"):
        scored(checks.Choice(labels=("yes", "no")), "perhaps", "yes")


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "b", "a")])
def test_labels_are_two_or_more_and_each_given_once(labels: tuple[str, ...]) -> None:
    with pytest.raises(TaskError, match="two or more, each once"):
        checks.Choice(labels=labels)


# --- regex ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "answer", "text", "expected"),
    [
        (checks.Regex(r"\d{4}-\d\d"), "2024-05", "", 1.0),
        (checks.Regex(r"\d{4}-\d\d"), " 2024-05\n", "", 1.0),
        (checks.Regex(r"\d{4}-\d\d"), "on 2024-05", "", 0.0),
        (checks.Regex(r"\d{4}-\d\d", search=True), "on 2024-05", "", 1.0),
        (checks.Regex(r"\d{4}-\d\d"), None, "2024-05", 1.0),
        (checks.Regex(r"a.c"), "a\nc", "", 0.0),
        (checks.Regex(r"(?s)a.c"), "a\nc", "", 1.0),
    ],
)
def test_the_whole_text_must_match_or_a_part_where_searched(
    check: Check, answer: Any, text: str, expected: float
) -> None:
    assert value(check, None, answer, text) == expected


def test_a_pattern_that_does_not_compile_is_refused_at_once() -> None:
    with pytest.raises(TaskError, match=r"pattern '\(': missing \), unterminated subpattern at position 0"):
        checks.Regex("(")


# --- json schema ----------------------------------------------------------------------------------------


def test_a_value_follows_its_schema_or_the_feedback_says_where_it_does_not() -> None:
    check = checks.JsonSchema({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]})

    assert value(check, None, {"age": 5}) == 1.0
    assert value(check, None, {"age": 5.0}) == 1.0
    score = scored(check, None, {"age": "5"})
    assert score is not None
    assert (score.value, score.group) == (0.0, "not valid")
    assert score.feedback == "At $.age: '5' is not of type 'integer'."


def test_a_reply_without_json_is_of_its_own_group() -> None:
    score = scored(checks.JsonSchema({}), None, None)

    assert score is not None
    assert (score.value, score.group) == (0.0, "not JSON")


def test_a_schema_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(TaskError, match="at properties/a/type, 'objekt' is not valid"):
        checks.JsonSchema({"properties": {"a": {"type": "objekt"}}})


def test_a_reference_to_elsewhere_is_never_fetched(tmp_path: Path) -> None:
    (tmp_path / "any.json").write_text("{}")
    check = checks.JsonSchema({"$ref": (tmp_path / "any.json").as_uri()})

    with pytest.raises(CheckError, match="Unresolvable"):
        judge([check], Case(messages=()), Answer(text="", value=1))


# --- agreement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ((), None),
        (({"a": 5},), None),
        (({"a": 5}, {"a": 5.0}), 1.0),
        (({"a": 5}, {"a": "5"}, None, {"a": 5}), 0.5),
        (({"a": True}, {"b": 5}), 0.0),
    ],
)
def test_agreement_is_the_share_of_samples_equal_to_the_answer(
    samples: tuple[Any, ...], expected: float | None
) -> None:
    result = checks.Agreement()(Case(messages=()), Answer(text="", value={"a": 5}, samples=samples))

    assert (None if result is None else result.value) == expected


def test_samples_without_answer_do_not_agree_with_an_answer_that_is_none() -> None:
    result = checks.Agreement()(Case(messages=()), Answer(text="", samples=(None, None)))

    assert result is not None
    assert result.value == 0.0


# --- all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "target", "answer"),
    [
        (checks.Exact(), "SECRET", "other"),
        (checks.Number(), 987654, 5),
        (checks.Choice(labels=("SECRET", "other")), "SECRET", "other"),
    ],
)
def test_feedback_never_holds_the_target(check: Check, target: Any, answer: Any) -> None:
    score = scored(check, target, answer)

    assert score is not None
    assert score.value == 0.0
    assert score.feedback
    assert str(target) not in score.feedback
