"""Is the answer a well-formed call of one of the case's tools?  Needs no answer key.

Guarantees: a verdict depends on the answer's JSON value and the case's tools alone, and is the same for ``5``
and ``5.0``.  Leaves to others: whether the values are the right ones (``grounding``, ``answer_key``), and
every constraint of a tool's JSON schema beyond types, enumerations, required and unexpected members
(``json_schema``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from gainful.checks.equality import equals
from gainful.core import Answer, Case, JsonObject, Score

Problem = tuple[str, str]
"""An error group, and a sentence that a re-ask can use."""


@dataclass(frozen=True)
class ToolCall:
    """Score 1 where the answer is a call of a tool of the case whose arguments follow the tool's schema, else 0.

    The answer's value is ``{"name": str, "arguments": object}``; tools are in OpenAI's form,
    ``{"type": "function", "function": {"name", "description", "parameters": JSON schema}}``.  In order:

    1. no value: "not JSON"; a value without a name (string) and arguments (object): "not a call";
    2. a name that no tool of the case has: "wrong function";
    3. a member of ``required`` (in its order) left out: "missing argument";
    4. a member, sorted by name, outside ``properties``: "unexpected argument", unless the schema has
       ``additionalProperties`` that is not false (within an argument: only where the schema lists ``properties``);
    5. for each argument, sorted by name: a value whose JSON type is none of ``type``: "wrong type" (a whole
       number is an integer however written; booleans are no numbers; no ``type`` or an unknown one allows all);
       then a value that equals no member of ``enum``: "not in enumeration" (case matters);
       then, for an object, rules 3 to 5 on its members, and for an array, rule 5 on its items by ``items``.

    The group is that of the first problem; the feedback names all.  Other keywords are not looked at.
    """

    name: ClassVar[str] = "tool_call"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False

    @property
    def spec(self) -> JsonObject:
        """The kind; there are no settings."""
        return {"kind": self.name}

    def __call__(self, case: Case, answer: Answer) -> Score:
        """Judge one answer; see the class."""
        problems = list(_problems(case, answer.value))
        if not problems:
            return Score(1.0)
        return Score(0.0, " ".join(sentence for _, sentence in problems), problems[0][0])


def is_call(value: Any) -> bool:
    """Say whether *value* has the form of a tool call: a name and an object of arguments.

    >>> is_call({"name": "add", "arguments": {"a": 1}}), is_call({"name": "add"})
    (True, False)
    """
    return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("arguments"), dict)


def parameters(case: Case, name: str) -> JsonObject | None:
    """Return the JSON schema of the parameters of the case's tool *name*, ``None`` where it has no such tool."""
    for tool in case.tools:
        if tool["function"]["name"] == name:
            schema: JsonObject = tool["function"].get("parameters") or {}
            return schema
    return None


def has_type(value: Any, schema: JsonObject) -> bool:
    """Say whether the JSON type of *value* is one that the schema's ``type`` allows.

    >>> has_type(5.0, {"type": "integer"}), has_type(True, {"type": "integer"}), has_type(5, {})
    (True, False, True)
    """
    allowed = schema.get("type")
    names = allowed if isinstance(allowed, list) else [allowed]
    return any(name not in _TYPES or _TYPES[name](value) for name in names)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == value // 1,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, dict),
}


def _problems(case: Case, value: Any) -> Iterator[Problem]:
    if value is None:
        yield "not JSON", "The reply holds no JSON; reply with one JSON object and nothing else."
        return
    if not is_call(value):
        yield "not a call", 'The reply is not a call; it must have the form {"name": ..., "arguments": {...}}.'
        return
    schema = parameters(case, value["name"])
    if schema is None:
        known = ", ".join(json_text(tool["function"]["name"]) for tool in case.tools)
        yield "wrong function", f"There is no function {json_text(value['name'])}; the functions are: {known}."
        return
    yield from _members(value["arguments"], schema, "", closed=True)


def _members(value: JsonObject, schema: JsonObject, path: str, *, closed: bool) -> Iterator[Problem]:
    known: JsonObject = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            yield "missing argument", f"The argument {json_text(path + name)} is missing."
    if closed and schema.get("additionalProperties", False) is False:
        for name in sorted(value):
            if name not in known:
                yield "unexpected argument", f"There is no argument {json_text(path + name)}; leave it out."
    for name in sorted(value):
        if isinstance(known.get(name), dict):
            yield from _value(value[name], known[name], path + name)


def _value(value: Any, schema: JsonObject, path: str) -> Iterator[Problem]:
    if not has_type(value, schema):
        yield "wrong type", f"The argument {json_text(path)} must be of type {_type_words(schema['type'])}."
        return
    if "enum" in schema and not any(equals(value, member) for member in schema["enum"]):
        choices = ", ".join(json_text(member) for member in schema["enum"])
        yield "not in enumeration", f"The argument {json_text(path)} must be one of {choices}."
    elif isinstance(value, dict):
        yield from _members(value, schema, f"{path}.", closed=bool(schema.get("properties")))
    elif isinstance(value, list | tuple) and isinstance(schema.get("items"), dict):
        for position, item in enumerate(value):
            yield from _value(item, schema["items"], f"{path}[{position}]")


def _type_words(allowed: Any) -> str:
    return " or ".join(allowed) if isinstance(allowed, list) else str(allowed)


def json_text(value: Any) -> str:
    """Return *value* as a person reads JSON: ``"unit"`` in its quotes, ``["a", 5]``."""
    return json.dumps(value, ensure_ascii=False)
