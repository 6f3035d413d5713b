"""The watcher beside the workers of one server: a process that learns, and gives way to those that answer.

Guarantees: it starts and stops with its server, and does not outlive it, ``kill -9`` included; where it dies it is
started again, after pauses that grow, and whatever becomes of it, answers go on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from gainful.core import GainfulError
from gainful.proxy.desk import Plan
from gainful.proxy.log import log_to
from gainful.watch.process import watch

NICE = 10  # answers get nine tenths of a processor that both want (Linux, by its weights)
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0  # a task that cannot be learned from is tried again now and then, for its file may be mended
STEADY_S = 600.0  # whoever lived for so long died of something new
GRACE_S = 10.0  # to end a call under way; what is killed then goes on from the store

log = logging.getLogger("gainful.proxy")


class Companion:
    """The watcher of the tasks in *plan*, which names them in words; *clock* counts seconds."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self.process: BaseProcess | None = None
        self._plan = plan
        self._clock = clock
        self._spawn = multiprocessing.get_context("spawn")
        self._began_s = self._due_s = clock()
        self._pause_s = 0.0

    def look(self, *, is_wanted: bool) -> None:
        """Start it, the first time and whenever it has died and its pause is over; end it where it is not wanted.

        To be called every second or so.
        """
        now_s = self._clock()
        if not is_wanted:
            self._end()
            return
        if self.process is not None and not self.process.is_alive():
            self._mourn(self.process, now_s)
        if self.process is None and now_s >= self._due_s:
            self.process = self._spawn.Process(target=watch_for_server, args=(self._plan,))
            self.process.start()
            self._began_s = now_s

    def close(self) -> None:
        """End it and wait until it has; where that takes too long, it is killed."""
        if self.process is not None:
            self._end()
            self.process.join(GRACE_S)
            self.process.kill()
            self.process.join()

    def _mourn(self, dead: BaseProcess, now_s: float) -> None:
        is_new = now_s - self._began_s >= STEADY_S
        self._pause_s = FIRST_PAUSE_S if is_new else min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._due_s = now_s + self._pause_s
        self.process = None
        said = {"exit_code": dead.exitcode, "pid": dead.pid, "seconds": self._pause_s}
        log.error("the watcher ended and is started again after a pause", extra=said)

    def _end(self) -> None:
        if self.process is not None:
            self.process.terminate()


def watch_for_server(plan: Plan) -> None:
    """Watch, as a process of a server; what cannot begin says so in the log and ends with its exit code."""
    os.nice(NICE)
    log_to(sys.stderr)
    threading.Thread(target=_end_with_server, daemon=True).start()
    try:
        watch([str(spec) for spec in plan.tasks], str(plan.model), plan.store, price=plan.settings.price)
    except GainfulError as error:
        log.error("the watcher cannot start", extra={"reason": str(error)})
        sys.exit(error.exit_code)


def _end_with_server() -> None:
    server = multiprocessing.parent_process()
    if server is not None:
        wait([server.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
