"""Render a policy and a case as one chat-completions request.

The case's own turns stay as they came.  All that the policy adds goes into the system turn, most stable first
(instructions, examples, then the case's tools), so that an engine that shares prompt prefixes computes the
policy's part once.

Equal inputs give equal bytes: JSON objects have no order, but a model reads and writes their members in one.  So
tools, schemas and answers are written in an order of our own (``required`` arguments first, as listed there), never
in the order in which a dict happened to be built or a store to return it.

A demo is data, whoever wrote it: no line of its request, tools and reply begins where the policy's lines do, so that
none can pass for an instruction, another example or the end of this one.  As turns of the conversation demos are not
fenced so: what callers wrote is never shown in that form (``watch``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gainful.core import (
    AnswerKind,
    Case,
    Choice,
    Demo,
    Format,
    Json,
    JsonObject,
    Number,
    Policy,
    Text,
    ToolCall,
    message_text,
)

THOUGHT_CHARACTERS = 160  # room for one sentence; a small model left alone fills whatever it is given
INDENT = "\n  "  # what a small model copies of it into a longer reply is blanks alone
KEYWORDS = ("type", "description", "enum", "items", "properties", "required")  # the order in which schemas are shown
ANNOTATIONS = frozenset({"description", "default", "examples", "title", "format", "optional"})


def request(policy: Policy, case: Case, kind: AnswerKind) -> JsonObject:
    """Return the request body that asks for *case* under *policy*, greedily (temperature 0).

    The policy's adapter goes along as ``adapter``, for the model to take out: so a remembered call differs by it.
    A demo is never shown for its own case: an answer to be found must not stand in the question.
    """
    form = policy.format
    turns = list(case.messages)
    theirs = message_text(turns.pop(0)) if turns and turns[0].get("role") == "system" else ""
    shown = [demo for demo in policy.demos if demo.case.id != case.id]
    parts = [policy.instructions, _wording(kind, form), theirs]
    parts += [] if form.turns else [_example(demo, kind, form) for demo in shown]
    if case.tools and form.shape != "native":
        parts.append(_tools_text(case, form))
    system = "\n\n".join(filter(None, parts))
    examples = [turn for demo in shown for turn in _turns(demo, kind, form)] if form.turns else []
    messages = [*([{"role": "system", "content": system}] if system else []), *examples, *turns]
    body: JsonObject = {"messages": messages, "max_tokens": policy.max_tokens, "temperature": 0}
    if policy.adapter is not None:
        body["adapter"] = msgspec.to_builtins(policy.adapter)
    if form.shape == "native" and case.tools:
        body["tools"] = list(case.tools)
        body["tool_choice"] = "required"
    schema = answer_schema(kind, case, form)
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return body


def answer_schema(kind: AnswerKind, case: Case, form: Format) -> JsonObject | None:
    """Return the JSON schema that constrains the answer, ``None`` where the form leaves it free."""
    if form.shape in ("free", "native"):
        return None
    match kind:
        case ToolCall():
            schema = _call_schema(case, form)
        case Json(schema=answer):
            schema = _object({"answer": ordered(answer)}) if form.think else ordered(answer)
        case Choice(labels=labels):
            schema = _object({"answer": {"enum": list(labels)}})
        case Number():
            schema = _object({"answer": {"type": "number"}})
        case Text():
            schema = _object({"answer": {"type": "string"}})
    if form.think:
        thought = {"type": "string", "maxLength": THOUGHT_CHARACTERS}
        return _object({"thought": thought, **schema["properties"]}, ["thought", *schema["required"]])
    return schema


def _call_schema(case: Case, form: Format) -> JsonObject:
    arguments = {tool["function"]["name"]: _arguments_schema(tool, form) for tool in case.tools}
    if form.shape == "arguments" and len(arguments) == 1:
        (schema,) = arguments.values()
        return _object({"arguments": schema}) if form.think else schema
    if len(arguments) == 1:
        ((name, schema),) = arguments.items()
        return _object({"name": {"const": name}, "arguments": schema})
    calls = [_object({"name": {"const": name}, "arguments": schema}) for name, schema in arguments.items()]
    return _object({"call": {"anyOf": calls}})


def _arguments_schema(tool: JsonObject, form: Format) -> JsonObject:
    schema = ordered(tool["function"].get("parameters") or {})
    properties = schema.get("properties") or {}
    required = [name for name in schema.get("required") or () if name in properties]
    shown = {k: v for k, v in properties.items() if k in required or not form.required_only}
    return _object({name: _bare(inner) for name, inner in shown.items()}, required)


def _bare(schema: Any) -> Any:
    """Drop what does not constrain decoding; a property may itself be called "description"."""
    if not isinstance(schema, Mapping):
        return schema
    bare = {k: v for k, v in schema.items() if k not in ANNOTATIONS}
    if isinstance(schema.get("properties"), Mapping):
        bare["properties"] = {name: _bare(inner) for name, inner in schema["properties"].items()}
    if "items" in bare:
        bare["items"] = _bare(bare["items"])
    return bare


def _object(properties: JsonObject, required: list[str] | None = None) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _wording(kind: AnswerKind, form: Format) -> str:
    """Say in words what the answer must look like; a constrained model writes better what it was told to write."""
    match kind:
        case ToolCall() if form.shape == "native":
            return ""
        case ToolCall() if form.shape == "arguments":
            return "Reply with the arguments of the function as one JSON object and nothing else."
        case ToolCall():
            return 'Reply with one JSON object {"name": function name, "arguments": {...}} and nothing else.'
        case Json(schema=schema):
            return "Reply with one JSON value that follows this JSON schema and nothing else: " + compact(
                ordered(schema)
            )
        case Choice(labels=labels):
            return "Reply with one of these labels and nothing else: " + ", ".join(labels) + "."
        case Number():
            return "End your reply with the number."
        case Text() if form.shape == "free":
            return ""
        case Text():
            return 'Reply with one JSON object {"answer": ...} and nothing else.'


def _example(demo: Demo, kind: AnswerKind, form: Format) -> str:
    tools = [_tools_text(demo.case, form)] if demo.case.tools else []
    lines = [*tools, f"Request: {demo.case.text}", f"Reply: {_reply(demo, kind, form)}"]
    return "\n".join(["Example", *map(_fenced, lines)])


def _turns(demo: Demo, kind: AnswerKind, form: Format) -> list[JsonObject]:
    """Return a demo as a turn of the user's and the model's reply."""
    tools = [_tools_text(demo.case, form)] if demo.case.tools else []
    asked = "\n\n".join([*tools, demo.case.text])
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": _reply(demo, kind, form)}]


def _reply(demo: Demo, kind: AnswerKind, form: Format) -> str:
    """Return the reply that a demo shows, as the model should write it."""
    value = _in_order(demo)
    if isinstance(kind, Text) and form.shape != "free":
        value = {"answer": value}
    if form.shape == "arguments" and len(demo.case.tools) == 1 and isinstance(value, Mapping):
        value = value.get("arguments")
    return value if isinstance(value, str) else compact(value)


def _fenced(text: str) -> str:
    """Return *text* with every line but the first indented, whatever character ends a line."""
    return INDENT.join(text.splitlines())


def _in_order(demo: Demo) -> Any:
    """Return the demo's answer as the model should write it: name first, arguments in the order of the function."""
    value = demo.value
    if not (isinstance(value, Mapping) and isinstance(value.get("arguments"), Mapping)):
        return _sorted(value)
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in demo.case.tools}
    shown = list(ordered(schemas.get(value.get("name")) or {}).get("properties") or ())
    arguments = sorted(value["arguments"].items(), key=lambda item: _rank(item[0], shown))
    return {"name": value.get("name"), "arguments": {name: _sorted(inner) for name, inner in arguments}}


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


