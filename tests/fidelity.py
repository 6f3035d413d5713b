"""Whether a proxy changes what passes through it: requests on their way to the upstream, replies on their way back.

A recording upstream gives each shape of the corpus its reply, plain or as a stream.  What arrives is compared with
what was sent as parsed JSON in which a number is its text; streams are compared by the message that they add up to, so
that a proxy may cut them anew.  ``model``, ``stream`` and ``stream_options`` of a request and ``id``, ``model`` and
``created`` of a reply are the proxy's to set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from fidelity_corpus import Shape

PROXYS_IN_REQUESTS = ("model", "stream", "stream_options")
PROXYS_IN_REPLIES = ("id", "model", "created")
GROWING = ("content", "refusal", "reasoning_content")  # members of a message whose pieces a stream joins
PIECES = 3
MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Number:
    """A JSON number as its text, so that 1.0, 1 and 1e0 differ."""

    digits: str


@dataclass(frozen=True)
class Difference:
    """A member that arrived otherwise.

    ``is_harmless`` says that nothing was lost: a member was added, nulls were left out, or a number of the same value
    is written in another way.
    """

    where: str
    sent: str
    arrived: str
    is_harmless: bool = False

    def __str__(self) -> str:
        return f"{self.where}: sent {self.sent[:60]}, arrived {self.arrived[:60]}"


@dataclass(frozen=True)
class Finding:
    """What became of one shape."""

    shape: str
    request: tuple[Difference, ...]
    reply: tuple[Difference, ...]

    @property
    def is_faithful(self) -> bool:
        return not self.request and not self.reply

    @property
    def is_lossless(self) -> bool:
        return is_lossless(self.request) and is_lossless(self.reply)


def is_lossless(found: Iterable[Difference]) -> bool:
    return all(difference.is_harmless for difference in found)


async def findings(
    upstream: RecordingUpstream, base_url: str, model: str, shapes: Iterable[Shape], *, streamed: bool
) -> list[Finding]:
    """Send *shapes* one after the other through the proxy at *base_url*, which must have *upstream* behind it."""
    found = []
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, headers={"Authorization": "Bearer benchmark"}) as session:
        for shape in shapes:
            upstream.reply, upstream.received = shape.reply, []
            body = asked(shape, model, streamed)
            arrived = await _reply(session, base_url, body, streamed)
            found.append(Finding(shape.name, _request_differences(shape, upstream), _reply_differences(shape, arrived)))
    return found


def asked(shape: Shape, model: str, streamed: bool) -> bytes:
    """Return the body of the client's request."""
    more = {"model": model, **({"stream": True, "stream_options": {"include_usage": True}} if streamed else {})}
    return (json.dumps(more)[:-1] + ", " + shape.request.lstrip()[1:]).encode()


async def _reply(session: aiohttp.ClientSession, base_url: str, body: bytes, streamed: bool) -> Any:
    """Return the reply as parsed JSON, put together where it was streamed; text where it is no reply."""
    headers = {"Content-Type": "application/json"}
    try:
        async with session.post(f"{base_url}/chat/completions", data=body, headers=headers) as response:
            said = await response.read()
            if response.status != 200:
                return f"status {response.status}: {said[:200]!r}"
            return assembled(events(said)) if streamed else parsed(said)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _request_differences(shape: Shape, upstream: RecordingUpstream) -> tuple[Difference, ...]:
    if len(upstream.received) != 1:
        return (Difference("request", "once", f"{len(upstream.received)} times"),)
    arrived = parsed(upstream.received[0])
    return tuple(differences(parsed(shape.request), without(arrived, PROXYS_IN_REQUESTS), "request"))


def _reply_differences(shape: Shape, arrived: Any) -> tuple[Difference, ...]:
    if isinstance(arrived, str):
        return (Difference("reply", "a reply", arrived),)
    sent = parsed(shape.reply)
    if arrived.get("object") == "chat.completion.chunk":
        sent = assembled(chunks(sent))
    return tuple(differences(without(sent, PROXYS_IN_REPLIES), without(arrived, PROXYS_IN_REPLIES), "reply"))


# --- JSON --------------------------------------------------------------------------------------------------


def parsed(text: str | bytes) -> Any:
    """Return JSON whose numbers are their text; raises ``ValueError``."""
    return json.loads(text, parse_int=Number, parse_float=Number)


