"""A worker that has read or drawn is kept a while for what is asked next, since it takes five seconds to start one.

Guarantees: it ends a while after its last order, when it is to make room for a training, and with this process.
"""

from __future__ import annotations

import threading
from subprocess import Popen

from gainful.train.stop import end

IDLE_S = 20.0  # after which it has ended: of a base of 135 million weights it holds 0.7 GB


class Kept:
    """Keeps one worker at most, of orders for the same base."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Popen[bytes] | None = None
        self._clock: threading.Timer | None = None

    def take(self) -> Popen[bytes] | None:
        """Return the worker, which is no longer kept; ``None`` where there is none that lives."""
        worker = self._put(None)
        if worker is None or worker.poll() is None:
            return worker
        end(worker)
        return None

    def keep(self, worker: Popen[bytes]) -> None:
        """Keep *worker*, which waits for an order; another one that is kept is ended."""
        before = self._put(worker)
        if before is not None:
            end(before)

    def end(self) -> None:
        """End the worker that is kept."""
        worker = self.take()
        if worker is not None:
            end(worker)

    def _put(self, worker: Popen[bytes] | None) -> Popen[bytes] | None:
        """Put *worker* in the place of the one that is returned, and let its time begin."""
        with self._lock:
            before, self._worker = self._worker, worker
            if self._clock is not None:
                self._clock.cancel()
            self._clock = threading.Timer(IDLE_S, self.end) if worker else None
            if self._clock is not None:
                self._clock.daemon = True
                self._clock.start()
        return before
