"""A whole reply taken apart into the chunks of a stream, in the form that OpenAI's clients put together again.

A scripted model streams so, and a reply that was held until it was checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gainful.core import JsonObject

PIECE = 48  # characters of text in a chunk: half a line, so that a held reply is a few chunks and not one a token
WHOLE = ("choices", "object", "usage")  # members of a reply that its chunks have in another form


def split(body: JsonObject, include_usage: bool) -> list[JsonObject]:
    """Return the chunks of the reply *body*, in order: for each choice its role, its content, its tool calls, its end.

    Members that are not known pass through: text in pieces, anything else whole.  What else a choice holds, as its
    log-probabilities, comes once, with the first piece after the role.  With *include_usage* the last chunk has
    ``usage`` and no choice, as OpenAI sends it, and ``usage`` is null in the others; without it there is none.

    >>> choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    >>> for chunk in split({"choices": [choice]}, include_usage=False):
    ...     print(chunk["choices"][0])
    {'index': 0, 'delta': {'role': 'assistant', 'content': ''}, 'finish_reason': None}
    {'index': 0, 'delta': {'content': 'hello'}, 'finish_reason': None}
    {'index': 0, 'delta': {}, 'finish_reason': 'stop'}
    """
    head = {name: value for name, value in body.items() if name not in WHOLE}
    head["object"] = "chat.completion.chunk"
    tail = {"usage": None} if include_usage else {}
    choices = [piece for place, choice in enumerate(body["choices"]) for piece in _pieces(place, choice)]
    chunks = [{**head, "choices": [choice], **tail} for choice in choices]
    if include_usage:
        chunks.append({**head, "choices": [], "usage": body.get("usage")})
    return chunks


def _pieces(place: int, choice: JsonObject) -> Iterator[JsonObject]:
    """Yield one choice as the choices of chunks."""
    index = choice.get("index", place)
    rest = {name: value for name, value in choice.items() if name not in ("index", "message", "finish_reason")}
    for number, delta in enumerate(_deltas(choice["message"])):
        piece = {"index": index, "delta": delta, "finish_reason": None}
        yield {**piece, **rest} if number == 1 else piece
    last = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
    yield {**last, **rest} if number == 0 else last


def _deltas(message: JsonObject) -> Iterator[JsonObject]:
    """Yield the role and all that is not text, then the texts, then the tool calls."""
    calls = message.get("tool_calls") or []
    texts = {name: value for name, value in message.items() if name != "role" and isinstance(value, str)}
    first = {name: "" if name in texts else value for name, value in message.items() if name != "tool_calls"}
    yield first if calls or "tool_calls" not in message else {**first, "tool_calls": message["tool_calls"]}
    for name, text in texts.items():
        for piece in _cut(text):
            yield {name: piece}
    for index, call in enumerate(calls):
        yield from ({"tool_calls": [{"index": index, **piece}]} for piece in _call_pieces(call))


def _call_pieces(call: JsonObject) -> Iterator[JsonObject]:
    """Yield a tool call without its arguments, then these in pieces; a call of a kind that is not known, whole."""
    function = call.get("function")
    arguments: Any = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(arguments, str):
        yield call
        return
    yield {**call, "function": {**call["function"], "arguments": ""}}
    for piece in _cut(arguments):
        yield {"function": {"arguments": piece}}


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))
