"""A real HTTP server that speaks chat completions and misbehaves as it is told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ChatServer:
    """Answers "hello" unless ``then`` holds behaviours: those are used up first, one a request."""

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
            return await self.then.pop(0)(request) if self.then else web.json_response(chat("hello"))
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
