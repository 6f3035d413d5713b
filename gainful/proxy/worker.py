"""One process that answers: it opens the store, connects the models, and listens until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from gainful.core import GainfulError, ServeError
from gainful.proxy.app import Front
from gainful.proxy.desk import Plan, open_desk
from gainful.proxy.log import log_to
from gainful.proxy.metrics import Metrics
from gainful.proxy.protocol import Runner
from gainful.proxy.settings import Settings

SWITCH_S = 0.0005  # the recorder's thread gets its turn within this; Python's 5 ms would be seen in every p99
YOUNG_OBJECTS = 20_000  # between two looks at young objects; Python's 700 took 3 % of the time at 300 requests/s
LOOK_S = 1.0  # between two looks at the levels

log = logging.getLogger("gainful.proxy")


def work(plan: Plan, listening: socket.socket) -> None:
    """Answer at *listening* until SIGTERM or SIGINT; raises ``GainfulError`` where it cannot begin."""
    log_to(sys.stderr)
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_answer(plan, listening))


def work_for_server(plan: Plan, listening: socket.socket) -> None:
    """Do the same as one of several processes: what cannot begin says so in the log and ends with its exit code."""
    try:
        work(plan, listening)
    except GainfulError as error:
        log.error("a worker cannot start", extra={"reason": str(error)})
        sys.exit(error.exit_code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed: it saves a third of what a request costs us."""
    try:
        import uvloop
    except ImportError:  # it has no wheels for Windows
        return None
    return uvloop.new_event_loop


async def _answer(plan: Plan, listening: socket.socket) -> None:
    stopped = asyncio.Event()
    loop, server = asyncio.get_running_loop(), multiprocessing.parent_process()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if server is not None:
        loop.add_reader(server.sentinel, stopped.set)  # readable once the server is gone, kill -9 included
    async with AsyncExitStack() as stack:
        desk = await open_desk(plan, stack)
        runner = Runner(
            Front(desk).app(), handler_cancellation=True, access_log=None, shutdown_timeout=plan.settings.shutdown_s
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listening, ssl_context=_tls(plan.settings)).start()
        _quiet_collector()
        host, port = listening.getsockname()[:2]
        log.info("serving", extra={"host": host, "port": port, "models": sorted(desk.services)})
        looking = asyncio.create_task(_look(desk.metrics))
        stack.callback(looking.cancel)
        await stopped.wait()
        log.info("stopping")


def _quiet_collector() -> None:
    """Look for garbage rarely, and never in what was loaded before the first request: it would be seen in every p99."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


async def _look(metrics: Metrics) -> None:
    """Keep this worker's levels true for whichever worker is asked for them."""
    while True:
        metrics.look()
        await asyncio.sleep(LOOK_S)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Return how connections are encrypted; raises ``ServeError`` for files that hold no certificate and key."""
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ServeError(
            f"{settings.tls_certificate} and {settings.tls_key} are no certificate and key ({error}); give PEM files"
        ) from error
    return context
