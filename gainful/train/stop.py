"""End from another thread what a worker does: a thread cannot be cancelled, and its worker can be killed."""

from __future__ import annotations

import threading
from contextlib import suppress
from subprocess import Popen

from gainful.core import Stopped


class Stop:
    """Set once: the worker of whoever holds it is killed, and who waits for that worker hears ``Stopped``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._worker: Popen[bytes] | None = None

    def set(self) -> None:
        """End what is under way, and what would begin."""
        with self._lock:
            self._is_set = True
            if self._worker is not None:
                self._worker.kill()

    def ends(self, worker: Popen[bytes]) -> None:
        """Kill *worker* when this is set."""
        with self._lock:
            self._worker = worker
            if self._is_set:
                worker.kill()

    def spares(self) -> None:
        """Let the worker live, whatever becomes of this."""
        with self._lock:
            self._worker = None

    def check(self) -> None:
        """Raise ``Stopped`` where this is set."""
        if self._is_set:
            raise Stopped("training was stopped; the same command goes on from its checkpoint")


def end(worker: Popen[bytes]) -> None:
    """End *worker* and all that it launched."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.kill()
    with suppress(OSError):  # what it never read is lost with it
        worker.stdin.close()
    worker.stdout.read()  # to the end: those that it launched have gone as well, and write no more files
    worker.stdout.close()
    worker.wait()
