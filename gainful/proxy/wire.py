"""What comes in: the bytes of a request become an ``Ask``, or an error that says what is wrong with them.

Guarantees: what the caller sent reaches the model as it came (order, numbers and members that nobody knows included);
a body that the rest of the server could stumble over is refused here with a 4xx and one sentence; nothing that stands
in a text is read as anything but text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import msgspec

from gainful.answers.allowance import Limits
from gainful.core import ApiError, JsonObject, Value

DEADLINE, CALLS = "x-gainful-deadline-ms", "x-gainful-max-calls"
WHOLE = ("n", "max_tokens", "max_completion_tokens", "top_logprobs", "seed")
OURS = ("model", "stream", "stream_options")  # members that are for this server, and not for the model behind it
WEIGHTS = ("adapter", "lora")  # which weights answer is the policy's to say: a caller who chose would answer for it
CONTAINERS = frozenset({dict, list})
SHOWN_VALUE = 256  # characters of a header: a reply's id, which the upstream chose, is not longer

_at_path = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_missing = re.compile(r"missing required field `(\w+)`")
_number = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)
_count = re.compile(r"\d{1,9}", re.ASCII)
_control = re.compile(r"[\x00-\x1f\x7f]+")
_foreign = re.compile(r"[^ -~]")


class Bounds(Value, frozen=True):
    """The most that a request may be: bytes, messages, levels of nesting, replies at once."""

    body_bytes: int = 8 << 20  # a conversation with a few images
    messages: int = 4096
    depth: int = 64  # tool schemas reach 20; some thousand would exhaust the stack of whoever reads them
    n: int = 16


BOUNDS = Bounds()


class Ask(Value, frozen=True):
    """A request: for which *model*, the *body* as it came without what is for this server, and how to answer it."""

    model: str
    body: JsonObject
    stream: bool = False
    include_usage: bool = False


# --- the shapes of known members; ``None`` is what many clients send for "not set" ----------------------


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[JsonObject] | None = None
    tool_call_id: str | None = None


class _Tool(msgspec.Struct):
    type: str
    function: JsonObject | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Known(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | float | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Tool | None = None
    parallel_tool_calls: bool | None = None
    response_format: JsonObject | None = None
    logprobs: bool | None = None
    top_logprobs: int | float | None = None
    seed: int | float | None = None
    user: str | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


_decode = msgspec.json.Decoder().decode


def parse(body: bytes, bounds: Bounds = BOUNDS) -> Ask:
    """Return what *body* asks for; raises ``ApiError`` (400, or 413 for one that is too large).

    Of a member that comes twice the last counts, as everywhere in JSON's world.

    >>> parse(b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "seed": 7, "stream": true}')
    Ask(model='m', body={'messages': [{'role': 'user', 'content': 'hi'}], 'seed': 7}, stream=True, include_usage=False)
    """
    if len(body) > bounds.body_bytes:
        raise ApiError(f"the body has {len(body)} bytes; send {bounds.body_bytes} at most", status=413)
    try:
        whole = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_malformed(body, error, bounds)
    if not isinstance(whole, dict):
        raise ApiError(f"the body is a {_kind(whole)}; send a JSON object")
    if is_deeper(whole, bounds.depth):
        _refuse_depth(bounds)
    for name in WEIGHTS:
        if whole.get(name) is not None:
            raise ApiError(f"{name} cannot be chosen here: the policy in service has its own; leave it out", param=name)
    try:
        known = msgspec.convert(whole, _Known)
    except msgspec.ValidationError as error:
        _refuse_shape(str(error))
    _check(known, bounds)
    return Ask(
        model=known.model,
        body={name: value for name, value in whole.items() if name not in OURS and name not in WEIGHTS},
        stream=bool(known.stream),
        include_usage=known.stream_options is not None and bool(known.stream_options.include_usage),
    )


def limits_of(headers: Mapping[str, str]) -> Limits:
    """Return how far the caller wants to tighten this request's limits; raises ``ApiError`` for no positive number.

    ``x-gainful-max-calls`` counts all calls, the caller's own too, as ``x-gainful-calls`` does.  *headers* must look
    names up without regard to case.

    >>> limits_of({"x-gainful-deadline-ms": "1500", "x-gainful-max-calls": "3"})
    Limits(deadline_ms=1500.0, extra_calls=2, extra_tokens=None, extra_cost_usd=None)
    """
    deadline, calls = headers.get(DEADLINE), headers.get(CALLS)
    return Limits(
        deadline_ms=None if deadline is None else _positive(DEADLINE, deadline, _number),
        extra_calls=None if calls is None else int(_positive(CALLS, calls, _count)) - 1,
    )


def header_value(value: str) -> str:
    r"""Return *value* fit for a header: no line end or other control character, ASCII, not overlong.

    >>> header_value("chatcmpl-1\r\nSet-Cookie: é")
    'chatcmpl-1 Set-Cookie: ?'
    """
    return _foreign.sub("?", _control.sub(" ", value)).strip()[:SHOWN_VALUE]


def _check(known: _Known, bounds: Bounds) -> None:
    """Refuse what has the right shape and makes no sense."""
    if not known.model:
        raise ApiError("model is empty; name one that GET /v1/models lists", param="model")
    if not known.messages:
        raise ApiError("messages is empty; send at least one", param="messages")
    if len(known.messages) > bounds.messages:
        raise ApiError(f"there are {len(known.messages)} messages; send {bounds.messages} at most", param="messages")
    for name in WHOLE:
        value = getattr(known, name)
        if isinstance(value, float) and not value.is_integer():  # to JSON 1.0 is a whole number
            raise ApiError(f"{name} is {value}; send a whole number", param=name)
    if known.n is not None and not 1 <= known.n <= bounds.n:
        raise ApiError(f"n is {str(known.n)[:40]}; it must lie between 1 and {bounds.n}", param="n")


def is_deeper(value: Any, most: int) -> bool:
    """Whether containers are nested in more than *most* levels; level by level, so that no depth hurts."""
    level = [value]
    for _ in range(most):
        insides = [outer.values() if type(outer) is dict else outer for outer in level]
        level = [inner for inside in insides for inner in inside if type(inner) in CONTAINERS]
        if not level:
            return False
    return True


def _positive(name: str, value: str, form: re.Pattern[str]) -> float:
    if not form.fullmatch(value) or float(value) <= 0:
        wanted = "a positive number" if form is _number else "a whole number from 1 on"
        raise ApiError(f"{name} is {header_value(value)!r}; send {wanted}", param=name)
    return float(value)


# --- refusals -------------------------------------------------------------------------------------------


def _refuse_malformed(body: bytes, error: Exception, bounds: Bounds) -> NoReturn:
    """Say why *body* is no JSON, and at which byte; the slow parser knows that better."""
    try:
        text = body.decode()
        json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as broken:
        raise ApiError(f"the body is not UTF-8 at byte {broken.start}; send JSON in UTF-8") from None
    except json.JSONDecodeError as broken:
        at = len(text[: broken.pos].encode())
        raise ApiError(f"the body is no JSON: {broken.msg} at byte {at}; send a JSON object") from None
    except RecursionError:
        _refuse_depth(bounds)
    except ValueError:  # an integer of thousands of digits
        pass
    if isinstance(error, RecursionError):
        _refuse_depth(bounds)
    raise ApiError(
        "the body holds half of a surrogate pair or a number that is too large; send whole characters and numbers "
        "that a double or an integer of 4300 digits holds"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ApiError(f"the body holds {name}, which JSON has not; send numbers or null")


def _refuse_depth(bounds: Bounds) -> NoReturn:
    raise ApiError(f"the body is nested more than {bounds.depth} levels deep; send it flatter")


def _refuse_shape(said: str) -> NoReturn:
    """Turn the validator's words, which end with a JSON path, into a sentence about the member."""
    found = _at_path.fullmatch(said)
    what, path = (found["what"], found["path"] or "") if found else (said, "")
    missing = _missing.search(what)
    if missing:
        path = f"{path}.{missing[1]}".lstrip(".")
        raise ApiError(f"{path} is missing; send it", param=path)
    raise ApiError(f"{path}: {what.replace('`', '')}; see the chat completions API", param=path or None)


def _kind(value: Any) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
