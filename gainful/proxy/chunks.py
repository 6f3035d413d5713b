"""The chunks of a streamed reply, put together into the reply that they are; ``split`` is the way back.

Guarantees: what clients read of a whole reply is the same after ``split`` and ``Assembler``; members that nobody knows
are kept; no chunk makes it raise: what has an unknown shape is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gainful.core import JsonObject
from gainful.models.chunks import split

__all__ = ["Assembler", "split"]

NOT_KEPT = ("choices", "object", "usage", "obfuscation")  # handled apart; the last is padding against eavesdroppers
UNSET = (None, "")
FIXED = ("id", "type", "role")  # strings that some servers repeat in every piece


class Assembler:
    """Takes chunks in order and gives the reply so far.

    Strings of a delta are joined, tool calls by their index, choices by theirs; lists go on; of anything else, and of
    ``usage``, the last that is not null counts.

    >>> assembler = Assembler()
    >>> for text in ("hel", "lo"):
    ...     assembler.feed({"choices": [{"index": 0, "delta": {"content": text}}]})
    >>> assembler.body()["choices"][0]["message"]
    {'role': 'assistant', 'content': 'hello'}
    """

    def __init__(self) -> None:
        self._head: JsonObject = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: JsonObject | None = None

    def feed(self, chunk: JsonObject) -> None:
        """Take the next chunk."""
        _update(self._head, chunk, but=NOT_KEPT)
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        for choice in _objects(chunk.get("choices")):
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            if index not in self._choices:
                self._choices[index] = _Choice()
            self._choices[index].feed(choice)

    def body(self) -> JsonObject:
        """Return the reply, with the choices in the order of their index; ``usage`` is left out where none came."""
        choices = [{"index": index, **choice.whole()} for index, choice in sorted(self._choices.items())]
        usage = {} if self._usage is None else {"usage": self._usage}
        return {**self._head, "object": "chat.completion", "choices": choices, **usage}


class _Choice:
    """One of the replies."""

    def __init__(self) -> None:
        self._rest: JsonObject = {}
        self._message = _Pieces()
        self._calls: dict[int, _Pieces] = {}
        self._no_calls: JsonObject = {}  # "tool_calls": null or [], where a server says that there are none
        self._logprobs: JsonObject = {}

    def feed(self, choice: JsonObject) -> None:
        _update(self._rest, choice, but=("index", "delta", "logprobs"))
        if "logprobs" in choice:
            _extend(self._logprobs, {"logprobs": choice["logprobs"]})
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._message.feed({name: value for name, value in delta.items() if name != "tool_calls"})
            if not delta.get("tool_calls", True):
                self._no_calls = {"tool_calls": delta["tool_calls"]}
            for call in _objects(delta.get("tool_calls")):
                self._call(call).feed({name: value for name, value in call.items() if name != "index"})

    def _call(self, piece: JsonObject) -> _Pieces:
        """Return the call that *piece* goes on with; a server that numbers none begins the next with another id."""
        index = piece.get("index")
        if not isinstance(index, int):
            last = max(self._calls, default=-1)
            begins = last < 0 or piece.get("id") not in (*UNSET, self._calls[last].fixed("id"))
            index = last + 1 if begins else last
        if index not in self._calls:
            self._calls[index] = _Pieces()
        return self._calls[index]

    def whole(self) -> JsonObject:
        message = {"role": "assistant", "content": None, **self._message.whole(), **self._no_calls}
        if self._calls:
            message["tool_calls"] = [call.whole() for _, call in sorted(self._calls.items())]
        return {"message": message, **self._logprobs, "finish_reason": None, **self._rest}


class _Pieces:
    """An object whose strings come in pieces, one within another to any depth."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._inner: dict[str, _Pieces] = {}
        self._others: JsonObject = {}

    def feed(self, delta: JsonObject) -> None:
        for name, value in delta.items():
            if isinstance(value, str) and name not in FIXED:
                pieces = self._texts.setdefault(name, [])
                if name != "name" or pieces != [value]:  # a tool's name is repeated by some servers too
                    pieces.append(value)
            elif isinstance(value, dict):
                self._inner.setdefault(name, _Pieces()).feed(value)
            else:
                _extend(self._others, {name: value})

    def fixed(self, name: str) -> Any:
        return self._others.get(name)

    def whole(self) -> JsonObject:
        texts = {name: _joined(pieces) for name, pieces in self._texts.items()}
        return {**self._others, **{name: inner.whole() for name, inner in self._inner.items()}, **texts}


def _update(known: JsonObject, members: JsonObject, but: Iterable[str]) -> None:
    """Put *members* into *known*, where null and empty text replace nothing."""
    for name, value in members.items():
        if name not in but and (value not in UNSET or name not in known):
            known[name] = value


def _extend(known: JsonObject, members: JsonObject) -> None:
    """Put *members* into *known*: lists go on, objects are gone into, of anything else the last that is set counts."""
    for name, value in members.items():
        held = known.get(name)
        if isinstance(held, list) and isinstance(value, list):
            known[name] = held + value
        elif isinstance(held, dict) and isinstance(value, dict):
            known[name] = dict(held)
            _extend(known[name], value)
        else:
            _update(known, {name: value}, but=())


def _objects(value: Any) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _joined(pieces: list[str]) -> str:
    """Join; halves of a character that came in two pieces become one, a half that stays alone U+FFFD."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
