"""The leaderboard's cases, from the published wheel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gainful import tasks
from gainful.core import Answer, ToolCall, judge
from gainful.tasks.bfcl import json_schema

REGISTRATION = "0" * 64


def test_type_names_become_json_schemas_at_every_depth_but_names_of_parameters_stay() -> None:
    theirs = {
        "type": "dict",
        "properties": {
            "type": {"type": "string", "enum": ["float", "dict"]},
            "items": {"type": "array", "items": {"type": "tuple", "items": {"type": "float"}}},
            "inner": {"type": "dict", "properties": {"properties": {"type": "any", "description": "x"}}},
        },
        "required": ["type"],
    }

    assert json_schema(theirs) == {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["float", "dict"]},
            "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            "inner": {"type": "object", "properties": {"properties": {"description": "x"}}},
        },
        "required": ["type"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(("category", "dev", "held_out"), [("simple_python", 161, 239), ("live_simple", 107, 151)])
def test_the_split_of_the_published_cases_never_moves(category: str, dev: int, held_out: int) -> None:
    task = tasks.load(f"bfcl:{category}")

    assert (len(task.dev), task.holdout.size, task.spec["copies"]) == (dev, held_out, 0)
    assert task.kind == ToolCall()
    assert [check.name for check in task.checks] == ["tool_call", "grounding"]
    assert [check.name for check in task.proof] == ["answer_key"]
    assert all(case.target is None for case in task.shown)


@pytest.mark.slow
@pytest.mark.parametrize("category", ["simple_python", "live_simple"])
def test_all_tools_are_json_schemas_and_all_keys_are_calls(category: str) -> None:
    task = tasks.load(f"bfcl:{category}")

    for case in (*task.dev, *task.holdout.open(REGISTRATION, task.holdout.size or 0, 0)):
        (tool,) = case.tools
        assert case.target["name"] == tool["function"]["name"]
        assert set(case.target["arguments"]) <= set(tool["function"]["parameters"]["properties"])
        assert set(types(tool["function"]["parameters"])) <= {
            "object",
            "array",
            "string",
            "integer",
            "number",
            "boolean",
        }


def types(schema: dict[str, Any]) -> Iterator[str]:
    if "type" in schema:
        yield schema["type"]
    for inner in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from types(inner)


@pytest.mark.slow
def test_right_answers_are_rarely_called_ungrounded() -> None:
    """Some keys name what no request says, such as the king's four outcomes; those aside, right values are found."""
    task = tasks.load("bfcl:simple_python")
    flagged = 0
    for case in task.dev:
        arguments = {
            name: first(allowed) for name, allowed in case.target["arguments"].items() if first(allowed) is not None
        }
        answer = Answer(text="", value={"name": case.target["name"], "arguments": arguments})
        flagged += judge(task.checks[1:], case, answer)[0].score == 0.0

    assert flagged <= 18


def first(allowed: list[Any]) -> Any:
    real = [value for value in allowed if value != ""]
    return literal(real[0]) if real else None


def literal(allowed: Any) -> Any:
    if isinstance(allowed, dict):
        return {name: literal(values[0]) for name, values in allowed.items() if values and values[0] != ""}
    return [literal(item) for item in allowed] if isinstance(allowed, list) else allowed
