"""Processes, sockets and signals: one worker in this process, or several that share a listening socket.

Guarantees: SIGTERM and SIGINT stop accepting, let requests under way end, and then end; a worker that dies is replaced
while the others go on; no process of ours outlives the server.  What a worker does is in ``worker``; where tasks
improve while they are served, a watcher goes along (``companion``), and a single worker is a process of its own too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from gainful.core import ServeError
from gainful.proxy.companion import Companion
from gainful.proxy.desk import Plan
from gainful.proxy.log import log_to
from gainful.proxy.metrics import forget
from gainful.proxy.worker import work, work_for_server

BACKLOG = 2048  # connections that wait while all workers are busy: beyond this the kernel turns callers away
LOOK_S = 1.0  # between two looks at the watcher
RESTART_S = 1.0  # between two deaths of one worker: a worker that cannot start must not spin

log = logging.getLogger("gainful.proxy")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at *host* and *port* (0: any free one); raises ``ServeError`` where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise ServeError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error
    return listening


def is_loopback(host: str) -> bool:
    """Say whether only this machine can connect to *host*.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def run(plan: Plan) -> None:
    """Serve until SIGTERM or SIGINT.  Raises ``ServeError`` where the server cannot start."""
    settings = plan.settings
    with listen(settings.host, settings.port) as listening, tempfile.TemporaryDirectory(prefix="gainful-") as scratch:
        plan = plan._replace(scratch=Path(scratch))
        if settings.workers == 1 and not settings.improve:
            work(plan, listening)
        else:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch  # where workers add their figures up
            _supervise(plan, listening)


def _supervise(plan: Plan, listening: socket.socket) -> None:
    """Keep so many workers alive; pass signals on; end when all have ended."""
    log_to(sys.stderr)
    crew, companion = Crew(plan, listening), Companion(plan) if plan.settings.improve else None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, crew.stop)
    for _ in range(plan.settings.workers):
        crew.start()
    with contextlib.closing(companion) if companion else contextlib.nullcontext():
        while crew.workers:
            wait([worker.sentinel for worker in crew.workers], timeout=LOOK_S)
            for dead in [worker for worker in crew.workers if not worker.is_alive()]:
                crew.replace(dead)
            if companion is not None:
                companion.look(is_wanted=not crew.is_stopping)
    if crew.is_refused:
        raise ServeError("no worker could start; the log above says why")


class Crew:
    """The workers of a server.  A worker that loses its server stops by itself (``worker``)."""

    def __init__(self, plan: Plan, listening: socket.socket) -> None:
        self.workers: list[BaseProcess] = []
        self._plan = plan
        self._listening = listening
        self._spawn = multiprocessing.get_context("spawn")  # a fork would copy locks and threads as they happen to be
        self.is_stopping = False
        self.is_refused = False  # a worker said why it cannot start, and the next one could not either

    def start(self) -> None:
        """Start one more, unless the server is stopping."""
        if not self.is_stopping:
            worker = self._spawn.Process(target=work_for_server, args=(self._plan, self._listening))
            worker.start()
            self.workers.append(worker)
            if self.is_stopping:  # the signal came while it started
                self._end(worker)

    def stop(self, *_: object) -> None:
        """Tell all to end what they are at, and then to end."""
        self.is_stopping = True
        for worker in self.workers:
            self._end(worker)

    def replace(self, dead: BaseProcess) -> None:
        """Start another in place of one that ended; one that said why it cannot start ends the server."""
        self.workers.remove(dead)
        forget(dead.pid or 0)
        if dead.exitcode == ServeError.exit_code:
            self.is_refused = True
            self.stop()
        if not self.is_stopping:
            log.error("a worker ended and is replaced", extra={"exit_code": dead.exitcode, "pid": dead.pid})
            time.sleep(RESTART_S)
            self.start()

    def _end(self, worker: BaseProcess) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid or 0, signal.SIGTERM)
