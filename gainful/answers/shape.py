"""A caller's request under a policy, and the answer back in the form that the caller asked for.

Guarantees: what the caller fixed stays (every field of theirs that a policy does not itself consist of, unknown ones
too); turns, tools and images reach the model as they came; a request that the policy was not made for goes to the
model untouched, and so does every request under an empty policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gainful.answers.prompt import compact, request
from gainful.core import (
    Answer,
    AnswerKind,
    Case,
    Choice,
    Json,
    JsonObject,
    Number,
    Policy,
    Reply,
    Text,
    ToolCall,
    Value,
    digest,
)

PLAIN = Policy()
OURS = frozenset({"messages", "tools", "tool_choice", "adapter"})  # of these a policy consists, where it is not empty


class Shaped(Value, frozen=True):
    """A request ready for the model, the case it stands for, and the policy it is asked under."""

    case: Case
    policy: Policy
    body: JsonObject

    @property
    def is_plain(self) -> bool:
        """Whether the request goes out as it came."""
        return self.policy is PLAIN


def shape(policy: Policy, body: JsonObject, kind: AnswerKind) -> Shaped:
    """Return the caller's *body* as *policy* asks it, or untouched where the policy does not fit it."""
    case = case_of(body)
    if policy == PLAIN or not _fits(policy, body, case, kind):
        return Shaped(case, PLAIN, body)
    ours = request(policy, case, kind)
    theirs = {name: value for name, value in body.items() if name not in OURS}
    if "response_format" in ours:
        theirs.pop("response_format", None)  # it says "text", or the policy would not fit
    if "tools" not in ours:
        theirs.pop("parallel_tool_calls", None)  # without tools servers refuse it
    if "max_completion_tokens" in theirs:
        ours.pop("max_tokens")
    return Shaped(case, policy, {**ours, **theirs})


def case_of(body: JsonObject) -> Case:
    """Return the case that a caller's *body* stands for: its turns, and the tools that may be called."""
    return Case(messages=tuple(body["messages"]), tools=_offered(body))


def _offered(body: JsonObject) -> tuple[JsonObject, ...]:
    """Return the tools that may be called: all, none, or the one that the caller insists on."""
    tools, choice = body.get("tools") or (), body.get("tool_choice")
    if choice == "none":
        return ()
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        return tuple(tool for tool in tools if _name(tool) == (choice.get("function") or {}).get("name"))
    return tuple(tools)


def _name(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return function.get("name") if isinstance(function, Mapping) else None


def _fits(policy: Policy, body: JsonObject, case: Case, kind: AnswerKind) -> bool:
    """Whether this is a request of the kind that the policy was proven on: one answer, asked for by a user's turn."""
    if body.get("n") not in (None, 1) or case.messages[-1].get("role") == "tool":
        return False
    is_free = policy.format.shape == "free" and not isinstance(kind, ToolCall)  # the model's words go back as they are
    if not is_free and body.get("response_format") not in (None, {"type": "text"}):
        return False
    if not all(isinstance(_name(tool), str) for tool in case.tools):
        return False
    return bool(case.tools) == isinstance(kind, ToolCall)


# --- and back


def is_rewritten(shaped: Shaped, kind: AnswerKind) -> bool:
    """Whether the model's words are not yet what the caller asked for: they cannot be passed on as they come."""
    form = shaped.policy.format
    if shaped.is_plain:
        return False
    return (isinstance(kind, ToolCall) and form.shape != "native") or form.shape in ("schema", "arguments")


def present(shaped: Shaped, kind: AnswerKind, answer: Answer, message: JsonObject | None) -> JsonObject:
    """Return *answer* as the message the caller gets; *message* is the model's own, where the answer came in it.

    A message that needs no other form, and one in which no answer was found, stays as it is.
    """
    if message is not None and (answer.value is None or not is_rewritten(shaped, kind)):
        return message
    match kind:
        case ToolCall() if isinstance(answer.value, Mapping):
            return {"role": "assistant", "content": None, "tool_calls": [_call(answer.value)]}
        case Choice() | Number() | Text() if answer.value is not None:
            return {"role": "assistant", "content": str(answer.value)}
        case Json() if answer.value is not None:
            return {"role": "assistant", "content": compact(answer.value)}
    return {"role": "assistant", "content": answer.text}


def _call(value: Mapping[str, Any]) -> JsonObject:
    arguments = compact(value.get("arguments") or {})
    return {
        "id": f"call_{digest([value.get('name'), arguments])[:24]}",
        "type": "function",
        "function": {"name": value.get("name"), "arguments": arguments},
    }


def reply_body(replies: list[Reply], message: JsonObject) -> JsonObject:
    """Return the reply that the caller gets: *message* in the first reply's body, and the usage of all replies.

    A single reply whose message is *message* itself comes back untouched.
    """
    body = replies[0].body
    first = body["choices"][0]
    if message is not first["message"]:
        reason = "tool_calls" if message.get("tool_calls") else first.get("finish_reason")
        choice = {**first, "message": message, "finish_reason": reason}
        if choice.get("logprobs"):
            choice["logprobs"] = None  # they are of words that the caller does not get
        body = {**body, "choices": [choice, *body["choices"][1:]]}
    if len(replies) > 1:
        body = {**body, "usage": _summed([r.body.get("usage") or {} for r in replies])}
    return body


def _summed(usages: list[JsonObject]) -> JsonObject:
    """Add usages member by member, at every depth; what is no number stays as the first one has it."""
    total: JsonObject = {}
    for usage in usages:
        for name, value in usage.items():
            before = total.get(name)
            if isinstance(value, Mapping):
                total[name] = _summed([before or {}, dict(value)])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                total[name] = (before or 0) + value
            else:
                total.setdefault(name, value)
    return total
