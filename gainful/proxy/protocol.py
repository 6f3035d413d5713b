"""What a connection says where no handler can: of bytes that are no HTTP, and of what breaks outside the handlers.

Guarantees: such a reply is in OpenAI's error shape too; neither it nor a log line quotes anything of the request.
"""

from __future__ import annotations

from aiohttp import web

from gainful.core import ApiError
from gainful.proxy.replies import refusal

MALFORMED = "the request is not well-formed HTTP, or packed as this server cannot unpack; send plain HTTP/1.1"
UNMET = "the server cannot meet what the header Expect asks for; leave it out, or send 100-continue"


class Connection(web.RequestHandler):
    """One connection.  aiohttp refuses what its parser cannot read by itself, before there is a request to route."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the reply to a request that no handler has answered, and close the connection after it.

        *message* and *exc* quote the request.  The caller's own doing gets no line in the log, as everywhere here; of
        a fault of ours aiohttp writes one, of which the log keeps the kind alone.
        """
        if status < 500:
            response = refusal(ApiError(MALFORMED, status=status))
        else:
            super().handle_error(request, status, exc, message)  # raises where a reply has begun already
            response = refusal(TimeoutError() if exc is None else exc)
        response.force_close()
        return response


class Server(web.Server):
    """Makes a ``Connection`` for each caller, where aiohttp's own makes its plain one and takes no other class."""

    def __call__(self) -> Connection:
        """Return the protocol of a connection that was just accepted."""
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on a ``Server``: this is the one place in which aiohttp lets us choose it."""

    async def _make_server(self) -> Server:
        usual = await super()._make_server()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await usual.request_handler(request)
            except web.HTTPException as error:  # of the header Expect, which is read before any middleware begins
                return refusal(ApiError(UNMET, status=error.status))

        return Server(
            answer,
            request_factory=usual.request_factory,
            handler_cancellation=usual.handler_cancellation,
            **usual._kwargs,
        )
