"""Is the tool call the one that the answer key wants?

Guarantees: verdicts follow the Berkeley Function Calling Leaderboard's rules for one Python call (Patil et
al., ICML 2025), with the deviations listed in ``docs/notes/answer-key.md``, all of which serve one end: the
verdict is the same before and after the answer was written as canonical JSON.  Leaves to others: saying what
is wrong without a key (``tool_call``, ``grounding``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from gainful.checks.equality import equals
from gainful.checks.tool_call import Problem, has_type, is_call, json_text, parameters
from gainful.core import Answer, Case, CheckError, JsonObject, Score

_IGNORED = re.compile(r"[ ,./\-_*^]")  # what two spellings of one date, name or formula tend to differ in


@dataclass(frozen=True)
class AnswerKey:
    """Score 1 where the call has the key's name and every argument one of its allowed values, else 0.

    The target is ``{"name": str, "arguments": {argument: [allowed value, ...]}}``; ``""`` among the allowed
    values means that the argument may be left out.  Unknown where the case has no target.  A call is right when

    1. its name is the key's;
    2. every argument that the case's tool lists in ``required`` is given;
    3. every argument given is in the key, and *matches* one of its allowed values;
    4. every argument of the key that is not given has ``""`` among its allowed values.

    ``""`` given for a parameter whose schema type is not a string matches nothing, and ``[]`` given for an
    array parameter matches an allowed ``""``.  Otherwise a value matches an allowed value that it *equals*:

    - strings: without the characters ``space , . / - _ * ^``, in lower case, ``'`` read as ``"``;
    - numbers by value (``5`` is ``5.0``); booleans and null only themselves: ``true`` is not ``1``;
    - arrays: equal lengths, and item by item;
    - objects: an allowed value that is an object, or an item of an array that is one, is itself a key: it maps
      each member to its allowed values, with rules 3 and 4 (but a member's ``""`` equals only ``""``).  Objects and
      arrays deeper inside are compared as they are, member by member.

    The group is that of the first rule broken, arguments sorted by name: (1) "wrong function", (2) "missing argument",
    (3) "unexpected argument", "wrong type" where the value has not the schema's type (see ``ToolCall``), else
    "wrong value", (4) "missing argument"; and before all, as in ``ToolCall``, "not JSON" and "not a call".
    """

    name: ClassVar[str] = "answer_key"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = True

    @property
    def spec(self) -> JsonObject:
        """The kind; there are no settings."""
        return {"kind": self.name}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer without saying what the key holds; raises ``CheckError`` for a target of another form."""
        if case.target is None:
            return None
        if not is_call(case.target):
            raise CheckError(
                f"the target is {case.target!r}; the check 'answer_key' needs "
                '{"name": ..., "arguments": {argument: [allowed value, ...]}}'
            )
        if not is_call(answer.value):
            group = "not JSON" if answer.value is None else "not a call"
            return Score(0.0, "The reply is not a function call.", group)
        group, sentence = next(_problems(case, answer.value), ("", ""))
        return Score(0.0, sentence, group) if group else Score(1.0)


def _problems(case: Case, call: JsonObject) -> Iterator[Problem]:
    """Yield what is wrong, in the order of the rules, but argument by argument for rule 3."""
    key = case.target
    if call["name"] != key["name"]:
        yield "wrong function", f"The function {json_text(call['name'])} is not the one to call."
        return
    schema = parameters(case, call["name"]) or {}
    given, allowed = call["arguments"], key["arguments"]
    for name in schema.get("required") or ():
        if name not in given:
            yield "missing argument", f"The argument {json_text(name)} is missing."
    for name, value in sorted(given.items()):
        parameter = (schema.get("properties") or {}).get(name) or {}
        if name not in allowed:
            yield "unexpected argument", f"The argument {json_text(name)} should not be given."
        elif not _matches(value, allowed[name], parameter):
            group = "wrong value" if has_type(value, parameter) else "wrong type"
            yield group, f"The value of {json_text(name)} is not right."
    for name, values in sorted(allowed.items()):
        if name not in given and "" not in values:
            yield "missing argument", f"The argument {json_text(name)} is missing."


def _matches(value: Any, allowed: list[Any], parameter: JsonObject) -> bool:
    if value == "" and not has_type("", parameter):
        return False
    if value == [] and "" in allowed and parameter.get("type") == "array":
        return True
    return any(_fits(value, candidate) for candidate in allowed)


def _fits(value: Any, allowed: Any) -> bool:
    if isinstance(allowed, dict):
        return isinstance(value, dict) and _fits_members(value, allowed)
    if isinstance(allowed, list) and isinstance(value, list):
        return len(value) == len(allowed) and all(
            isinstance(item, dict) and _fits_members(item, wanted)
            if isinstance(wanted, dict)
            else equals(item, wanted, _plain)
            for item, wanted in zip(value, allowed, strict=True)
        )
    return equals(value, allowed, _plain)


def _fits_members(value: JsonObject, key: JsonObject) -> bool:
    if any(name not in value and "" not in allowed for name, allowed in key.items()):
        return False
    return all(name in key and any(equals(member, a, _plain) for a in key[name]) for name, member in value.items())


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')