def ordered(schema: Any) -> Any:
    """Return *schema* with its members in one order, at every depth: required properties first, as listed.

    >>> list(ordered({"required": ["b"], "properties": {"a": {}, "b": {}}, "type": "object"})["properties"])
    ['b', 'a']
    """
    if not isinstance(schema, Mapping):
        return [ordered(item) for item in schema] if isinstance(schema, list | tuple) else schema
    told = {key: ordered(schema[key]) for key in sorted(schema, key=lambda key: _rank(key, KEYWORDS))}
    if isinstance(schema.get("properties"), Mapping):
        required = list(schema.get("required") or ())
        names = sorted(schema["properties"], key=lambda name: _rank(name, required))
        told["properties"] = {name: ordered(schema["properties"][name]) for name in names}
    return told


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _tools_text(case: Case, form: Format) -> str:
    functions = [
        {"name": f["name"], "description": f.get("description", ""), "parameters": ordered(f.get("parameters") or {})}
        for f in (tool["function"] for tool in case.tools)
    ]
    show = signature if form.signatures else compact
    return ("Function: " if len(functions) == 1 else "Functions:\n") + "\n".join(map(show, functions))


def signature(function: Mapping[str, Any]) -> str:
    """Return a tool as one line: name, arguments with their types, and what they mean.

    >>> print(signature({"name": "area", "description": "Area of a triangle.", "parameters": {
    ...     "properties": {"base": {"type": "integer", "description": "Its base."}, "unit": {"type": "string"}},
    ...     "required": ["base"]}}))
    area(base: integer, unit?: string): Area of a triangle. base: Its base.
    """
    schema = function.get("parameters") or {}
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required = schema.get("required") or ()
    arguments = [f"{n}{'' if n in required else '?'}: {_type_text(inner)}" for n, inner in properties.items()]
    meanings = [f"{n}: {inner['description']}" for n, inner in properties.items() if inner.get("description")]
    head = f"{function['name']}({', '.join(arguments)})"
    return " ".join(filter(None, [f"{head}:", function.get("description", ""), *meanings]))


def _type_text(schema: Mapping[str, Any]) -> str:
    if schema.get("enum"):
        return " | ".join(compact(label) for label in schema["enum"])
    if isinstance(schema.get("items"), Mapping):
        return f"{_type_text(schema['items'])}[]"
    return str(schema.get("type", "any"))


def compact(value: Any) -> str:
    """Return JSON without the blanks, which cost a model tokens and say nothing."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
