"""One pool of HTTP connections that speaks JSON, tied to the event loop it is used in.

What a status means is left to the models; here a reply is read whole or an ``OSError``, ``TimeoutError`` or
``aiohttp.ClientError`` says that it was not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import msgspec

from gainful.core import JsonObject, RequestRefused

JSON = {"Content-Type": "application/json"}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Response(NamedTuple):
    """A server's reply; ``body`` is its JSON, ``None`` where it is not JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any
    raw: bytes

    @property
    def text(self) -> str:
        """The reply as text, whatever it is."""
        return self.raw.decode(errors="replace")

    @property
    def said(self) -> JsonObject | None:
        """The reply where it is a JSON object, for an error to carry."""
        return self.body if isinstance(self.body, dict) else None

    @property
    def words(self) -> str:
        """The server's own words about an error: its message, else the start of its text."""
        return error_words(self.body) or self.text[:200]


class Session:
    """Posts to and reads from one base URL; opens at first use, closes with ``close`` and may then be used again."""

    def __init__(self, base_url: str, key: str | None, *, connections: int, timeout: aiohttp.ClientTimeout) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._connections = connections
        self._timeout = timeout
        self._client: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, path: str, body: JsonObject) -> Response:
        """Send *body* as JSON and read the reply; raises ``RequestRefused`` where *body* is no JSON."""
        async with await self.send(path, body) as response:
            return await read(response)

    async def get(self, path: str) -> Response:
        """Read what lies at *path*."""
        async with self._opened().get(self.base_url + path) as response:
            return await read(response)

    async def send(self, path: str, body: JsonObject, headers: Mapping[str, str] = JSON) -> aiohttp.ClientResponse:
        """Send *body* as JSON and give the reply unread, to be left with ``async with``.

        A reply that is left before its end closes its connection.  Where a connection kept from an earlier call turns
        out to be closed, the next is taken: the server let go of an idle connection, which is no answer.
        """
        raw, url = encoded(body), self.base_url + path
        while True:
            call = SimpleNamespace(reused=False)
            try:
                return await self._opened().post(url, data=raw, headers=headers, trace_request_ctx=call)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not call.reused:
                    raise

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=self._connections)
            self._client = aiohttp.ClientSession(
                headers=self._headers, timeout=self._timeout, connector=connector, trace_configs=[_reuse_seen()]
            )
            self._loop = loop
        return self._client


def _reuse_seen() -> aiohttp.TraceConfig:
    """Return what notes on a call whether its connection was kept from an earlier one."""

    async def note(_: aiohttp.ClientSession, call: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams) -> None:
        if call.trace_request_ctx is not None:
            call.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


async def read(response: aiohttp.ClientResponse) -> Response:
    """Read a reply to its end."""
    raw = await response.read()
    try:
        body = decoded(raw)
    except (ValueError, RecursionError):
        body = None
    return Response(response.status, response.headers, body, raw)


def error_words(body: Any) -> str:
    """Return the message of an error in OpenAI's form or one near to it; empty where there is none."""
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "")


def encoded(body: JsonObject) -> bytes:
    """Return *body* as JSON, half characters as escapes.

    Raises ``RequestRefused`` for what JSON has not: NaN, an infinity, an object that is no value.

    >>> encoded({"temperature": 1.0, "stop": "é", "seed": 2**70})
    b'{"temperature":1.0,"stop":"\\xc3\\xa9","seed":1180591620717411303424}'
    """
    try:
        raw = _encode(body)
    except UnicodeEncodeError:
        raw = b"null"
    except TypeError as error:
        raise RequestRefused(f"the request is no JSON ({error}); send plain values") from error
    if b"null" not in raw:
        return raw  # the fast encoder writes NaN as null, so here there is none
    try:
        slow = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RequestRefused(f"the request is no JSON ({error}); send plain values and finite numbers") from error
    return slow if raw == b"null" else raw


def decoded(raw: bytes | str) -> Any:
    """Return the JSON value in *raw*; raises ``ValueError`` where there is none.

    Half characters, and the NaN and infinities that some servers write among log-probabilities, are read too.
    """
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(raw.decode(errors="replace") if isinstance(raw, bytes) else raw)
