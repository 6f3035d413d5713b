"""Find the answer in a model's reply.

Lenient about what stands around an answer (prose, code fences, a thought), strict about the answer: where
nothing of the wanted kind is found the value is ``None``, never a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gainful.core import (
    AnswerKind,
    Case,
    Choice,
    Format,
    Json,
    JsonObject,
    Number,
    Text,
    ToolCall,
    canonical,
    message_text,
)

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?|-?\.\d+")
MOST_STARTS = 50  # brackets tried as the start of a JSON value; a reply of brackets must not cost a quadratic search


def extract(kind: AnswerKind, message: JsonObject, case: Case, form: Format) -> Any:
    """Return the answer that *message* holds, or ``None``.

    What JSON cannot carry to a store and back (NaN, an infinity, half of a surrogate pair) is no answer.
    """
    value = _find(kind, message, case, form)
    try:
        canonical(value)
    except (ValueError, RecursionError):
        return None
    return value


def _find(kind: AnswerKind, message: JsonObject, case: Case, form: Format) -> Any:
    text = message_text(message).strip()
    match kind:
        case Text():
            boxed = _boxed(text, form)
            return (text if boxed is None else str(boxed).strip()) or None
        case ToolCall():
            return _native_call(message) or _call_in(text, case, form)
        case Json():
            value = next(json_values(text), None)
            return value.get("answer") if form.think and isinstance(value, Mapping) else value
        case Number():
            boxed = _boxed(text, form)
            return _number_in(text) if boxed is None else boxed
        case Choice(labels=labels):
            boxed = _boxed(text, form)
            return _label_in(text if boxed is None else str(boxed), labels)


def json_values(text: str) -> Iterator[Any]:
    """Yield the JSON objects and arrays that stand in *text*, outermost first, in order."""
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(MOST_STARTS):
        start = min((i for i in (text.find("{", position), text.find("[", position)) if i >= 0), default=-1)
        if start < 0:
            return
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
        else:
            yield value


def _native_call(message: JsonObject) -> JsonObject | None:
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        try:
            arguments = json.loads(function.get("arguments") or "{}")
        except ValueError:
            return None
        return {"name": function.get("name"), "arguments": arguments}
    return None


def _call_in(text: str, case: Case, form: Format) -> JsonObject | None:
    names = [tool["function"]["name"] for tool in case.tools]
    for value in json_values(text):
        if not isinstance(value, dict):
            continue
        if form.shape == "arguments" and len(names) == 1:
            return {"name": names[0], "arguments": value.get("arguments") if form.think else value}
        outer = value.get("call", value)
        for call in (outer.get("function") if isinstance(outer, dict) else None, outer):
            if not isinstance(call, dict):
                continue
            arguments = call.get("arguments", call.get("parameters"))
            if isinstance(call.get("name"), str) and isinstance(arguments, dict):
                return {"name": call["name"], "arguments": arguments}
            if len(call) == 1 and isinstance(next(iter(call.values())), dict):
                ((name, arguments),) = call.items()
                return {"name": name, "arguments": arguments}
    return None


def _boxed(text: str, form: Format) -> Any:
    """Return the ``answer`` member of a constrained reply."""
    if form.shape == "free":
        return None
    value = next(json_values(text), None)
    return value.get("answer") if isinstance(value, Mapping) else None


def _number_in(text: str) -> float | int | None:
    found = NUMBER.findall(text)
    if not found:
        return None
    digits = found[-1].replace(",", "")
    return int(digits) if re.fullmatch(r"-?\d+", digits) else float(digits)


def _label_in(text: str, labels: tuple[str, ...]) -> str | None:
    """Return the label the text is, or else the only label that stands in it as a word."""
    bare = text.strip(" \t\n.\"'*`").casefold()
    for label in labels:
        if bare == label.casefold():
            return label
    standing = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text, re.IGNORECASE)]
    return standing[0] if len(standing) == 1 else None
