"""A vendor on loopback: one model behind a name, asked as OpenAI's is, and swapped for another without a word.

python vendor.py PORT GGUF OTHER_GGUF        POST /swap changes what answers
"""

from __future__ import annotations

import sys
from contextlib import aclosing

from aiohttp import web

from gainful.core import JsonObject, ModelError, RequestRefused, StreamingModel
from gainful.models import connect


class Vendor:
    """Answers with ``serving``; the other model waits."""

    def __init__(self, first: StreamingModel, other: StreamingModel) -> None:
        self.serving, self._other = first, other

    async def chat(self, asked: web.Request) -> web.StreamResponse:
        body: JsonObject = await asked.json()
        body.pop("model", None)
        try:
            if body.pop("stream", False):
                return await self._streamed(asked, body)
            reply = await self.serving.complete(body)
        except RequestRefused as error:
            return web.json_response({"error": {"message": str(error), "type": "invalid_request_error"}}, status=400)
        except ModelError as error:
            return web.json_response({"error": {"message": str(error), "type": "server_error"}}, status=500)
        return web.json_response({"model": "vendor-small", **reply.body})

    async def _streamed(self, asked: web.Request, body: JsonObject) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        async with aclosing(self.serving.stream(body)) as payloads:
            async for payload in payloads:
                await response.write(b"data: " + payload + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def swap(self, _: web.Request) -> web.Response:
        self.serving, self._other = self._other, self.serving
        return web.json_response({"serving": self.serving.name})


def main() -> None:
    port, first, other = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    vendor = Vendor(connect(first), connect(other))
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/v1/chat/completions", vendor.chat)
    app.router.add_post("/swap", vendor.swap)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
