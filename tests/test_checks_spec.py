"""Checks from a task file's words, and the user's own functions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gainful import checks
from gainful.core import Answer, Case, Check, CheckError, JsonObject, Score, TaskError, judge

CASE = Case(messages=({"role": "user", "content": "?"},), target="secret", name="cases.jsonl:3")
ANSWER = Answer(text="secret", value="secret")


@pytest.mark.parametrize(
    "check",
    [
        checks.Exact(ignore_case=True),
        checks.Number(tolerance=0.5),
        checks.Choice(labels=("a", "b"), compare=False),
        checks.Regex(r"a+", search=True),
        checks.JsonSchema({"type": "object"}),
        checks.ToolCall(),
        checks.Grounding(),
        checks.Agreement(),
        checks.AnswerKey(),
        checks.Gym("chain_sum", {"max_digits": 2}),
    ],
)
def test_a_check_is_made_again_from_its_spec(check: Check) -> None:
    assert checks.from_spec(check.spec) == check
    assert check.spec["kind"] == check.name


def test_every_kind_is_tried_above() -> None:
    assert len(checks.KINDS) == 11


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"kind": "exakt"}, "check kind 'exakt' is not known; did you mean 'exact'?"),
        ({}, "check kind None is not known; it may be agreement, "),
        ({"kind": ["exact"]}, r"check kind \['exact'\] is not known"),
        (
            {"kind": "exact", "ignore_cas": True},
            r"check 'exact' has no setting 'ignore_cas'; did you mean 'ignore_case'\?",
        ),
        ({"kind": "tool_call", "strict": True}, "check 'tool_call' has no setting 'strict'; it may be left alone"),
        ({"kind": "function", "function": "a.py:b", "folder": "/"}, "check 'function' has no setting 'folder'"),
        ({"kind": "number", "tolerance": "wide"}, "check 'number': Expected `float`, got `str`"),
        ({"kind": "regex"}, "check 'regex': Object missing required field `pattern`"),
    ],
)
def test_an_unknown_kind_or_setting_is_refused_with_the_nearest_known(spec: JsonObject, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        checks.from_spec(spec)


# --- functions ------------------------------------------------------------------------------------------


def own(folder: Path, source: str, **settings: Any) -> Check:
    (folder / "own.py").write_text(source)
    return checks.from_spec({"kind": "function", "function": "own.py:good", **settings}, folder)


def test_a_function_of_the_users_judges(tmp_path: Path) -> None:
    source = "def good(case, answer):\n    return 1.0 if answer.value == case.target else 0.0\n"

    check = own(tmp_path, source)

    assert judge([check], CASE, ANSWER)[0].score == 1.0
    assert (check.name, check.trusted, check.needs_target) == ("good", True, True)
    assert check.spec["sha256"] == hashlib.sha256(source.encode()).hexdigest()
    assert checks.from_spec(check.spec, tmp_path) == check


def test_a_function_that_says_it_needs_no_target_gets_none(tmp_path: Path) -> None:
    check = own(tmp_path, "def good(case, answer):\n    return float(case.target is None)\n", needs_target=False)

    assert judge([check], CASE, ANSWER)[0].score == 1.0


def test_a_function_may_say_why_and_that_it_cannot_tell(tmp_path: Path) -> None:
    source = (
        "from gainful.core import Score\n"
        "def good(case, answer):\n"
        "    return None if answer.value is None else Score(0.5, 'Be kinder.', 'unkind')\n"
    )
    check = own(tmp_path, source, trusted=False)

    assert check(CASE, ANSWER) == Score(0.5, "Be kinder.", "unkind")
    assert check(CASE, Answer(text="")) is None
    assert not check.trusted


def test_a_function_may_come_from_an_installed_module() -> None:
    check = checks.Function("operator:eq", needs_target=False)

    assert check(CASE, ANSWER) is False


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("raise KeyError('x')", "check 'good' raised KeyError on case 'cases.jsonl:3': 'x'"),
        ("return float('nan')", "check 'good' returned nan on case 'cases.jsonl:3'"),
        ("return 1.5", "check 'good' returned 1.5 on case 'cases.jsonl:3'"),
        ("return -0.1", "check 'good' returned -0.1 on case"),
        ("return 'yes'", "check 'good' returned 'yes' on case"),
    ],
)
def test_a_check_that_breaks_is_named_with_its_case(tmp_path: Path, body: str, seen: str) -> None:
    check = own(tmp_path, f"def good(case, answer):\n    {body}\n")

    with pytest.raises(CheckError) as caught:
        judge([check], CASE, ANSWER)

    assert str(caught.value).startswith(seen)
    assert "a score must be a number in [0, 1]" in str(caught.value) or "return a score in [0, 1]" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("good = 5", "'own.py:good' is 5; a check is a plain function"),
        ("async def good(case, answer): return 1.0", "a check is a plain function"),
        ("def good(answer): return 1.0", "a check is a plain function"),
        ("def better(case, answer): return 1.0", "own.py has no 'good'; it has better"),
        ("def good(case, answer) return 1", "'own.py:good' cannot be loaded: SyntaxError"),
        ("1 / 0", "'own.py:good' cannot be loaded: ZeroDivisionError: division by zero"),
        ("import does_not_exist", "there is no module 'does_not_exist'"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_refused_in_one_sentence(
    tmp_path: Path, source: str, sentence: str
) -> None:
    with pytest.raises(TaskError, match=sentence):
        own(tmp_path, source)


@pytest.mark.parametrize("reference", ["good", ":good", "own.py:", "own.py:no good", "no_such.py:good"])
def test_a_reference_names_a_file_and_a_function(reference: str) -> None:
    with pytest.raises(TaskError, match=r"names no Python object|there is no file"):
        checks.Function(reference)


def test_a_function_whose_source_changed_is_not_the_one_that_was_recorded(tmp_path: Path) -> None:
    spec = own(tmp_path, "def good(case, answer): return 1.0\n").spec

    with pytest.raises(TaskError, match=r"where [0-9a-f]{64} was expected; check out the version"):
        own(tmp_path, "def good(case, answer): return 0.0\n", sha256=spec["sha256"])


def test_a_function_is_read_again_when_its_file_changed(tmp_path: Path) -> None:
    assert own(tmp_path, "def good(case, answer): return 1.0\n")(CASE, ANSWER) == 1.0
    assert own(tmp_path, "def good(case, answer): return 0.0\n")(CASE, ANSWER) == 0.0
