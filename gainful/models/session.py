"""One pool of HTTP connections that answers with JSON, tied to the event loop it is used in.

What a status means is left to the models; here a reply is read whole or an ``OSError``, ``TimeoutError`` or
``aiohttp.ClientError`` says that it was not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp

from gainful.core import JsonObject


class Response(NamedTuple):
    """A server's reply; ``body`` is its JSON, ``None`` where it is not JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str

    @property
    def said(self) -> str:
        """The server's own words about an error: its message, else the start of its text."""
        error = self.body.get("error", self.body) if isinstance(self.body, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        return str(message or self.text[:200])


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
        """Send *body* as JSON."""
        return await self._ask("POST", path, body)

    async def get(self, path: str) -> Response:
        """Read what lies at *path*."""
        return await self._ask("GET", path, None)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()

    async def _ask(self, method: str, path: str, body: JsonObject | None) -> Response:
        async with self._opened().request(method, self.base_url + path, json=body) as response:
            text = (await response.read()).decode(errors="replace")
            try:
                parsed = json.loads(text)
            except ValueError:
                parsed = None
            return Response(response.status, response.headers, parsed, text)

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=self._connections)
            self._client = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout, connector=connector)
            self._loop = loop
        return self._client
