"""A real HTTP server that speaks chat completions and misbehaves as it is told."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ChatServer:
    """Answers "hello", streamed where that is asked for.

    Where ``then`` holds behaviours, those are used up first, one a request.
    """

    def __init__(self, *then: Behaviour) -> None:
        self.then = list(then)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.running = self.most_running = 0
        self.app = web.Application()
        self.app.router.add_post("/v1/chat/completions", self._complete)
        self.app.router.add_get("/v1/models", self._models)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)  # let others in, so that what runs at once is seen to
            if self.then:
                return await self.then.pop(0)(request)
            if self.bodies[-1].get("stream"):
                return await streamed(*HELLO)(request)
            return web.json_response(chat("hello"))
        finally:
            self.running -= 1

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "small"}, {"id": "large"}]})


def chat(text: str) -> dict[str, Any]:
    """Return a reply body."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
        "system_fingerprint": "fp_1",
    }


def chunk(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0) -> bytes:
    """Return the payload of one event."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}).encode()


USAGE = b'{"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}'
BEGUN = (chunk({"role": "assistant", "content": ""}), chunk({"content": "hel"}), chunk({"content": "lo"}))
ENDED = (*BEGUN, chunk({}, "stop"), USAGE)
HELLO = (*ENDED, b"[DONE]")


def event(payload: bytes) -> bytes:
    """Return *payload* as an event of a stream."""
    return b"data: " + payload + b"\n\n"


def streamed(*payloads: bytes, piece: int = 1 << 20, then: Behaviour | None = None) -> Behaviour:
    """Stream *payloads* as events, *piece* bytes at a time, and go on as *then* says."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        sent = b"".join(map(event, payloads))
        for start in range(0, len(sent), piece):
            await response.write(sent[start : start + piece])
            await asyncio.sleep(0)
        return await then(request) if then else response

    return behave


def status(number: int, message: str = "because", headers: Mapping[str, str] | None = None, **error: str) -> Behaviour:
    """Answer with an error in the protocol's form."""

    async def behave(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": message, **error}}, status=number, headers=headers)

    return behave


def text(words: str) -> Behaviour:
    """Answer 200 with *words* as they are."""

    async def behave(_: web.Request) -> web.Response:
        return web.Response(text=words)

    return behave


async def hang(_: web.Request) -> web.Response:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def hang_up(request: web.Request) -> web.Response:
    """Close the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_off(request: web.Request) -> web.StreamResponse:
    """Promise more bytes than come."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response
