"""A worker of the proxy in the test's own loop, on a real socket, with a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from gainful.core import Exchange, JsonObject, StreamingModel
from gainful.proxy.app import Front
from gainful.proxy.desk import Desk, Plan, open_desk
from gainful.proxy.protocol import Runner
from gainful.proxy.settings import Settings
from gainful.store import open_store
from gainful.tasks import Task

QUIET = Settings(keep_alive_s=0.05)


class Server(TestServer):
    """The test server on a worker's own connections."""

    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, **options)


@dataclass
class Proxy:
    """What a test asks, and what it looks into."""

    url: str
    desk: Desk
    place: Path
    http: aiohttp.ClientSession
    task: str
    stack: AsyncExitStack
    app: web.Application

    @property
    def model(self) -> str:
        return f"gainful/{self.task}"

    def openai(self, key: str = "none", **options: Any) -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)
        self.stack.push_async_callback(client.close)
        return client

    async def ask(
        self, body: JsonObject, headers: dict[str, str] | None = None
    ) -> tuple[int, JsonObject, dict[str, str]]:
        posted = self.http.post(f"{self.url}/v1/chat/completions", json={"model": self.model, **body}, headers=headers)
        async with posted as response:
            return response.status, await response.json(), dict(response.headers)

    async def streamed(self, body: JsonObject) -> str:
        streaming = {"model": self.model, "stream": True, **body}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=streaming) as response:
            return (await response.read()).decode()

    def stored(self) -> list[Exchange]:
        with open_store(self.place) as store:
            return store.exchanges(self.task)


@asynccontextmanager
async def serving(task: Task, model: StreamingModel, place: Path, settings: Settings = QUIET) -> AsyncIterator[Proxy]:
    """Serve *task* from the store at *place*."""
    async with AsyncExitStack() as stack:
        desk = await open_desk(Plan((task,), model, str(place), settings), stack)
        app = Front(desk).app()
        server = Server(app, handler_cancellation=True)
        await stack.enter_async_context(server)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Proxy(str(server.make_url("")).rstrip("/"), desk, place, http, task.name, stack, app)
