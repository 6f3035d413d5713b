"""Cases from JSON lines: ``{"id", "input", "target", "metadata"}``, as Inspect and others have them, and ``"tools"``.

Guarantees: a file is read line by line, never as a whole; what cannot be used is refused with file, line and
reason, and nothing is passed over in silence.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from gainful.core import Case, JsonObject, TaskError, message_text


class Line(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One line.  ``input`` is the user's words or a list of chat messages; the rest may be left out."""

    input: str | list[JsonObject]
    id: str | int | None = None
    target: Any = None
    metadata: JsonObject | None = None
    tools: list[JsonObject] | None = None


def read(path: Path) -> Iterator[Case]:
    """Yield the cases of *path*, in order; a case is named by its id, file and line.

    A byte order mark and blank lines are passed over.  Raises ``TaskError`` for a file that is missing, unreadable
    or without a case, and for a line that is not UTF-8, not JSON, has unknown or ill-typed members, an id that an
    earlier line has, or no text.
    """
    first: dict[str | int, int] = {}
    number = 0
    found = False
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                text = data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
                if not text.strip():
                    continue
                found = True
                line = _line(text, f"{path.name}:{number}")
                if line.id is not None and first.setdefault(line.id, number) != number:
                    raise TaskError(
                        f"{path.name}:{number}: id {line.id!r} is that of line {first[line.id]} already; "
                        "give each case an id of its own"
                    )
                yield _case(line, f"{path.name}:{number}")
    except FileNotFoundError:
        raise TaskError(f"there is no case file {str(path)!r}; correct the path") from None
    except OSError as error:
        raise TaskError(f"the case file {str(path)!r} cannot be read: {error.strerror}; correct the path") from None
    if not found:
        raise TaskError(
            f'{path.name} holds no case; write one a line, such as {{"id": "1", "input": "...", "target": "..."}}'
        )


def _line(text: bytes, where: str) -> Line:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TaskError(f"{where}: {text[:60]!r} is not JSON ({error}); write one JSON object a line") from None
    if not isinstance(value, dict):
        raise TaskError(f'{where}: {value!r} is no JSON object; write {{"id": ..., "input": ..., "target": ...}}')
    for name in value:
        if name not in Line.__struct_fields__:
            near = get_close_matches(name, Line.__struct_fields__, n=1)
            hint = f"did you mean {near[0]!r}?" if near else 'put what is your own under "metadata"'
            raise TaskError(f"{where}: member {name!r} is not known; {hint}")
    try:
        return msgspec.convert(value, Line)
    except msgspec.ValidationError as error:
        raise TaskError(f"{where}: {error}; correct the line") from None


def _case(line: Line, where: str) -> Case:
    messages = [{"role": "user", "content": line.input}] if isinstance(line.input, str) else line.input
    for message in messages:
        if not _is_message(message):
            raise TaskError(f'{where}: {message!r} is no chat message; write {{"role": "user", "content": "..."}}')
    if not any(message_text(message).strip() or _has_other_parts(message) for message in messages):
        raise TaskError(f'{where}: the case has no text; write the user\'s words under "input"')
    for tool in line.tools or ():
        if not (isinstance(tool.get("function"), dict) and isinstance(tool["function"].get("name"), str)):
            form = '{"type": "function", "function": {"name": ..., "parameters": ...}}'
            raise TaskError(f"{where}: {tool!r} is no tool; write {form}")
    return Case(
        messages=tuple(messages),
        tools=tuple(line.tools or ()),
        target=line.target,
        name=where if line.id is None else f"{line.id} ({where})",
        metadata=line.metadata or {},
    )


def _is_message(message: JsonObject) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return (
        isinstance(message.get("role"), str)
        and isinstance(content, str | list | None)
        and all(isinstance(part, dict) and isinstance(part.get("text", ""), str) for part in parts)
    )


def _has_other_parts(message: JsonObject) -> bool:
    """Say whether the message holds an image or the like."""
    return isinstance(message.get("content"), list) and any(part.get("type") != "text" for part in message["content"])
