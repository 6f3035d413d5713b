"""Scripted worlds for tests of the loop: tasks whose truth is known, answered by the shipped scripted model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gainful.checks import AnswerKey, Grounding, ToolCall
from gainful.core import Case, Format, JsonObject, Policy
from gainful.core import ToolCall as ToolCallAnswer
from gainful.loop.run import Halving, Settings
from gainful.models import ScriptedModel
from gainful.tasks import Task, divide, make_task

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
QUICK = Settings(halving=Halving(rungs=(6, 12, 24)), rounds=3)


def case(number: int) -> Case:
    a, b = number, 1000 + number
    return Case(
        messages=({"role": "user", "content": f"Please add {a} and {b}."},),
        tools=(TOOL,),
        target={"name": "add", "arguments": {"a": [a], "b": [b]}},
        name=f"add-{number}",
    )


def sums(cases: int = 200, max_tokens: int = 256) -> Task:
    """A tool-call task of additions: dev by keyless checks, proof by answer key."""
    return make_task(
        "sums",
        divide([case(number) for number in range(cases)]),
        ToolCallAnswer(),
        [ToolCall(), Grounding()],
        [AnswerKey()],
        Policy(instructions="Call the function.", format=Format(shape="free"), max_tokens=max_tokens),
    )


def wording(body: JsonObject) -> str:
    """What the case asks, whatever turns of demos stand before it and however often it was asked again."""
    said = [str(message["content"]) for message in body["messages"] if message["role"] == "user"]
    return next((words for words in reversed(said) if words.startswith("Please add")), said[0])


def numbers(body: JsonObject) -> tuple[int, int]:
    words = wording(body).removesuffix(".").split()
    return int(words[2]), int(words[4])


def luck(body: JsonObject, salt: str) -> float:
    """A number in [0, 1) that belongs to the case, whatever the policy."""
    return int(hashlib.sha256(f"{salt} {wording(body)}".encode()).hexdigest()[:8], 16) / 2**32


def call(a: int, b: int) -> str:
    return json.dumps({"name": "add", "arguments": {"a": a, "b": b}})


def needs_a_schema(body: JsonObject, sample: int) -> str:
    """Talks where it may, and calls rightly in 7 of 10 cases where decoding is constrained."""
    if "response_format" not in body:
        return "The sum of the numbers is easily found."
    a, b = numbers(body)
    value = call(a, b) if luck(body, "schema") < 0.7 else call(b, a)
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    return value if "name" in names else json.dumps(json.loads(value)["arguments"])


def deaf(body: JsonObject, sample: int) -> str:
    """Answers the same way however it is asked: half of the cases rightly."""
    a, b = numbers(body)
    return call(a, b) if luck(body, "deaf") < 0.5 else "I cannot say."


def scripted(answer: object = needs_a_schema) -> ScriptedModel:
    return ScriptedModel(answer)  # type: ignore[arg-type]


def store_in(folder: Path) -> Path:
    return folder / "store" / "gainful.db"
