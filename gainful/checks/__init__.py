"""How an answer is judged: one small file a check, and the line that wires them.

Guarantees: ``from_spec(check.spec)`` gives an equal check; a verdict is the same before and after the answer was
written as canonical JSON and read again.  Leaves to ``core.judge`` what happens when a check breaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from inspect import signature
from pathlib import Path

import msgspec

from gainful.checks.agreement import Agreement
from gainful.checks.answer_key import AnswerKey
from gainful.checks.choice import Choice
from gainful.checks.exact import Exact
from gainful.checks.function import Function
from gainful.checks.grounding import Grounding
from gainful.checks.gym import Gym
from gainful.checks.json_schema import JsonSchema
from gainful.checks.number import Number
from gainful.checks.regex import Regex
from gainful.checks.tool_call import ToolCall
from gainful.core import Check, JsonObject, TaskError

__all__ = [
    "KINDS",
    "Agreement",
    "AnswerKey",
    "Choice",
    "Exact",
    "Function",
    "Grounding",
    "Gym",
    "JsonSchema",
    "Number",
    "Regex",
    "ToolCall",
    "from_spec",
]

KINDS: dict[str, type[Check]] = {
    **{kind.name: kind for kind in (Exact, Number, Choice, Regex, JsonSchema, ToolCall, Grounding, Agreement)},
    **{kind.name: kind for kind in (AnswerKey, Gym)},
    "function": Function,
}


def from_spec(spec: JsonObject, folder: Path | None = None) -> Check:
    """Return the check that *spec* describes: ``{"kind": ..., setting: value, ...}``.

    The files of functions are found from *folder*, by default the current one.  Raises ``TaskError`` for an unknown
    kind or setting, suggesting the nearest known one, and for a value that does not fit.
    """
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise TaskError(f"check kind {kind!r} is not known; {_instead(str(kind), KINDS)}")
    check = KINDS[kind]
    settings = {name: value for name, value in spec.items() if name != "kind"}
    known = [name for name in signature(check).parameters if name != "folder"]
    for name in settings:
        if name not in known:
            raise TaskError(f"check {kind!r} has no setting {name!r}; {_instead(name, known)}")
    try:
        found = msgspec.convert(settings if check is not Function else {**settings, "folder": folder or Path()}, check)
    except msgspec.ValidationError as error:
        raise TaskError(f"check {kind!r}: {error}; correct the setting") from None
    return found


def _instead(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it may be {', '.join(sorted(known)) or 'left alone'}"
