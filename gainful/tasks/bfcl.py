"""Tool calls of the Berkeley Function Calling Leaderboard, version 4 (Patil et al., ICML 2025; Apache-2.0).

Guarantees: the cases are those of one published wheel, whose SHA-256 is checked; tools are in OpenAI's form;
the answer key is the proof's alone.  Leaves to others: fetching (``models.files``), judging (``checks``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from gainful.checks import AnswerKey, Grounding, ToolCall
from gainful.core import Case, Format, JsonObject, Policy, TaskError
from gainful.core import ToolCall as ToolCallAnswer
from gainful.models.files import wheel_file
from gainful.tasks.split import DEFAULT, Split, divide
from gainful.tasks.task import Task, make_task

VERSION = "2026.3.23"
WHEEL_SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
CATEGORIES = ("simple_python", "live_simple")  # those with one Python call a case
INSTRUCTIONS = (
    "You can call functions. Call the function that does what the user asks, "
    "and take the values of its arguments from the request."
)
TYPES = {"dict": "object", "float": "number", "tuple": "array"}


def load(category: str, how: Split = DEFAULT) -> Task:
    """Return the task ``bfcl:CATEGORY``; raises ``TaskError`` for a category that is not offered."""
    if category not in CATEGORIES:
        raise TaskError(f"bfcl:{category} is not known; choose one of {', '.join(f'bfcl:{c}' for c in CATEGORIES)}")
    name = f"bfcl:{category}"
    task = make_task(
        name,
        divide(_cases(category), how),
        ToolCallAnswer(),
        checks=(ToolCall(), Grounding()),
        proof=(AnswerKey(),),
        baseline=Policy(instructions=INSTRUCTIONS, format=Format(signatures=True), max_tokens=96),
    )
    return replace(task, spec={**task.spec, "version": VERSION, "sha256": WHEEL_SHA256})


def _cases(category: str) -> Iterator[Case]:
    keys = {line["id"]: line["ground_truth"] for line in _lines(f"possible_answer/BFCL_v4_{category}.json")}
    for line in _lines(f"BFCL_v4_{category}.json"):
        ((function, arguments),) = keys[line["id"]][0].items()
        yield Case(
            messages=tuple(line["question"][0]),
            tools=tuple(map(_tool, line["function"])),
            target={"name": function, "arguments": arguments},
            name=line["id"],
        )


def _lines(member: str) -> list[JsonObject]:
    path = wheel_file("bfcl-eval", VERSION, f"bfcl_eval/data/{member}", WHEEL_SHA256)
    return msgspec.json.Decoder(JsonObject).decode_lines(path.read_bytes())


def _tool(function: JsonObject) -> JsonObject:
    return {"type": "function", "function": {**function, "parameters": json_schema(function["parameters"])}}


def json_schema(schema: JsonObject) -> JsonObject:
    """Return BFCL's description of a value as a JSON schema: its Python type names become JSON's.

    A parameter may itself be named "type" or "items": only keywords are translated, at every depth.

    >>> json_schema({"type": "dict", "properties": {"type": {"type": "float"}, "x": {"type": "any"}}})
    {'type': 'object', 'properties': {'type': {'type': 'number'}, 'x': {}}}
    """
    translated: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "type":
            if value != "any":
                translated["type"] = TYPES.get(value, value)
        elif keyword == "properties":
            translated["properties"] = {name: json_schema(inner) for name, inner in value.items()}
        elif keyword == "items":
            translated["items"] = json_schema(value)
        else:
            translated[keyword] = value
    return translated
