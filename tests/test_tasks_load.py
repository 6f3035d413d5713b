"""Tasks from task files, Python files and names; the template that a beginner starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gainful import checks, tasks
from gainful.checks import Function
from gainful.core import Answer, Choice, Json, Number, TaskError, Text, ToolCall, judge

CASES = "\n".join(json.dumps({"id": number, "input": f"{number} + 1?", "target": "yes"}) for number in range(20))
TASK = """
name = "sums"
cases = "cases.jsonl"
[answer]
kind = "text"
[[checks]]
kind = "exact"
"""


def load(folder: Path, toml: str = TASK, cases: str = CASES) -> tasks.Task:
    (folder / "cases.jsonl").write_text(cases)
    (folder / "task.toml").write_text(toml)
    return tasks.load(str(folder / "task.toml"))


# --- the template ---------------------------------------------------------------------------------------


def test_the_template_loads_as_it_is_from_wherever_it_is_copied_to(tmp_path: Path) -> None:
    shutil.copytree(tasks.TEMPLATE, tmp_path / "mine")

    task = tasks.load(str(tmp_path / "mine" / "task.toml"))

    assert task.provable
    assert task.kind == Choice(labels=("billing", "delivery", "technical"))
    assert len(task.dev) + (task.holdout.size or 0) == 24
    assert task.spec["copies"] == 0
    assert {case.target for case in task.dev} == {"billing", "delivery", "technical"}
    (verdict,) = judge(task.checks, task.dev[0], Answer(text="", value=task.dev[0].target))
    assert verdict.score == 1.0


def test_the_template_names_every_kind_of_check_that_a_task_file_may_have() -> None:
    text = (tasks.TEMPLATE / "task.toml").read_text()

    for kind in checks.KINDS:
        assert f'kind = "{kind}"' in text or kind in ("function", "gym"), kind
    assert 'function = "checks.py:is_polite"' in text


# --- task files -----------------------------------------------------------------------------------------


def test_a_task_file_says_all_about_a_task(tmp_path: Path) -> None:
    head = 'instructions = "Say yes."\nmax_tokens = 5\nsplit = 0.5\nseed = 9\n'

    task = load(tmp_path, head + TASK)

    assert (task.name, task.kind) == ("sums", Text())
    assert (task.baseline.instructions, task.baseline.max_tokens) == ("Say yes.", 5)
    assert task.spec["split"] == {"dev": 0.5, "salt": "gainful split 9"}
    assert task.spec["load"] == str(tmp_path / "task.toml")
    assert task.checks == task.proof == (checks.Exact(),)


def test_cases_may_come_from_several_files(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"id": 1, "input": "Another?", "target": "no"}')

    task = load(tmp_path, TASK.replace('"cases.jsonl"', '["cases.jsonl", "more.jsonl"]'))

    assert len(task.dev) + (task.holdout.size or 0) == 21


def test_conflicting_copies_are_named_with_both_lines(tmp_path: Path) -> None:
    lines = '{"id": 1, "input": "Why?", "target": "a"}\n{"id": 2, "input": "why?", "target": "b"}'

    with pytest.raises(TaskError, match=r"1 \(cases.jsonl:1\) and 2 \(cases.jsonl:2\) ask the same"):
        load(tmp_path, cases=lines)


@pytest.mark.parametrize(
    ("use", "learning", "proving"),
    [("both", ["regex", "exact"], ["exact"]), ("learn", ["regex", "exact"], []), ("proof", ["regex"], ["exact"])],
)
def test_a_check_may_be_for_learning_or_for_proof(
    tmp_path: Path, use: str, learning: list[str], proving: list[str]
) -> None:
    first = '[[checks]]\nkind = "regex"\npattern = "x"\nuse = "learn"\n'

    task = load(tmp_path, TASK.replace("[[checks]]", first + "[[checks]]") + f'use = "{use}"\n')

    assert [check.name for check in task.checks] == learning
    assert [check.name for check in task.proof] == proving
    assert task.provable == bool(proving)


def test_labels_and_schema_of_checks_are_the_answers_own_unless_given(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    choice = 'kind = "choice"\nlabels = ["yes", "no"]'

    chosen = load(tmp_path, TASK.replace('kind = "text"', choice).replace('"exact"', '"choice"'))
    json_task = load(
        tmp_path,
        TASK.replace('kind = "text"', 'kind = "json"\nschema = "schema.json"').replace('"exact"', '"json_schema"'),
    )

    assert chosen.checks == (checks.Choice(labels=("yes", "no")),)
    assert json_task.kind == Json(schema={"type": "object"})
    assert json_task.checks == (checks.JsonSchema({"type": "object"}),)


@pytest.mark.parametrize(("kind", "expected"), [("number", Number()), ("tool_call", ToolCall())])
def test_an_answer_may_be_of_every_kind(tmp_path: Path, kind: str, expected: object) -> None:
    assert load(tmp_path, TASK.replace('kind = "text"', f'kind = "{kind}"')).kind == expected


def test_a_users_function_is_found_beside_the_task_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def good(case, answer):\n    return 1.0\n")

    task = load(tmp_path, TASK.replace('kind = "exact"', 'function = "own.py:good"'))

    assert isinstance(task.checks[0], Function)
    assert judge(task.checks, task.dev[0], Answer(text=""))[0].score == 1.0
    assert str(tmp_path) not in json.dumps(task.spec["checks"])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name =", "nam =", r"task.toml: the task has a key 'nam', which is not known; did you mean 'name'\?"),
        ("name =", "zzz =", "which is not known; it may have name, cases, answer"),
        ('name = "sums"\n', "", "task.toml: the task: Object missing required field `name`"),
        ('"sums"', "5", "task.toml: the task: Expected `str`, got `int`"),
        ('"cases.jsonl"', '"none.jsonl"', "task.toml: there is no case file"),
        ('kind = "text"', 'kind = "prose"', "answer.kind is 'prose'; it must be one of text, number, choice, json"),
        ('kind = "text"', "", "answer.kind is None; it must be one of"),
        ('kind = "text"', 'kind = "choice"\nlabel = ["a"]', r"answer has a key 'label'.* did you mean 'labels'\?"),
        ('kind = "text"', 'kind = "choice"\nlabels = "a"', "answer: Expected `array`, got `str`"),
        ('kind = "text"', 'kind = "json"\nschema = "none.json"', "the schema file .* cannot be read"),
        ('kind = "text"', 'kind = "json"\nschema = "cases.jsonl"', "the schema file .* is not JSON"),
        ('kind = "exact"', 'kind = "exakt"', "task.toml: check kind 'exakt' is not known; did you mean 'exact'"),
        ('kind = "exact"', 'kind = "exact"\nuse = "dev"', "use = 'dev'; it must be 'both', 'learn' or 'proof'"),
        ('kind = "exact"', 'function = "own.py:good"', "there is no file"),
        ('[[checks]]\nkind = "exact"', "", "task.toml: the task: Object missing required field `checks`"),
        ("[answer]", "split = 1.5\n[answer]", "the share of dev cases is 1.5"),
        ("[answer]", "[improve]\ntrain_minutes = 0\n[answer]", "improve.train_minutes is 0.0; it must be a number of"),
        (
            "[answer]",
            "[improve]\ntrain_memory = -1\n[answer]",
            "improve.train_memory is -1.0; it must be a number of GB",
        ),
        ("[answer]", "[answer", "task.toml is not TOML"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in TASK

    with pytest.raises(TaskError, match=sentence):
        load(tmp_path, TASK.replace(old, new))


def test_a_missing_task_file_is_named() -> None:
    with pytest.raises(TaskError, match=r"there is no task file 'none.toml'; `gainful init` writes one"):
        tasks.load("none.toml")


# --- Python files ---------------------------------------------------------------------------------------

PYTHON = """
from gainful import checks
from gainful.core import Case, Text
from gainful.tasks import divide, make_task

cases = [Case(messages=({"role": "user", "content": f"{n} + 1?"},), target=str(n + 1)) for n in range(30)]
task = make_task("sums", divide(cases), Text(), [checks.Exact()])
other = 5
"""


def test_a_python_file_may_make_the_task(tmp_path: Path) -> None:
    path = tmp_path / "sums.py"
    path.write_text(PYTHON)

    task = tasks.load(str(path))

    assert task.name == "sums"
    assert task.spec["load"] == str(path)
    assert tasks.load(f"{path}:task").holdout.digest == task.holdout.digest


def test_a_python_file_without_a_task_of_that_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sums.py"
    path.write_text(PYTHON)

    with pytest.raises(TaskError, match=r"sums.py:other' is 5, which is no task"):
        tasks.load(f"{path}:other")
    with pytest.raises(TaskError, match="has no 'none'"):
        tasks.load(f"{path}:none")


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("sums", "task 'sums' is not known; give a task file"),
        ("", "task '' is not known"),
        ("bfcl:java", "bfcl:java is not known; choose one of bfcl:simple_python, bfcl:live_simple"),
        ("no.such.module:task", "there is no module 'no'"),
    ],
)
def test_an_unknown_task_is_told_what_there_is(spec: str, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        tasks.load(spec)
