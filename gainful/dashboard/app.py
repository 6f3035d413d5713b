"""The dashboard's routes: the page, pictures of a task, and events that say what has changed.

Guarantees: only reads; the page loads nothing but the files of this package, and its policy lets no inline script run,
so that a text from traffic can do no harm even if it were not escaped.  Whoever must show a key for figures must show
one for pictures too; where no key is asked for, only a browser that called this machine by a loopback name is answered,
so that no other site's page can read prompts through it (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import msgspec
from aiohttp import web

from gainful.answers.rule import METHODS
from gainful.core import ApiError, StoreError
from gainful.dashboard.data import Reader
from gainful.dashboard.feed import Feed
from gainful.store import Store
from gainful.tasks.own import shared_name

ASSETS = files("gainful.dashboard") / "assets"
KINDS = {
    "page.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "plots.js": "text/javascript",
    "uplot.iife.min.js": "text/javascript",
    "uplot.min.css": "text/css",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")

_encode = msgspec.json.Encoder().encode


class Dashboard:
    """The routes under /dashboard.

    *tasks* names what can be looked at, given an open store; *opened* opens the store for reading; *admit* raises
    ``ApiError`` for a request that shows no key, and is ``None`` where nobody has to.  *methods* are those that each
    task is served with, where that is known.
    """

    def __init__(
        self,
        tasks: Callable[[Store], Sequence[str]],
        opened: Callable[[], Store],
        admit: Callable[[web.Request], Any] | None,
        methods: Mapping[str, Sequence[str]] = MappingProxyType({}),
        *,
        with_text: bool,
    ) -> None:
        self._tasks = tasks
        self._methods = methods
        self._opened = opened
        self._admit = admit
        self._with_text = with_text
        self._feeds: dict[str, Feed] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gainful-dashboard")

    def mount(self, app: web.Application) -> None:
        """Add the routes to *app*, and let its end end the streams."""
        app.router.add_get("/dashboard", self.page)
        app.router.add_get("/dashboard/tasks", self.names)
        app.router.add_get("/dashboard/data/{task}", self.data)
        app.router.add_get("/dashboard/events", self.events)
        app.router.add_get("/dashboard/assets/{name}", self.asset)
        app.on_shutdown.append(self._shut)
        app.on_cleanup.append(self._clean)

    async def page(self, _: web.Request) -> web.Response:
        """Answer GET /dashboard: the page, which holds nothing yet."""
        return _file("page.html", {"Content-Security-Policy": POLICY})

    async def asset(self, request: web.Request) -> web.Response:
        """Answer GET /dashboard/assets/NAME: a file of the page."""
        name = request.match_info["name"]
        if name not in KINDS:
            raise web.HTTPNotFound
        return _file(name, {})

    async def names(self, request: web.Request) -> web.Response:
        """Answer GET /dashboard/tasks: the names of the tasks."""
        self._check(request)
        return _json(await self._known())

    async def data(self, request: web.Request) -> web.Response:
        """Answer GET /dashboard/data/TASK: one picture."""
        self._check(request)
        feed = await self._feed(request.match_info["task"])
        with _as_refusal():
            return _json(await feed.picture())

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /dashboard/events?task=TASK: what changes, as server-sent events."""
        self._check(request)
        feed = await self._feed(request.query.get("task", ""))
        response = web.StreamResponse(
            headers=HEADERS | {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        async with contextlib.aclosing(feed.changes()) as changes:
            async for change in changes:
                await response.write(change)
        return response

    # --- who may look, and at what

    def _check(self, request: web.Request) -> None:
        if self._admit is not None:
            self._admit(request)
        elif (request.url.host or "") not in LOOPBACK:
            raise ApiError(
                f"the dashboard was asked for as {request.host!r}; without keys it answers to localhost alone, so open "
                "it by that name or run the server with --require-keys",
                status=403,
            )

    async def _known(self) -> list[str]:
        with _as_refusal():
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._read_tasks)

    def _read_tasks(self) -> list[str]:
        with self._opened() as store:
            return list(self._tasks(store))

    async def _feed(self, task: str) -> Feed:
        if task not in self._feeds:
            if task not in await self._known():
                raise ApiError(f"there is no task {task!r} here; GET /dashboard/tasks names them", status=404)
            reader = Reader(task, methods=self._methods.get(shared_name(task), METHODS), with_text=self._with_text)
            self._feeds.setdefault(task, Feed(reader, self._opened, self._thread))
        return self._feeds[task]

    async def _shut(self, _: web.Application) -> None:
        for feed in self._feeds.values():
            feed.close()

    async def _clean(self, _: web.Application) -> None:
        self._thread.shutdown(wait=False)


@contextlib.contextmanager
def _as_refusal() -> Iterator[None]:
    """Tell whoever looks why the store cannot be read: it is no fault of the server's."""
    try:
        yield
    except StoreError as error:
        raise ApiError(str(error), status=503) from error


def _file(name: str, headers: dict[str, str]) -> web.Response:
    body = (ASSETS / name).read_bytes()
    return web.Response(body=body, content_type=KINDS[name], charset="utf-8", headers=HEADERS | headers)


def _json(value: Any) -> web.Response:
    return web.Response(
        body=_encode(value), content_type="application/json", headers=HEADERS | {"Cache-Control": "no-store"}
    )
