"""What leaves the server: errors in OpenAI's shape, and the headers that say what was done.

Guarantees: 502, 503 and 504 say when to come back; an upstream's words about a request reach the caller as they came;
its words about our own key do not; no header value holds a line end.
"""

from __future__ import annotations

import math

import msgspec
from aiohttp import web

from gainful.core import ApiError, Busy, JsonObject, ModelError, RequestRefused
from gainful.proxy.chat import Answered, Chat
from gainful.proxy.wire import header_value

JSON = "application/json"
EVENTS = "text/event-stream"
OURS_TO_MEND = (401, 403)  # the upstream refused our key, of which the caller knows nothing
PASSED_ON = (429, 500, 502, 503, 504)
UPSTREAM = "upstream_error"
DOWN = (502, 503, 504)
DOWN_S = 1.0  # when to come back to a model that did not say; the circuit breaker asks for more once it opens

_encode = msgspec.json.Encoder().encode


def reply(body: JsonObject, headers: dict[str, str]) -> web.Response:
    """Return a whole reply."""
    return web.Response(body=_encode(body), content_type=JSON, headers=headers)


def headers_of(chat: Chat, answered: Answered, name: str) -> dict[str, str]:
    """Return what was done for the reply called *name*, as headers."""
    p_wrong = answered.p_wrong
    headers = {
        "x-gainful-id": header_value(name),
        "x-gainful-policy": chat.shaped.policy.id,
        "x-gainful-verdict": answered.verdict,
        "x-gainful-p-wrong": "unknown" if p_wrong is None else f"{p_wrong:.3f}",
        "x-gainful-calls": str(chat.asking.allowance.claimed),
    }
    return headers | ({"x-gainful-correction": answered.correction} if answered.correction else {})


def refusal(error: BaseException) -> web.Response:
    """Return what a caller is told of *error*."""
    status, body = _told(error)
    response = web.Response(body=_encode(body), content_type=JSON, status=status)
    wait_s = getattr(error, "retry_after_s", None)
    if wait_s is None and status in DOWN:
        wait_s = DOWN_S
    if wait_s is not None:
        response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response


def status_of(error: BaseException) -> int:
    """Return the HTTP status of what a caller is told of *error*."""
    return _told(error)[0]


def refusal_body(error: BaseException) -> JsonObject:
    """Return the same as an event in a stream that has begun."""
    return _told(error)[1]


def _told(error: BaseException) -> tuple[int, JsonObject]:
    if isinstance(error, ApiError):
        return error.status, error.shape()
    if isinstance(error, Busy):
        return _made(429, str(error), "rate_limit_error")
    if isinstance(error, TimeoutError):
        return _made(504, "no answer came before the request's deadline; allow more time", "timeout")
    if not isinstance(error, ModelError):
        return _made(500, "the server failed on this request; its log has the kind of failure", "server_error")
    status = error.status
    if status is None and isinstance(error, RequestRefused):
        return _made(400, str(error), "invalid_request_error")
    if status in OURS_TO_MEND:
        return _made(502, "the model server refused this server's own key; tell the operator", UPSTREAM)
    if status in PASSED_ON or (status is not None and isinstance(error, RequestRefused)):
        return status, error.said or _made(status, f"the model server answered {status}", UPSTREAM)[1]
    return _made(502, "the model cannot be reached or answers with something else; try again later", UPSTREAM)


def _made(status: int, sentence: str, kind: str) -> tuple[int, JsonObject]:
    return status, ApiError(sentence, status=status, kind=kind).shape()