def written(value: Any) -> str:
    """Return parsed JSON as text again."""
    if isinstance(value, Number):
        return value.digits
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{written(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def without(value: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name not in names}


def differences(sent: Any, arrived: Any, where: str) -> Iterator[Difference]:
    """Yield where two JSON values differ; the order of members does not count."""
    if isinstance(sent, dict) and isinstance(arrived, dict):
        for name in [*sent, *(name for name in arrived if name not in sent)]:
            inside = f"{where}.{name}"
            if name not in arrived:
                yield Difference(inside, written(sent[name]), "nothing", is_void(sent[name]))
            elif name not in sent:
                yield Difference(inside, "nothing", written(arrived[name]), is_harmless=True)
            else:
                yield from differences(sent[name], arrived[name], inside)
    elif isinstance(sent, list) and isinstance(arrived, list) and len(sent) == len(arrived):
        for index, (one, other) in enumerate(zip(sent, arrived, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif sent != arrived:
        numbers = isinstance(sent, Number) and isinstance(arrived, Number)
        same = numbers and Decimal(sent.digits) == Decimal(arrived.digits)
        yield Difference(where, written(sent), written(arrived), same)


def is_void(value: Any) -> bool:
    """Say whether *value* is null, or an object or a list that holds nothing but nulls."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return all(member is None or (isinstance(member, dict | list) and is_void(member)) for member in members)


# --- streams -----------------------------------------------------------------------------------------------


def chunks(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Return *reply*, parsed, as a server would stream it: choices in turns, the usage last."""
    frame = {**without(reply, ("object", "choices", "usage")), "object": "chat.completion.chunk"}
    queues = [list(_choice_chunks(choice)) for choice in reply["choices"]]
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return [*({**frame, "choices": [turn]} for turn in turns), {**frame, "choices": [], "usage": reply["usage"]}]


def _choice_chunks(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what one choice is in each of its chunks."""
    message, logprobs = choice["message"], (choice.get("logprobs") or {}).get("content") or []
    frame: dict[str, Any] = {"index": choice["index"], "finish_reason": None}
    yield {**frame, "delta": {"role": message["role"], "content": "" if message.get("content") is not None else None}}
    for name in GROWING:
        for number, piece in enumerate(cut(message.get(name) or "")):
            tokens = cut(logprobs)[number : number + 1] if name == "content" and logprobs else []
            yield {**frame, "delta": {name: piece}, **({"logprobs": {"content": tokens[0]}} if tokens else {})}
    for index, tool_call in enumerate(message.get("tool_calls") or []):
        function, at = tool_call["function"], Number(str(index))
        yield {
            **frame,
            "delta": {"tool_calls": [{"index": at, **tool_call, "function": {**function, "arguments": ""}}]},
        }
        for piece in cut(function["arguments"]):
            yield {**frame, "delta": {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}}
    if rest := without(message, ("role", "tool_calls", *GROWING)):
        yield {**frame, "delta": rest}
    yield {**frame, "delta": {}, **without(choice, ("index", "message", "logprobs"))}


def cut(whole: Any) -> list[Any]:
    """Return a text or list in at most three pieces."""
    size = -(-len(whole) // PIECES) or 1
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def events(said: bytes) -> list[dict[str, Any]]:
    """Return the events of a body of server-sent events; raises ``ValueError`` where it does not end as it must."""
    lines = [line[5:].strip() for line in said.split(b"\n") if line.startswith(b"data:")]
    if not lines or lines[-1] != b"[DONE]":
        raise ValueError(f"the stream ended without [DONE]: {said[-100:]!r}")
    return [parsed(line) for line in lines[:-1]]


def assembled(stream: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the reply that the chunks of a stream add up to; ``choices`` is by index."""
    whole: dict[str, Any] = {"choices": {}}
    for event in stream:
        if "choices" not in event:
            raise ValueError(f"an event of the stream is no chunk: {written(event)[:200]}")
        whole |= without(event, ("choices",) if event.get("usage") else ("choices", "usage"))
        for piece in event["choices"]:
            choice = whole["choices"].setdefault(written(piece["index"]), {"message": {}, "finish_reason": None})
            _grow(choice, without(piece, ("index", "delta", "finish_reason", "logprobs")))
            _grow(choice["message"], piece["delta"])
            choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
            if piece.get("logprobs"):
                choice.setdefault("logprobs", []).extend(piece["logprobs"]["content"] or [])
    return whole


def _grow(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, piece in delta.items():
        if name == "tool_calls" and piece is not None:
            calls = message.setdefault("tool_calls", {})
            for tool_call in piece:
                _grow(calls.setdefault(written(tool_call["index"]), {}), without(tool_call, ("index",)))
        elif name == "function" and isinstance(piece, dict):
            _grow(message.setdefault("function", {}), piece)
        elif name in (*GROWING, "arguments") and isinstance(piece, str):
            message[name] = (message.get(name) or "") + piece
        elif piece is not None or name not in message:
            message[name] = piece


# --- the upstream ------------------------------------------------------------------------------------------


class RecordingUpstream:
    """A chat server on a loopback port, a free one for 0, that keeps the bodies it gets and answers as it is told."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.reply = ""
        self.received: list[bytes] = []
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "mock", "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(body)
        if not parsed(body).get("stream"):
            return web.Response(text=self.reply, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks(parsed(self.reply)):
            await response.write(f"data: {written(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
