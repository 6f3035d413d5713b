"""The dashboard of a store, without the proxy: a small server on this machine that reads and never writes."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from gainful.core import ApiError, ServeError
from gainful.dashboard.app import Dashboard
from gainful.store import Store, open_for_reading

HOST = "127.0.0.1"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def live_app(place: Path | str) -> web.Application:
    """Return the server of the store at *place*; the bare address leads to the page."""
    app = web.Application(middlewares=[_boundary])
    app.router.add_get("/", _to_the_page)
    Dashboard(_tasks, functools.partial(open_for_reading, place), None, with_text=True).mount(app)
    return app


async def show(place: Path | str, port: int, told: Callable[[str], None]) -> None:
    """Serve the dashboard of the store at *place* until SIGTERM or SIGINT; *told* is given its address.

    Raises ``StoreError`` where there is no store to read, ``ServeError`` where the port is taken.
    """
    with open_for_reading(place):
        pass  # what cannot be opened says so here rather than on the page
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner = web.AppRunner(live_app(place), handler_cancellation=True, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServeError(f"cannot listen at {HOST}:{port}: {reason}; choose another --port") from error
        told(f"http://{HOST}:{runner.addresses[0][1]}/dashboard")
        await stopped.wait()
    finally:
        await runner.cleanup()


def _tasks(store: Store) -> list[str]:
    return store.tasks()


async def _to_the_page(_: web.Request) -> web.Response:
    raise web.HTTPFound("/dashboard")


@web.middleware
async def _boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        body = msgspec.json.encode(error.shape())
        return web.Response(body=body, content_type="application/json", status=error.status)
